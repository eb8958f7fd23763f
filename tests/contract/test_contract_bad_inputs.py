"""Bad input, counted: each gives one error that names the argument and what to do.

Those of files are in ``test_contract_faults.py``, those that belong to one class in its own tests.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
from cases import CASES
from pydantic import ValidationError
from pythae.models import AutoModel

from pythae_geometric import (
    BrownianMotionSampler,
    BrownianMotionSamplerConfig,
    BrownianRVAEConfig,
    ERManifoldVAEConfig,
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
    RicciAEConfig,
    VAE_DLM_Config,
    interpolate,
)
from pythae_geometric import geometry as g
from pythae_geometric.data.synthetic import swiss_roll, synthetic_gaussians

nan, inf = math.nan, math.inf
NUMBERS = ("many", None, [1], nan)  # no numbers at all, for fields that must be one
POSITIVE = (*NUMBERS, 0, -1, inf)
COUNT = (*NUMBERS, 0, -1, 1.5)
# Of fields that may be None: it is chosen from the data.
OPTIONAL_NUMBERS = tuple(value for value in NUMBERS if value is not None)
OPTIONAL_POSITIVE = tuple(value for value in POSITIVE if value is not None)
OPTIONAL_COUNT = tuple(value for value in COUNT if value is not None)
CONFIGS = {
    BrownianRVAEConfig: {
        "latent_dim": COUNT,
        "hidden_dims": ("wide", (), (0,), (-3, 2), (1.5,), None),
        "warmup_epochs": COUNT,
        "num_centers": COUNT,
        "rbf_bandwidth": POSITIVE,
        "precision_floor": POSITIVE,
        "input_dim": ("8x8", 64, (1, 8.5)),
    },
    RicciAEConfig: {
        "reconstruction_loss": ("l1", None, 3),
        "num_tangents": (0, 1, 3, -2, 1.5, "two"),
        "latent_dim": (*COUNT, 1),
        "functional": ("R", None, 3),
        "recon_weight": (*NUMBERS, -1, inf),
        "curvature_weight": (*OPTIONAL_NUMBERS, inf, -inf),
        "tau": POSITIVE,
        "points": ("everywhere", None, 3),
        "num_points": COUNT,
        "curvature_every": COUNT,
        "regularization": POSITIVE,
    },
    ERManifoldVAEConfig: {
        "latent_dim": ("many", [1], nan, 0, -1, 1.5, 7),
        "manifold": ("plane", "sphere", "sphere(0)", "sphere(x)", "circle x", None, 3),
        "ambient_dim": ("many", [1], nan, 0, -1, 1.5),
        "embedding": ("guessed", None, 3),
        "posterior": ("uniform", None, 3),
        "likelihood": ("poisson", None, 3),
        "likelihood_std": OPTIONAL_POSITIVE,
        "hidden_dims": ("wide", (0,), (-3, 2), (1.5,), None),
        "embedding_epochs": COUNT,
    },
    VAE_DLM_Config: {
        "reconstruction_loss": ("l1", None, 3),
        "latent_dim": COUNT,
        "hidden_dim": COUNT,
        "num_layers": COUNT,
        "horizon": POSITIVE,
        "default_time": (*NUMBERS, -1, inf, 2.0),
        "recon_weight": POSITIVE,
        "kl_weight": (*NUMBERS, -1, inf),
        "metric_weight": (*NUMBERS, -1, inf),
        "flow_weight": (*NUMBERS, -1, inf),
        "eigenvalue_weight": (*NUMBERS, -1, inf),
        "alpha": (*NUMBERS, -1, inf),
        "steady_metric": ("cube", None, 3),
        "steady_scale": POSITIVE,
        "gradient_clip": ("many", [1], nan, 0, -1, inf),
    },
    MetricUniformHMCSamplerConfig: {
        "metric": ("flat", None, 3),
        "num_centroids": OPTIONAL_COUNT,
        "centroid_selection": ("best", None, 3),
        "temperature": OPTIONAL_POSITIVE,
        "target_acceptance": (*NUMBERS, 0, 1, -1, 2),
        "regularization": (*NUMBERS, -1, inf),
        "decay": (*NUMBERS, -1, inf),
        "mcmc_steps_nbr": OPTIONAL_COUNT,
        "n_lf": OPTIONAL_COUNT,
        "eps_lf": OPTIONAL_POSITIVE,
        "adaptation_steps": (*NUMBERS, -1, 1.5),
        "seed": ("lucky", -1, 1.5, nan),
    },
    BrownianMotionSamplerConfig: {
        "metric": ("flat", None, 3),
        "stationary": ("prior", None, 3),
        "time": OPTIONAL_POSITIVE,
        "steps": COUNT,
        "seed": ("lucky", -1, 1.5, nan),
    },
}
# What belongs to metric="posteriors" of the MetricUniformHMCSampler alone.
OF_POSTERIORS = {
    "centroid_selection": "random",
    "regularization": 1.0,
    "decay": 0.1,
    "additive_volume": True,
    "adaptation_steps": 5,
}
FIELDS = [
    pytest.param(config, field, value, id=f"{config.__name__}-{field}-{value}")
    for config, fields in CONFIGS.items()
    for field, values in fields.items()
    for value in values
]


@pytest.mark.parametrize(("config", "field", "value"), FIELDS)
def test_fields_of_configs(config, field, value, refused):
    # Where a field belongs to one metric, it is the value that is to be refused.
    of_posteriors = config is MetricUniformHMCSamplerConfig and field in OF_POSTERIORS
    others = {"metric": "posteriors"} if of_posteriors else {}
    refused((ValueError, ValidationError), field, lambda: config(**{**others, field: value}))


@pytest.mark.parametrize("field", OF_POSTERIORS)
def test_fields_of_another_metric(field, refused):
    fields = {field: OF_POSTERIORS[field]}
    words = rf"{field}=.* belongs to metric='posteriors'"
    refused(ValueError, words, lambda: MetricUniformHMCSamplerConfig(**fields))
    loaded = MetricUniformHMCSamplerConfig.from_dict
    refused(ValueError, words, lambda: loaded({**fields, "metric": "codes"}))
    assert getattr(loaded({**fields, "metric": "posteriors"}), field) == fields[field]


@pytest.mark.parametrize("config", CONFIGS)
def test_unknown_fields(config, refused):
    refused((ValueError, ValidationError), "colour", lambda: config(colour="green"))
    refused(ValueError, "colour", lambda: config.from_dict({"colour": "green"}))


def test_every_field_is_tried():
    """A field that is added to a config is added here."""
    free = {
        "uses_default_encoder",
        "uses_default_decoder",
        "drift",
        "group_action",
        "manifold_map",
        "additive_volume",
        "several_processes",
        "name",
        "input_dim",
    }
    for config, fields in CONFIGS.items():
        known = {f.name for f in dataclasses.fields(config)}
        assert known - free <= set(fields), config.__name__


# The geometry


Z = torch.zeros(3, 2)


def sheet(z):
    return torch.cat([z, z.square()], dim=1)


def metric():
    return g.PosteriorMetric(torch.zeros(2, 2), torch.ones(2, 2), temperature=1.0)


POINTS = {
    "one point without a batch": torch.zeros(2),
    "three axes": torch.zeros(1, 3, 2),
    "no coordinates": torch.zeros(3, 0),
    "whole numbers": torch.zeros(3, 2, dtype=torch.long),
    "an array": np.zeros((3, 2)),
}
OF_POINTS = {
    "jacobian": lambda z: g.jacobian(sheet, z),
    "scalar_curvature": lambda z: g.scalar_curvature(sheet, z),
    "christoffel": lambda z: g.PullbackMetric(sheet).christoffel(z),
    "brownian_motion": lambda z: g.brownian_motion(sheet, z, 1.0, 2),
    "geodesic": lambda z: g.geodesic(sheet, z, z),
    "squared_distance": lambda z: g.squared_distance(sheet, z, z),
}


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("name", OF_POINTS)
def test_points(name, points, refused):
    if (name, points) == ("brownian_motion", "an array"):
        words = "starting points"
    else:
        words = "points|z|x and y|starting"
    refused((TypeError, ValueError), words, lambda: OF_POINTS[name](POINTS[points]))


CALLS = {
    "brownian_motion: no steps": ("steps", lambda: g.brownian_motion(sheet, Z, 1.0, 0)),
    "brownian_motion: half a step": ("steps", lambda: g.brownian_motion(sheet, Z, 1.0, 1.5)),
    "brownian_motion: time back": ("time", lambda: g.brownian_motion(sheet, Z, -1.0, 2)),
    "brownian_motion: no time": ("time", lambda: g.brownian_motion(sheet, Z, nan, 2)),
    "brownian_motion: times of others": (
        "time",
        lambda: g.brownian_motion(sheet, Z, torch.ones(5), 2),
    ),
    "brownian_motion: NaN": ("starting points", lambda: g.brownian_motion(sheet, Z + nan, 1.0, 2)),
    "geodesic: ends of two sizes": ("shape", lambda: g.geodesic(sheet, Z, Z[:2])),
    "geodesic: NaN": ("finite", lambda: g.geodesic(sheet, Z, Z + nan)),
    "geodesic: odd steps": ("steps", lambda: g.geodesic(sheet, Z, Z + 1, steps=5)),
    "geodesic: no steps": ("steps", lambda: g.geodesic(sheet, Z, Z + 1, steps=0)),
    "geodesic: no map": ("immersion", lambda: g.geodesic(3, Z, Z + 1)),
    "geodesic: tolerance": ("tolerance", lambda: g.geodesic(sheet, Z, Z + 1, tolerance=-1)),
    "geodesic: iterations": ("iterations", lambda: g.geodesic(sheet, Z, Z + 1, iterations=-1)),
    "jacobian: no tensor": ("tensor", lambda: g.jacobian(lambda z: {"x": z}, Z)),
    "jacobian: batch lost": ("batch", lambda: g.jacobian(lambda z: z.sum(0), Z)),
    "directional_derivative: shape": (
        "directions",
        lambda: g.directional_derivative(sheet, Z, Z[:2]),
    ),
    "PullbackMetric: no map": ("immersion", lambda: g.PullbackMetric(3)),
    "PullbackMetric: flat": (
        "rank",
        lambda: g.PullbackMetric(lambda z: z[:, :1].expand(-1, 3)).cholesky(Z),
    ),
    "PosteriorMetric: temperature 0": (
        "temperature",
        lambda: g.PosteriorMetric(torch.zeros(2, 2), torch.ones(2, 2), temperature=0.0),
    ),
    "PosteriorMetric: temperature NaN": (
        "temperature",
        lambda: g.PosteriorMetric(torch.zeros(2, 2), torch.ones(2, 2), temperature=nan),
    ),
    "PosteriorMetric: shapes": (
        "precisions",
        lambda: g.PosteriorMetric(torch.zeros(2, 2), torch.ones(3, 2), temperature=1.0),
    ),
    "PosteriorMetric: no centroids": (
        "centroids",
        lambda: g.PosteriorMetric(torch.zeros(0, 2), torch.ones(0, 2), temperature=1.0),
    ),
    "PosteriorMetric: negative precision": (
        "precisions",
        lambda: g.PosteriorMetric(torch.zeros(2, 2), -torch.ones(2, 2), temperature=1.0),
    ),
    "PosteriorMetric: NaN": (
        "centroids",
        lambda: g.PosteriorMetric(torch.zeros(2, 2) + nan, torch.ones(2, 2), temperature=1.0),
    ),
    "PosteriorMetric: regularization": (
        "regularization",
        lambda: g.PosteriorMetric(
            torch.zeros(2, 2), torch.ones(2, 2), temperature=1.0, regularization=-1.0
        ),
    ),
    "PosteriorMetric: decay": (
        "decay",
        lambda: g.PosteriorMetric(torch.zeros(2, 2), torch.ones(2, 2), temperature=1.0, decay=-1.0),
    ),
    "PosteriorMetric: other dimension": ("shape", lambda: metric()(torch.zeros(3, 5))),
    "hmc: no steps": ("steps", lambda: g.hmc(metric().log_volume_and_grad, Z, steps=-1)),
    "hmc: step size": (
        "step_size",
        lambda: g.hmc(metric().log_volume_and_grad, Z, steps=1, step_size=-0.1),
    ),
    "hmc: leapfrog": (
        "leapfrog_steps",
        lambda: g.hmc(metric().log_volume_and_grad, Z, steps=1, leapfrog_steps=0),
    ),
    "hmc: start": ("start", lambda: g.hmc(metric().log_volume_and_grad, torch.zeros(2), steps=1)),
    "hmc: NaN": ("start", lambda: g.hmc(metric().log_volume_and_grad, Z + nan, steps=1)),
    "Sphere": ("dimension", lambda: g.Sphere(0)),
    "Torus": ("dimension", lambda: g.Torus(0)),
    "Product": ("factor", lambda: g.Product()),
    "Sphere.check": ("norm", lambda: g.Sphere(2).check(torch.ones(1, 3))),
    "Sphere.check shape": ("shape", lambda: g.Sphere(2).check(torch.ones(1, 2))),
    "SpecialOrthogonal3.check": (
        "orthogonal",
        lambda: g.SpecialOrthogonal3().check(torch.ones(1, 9)),
    ),
    "group_element": ("parameters", lambda: g.Sphere(2).group_element(torch.ones(1, 2))),
    "synthetic_gaussians: samples": ("num_samples", lambda: synthetic_gaussians(0)),
    "synthetic_gaussians: clouds": ("num_clouds", lambda: synthetic_gaussians(9, num_clouds=0)),
    "synthetic_gaussians: dim": ("dim", lambda: synthetic_gaussians(9, dim=1)),
    "synthetic_gaussians: offset": ("offset", lambda: synthetic_gaussians(9, offset=-1.0)),
    "synthetic_gaussians: std": ("std", lambda: synthetic_gaussians(9, std=0.0)),
    "swiss_roll: samples": ("num_samples", lambda: swiss_roll(0)),
    "swiss_roll: noise": ("noise", lambda: swiss_roll(9, noise=nan)),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_of_the_geometry(name, refused):
    words, call = CALLS[name]
    refused((TypeError, ValueError, RuntimeError), words, call)


# Models and samplers


@pytest.fixture(scope="module")
def vae(run_of):
    return AutoModel.load_from_folder(run_of(CASES["VAE"]).final)


DATA = {
    "None": (None, "train_data"),
    "a list": ([[1.0]], "train_data"),
    "words": (np.array(["a", "b"]), "train_data"),
    "complex numbers": (np.zeros((60, 1, 8, 8), complex), "train_data"),
    "nothing": (np.zeros((0, 1, 8, 8), np.float32), "train_data"),
    "a number": (np.zeros((), np.float32), "train_data"),
    "another shape": (np.zeros((60, 1, 9, 9), np.float32), "train_data"),
    "NaN": (np.full((60, 1, 8, 8), nan, np.float32), "train_data"),
    "infinity": (np.full((60, 1, 8, 8), inf, np.float32), "train_data"),
}


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("kind", ["codes", "posteriors", "pullback"])
def test_data_of_samplers(kind, data, vae, refused):
    if kind != "pullback":
        config = MetricUniformHMCSamplerConfig(metric=kind, num_centroids=10)
        sampler = MetricUniformHMCSampler(vae, config)
    else:
        config = BrownianMotionSamplerConfig(metric="pullback", time=1.0)
        sampler = BrownianMotionSampler(vae, config)
    value, words = DATA[data]
    refused((TypeError, ValueError), words, lambda: sampler.fit(value))


@pytest.mark.parametrize("what", ["model", "config", "both"])
@pytest.mark.parametrize("sampler", [MetricUniformHMCSampler, BrownianMotionSampler])
def test_samplers_of_something_else(sampler, what, vae, refused):
    model = torch.nn.Linear(2, 2) if what in ("model", "both") else vae
    config = None if what == "model" else CASES["VAE"].build_config()
    refused(TypeError, "model|Config", lambda: sampler(model, config))


@pytest.mark.parametrize("what", ["num_samples", "batch_size"])
@pytest.mark.parametrize("value", [-1, 1.5, "many", None, True])
def test_numbers_of_samples(what, value, vae, digits, refused):
    config = BrownianMotionSamplerConfig(metric="pullback", time=1e-3, steps=1)
    sampler = BrownianMotionSampler(vae, config)
    sampler.fit(digits[:5])
    refused((TypeError, ValueError), what, lambda: sampler.sample(**{what: value}))


MODEL_DATA = {
    "another shape": torch.zeros(3, 1, 9, 9),
    "NaN": torch.full((3, 1, 8, 8), nan),
    "infinity": torch.full((3, 1, 8, 8), inf),
}


@pytest.mark.parametrize("data", MODEL_DATA)
@pytest.mark.parametrize("name", [name for name in CASES if name != "VAE"])
def test_data_of_models(name, data, refused):
    model = CASES[name].build()
    words = "[Dd]ata|shape"
    refused((ValueError, RuntimeError), words, lambda: model({"data": MODEL_DATA[data]}))


@pytest.mark.parametrize("name", [name for name in CASES if name != "VAE"])
def test_models_without_a_shape(name, refused):
    refused(ValueError, "input_dim", lambda: CASES[name].build(input_dim=None))


LIKELIHOODS = [name for name, case in CASES.items() if case.likelihood and name != "VAE"]


@pytest.mark.parametrize("what", ["n_samples", "batch_size"])
@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_numbers_of_get_nll(name, value, what, run_of, digits, refused):
    model = AutoModel.load_from_folder(run_of(CASES[name]).final)
    x = torch.as_tensor(digits[:3])
    refused(ValueError, what, lambda: model.get_nll(x, **{what: value}))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": "scenic"}, "path"),
        ({"granularity": 1}, "granularity"),
        ({"ending": 2}, "ending_inputs"),
    ],
    ids=lambda value: str(value),
)
def test_interpolation(arguments, words, vae, digits, refused):
    x = torch.as_tensor(digits[:6])
    ending = x[3 : 3 + arguments.pop("ending", 3)]
    refused((TypeError, ValueError), words, lambda: interpolate(vae, x[:3], ending, **arguments))
