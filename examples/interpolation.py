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

import argparse
import os

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from pythae.models import VAE, VAEConfig
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from sklearn.datasets import load_digits

from pythae_geometric import (
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
    interpolate,
    plotting,
)
from pythae_geometric.geometry import PullbackMetric

# Pairs of digits to join, by their labels.
PAIRS = [(6, 3), (0, 1), (4, 2)]


def train(data, epochs, folder):
    torch.manual_seed(0)
    model = VAE(VAEConfig(input_dim=(1, 8, 8), latent_dim=2, reconstruction_loss="bce"))
    config = BaseTrainerConfig(
        output_dir=folder,
        num_epochs=epochs,
        learning_rate=1e-3,
        per_device_train_batch_size=100,
    )
    TrainingPipeline(model=model, training_config=config)(train_data=data)
    return model.eval()


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


def along(metric, c):
    """The integral of the potential over the length of a curve ``[T, d]``."""
    middle, step = (c[1:] + c[:-1]) / 2, c.diff(dim=0).norm(dim=1)
    return (torch.exp(-metric.log_volume(middle)) * step).sum()


def report(name, values):
    line, curve = (value.item() for value in values)
    print(f"{name}: line {line:.4g}, curve {curve:.4g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", default="outputs/interpolation")
    parser.add_argument("--quick", action="store_true", help="three epochs, to see that it runs")
    args = parser.parse_args()
    folder = args.output_dir
    os.makedirs(folder, exist_ok=True)
    digits = load_digits()
    x = torch.as_tensor((digits.images[:, None] / 16).astype(np.float32))
    labels = torch.as_tensor(digits.target)
    model = train(x, 3 if args.quick else 150, os.path.join(folder, "training"))
    with torch.no_grad():
        means = model.encoder(x).embedding
    ends = [torch.stack([medoid(x, means, labels, pair[i]) for pair in PAIRS]) for i in (0, 1)]
    background = means, labels

    config = MetricUniformHMCSamplerConfig(metric="posteriors", seed=0)
    sampler = MetricUniformHMCSampler(model, config)
    sampler.fit(x)
    posterior = sampler.metric
    file = os.path.join(folder, "potential.png")
    path = figure(
        model, posterior, posterior, "potential", ends, background, "Potential path", file
    )
    straight = interpolate(model, *ends, "line", granularity=200).latent
    for pair, line, curve in zip(PAIRS, straight, path, strict=True):
        values = [
            (
                torch.exp(-posterior.log_volume((c[1:] + c[:-1]) / 2)) * c.diff(dim=0).norm(dim=1)
            ).sum()
            for c in (line, curve)
        ]
        report(f"potential along the way from {pair[0]} to {pair[1]}", values)

    def decode(z):
        return model.decoder(z)["reconstruction"]

    pullback = PullbackMetric(decode)
    file = os.path.join(folder, "geodesics.png")
    path = figure(model, pullback, None, "geodesic", ends, background, "Geodesic", file)
    for pair, line, curve in zip(PAIRS, straight, path, strict=True):
        values = [decode(c).flatten(1).diff(dim=0).norm(dim=1).sum() for c in (line, curve)]
        report(f"length of the decoded curve from {pair[0]} to {pair[1]}", values)
    print(f"Look at potential.png and geodesics.png in {folder}.")


if __name__ == "__main__":
    main()
