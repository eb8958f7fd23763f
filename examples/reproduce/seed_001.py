r"""Variational autoencoders with Riemannian Brownian motion priors: the tables and figures.

    python examples/reproduce/seed_001.py [--output-dir outputs/seed_001] [--quick]
        [--data digits|FOLDER] [--dims 2 5 10] [--seeds 3]

The R-VAE of K. Jurasz and P. Pietrzak's reproduction of Kalatzis et al. (ICML 2020), against a VAE
with the same networks, the same precision network and the same budget, on the digits of
scikit-learn, or on images in pythae's convention (``FOLDER/train_data.npz`` and
``eval_data.npz``, key ``data`` in 0-255, channel first, and ``labels`` for table 2), such as
``data/fashion_mnist``. Writes ``seed_001.md``, ``seed_001.json`` and the pictures.

Four models, in two phases each:

  VAE        posterior N(m(x), diag v(x)), prior N(0, I); sigma = 1 in the first phase, then
             everything is trained
  flat       a first phase as that of the R-VAE, without any prior; then the same posterior and a
             prior N(a, diag b) with learned a and b, and the mean decoder fixed as in the R-VAE:
             this differs from the R-VAE by its laws alone
  flat free  the same, with the mean decoder trained in the second phase too
  R-VAE      BrownianRVAE

Likelihood and negative ELBO are those of N(x; mu(z), sigma(z)^2) with all constants, in nats, on
test data. For the R-VAE the geodesics are solved to convergence, two samples each test point.
"published" is what the published code would report for the same R-VAE: posterior samples from a
flat Gaussian that are scored as a heat kernel, ½ Σ |f(γ_i+1) - f(γ_i)|² over 16 points taken for
l², and the absolute value of the difference.
"""

import argparse
import json
import logging
import math
import os
import tempfile
import time
import warnings

os.environ.setdefault("TQDM_DISABLE", "1")

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from scipy.stats import gaussian_kde
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning as Unconverged
from sklearn.metrics import f1_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import pythae_geometric
from pythae_geometric import plotting
from pythae_geometric.geometry import ConvergenceWarning, geodesic
from pythae_geometric.models.brownian_rvae import BrownianRVAE, BrownianRVAEConfig
from pythae_geometric.models.brownian_rvae.distributions import BrownianPosterior
from pythae_geometric.models.brownian_rvae.phases import CodeStatistics
from pythae_geometric.models.brownian_rvae.stochastic_decoder import gaussian_log_prob
from pythae_geometric.samplers.brownian_motion import (
    BrownianMotionSampler,
    BrownianMotionSamplerConfig,
)

pythae_geometric.register(BrownianRVAE, BrownianRVAEConfig)
LOG_2PI = math.log(2 * math.pi)


class VAE(BrownianRVAE):
    """The VAE to compare with: the same networks and phases, a flat posterior and prior."""

    fixed_mean = False

    def __init__(self, model_config, encoder=None, decoder=None):
        super().__init__(model_config, encoder, decoder)
        last = self.encoder.embedding
        self.encoder.log_time = torch.nn.Linear(last.in_features, last.out_features)

    def update(self):
        self.epochs_done += 1
        if int(self.epochs_done) == self.model_config.warmup_epochs:
            self.begin_second_phase(self._statistics.codes)
            self._statistics = CodeStatistics()

    def begin_second_phase(self, codes):
        self.std.place(codes, self._statistics.variance)

    def forward(self, inputs, **kwargs):
        x = inputs["data"]
        self.decoder.requires_grad_(self.in_warmup or not self.fixed_mean)
        m, log_v, z, reg_loss = self.encode(x)
        recon_x = self.decoder(z)["reconstruction"]
        mean = recon_x.flatten(1)
        std = torch.ones_like(mean) if self.in_warmup else self.std(z)
        recon_loss = -gaussian_log_prob(x.flatten(1), mean, std).mean()
        loss = recon_loss + reg_loss
        if self.in_warmup:
            loss = loss.double() + 1e9
            if self.training and int(self.epochs_done) == self.model_config.warmup_epochs - 1:
                self._statistics.add(m, log_v, x.flatten(1) - mean)
        return ModelOutput(
            loss=loss, recon_loss=recon_loss, reg_loss=reg_loss, recon_x=recon_x, z=z
        )

    def encode(self, x):
        m, log_v, z = self.sample(x)
        return m, log_v, z, self.divergence(m, log_v).mean()

    def sample(self, x):
        encoded = self.encoder(x)
        m, log_v = encoded.embedding, encoded.log_covariance + self.log_time_unit
        return m, log_v, m + (0.5 * log_v).exp() * torch.randn_like(m)

    def divergence(self, m, log_v):
        return 0.5 * (m.square() + log_v.exp() - 1 - log_v).sum(1)

    def sample_prior(self, count):
        return torch.randn(count, self.latent_dim)


class FlatFree(VAE):
    """The training of the R-VAE, with flat laws."""

    def __init__(self, model_config, encoder=None, decoder=None):
        super().__init__(model_config, encoder, decoder)
        self.prior_log_scale = torch.nn.Parameter(torch.zeros(self.latent_dim))

    @torch.no_grad()
    def begin_second_phase(self, codes):
        super().begin_second_phase(codes)
        self.prior_center.copy_(codes.mean(0))
        self.prior_log_scale.copy_(codes.std(0).log())
        # Posteriors begin at a twentieth of the scale of the codes.
        self.log_time_unit.copy_(2 * (codes.std(0).mean() / 20).log())

    def encode(self, x):
        if not self.in_warmup:
            return super().encode(x)
        m, log_v, _ = self.sample(x)
        return m, log_v, m, torch.zeros(())

    def divergence(self, m, log_v):
        return super().divergence(
            (m - self.prior_center) / self.prior_log_scale.exp(), log_v - 2 * self.prior_log_scale
        )

    def sample_prior(self, count):
        return self.prior_center + self.prior_log_scale.exp() * super().sample_prior(count)


class Flat(FlatFree):
    fixed_mean = True


MODELS = {"VAE": VAE, "flat": Flat, "flat free": FlatFree, "R-VAE": BrownianRVAE}


def load(name):
    """Images in [0, 1] and labels: train, test."""
    if name == "digits":
        digits = load_digits()
        order = np.random.default_rng(0).permutation(len(digits.images))
        images = torch.as_tensor(digits.images[order, None] / 16, dtype=torch.float32)
        labels = digits.target[order]
        return (images[:1500], labels[:1500]), (images[1500:], labels[1500:])
    splits = []
    for split in ("train", "eval"):
        with np.load(os.path.join(name, f"{split}_data.npz")) as file:
            images = torch.as_tensor(file["data"], dtype=torch.float32) / 255
            splits.append((images, file["labels"] if "labels" in file else None))
    return splits


def train(cls, config, images, epochs, seed):
    """A model trained by pythae's pipeline as it is, and the seconds of the processor."""
    torch.manual_seed(seed)
    model = cls(config)
    with tempfile.TemporaryDirectory() as folder:
        training = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            learning_rate=1e-3,
            per_device_train_batch_size=100,
            seed=seed,
        )
        pipeline = TrainingPipeline(model, training)
        start = time.process_time()
        pipeline(images)
        seconds = time.process_time() - start
        model = cls.load_from_folder(os.path.join(pipeline.trainer.training_dir, "final_model"))
    return model.eval(), seconds


@torch.no_grad()
def evaluate(model, images):
    """Negative log likelihood and KL of each test point, means of two samples."""
    x, rec, kl = images.flatten(1), 0.0, 0.0
    for _ in range(2):
        if isinstance(model, VAE):
            m, log_v, z = model.sample(images)
            kl = kl + model.divergence(m, log_v)
        else:
            posterior = BrownianPosterior(model.metric, *model._posterior(images))
            z = posterior.rsample()
            kl = kl - posterior.entropy() - model.log_prior(z)
        mean = model.decoder(z)["reconstruction"].flatten(1)
        rec = rec - gaussian_log_prob(x, mean, model.std(z))
    return rec / 2, kl / 2


@torch.no_grad()
def published_estimate(model, images, points=16):
    """Negative ELBO of an R-VAE as the published code estimates it."""
    metric, c, s = model.metric, model.prior_center, model.prior_log_time.exp()
    m, log_t = model._posterior(images)
    t, d = log_t.exp(), model.latent_dim
    z = m + t.sqrt().unsqueeze(1) * torch.randn_like(m)

    def kernel(start, time):
        curve = geodesic(metric, start, z)(torch.linspace(0, 1, points))
        image = metric.immersion(curve.flatten(0, 1)).unflatten(0, curve.shape[:2])
        square = 0.5 * image.diff(dim=1).square().sum((1, 2))
        volume = metric.log_volume(z) - metric.log_volume(start)
        return volume - 0.5 * d * (LOG_2PI + time.log()) - square / (2 * time)

    kl = (kernel(m, t) - kernel(c.expand_as(z), s)).abs()
    mean = model.decoder(z)["reconstruction"].flatten(1)
    return float((kl - gaussian_log_prob(images.flatten(1), mean, model.std(z))).mean())


@torch.no_grad()
def log_normaliser(model, codes, resolution):
    """The logarithm of the prior's total mass, over a box of twice the size of the codes'."""
    low, high = codes.amin(0), codes.amax(0)
    axes = [
        torch.linspace(float(a - (b - a) / 2), float(b + (b - a) / 2), resolution)
        for a, b in zip(low, high, strict=True)
    ]
    cell = math.prod(float(a[1] - a[0]) for a in axes)
    grid = torch.cartesian_prod(*axes)
    log_density = torch.cat([model.log_prior(z) for z in grid.split(1000)])
    return float(log_density.logsumexp(0)) + math.log(cell)


def classify(train_codes, train_labels, codes, labels, runs):
    """F1 of each class, a row a classifier."""
    scores = []
    for seed in range(runs):
        mlp = MLPClassifier((20,), "relu", max_iter=200, random_state=seed)
        classifier = make_pipeline(StandardScaler(), mlp).fit(train_codes, train_labels)
        scores.append(f1_score(labels, classifier.predict(codes), average=None))
    return np.array(scores)


def share_inside(samples, train_codes, codes):
    """Share of samples that are as near to a training code as 99 of 100 test codes are."""
    radius = torch.cdist(codes, train_codes).amin(1).quantile(0.99)
    return float((torch.cdist(samples, train_codes).amin(1) <= radius).float().mean())


def reach(samples, train_codes, codes):
    """Median Mahalanobis distance of samples from the mean of the codes, in units of that of test
    codes."""
    mean, factor = train_codes.mean(0), torch.linalg.cholesky(torch.cov(train_codes.T))
    inner, outer = (
        torch.linalg.solve_triangular(factor, (z - mean).T, upper=False).norm(dim=0).median()
        for z in (codes, samples)
    )
    return float(outer / inner)


@torch.no_grad()
def explore(model, train_codes, codes, count, steps, motions):
    """Where prior samples are, and sigma on the codes and away from them."""
    places, where = (
        [],
        lambda z: (share_inside(z, train_codes, codes), reach(z, train_codes, codes)),
    )
    if isinstance(model, VAE):
        torch.manual_seed(0)
        places.append({"law": "prior", "time": 1, "place": where(model.sample_prior(count))})
    else:
        d = codes.shape[1]
        covariance = torch.linalg.cholesky(torch.cov(train_codes.T).reshape(d, d))
        for factor in motions:
            motion = float(model.prior_log_time.exp()) * factor
            config = BrownianMotionSamplerConfig(time=motion, steps=steps * factor, seed=0)
            sampler = BrownianMotionSampler(model, config)
            sampler.fit()
            brownian = sampler.sample_latent(count)
            torch.manual_seed(0)
            flat = train_codes.mean(0) + factor**0.5 * torch.randn(count, d) @ covariance.T
            for law, samples in (("Brownian", brownian), ("Euclidean", flat)):
                places.append({"law": law, "time": factor, "place": where(samples)})
    away = codes.mean(0) + 5 * (codes - codes.mean(0))
    return {
        "places": places,
        "sigma": float(model.std(codes).mean()),
        "sigma_away": float(model.std(away).mean()),
    }


@torch.no_grad()
def draw_geodesics(model, images, labels, folder):
    """Figure 1: geodesics and lines between three pairs of test points, and both decoded."""
    torch.manual_seed(0)
    codes, _ = model._posterior(images)
    apart = torch.cdist(codes, codes)
    # Of 200 pairs that are far apart, those for which line and geodesic differ most, one after
    # another, each with a start in another region.
    far = (apart > apart.quantile(0.7)).nonzero()
    far = far[torch.randperm(len(far))[:200]]
    curve = geodesic(model.metric, codes[far[:, 0]], codes[far[:, 1]])
    t = torch.linspace(0, 1, 12)
    lines = codes[far[:, :1]] + t[:, None] * (codes[far[:, 1:]] - codes[far[:, :1]])
    image = model.metric.immersion(lines.flatten(0, 1)).unflatten(0, lines.shape[:2])
    gain = image.diff(dim=1).norm(dim=2).sum(1) / curve.length
    left_over, chosen = gain.where(curve.converged, 0), []
    for _ in range(3):
        chosen.append(int(left_over.argmax()))
        near = apart[far[:, 0], far[chosen[-1], 0]] < apart.median()
        left_over = left_over.where(~near, 0)

    figure = plt.figure(figsize=(12, 5.5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.2))
    ax = plotting.latent_map(model.metric, codes, labels, ax=left.subplots())
    plotting.draw_curves(ax, curve(t)[chosen], label="Geodesic", color="cyan", linewidth=2)
    plotting.draw_curves(ax, lines[chosen], label="Line", color="red", linestyle="--")
    legend = ax.get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    ax.legend(legend.legend_handles, names, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    rows = right.subplots(3, 1)
    for row, pair in zip(rows, chosen, strict=True):
        points = torch.cat([curve(t)[pair], lines[pair]])
        strips = model.decoder(points)["reconstruction"]
        title = f"Geodesic (above), line (below, {float(gain[pair]):.2f} times as long)"
        plotting.image_grid(strips, columns=len(t), title=title, ax=row)
    figure.savefig(os.path.join(folder, "figure_1.png"), dpi=130)


@torch.no_grad()
def draw_motion(model, codes, folder):
    """Figure 2: Brownian motions over the density of the codes."""
    figure, ax = plt.subplots(figsize=(7, 6), layout="constrained")
    low, high = codes.amin(0) - 5, codes.amax(0) + 5
    axes = [np.linspace(float(a), float(b), 120) for a, b in zip(low, high, strict=True)]
    x, y = np.meshgrid(*axes)
    density = gaussian_kde(codes.T.numpy(), 0.2)(np.stack([x.ravel(), y.ravel()]))
    ax.contourf(x, y, density.reshape(x.shape), levels=15, cmap="Blues")
    config = BrownianMotionSamplerConfig(steps=400, seed=1)
    sampler = BrownianMotionSampler(model, config)
    sampler.fit()
    paths = sampler.trajectories(4).transpose(0, 1)
    for path, colour in zip(paths, ("tab:red", "tab:orange", "tab:green", "black"), strict=True):
        plotting.draw_curves(ax, path[None], color=colour, linewidth=0.8)
    ax.set(xlabel="$z_1$", ylabel="$z_2$", title="Brownian motions from the prior's centre")
    figure.savefig(os.path.join(folder, "figure_2.png"), dpi=130)


def spread(values, digits=2):
    values = np.array(values, dtype=float)
    return f"{values.mean():.{digits}f} ± {values.std(ddof=min(1, len(values) - 1)):.{digits}f}"


def tables(runs, seconds, arguments):
    """The results as Markdown."""
    lines = [
        "# Riemannian Brownian motion priors: results",
        "",
        f"`python examples/reproduce/seed_001.py{arguments}`, {seconds / 60:.0f} minutes of "
        "one core. Mean ± standard deviation over the runs; nats; test data.",
        "",
        "## Table 1: negative ELBO",
        "",
        "| d | model | neg. ELBO | reconstruction | KL | KL standard error |",
        "|---|---|---|---|---|---|",
    ]
    keys = list(dict.fromkeys((run["d"], run["model"]) for run in runs))
    groups = {key: [run for run in runs if (run["d"], run["model"]) == key] for key in keys}
    for (d, name), group in groups.items():
        cells = [spread([run[key] for run in group]) for key in ("neg_elbo", "rec", "kl")]
        error = np.mean([run["kl_error"] for run in group])
        lines.append(f"| {d} | {name} | {' | '.join(cells)} | {error:.2f} |")
    lines += ["", "R-VAE minus the others, run by run:", ""]
    for d in dict.fromkeys(d for d, _ in keys):
        ours = groups[d, "R-VAE"]
        gaps = {
            other: spread(
                [a["neg_elbo"] - b["neg_elbo"] for a, b in zip(ours, groups[d, other], strict=True)]
            )
            for other in MODELS
            if other != "R-VAE"
        }
        published = spread([run["published"] for run in ours])
        text = ", ".join(f"{gap} ({other})" for other, gap in gaps.items())
        lines.append(f"- d = {d}: {text}. Published estimate for this R-VAE: {published}.")
        masses = [run["log_normaliser"] for run in ours if run["log_normaliser"] is not None]
        if masses:
            lines.append(
                f"  Logarithm of the prior's mass, by quadrature: {spread(masses, 3)}. Added to "
                "the negative ELBO, it gives that of the normalised prior."
            )
    lines += ["", "## Table 2: F1 of five MLPs on the codes", ""]
    classes = range(len(runs[0]["f1"][0])) if runs[0]["f1"] else []
    lines.append(f"| d | model | {' | '.join(map(str, classes))} | mean |")
    lines.append("|---" * (3 + len(classes)) + "|")
    for (d, name), group in groups.items():
        if group[0]["f1"]:
            f1 = np.array([run["f1"] for run in group])  # [runs, classifiers, classes]
            cells = [f"{value:.2f}" for value in f1.mean((0, 1))]
            lines.append(f"| {d} | {name} | {' | '.join(cells)} | {spread(f1.mean(2).ravel())} |")
    lines += [
        "",
        "The deviation of the mean is over runs and classifiers.",
        "",
        "## Samples of the prior, and sigma",
        "",
        "Inside: share of samples as near to a training code as 99 of 100 test codes are. Reach: "
        "their median distance (Mahalanobis) from the mean of the codes, that of test codes being "
        "1. Brownian: motion of the R-VAE from its prior's centre for so many times the learned "
        "time. Euclidean: motion in flat space, which after time 1 is the Gaussian fitted to the "
        "codes. Sigma on the test codes, and on points five times as far from their mean.",
        "",
        "| d | model | law | time | inside | reach | sigma on codes | sigma away |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (d, name), group in groups.items():
        sigma, away = (np.mean([run[key] for run in group]) for key in ("sigma", "sigma_away"))
        for i, row in enumerate(group[0]["places"]):
            inside, outer = np.mean([run["places"][i]["place"] for run in group], axis=0)
            lines.append(
                f"| {d} | {name} | {row['law']} | {row['time']} | {inside:.2f} | {outer:.1f} | "
                f"{sigma:.3f} | {away:.3g} |"
            )
    lines += [
        "",
        "What a Brownian motion tends to is the volume of its metric, which is *larger* where "
        "sigma grows: nothing holds a long motion among the codes. It only slows down away from "
        "them, which the reach shows beside that of Euclidean motion, which grows as the root of "
        "time.",
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", default="outputs/seed_001")
    parser.add_argument("--data", default="digits", help="'digits', or a folder of images")
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 5, 10])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few epochs, to see that it runs")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore", Unconverged)
    # Some test points lie where a straight line is no good start; their distance is an upper bound.
    warnings.simplefilter("ignore", ConvergenceWarning)
    torch.set_num_threads(1)
    os.makedirs(args.output_dir, exist_ok=True)
    begin = time.process_time()

    (images, labels), (test_images, test_labels) = load(args.data)
    dims, seeds, phase, classifiers = args.dims, args.seeds, 100, 5
    count, steps, motions, resolution = 300, 50, (1, 5, 25), 50
    networks = {"hidden_dims": (300, 300), "num_centers": 350}
    if args.data == "digits":
        networks = {"hidden_dims": (128, 64), "num_centers": 64}
    if args.quick:
        dims, seeds, phase, classifiers = [2], 1, 3, 1
        count, steps, motions, resolution = 20, 10, (1, 2), 10
        images, test_images, test_labels = images[:300], test_images[:50], test_labels[:50]
        labels = None if labels is None else labels[:300]

    runs = []
    for d in dims:
        for seed in range(seeds):
            for name, cls in MODELS.items():
                config = BrownianRVAEConfig(
                    input_dim=tuple(images.shape[1:]),
                    latent_dim=d,
                    warmup_epochs=phase,
                    **networks,
                )
                model, seconds = train(cls, config, images, 2 * phase, seed)
                torch.manual_seed(seed)
                rec, kl = evaluate(model, test_images)
                with torch.no_grad():
                    codes, test_codes = (
                        model.encoder(x)["embedding"] for x in (images, test_images)
                    )
                is_rvae = cls is BrownianRVAE
                run = {
                    "d": d,
                    "seed": seed,
                    "model": name,
                    "seconds": seconds,
                    "neg_elbo": float((rec + kl).mean()),
                    "rec": float(rec.mean()),
                    "kl": float(kl.mean()),
                    "kl_error": float(kl.std() / len(kl) ** 0.5),
                    "published": published_estimate(model, test_images) if is_rvae else None,
                    "log_normaliser": None,
                    "f1": [],
                    **explore(model, codes, test_codes, count, steps, motions),
                }
                if is_rvae and d == 2:
                    run["log_normaliser"] = log_normaliser(model, codes, resolution)
                if labels is not None:
                    f1 = classify(codes, labels, test_codes, test_labels, classifiers)
                    run["f1"] = f1.tolist()
                runs.append(run)
                print(
                    f"d = {d}, seed {seed}, {name}: negative ELBO {run['neg_elbo']:.2f} "
                    f"(KL {run['kl']:.2f}), {seconds:.0f} s",
                    flush=True,
                )
                if is_rvae and d == 2 and seed == 0:
                    draw_geodesics(model, test_images, test_labels, args.output_dir)
                    draw_motion(model, codes, args.output_dir)

    seconds = time.process_time() - begin
    options = "" if args.data == "digits" else f" --data {args.data}"
    with open(os.path.join(args.output_dir, "seed_001.json"), "w", encoding="utf-8") as f:
        json.dump({"seconds": seconds, "runs": runs}, f, indent=1)
    text = tables(runs, seconds, options + (" --quick" if args.quick else ""))
    with open(os.path.join(args.output_dir, "seed_001.md"), "w", encoding="utf-8") as f:
        f.write(text)
    print(text)


if __name__ == "__main__":
    main()
