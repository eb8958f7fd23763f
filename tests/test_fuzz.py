"""Bad arguments by the hundred: every public callable refuses each in words of this package.

One argument of a call that works is replaced by a bad one, of a pool by its kind, or two of them
are. The call must raise, in a line of this package (or of pydantic's, which checks configs), and
not inside torch, numpy or scipy. What is as good as the argument that works, such as an array for a
tensor, must give the same values. Public callables are read from the package: a new one fails here
until it has arguments.
"""

import functools
import importlib
import inspect
import math
import os
import random
import re
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pydantic
import pytest
import torch
from pythae.models import AE, VAE, AEConfig, VAEConfig
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pythae_geometric as pg
from pythae_geometric import evaluation, geometry, models, plotting, samplers
from pythae_geometric.data import burgers, symmetric, synthetic, trajectories
from pythae_geometric.models import foreign

pytest.importorskip("matplotlib").use("Agg")

PACKAGE = os.path.join(os.path.dirname(pg.__file__), "")
LEAST = 800
PAIRS = 2  # of bad arguments, for each callable that has two
nan, inf = math.nan, math.inf
ERRORS = (ValueError, TypeError, RuntimeError, OSError, ImportError, ArithmeticError)


class Argument(NamedTuple):
    """An argument that works, bad ones, and others as good as the first."""

    good: Any
    bad: tuple
    same: tuple = ()


# Pools, by kind


def count(good, least=1, optional=False):
    bad = ["many", [good], nan, inf, 1j, True, least - 1, -7, good + 0.5, {}, torch.ones(2)]
    return Argument(good, (*bad, *([] if optional else [None])), (np.int64(good),))


def number(good, above=None, least=None, optional=False):
    bad = ["many", [good], nan, inf, -inf, 1j, {}, torch.ones(2)]
    bad += [] if above is None else [above]
    bad += [] if least is None else [least - 1]
    return Argument(good, (*bad, *([] if optional else [None])), (np.float64(good),))


def name(good, *more):
    return Argument(good, ("unknown", "", 3, [good], {}, *more))


def flag(good):
    return Argument(good, ("yes", 3, None, [], nan, object()))


def generator():
    return Argument(None, (3, "seed", np.random.default_rng(0), object()))


def lax(argument):
    """The argument as a field of a config: pydantic takes "yes" for True, and True for 1."""
    bad = (value for value in argument.bad if value is not True and value != "yes")
    return Argument(argument.good, tuple(bad), ())


def widths(good, *more):
    return Argument(good, (3, "8x8", [good], {}, object(), (1.5,), *more))


class Unreadable:
    """What no one takes for numbers."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("a file has gone")


def numbers(good, same=True, flattened=False):
    """Arrays of real numbers, of any kind that the package reads."""
    x = np.asarray(good)
    wrong = [x.astype(complex), np.full_like(x, nan), np.full_like(x, inf), x[:0]]
    wrong += [] if flattened else [x[..., None, None]]
    bad = (
        *(None, "words", 3.0, [], {}, {"x": good}, object(), Unreadable(), {1, 2}, b"bytes"),
        *([[1.0], [1.0, 2.0]], x.astype(str), x.astype(object), np.array([None] * max(len(x), 1))),
        *(torch.as_tensor(x).to_sparse(), torch.as_tensor(x).to("meta"), [torch.ones(2), None]),
        *wrong,
    )
    # With a generator of its own, since it takes a number of torch's otherwise.
    loader = DataLoader(TensorDataset(torch.as_tensor(x)), 2, generator=torch.Generator())
    return Argument(good, bad, (x, x.astype(np.float64), x.tolist(), loader) if same else ())


def tensor(good, *more, finite=False):
    """Tensors that the geometry takes: it converts nothing."""
    bad = [None, "words", 3.0, good.tolist(), good.numpy(), {}, good.to(torch.complex64)]
    bad += [good[..., None], good.long(), [good], (good, good), object(), good[0]]
    bad += [good + nan, good + inf] if finite else []
    return Argument(good, (*bad, *more), (good.clone(),))


def a_map(good):
    bad = (
        *(None, 3, "decoder", [good], {}, torch.ones(2)),
        lambda z: {"x": z},
        lambda z: [z, z],
        lambda z: z.sum(0),
        lambda z: z.sum(),
        lambda z: None,
        torch.jit.trace(nn.Linear(2, 3), torch.ones(1, 2)),
    )
    return Argument(good, bad)


def thing(good, *more):
    """An object of a class, which nothing stands for."""
    return Argument(good, (3, "words", [good], {}, object(), torch.ones(2), *more))


def no_labels():
    """Labels for a model that takes none."""
    return Argument(None, (3, "words", [1, 2], torch.ones(12), {}, object(), nan))


def labels(good):
    x = torch.as_tensor(good)
    bad = (None, "words", {}, object(), x[:1], x.to(torch.complex64), x.to("meta"), [[1], [1, 2]])
    return Argument(good, bad, (x.numpy(), x.tolist()))


def path(good, *more):
    return Argument(good, (None, 3, [good], object(), *more))


# What works, small and shared

X = torch.rand(12, 1, 2, 2, generator=torch.Generator().manual_seed(0))
Z = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))
FEATURES = torch.randn(12, 3, generator=torch.Generator().manual_seed(2))
LABELS = np.arange(12) % 2


def sheet(z):
    return torch.cat([z, z.square()], dim=1)


def normal(z):
    return -0.5 * z.square().sum(1), -z


@functools.cache
def vae():
    torch.manual_seed(0)
    return VAE(VAEConfig(input_dim=(1, 2, 2), latent_dim=2)).eval()


@functools.cache
def brownian_rvae():
    torch.manual_seed(0)
    fields = {"hidden_dims": (8,), "num_centers": 5, "warmup_epochs": 1}
    model = pg.BrownianRVAE(pg.BrownianRVAEConfig(input_dim=(1, 2, 2), latent_dim=2, **fields))
    model({"data": X}, epoch=1)
    model.update()
    return model.eval()


@functools.cache
def er_manifold_vae():
    torch.manual_seed(0)
    fields = {"manifold": "circle", "hidden_dims": (8,)}
    return pg.ERManifoldVAE(pg.ERManifoldVAEConfig(input_dim=(1, 2, 2), **fields)).eval()


@functools.cache
def ricci_ae():
    torch.manual_seed(0)
    return pg.RicciAE(pg.RicciAEConfig(input_dim=(1, 2, 2), num_points=4)).eval()


@functools.cache
def vae_dlm():
    torch.manual_seed(0)
    fields = {"latent_dim": 2, "hidden_dim": 8, "num_layers": 1}
    return pg.VAE_DLM(pg.VAE_DLM_Config(input_dim=(1, 2, 2), **fields)).eval()


@functools.cache
def conditional():
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(4, 2), nn.Linear(2, 4)
    return foreign.conditional_autoencoder_of(
        lambda x, y: encoder(x.flatten(1)) + y.unsqueeze(1),
        lambda z, y: decoder(z) + y.unsqueeze(1),
        (1, 2, 2),
        2,
    )


@functools.cache
def hmc_sampler():
    fields = {"metric": "posteriors", "num_centroids": 4, "mcmc_steps_nbr": 2}
    config = pg.MetricUniformHMCSamplerConfig(**fields)
    sampler = pg.MetricUniformHMCSampler(vae(), config)
    sampler.fit(X)
    return sampler


@functools.cache
def motion_sampler():
    config = pg.BrownianMotionSamplerConfig(metric="pullback", time=0.1, steps=2)
    sampler = pg.BrownianMotionSampler(vae(), config)
    sampler.fit(X)
    return sampler


@functools.cache
def feature_network():
    return evaluation.train_feature_network(X, LABELS, seed=0, epochs=1)


@functools.cache
def axes():
    return importlib.import_module("matplotlib.pyplot").subplots(1, 3)[1]


# The public callables, each with arguments that work

CURVE = {"steps": count(4, 4), "iterations": count(3), "tolerance": number(1e-2, above=0)}
MAP = a_map(sheet)
POINTS = tensor(Z)
CLOUD = numbers(FEATURES, flattened=True)


def curvature_terms():
    R, f = torch.randn(3), torch.rand(3)
    return {"R": tensor(R), "grad_f_sq": tensor(f), "f": tensor(f), "log_volume": tensor(R)}


def metric_calls(metric):
    """Methods that all metrics have."""
    one = ("cholesky", "log_volume", "log_volume_and_grad", "inverse_sqrt", "christoffel")
    calls = {f"{method}": (getattr(metric, method), {"z": POINTS}) for method in one}
    calls["__call__"] = (metric, {"z": POINTS})
    calls["brownian_drift"] = (metric.brownian_drift, {"z": POINTS})
    vectors = {"z": POINTS, "u": tensor(Z), "v": tensor(Z)}
    calls["cholesky_and_drift"] = (metric.cholesky_and_drift, {"z": POINTS})
    calls["inner"] = (metric.inner, vectors)
    calls["norm"] = (metric.norm, {"z": POINTS, "u": tensor(Z)})
    calls["geodesic_acceleration"] = (metric.geodesic_acceleration, {"z": POINTS, "v": tensor(Z)})
    return calls


def manifold_calls(manifold):
    y = manifold.sample(3, torch.Generator().manual_seed(0))
    u = torch.rand(3, manifold.dim, generator=torch.Generator().manual_seed(0))
    parameters, frame = torch.ones(3, manifold.group_dim), torch.randn(3, manifold.frame_dim)
    g = manifold.group_element(parameters)
    return {
        "immersion": (manifold.immersion, {"z": tensor(u)}),
        "from_cube": (manifold.from_cube, {"u": tensor(u)}),
        "to_cube": (manifold.to_cube, {"x": tensor(y)}),
        "project": (manifold.project, {"x": tensor(y)}),
        "check": (manifold.check, {"x": tensor(y, y + 1, y * nan)}),
        "distance": (manifold.distance, {"x": tensor(y), "y": tensor(y)}),
        "sample": (manifold.sample, {"num_samples": count(3, 0), "generator": generator()}),
        "act": (manifold.act, {"g": tensor(g), "x": tensor(y)}),
        "compose": (manifold.compose, {"g": tensor(g), "h": tensor(g)}),
        "group_element": (manifold.group_element, {"parameters": tensor(parameters)}),
        "group_element_from_frame": (
            manifold.group_element_from_frame,
            {"frame": tensor(frame)},
        ),
    }


def sampler_calls(sampler, folder):
    config = sampler.sampler_config
    sizes = {"num_samples": count(2, 0), "batch_size": count(2)}
    new = type(sampler)(sampler.model, config)
    return {
        "__init__": (type(sampler), {"model": model(vae()), "sampler_config": thing(config)}),
        "fit": (
            new.fit,
            {"train_data": numbers(X, same=False), "batch_size": count(5), "labels": no_labels()},
        ),
        "sample": (
            sampler.sample,
            {
                **sizes,
                "return_gen": flag(True),
                "save_sampler_config": flag(False),
                "labels": no_labels(),
            },
        ),
        "sample_latent": (sampler.sample_latent, sizes),
        "save": (sampler.save, {"dir_path": path(folder)}),
        "load": (type(sampler).load, {"dir_path": path(folder, "nowhere"), "model": model(vae())}),
    }


def model(good):
    return thing(good, nn.Linear(2, 2), None, lambda x: x)


def model_calls(built, config, folder):
    encoder, decoder = thing(None, nn.Linear(4, 2)), thing(None, nn.Linear(2, 4))
    without_shape = type(config)(latent_dim=config.latent_dim)
    calls = {
        "__init__": (
            type(built),
            {"model_config": thing(config, without_shape), "encoder": encoder, "decoder": decoder},
        ),
        "forward": (lambda data: built({"data": data}), {"data": tensor(X, finite=True)}),
        "save": (built.save, {"dir_path": path(folder)}),
        "load_from_folder": (type(built).load_from_folder, {"dir_path": path(folder, "nowhere")}),
    }  # fmt: skip
    if hasattr(built, "get_nll"):
        sizes = {"n_samples": count(2), "batch_size": count(5)}
        calls["get_nll"] = (built.get_nll, {"data": numbers(X), **sizes})
    return calls


def config_calls(config, fields, folder):
    config.save_json(folder, "config")
    json = os.path.join(folder, "config.json")
    given = {name: argument.good for name, argument in fields.items()}
    dictionary = Argument(given, (3, "words", [given], object(), {"colour": "green"}, None))
    return {
        "__init__": (type(config), {name: lax(argument) for name, argument in fields.items()}),
        "from_dict": (type(config).from_dict, {"config_dict": dictionary}),
        "from_json_file": (type(config).from_json_file, {"json_path": path(json, "nowhere")}),
        "save_json": (lambda dir_path: config.save_json(dir_path, "c"), {"dir_path": path(folder)}),
    }  # fmt: skip


def positives(*names):
    return {n: number(0.5, above=0) for n in names}


SHAPE = widths((1, 2, 2), (1, 2.5))
CONFIGS = {
    pg.BrownianRVAEConfig: {
        "input_dim": SHAPE,
        "latent_dim": count(2),
        "hidden_dims": widths((8,), (0,), (-3, 2), ()),
        "warmup_epochs": count(2),
        "num_centers": count(5),
        **positives("rbf_bandwidth", "precision_floor"),
    },
    pg.RicciAEConfig: {
        "input_dim": SHAPE,
        "latent_dim": count(2, 2),
        "functional": name("perelman_f"),
        "reconstruction_loss": name("bce", "l1"),
        "recon_weight": number(1.0, least=0),
        "curvature_weight": number(1.0, optional=True),
        "points": name("encoded"),
        "num_points": count(4),
        "curvature_every": count(2),
        **positives("tau", "regularization"),
    },
    pg.ERManifoldVAEConfig: {
        "input_dim": SHAPE,
        "latent_dim": count(1, optional=True),
        "manifold": name("circle", "sphere", "sphere(0)", "circle x", None),
        "ambient_dim": count(2, optional=True),
        "embedding": name("exact"),
        "posterior": name("normal"),
        "group_action": flag(False),
        "likelihood": name("gaussian"),
        "likelihood_std": number(0.5, above=0, optional=True),
        "hidden_dims": widths((8,), (0,), (-3, 2)),
        "embedding_epochs": count(2),
    },
    pg.VAE_DLM_Config: {
        "input_dim": SHAPE,
        "latent_dim": count(2),
        "hidden_dim": count(8),
        "num_layers": count(1),
        "default_time": number(0.0, least=0),
        "manifold_map": flag(True),
        "reconstruction_loss": name("bce", "l1"),
        **{n: number(0.5, least=0) for n in ("kl_weight", "metric_weight", "flow_weight")},
        **{n: number(0.5, least=0) for n in ("eigenvalue_weight", "alpha")},
        "steady_metric": name("euclidean"),
        "gradient_clip": number(0.5, above=0, optional=True),
        **positives("horizon", "recon_weight", "steady_scale"),
    },
    pg.MetricUniformHMCSamplerConfig: {
        "metric": name("posteriors"),
        "num_centroids": count(4, optional=True),
        "centroid_selection": name("random"),
        "temperature": number(1.0, above=0, optional=True),
        "regularization": number(0.01, least=0),
        "decay": number(0.1, least=0),
        "additive_volume": flag(True),
        "mcmc_steps_nbr": count(2, optional=True),
        "n_lf": count(2, optional=True),
        "eps_lf": number(0.01, above=0, optional=True),
        "adaptation_steps": count(2, 0),
        "target_acceptance": number(0.8, above=0),
        "seed": count(0, 0, optional=True),
    },
    pg.BrownianMotionSamplerConfig: {
        "metric": name("pullback"),
        "time": number(0.5, above=0, optional=True),
        "steps": count(2),
        "drift": flag(False),
        "seed": count(0, 0, optional=True),
    },
}
MODELS = {
    "BrownianRVAE": brownian_rvae,
    "RicciAE": ricci_ae,
    "ERManifoldVAE": er_manifold_vae,
    "VAE_DLM": vae_dlm,
}


def of_models(folder):
    calls = {}
    for title, build in MODELS.items():
        built = build()
        built.save(folder / title)
        methods = model_calls(built, built.model_config, os.fspath(folder / title))
        calls |= {f"{title}.{method}": call for method, call in methods.items()}
    dlm, er, ricci, rvae = vae_dlm(), er_manifold_vae(), ricci_ae(), brownian_rvae()
    calls |= {
        "VAE_DLM.evolve": (
            dlm.evolve,
            {"x0": numbers(X), "times": numbers([0.0, 1.0], same=False, flattened=True),
             "sample": flag(False), "generator": generator()},
        ),
        "VAE_DLM.metric_at": (dlm.metric_at, {"t": number(0.5, least=0)}),
        "VAE_DLM.posterior": (dlm.posterior, {"x": tensor(X, finite=True)}),
        "ERManifoldVAE.embedding_quality": (
            er.embedding_quality, {"num_points": count(9, 2), "seed": count(0, 0)},
        ),
        "ERManifoldVAE.fit_embedding": (er.fit_embedding, {"seed": count(0, 0)}),
        "ERManifoldVAE.manifold_points": (er.manifold_points, {"x": numbers(X)}),
        "ERManifoldVAE.sample_manifold": (
            er.sample_manifold, {"num_samples": count(2), "generator": generator()},
        ),
        "RicciAE.curvature": (ricci.curvature, {"z": POINTS}),
        "BrownianRVAE.log_prior": (rvae.log_prior, {"z": POINTS}),
    }  # fmt: skip
    networks = {
        "encoder": thing(nn.Linear(4, 2), None),
        "decoder": thing(nn.Linear(2, 4), None),
        "input_dim": widths((4,), (0,), (), None),
        "latent_dim": count(2),
    }
    for make in (foreign.autoencoder_of, foreign.conditional_autoencoder_of):
        calls[make.__name__] = (make, networks)
    label = Argument(1, (None, "words", {}, object(), 1j), (np.int64(1), torch.tensor(1)))
    calls["ConditionalAutoencoder.given"] = (conditional().given, {"label": label})
    plain = foreign.autoencoder_of(nn.Linear(4, 2), nn.Linear(2, 4), (4,), 2)
    of_model = thing(conditional(), None, plain)
    calls["given"] = (foreign.given, {"model": of_model, "label": label})
    return calls


def of_configs(folder):
    calls = {}
    for config, fields in CONFIGS.items():
        built = config(**{name: argument.good for name, argument in fields.items()})
        methods = config_calls(built, fields, os.fspath(folder))
        calls |= {f"{config.__name__}.{method}": call for method, call in methods.items()}
    return calls


def of_samplers(folder):
    calls = {}
    for sampler in (hmc_sampler(), motion_sampler()):
        title = type(sampler).__name__
        sampler.save(folder / title)
        methods = sampler_calls(sampler, os.fspath(folder / title))
        calls |= {f"{title}.{method}": call for method, call in methods.items()}
    walk = motion_sampler()
    calls["BrownianMotionSampler.trajectories"] = (walk.trajectories, {"num_samples": count(2)})
    starts = {"start": numbers(Z, same=False)}
    new = pg.BrownianMotionSampler(walk.model, walk.sampler_config)
    calls["BrownianMotionSampler.fit(start)"] = (new.fit, starts)
    config = pg.MetricUniformHMCSamplerConfig(num_centroids=2)
    sampler = pg.MetricUniformHMCSampler(conditional(), config)
    sampler.fit(X, labels=LABELS)
    new = pg.MetricUniformHMCSampler(conditional(), config)
    given = {"train_data": numbers(X, same=False), "labels": labels(LABELS)}
    calls["MetricUniformHMCSampler.fit(labels)"] = (new.fit, given)
    given = {"num_samples": count(2), "labels": labels([0, 1])}
    calls["MetricUniformHMCSampler.sample(labels)"] = (sampler.sample, given)
    return calls


def of_geometry(folder):
    mixture = geometry.MixtureMetric(torch.ones(2) / 2, Z[:2], torch.eye(2).expand(2, 2, 2))
    posterior = geometry.PosteriorMetric(Z[:2], torch.ones(2, 2), temperature=1.0)
    pullback = geometry.PullbackMetric(sheet)
    pair = geometry.StochasticPullbackMetric(lambda z: (sheet(z), z))
    curve = geometry.geodesic(pullback, Z, Z + 0.1, steps=4, iterations=3, tolerance=1.0)
    state = geometry.HMCState(Z, *normal(Z))
    terms = curvature_terms()
    streams = geometry.RowStreams(0, 3)
    ends = {"x": tensor(Z, finite=True), "y": tensor(Z + 0.1, finite=True)}
    times = (
        None,
        "words",
        {},
        1j,
        nan,
        2.0,
        -1.0,
        object(),
        torch.ones(2) + 1,
        torch.ones(2, 1, 1),
    )
    times = Argument(torch.tensor([0.0, 0.5]), times)
    chain = {"log_prob_and_grad": thing(normal, lambda z: z, lambda z: (z, z))}
    calls = {
        "evaluation_mode": (lambda f: geometry.evaluation_mode(f).__enter__(), {"f": thing(sheet)}),
        "jacobian": (geometry.jacobian, {"f": MAP, "z": POINTS}),
        "value_and_jacobian": (geometry.value_and_jacobian, {"f": MAP, "z": POINTS}),
        "second_derivatives": (geometry.second_derivatives, {"f": MAP, "z": POINTS}),
        "directional_derivative": (
            geometry.directional_derivative, {"f": MAP, "z": POINTS, "v": tensor(Z)},
        ),
        "second_directional_derivative": (
            geometry.second_directional_derivative, {"f": MAP, "z": POINTS, "v": tensor(Z)},
        ),
        "scalar_curvature": (
            geometry.scalar_curvature, {"immersion_or_metric": MAP, "z": POINTS},
        ),
        "curvature_and_cholesky": (
            geometry.curvature_and_cholesky, {"immersion": MAP, "z": POINTS},
        ),
        "curvature_estimates": (
            geometry.curvature_estimates,
            {"immersion": MAP, "z": POINTS, "num_tangents": count(2, 2), "num_estimates": count(2),
             "generator": generator()},
        ),
        "ricci": (geometry.ricci, {"metric": thing(posterior, sheet), "z": POINTS}),
        "distance_matrix": (
            geometry.distance_matrix,
            {"immersion_or_metric": MAP, "x": ends["x"], **CURVE, "batch_size": count(4)},
        ),
        "frechet_mean": (
            geometry.frechet_mean, {"immersion_or_metric": MAP, "points": ends["x"], **CURVE},
        ),
        "exponential_map": (
            geometry.exponential_map,
            {"immersion_or_metric": MAP, "x": tensor(Z, finite=True),
             "v": tensor(0.1 * Z, finite=True)},
        ),
        "geodesic": (geometry.geodesic, {"immersion_or_metric": MAP, **ends, **CURVE}),
        "logarithm": (geometry.logarithm, {"immersion_or_metric": MAP, **ends, **CURVE}),
        "squared_distance": (
            geometry.squared_distance, {"immersion_or_metric": MAP, **ends, **CURVE},
        ),
        "potential_path": (
            geometry.potential_path, {"immersion_or_metric": MAP, **ends, **CURVE},
        ),
        "heat_kernel_log_prob": (
            geometry.heat_kernel_log_prob,
            {"immersion_or_metric": MAP, "z": ends["x"], "mean": ends["y"],
             "time": number(0.5, above=0), **CURVE},
        ),
        "brownian_motion": (
            geometry.brownian_motion,
            {"immersion_or_metric": MAP, "start": ends["x"], "time": number(0.1, least=0),
             "steps": count(2), "drift": flag(True), "generator": generator(),
             "trajectory": flag(True), "halvings": count(1, 0)},
        ),
        "hmc": (
            geometry.hmc,
            {**chain, "start": ends["x"], "steps": count(2, 0), "leapfrog_steps": count(2),
             "step_size": number(0.1, above=0), "adaptation_steps": count(1, 0),
             "target_acceptance": number(0.8, above=0),
             "keep_chains": count(2, 0, optional=True), "generator": generator()},
        ),
        "RowStreams.__init__": (
            geometry.RowStreams,
            {"seed": count(3, 0), "num_rows": count(2, 0), "first": count(1, 0)},
        ),
        "RowStreams.uniform": (lambda n: geometry.RowStreams(0, 3).uniform(n), {"n": count(2, 0)}),
        "RowStreams.normal": (lambda n: geometry.RowStreams(0, 3).normal(n), {"n": count(2, 0)}),
        "RowStreams.beside": (streams.beside, {"number": count(1)}),
        "RowStreams.of": (
            streams.of,
            {"rows": Argument(
                torch.tensor([1, 0]),
                (None, "words", 3, [0], torch.tensor([0.5]), torch.tensor([9]), torch.tensor(1)),
            )},
        ),
        "hmc_step": (
            geometry.hmc_step,
            {**chain, "state": thing(state), "leapfrog_steps": count(2),
             "step_size": number(0.1, above=0), "generator": generator()},
        ),
        "leapfrog": (
            geometry.leapfrog,
            {**chain, "state": thing(state), "momentum": tensor(Z), "steps": count(2),
             "step_size": number(0.1, above=0)},
        ),
        "gradient_norm_squared": (
            geometry.gradient_norm_squared,
            {"f": thing(lambda z: z.sum(1)), "z": POINTS,
             "cholesky": tensor(torch.eye(2).expand(3, 2, 2).clone())},
        ),
        "normalize_potential": (
            geometry.normalize_potential, {n: terms[n] for n in ("f", "log_volume")},
        ),
        "perelman_f": (geometry.perelman_f, terms),
        "perelman_w": (
            geometry.perelman_w, {**terms, "tau": number(1.0, above=0), "n": count(2)},
        ),
        "total_squared_curvature": (
            geometry.total_squared_curvature, {n: terms[n] for n in ("R", "log_volume")},
        ),
        "Curve.__call__": (curve, {"t": times}),
        "MixtureMetric.__init__": (
            geometry.MixtureMetric,
            {"weights": tensor(torch.ones(2) / 2, finite=True),
             "centroids": tensor(Z[:2], finite=True),
             "covariances": tensor(torch.eye(2).expand(2, 2, 2).clone(), finite=True)},
        ),
        "MixtureMetric.shares": (mixture.shares, {"z": POINTS}),
        "MixtureMetric.sample": (
            mixture.sample, {"num_samples": count(3, 0), "generator": generator()},
        ),
        "PosteriorMetric.__init__": (
            geometry.PosteriorMetric,
            {"centroids": tensor(Z[:2], finite=True),
             "precisions": tensor(torch.ones(2, 2), -torch.ones(2, 2), finite=True),
             "temperature": number(1.0, above=0), "regularization": number(0.1, least=0),
             "decay": number(0.1, least=0), "additive_volume": flag(False)},
        ),
        "PullbackMetric.__init__": (
            geometry.PullbackMetric, {"immersion": thing(sheet)},
        ),
        "PullbackMetric.image": (pullback.image, {"z": POINTS}),
        "PullbackMetric.jacobian": (pullback.jacobian, {"z": POINTS}),
        "StochasticPullbackMetric.__init__": (
            geometry.StochasticPullbackMetric, {"immersion": thing(sheet)},
        ),
        "StochasticPullbackMetric.image": (pair.image, {"z": POINTS}),
        "StochasticPullbackMetric.jacobian": (pair.jacobian, {"z": POINTS}),
        "Sphere.__init__": (geometry.Sphere, {"n": count(2)}),
        "Torus.__init__": (geometry.Torus, {"n": count(2)}),
        "Product.__init__": (
            lambda factor: geometry.Product(factor), {"factor": thing(geometry.Circle())},
        ),
    }  # fmt: skip
    for metric in (mixture, posterior, pullback, pair):
        title = type(metric).__name__
        calls |= {f"{title}.{method}": call for method, call in metric_calls(metric).items()}
    circle = geometry.Circle()
    for manifold in (
        geometry.Sphere(2), geometry.Torus(2), geometry.SpecialOrthogonal3(), circle,
        geometry.Product(circle, circle),
    ):  # fmt: skip
        title = type(manifold).__name__
        calls |= {f"{title}.{method}": call for method, call in manifold_calls(manifold).items()}
    return calls


def of_evaluation(folder):
    clouds = {"real_features": CLOUD, "fake_features": CLOUD}
    network = feature_network()
    labels = Argument(LABELS, (None, "words", 3, LABELS[:3], LABELS + nan, LABELS * 1j, object()))
    return {
        "class_f1": (
            evaluation.class_f1,
            {"train_codes": CLOUD._replace(same=()), "train_labels": labels,
             "codes": CLOUD._replace(same=()), "labels": labels, "seed": count(0, 0),
             "classifiers": count(1)},
        ),
        "density_and_coverage": (
            evaluation.density_and_coverage, {**clouds, "k": count(2), "batch_size": count(5)},
        ),
        "frechet_distance": (
            evaluation.frechet_distance,
            {"features_a": CLOUD, "features_b": CLOUD},
        ),
        "FrechetStatistics.add": (evaluation.FrechetStatistics().add, {"features": CLOUD}),
        "inception_features": (  # what is good needs an extra, and a download
            evaluation.inception_features,
            {"images": numbers(X, same=False), "batch_size": count(5)._replace(same=())},
        ),
        "nearest_distances": (
            evaluation.nearest_distances,
            {"points": CLOUD, "train_points": CLOUD, "batch_size": count(5)},
        ),
        "negative_log_likelihood": (
            evaluation.negative_log_likelihood,
            {"model": model(vae()), "images": numbers(X), "num_samples": count(2)},
        ),
        "reconstruction_error": (
            evaluation.reconstruction_error,
            {"model": model(vae()), "images": numbers(X), "batch_size": count(5)},
        ),
        "prd_curve_of_histograms": (
            evaluation.prd_curve_of_histograms,
            {"real": numbers([0.5, 0.5]), "fake": numbers([0.2, 0.8]), "angles": count(5)},
        ),
        "prd_curve": (
            evaluation.prd_curve,
            {**clouds, "seed": count(0, 0), "clusters": count(2), "angles": count(5)},
        ),
        "prd_scores": (
            evaluation.prd_scores,
            {**clouds, "seed": count(0, 0), "clusters": count(2), "repeats": count(1)},
        ),
        "train_feature_network": (
            evaluation.train_feature_network,
            {"images": numbers(X, same=False), "labels": labels, "seed": count(0, 0),
             "epochs": count(1)},
        ),
        "FeatureNetwork.__init__": (
            evaluation.FeatureNetwork,
            {"input_dim": widths((1, 2, 2), (0,), (), None), "num_classes": count(2, 2)},
        ),
        "FeatureNetwork.features": (
            network.features, {"images": numbers(X), "batch_size": count(5)},
        ),
    }  # fmt: skip


def of_plotting(folder):
    line = torch.linspace(0, 1, 5)
    trajectory = {
        "truth": numbers(torch.rand(5, 4), same=False),
        "prediction": numbers(torch.rand(5, 4), same=False),
        "times": numbers(line, same=False),
        "grid": numbers(line[:4], same=False),
    }
    ax = axes()[0]
    return {
        "image_grid": (
            plotting.image_grid,
            {"images": numbers(X, same=False), "columns": count(2, optional=True), "ax": thing(ax)},
        ),
        "latent_map": (
            plotting.latent_map,
            {"metric": thing(geometry.PullbackMetric(sheet), sheet),
             "points": numbers(Z, same=False), "resolution": count(3, 2), "ax": thing(ax)},
        ),
        "draw_curves": (
            plotting.draw_curves,
            {"ax": thing(ax), "curves": numbers(torch.rand(2, 3, 2), same=False)},
        ),
        "trajectory_error": (
            plotting.trajectory_error, {**trajectory, "axes": thing(axes())},
        ),
        "animate_trajectory": (
            plotting.animate_trajectory, {**trajectory, "every": count(1)},
        ),
        "manifold_over_time": (
            plotting.manifold_over_time,
            {"points": numbers(torch.rand(5, 3, 3), same=False),
             "times": numbers(line, same=False), "ax": thing(ax)},
        ),
    }  # fmt: skip


def of_data(folder):
    network = symmetric.random_network(2, 3, 4)
    return {
        "synthetic_gaussians": (
            synthetic.synthetic_gaussians,
            {"num_samples": count(4, 2), "num_clouds": count(2), "dim": count(3, 2),
             "offset": number(0.1, least=0), "std": number(1.0, above=0),
             "generator": generator()},
        ),
        "swiss_roll": (
            synthetic.swiss_roll,
            {"num_samples": count(4), "noise": number(0.1, least=0), "generator": generator()},
        ),
        "random_network": (
            symmetric.random_network,
            {"ambient_dim": count(2), "output_dim": count(3), "hidden_dim": count(4),
             "generator": generator()},
        ),
        "symmetric_data": (
            symmetric.symmetric_data,
            {"manifold": thing(geometry.Circle()), "num_samples": count(4),
             "network": thing(network), "generator": generator()},
        ),
        "rotated_digits": (
            symmetric.rotated_digits,
            {"num_samples": count(4), "num_sources": count(2), "size": count(8, 8),
             "generator": generator()},
        ),
        "rotate": (
            symmetric.rotate,
            {"images": numbers(X), "angle": numbers(torch.rand(12)), "size": count(2)},
        ),
        "TrajectoryDataset.__init__": (
            trajectories.TrajectoryDataset,
            {"trajectories": numbers(torch.rand(4, 3, 2), same=False, flattened=True),
             "times": numbers([0.0, 0.5, 1.0], same=False), "random_time": flag(True)},
        ),
        "burgers": (
            burgers.burgers,
            {"num_samples": count(1), "viscosity": number(0.1, above=0),
             "generator": generator(), "progress": flag(False)},
        ),
        "solve_burgers": (
            burgers.solve_burgers,
            {"initial": numbers(torch.zeros(2, 5)), "viscosity": number(0.1, above=0),
             "num_times": count(3, 3), "spacing": number(0.2, above=0),
             "tolerance": number(1e-3, above=0)},
        ),
    }  # fmt: skip


def of_the_rest(folder):
    return {
        "interpolate": (
            pg.interpolate,
            {"model": model(vae()), "starting_inputs": numbers(X[:2]),
             "ending_inputs": numbers(X[2:4]), "path": name("geodesic"),
             "metric": thing(None, sheet), "granularity": count(3, 2), "steps": count(4, 4),
             "iterations": count(3), "labels": no_labels()},
        ),
        "interpolate(labels)": (
            functools.partial(pg.interpolate, conditional(), path="line"),
            {"starting_inputs": numbers(X[:2]), "ending_inputs": numbers(X[2:4]),
             "labels": labels([0, 1])},
        ),
        "register": (pg.register, {"cls": thing(AE, nn.Linear), "config": thing(AEConfig, dict)}),
    }  # fmt: skip


GROUPS = (
    of_configs, of_models, of_samplers, of_geometry, of_evaluation, of_plotting, of_data,
    of_the_rest,
)  # fmt: skip


# Arguments whose type or range the package does not check: exactly these.
UNCHECKED: dict[str, tuple[str, ...]] = {}


# The calls


class Call(NamedTuple):
    title: str
    function: Callable
    arguments: dict
    bad: tuple = ()  # the names of bad arguments
    good: dict | None = None  # the arguments for which the values must be the same


def calls_of(title, function, arguments):
    """All calls with one bad argument, some with two, and those that are to give the same."""
    good = {name: argument.good for name, argument in arguments.items()}
    bad = [(name, i) for name, a in arguments.items() for i in range(len(a.bad))]
    draw = random.Random(title)
    pairs = [draw.sample(bad, 2) for _ in range(PAIRS)]
    pairs = {tuple(sorted(pair)) for pair in pairs if pair[0][0] != pair[1][0]}
    for chosen in [*([one] for one in bad), *sorted(pairs)]:
        values = {name: arguments[name].bad[i] for name, i in chosen}
        text = ", ".join(f"{name} #{i}: {_short(values[name])}" for name, i in chosen)
        yield Call(f"{title}, {text}", function, {**good, **values}, tuple(values))
    for name, argument in arguments.items():
        for i, value in enumerate(argument.same):
            yield Call(f"{title}, {name} as good #{i}", function, {**good, name: value}, (), good)


def _short(value):
    text = f"{type(value).__name__} {list(value.shape)}" if hasattr(value, "shape") else repr(value)
    return " ".join(re.sub(" at 0x[0-9a-f]+", "", text).split())[:60]


def fault_of(error):
    """What is wrong with the answer to a bad call; None: nothing."""
    if isinstance(error, pydantic.ValidationError):
        return None
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
    if not isinstance(error, ERRORS):
        return f"a crash, {said}"
    if "os.PathLike" in str(error):  # Python's sentence on what is no path
        return None
    last = traceback.extract_tb(error.__traceback__)[-1]
    if not last.filename.startswith(PACKAGE) or not last.line.startswith("raise"):
        return f"words of {os.path.basename(last.filename)}:{last.lineno}, {said}"
    return None


def answer_of(call, arguments):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call.function(**arguments)


def values_of(result):
    """The numbers of a result."""
    if isinstance(result, torch.Tensor):
        return [result.detach().double()]
    if isinstance(result, np.ndarray | float | int):
        return [torch.as_tensor(result).double()]
    if isinstance(result, nn.Module):
        return [value.double() for value in result.state_dict().values()]
    if isinstance(result, tuple):
        return [value for part in result for value in values_of(part)]
    return []


GROUP = pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)


@GROUP
def test_bad_arguments_are_refused(group, tmp_path, refused):
    faults, unchecked, callables = [], set(), group(tmp_path)
    for title, (function, arguments) in callables.items():
        known = UNCHECKED.get(title, ())
        for call in calls_of(title, function, arguments):
            if call.good is not None or (len(call.bad) > 1 and set(call.bad) & set(known)):
                continue
            try:
                fault = f"silence, and {_short(answer_of(call, call.arguments))}"
            except Exception as error:
                fault = fault_of(error)
                if fault is None:
                    # A comment in the pattern: the calls are told apart, and counted, by it.
                    refused(ERRORS, f"(?#{re.sub('[()]', '', call.title)})", _raising(error))
            if fault and set(call.bad) & set(known):
                unchecked.add((title, *call.bad))
            elif fault:
                faults.append(f"{call.title}: {fault}")
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults)
    listed = {(title, name) for title in callables for name in UNCHECKED.get(title, ())}
    assert unchecked == listed, f"These are checked now: {sorted(listed - unchecked)}."


def _raising(error):
    def call():
        raise error

    return call


@GROUP
def test_what_is_as_good_gives_the_same(group, tmp_path):
    for title, (function, arguments) in group(tmp_path).items():
        for call in calls_of(title, function, arguments):
            if call.good is not None:
                one, other = (answer_of(call, a) for a in (call.good, call.arguments))
                for x, y in zip(values_of(one), values_of(other), strict=True):
                    assert bool(torch.isfinite(x).all()), call.title
                    torch.testing.assert_close(x, y, msg=call.title)


# Whether all are there


def test_there_are_enough_bad_calls(tmp_path, capsys):
    calls = [
        call.title
        for group in GROUPS
        for title, (function, arguments) in group(tmp_path).items()
        for call in calls_of(title, function, arguments)
        if call.good is None and not set(call.bad) & set(UNCHECKED.get(title, ()))
    ]
    assert len(set(calls)) == len(calls) >= LEAST
    with capsys.disabled():
        print(f"\n{len(calls)} bad calls of the public callables")


# With no arguments of the user's, or tried under another name or elsewhere.
ELSEWHERE = {
    *("GeometricModel", "Manifold", "Metric"),  # of which the others are
    "ConditionalAutoencoder.__init__",  # conditional_autoencoder_of
    "labels_for",  # fit, sample and interpolate of a conditional model
    *("Curve.__init__", "DensityCoverage", "PRDScores", "FrechetMean"),  # results
    *("HMCInfo", "HMCResult", "HMCState"),
    *("push_to_hf_hub", "load_from_hf_hub"),  # test_hub.py
    *("forward", "identity"),  # of metrics: __call__; torch's own of the others
}


def public_callables():
    """The names of public functions, and of classes with their public methods."""
    for module in (pg, models, foreign, samplers, geometry, evaluation):
        for name in module.__all__:
            yield name, getattr(module, name)
    for module in (plotting, burgers, symmetric, synthetic, trajectories):
        for name, value in vars(module).items():
            if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__:
                yield name, value


def parts_of(name, value):
    """The name of a function, or of each public method of a class that takes arguments."""
    if not inspect.isclass(value):
        return [name] if callable(value) else []
    if issubclass(value, Exception | tuple):
        return []
    found = [f"{name}.__init__"] if len(inspect.signature(value).parameters) else []
    for method in dir(value):
        function = inspect.getattr_static(value, method)
        function = getattr(function, "__func__", function)
        if method.startswith("_") or not inspect.isfunction(function):
            continue
        is_ours = inspect.unwrap(function).__module__.startswith("pythae_geometric")
        if is_ours and set(inspect.signature(function).parameters) - {"self", "cls"}:
            found.append(f"{name}.{method}")
    return found


def test_every_public_callable_is_tried(tmp_path):
    tried = {title for group in GROUPS for title in group(tmp_path)}
    wanted = {part for name, value in public_callables() for part in parts_of(name, value)}
    missing = {
        part
        for part in wanted - tried
        if not {part, part.split(".")[0], part.split(".")[-1]} & ELSEWHERE
    }
    assert not missing, f"They have no arguments here: {sorted(missing)}."
