"""VAE_DLM: derivatives and losses on known surfaces, training, pythae's habits, bad input."""

import copy
import io
import json
import math
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
import warnings

import cloudpickle
import pytest
import torch
from pythae.data.datasets import DatasetOutput
from pythae.models import AutoModel
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.models.nn.benchmarks.mnist import Decoder_ResNet_AE_MNIST, Encoder_ResNet_VAE_MNIST
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from torch import nn

from pythae_geometric.data.trajectories import TrajectoryDataset
from pythae_geometric.geometry import directional_derivative, value_and_jacobian
from pythae_geometric.models.vae_dlm import VAE_DLM, VAE_DLM_Config
from pythae_geometric.models.vae_dlm.inputs import read_batch
from pythae_geometric.models.vae_dlm.networks import GramNetwork, ModifiedMLP, TimeNetwork
from pythae_geometric.models.vae_dlm.objective import sphere_metric

PLAIN = {"metric_weight": 0.0, "flow_weight": 0.0}
TIMES = torch.tensor([0.0, 0.25, 1.0])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(input_dim=(7,), double=True, **fields):
    torch.manual_seed(0)
    fields = {"latent_dim": 3, "hidden_dim": 12, **fields}
    model = VAE_DLM(VAE_DLM_Config(input_dim=input_dim, **fields))
    return model.double() if double else model


def batch(n=6, shape=(7,), seed=0, dtype=torch.float64):
    generator = seeded(seed)
    x, y = torch.randn(2, n, *shape, dtype=dtype, generator=generator)
    return DatasetOutput(data=x, time=torch.rand(n, dtype=dtype, generator=generator), target=y)


def waves(n=40, seed=0):
    """Travelling waves of random amplitude on 12 points, ``[N, T, 12]``."""
    a = 1 + torch.rand(n, 1, 1, generator=seeded(seed))
    x = torch.arange(12) / 12
    return a * torch.cos(2 * math.pi * (x - TIMES[:, None] / 2))


# The networks


@pytest.mark.parametrize("activation", ["gelu", "tanh"])
@pytest.mark.parametrize("depth", [1, 3])
def test_derivatives_of_the_perceptron_equal_autograd(activation, depth):
    torch.manual_seed(0)
    network = ModifiedMLP(3, 4, 9, depth, activation).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(5, 3, dtype=torch.float64)
    y, dy = network.value_and_derivatives(x, torch.eye(3, dtype=torch.float64))
    exact = torch.stack([torch.func.jacrev(network)(row) for row in x])
    torch.testing.assert_close(y, network(x))
    torch.testing.assert_close(dy.permute(1, 2, 0), exact)


def test_the_perceptron_is_the_published_one():
    """Gates U and V, a layer, and the mixture, layer by layer."""
    torch.manual_seed(0)
    network = ModifiedMLP(3, 2, 5, 2, "tanh").double()
    for layer in (network.first, network.hidden[0]):
        nn.init.zeros_(layer.bias)
    x = torch.randn(4, 3, dtype=torch.float64)
    W_U, W_V, W_1 = network.first.weight.chunk(3)
    U, V, Z = (torch.tanh(x @ W.T) for W in (W_U, W_V, W_1))
    H = Z * U + (1 - Z) * V
    Z = torch.tanh(network.hidden[0](H))
    H = Z * U + (1 - Z) * V
    torch.testing.assert_close(network(x), network.last(H))


@pytest.mark.parametrize("horizon", [1.0, 2.5])
def test_derivatives_of_manifold_and_metric_are_by_chart_point_and_real_time(horizon):
    config = VAE_DLM_Config(input_dim=(7,), latent_dim=3, hidden_dim=8, horizon=horizon)
    torch.manual_seed(0)
    E, g_network = TimeNetwork(config, (4,), "tanh").double(), GramNetwork(config).double()
    u = torch.randn(5, 3, dtype=torch.float64)
    t = horizon * torch.rand(5, 1, dtype=torch.float64)
    z, J = value_and_jacobian(lambda v: E(v, t), u)
    ours = E.chart_derivatives(u, t)
    torch.testing.assert_close((ours[0], ours[1].permute(1, 2, 0)), (z, J))
    exact = directional_derivative(lambda s: g_network(u, s), t, torch.ones_like(t))
    torch.testing.assert_close(g_network.time_derivative(u, t), exact)
    g = exact[0]
    torch.testing.assert_close(g, g.mT)
    assert torch.linalg.eigvalsh(g).min() > -1e-12


# The loss


class Known(nn.Module):
    """Closed forms in place of a network: the value, and its derivatives."""

    def __init__(self, value, derivatives):
        super().__init__()
        self.value, self.derivatives = value, derivatives

    def forward(self, u, t):
        return self.value(u, t)

    def chart_derivatives(self, u, t):
        return self.value(u, t), self.derivatives(u, t)

    time_derivative = chart_derivatives


def paraboloid(u, t):
    return torch.cat([u, t * u.square().sum(1, keepdim=True)], dim=1)


def paraboloid_slopes(u, t):
    d = u.shape[1]
    flat = torch.eye(d, dtype=u.dtype).unsqueeze(1).expand(d, len(u), d)
    return torch.cat([flat, (2 * t * u).T.unsqueeze(2)], dim=2)


def test_losses_on_a_known_moving_surface_are_zero_and_then_closed_forms():
    """z = (u, t |u|²) has g = I + 4 t² u uᵀ, ∂_t g = 8 t u uᵀ. With g that, the match is 0 and
    the residual is 8 t u uᵀ + c g + α (g - Σ); with g + I the match is the mean of I."""
    model, d = small(alpha=1.5, eigenvalue_weight=1.0).eval(), 3
    shift, c = 0.0, 0.4
    outer = lambda u: u.unsqueeze(2) * u.unsqueeze(1)  # noqa: E731
    eye = torch.eye(d, dtype=torch.float64)
    model.decoder.manifold_map = Known(paraboloid, paraboloid_slopes)
    model.metric_network = Known(
        lambda u, t: (1 + shift) * eye + 4 * t.unsqueeze(2) ** 2 * outer(u),
        lambda u, t: 8 * t.unsqueeze(2) * outer(u),
    )
    model.flow_operator = Known(lambda u, t: c * eye.expand(len(u), d, d), None)
    u, t = torch.randn(2, 6, d, dtype=torch.float64, generator=seeded())
    t = t[:, :1].abs()
    z, terms = model._geometry(u, t)
    torch.testing.assert_close(z, paraboloid(u, t))
    assert float(terms["metric_loss"]) < 1e-28
    g = eye + 4 * t.unsqueeze(2) ** 2 * outer(u)
    Sigma = sphere_metric(u)
    residual = 8 * t.unsqueeze(2) * outer(u) + c * g + 1.5 * (g - Sigma)
    torch.testing.assert_close(terms["flow_loss"], residual.square().mean())
    # Of I + a uuᵀ the smallest eigenvalue is 1.
    torch.testing.assert_close(terms["min_eigenvalue"], torch.ones((), dtype=torch.float64))
    below = torch.relu(-torch.linalg.eigvalsh(g - Sigma)).square().mean()
    torch.testing.assert_close(terms["eigenvalue_loss"], below)
    shift = 1.0
    torch.testing.assert_close(float(model._geometry(u, t)[1]["metric_loss"]), 1 / d)


def test_the_loss_is_the_published_one():
    """Written out sample by sample, with reverse-mode derivatives."""
    model, data = small(eigenvalue_weight=0.3, alpha=1.7).eval(), batch()
    torch.manual_seed(5)
    out = model(data, epoch=1, dataset_size=6, uses_ddp=False)
    torch.manual_seed(5)
    mean, log_variance = model.posterior(data.data)
    u = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    parts = {"recon": [], "reg": [], "metric": [], "flow": [], "eigenvalue": []}
    E, g_network = model.decoder.manifold_map, model.metric_network
    for i in range(6):
        ui, ti = u[i].detach(), data.time[i : i + 1]
        J = torch.func.jacrev(lambda v, t=ti[None]: E(v[None], t)[0])(ui)
        g = g_network(ui[None], ti[None])[0]
        dg = torch.func.jacrev(lambda s, v=ui[None]: g_network(v, s[None])[0])(ti)[..., 0]
        Sigma = sphere_metric(ui[None])[0]
        Lambda = model.flow_operator(ui[None], ti[None])[0]
        x = model.decoder(ui[None], ti)["reconstruction"][0]
        parts["recon"].append((x - data.target[i]).square().mean())
        s = log_variance[i].exp()
        parts["reg"].append((mean[i].square() + s - 1 - s.log()).sum())
        parts["metric"].append((g - J.T @ J).square().mean())
        parts["flow"].append((dg + Lambda @ g + 1.7 * (g - Sigma)).square().mean())
        below = torch.relu(-torch.linalg.eigvalsh(g - Sigma))
        parts["eigenvalue"].append(below.square().mean())
    total = 0.0
    weights = {"recon": 100.0, "reg": 1e-4, "metric": 1.0, "flow": 1.0, "eigenvalue": 0.3}
    for name, values in parts.items():
        value = torch.stack(values).mean()
        torch.testing.assert_close(out[f"{name}_loss"], value)
        total = total + weights[name] * value
    torch.testing.assert_close(out.loss, total)
    torch.testing.assert_close(out.z, u)
    assert out.recon_x.shape == data.target.shape


def test_training_takes_the_terms_of_the_metric_from_a_random_half(monkeypatch):
    """Those of one half and of the other have the mean of all; the points keep their order."""
    model, (u, t) = small(eigenvalue_weight=0.3), torch.randn(2, 6, 3, generator=seeded()).double()
    t = t[:, :1].abs()
    z, whole = model.eval()._geometry(u, t)
    model.train()
    order, halves = torch.tensor([4, 1, 0, 5, 3, 2]), []
    for each in (order, order.flip(0)):
        monkeypatch.setattr(torch, "randperm", lambda n, each=each, **kwargs: each)
        points, terms = model._geometry(u, t)
        torch.testing.assert_close(points, z)
        halves.append(terms)
    for name in ("metric_loss", "flow_loss", "eigenvalue_loss"):
        assert halves[0][name] != halves[1][name]
        torch.testing.assert_close((halves[0][name] + halves[1][name]) / 2, whole[name])
    monkeypatch.undo()
    drawn = {float(model._geometry(u, t)[1]["metric_loss"]) for _ in range(50)}
    assert len(drawn) > 5  # of 20 halves


def test_gradients_equal_finite_differences():
    model, data = small(eigenvalue_weight=0.3, gradient_clip=None), batch()

    def loss():
        torch.manual_seed(0)
        return model(data).loss

    loss().backward()
    h, generator = 1e-6, seeded(1)
    for name, parameter in model.named_parameters():
        v = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        values = []
        with torch.no_grad():
            for step in (h, -2 * h):
                parameter.add_(v, alpha=step)
                values.append(float(loss()))
            parameter.add_(v, alpha=h)
        slope = (values[0] - values[1]) / (2 * h)
        assert float((parameter.grad * v).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-6), name


def test_the_baselines_are_configurations():
    extended, plain = small(**PLAIN), small(manifold_map=False, **PLAIN)
    for model in (extended, plain):
        assert model.metric_network is None and model.flow_operator is None
        out = model(batch())
        assert "metric_loss" not in out and "flow_loss" not in out
        torch.testing.assert_close(out.loss, 100 * out.recon_loss + 1e-4 * out.reg_loss)
    u, t = torch.randn(4, 3, dtype=torch.float64), torch.rand(4, 1, dtype=torch.float64)
    torch.testing.assert_close(plain.decoder.points(u, t), torch.cat([u, t], dim=1))
    assert small(metric_weight=0.0)(batch()).get("metric_loss") is None
    assert small(flow_weight=0.0).flow_operator is None


def test_steady_metrics():
    u = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(small()._steady(u), sphere_metric(u, 10.0))
    flat = small(steady_metric="euclidean", steady_scale=2.0)._steady(u)
    torch.testing.assert_close(flat, 2 * torch.eye(3, dtype=torch.float64).expand(4, 3, 3))
    config = VAE_DLM_Config(input_dim=(7,), latent_dim=3, hidden_dim=8, steady_metric="custom")
    own = VAE_DLM(config, steady_metric=lambda v: sphere_metric(v, 3.0)).double()
    torch.testing.assert_close(own._steady(u), sphere_metric(u, 3.0))
    assert torch.isfinite(own(batch()).loss)


# Gradient clipping


def clipped_gradients(model):
    torch.manual_seed(0)
    model.zero_grad()
    model.train()(batch()).loss.backward()
    return [p.grad for p in model.parameters()]


def through_torch_save(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def through_files(model):
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        return VAE_DLM.load_from_folder(folder).double()


@pytest.mark.parametrize(
    "copied",
    [
        lambda m: m,
        copy.deepcopy,
        lambda m: copy.deepcopy(nn.Sequential(m))[0],
        lambda m: pickle.loads(pickle.dumps(m)),
        through_torch_save,
        through_files,
        lambda m: m.float().double(),
    ],
    ids=["itself", "deepcopy", "within a deepcopy", "pickle", "torch.save", "files", "dtype"],
)
@pytest.mark.parametrize("trained", [False, True])
def test_gradients_are_clipped_entry_by_entry_in_copies_too(copied, trained):
    bound = 0.01
    model, free = small(gradient_clip=bound), small(gradient_clip=None)
    if trained:
        clipped_gradients(model)
    # As float32 is saved, and as .float() leaves it.
    for m in (model, free):
        m.float().double()
    exact = clipped_gradients(free)
    model = copied(model)
    for gradient, whole in zip(clipped_gradients(model), exact, strict=True):
        torch.testing.assert_close(gradient, whole.clamp(-bound, bound))
    assert max(float(g.abs().max()) for g in exact) > bound
    assert all(len(p._backward_hooks) == 1 for p in model.parameters())


def test_gradients_of_parameters_that_were_frozen_are_clipped_once_they_are_not():
    class Frozen(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(7, 6).requires_grad_(False)

        def forward(self, x):
            mean, log_variance = self.layer(x).chunk(2, dim=1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    config = VAE_DLM_Config(input_dim=(7,), latent_dim=3, hidden_dim=8, gradient_clip=0.01)
    model, data = VAE_DLM(config, encoder=Frozen()), batch(dtype=torch.float32)
    model(data).loss.backward()
    assert model.encoder.layer.weight.grad is None
    model.encoder.layer.requires_grad_(True)
    model(data).loss.backward()
    assert float(model.encoder.layer.weight.grad.abs().max()) == pytest.approx(0.01)


# Use


def test_evolve_decodes_the_posterior_mean_or_a_sample_at_every_time():
    model = small().train()
    x = batch().data
    states = model.evolve(x, TIMES)
    assert states.shape == (6, 3, 7) and model.training
    mean, log_variance = model.posterior(x)
    for k, t in enumerate(TIMES.tolist()):
        torch.testing.assert_close(states[:, k], model.decoder(mean, t)["reconstruction"])
    sampled = model.evolve(x, [0.5], sample=True, generator=seeded(3))
    noise = torch.empty_like(mean).normal_(generator=seeded(3))
    u = mean + (0.5 * log_variance).exp() * noise
    torch.testing.assert_close(sampled[:, 0], model.decoder(u, 0.5)["reconstruction"])


def test_evolve_in_parts_and_of_fields(monkeypatch):
    model = small(input_dim=(2, 3, 4))
    x = batch(shape=(2, 3, 4)).data
    whole = model.evolve(x, TIMES)
    assert whole.shape == (6, 3, 2, 3, 4)
    monkeypatch.setattr("pythae_geometric.models.vae_dlm.vae_dlm_model.MAX_ROWS", 4)
    torch.testing.assert_close(model.evolve(x, TIMES), whole)


def test_the_decoder_takes_chart_points_at_the_default_or_a_given_time():
    model = small(default_time=0.25, horizon=2.0)
    u = torch.randn(4, 3, dtype=torch.float64)
    at_default = model.decoder(u)["reconstruction"]
    torch.testing.assert_close(at_default, model.decoder(u, 0.25)["reconstruction"])
    t = torch.tensor([0.0, 0.5, 1.0, 2.0], dtype=torch.float64)
    each = [model.decoder(u[i : i + 1], float(t[i]))["reconstruction"][0] for i in range(4)]
    torch.testing.assert_close(model.decoder(u, t)["reconstruction"], torch.stack(each))
    g = model.metric_at(0.5)(u)
    J = model.decoder.manifold_map.chart_derivatives(u, torch.full_like(u[:, :1], 0.5))[1]
    torch.testing.assert_close(g, torch.einsum("ibm,jbm->bij", J, J))


class LinearEncoder(BaseEncoder):
    """The exact posterior of x = a u + noise of variance v, u ~ N(0, 1)."""

    def __init__(self, a, v):
        super().__init__()
        self.variance = 1 / (1 + a**2 / v)
        self.gain = self.variance * a / v

    def forward(self, x):
        mean = self.gain * x
        return ModelOutput(
            embedding=mean, log_covariance=torch.full_like(mean, math.log(self.variance))
        )


class LinearDecoder(BaseDecoder):
    def __init__(self, a):
        super().__init__()
        self.a = a

    def forward(self, z):
        return ModelOutput(reconstruction=self.a * z[:, :1])


def test_the_likelihood_of_a_linear_model_is_exact():
    """x = a u + noise is N(0, a² + v); with the exact posterior every importance weight is p(x),
    and another target at another time is x scaled."""
    a, v = 1.3, 0.2
    config = VAE_DLM_Config(
        input_dim=(1,), latent_dim=1, manifold_map=False, recon_weight=1.0, kl_weight=v, **PLAIN
    )
    model = VAE_DLM(config, LinearEncoder(a, v), LinearDecoder(a)).double()
    x = torch.randn(50, 1, dtype=torch.float64, generator=seeded())
    exact = torch.distributions.Normal(0.0, math.sqrt(a**2 + v)).log_prob(x).mean()
    for n in (1, 3):
        assert model.get_nll(x, n_samples=n, batch_size=7) == pytest.approx(float(exact))
    assert model.get_nll(x, time=1.0, target=x) == pytest.approx(float(exact))


def test_the_loss_is_the_evidence_bound():
    """Up to the normalisation of the likelihood, which is tight for the exact posterior: its mean
    over many draws of u is -2 w_k log p(x)."""
    a, v = 1.3, 0.2
    config = VAE_DLM_Config(
        input_dim=(1,), latent_dim=1, manifold_map=False, recon_weight=1.0, kl_weight=v, **PLAIN
    )
    model = VAE_DLM(config, LinearEncoder(a, v), LinearDecoder(a)).double().eval()
    x, n = 0.8, 100_000
    torch.manual_seed(0)
    out = model(DatasetOutput(data=torch.full((n, 1), x, dtype=torch.float64)))
    bound = -float(out.loss) / (2 * v) - 0.5 * math.log(2 * math.pi * v)
    squares = (out.recon_x - x).square() / (2 * v)
    exact = float(torch.distributions.Normal(0.0, math.sqrt(a**2 + v)).log_prob(torch.tensor(x)))
    assert bound == pytest.approx(exact, abs=5 * float(squares.std()) / math.sqrt(n))


# pythae's habits


def fit(model, data, folder, eval_data=None, epochs=2, **fields):
    config = BaseTrainerConfig(
        output_dir=str(folder), num_epochs=epochs, learning_rate=1e-3,
        per_device_train_batch_size=16, per_device_eval_batch_size=16, **fields,
    )  # fmt: skip
    pipeline = TrainingPipeline(model=model, training_config=config)
    pipeline(train_data=data, eval_data=eval_data)
    return os.path.join(pipeline.trainer.training_dir, "final_model"), pipeline


def test_trains_on_trajectories_evaluates_without_gradients_and_loads(tmp_path, monkeypatch):
    x = waves()
    model = small((12,), double=False, eigenvalue_weight=0.1)
    with_gradients, forward = [], VAE_DLM.forward

    def watched(self, *args, **kwargs):
        if not self.training:
            with_gradients.append(torch.is_grad_enabled())
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(VAE_DLM, "forward", watched)
    before = copy.deepcopy(model.state_dict())
    folder, pipeline = fit(
        model, TrajectoryDataset(x, TIMES), tmp_path,
        TrajectoryDataset(x[:8], TIMES, random_time=False), steps_saving=1,
    )  # fmt: skip
    assert len(with_gradients) == 4 and not any(with_gradients)
    assert all(not torch.equal(v, before[name]) for name, v in model.state_dict().items())
    loaded = AutoModel.load_from_folder(folder)
    assert type(loaded) is VAE_DLM and loaded.model_config == model.model_config
    states = loaded.evolve(x[:5, 0], TIMES)
    assert states.shape == (5, 3, 12)
    again = VAE_DLM.load_from_folder(folder)
    torch.testing.assert_close(again.evolve(x[:5, 0], TIMES), states, rtol=0, atol=0)
    # From a checkpoint, on.
    checkpoint = os.path.join(pipeline.trainer.training_dir, "checkpoint_epoch_1")
    fit(VAE_DLM.load_from_folder(checkpoint), TrajectoryDataset(x, TIMES), tmp_path / "on")


@pytest.mark.parametrize("fields", [{}, PLAIN, {**PLAIN, "manifold_map": False}])
def test_training_learns_a_travelling_wave(fields):
    model = small((12,), double=False, latent_dim=2, hidden_dim=32, **fields)
    train, test = TrajectoryDataset(waves(), TIMES), waves(20, seed=1)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    torch.manual_seed(1)
    for _ in range(150):
        items = [train[i] for i in range(40)]
        inputs = {k: torch.stack([item[k] for item in items]) for k in items[0]}
        optimiser.zero_grad()
        model(DatasetOutput(**inputs)).loss.backward()
        optimiser.step()
    error = (model.evolve(test[:, 0], TIMES) - test).abs().mean() / test.abs().mean()
    assert error < 0.1


def test_the_steady_term_keeps_the_metric_from_degenerating():
    """The seed's claim, in small: after the same training, the smallest eigenvalue."""
    smallest = {}
    for alpha in (0.0, 2.0):
        model = small((12,), double=False, latent_dim=2, hidden_dim=24, alpha=alpha)
        data = TrajectoryDataset(waves(), TIMES, random_time=False)
        inputs = {k: torch.stack([item[k] for item in data]) for k in data[0]}
        optimiser = torch.optim.Adam(model.parameters(), 2e-3)
        torch.manual_seed(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(200):
                optimiser.zero_grad()
                model(DatasetOutput(**inputs)).loss.backward()
                optimiser.step()
        u, _ = model.posterior(inputs["data"])
        g = model.metric_at(0.5)(u).detach()
        smallest[alpha] = float(torch.linalg.eigvalsh(g)[:, 0].median())
    assert smallest[2.0] > 10 * smallest[0.0]


def test_plain_data_train_at_random_times_and_evaluate_at_the_default_time(digits, tmp_path):
    model = small((1, 8, 8), double=False, default_time=0.5)
    folder, _ = fit(model, digits[:64], tmp_path, digits[64:96])
    loaded = AutoModel.load_from_folder(folder).eval()
    x = torch.from_numpy(digits[:5])
    torch.manual_seed(0)
    out = loaded(DatasetOutput(data=x))
    expected = loaded.decoder(out.z, 0.5)["reconstruction"]
    torch.testing.assert_close(out.recon_x, expected)
    loaded.train()
    times = torch.cat([read_batch({"data": x}, loaded.model_config, True)[2] for _ in range(50)])
    assert times.min() < 0.1 and times.max() > 0.9
    assert abs(float(times.mean()) - 0.5) < 5 / math.sqrt(12 * len(times))


def test_networks_of_a_module_of_the_users_load_where_it_is_not(tmp_path, monkeypatch):
    (tmp_path / "networks_of_mine.py").write_text(
        "import torch\n"
        "from pythae.models.base.base_utils import ModelOutput\n"
        "from pythae.models.nn import BaseDecoder\n"
        "class Mine(BaseDecoder):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Linear(4, 7)\n"
        "    def forward(self, z):\n"
        "        return ModelOutput(reconstruction=self.layer(z))\n"
    )
    with monkeypatch.context() as m:
        m.syspath_prepend(tmp_path)
        import networks_of_mine

        config = VAE_DLM_Config(input_dim=(7,), latent_dim=3, hidden_dim=8)
        model = VAE_DLM(config, decoder=networks_of_mine.Mine())
        model.save(tmp_path / "model")
    monkeypatch.delitem(sys.modules, "networks_of_mine")
    loaded = AutoModel.load_from_folder(tmp_path / "model")
    x = batch(dtype=torch.float32).data
    torch.testing.assert_close(loaded.evolve(x, TIMES), model.evolve(x, TIMES))


def test_the_networks_of_another_model(tmp_path):
    model = small(double=False)
    again = VAE_DLM(model.model_config, model.encoder, model.decoder)
    assert again.decoder.network is model.decoder.network
    again.save(tmp_path)
    loaded = VAE_DLM.load_from_folder(tmp_path)
    x = batch(dtype=torch.float32).data
    torch.testing.assert_close(loaded.evolve(x, TIMES), again.evolve(x, TIMES), rtol=0, atol=0)


def test_pickles_as_version_0_1_0_wrote_them(tmp_path):
    """That of the decoder was the composition with the manifold map, and brought its class."""

    class ChartDecoder(BaseDecoder):
        def __init__(self, manifold_map, network):
            super().__init__()
            self.manifold_map, self.network = manifold_map, network

    config = VAE_DLM_Config(input_dim=(7,), latent_dim=3, hidden_dim=8)
    network = Returns(lambda x: ModelOutput(reconstruction=x.squeeze(1)))
    model = VAE_DLM(config, decoder=network)
    model.save(tmp_path)
    composition = ChartDecoder(model.decoder.manifold_map, network)
    (tmp_path / "decoder.pkl").write_bytes(cloudpickle.dumps(composition))
    (tmp_path / "model_checksums.json").unlink()  # 0.1.0 wrote none
    loaded = AutoModel.load_from_folder(tmp_path)
    x = batch(dtype=torch.float32).data
    torch.testing.assert_close(loaded.evolve(x, TIMES), model.evolve(x, TIMES), rtol=0, atol=0)
    # Saved again, the pickle holds the user's network itself.
    loaded.save(tmp_path)
    assert type(pickle.loads((tmp_path / "decoder.pkl").read_bytes())).__name__ == "Returns"


def test_a_custom_steady_metric_is_not_saved_and_says_so(tmp_path):
    config = VAE_DLM_Config(input_dim=(7,), latent_dim=3, hidden_dim=8, steady_metric="custom")
    model = VAE_DLM(config, steady_metric=sphere_metric)
    model.save(tmp_path)
    loaded = AutoModel.load_from_folder(tmp_path)
    x = batch(dtype=torch.float32)
    assert loaded.evolve(x.data, TIMES).shape == (6, 3, 7)
    with pytest.raises(ValueError, match="to it; it is not saved"):
        loaded(x)
    loaded.steady_metric = sphere_metric
    assert torch.isfinite(loaded(x).loss)


def test_autocast_keeps_the_derivatives_in_full_precision():
    model, data = small(double=False), batch(dtype=torch.float32)
    torch.manual_seed(0)
    exact = model(data)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(data)
    assert out.flow_loss.dtype == torch.float32
    assert float(out.loss) == pytest.approx(float(exact.loss), rel=0.05)
    out.loss.backward()


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": torch.full((6,), 1.2)}, r"Times must be in \[0, 1\]"),
        ({"time": torch.full((6,), -0.1)}, r"Times must be in \[0, 1\]"),
        ({"time": torch.full((6,), math.nan)}, r"Times must be in \[0, 1\]"),
        ({"time": torch.zeros(4)}, "one for each of 6 points"),
        ({"data": torch.zeros(0, 7)}, r"data must have shape \[B, 7\]"),
        ({"target": torch.full((6, 7), math.inf)}, "target contains NaN or infinity"),
        ({"target": torch.zeros(5, 7)}, r"target must have shape \[6, 7\]"),
    ],
)
def test_bad_batches(change, message):
    with pytest.raises(ValueError, match=message):
        small(double=False)(DatasetOutput(**{**batch(dtype=torch.float32), **change}))


def test_time_and_target_come_together():
    data = batch()
    with pytest.raises(ValueError, match="both time and target"):
        small()(DatasetOutput(data=data.data, time=data.time))


def test_bad_calls():
    model, x = small(), batch().data
    with pytest.raises(ValueError, match=r"Times must be in \[0, 1\], .* got 0 to 1.5"):
        model.evolve(x, [0.0, 1.5])
    with pytest.raises(ValueError, match="times is empty"):
        model.evolve(x, [])
    with pytest.raises(ValueError, match=r"x0 must have shape \[B, 7\]"):
        model.evolve(x[:, :3], [0.0])
    with pytest.raises(ValueError, match=r"Times must be in"):
        model.decoder(torch.zeros(2, 3, dtype=torch.float64), -1.0)
    with pytest.raises(ValueError, match="kl_weight"):
        small(kl_weight=0.0).get_nll(x)
    with pytest.raises(ValueError, match="Times must be in"):
        model.metric_at(2.0)(torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"default_time": 2.0}, "default_time must be at most horizon, 1"),
        ({"manifold_map": False}, "Without a manifold map there is no metric to learn"),
    ],
)
def test_configs_that_contradict_themselves(fields, message):
    with pytest.raises(ValueError, match=message):
        VAE_DLM_Config(input_dim=(7,), **fields)


def test_bad_construction():
    config = VAE_DLM_Config(input_dim=(1, 28, 28), latent_dim=2, hidden_dim=8)
    with pytest.raises(ValueError, match="build it with a config of latent_dim=3"):
        VAE_DLM(config, decoder=Decoder_ResNet_AE_MNIST(config))
    wide = VAE_DLM_Config(input_dim=(1, 28, 28), latent_dim=5)
    with pytest.raises(ValueError, match=r"shape \[2, 2\] .*, got \[2, 5\] and \[2, 5\]"):
        VAE_DLM(config, encoder=Encoder_ResNet_VAE_MNIST(wide))
    with pytest.raises(ValueError, match='set steady_metric="custom"'):
        VAE_DLM(config, steady_metric=sphere_metric)
    custom = VAE_DLM_Config(input_dim=(7,), latent_dim=3, hidden_dim=8, steady_metric="custom")
    with pytest.raises(ValueError, match="give a tensor"):
        VAE_DLM(custom, steady_metric=lambda u: u).double()(batch(8))
    # Of three points in three dimensions u is [3, 3].
    with pytest.raises(ValueError, match="symmetric"):
        VAE_DLM(custom, steady_metric=lambda u: u).double().eval()(batch(3))


class Returns(BaseDecoder):
    """What a function makes of the states [B, 1, 7]."""

    def __init__(self, output):
        super().__init__()
        self.layer, self.output = nn.Linear(4, 7), output

    def forward(self, z):
        return self.output(self.layer(z).unsqueeze(1))


def with_output(output):
    """A model whose decoder returns what the function makes of the states, in forward at least."""
    config = VAE_DLM_Config(input_dim=(1, 7), latent_dim=3, hidden_dim=8)
    torch.manual_seed(0)
    model = VAE_DLM(config, decoder=Returns(lambda x: ModelOutput(reconstruction=x)))
    model.decoder.network.output = output
    return model


def test_a_decoder_that_leaves_out_an_axis_of_size_one():
    data = batch(shape=(1, 7), dtype=torch.float32)
    outs = []
    for output in (lambda x: x, lambda x: x.squeeze(1)):
        model = with_output(lambda x, f=output: ModelOutput(reconstruction=f(x)))
        torch.manual_seed(0)
        outs.append(model(data))
        assert model.evolve(data.data, TIMES).shape == (6, 3, 1, 7)
    torch.testing.assert_close(outs[1].recon_x, outs[0].recon_x)
    torch.testing.assert_close(outs[1].recon_loss, (outs[0].recon_x - data.target).square().mean())


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        (lambda x: x, TypeError, "must return a ModelOutput with reconstruction, got a Tensor"),
        (lambda x: (x, x), TypeError, "must return a ModelOutput .* got a tuple"),
        (lambda x: ModelOutput(x=x), TypeError, "with reconstruction, got a ModelOutput with x"),
        (lambda x: ModelOutput(reconstruction=x[:1]), ValueError, r"got \[1, 1, 7\]"),
        (lambda x: ModelOutput(reconstruction=x[..., :1]), ValueError, r"got \[6, 1, 1\]"),
    ],
)
def test_wrong_outputs_of_a_decoder(output, error, message):
    model, data = with_output(output), batch(shape=(1, 7), dtype=torch.float32)
    for call in (lambda: model(data), lambda: model.get_nll(data.data)):
        with pytest.raises(error, match=message):
            call()
    with pytest.raises(ValueError, match="build it with a config of latent_dim=4"):
        VAE_DLM(model.model_config, decoder=model.decoder.network)


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        (lambda m, s: m, TypeError, "The encoder must return a ModelOutput .* got a Tensor"),
        (lambda m, s: (m, s), TypeError, "The encoder must return a ModelOutput .* got a tuple"),
        (lambda m, s: ModelOutput(embedding=m), TypeError, "with log_covariance, got"),
        (
            lambda m, s: ModelOutput(embedding=m, log_covariance=s[:, :1]),
            ValueError,
            r"log_covariance of shape \[6, 3\], got \[6, 3\] and \[6, 1\]",
        ),
    ],
)
def test_wrong_outputs_of_an_encoder(output, error, message):
    class Wrong(BaseEncoder):
        def forward(self, x):
            return output(x[:, :3], x[:, 3:6])

    model, data = small(), batch()
    model.encoder = Wrong()
    for call in (lambda: model(data), lambda: model.get_nll(data.data)):
        with pytest.raises(error, match=message):
            call()
    with pytest.raises(error, match="The encoder must"):
        VAE_DLM(model.model_config, encoder=Wrong())


def test_an_encoder_that_cannot_take_zeros():
    """The shapes are looked at with zeros, which need not be data."""

    class Normalised(LinearEncoder):
        def forward(self, x):
            return super().forward(x / x.norm(dim=1, keepdim=True))

    config = VAE_DLM_Config(input_dim=(2,), latent_dim=2, hidden_dim=8)
    model = VAE_DLM(config, encoder=Normalised(1.0, 0.1))
    assert torch.isfinite(model(DatasetOutput(data=torch.ones(4, 2))).loss)
    with pytest.raises(ArithmeticError, match="The encoder's output is not finite"):
        model(DatasetOutput(data=torch.zeros(4, 2)))


def test_a_metric_that_loses_its_rank_warns_once():
    model = small().train()
    model.decoder.manifold_map = Known(
        lambda u, t: torch.cat([u, t], dim=1),
        lambda u, t: (
            torch.diag_embed(torch.tensor([1.0, 2.0, 0.0])).to(u)[:, None].expand(3, len(u), 3)
        ),
    )
    with pytest.warns(UserWarning, match=r"lost its rank at 3 of 3 points: .* is 0"):
        out = model(batch())
    assert out.num_degenerate == 3 and float(out.min_eigenvalue) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(batch())


@pytest.mark.parametrize("part", ["decoder.network", "decoder.manifold_map", "metric_network"])
def test_divergence_is_named(part):
    model = small(eigenvalue_weight=1.0)
    with torch.no_grad():
        model.get_submodule(part).layers.last.bias.fill_(math.inf)
        model.get_submodule(part).layers.last.weight.fill_(math.inf)
    with pytest.raises(ArithmeticError, match="training has diverged"):
        model(batch())


def test_the_reproduction_script_runs_and_goes_on_where_it_was(tmp_path):
    pytest.importorskip("matplotlib")
    script = pathlib.Path(__file__).parents[2] / "examples" / "reproduce" / "gracyk2024.py"
    command = [sys.executable, script, "--quick", "--output-dir", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("VAE", "VAE__extended", "VAE_DLM", "VAE_DLM__penalty"):
        result = json.loads((tmp_path / f"gracyk2024_{name}.json").read_text())
        assert all(math.isfinite(row["in distribution"]) for row in result["progress"])
    for name in ("robustness", "degeneracy", "solution", "manifold", "generated"):
        assert (tmp_path / f"gracyk2024_{name}.png").stat().st_size > 10_000
    report = tmp_path / "gracyk2024.md"
    text = report.read_text()
    assert text.count(" ± ") >= 4 * 5 * 5 and "nan" not in text
    # Nothing is trained again.
    report.unlink()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "steps\n" not in done.stdout.split("#")[0], done.stderr
    assert report.exists()
