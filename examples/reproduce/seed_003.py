r"""Curvature of latent spaces: three planar clouds in 784 dimensions, and the Swiss roll.

    python examples/reproduce/seed_003.py [--output-dir outputs/seed_003] [--seeds 3] [--quick]

The data sets of Lazarev (2023). Every comparison starts from one and the same autoencoder, trained
without curvature; from there it is trained for the same number of steps as it is ("none"), and with
each functional. All trainings are pythae's ``TrainingPipeline``, with AdamW. Writes
``seed_003.md``, ``seed_003.json`` and the pictures.

The weight of the functional rises during the second training (:class:`Second`): on the Gaussians
large constant weights cost more error at equal curvature. The study shows both.

The first training of the Swiss roll begins with a small piece of it, which grows over the surface
as it is learned (:class:`Growing`): an autoencoder that sees the whole roll at once decides early
which latents its layers get, and tears it. For comparison "at once" trains on the whole roll from
the start. Everything is measured on points that were not trained on.
"""

import argparse
import copy
import json
import logging
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

os.environ.setdefault("TQDM_DISABLE", "1")

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LogNorm
from pythae.data.datasets import DatasetOutput
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from scipy.stats import spearmanr
from sklearn.manifold import TSNE, trustworthiness
from sklearn.neighbors import NearestNeighbors
from torch.utils.data import Dataset

from pythae_geometric.data.synthetic import swiss_roll, synthetic_gaussians
from pythae_geometric.geometry import DegenerateMetricError
from pythae_geometric.models.ricci_ae import RicciAE, RicciAEConfig, RunawayFunctionalError
from pythae_geometric.models.ricci_ae.networks import SmoothDecoder, SmoothEncoder

BATCH, STEPS_PER_EPOCH, NUM_POINTS, WIDTHS = 128, 50, 64, (64, 64, 64)


class Loss(NamedTuple):
    """A curvature loss: the functional, where its points are, and its weight in the last epoch,
    which is ``rise`` times that in the first."""

    functional: str
    points: str
    weight: float
    rise: float = 2000.0


# The weight 15, how it rises, and the length of the training were chosen on the Gaussians with the
# seeds 10 to 13 and points that are not in the tables; 5 in the box on the first seed of the roll.
# 60 was added when the first two seeds of the Gaussians had shown smaller errors at 15 than without
# curvature. Perelman's functionals are not bounded below and take less.
LOSSES = {
    "none": Loss("total_squared", "uniform", 0.0),
    "total_squared, box": Loss("total_squared", "uniform", 5.0),
    "total_squared, codes": Loss("total_squared", "encoded", 15.0),
    "total_squared, codes 60": Loss("total_squared", "encoded", 60.0, 6000.0),
    "perelman_f": Loss("perelman_f", "uniform", 0.01),
    "perelman_w": Loss("perelman_w", "uniform", 0.01),
}
NOT_PICTURED = "total_squared, codes 60"  # to leave room
# Constant weights, as RicciAEConfig's are; and two that rise.
RISING = ", rising"
STUDY = {
    "total_squared, box": (0.01, 0.1, 1.0, 10.0, 100.0),
    "total_squared, codes": (1.0, 10.0, 100.0),
    "total_squared, codes" + RISING: (10.0, 100.0),
    "perelman_f": (-1.0, -0.1, -0.01, 0.01, 0.1, 1.0),
    "perelman_w": (-1.0, -0.1, -0.01, 0.01, 0.1, 1.0),
}


class Problem(NamedTuple):
    """A data set, its networks, and how long they train."""

    name: str
    train: torch.Tensor
    test: torch.Tensor
    flat: np.ndarray  # where the test points lie on the ideal flat picture
    colour: np.ndarray
    first_epochs: int
    second_epochs: int
    grows: bool
    measure: Callable[[np.ndarray], dict[str, float]]  # of a latent picture

    @property
    def file_name(self) -> str:
        return self.name.lower().replace(" ", "_")


class Length(NamedTuple):
    num_samples: int
    num_test: tuple[int, int]  # Gaussians, roll
    gaussians: tuple[int, int]  # epochs of STEPS_PER_EPOCH steps: first, second training
    roll: tuple[int, int]
    study: int


# The mean R² of the Gaussians is that of a few points between the clouds: it takes many points.
FULL = Length(18_000, (10_000, 2000), (40, 240), (130, 70), 30)
QUICK = Length(600, (200, 200), (1, 2), (3, 2), 2)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The data


def gaussians_problem(length: Length) -> Problem:
    n = length.num_samples
    g = synthetic_gaussians(n + length.num_test[0], generator=seeded(0))
    labels, plane = g.labels[n:].numpy(), g.plane[n:].numpy()
    # Three points lie in a plane: the centres keep their distances there.
    U, S, _ = np.linalg.svd((g.centres - g.centres.mean(0)).numpy(), full_matrices=False)
    centres = (U * S)[:, :2]

    def measure(z):
        return {"Procrustes": cloudwise_procrustes(z, plane, centres, labels)}

    flat = plane + centres[labels]
    data = g.data[:n], g.data[n:]
    return Problem("Gaussians", *data, flat, labels, *length.gaussians, False, measure)


def cloudwise_procrustes(
    z: np.ndarray, plane: np.ndarray, centres: np.ndarray, labels: np.ndarray
) -> float:
    """Share of the variance of ``z`` that the ideal picture leaves out, after the best similarity.

    The clouds lie in planes that have no common frame: each may turn about its centre. So the ideal
    is ``O_k u + O c_k`` with orthogonal ``O_k`` for the cloud and ``O`` for the centres.
    """
    z = z - z.mean(0)
    ideal = np.empty_like(z)
    means = np.stack([z[labels == k].mean(0) for k in range(len(centres))])
    sizes = np.bincount(labels)[:, None]
    offsets = centres @ best_rotation(sizes * centres, means)
    for k, offset in enumerate(offsets):
        u = plane[labels == k] - plane[labels == k].mean(0)
        ideal[labels == k] = u @ best_rotation(u, z[labels == k] - means[k]) + offset
    ideal -= ideal.mean(0)
    return float(1 - (z * ideal).sum() ** 2 / ((z**2).sum() * (ideal**2).sum()))


def best_rotation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The orthogonal ``O`` that brings ``a O`` closest to ``b``."""
    U, _, Vt = np.linalg.svd(a.T @ b)
    return U @ Vt


def roll_problem(length: Length) -> Problem:
    n, num_test = length.num_samples, length.num_test[1]
    roll = swiss_roll(n + num_test, generator=seeded(0))
    # One factor for all coordinates: distances on the sheet are multiplied by it.
    data = roll.data - roll.data.mean(0)
    data = data / data.std()
    sheet = roll.sheet[n:].numpy()
    pairs = np.random.default_rng(0).integers(0, num_test, (2, 20_000))

    def distances(x):
        return np.linalg.norm(x[pairs[0]] - x[pairs[1]], axis=1)

    neighbours = NearestNeighbors(n_neighbors=6).fit(sheet).kneighbors(return_distance=False)

    def torn(z):
        """Share of points that lie far, in the picture, from one of 6 neighbours on the sheet."""
        apart = np.linalg.norm(z[neighbours] - z[:, None], axis=2)
        return float((apart.max(1) > 10 * np.median(apart)).mean())

    def measure(z):
        return {
            "Spearman": float(spearmanr(distances(z), distances(sheet))[0]),
            "trustworthiness": float(trustworthiness(sheet, z, n_neighbors=12)),
            "torn": torn(z),
        }

    data = data[:n], data[n:]
    return Problem("Swiss roll", *data, sheet, sheet[:, 0], *length.roll, True, measure)


# Training


class Points(Dataset):
    """As many random points as an epoch has, of the part of the data that is active."""

    def __init__(self, data: torch.Tensor, seed: int):
        self.data, self.generator = data, seeded(seed)
        self.active = torch.ones(len(data), dtype=torch.bool)
        self.draw()

    def draw(self):
        active, size = self.active.nonzero().squeeze(1), BATCH * STEPS_PER_EPOCH
        self.index = active[torch.randint(len(active), (size,), generator=self.generator)]

    def __len__(self):
        return len(self.index)

    def __getitem__(self, i):
        return DatasetOutput(data=self.data[self.index[i]])


class Draw(TrainingCallback):
    """Other points in each epoch."""

    def __init__(self, points: Points):
        self.points = points

    def on_epoch_begin(self, training_config, **kwargs):
        self.points.draw()


class Second(Draw):
    """The weight of the functional, which rises by the same factor in each epoch; and where
    ``decay`` is given a decay of the encoder's weights, as AdamW's with a step size that falls by
    half a cosine.

    With the decay, codes spread no more than reconstruction needs, which evens out their scale on
    the roll. The Gaussians are better without: it draws the clouds together.
    """

    rate = 5e-3

    def __init__(self, points: Points, model: RicciAE, epochs: int, loss: Loss, decay: float):
        super().__init__(points)
        self.model, self.epochs, self.loss, self.decay = model, epochs, loss, decay

    def on_epoch_begin(self, training_config, epoch, **kwargs):
        super().on_epoch_begin(training_config)
        to_come = (self.epochs - epoch) / max(self.epochs - 1, 1)
        # The model reads its weight in every step.
        self.model.model_config.curvature_weight = self.loss.weight * self.loss.rise**-to_come
        falling = 0.5 * (1 + math.cos(math.pi * (epoch - 1) / self.epochs))
        self.factor = 1 - self.rate * falling * self.decay

    @torch.no_grad()
    def on_train_step_end(self, training_config, **kwargs):
        if self.decay:
            for parameter in self.model.encoder.parameters():
                parameter.mul_(self.factor)


class Growing(Draw):
    """A part of the data that grows over the surface while it is learned.

    It begins with the points within 0.7 of a random one (the data have standard deviation 1). In
    each epoch it takes in those that are reconstructed with an error below 0.3 already and have an
    active point among their eight nearest neighbours, four times over.
    """

    def __init__(self, points: Points, model: RicciAE, first: int = 6):
        super().__init__(points)
        self.model, self.first, data = model, first, points.data
        neighbours = NearestNeighbors(n_neighbors=8).fit(data).kneighbors(return_distance=False)
        self.neighbours = torch.from_numpy(neighbours)
        start = data[torch.randint(len(data), (), generator=points.generator)]
        points.active = (data - start).norm(dim=1) < 0.7

    @torch.no_grad()
    def on_epoch_begin(self, training_config, epoch, **kwargs):
        if epoch > self.first:
            data, active = self.points.data, self.points.active
            x = self.model.decoder(self.model.encoder(data).embedding)["reconstruction"]
            learned = (x - data).norm(dim=1) < 0.3
            for _ in range(4):
                active = active | (learned & active[self.neighbours].any(1))
            self.points.active = active
        self.points.draw()


def new_model(problem: Problem, seed: int) -> RicciAE:
    torch.manual_seed(seed)
    shape = tuple(problem.train.shape[1:])
    config = RicciAEConfig(input_dim=shape, curvature_weight=0.0)
    return RicciAE(
        config, *(network(shape, 2, WIDTHS) for network in (SmoothEncoder, SmoothDecoder))
    )


def with_loss(model: RicciAE, loss: Loss) -> RicciAE:
    """A copy of the networks, with a curvature loss.

    In every step: taken in every second one only, the loss alternates between two, and the
    reconstruction error of the Gaussians is half as large again.
    """
    config = RicciAEConfig(
        input_dim=model.model_config.input_dim,
        functional=loss.functional,
        points=loss.points,
        curvature_weight=loss.weight,
        num_points=NUM_POINTS,
    )
    return RicciAE(config, copy.deepcopy(model.encoder), copy.deepcopy(model.decoder))


def train(model: RicciAE, points: Points, epochs: int, callback: TrainingCallback, **fields):
    """Train by pythae's pipeline; what stopped it, if anything did. The model is left at its last
    step, not at the one of the lowest loss: the loss of a part is no measure for the whole."""
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            per_device_train_batch_size=BATCH,
            optimizer_cls="AdamW",
            no_cuda=True,
            **fields,
        )
        try:
            TrainingPipeline(model, config)(points, callbacks=[callback])
        except (RunawayFunctionalError, DegenerateMetricError, ArithmeticError) as reason:
            return str(reason).split(":")[0]
    return ""


def first_training(problem: Problem, seed: int, grows: bool) -> RicciAE:
    model, points = new_model(problem, seed), Points(problem.train, seed)
    callback = Growing(points, model) if grows else Draw(points)
    fields = {"learning_rate": 5e-3, "optimizer_params": {"weight_decay": 0.05}}
    train(model, points, problem.first_epochs, callback, **fields)
    return model


def second_training(problem, model, loss, seed, epochs=None):
    """The model trained on with a curvature loss, and what stopped it, if anything did."""
    epochs = epochs or problem.second_epochs
    model, points = with_loss(model, loss), Points(problem.train, seed + 1000)
    torch.manual_seed(seed)
    stopped = train(
        model,
        points,
        epochs,
        Second(points, model, epochs, loss, decay=0.15 if problem.grows else 0.0),
        learning_rate=Second.rate,
        # Few points have most of the curvature. Second moments with a long memory (0.999) keep the
        # steps small for long after each: the error then is up to twice as large.
        optimizer_params={"weight_decay": 0.0, "betas": (0.9, 0.95)},
        scheduler_cls="CosineAnnealingLR",
        scheduler_params={"T_max": epochs},
    )
    return model, stopped


# Measures


def off_data(z: torch.Tensor) -> torch.Tensor:
    """Points uniform in the box of the codes."""
    low, high = z.amin(0), z.amax(0)
    return low + (high - low) * torch.rand(len(z), 2, generator=seeded(7))


def squared_curvature(model: RicciAE, points: torch.Tensor) -> torch.Tensor:
    """R², or NaN where a training has made the metric degenerate."""
    try:
        return torch.cat([model.curvature(part).square() for part in points.split(2000)])
    except DegenerateMetricError:
        return torch.full((len(points),), torch.nan)


def measures(model: RicciAE, problem: Problem) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        z = model.encoder(problem.test).embedding
        x = model.decoder(z)["reconstruction"]
        on, off = squared_curvature(model, z), squared_curvature(model, off_data(z))
        singular = 0.5 * torch.linalg.eigvalsh(model.metric(z)).clamp(min=1e-12).log()
    return {
        "MSE": float((x - problem.test).square().sum(1).mean()),
        "mean R²": float(on.mean()),
        "max R²": float(on.max()),
        "mean R² off": float(off.mean()),
        "max R² off": float(off.max()),
        "distortion": float(singular.std()),
        **problem.measure(z.numpy()),
    }


# Tables


def number(values, digits=2):
    values = np.asarray(values, dtype=float)
    mean, sd = values.mean(), values.std(ddof=min(1, len(values) - 1))
    if mean and not 0.01 <= abs(mean) < 1000:
        return f"{mean:.{digits - 1}e} ± {sd:.0e}"
    return f"{mean:.{digits}f} ± {sd:.{digits}f}"


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A row for each training, mean and deviation over the seeds."""
    names = list(rows[0]["measures"])
    lines = ["| training | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for key in dict.fromkeys(row["training"] for row in rows):
        group = [row for row in rows if row["training"] == key]
        cells = [number([row["measures"][name] for row in group]) for name in names]
        stops = sum(bool(row["stopped"]) for row in group)
        note = f" (stopped in {stops} of {len(group)})" if stops else ""
        lines.append(f"| {key}{note} | " + " | ".join(cells) + " |")
    return lines


def ratios(rows) -> list[str]:
    """Against no regularisation, seed by seed."""
    base = {row["seed"]: row["measures"] for row in rows if row["training"] == "none"}
    lines = ["| training | seed | MSE / that of none | mean R² of none / mean R² | off data |"]
    lines.append("|---" * 5 + "|")
    for row in rows:
        if row["training"] in LOSSES and row["training"] != "none":
            m, b = row["measures"], base[row["seed"]]
            cells = [m["MSE"] / b["MSE"]]
            cells += [b[f"mean R²{k}"] / m[f"mean R²{k}"] for k in ("", " off")]
            texts = " | ".join(f"{value:.3g}" for value in cells)
            lines.append(f"| {row['training']} | {row['seed']} | {texts} |")
    return lines


# Pictures


def latents(model, problem):
    with torch.no_grad():
        return model.encoder(problem.test).embedding


SHOWN = 2000


def draw_problem(problem, folder):
    """The data in three dimensions, their t-SNE, and the ideal flat picture."""
    figure = plt.figure(figsize=(12, 4), layout="constrained")
    test, flat, colour = (v[:SHOWN] for v in (problem.test.numpy(), problem.flat, problem.colour))
    _, _, axes = np.linalg.svd(test - test.mean(0), full_matrices=False)
    space = figure.add_subplot(1, 3, 1, projection="3d")
    shown = test if test.shape[1] == 3 else (test - test.mean(0)) @ axes[:3].T
    space.scatter(*shown.T, c=colour, s=2, cmap="turbo")
    space.set_title("data" if test.shape[1] == 3 else "data, three principal directions")
    perplexity = min(30, len(test) / 4)
    embedded = TSNE(random_state=0, perplexity=perplexity).fit_transform(test)
    for k, (points, title) in enumerate(((embedded, "t-SNE"), (flat, "ideal")), 2):
        ax = figure.add_subplot(1, 3, k)
        ax.scatter(*points.T, c=colour, s=2, cmap="turbo")
        ax.set(title=title, aspect="equal", xticks=[], yticks=[])
    figure.savefig(os.path.join(folder, f"{problem.file_name}_data.png"), dpi=90)
    plt.close(figure)


def draw_latents(models, problem, folder):
    """Latent spaces, and the curvature over them."""
    figure, axes = plt.subplots(2, len(models), figsize=(3.2 * len(models), 6.4), squeeze=False)
    grids = []
    for model in models.values():
        z = latents(model, problem)
        low, high = z.amin(0), z.amax(0)
        margin = 0.05 * (high - low)
        x, y = (
            torch.linspace(float(a), float(b), 80)
            for a, b in zip(low - margin, high + margin, strict=True)
        )
        with torch.no_grad():
            R = model.curvature(torch.cartesian_prod(x, y))
        grids.append((x, y, R.abs().view(80, 80).T.clamp(min=1e-8)))
    top = max(float(grid[2].quantile(0.99)) for grid in grids)
    scale = LogNorm(1e-5 * top, top, clip=True)
    for (title, model), column, grid in zip(models.items(), axes.T, grids, strict=True):
        z = latents(model, problem)[:SHOWN]
        column[0].scatter(*z.T, c=problem.colour[:SHOWN], s=2, cmap="turbo")
        column[0].set(title=title, aspect="equal", xticks=[], yticks=[])
        mesh = column[1].pcolormesh(*grid, norm=scale, cmap="magma", rasterized=True)
        column[1].scatter(*z[:300].T, c="white", s=0.3)
        column[1].set(aspect="equal", xticks=[], yticks=[])
    figure.colorbar(mesh, ax=axes[1], label="|R|", shrink=0.8)
    figure.savefig(
        os.path.join(folder, f"{problem.file_name}_latent.png"), dpi=90, bbox_inches="tight"
    )
    plt.close(figure)


# All of it


def compare(problem: Problem, seed: int, folder: str):
    """The rows of one seed; of the first one also the pictures."""
    start = first_training(problem, seed, problem.grows)
    plans = {name: (start, loss) for name, loss in LOSSES.items()}
    if problem.grows:
        once = first_training(problem, seed, grows=False)
        for name in ("none", "total_squared, box"):
            plans[f"{name}, at once"] = once, LOSSES[name]
    rows, models = [], {}
    for training, (begin, loss) in plans.items():
        clock = time.process_time()
        models[training], stopped = second_training(problem, begin, loss, seed)
        row = {"training": training, "seed": seed, "stopped": stopped}
        row["measures"] = measures(models[training], problem)
        rows.append(row)
        print(
            f"{problem.name}, seed {seed}, {training}: "
            + ", ".join(f"{k} {v:.3g}" for k, v in row["measures"].items())
            + f" ({time.process_time() - clock:.0f} s) {stopped}",
            flush=True,
        )
    if seed == 0:
        draw_problem(problem, folder)
        models.pop(NOT_PICTURED)
        draw_latents(models, problem, folder)
    return rows


def study(problem: Problem, epochs: int, tried: dict[str, tuple]):
    """Rows: the weights, from the first seed's autoencoder."""
    rows, start = [], first_training(problem, 0, problem.grows)
    for name, weights in {"none": (0.0,), **tried}.items():
        for weight in weights:
            loss = LOSSES[name.removesuffix(RISING)]._replace(weight=weight)
            if not name.endswith(RISING):
                loss = loss._replace(rise=1.0)
            model, stopped = second_training(problem, start, loss, 0, epochs)
            m = measures(model, problem)
            rows.append({"functional": name, "weight": weight, "stopped": stopped, **m})
            print(
                f"{problem.name}, study, {name} {weight:g}: MSE {m['MSE']:.3g}, "
                f"mean R² {m['mean R²']:.3g} {stopped}",
                flush=True,
            )
    return rows


def study_table(rows) -> list[str]:
    lines = ["| functional | weight | MSE / that of none | mean R² | |", "|---" * 5 + "|"]
    for row in rows:
        stopped = "stopped" if row["stopped"] else ""
        lines.append(
            f"| {row['functional']} | {row['weight']:g} | {row['MSE'] / rows[0]['MSE']:.3g} | "
            f"{row['mean R²']:.3g} | {stopped} |"
        )
    return lines


def default_weight(results: dict[str, Any]) -> str:
    """The largest weights of the study that cost little on every data set, and the default's."""
    costs = {  # of (loss, weight), on each data set
        (row["functional"], row["weight"]): [
            next(
                (r["MSE"] / part["study"][0]["MSE"], part["study"][0]["mean R²"] / r["mean R²"])
                for r in part["study"]
                if (r["functional"], r["weight"]) == (row["functional"], row["weight"])
            )
            for part in results.values()
        ]
        for row in next(iter(results.values()))["study"]
    }
    text = []
    for name in ("total_squared, box", "total_squared, codes"):
        cheap = [w for n, w in costs if n == name and max(c for c, _ in costs[n, w]) <= 1.1]
        text.append(f"{name}: {max(cheap):g}" if cheap else f"{name}: none")
    default = RicciAEConfig(input_dim=(3,)).curvature_weight
    of_default = costs["total_squared, box", default]
    return (
        "The largest weight in this study that costs at most 10 % more error on both data sets is, "
        f"for {'; '.join(text)}. The default of `RicciAEConfig`, {default:g} at points in the box, "
        "is for total_squared: it costs errors "
        f"{' and '.join(f'{c:.2f}' for c, _ in of_default)} times that of none, for a mean R² "
        f"{' and '.join(f'{g:.1f}' for _, g in of_default)} times lower ({', '.join(results)}). "
        "What it costs with Perelman's functionals is in the rows above."
    )


def task(build: Callable[[Length], Problem], seed: int | None, args: argparse.Namespace):
    """Rows of one seed, or where it is None of the study; and the seconds they took."""
    logging.disable(logging.INFO)
    # Of points where the regularisation decides the metric: counted in the measures.
    warnings.filterwarnings("ignore", message="The decoder's Jacobian has all but lost")
    torch.set_num_threads(1)
    clock = time.process_time()
    length = QUICK if args.quick else FULL
    problem = build(length)
    if seed is None:
        tried = {k: v[:1] for k, v in STUDY.items()} if args.quick else STUDY
        rows = study(problem, length.study, tried)
    else:
        rows = compare(problem, seed, args.output_dir)
    return rows, time.process_time() - clock


def report(results: dict[str, Any], seconds: float, seeds: int, quick: bool) -> str:
    """The Markdown page."""
    length, text = QUICK if quick else FULL, []
    for name, part in results.items():
        text += ["", f"## {name}", "", *table(part["rows"]), "", *ratios(part["rows"]), ""]
        steps = length.study * STEPS_PER_EPOCH
        text += [f"Constant and rising weights, the first seed's autoencoder, {steps} steps:", ""]
        text += study_table(part["study"])
    text += ["", "## The default weight", "", default_weight(results)]
    option = " --quick" if quick else ""
    weights = "; ".join(
        f"{name} {loss.weight / loss.rise:.2g} to {loss.weight:g}"
        for name, loss in LOSSES.items()
        if loss.weight
    )
    intro = [
        "# Autoencoders regularised by curvature: results",
        "",
        f"`python examples/reproduce/seed_003.py{option}`, {seconds / 60:.0f} minutes of "
        "processor time, in two processes. "
        f"Mean ± standard deviation over {seeds} seeds; test points: "
        f"{length.num_test[0]} of the Gaussians, {length.num_test[1]} of the roll. MSE: squared "
        "error, summed over the dimensions. Off: at points uniform in the box of the codes. "
        "Distortion: standard deviation of the logarithms of the singular values of J over the "
        "data. Procrustes: share of the variance of the latent clouds that the ideal picture "
        "leaves out after the best similarity (each cloud may turn about its centre: the planes "
        "have no common frame). Spearman: of latent distances with distances on the sheet. Torn: "
        "share of points with one of 6 neighbours on the sheet more than 10 times as far away in "
        "the latent plane as is usual. At once: a first training on the whole roll from the start.",
        "Box: the loss at points uniform in the box of the batch's codes; codes: at the codes. "
        f"Weights, from the first epoch to the last: {weights}. 15, its rise and the length of the "
        "training were chosen on the Gaussians with other seeds (10 to 13) and other points; 5 in "
        "the box on the first seed of the roll. 60 was added when the first two seeds of the "
        "Gaussians had shown smaller errors at 15 than none: read its ratios with that in mind.",
    ]
    return "\n".join(intro + text) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", default="outputs/seed_003")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few steps, to see that it runs")
    args = parser.parse_args()
    os.makedirs(args.output_dir, exist_ok=True)
    seeds = 1 if args.quick else args.seeds
    builds = {"Gaussians": gaussians_problem, "Swiss roll": roll_problem}
    results: dict[str, Any] = {}
    seconds = 0.0
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        plan = [(name, seed) for name in builds for seed in (*range(seeds), None)]
        futures = {key: pool.submit(task, builds[key[0]], key[1], args) for key in plan}
        for (name, seed), future in futures.items():
            rows, spent = future.result()
            part = results.setdefault(name, {"rows": []})
            seconds += spent
            if seed is None:
                part["study"] = rows
            else:
                part["rows"] += rows
    page = report(results, seconds, seeds, args.quick)
    with open(os.path.join(args.output_dir, "seed_003.json"), "w", encoding="utf-8") as f:
        json.dump({"seconds": seconds, **results}, f, indent=1)
    with open(os.path.join(args.output_dir, "seed_003.md"), "w", encoding="utf-8") as f:
        f.write(page)
    print(page)


if __name__ == "__main__":
    main()
