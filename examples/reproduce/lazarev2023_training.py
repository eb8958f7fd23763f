"""Data sets and trainings of the reproduction of Lazarev (2023).

lazarev2023.py measures the trained models and writes the tables.
"""

import copy
import math
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from lib.training import fit
from pythae.data.datasets import DatasetOutput
from pythae.trainers.training_callbacks import TrainingCallback
from scipy.stats import spearmanr
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torch.utils.data import Dataset

from pythae_geometric import RicciAE, RicciAEConfig
from pythae_geometric.data.synthetic import swiss_roll, synthetic_gaussians
from pythae_geometric.geometry import DegenerateMetricError
from pythae_geometric.models.networks import PerceptronDecoder, PerceptronEncoder
from pythae_geometric.models.ricci_ae import RunawayFunctionalError
from pythae_geometric.plotting_style import COLOURS

BATCH, STEPS_PER_EPOCH, NUM_POINTS, WIDTHS = 128, 50, 64, (64, 64, 64)


class Loss(NamedTuple):
    """A curvature loss: the functional, where its points are, and its weight in the last epoch,
    which is ``rise`` times that in the first."""

    functional: str
    points: str
    weight: float
    rise: float = 2000.0


# How they were chosen is in the report. Perelman's functionals are not bounded below and take less.
LOSSES = {
    "none": Loss("total_squared", "uniform", 0.0),
    "total_squared, box": Loss("total_squared", "uniform", 5.0),
    "total_squared, codes": Loss("total_squared", "encoded", 15.0),
    "total_squared, codes 60": Loss("total_squared", "encoded", 60.0, 6000.0),
    "perelman_f": Loss("perelman_f", "uniform", 0.01),
    "perelman_w": Loss("perelman_w", "uniform", 0.01),
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

    def style(self, count: int) -> dict:
        """How matplotlib shows the first points: classes in colours, an angle on a scale."""
        colour = self.colour[:count]
        if colour.dtype.kind == "i":
            colour = [COLOURS[k] for k in colour]
        return {"c": colour, "s": 2, "cmap": None if isinstance(colour, list) else "viridis"}

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
QUICK = Length(400, (100, 100), (1, 2), (3, 2), 2)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def gaussians_problem(length):
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


def cloudwise_procrustes(z, plane, centres, labels):
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


def best_rotation(a, b):
    """The orthogonal ``O`` that brings ``a O`` closest to ``b``."""
    U, _, Vt = np.linalg.svd(a.T @ b)
    return U @ Vt


def roll_problem(length):
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


class Points(Dataset):
    """As many random points as an epoch has, of the part of the data that is active."""

    def __init__(self, data, seed):
        self.data, self.generator = data, seeded(seed)
        self.active = torch.ones(len(data), dtype=torch.bool)
        self.draw()

    def draw(self):
        # Of fewer data than an epoch has points, each comes about once.
        size = min(BATCH * STEPS_PER_EPOCH, len(self.data))
        active = self.active.nonzero().squeeze(1)
        self.index = active[torch.randint(len(active), (size,), generator=self.generator)]

    def __len__(self):
        return len(self.index)

    def __getitem__(self, i):
        return DatasetOutput(data=self.data[self.index[i]])


class Draw(TrainingCallback):
    """Other points in each epoch."""

    def __init__(self, points):
        self.points = points

    def on_epoch_begin(self, training_config, **kwargs):
        self.points.draw()


class Second(Draw):
    """The weight of the functional, which rises by the same factor in each epoch; and where
    ``decay`` is given a decay of the encoder's weights, as AdamW's with a step size that falls by
    half a cosine.

    With the decay, codes spread no more than reconstruction needs, which evens out their scale on
    the roll; it draws the clouds of the Gaussians together.
    """

    rate = 5e-3

    def __init__(self, points, model, epochs, loss, decay):
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

    def __init__(self, points, model, first=6):
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


def new_model(problem, seed):
    torch.manual_seed(seed)
    shape = tuple(problem.train.shape[1:])
    config = RicciAEConfig(input_dim=shape, curvature_weight=0.0)
    encoder = PerceptronEncoder(nn.SiLU, shape, WIDTHS, 2, num_variances=0)
    return RicciAE(config, encoder, PerceptronDecoder(nn.SiLU, 2, WIDTHS, shape))


def with_loss(model, loss):
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


def train(model, points, epochs, callback, **fields):
    """Train by pythae's pipeline; what stopped it, if anything did. The model is left at its last
    step, not at the one of the lowest loss: the loss of a part is no measure for the whole."""
    fields |= {"per_device_train_batch_size": BATCH, "optimizer_cls": "AdamW", "no_cuda": True}
    with tempfile.TemporaryDirectory() as folder:
        try:
            fit(model, points, folder, callbacks=[callback], num_epochs=epochs, **fields)
        except (RunawayFunctionalError, DegenerateMetricError, ArithmeticError) as reason:
            return str(reason).split(":")[0]
    return ""


def first_training(problem, seed, grows):
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
