"""Interpolate between digits along three kinds of curve, and draw them over the latent plane.

    python examples/interpolation.py [--output-dir outputs/interpolation] [--quick]

Writes two pictures, each a latent map with the curves on it, and their decoded strips:

- ``potential.png``: curves that minimise the potential ``1 / sqrt(det G)`` of the posterior metric,
  against straight lines (Chadebec and Allassonnière, NeurIPS 2022);
- ``geodesics.png``: geodesics of the decoder's pullback metric, against straight lines (Kalatzis et
  al., ICML 2020, figure 1).

Prints what the curves minimise, against the straight line: the potential along the way, and the
length of the decoded curve.
"""

import os

import lib.quiet
import matplotlib.pyplot as plt
import torch
from lib.arguments import parser
from lib.data import digits
from lib.training import fit
from pythae.models import VAE, VAEConfig

from pythae_geometric import (
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
    interpolate,
    plotting,
)
from pythae_geometric.geometry import PullbackMetric
from pythae_geometric.models.decoder_map import DecoderMap

# Pairs of digits to join, by their labels.
PAIRS = [(6, 3), (0, 1), (4, 2)]


def medoid(x, means, labels, label):
    """The image of a class whose code is nearest to the class's mean code."""
    members = (labels == label).nonzero().squeeze(1)
    distance = (means[members] - means[members].mean(0)).norm(dim=1)
    return x[members[distance.argmin()]]


def figure(model, metric, curve_metric, path, ends, background, title, file):
    """Lines and curves on the map of ``metric``, and the strips that they decode to."""
    means, labels = background
    line = interpolate(model, *ends, "line", granularity=10)
    curve = interpolate(model, *ends, path, curve_metric, granularity=10)
    smooth = interpolate(model, *ends, path, curve_metric, granularity=200).latent
    panes, axes = plt.subplots(
        1, 2, figsize=(14, 5.5), layout="constrained", width_ratios=[1.25, 1]
    )
    plotting.latent_map(metric, means, labels, ax=axes[0])
    plotting.draw_curves(axes[0], line.latent, "Line", color="white", linestyle="--")
    plotting.draw_curves(axes[0], smooth, title, color="cyan")
    strips = torch.stack([line.reconstructions, curve.reconstructions], 1).flatten(0, 2)
    plotting.image_grid(strips, columns=10, ax=axes[1])
    axes[1].set_title(f"Each pair of rows: line, {title.lower()}")
    panes.savefig(file, dpi=110)
    return smooth


def potential(metric, c):
    """The integral of the potential over the length of a curve ``[T, d]``."""
    middle, step = (c[1:] + c[:-1]) / 2, c.diff(dim=0).norm(dim=1)
    return float((torch.exp(-metric.log_volume(middle)) * step).sum())


def main():
    p = parser(__doc__)
    p.add_argument("--output-dir", default="outputs/interpolation")
    p.add_argument("--quick", action="store_true", help="three epochs, to see that it runs")
    args = p.parse_args()
    lib.quiet.settle()
    folder = args.output_dir
    x, labels = digits()
    torch.manual_seed(0)
    model = VAE(VAEConfig(input_dim=(1, 8, 8), latent_dim=2, reconstruction_loss="bce"))
    fields = {"num_epochs": 3 if args.quick else 150, "learning_rate": 1e-3}
    fit(model, x, os.path.join(folder, "training"), per_device_train_batch_size=100, **fields)
    model.eval()
    with torch.no_grad():
        means = model.encoder(x).embedding
    ends = [torch.stack([medoid(x, means, labels, pair[i]) for pair in PAIRS]) for i in (0, 1)]
    background = means, labels

    sampler = MetricUniformHMCSampler(
        model, MetricUniformHMCSamplerConfig(metric="posteriors", seed=0)
    )
    sampler.fit(x)
    posterior, decode = sampler.metric, DecoderMap(model)
    straight = interpolate(model, *ends, "line", granularity=200).latent

    file = os.path.join(folder, "potential.png")
    path = figure(
        model, posterior, posterior, "potential", ends, background, "Potential path", file
    )
    for pair, line, curve in zip(PAIRS, straight, path, strict=True):
        a, b = potential(posterior, line), potential(posterior, curve)
        ways = f"from {pair[0]} to {pair[1]}: line {a:.4g}, curve {b:.4g}"
        print(f"potential along the way {ways}")

    file = os.path.join(folder, "geodesics.png")
    path = figure(
        model, PullbackMetric(decode), None, "geodesic", ends, background, "Geodesic", file
    )
    for pair, line, curve in zip(PAIRS, straight, path, strict=True):
        a, b = (float(decode(c).detach().diff(dim=0).norm(dim=1).sum()) for c in (line, curve))
        ways = f"from {pair[0]} to {pair[1]}: line {a:.4g}, curve {b:.4g}"
        print(f"length of the decoded curve {ways}")
    print(f"Look at potential.png and geodesics.png in {folder}.")


if __name__ == "__main__":
    main()
