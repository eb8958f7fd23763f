"""BrownianRVAE: its distributions, its phases in pythae's trainer, bad input."""

import copy
import json
import math
import os
import pathlib
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from pythae.models import AutoModel
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import nn

from pythae_geometric.geometry import PullbackMetric, squared_distance
from pythae_geometric.models.brownian_rvae import (
    BrownianRVAE,
    BrownianRVAEConfig,
    brownian_rvae_model,
)
from pythae_geometric.models.brownian_rvae.corrections import Chosen, choose_rows
from pythae_geometric.models.brownian_rvae.distributions import BrownianPosterior, log_volume
from pythae_geometric.models.brownian_rvae.geodesic_fan import GeodesicFan, mean_squared_speed
from pythae_geometric.models.brownian_rvae.phases import MAX_CODES, CodeStatistics
from pythae_geometric.models.brownian_rvae.stochastic_decoder import (
    DecoderMetric,
    RBFPrecision,
    gaussian_log_prob,
)


def config(**fields):
    return BrownianRVAEConfig(
        **{
            "input_dim": (1, 8, 8),
            "latent_dim": 2,
            "hidden_dims": (32, 16),
            "num_centers": 20,
            "warmup_epochs": 2,
            **fields,
        }
    )


def train(model, data, folder, epochs, eval_data=None, callbacks=None, **fields):
    training = BaseTrainerConfig(
        output_dir=str(folder),
        num_epochs=epochs,
        learning_rate=1e-3,
        per_device_train_batch_size=50,
        per_device_eval_batch_size=50,
        **fields,
    )
    pipeline = TrainingPipeline(model, training)
    pipeline(data, eval_data, callbacks=callbacks)
    return pipeline.trainer


def final(trainer):
    return os.path.join(trainer.training_dir, "final_model")


@pytest.fixture(scope="module")
def rvae(digits, tmp_path_factory):
    """A model that is through both phases."""
    torch.manual_seed(0)
    model = BrownianRVAE(config(hidden_dims=(64, 32), warmup_epochs=20))
    trainer = train(model, digits[:600], tmp_path_factory.mktemp("rvae"), 26)
    return BrownianRVAE.load_from_folder(final(trainer)).eval()


# The distribution of the decoder


def placed(seed=0, dtype=torch.float64, d=2, D=6, K=5, bandwidth=0.3):
    torch.manual_seed(seed)
    std = RBFPrecision(d, D, K, bandwidth, 1e-9).to(dtype)
    with torch.no_grad():
        std.centers.normal_()
        std.log_weight.normal_()
    return std


@pytest.mark.parametrize("d", [1, 3])
def test_std_is_the_papers_formula_and_its_jacobian_that_of_autograd(d):
    std = placed(d=d)
    z = 2 * torch.randn(4, d, dtype=torch.float64)
    for a in range(4):
        phi = torch.stack([torch.exp(-0.3 * ((z[a] - c) ** 2).sum()) for c in std.centers])
        assert torch.allclose(std(z)[a] ** -2, std.log_weight.exp() @ phi + 1e-9)
    reference = torch.autograd.functional.jacobian(lambda z: std(z).sum(0), z).permute(1, 0, 2)
    assert torch.allclose(std.jacobian(z), reference, rtol=1e-9)


def test_std_grows_to_its_limit_away_from_the_centres():
    std = placed(bandwidth=0.01, dtype=torch.float32)
    r = torch.linspace(5, 100, 20)
    along = std(torch.stack([r, torch.zeros(20)], 1))
    assert bool((along.diff(dim=0) >= 0).all())
    assert torch.allclose(along[-1], torch.tensor(std.floor**-0.5), rtol=1e-3)


def test_placing_gives_the_variance_of_the_residuals():
    std = placed(D=3)
    codes = torch.randn(400, 2, dtype=torch.float64)
    variance = torch.tensor([0.5, 2.0, 0.5], dtype=torch.float64)
    std.place(codes, variance)
    mean_precision = std(codes).pow(-2).mean(0)
    assert torch.allclose(1 / mean_precision, variance + 0.01, rtol=1e-6)
    # k-means: each centre is the mean of the codes nearest to it.
    nearest = torch.cdist(codes, std.centers).argmin(1)
    for k, c in enumerate(std.centers):
        assert torch.allclose(codes[nearest == k].mean(0), c, atol=1e-6)


def test_decoder_metric_is_the_pullback_of_mean_and_std():
    std = placed()
    mean = nn.Sequential(nn.Linear(2, 8), nn.Softplus(), nn.Linear(8, 6)).double()
    metric = DecoderMetric(mean, std)
    reference = PullbackMetric(lambda z: torch.cat([mean(z), std(z)], 1))
    z, v = torch.randn(2, 5, 2, dtype=torch.float64)
    assert torch.allclose(metric(z), reference(z))
    pushed = (metric.jacobian(z) @ v[..., None])[..., 0]
    both = metric.pushforwards(z, torch.stack([v, 2 * v]))
    assert torch.allclose(both, torch.stack([pushed, 2 * pushed]))


def test_gaussian_log_prob_is_that_of_torch():
    x, mean = torch.randn(2, 4, 3)
    std = torch.rand(4, 3) + 0.1
    reference = torch.distributions.Normal(mean, std).log_prob(x).sum(1)
    assert torch.allclose(gaussian_log_prob(x, mean, std), reference, rtol=1e-5)


def test_stochastic_gradient_of_the_volume_is_unbiased():
    std = placed()
    mean = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 6)).double()
    metric = DecoderMetric(mean, std)
    z = torch.randn(1, 2, dtype=torch.float64)
    exact, gradient = metric.log_volume_and_grad(z)
    many = z.expand(20_000, 2).clone().requires_grad_()
    value = log_volume(metric, many)
    (draws,) = torch.autograd.grad(value.sum(), many)
    assert torch.allclose(value, exact.expand(20_000))
    error = (draws.mean(0) - gradient[0]).abs() / (draws.std(0) / len(draws) ** 0.5)
    assert bool((error < 4).all())
    assert bool((draws.std(0) > 0).all())


def test_gradients_of_a_posterior_sample_and_its_entropy_are_unbiased():
    """For a quadratic f, E f(z) is known, and with it the gradients in m, log t and sigma."""
    std = placed()
    mean = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 6)).double()
    metric = DecoderMetric(mean, std)
    m = torch.randn(1, 2, dtype=torch.float64).requires_grad_()
    log_time = torch.tensor([-1.0], dtype=torch.float64).requires_grad_()
    a, B = torch.randn(2, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    B = B + B.T
    learned = [m, log_time, std.log_weight]

    G = metric(m)[0]
    covariance = log_time.exp() * torch.linalg.inv(G)
    expected = a @ m[0] + m[0] @ B @ m[0] + torch.trace(B @ covariance)
    entropy = (log_time + math.log(2 * math.pi) + 1).sum() - 0.5 * torch.logdet(G)
    exact = torch.autograd.grad(expected + 0.7 * entropy, learned)

    N, draws = 200, []
    for _ in range(400):
        posterior = BrownianPosterior(metric, m.expand(N, 2), log_time.expand(N))
        z, volume = posterior.rsample_and_log_volume()
        of_entropy = posterior.entropy_at(volume)
        value = z @ a + torch.einsum("bi,ij,bj->b", z, B, z) + 0.7 * of_entropy
        draws.append(torch.autograd.grad(value.mean(), learned))
    assert torch.allclose(of_entropy, entropy.detach())
    for estimates, truth in zip(zip(*draws, strict=True), exact, strict=True):
        estimates = torch.stack(estimates)
        error = (estimates.mean(0) - truth).abs()
        deviation = estimates.std(0) / len(draws) ** 0.5
        assert bool((error < 4.5 * deviation + 1e-12).all())
        assert bool((deviation < 0.2 * truth.abs().max()).all())  # it would notice another factor


def test_a_sample_where_the_map_is_constant_has_the_smallest_volume_and_no_gradient():
    metric = DecoderMetric(lambda z: torch.zeros(len(z), 6), placed(dtype=torch.float32))
    z = torch.tensor([[0.0, 0.0], [1e4, 0.0]]).requires_grad_()
    value = log_volume(metric, z)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    value = value.detach()
    assert bool(torch.isfinite(value).all()) and float(value[1]) < float(value[0]) - 50
    assert bool(torch.isfinite(gradient).all()) and not gradient[1].any() and gradient[0].any()


# Curves


class Polar(PullbackMetric):
    def __init__(self):
        super().__init__(lambda z: z[:, :1] * torch.cat([z[:, 1:].cos(), z[:, 1:].sin()], 1))


def test_fan_on_the_plane_in_polar_coordinates():
    """Between solved geodesics, l² is that of the plane up to the square of what they miss."""
    torch.manual_seed(0)
    metric, center = Polar(), torch.tensor([1.0, 0.0], dtype=torch.float64)
    grid = torch.cartesian_prod(torch.linspace(0.8, 2, 9), torch.linspace(-1.2, 1.2, 13))
    fan = GeodesicFan(len(grid), 2).double()
    fan.anchors.copy_(grid)
    fan.solve(metric, center, 100)
    z = torch.rand(200, 2, dtype=torch.float64) * torch.tensor([1.0, 2.0]) + torch.tensor([0.9, -1])

    def square(fan):
        nodes = torch.cat([center.expand(200, 1, 2), fan(z, center), z[:, None]], 1)
        return mean_squared_speed(metric.immersion(nodes.flatten(0, 1)).unflatten(0, (200, -1)))

    exact = (metric.immersion(z) - torch.tensor([1.0, 0.0])).square().sum(1)
    assert float((square(fan) / exact).min()) > 1 - 1e-3  # a curve is no shorter than a geodesic
    assert float((square(fan) / exact).max()) < 1.01
    straight = copy.deepcopy(fan)
    straight.deviations.zero_()
    assert float((square(straight) / exact).max()) > 1.1


def test_an_anchor_may_be_the_centre():
    """It is, where k-means puts one of its centres on the very code at which the prior begins."""
    fan = GeodesicFan(2, 2)
    fan.anchors.copy_(torch.tensor([[1.0, 0.5], [2.0, -0.3]]))
    fan.solve(Polar(), fan.anchors[0].clone(), 50)
    assert bool(torch.isfinite(fan.deviations).all()) and fan.deviations[1].any()
    assert not fan.deviations[0].any()


def test_fan_of_a_trained_model_is_close_to_geodesics(rvae, digits):
    with torch.no_grad():
        z, _ = rvae._posterior(torch.as_tensor(digits[600:800]))
        fan = rvae._along_curves(z, choose_rows(z, False))[2]
        exact = squared_distance(rvae.metric, z, rvae.prior_center.expand_as(z), steps=32)
    excess = fan / exact - 1
    assert float(excess.median()) < 0.03 and float(excess.median()) > -1e-3


# The distributions of the latent space


def test_posterior_samples_come_from_the_distribution_that_is_scored(rvae):
    mean = rvae.std.centers[:1].expand(50_000, 2)
    log_time = torch.full((50_000,), math.log(0.02))
    torch.manual_seed(0)
    with torch.no_grad():
        posterior = BrownianPosterior(rvae.metric, mean, log_time)
        z = posterior.rsample()
        entropy, log_q = posterior.entropy(), posterior.log_prob(z)
        covariance = 0.02 * torch.linalg.inv(rvae.metric(mean[:1])[0])
    reference = torch.distributions.MultivariateNormal(mean[0], covariance)
    # Coordinates and times of a float32 model of this size: 1e-3 is rounding.
    assert torch.allclose(log_q, reference.log_prob(z), atol=2e-3, rtol=1e-3)
    assert torch.allclose(entropy[0], reference.entropy(), atol=1e-3)
    white = torch.linalg.solve_triangular(reference.scale_tril, (z - mean).T, upper=False)
    sample = white @ white.T / 50_000
    assert torch.allclose(sample, torch.eye(2), atol=5 * (2 / 50_000) ** 0.5)


class Flat(BaseDecoder):
    """An isometric linear immersion: the latent space is flat."""

    def __init__(self):
        super().__init__()
        self.Q = nn.Parameter(torch.linalg.qr(torch.randn(5, 2))[0])

    def forward(self, z):
        return ModelOutput(reconstruction=z @ self.Q.T)


class FlatEncoder(BaseEncoder):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        h = self.layer(x)
        return ModelOutput(embedding=h[:, :2], log_covariance=h[:, 2:])


def flat_model(latent_noise=0.1):
    """A model in flat space, with constant sigma: everything is known in closed form."""
    torch.manual_seed(0)
    fields = {"input_dim": (5,), "latent_dim": 2, "num_centers": 3, "rbf_bandwidth": 1e-12}
    model = BrownianRVAE(BrownianRVAEConfig(**fields, warmup_epochs=1), FlatEncoder(), Flat())
    model = model.double().eval()
    with torch.no_grad():
        model.epochs_done += 1
        model.std.log_weight.fill_(-math.log(3 * latent_noise**2))
        model.prior_center.copy_(torch.tensor([0.3, -0.2]))
        model.prior_log_time.fill_(math.log(0.7))
        model.fan.anchors.normal_()
    return model


def test_in_flat_space_the_divergence_is_that_of_gaussians():
    model = flat_model()
    x = torch.randn(1, 5, dtype=torch.float64).expand(20_000, 5)
    with torch.no_grad():
        output = model({"data": x})
        mean, log_time = model._posterior(x[:1])
    eye = torch.eye(2, dtype=torch.float64)
    q = torch.distributions.MultivariateNormal(mean[0], log_time.exp() * eye)
    p = torch.distributions.MultivariateNormal(model.prior_center, 0.7 * eye)
    kl = torch.distributions.kl_divergence(q, p)
    # The spread of |z - c|² / 2s, from the distribution of z.
    t, shift = float(log_time.exp()), (mean[0] - model.prior_center).square().sum()
    spread = float((2 * t * t * 2 + 4 * t * shift) ** 0.5) / (2 * 0.7)
    assert abs(float(output.reg_loss - kl)) < 4 * spread / 20_000**0.5
    z = torch.randn(7, 2, dtype=torch.float64)
    assert torch.allclose(model.log_prior(z), p.log_prob(z))


def test_get_nll_in_flat_space_is_the_likelihood_of_the_linear_gaussian_model():
    model = flat_model(latent_noise=0.5)
    Q = model.decoder.Q
    eye = torch.eye(5, dtype=torch.float64)
    covariance = 0.7 * Q @ Q.T + 0.25 * eye
    exact = torch.distributions.MultivariateNormal(Q @ model.prior_center, covariance)
    x = exact.sample((3,))
    torch.manual_seed(0)
    # The posterior is the encoder's: make it a broad one around the truth.
    with torch.no_grad():
        model.encoder.layer.weight[:2].copy_(Q.T * (0.7 / 0.95))
        model.encoder.layer.bias[:2].copy_(model.prior_center * (0.25 / 0.95))
        model.encoder.layer.weight[2].zero_()
        model.encoder.layer.bias[2].fill_(math.log(0.3))
    estimate = model.get_nll(x, n_samples=3000, batch_size=2000)
    assert abs(estimate - float(exact.log_prob(x).mean())) < 0.05


def test_get_nll_grows_with_the_samples_above_the_elbo(rvae, digits):
    x = torch.as_tensor(digits[600:610])
    torch.manual_seed(0)
    one, many = (np.mean([rvae.get_nll(x, n) for _ in range(4)]) for n in (1, 30))
    assert many > one


def test_divergences_are_non_negative_in_expectation(rvae, digits):
    torch.manual_seed(0)
    x = torch.as_tensor(digits[600:])
    with torch.no_grad():
        values = torch.stack([rvae({"data": x}).reg_loss for _ in range(8)])
    assert float(values.mean()) > 0.5  # and the codes do say something


def test_training_with_few_exact_rows_has_the_mean_of_the_exact_loss(rvae, digits, monkeypatch):
    """The mean over all choices of one row is the loss with exact values for all rows."""
    x = torch.as_tensor(digits[:8])

    def loss(rows, share):
        monkeypatch.setattr(brownian_rvae_model, "choose_rows", lambda z, _: Chosen(rows, share))
        torch.manual_seed(3)
        with torch.no_grad():
            return float(rvae({"data": x}).loss)

    exact = loss(torch.arange(8), 1.0)
    single = [loss(torch.tensor([i]), 1 / 8) for i in range(8)]
    assert max(single) - min(single) > 0.1
    assert math.isclose(sum(single) / 8, exact, rel_tol=1e-5)


def test_rows_are_chosen_alike_in_training_and_are_all_in_evaluation():
    torch.manual_seed(0)
    z = torch.zeros(20, 2)
    assert choose_rows(z, False)[0].tolist() == list(range(20))
    draws = [choose_rows(z, True) for _ in range(2000)]
    assert {(len(rows.unique()), share) for rows, share in draws} == {(2, 0.1)}
    counts = torch.bincount(torch.cat([rows for rows, _ in draws]), minlength=20)
    # Binomial of 2000 and 0.1: mean 200, deviation 13.4; four and a half of them for 20 rows.
    assert float((counts - 200).abs().max()) < 60
    assert choose_rows(z[:1], True)[1] == 1.0


def test_gradient_of_the_loss_against_finite_differences():
    """In flat space nothing is approximated: the gradient is that of the value."""
    model = flat_model().train()
    x = torch.randn(6, 5, dtype=torch.float64)

    def loss():
        torch.manual_seed(3)
        return model({"data": x}).loss

    loss().backward()
    learned = (model.encoder.layer.bias, model.prior_center, model.prior_log_time)
    for parameter in learned:
        for i in range(parameter.numel()):
            with torch.no_grad():
                parameter.view(-1)[i] += 1e-5
                above = loss()
                parameter.view(-1)[i] -= 2e-5
                below = loss()
                parameter.view(-1)[i] += 1e-5
            assert math.isclose(
                float(parameter.grad.view(-1)[i]), float(above - below) / 2e-5, rel_tol=1e-4
            )


# The two phases in pythae's trainer


class Recorder(TrainingCallback):
    """The state of a model after each epoch, and the losses that loggers are told."""

    def __init__(self, model):
        self.model, self.states, self.logs = model, [], []

    def on_epoch_end(self, training_config, **kwargs):
        self.states.append(copy.deepcopy(self.model.state_dict()))

    def on_log(self, training_config, logs, **kwargs):
        self.logs.append(logs)

    def best(self, key, first):
        """The number of the best epoch, from the ``first`` on."""
        return min(range(first, len(self.logs) + 1), key=lambda e: self.logs[e - 1][key])


def shift_second_phase(monkeypatch, offset):
    """Move the losses of the second phase; the best are those after three epochs."""
    elbo = BrownianRVAE._elbo

    def shifted(self, x):
        output = elbo(self, x)
        output["loss"] = output.loss + offset + 1000 * abs(int(self.epochs_done) - 3)
        return output

    monkeypatch.setattr(BrownianRVAE, "_elbo", shifted)


def same(state, other):
    return all(torch.equal(value, other[name]) for name, value in state.items())


@pytest.mark.parametrize("criterion", ["training", "evaluation", "training, though evaluated"])
@pytest.mark.parametrize("offset", [-1e6, 1e6], ids=["falls", "rises"])
def test_the_saved_model_is_the_best_of_the_last_phase(
    offset, criterion, digits, tmp_path, monkeypatch
):
    shift_second_phase(monkeypatch, offset)
    model = BrownianRVAE(config())
    recorder = Recorder(model)
    eval_data = None if criterion == "training" else digits[100:170]
    on_train = criterion != "evaluation"
    fields = {"keep_best_on_train": on_train, "scheduler_cls": "ReduceLROnPlateau"}
    trainer = train(
        model, digits[:100], tmp_path, 6, eval_data, [recorder], steps_saving=1, **fields
    )
    if criterion == "training" or (on_train and offset < 0):
        # The training losses of epoch 2 are those of the first phase.
        best = recorder.best("train_epoch_loss", 3)
        assert best == 4
    else:
        best = recorder.best("eval_epoch_loss", 2)
        assert best == 3
    saved = AutoModel.load_from_folder(final(trainer))
    assert type(saved) is BrownianRVAE and not saved.in_warmup
    assert same(saved.state_dict(), recorder.states[best - 1])
    for epoch in range(1, 7):
        folder = os.path.join(trainer.training_dir, f"checkpoint_epoch_{epoch}")
        checkpoint = AutoModel.load_from_folder(folder)
        assert checkpoint.in_warmup == (epoch == 1)
    # What the scheduler saw are the losses that were reported.
    key = "train_epoch_loss" if eval_data is None else "eval_epoch_loss"
    assert trainer.scheduler.best == min(logs[key] for logs in recorder.logs)


def test_the_reported_losses_are_those_of_the_model(digits, tmp_path):
    """The mean of reconstruction and divergence, in both phases."""
    model, parts = BrownianRVAE(config()), []

    def note(model, arguments, keywords, output):
        if "epoch" in keywords:
            key = "train_epoch_loss" if model.training else "eval_epoch_loss"
            value = float((output.recon_loss + output.reg_loss).detach())
            parts.append((keywords["epoch"], key, value))

    handle = model.register_forward_hook(note, with_kwargs=True)
    recorder = Recorder(model)
    train(model, digits[:100], tmp_path, 4, digits[100:170], [recorder])
    handle.remove()
    for epoch, logs in enumerate(recorder.logs, 1):
        for key, loss in logs.items():
            batches = [value for *where, value in parts if where == [epoch, key]]
            assert len(batches) == 2
            assert loss == pytest.approx(sum(batches) / 2, rel=1e-6)


def one_epoch(model, x, epoch):
    """What pythae's trainer does in an epoch."""
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4)
    model.train()
    model({"data": x}, epoch=epoch, dataset_size=len(x), uses_ddp=False).loss.backward()
    optimiser.step()
    model.update()


def saved_state(model, folder):
    model.save(folder)
    return AutoModel.load_from_folder(folder).state_dict()


@pytest.mark.filterwarnings("ignore:The model is saved in the first phase")
def test_only_copies_that_a_training_took_follow_their_model(digits, tmp_path):
    x = torch.as_tensor(digits[:60])
    model, other = BrownianRVAE(config()), BrownianRVAE(config())
    before = copy.deepcopy(model)
    one_epoch(model, x, 1)
    one_epoch(other, x, 1)
    kept, trained_on, of_other = (copy.deepcopy(m) for m in (model, model, other))
    copy_of_copy = copy.deepcopy(kept)
    pickled = pickle.loads(pickle.dumps(kept))
    alone = (before, trained_on, of_other, pickled)
    states = [copy.deepcopy(m.state_dict()) for m in alone]
    assert same(saved_state(kept, tmp_path), kept.state_dict())  # there is no last phase yet
    one_epoch(model, x, 2)
    one_epoch(model, x, 3)
    # A second copy goes on by itself: it forgets where it came from.
    trained_on.train()({"data": x}, epoch=1)
    for one, state in zip(alone, states, strict=True):
        assert same(saved_state(one, tmp_path), state)
    for one in (kept, copy_of_copy):
        assert same(saved_state(one, tmp_path), model.state_dict())
        assert one.in_warmup  # the copy itself is left as it is
    assert same(saved_state(model, tmp_path), model.state_dict())


@pytest.mark.filterwarnings("ignore:The model is saved in the first phase")
def test_a_copy_of_an_earlier_training_stays_as_it_is(digits, tmp_path):
    x = torch.as_tensor(digits[:60])
    model = BrownianRVAE(config())
    one_epoch(model, x, 1)
    early = copy.deepcopy(model)
    state = copy.deepcopy(early.state_dict())
    for epoch in (1, 2, 3):
        one_epoch(model, x, epoch)
    assert not model.in_warmup
    assert same(saved_state(early, tmp_path), state)


def test_one_state_is_kept_and_none_where_none_is_needed(digits, tmp_path):
    x = torch.as_tensor(digits[:60])
    model = BrownianRVAE(config(warmup_epochs=1))
    for epoch in (1, 2, 3):
        one_epoch(model, x, epoch)
    assert model._last_phase.state is not None
    assert copy.deepcopy(model)._last_phase.state is None
    model.save(tmp_path)
    loaded = AutoModel.load_from_folder(tmp_path)
    for epoch in (1, 2, 3):
        one_epoch(loaded, x, epoch)
    assert loaded._last_phase.state is None


def test_a_training_may_end_in_the_first_phase_and_go_on_later(digits, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = BrownianRVAE(config(warmup_epochs=3))
        trainer = train(model, digits[:100], tmp_path, 2, steps_saving=1)
    caught = [str(w.message) for w in caught if "first phase" in str(w.message)]
    assert len(caught) == 1 and "(1 of 3 epochs)" in caught[0]  # with the first checkpoint
    model = AutoModel.load_from_folder(final(trainer))
    assert int(model.epochs_done) == 2
    trainer = train(model, digits[:100], tmp_path, 1)
    assert not AutoModel.load_from_folder(final(trainer)).in_warmup
    trainer = train(model, digits[:100], tmp_path, 1)
    assert int(AutoModel.load_from_folder(final(trainer)).epochs_done) == 4


def test_statistics_of_the_codes():
    batches = [(torch.randn(4, 2), torch.randn(4), torch.randn(4, 3)) for _ in range(3)]
    seen = CodeStatistics()
    for batch in batches:
        seen.add(*batch)
    codes, log_time, residual = (torch.cat(part) for part in zip(*batches, strict=True))
    assert torch.equal(seen.codes, codes) and seen.count == 12
    assert torch.allclose(seen.variance, residual.square().mean(0))
    assert torch.allclose(seen.mean_log_time, log_time.mean())
    many = torch.zeros(MAX_CODES, 1)
    for _ in range(2):
        seen.add(many, many[:, 0], many)
    assert seen.count == 12 + MAX_CODES


def test_warmup_is_an_autoencoder(digits):
    model = BrownianRVAE(config())
    x = torch.as_tensor(digits[:50])
    output = model({"data": x})
    mean = model.decoder(model.encoder(x).embedding).reconstruction
    reference = torch.distributions.Normal(mean, 1.0).log_prob(x).flatten(1).sum(1).mean()
    assert torch.allclose(output.loss, -reference)
    assert torch.equal(output.loss, output.recon_loss) and not output.reg_loss.any()


@pytest.mark.parametrize("saved_at", [1, 3])
def test_a_loaded_checkpoint_goes_on_in_its_phase(saved_at, digits, tmp_path):
    model = BrownianRVAE(config())
    trainer = train(model, digits[:100], tmp_path, 3, steps_saving=1)
    folder = os.path.join(trainer.training_dir, f"checkpoint_epoch_{saved_at}")
    loaded = AutoModel.load_from_folder(folder)
    done = int(loaded.epochs_done)
    assert loaded.in_warmup == (saved_at == 1) and done >= 1
    phases = []
    autoencoder, elbo = loaded._autoencoder, loaded._elbo
    loaded._autoencoder = lambda *a: phases.append(1) or autoencoder(*a)
    loaded._elbo = lambda *a: phases.append(2) or elbo(*a)
    trainer = BaseTrainer(loaded, trainer.train_dataset, training_config=trainer.training_config)
    phases.clear()
    trainer.prepare_training()
    for epoch in range(1, 4):
        trainer.train_step(epoch)
    assert phases == [1, 1] * (2 - min(done, 2)) + [2, 2] * (3 - (2 - min(done, 2)))
    assert not loaded.in_warmup


# Networks and dimensions


class NormedDecoder(BaseDecoder):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 64))

    def forward(self, z):
        return ModelOutput(reconstruction=self.layers(z).sigmoid().view(-1, 1, 8, 8))


def test_the_mean_is_held_fixed_in_the_second_phase(digits):
    """Its parameters, and the statistics of its batch normalisation."""
    model = BrownianRVAE(config(warmup_epochs=1), decoder=NormedDecoder())
    x = torch.as_tensor(digits[:50])
    one_epoch(model, x, 1)
    before = copy.deepcopy(model.decoder.state_dict())
    model.zero_grad()
    model({"data": x}, epoch=2).loss.backward()
    assert all(p.grad is None for p in model.decoder.parameters())
    one_epoch(model, x, 2)
    assert same(model.decoder.state_dict(), before)


@pytest.mark.parametrize("latent_dim", [1, 3])
def test_latent_dimensions_and_batches_of_one(latent_dim, digits, tmp_path):
    model = BrownianRVAE(config(latent_dim=latent_dim))
    train(model, digits[:51], tmp_path, 4)  # the last batch has one point
    assert not model.in_warmup
    with torch.no_grad():
        assert bool(torch.isfinite(model({"data": torch.as_tensor(digits[:1])}).loss))


def test_the_reproduction_script_runs(tmp_path):
    pytest.importorskip("matplotlib")
    script = pathlib.Path(__file__).parents[2] / "examples" / "reproduce" / "kalatzis2020.py"
    command = [sys.executable, script, "--quick", "--output-dir", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    runs = json.loads((tmp_path / "kalatzis2020.json").read_text())["runs"]
    assert [run["model"] for run in runs] == ["VAE", "flat", "flat free", "R-VAE"]
    assert all(math.isfinite(run["neg_elbo"]) for run in runs)
    assert "## Table 1" in (tmp_path / "kalatzis2020.md").read_text()
    for name in ("figure_1.png", "figure_2.png"):
        assert (tmp_path / name).stat().st_size > 10_000


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: 255 * x, r"must be in \[0, 1\], the range of the default decoder, got 0 to 255"),
        (lambda x: x - 0.5, r"must be in \[0, 1\]"),
        (lambda x: x[:0], r"must have shape \[B, 1, 8, 8\]"),
    ],
)
def test_bad_data(change, message, digits):
    with pytest.raises(ValueError, match=message):
        BrownianRVAE(config())({"data": change(torch.as_tensor(digits[:10]))})


def test_fewer_points_than_centres_are_refused_in_the_first_step(digits, tmp_path):
    with pytest.raises(ValueError, match="num_centers is 20, but there are only 15 training"):
        train(BrownianRVAE(config()), digits[:15], tmp_path, 4)


def test_fewer_codes_than_centres():
    with pytest.raises(ValueError, match="only 4 codes"):
        placed().place(torch.randn(4, 2), torch.ones(6))


def test_what_needs_the_second_phase_says_so(digits):
    model = BrownianRVAE(config())
    for call in (
        lambda: model.metric,
        lambda: model.get_nll(torch.as_tensor(digits[:5])),
        lambda: model.log_prior(torch.zeros(1, 2)),
    ):
        with pytest.raises(RuntimeError, match=r"first phase of its training \(0 of 2 epochs\)"):
            call()


def test_updates_without_codes():
    model = BrownianRVAE(config(warmup_epochs=1))
    with pytest.raises(RuntimeError, match="No codes were seen"):
        model.update()
