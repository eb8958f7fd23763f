"""RicciAE: its losses on surfaces with known curvature, training, pythae's habits, bad input."""

import copy
import json
import math
import os
import pathlib
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from processes import run_at_once
from pydantic import ValidationError
from pythae.data.datasets import DatasetOutput
from pythae.models import AE, AEConfig, AutoModel
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pythae_geometric.data.synthetic import swiss_roll
from pythae_geometric.geometry import scalar_curvature
from pythae_geometric.models.networks import PerceptronDecoder, PerceptronEncoder
from pythae_geometric.models.ricci_ae import RicciAE, RicciAEConfig, RunawayFunctionalError
from pythae_geometric.models.ricci_ae.default_weight import DefaultWeight
from pythae_geometric.models.ricci_ae.ricci_functional import RicciFunctional

FUNCTIONALS = ["total_squared", "perelman_f", "perelman_w"]


class Identity(BaseEncoder):
    def forward(self, x):
        return ModelOutput(embedding=x.flatten(1))


class Chart(BaseDecoder):
    """A decoder that is a known surface, times ``scale``."""

    def __init__(self, surface, scale=1.0):
        super().__init__()
        self.surface = surface
        self.scale = nn.Parameter(torch.tensor(scale, dtype=torch.float64))

    def forward(self, z):
        return ModelOutput(reconstruction=self.scale * self.surface(z))


def sphere(z):
    theta, phi = z.unbind(1)
    circle = torch.stack([phi.cos(), phi.sin()], dim=1)
    return torch.cat([theta.sin().unsqueeze(1) * circle, theta.cos().unsqueeze(1)], dim=1)


def torus(z, R=2.0, r=0.7):
    a, b = z.unbind(1)
    w = R + r * a.cos()
    return torch.stack([w * b.cos(), w * b.sin(), r * a.sin()], dim=1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(functional="total_squared", input_dim=(6,), **fields):
    """A model with small networks in float64."""
    torch.manual_seed(0)
    config = RicciAEConfig(
        input_dim=input_dim, functional=functional, **{"num_points": 16, **fields}
    )
    encoder = PerceptronEncoder(nn.SiLU, input_dim, (24, 24), config.latent_dim, 0)
    decoder = PerceptronDecoder(nn.SiLU, config.latent_dim, (24, 24), input_dim)
    return RicciAE(config, encoder, decoder).double()


def batch(n=32, dim=6, seed=0):
    return DatasetOutput(data=torch.randn(n, dim, dtype=torch.float64, generator=seeded(seed)))


# The functionals


NUM_POINTS = 40_000
SPHERE_BOX = ((0.4, 2.0), (0.0, 3.0))
SPHERE_AREA = 3.0 * (math.cos(0.4) - math.cos(2.0))


def on_surface(surface, box, scale=1.0, **fields):
    """The curvature part of a model whose decoder is a surface and whose codes span a box."""
    config = RicciAEConfig(num_points=NUM_POINTS, regularization=1e-6, **fields)
    model = RicciAE(config, Identity(), Chart(surface, scale)).double()
    if model.functional.potential is not None:  # a constant potential
        nn.init.zeros_(model.functional.potential[-1].weight)
    return model._curvature(torch.tensor(box, dtype=torch.float64).T, seeded())


def sampling_error():
    """Relative standard error of the integral of sin θ, the area element, over the box."""
    element = torch.linspace(*SPHERE_BOX[0], 10_001).sin()
    return float(element.std() / element.mean()) / math.sqrt(NUM_POINTS)


@pytest.mark.parametrize("r", [0.5, 3.0])
def test_total_squared_of_a_sphere(r):
    """R = 2 / r², so its square has the integral 4 / r⁴ times the area."""
    out = on_surface(sphere, SPHERE_BOX, r)
    exact = 4 / r**4 * r**2 * SPHERE_AREA
    assert float(out.curvature_loss) == pytest.approx(exact, rel=5 * sampling_error())
    assert float(out.mean_curvature) == pytest.approx(2 / r**2, rel=1e-6)
    assert float(out.mean_squared_curvature) == pytest.approx(4 / r**4, rel=1e-6)
    assert float(out.max_squared_curvature) == pytest.approx(4 / r**4, rel=1e-6)
    assert out.num_degenerate == 0


def test_total_squared_of_a_torus():
    """The integral of 4 cos² a / (r (R + r cos a)) over both angles, by quadrature."""
    a = torch.arange(2000) * (2 * math.pi / 2000)
    integrand = 4 * a.cos() ** 2 / (0.7 * (2 + 0.7 * a.cos()))
    out = on_surface(torus, ((0.0, 2 * math.pi), (0.0, 2 * math.pi)))
    exact = (2 * math.pi) ** 2 * float(integrand.mean())
    error = float(integrand.std() / integrand.mean()) / math.sqrt(NUM_POINTS)
    assert float(out.curvature_loss) == pytest.approx(exact, rel=5 * error)


@pytest.mark.parametrize("r", [0.5, 3.0])
def test_perelman_f_of_a_sphere_with_constant_potential(r):
    out = on_surface(sphere, SPHERE_BOX, r, functional="perelman_f")
    assert float(out.curvature_loss) == pytest.approx(2 / r**2, rel=1e-6)


@pytest.mark.parametrize("tau", [0.3, 2.0])
@pytest.mark.parametrize("r", [0.5, 3.0])
def test_perelman_w_of_a_sphere_with_constant_potential(r, tau):
    """f = log(area / 4 π τ), so W = τ R + log(area / 4 π τ) - 2."""
    out = on_surface(sphere, SPHERE_BOX, r, functional="perelman_w", tau=tau)
    exact = tau * 2 / r**2 + math.log(r**2 * SPHERE_AREA / (4 * math.pi * tau)) - 2
    assert float(out.curvature_loss) == pytest.approx(exact, abs=5 * sampling_error())


@pytest.mark.parametrize("functional", FUNCTIONALS)
@pytest.mark.parametrize("points", ["uniform", "encoded"])
def test_functionals_are_of_the_surface_not_of_its_latent_units(functional, points):
    """A latent space stretched by 3 and 1/5 along its axes shows the same surface."""
    model = small(functional, points=points, regularization=1e-9)
    if model.functional.potential is not None:
        nn.init.zeros_(model.functional.potential[-1].weight)
    stretch = torch.tensor([3.0, 0.2], dtype=torch.float64)
    stretched = copy.deepcopy(model)
    with torch.no_grad():
        last, first = stretched.encoder.layers[-1], stretched.decoder.layers[0]
        last.weight.mul_(stretch.unsqueeze(1)), last.bias.mul_(stretch)
        first.weight.div_(stretch)
    values = [m(batch(), generator=seeded()).curvature_loss for m in (model, stretched)]
    assert abs(values[0]) > 1e-6
    torch.testing.assert_close(values[0], values[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("curvature_weight", [0.7, -0.7])
@pytest.mark.parametrize("points", ["uniform", "encoded"])
@pytest.mark.parametrize("functional", FUNCTIONALS)
def test_parameter_gradients_equal_finite_differences(functional, points, curvature_weight):
    """In the decoder the gradient of the loss; in the potential, which descends whatever the sign,
    that of the functional times the size of its weight."""
    model = small(functional, points=points, curvature_weight=curvature_weight)

    def loss():
        return model(batch(), generator=seeded()).loss

    def slope(parameters, directions, h=1e-6):
        values = []
        with torch.no_grad():
            for step in (h, -2 * h):
                for p, v in zip(parameters, directions, strict=True):
                    p.add_(v, alpha=step)
                values.append(float(loss()))
            for p, v in zip(parameters, directions, strict=True):
                p.add_(v, alpha=h)
        return (values[0] - values[1]) / (2 * h)

    loss().backward()
    parts = [(model.decoder, 1.0)]
    if model.functional.potential is not None:
        parts.append((model.functional.potential, math.copysign(1.0, curvature_weight)))
    for network, sign in parts:
        parameters = list(network.parameters())
        directions = [torch.randn_like(p) for p in parameters]
        along = sum(float((p.grad * v).sum()) for p, v in zip(parameters, directions, strict=True))
        assert abs(along) > 1e-6
        assert sign * along == pytest.approx(slope(parameters, directions), rel=1e-4, abs=1e-7)


def test_curvature_and_metric_are_those_of_the_decoder():
    model, z = small(regularization=1e-7), torch.randn(5, 2, dtype=torch.float64)

    def decoder(y):
        return model.decoder(y)["reconstruction"]

    torch.testing.assert_close(model.curvature(z), scalar_curvature(decoder, z))
    J = torch.stack([torch.func.jacrev(lambda y: decoder(y[None])[0])(p) for p in z])
    torch.testing.assert_close(model.metric(z), J.mT @ J)
    assert model.metric.log_volume(z).shape == (5,)
    large = small(regularization=0.5)
    torch.testing.assert_close(large.metric(z), J.mT @ J + 0.25 * torch.eye(2, dtype=torch.float64))


# Training


def fit(model, data, folder, epochs=2, eval_data=None, batch_size=64, lr=1e-3):
    config = BaseTrainerConfig(
        output_dir=str(folder),
        num_epochs=epochs,
        learning_rate=lr,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
    )
    pipeline = TrainingPipeline(model=model, training_config=config)
    pipeline(train_data=data, eval_data=eval_data)
    return os.path.join(pipeline.trainer.training_dir, "final_model")


@pytest.mark.parametrize("functional", ["perelman_f", "perelman_w"])
def test_models_with_a_potential_train_evaluate_without_gradients_and_load(
    functional, digits, tmp_path, monkeypatch
):
    torch.manual_seed(0)
    model = RicciAE(RicciAEConfig(input_dim=(1, 8, 8), functional=functional, num_points=16))
    grad_in_evaluation, forward = [], RicciAE.forward

    def watched(self, *args, **kwargs):
        if not self.training:
            grad_in_evaluation.append(torch.is_grad_enabled())
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(RicciAE, "forward", watched)
    before = copy.deepcopy(model.state_dict())
    folder = fit(model, digits[:256], tmp_path, eval_data=digits[256:384])
    # pythae runs a batch again, with gradients, where the first run raised.
    assert len(grad_in_evaluation) >= 4 and not any(grad_in_evaluation)
    assert all(not torch.equal(v, before[name]) for name, v in model.state_dict().items())

    loaded = AutoModel.load_from_folder(folder)
    assert type(loaded) is RicciAE and loaded.model_config == model.model_config
    saved = torch.load(os.path.join(folder, "model.pt"), weights_only=True)["model_state_dict"]
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, saved[name], rtol=0, atol=0)


@pytest.mark.parametrize("seed", [0, 1])
def test_curvature_falls_and_the_reconstruction_does_not_suffer(seed):
    """A bent sheet is flat, but decoders of it are not until they are asked to be."""
    t, h = torch.rand(2, 512, generator=seeded(seed), dtype=torch.float64) * 2 - 1
    data = DatasetOutput(data=torch.stack([t, h, t**2], dim=1))
    model = small(input_dim=(3,))

    def train(model, curvature_weight, steps):
        model.model_config.curvature_weight = curvature_weight
        optimiser = torch.optim.Adam(model.parameters(), 5e-3)
        decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, total_iters=steps)
        generator = seeded(seed)
        for _ in range(steps):
            optimiser.zero_grad()
            model(data, generator=generator).loss.backward()
            optimiser.step()
            decay.step()
        out = model(data)
        R = model.curvature(out.z.detach()).detach()
        return float(out.recon_loss.detach()), float(R.square().mean())

    train(model, 0.0, 100)
    plain_error, plain_R = train(copy.deepcopy(model), 0.0, 100)
    error, R = train(model, 0.1, 100)
    assert error < 2 * plain_error and R < plain_R / 20


def test_eight_latent_dimensions_train():
    torch.manual_seed(0)
    model = RicciAE(RicciAEConfig(input_dim=(40,), latent_dim=8, num_points=16))
    data = DatasetOutput(data=torch.randn(64, 40, generator=seeded()))
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(20):
        out = model(data, generator=seeded())
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()
        losses.append(float(out.loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_every_output_is_there_and_the_loss_is_their_sum():
    model = small("perelman_w", recon_weight=3.0, curvature_weight=-0.2)
    out = model(batch(), epoch=1, dataset_size=32, uses_ddp=False)
    torch.testing.assert_close(out.loss, 3.0 * out.recon_loss - 0.2 * out.curvature_loss)
    assert out.recon_x.shape == (32, 6) and out.z.shape == (32, 2)
    assert out.max_squared_curvature >= out.mean_squared_curvature >= out.mean_curvature**2
    expected = (out.recon_x - batch().data).square().sum(1).mean()
    torch.testing.assert_close(out.recon_loss, expected)


# The default weight


@pytest.mark.parametrize(
    "error, functional, weight",
    [
        (2.0, 0.0, 0.001),
        (2.0, 1.9, 0.001),
        (2.0, 2.0, 0.001),  # where both are the same
        (2.0, -2.0, 0.001),
        (2.0, 8.0, 0.00025),
        (2.0, -8.0, 0.00025),
        (0.0, 5.0, 0.0),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_default_weight_of_a_first_step(error, functional, weight, training):
    assert DefaultWeight().train(training)(error, functional) == pytest.approx(weight, rel=1e-12)


def test_the_default_weight_follows_the_largest_functional_of_the_past():
    weight, E = DefaultWeight().double(), 2.0
    assert weight(E, -400.0) == pytest.approx(0.001 * E / 400)
    # Low ones keep the weight of the largest, which fades by 1 % a step.
    for step in range(1, 11):
        assert weight(E, 1.0) == pytest.approx(0.001 * E / (400 * 0.99 ** (step - 1)))
    # One that exceeds the past counts less by as much, and is then remembered.
    former = 400 * 0.99**10
    assert weight(E, 10 * former) * 10 * former == pytest.approx(0.001 * E / 10)
    assert weight(E, 10 * former) * 10 * former == pytest.approx(0.001 * E)


def test_the_weighted_functional_is_at_most_a_thousandth_of_the_error_and_follows_a_growing_one():
    """Values over twenty powers of ten, at random and growing by 5 % a step."""
    draws = 10 ** (20 * torch.rand(2000, generator=seeded(), dtype=torch.float64) - 8)
    growing = 1e-8 * 1.05 ** torch.arange(900, dtype=torch.float64)
    for values in (draws, growing):
        weight = DefaultWeight().double()
        shares = [weight(3.0, float(C)) * float(C) / 3.0 for C in values]
        assert max(shares) <= 0.001 * (1 + 1e-12)
    large = [share for share, C in zip(shares, growing, strict=True) if C > 10]
    assert large == pytest.approx([0.001 / 1.05] * len(large))


def test_evaluation_does_not_remember_nor_does_a_functional_that_is_not_finite():
    weight = DefaultWeight()
    weight(1.0, 50.0)
    weight(1.0, math.inf), weight(1.0, math.nan), weight.eval()(1.0, 500.0)
    assert float(weight.peak) == 50.0


def test_the_peak_is_saved_and_models_without_one_load(tmp_path):
    model = small()
    model(batch())
    model.save(tmp_path)
    loaded = RicciAE.load_from_folder(tmp_path)
    peak = float(model.default_weight.peak)
    assert peak > 0 and float(loaded.default_weight.peak) == pytest.approx(peak)
    state = torch.load(tmp_path / "model.pt")
    del state["model_state_dict"]["default_weight.peak"]
    torch.save(state, tmp_path / "model.pt")
    (tmp_path / "model_checksums.json").unlink()
    assert RicciAE.load_from_folder(tmp_path).default_weight.peak == 0


def gradients(model, value):
    parameters = [*model.encoder.parameters(), *model.decoder.parameters()]
    return torch.autograd.grad(value, parameters)


def test_a_low_curvature_has_the_full_weight():
    model = small()
    out = model(batch())
    assert out.curvature_weight == 0.001 and 0 < out.curvature_loss < out.recon_loss
    torch.testing.assert_close(out.loss, out.recon_loss + 0.001 * out.curvature_loss)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("recon_weight", [1.0, 3.0])
def test_a_high_curvature_counts_a_thousandth_of_the_error(recon_weight, training):
    """The loss is λ E + 0.001 E, and its gradient that of λ log E + 0.001 log C, times E."""
    model = small(recon_weight=recon_weight).train(training)
    with torch.no_grad():  # smaller and more bent
        model.decoder.layers[-1].weight.mul_(0.1), model.decoder.layers[0].weight.mul_(10)
    out = model(batch(), generator=seeded())
    E, C = out.recon_loss, out.curvature_loss
    assert C > 20 * E
    torch.testing.assert_close(out.loss, (recon_weight + 0.001) * E)
    assert out.curvature_weight == pytest.approx(0.001 * float(E.detach() / C.detach()))

    again = model(batch(), generator=seeded())  # the peak is C
    logs = recon_weight * again.recon_loss.log() + 0.001 * again.curvature_loss.log()
    expected = gradients(model, logs)
    for mine, other in zip(gradients(model, out.loss), expected, strict=True):
        torch.testing.assert_close(mine, E.detach() * other)


def test_the_default_weight_counts_every_so_many_times():
    model = small(curvature_every=3)
    out = model(batch())
    torch.testing.assert_close(
        out.loss, out.recon_loss + 3 * out.curvature_weight * out.curvature_loss
    )
    assert "curvature_loss" not in model(batch())


def test_the_default_weight_lets_a_rolled_sheet_be_learned():
    """In 600 steps from scratch the error is 0.003 to 0.005 at four initialisations, and with a
    fixed weight of 0.01, which holds the decoder flat, 0.06 to 0.19."""
    t, h = torch.rand(2, 256, generator=seeded(), dtype=torch.float64)
    t = math.pi * (1.5 + 2 * t)
    x = torch.stack([t * t.cos(), 8 * h, t * t.sin()], dim=1)
    data = DatasetOutput(data=(x - x.mean(0)) / x.std())
    model, generator = small(input_dim=(3,)), seeded()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, total_iters=600)
    for _ in range(600):
        optimiser.zero_grad()
        out = model(data, generator=generator)
        out.loss.backward()
        optimiser.step()
        decay.step()
    assert float(out.recon_loss.detach()) < 0.05


def test_weight_zero_is_the_autoencoder_of_pythae():
    model = small(curvature_weight=0.0)
    plain = AE(AEConfig(input_dim=(6,), latent_dim=2), model.encoder, model.decoder)
    out = model(batch())
    torch.testing.assert_close(out.loss, plain(batch()).loss)
    assert "curvature_loss" not in out


def test_curvature_every_so_many_training_steps():
    model = small(curvature_every=3, curvature_weight=0.2)
    outputs = [model(batch(), generator=seeded()) for _ in range(7)]
    assert ["curvature_loss" in out for out in outputs] == [True, False, False] * 2 + [True]
    weighted = outputs[0].loss - outputs[0].recon_loss
    torch.testing.assert_close(weighted, 0.6 * outputs[0].curvature_loss)
    out = model.eval()(batch())
    torch.testing.assert_close(out.loss, out.recon_loss + 0.2 * out.curvature_loss)


def test_the_generator_decides_the_points():
    model = small()
    values = [float(model(batch(), generator=seeded(s)).curvature_loss) for s in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    encoded = small(points="encoded")
    assert float(encoded(batch()).curvature_loss) == float(encoded(batch()).curvature_loss)


# Bad input


def test_a_curve_has_no_curvature():
    with pytest.raises(ValueError, match="latent_dim is 1, and a curve has scalar curvature 0"):
        RicciAEConfig(input_dim=(3,), latent_dim=1)


def test_a_name_that_was_never_a_field_is_refused():
    with pytest.raises(ValueError, match="lambda_curvature"):
        RicciAEConfig(input_dim=(3,), lambda_curvature=1.0)


class ReLUDecoder(BaseDecoder):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 6))

    def forward(self, z):
        return ModelOutput(reconstruction=self.layers(z))


def test_relu_decoders_are_reported_once():
    torch.manual_seed(0)
    model = RicciAE(RicciAEConfig(input_dim=(6,)), decoder=ReLUDecoder())
    data = DatasetOutput(data=torch.randn(20, 6))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            out = model(data)
            out.loss.backward()
    assert [str(w.message) for w in caught if "ReLU" in str(w.message)] != []
    assert len(caught) == 1
    assert float(out.curvature_loss) == 0


@pytest.mark.parametrize("functional", FUNCTIONALS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_collapsed_latents_are_regularised_and_reported(functional, dtype):
    """Both columns of J are the same at first; training goes on, with finite weights."""
    model = small(functional).to(dtype)
    with torch.no_grad():
        model.decoder.layers[0].weight[:, 1] = model.decoder.layers[0].weight[:, 0]
    data = DatasetOutput(data=batch().data.to(dtype))
    with pytest.warns(UserWarning, match="all but lost its rank at 16 of 16 points") as record:
        out = model(data)
    assert record[0].filename == __file__  # and not a line of torch, which calls forward
    assert out.num_degenerate == 16 and torch.isfinite(out.loss)
    out.loss.backward()
    torch.optim.Adam(model.parameters(), 1e-2).step()
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    assert bool(torch.isfinite(model.curvature(out.z.detach())).all())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert small(functional)(batch()).num_degenerate == 0


def test_a_functional_that_runs_away_stops_training_with_finite_weights():
    """F has no lower bound: with this weight it dives, within a few hundred steps."""
    model = small("perelman_f", curvature_weight=1e4, recon_weight=0.01)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    with pytest.raises(RunawayFunctionalError, match=r"perelman_f has become .*change its sign"):
        for _ in range(1000):
            optimiser.zero_grad()
            model(batch()).loss.backward()
            optimiser.step()
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_a_gradient_that_is_not_finite_never_reaches_the_weights():
    """The root has the value 0 and an infinite derivative where its argument is 0."""
    model = small()
    surface = model.decoder.forward

    def spiked(z):
        out = surface(z)
        spike = (model.decoder.layers[-1].bias * 0).sum().sqrt()
        return ModelOutput(reconstruction=out.reconstruction * (1 + spike))

    model.decoder.forward = spiked
    out = model(batch())
    assert torch.isfinite(out.loss)
    with pytest.raises(RunawayFunctionalError, match="gradient of the curvature functional is not"):
        (out.loss - out.recon_loss).backward()
    assert all(p.grad is None for p in model.decoder.parameters())


def test_one_sample_spans_no_region():
    model = small()
    out = model.eval()(batch(n=1))
    assert "curvature_loss" not in out and torch.isfinite(out.loss)


def test_potential_is_normalised_so_that_its_constant_does_not_matter():
    for name in ("perelman_f", "perelman_w"):
        functional = RicciFunctional(name, 2, 0.5).double()
        z = torch.rand(50, 2, dtype=torch.float64, generator=seeded()) + 0.5
        values = []
        for constant in (0.0, 700.0):
            nn.init.constant_(functional.potential[-1].bias, constant)
            values.append(functional(sphere, z, torch.tensor(-math.log(50.0)))[0])
        torch.testing.assert_close(values[0], values[1])


def test_the_roll_trains_in_float32_from_arrays(tmp_path):
    roll = swiss_roll(500, generator=seeded())
    torch.manual_seed(0)
    model = RicciAE(RicciAEConfig(input_dim=(3,), num_points=16))
    fit(model, (roll.data / 7).numpy().astype(np.float32), tmp_path, epochs=2)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_the_reproduction_script_runs(tmp_path):
    pytest.importorskip("matplotlib")
    script = pathlib.Path(__file__).parents[2] / "examples" / "reproduce" / "lazarev2023.py"
    command = [sys.executable, script, "--quick", "--output-dir", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "lazarev2023.json").read_text())
    for name in ("Swiss roll", "Gaussians"):
        rows = results[name]["rows"]
        trainings = {row["training"] for row in rows}
        squared = {f"total_squared, {points}" for points in ("box", "codes", "codes 60")}
        assert {"none", "perelman_f", "perelman_w"} | squared <= trainings
        assert all(math.isfinite(v) for row in rows for v in row["measures"].values())
    assert "## Gaussians" in (tmp_path / "lazarev2023.md").read_text()
    for name in ("swiss_roll", "gaussians"):
        for picture in ("data", "latent"):
            assert (tmp_path / f"{name}_{picture}.png").stat().st_size > 10_000


# Several processes


def steps_of_a_process(rank, folder):
    """Three steps of each functional, of which the second leaves it out and the last has one
    datum."""
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    for functional in FUNCTIONALS:
        model = small(functional, curvature_every=2).train()
        parallel = DistributedDataParallel(model)
        optimizer = torch.optim.Adam(model.parameters())
        for step, size in enumerate((8, 8, 1)):
            optimizer.zero_grad()
            data = batch(size, seed=10 * step + rank)["data"]
            parallel({"data": data}, generator=seeded(rank)).loss.backward()
            optimizer.step()
        torch.save(model.state_dict(), f"{folder}/{functional}_{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads may abort an orderly end


@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_several_processes_stay_in_step(tmp_path):
    """Every parameter takes part in every loss, or DistributedDataParallel would stop."""
    arguments = [(rank, str(tmp_path)) for rank in range(2)]
    for exit_code, errors in run_at_once(steps_of_a_process, *arguments):
        assert exit_code == 0, errors
    for functional in FUNCTIONALS:
        one, two = (
            torch.load(tmp_path / f"{functional}_{rank}.pt", weights_only=True) for rank in (0, 1)
        )
        start = small(functional).state_dict()
        for name, value in one.items():
            assert torch.equal(value, two[name]), (functional, name)
            assert not torch.equal(value, start[name]), (functional, name)


# Estimates by random tangents


@pytest.mark.parametrize("functional", ["total_squared", "perelman_f", "perelman_w"])
def test_the_loss_with_random_tangents_is_unbiased(functional):
    """Its mean over 300 draws at the same codes is the exact loss, within 4.5 standard errors."""
    fields = {
        "input_dim": (20,),
        "latent_dim": 4,
        "functional": functional,
        "points": "encoded",
        "curvature_weight": 1.0,
    }
    torch.manual_seed(0)
    exact = RicciAE(RicciAEConfig(**fields))
    model = RicciAE(RicciAEConfig(**fields, num_tangents=2))
    model.load_state_dict(exact.state_dict())
    x, generator = {"data": torch.randn(40, 20)}, torch.Generator().manual_seed(1)
    with torch.no_grad():
        losses = torch.stack([model(x, generator).curvature_loss for _ in range(300)])
        expected = float(exact(x).curvature_loss)
    error = float(losses.std()) / 300**0.5
    assert abs(float(losses.mean()) - expected) < 4.5 * error
    assert 0 < error


def test_training_with_random_tangents_flattens_and_is_saved(tmp_path):
    torch.manual_seed(0)
    config = RicciAEConfig(
        input_dim=(20,), latent_dim=4, points="encoded", num_tangents=3, curvature_weight=1.0
    )
    model, x = RicciAE(config), torch.randn(64, 20)
    z = model.encoder(x).embedding.detach()
    optimizer = torch.optim.Adam(model.decoder.parameters(), lr=1e-3)
    before = float(model.curvature(z).square().mean())
    for _ in range(100):
        optimizer.zero_grad()
        model({"data": x}).loss.backward()
        optimizer.step()
    z = model.encoder(x).embedding.detach()
    assert float(model.curvature(z).square().mean()) < 0.5 * before
    model.save(str(tmp_path))
    assert RicciAE.load_from_folder(str(tmp_path)).model_config.num_tangents == 3


@pytest.mark.parametrize("num_tangents", [1, 5, 0])
def test_numbers_of_tangents_out_of_range(num_tangents):
    with pytest.raises(ValidationError, match="num_tangents must be from 2 to latent_dim, 4"):
        RicciAEConfig(input_dim=(20,), latent_dim=4, num_tangents=num_tangents)
