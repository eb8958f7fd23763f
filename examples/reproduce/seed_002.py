"""A geometric perspective on variational autoencoders: the studies of seed 002.

    python examples/reproduce/seed_002.py [--data digits] [--seeds 3] [--output-dir FOLDER]

Chadebec and Allassonnière (NeurIPS 2022) sample the uniform law of a model's Riemannian latent
space. Here: the influence of the number of centroids, of the regularisation lambda and of the
number of training images; the method on VAMP, IWAE, Adversarial_AE and VAEGAN against their priors;
and interpolations. Measures are on test images, in the features of a small classifier, with as many
samples as images. Nothing is chosen here, so no validation images are needed (they choose the epoch
of each model). The tables of all samplers and models are those of examples/benchmark.py; the same
--output-dir shares its trained models. Writes seed_002.md, seed_002.json and pictures; rows are
kept in OUTPUT_DIR/rows, and a run that was interrupted goes on from there.
"""

import argparse
import copy
import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import benchmark  # sets the backend of matplotlib, and silences the bars of trainings
import matplotlib.pyplot as plt
import numpy as np
import torch
from benchmark import PRIORS, Judge, Row, feature_network, load_subset, spread, trained_model
from common import DEVICE, settle
from pythae.samplers import GaussianMixtureSamplerConfig, NormalSamplerConfig

from pythae_geometric import (
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
    interpolate,
    plotting,
)

MODELS = ("VAMP", "IWAE", "Adversarial_AE", "VAEGAN")
MEASURES = {"frechet": 2, "recall": 3, "precision": 3, "coverage": 3, "nearest": 2}


def additive(model, data, seed):
    """The setting in which volumes add, of all training images as centroids."""
    return MetricUniformHMCSamplerConfig(
        num_centroids=min(len(data.train), 2000),
        centroid_selection="random",
        additive_volume=True,
        temperature=1.4 * model.latent_dim**0.5,
        mcmc_steps_nbr=20,
        n_lf=5,
        eps_lf=0.2,
        seed=seed,
    )


class Studies:
    """Rows of results of samplers on models, each computed once."""

    def __init__(self, args):
        self.args, self.data = args, load_subset(args)
        self.judge = Judge(self.data, feature_network(args, self.data))
        self.rows = []

    def model(self, name, seed, count=None):
        """A model trained on all training images, or on the first ``count``."""
        args, data = self.args, self.data
        if count is not None and count < len(data.train):
            args = copy.copy(args)
            args.output_dir = os.path.join(args.output_dir, f"train_{count}")
            labels = None if data.train_labels is None else data.train_labels[:count]
            data = data._replace(train=data.train[:count], train_labels=labels)
        return trained_model(name, seed, args, data)[0], data

    def add(self, study, value, sampler, seed, model, data, config):
        row = Row(self.args.output_dir, "seed_002", study, value, sampler, seed)
        found = row.load()
        if found is None:
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002  (scikit-learn's mixture draws from it)
            count = 2 * len(self.data.test)
            folder = os.path.join(self.args.output_dir, "models")
            images = benchmark.generate(model, config, count, data, folder, self.args)
            measures = self.judge.measure(images)["test"]
            found = row.save(
                {"study": study, "value": value, "sampler": sampler, "seed": seed, **measures}
            )
        self.rows.append(found)
        print(f"{study} {value}, {sampler}, seed {seed}: {found['frechet']:.2f}", flush=True)


def run(studies, centroids, regularizations, counts, models, seeds):
    for seed in range(seeds):
        model, data = studies.model("VAE", seed)
        for k in centroids:
            config = MetricUniformHMCSamplerConfig(num_centroids=k, seed=seed)
            studies.add("centroids", k, "HMC", seed, model, data, config)
        for lam in regularizations:
            config = MetricUniformHMCSamplerConfig(regularization=lam, seed=seed)
            studies.add("lambda", lam, "HMC", seed, model, data, config)
        for count in counts:
            model, data = studies.model("VAE", seed, count)
            samplers = {
                "prior": NormalSamplerConfig(),
                "Gaussian mixture": GaussianMixtureSamplerConfig(n_components=10),
                "HMC": MetricUniformHMCSamplerConfig(num_centroids=min(100, count // 2), seed=seed),
                "HMC, additive volumes": additive(model, data, seed),
            }
            for name, config in samplers.items():
                studies.add("images", count, name, seed, model, data, config)
        for name in models:
            model, data = studies.model(name, seed)
            samplers = {
                "prior": PRIORS.get(name, NormalSamplerConfig)(),
                "HMC": MetricUniformHMCSamplerConfig(seed=seed),
                "HMC, additive volumes": additive(model, data, seed),
            }
            for sampler, config in samplers.items():
                studies.add("model", name, sampler, seed, model, data, config)


def tables(rows, seconds, args):
    flags = " --quick" if args.quick else ""
    lines = [
        "# A geometric perspective on variational autoencoders: results",
        "",
        f"`python examples/reproduce/seed_002.py --data {args.data}{flags}`, {seconds / 60:.0f} "
        f"minutes of wall time. Latent dimension {args.latent_dim}, {args.epochs} epochs; mean ± "
        f"standard deviation over {args.seeds} seeds. HMC is the paper's setting (100 centroids, "
        "lambda 0.01) where nothing else is said. Nearest: median distance to the nearest training "
        "image, that of a test image being 1.",
    ]
    titles = {
        "centroids": "Influence of the number of centroids",
        "lambda": "Influence of lambda",
        "images": "Influence of the number of training images",
        "model": "The method on other models, against their priors",
    }
    for study, title in titles.items():
        lines += ["", f"## {title}", ""]
        lines.append(f"| {study} | sampler | Fréchet ↓ | F8 ↑ | F1/8 ↑ | coverage ↑ | nearest |")
        lines.append("|---" * 7 + "|")
        mine = [row for row in rows if row["study"] == study]
        for value, sampler in dict.fromkeys((row["value"], row["sampler"]) for row in mine):
            group = [row for row in mine if (row["value"], row["sampler"]) == (value, sampler)]
            cells = [spread([row[m] for row in group], d) for m, d in MEASURES.items()]
            lines.append(f"| {value} | {sampler} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw_studies(rows, path):
    """Fréchet distance against the number of centroids, lambda and the number of images."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    labels = ("Centroids", "$\\lambda$", "Training images")
    for ax, study, label in zip(axes, ("centroids", "lambda", "images"), labels, strict=True):
        mine = [row for row in rows if row["study"] == study]
        for sampler in dict.fromkeys(row["sampler"] for row in mine):
            values = sorted({row["value"] for row in mine})
            scores = [
                [r["frechet"] for r in mine if (r["value"], r["sampler"]) == (v, sampler)]
                for v in values
            ]
            ax.errorbar(
                values,
                [np.mean(s) for s in scores],
                [np.std(s, ddof=min(1, len(s) - 1)) for s in scores],
                label=sampler,
                marker="o",
                capsize=3,
            )
        ax.set(xscale="log", xlabel=label)
    axes[0].set_ylabel("Fréchet distance")
    axes[2].legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_interpolations(model, data, seed, path):
    """Between pairs of test images of different classes: lines and curves of least potential."""
    sampler = MetricUniformHMCSampler(model, MetricUniformHMCSamplerConfig(seed=seed))
    sampler.fit(data.train)
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(seed))
    a, b = data.test[order[:4]].to(DEVICE), data.test[order[4:8]].to(DEVICE)
    figure, axes = plt.subplots(3, 1, figsize=(8, 9), layout="constrained")
    titles = {
        "line": "Lines",
        "potential": "Curves that minimise $1/\\sqrt{\\det G}$, metric of the posteriors",
        "geodesic": "Geodesics of the metric that the decoder pulls back",
    }
    for ax, (kind, title) in zip(axes, titles.items(), strict=True):
        metric = sampler.metric if kind == "potential" else None
        strips = interpolate(model, a, b, kind, metric, granularity=12).reconstructions
        plotting.image_grid(strips.flatten(0, 1), columns=12, title=title, ax=ax)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits", help="digits, or the name of a folder of data")
    parser.add_argument("--data-dir", default="data", help="where that folder is")
    parser.add_argument("--networks", default="default", choices=("default", "convnet", "resnet"))
    parser.add_argument("--features", default="classifier", choices=("classifier", "inception"))
    parser.add_argument("--latent-dim", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--output-dir", default="outputs/benchmark")
    parser.add_argument("--quick", action="store_true", help="two epochs, to see that it runs")
    args = parser.parse_args()
    settle()
    args.flow_epochs, args.likelihoods, args.importance_samples = 50, 5, 10
    args.classifiers = 1
    centroids, regularizations = (2, 10, 50, 100, 200, 500), (1e-4, 1e-2, 1e-1, 1.0, 10.0)
    counts, models = (100, 250, 500, 1000), MODELS
    if args.quick:
        args.epochs, args.seeds = 2, 1
        centroids, regularizations, counts, models = (2, 100), (0.01, 1.0), (100,), ("IWAE",)
    os.makedirs(args.output_dir, exist_ok=True)
    base = os.path.join(args.output_dir, "seed_002")
    start, earlier = time.perf_counter(), benchmark.earlier_seconds(base + ".json")
    studies = Studies(args)
    run(studies, centroids, regularizations, counts, models, args.seeds)
    seconds = earlier + time.perf_counter() - start
    text = tables(studies.rows, seconds, args)
    with open(base + ".md", "w", encoding="utf-8") as file:
        file.write(text)
    with open(base + ".json", "w", encoding="utf-8") as file:
        json.dump({"wall_seconds": seconds, "rows": studies.rows}, file, indent=1)
    draw_studies(studies.rows, base + "_studies.png")
    draw_interpolations(*studies.model("VAE", 0), 0, base + "_interpolation.png")
    print(text)


if __name__ == "__main__":
    main()
