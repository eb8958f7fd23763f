"""Interpolate between digits along three kinds of curve, and draw them over the latent plane.

    python examples/interpolation.py [--output-dir outputs/interpolation] [--quick]

``potential.png``: curves that minimise the potential ``1 / sqrt(det G)`` of the posterior metric,
against straight lines (Chadebec and Allassonnière, NeurIPS 2022). ``geodesics.png``: geodesics of
the decoder's pullback metric, against straight lines (Kalatzis et al., ICML 2020, figure 1). Prints
what the curves minimise, against the straight line.
"""

import os

import lib.quiet
import matplotlib.pyplot as plt
import torch
from lib.figures import save
from lib.training import fit
from pythae.models import VAE, VAEConfig

from pythae_geometric import (
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
    interpolate,
    plotting,
)
from pythae_geometric.commands.arguments import parser
from pythae_geometric.commands.data import digits
from pythae_geometric.geometry import PullbackMetric
from pythae_geometric.models.decoder_map import DecoderMap

# Pairs of digits to join, by their labels.
PAIRS = [(6, 3), (0, 1), (4, 2)]


def medoid(x, means, labels, label):
    """The image of a class whose code is nearest to the class's mean code."""
    members = (labels == label).nonzero().squeeze(1)
    distance = (means[members] - means[members].mean(0)).norm(dim=1)
    return x[members[distance.argmin()]]


def draw(metric, background, line, curve, smooth, title):
    """Lines and curves on the map of ``metric``, and the strips that they decode to."""
    figure, axes = plt.subplots(
        1, 2, figsize=(14, 5.5), layout="constrained", width_ratios=[1.25, 1]
    )
    figure.get_layout_engine().set(wspace=0.04)
    plotting.latent_map(metric, *background, ax=axes[0])
    plotting.draw_curves(axes[0], line.latent, "Line", linestyle="--")
    plotting.draw_curves(axes[0], smooth, title, linewidth=2)
    strips = torch.stack([line.reconstructions, curve.reconstructions], 1).flatten(0, 2)
    plotting.image_grid(strips, columns=10, ax=axes[1])
    axes[1].set_title(f"Each pair of rows: line, {title.lower()}")
    return figure


def main():
    args = parser(__doc__, "outputs/interpolation").parse_args()
    lib.quiet.settle()
    plt.rcParams.update(plotting.STYLE)
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
    config = MetricUniformHMCSamplerConfig(metric="posteriors", seed=0)
    sampler = MetricUniformHMCSampler(model, config)
    sampler.fit(x)
    posterior, decode = sampler.metric, DecoderMap(model)

    def potential(c):
        """The integral of the potential over the length of a curve ``[T, d]``."""
        middle, step = (c[1:] + c[:-1]) / 2, c.diff(dim=0).norm(dim=1)
        return float((torch.exp(-posterior.log_volume(middle)) * step).sum())

    def length(c):
        return float(decode(c).detach().diff(dim=0).norm(dim=1).sum())

    ways = "potential along the way", "length of the decoded curve"
    kinds = {  # what is drawn, the map below it, and what it minimises
        "potential": ("Potential path", posterior, posterior, ways[0], potential),
        "geodesic": ("Geodesic", PullbackMetric(decode), None, ways[1], length),
    }
    for path, (title, below, metric, name, minimised) in kinds.items():
        line, straight = (interpolate(model, *ends, "line", granularity=n) for n in (10, 200))
        curve, smooth = (interpolate(model, *ends, path, metric, granularity=n) for n in (10, 200))
        figure = draw(below, (means, labels), line, curve, smooth.latent, title)
        save(figure, folder, "potential.png" if path == "potential" else "geodesics.png", dpi=110)
        for (a, b), *pair in zip(PAIRS, straight.latent, smooth.latent, strict=True):
            before, after = map(minimised, pair)
            print(f"{name} from {a} to {b}: line {before:.4g}, curve {after:.4g}")
    print(f"Look at potential.png and geodesics.png in {folder}.")


if __name__ == "__main__":
    main()
