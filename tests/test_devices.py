"""Everything that computes runs on a second device too, and gives the numbers of the CPU."""

import functools

import pytest
import torch
from pythae.models import VAE, VAEConfig
from torch import nn
from torch.utils import backend_registration

import pythae_geometric as pg
from pythae_geometric import evaluation, geometry, plotting
from pythae_geometric.data.symmetric import symmetric_data
from pythae_geometric.geometry import MixtureMetric, PosteriorMetric, PullbackMetric

if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this torch has no backends in Python", allow_module_level=True)

# It looks at torch.Generator, which is replaced below.
import torch._dynamo
from devices import DEVICE, OnDevice, SecondDevice


class AnyGenerator(torch.Generator):
    """A source of random numbers for both devices: the same numbers."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls, "cpu")

    @property
    def device(self):
        return DEVICE


@pytest.fixture(autouse=True)
def second_device(monkeypatch):
    monkeypatch.setattr(torch, "Generator", AnyGenerator)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with SecondDevice():
        yield


def tensors(value):
    """All tensors in what a function returns."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if hasattr(value, "__dict__") and not isinstance(value, list | tuple):
        value = list(vars(value).values())
    if isinstance(value, list | tuple):
        return [t for part in value for t in tensors(part)]
    return []


def agree(there, here):
    """Every tensor lies on the device that it was asked for on, and has the same numbers."""
    pairs = list(zip(tensors(there), tensors(here), strict=True))
    assert pairs
    for a, b in pairs:
        assert a.device == DEVICE and not isinstance(b, OnDevice)
        torch.testing.assert_close(a.cpu().detach(), b.detach(), rtol=1e-4, atol=1e-5)


def network(outputs=5):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, outputs)).double().eval()


def points(count=6, seed=1):
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed)).double()


def posterior_metric():
    return PosteriorMetric(points(4), torch.rand(4, 2).double() + 1, 1.0, 0.1)


def mixture_metric():
    eye = torch.eye(2).double().expand(4, 2, 2).clone()
    return MixtureMetric(torch.full((4,), 0.25).double(), points(4), 0.2 * eye)


GEOMETRY = {
    "jacobian": lambda f, z: geometry.jacobian(f, z),
    "second_derivatives": lambda f, z: geometry.second_derivatives(f, z),
    "second_directional_derivative": lambda f, z: geometry.second_directional_derivative(
        f, z, torch.ones_like(z)
    ),
    "ricci": lambda f, z: geometry.ricci(PullbackMetric(f), z),
    "scalar_curvature": lambda f, z: geometry.scalar_curvature(f, z),
    "geodesic": lambda f, z: geometry.geodesic(f, z[:3], z[3:])(torch.linspace(0, 1, 3).to(z)),
    "squared_distance": lambda f, z: geometry.squared_distance(f, z[:3], z[3:]),
    "potential_path": lambda f, z: geometry.potential_path(f, z[:3], z[3:], steps=8).nodes,
    "exponential_map": lambda f, z: geometry.exponential_map(f, z, 0.1 * torch.ones_like(z)),
    "logarithm": lambda f, z: geometry.logarithm(f, z[:3], z[3:]),
    "brownian_motion": lambda f, z: geometry.brownian_motion(
        f, z[:3], 0.05, steps=2, generator=torch.Generator().manual_seed(0)
    ),
    "heat_kernel_log_prob": lambda f, z: geometry.heat_kernel_log_prob(f, z[:3], z[3:], 0.5),
    "directional_derivative": lambda f, z: geometry.directional_derivative(f, z, z),
    "value_and_jacobian": lambda f, z: geometry.value_and_jacobian(f, z),
    "curvature_and_cholesky": lambda f, z: geometry.curvature_and_cholesky(f, z),
    "curvature_estimates": lambda f, z: geometry.curvature_estimates(
        lambda y: torch.cat([f(y[:, :2]), y], 1),
        torch.cat([z, z[:, :1]], 1),
        2,
        generator=torch.Generator().manual_seed(0),
    ),
    "gradient_norm_squared": lambda f, z: geometry.gradient_norm_squared(
        lambda y: y.square().sum(1), z, geometry.PullbackMetric(f).cholesky(z)
    ),
    "total_squared_curvature": lambda f, z: geometry.total_squared_curvature(z[:, 0], z[:, 1]),
    "normalize_potential": lambda f, z: geometry.normalize_potential(z[:, 0], z[:, 1]),
    "perelman_f": lambda f, z: geometry.perelman_f(z[:, 0], z[:, 1], z[:, 0], z[:, 1]),
    "perelman_w": lambda f, z: geometry.perelman_w(z[:, 0], z[:, 1], z[:, 0], z[:, 1], 1.0, 2),
    "distance_matrix": lambda f, z: geometry.distance_matrix(f, z[:3], steps=4),
    "frechet_mean": lambda f, z: geometry.frechet_mean(f, z[:2], steps=4).point,
    "motion to a density": lambda f, z: geometry.brownian_motion(
        f, z[:2], 0.01, steps=1, generator=streams(z[:2]), score=lambda y: -y
    ),
    "RowStreams": lambda f, z: streams(z).normal(3),
}
# What needs no case of its own: constructions, results, and what other tests of this file run.
ELSEWHERE = {
    "Circle", "Manifold", "Product", "SpecialOrthogonal3", "Sphere", "Torus",  # test_manifolds
    "Metric", "MixtureMetric", "PosteriorMetric", "PullbackMetric",  # test_metrics
    "StochasticPullbackMetric",  # of a BrownianRVAE
    "HMCInfo", "HMCResult", "HMCState", "hmc", "hmc_step", "leapfrog",  # test_chains
    "Curve", "FrechetMean", "ConvergenceWarning", "DegenerateMetricError", "evaluation_mode",
}  # fmt: skip


def streams(z):
    return geometry.RowStreams(0, len(z), device=z.device)


def test_every_public_name_is_here():
    named = {name.split()[0] for name in GEOMETRY}
    assert set(geometry.__all__) - ELSEWHERE == named & set(geometry.__all__)


METHODS = {
    "tensor": lambda m, z: m(z),
    "norm": lambda m, z: m.norm(z, z),
    "inverse_sqrt": lambda m, z: m.inverse_sqrt(z),
    "log_volume_and_grad": lambda m, z: m.log_volume_and_grad(z),
    "christoffel": lambda m, z: m.christoffel(z),
    "geodesic_acceleration": lambda m, z: m.geodesic_acceleration(z, z),
    "brownian_drift": lambda m, z: m.brownian_drift(z),
}


@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry(name):
    f, z = network(), points()
    agree(GEOMETRY[name](network().to(DEVICE), z.to(DEVICE)), GEOMETRY[name](f, z))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "make", [posterior_metric, mixture_metric, lambda: PullbackMetric(network())],
    ids=["posterior", "mixture", "pullback"],
)  # fmt: skip
def test_metrics(name, make):
    torch.manual_seed(0)
    here = make()
    torch.manual_seed(0)
    there = make().to(DEVICE)
    agree(METHODS[name](there, points().to(DEVICE)), METHODS[name](here, points()))


def test_chains():
    def run(metric, z):
        return geometry.hmc(
            metric.log_volume_and_grad, z, steps=3, step_size=0.1, leapfrog_steps=2,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip

    torch.manual_seed(0)
    metric = posterior_metric()
    here = run(metric, points())
    agree(run(metric.to(DEVICE), points().to(DEVICE)).position, here.position)


@pytest.mark.parametrize(
    "manifold",
    [geometry.Circle(), geometry.Sphere(3), geometry.Torus(2), geometry.SpecialOrthogonal3()],
    ids=lambda manifold: type(manifold).__name__,
)
def test_manifolds(manifold):
    u = torch.rand(5, manifold.dim, generator=torch.Generator().manual_seed(0)).double()
    agree(manifold.from_cube(u.to(DEVICE)), manifold.from_cube(u))
    y = manifold.from_cube(u)
    agree(manifold.to_cube(y.to(DEVICE)), manifold.to_cube(y))
    agree(manifold.project(2 * y.to(DEVICE)), manifold.project(2 * y))


# Models


MODELS = {
    "BrownianRVAE": lambda: pg.BrownianRVAE(
        pg.BrownianRVAEConfig(
            input_dim=(1, 4, 4), latent_dim=2, hidden_dims=(8,), num_centers=4, warmup_epochs=1
        )
    ),
    "ERManifoldVAE": lambda: pg.ERManifoldVAE(
        pg.ERManifoldVAEConfig(input_dim=(1, 4, 4), manifold="sphere(2)", hidden_dims=(8,))
    ),
    "ERManifoldVAE, moved": lambda: pg.ERManifoldVAE(
        pg.ERManifoldVAEConfig(
            input_dim=(1, 4, 4),
            manifold="circle",
            hidden_dims=(8,),
            posterior="normal",
            group_action=True,
        )
    ),
    "RicciAE": lambda: pg.RicciAE(pg.RicciAEConfig(input_dim=(1, 4, 4), num_points=4)),
    "RicciAE, Perelman": lambda: pg.RicciAE(
        pg.RicciAEConfig(input_dim=(1, 4, 4), functional="perelman_w", num_points=4)
    ),
    "VAE_DLM": lambda: pg.VAE_DLM(
        pg.VAE_DLM_Config(input_dim=(1, 4, 4), latent_dim=2, hidden_dim=8, eigenvalue_weight=0.1)
    ),
}


def images(count=12):
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(3))


def a_training(name, device):
    """Losses of two epochs of one batch, and gradients of the last."""
    torch.manual_seed(0)
    model, x = MODELS[name]().to(device).train(), images().to(device)
    outputs = []
    for epoch in (1, 2):
        torch.manual_seed(epoch)
        output = model({"data": x}, epoch=epoch, dataset_size=len(x), uses_ddp=False)
        model.zero_grad()
        output.loss.backward()
        outputs.append(output.loss)
        model.update()
    return model.eval(), x, outputs


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    model, x, losses = a_training(name, DEVICE)
    for tensor in (*losses, *model.state_dict().values()):
        assert tensor.device == DEVICE
    assert all(p.grad is None or p.grad.device == DEVICE for p in model.parameters())
    with torch.no_grad():
        output = model({"data": x})
    found = [value for value in output.values() if isinstance(value, torch.Tensor)]
    assert {value.device for value in found} == {DEVICE}
    if hasattr(model, "get_nll"):
        assert isinstance(model.get_nll(x, n_samples=2), float)
    if hasattr(model, "evolve"):
        assert model.evolve(x, [0.0, 1.0]).device == DEVICE
    if hasattr(model, "sample_manifold"):
        assert model.sample_manifold(3).device == DEVICE
    if hasattr(model, "metric"):
        assert model.metric.log_volume(model.encoder(x).embedding).device == DEVICE


@pytest.mark.parametrize("name", ["RicciAE", "VAE_DLM", "BrownianRVAE"])
def test_losses_are_those_of_the_cpu(name):
    agree(a_training(name, DEVICE)[2][:1], a_training(name, "cpu")[2][:1])


# Samplers


@functools.cache
def vae_weights():
    torch.manual_seed(0)
    return VAE(VAEConfig(input_dim=(1, 4, 4), latent_dim=2)).state_dict()


def a_vae(device):
    model = VAE(VAEConfig(input_dim=(1, 4, 4), latent_dim=2))
    model.load_state_dict(vae_weights())
    return model.to(device).eval()


SAMPLERS = {
    "codes": lambda m: pg.MetricUniformHMCSampler(m, pg.MetricUniformHMCSamplerConfig(seed=0)),
    "posteriors": lambda m: pg.MetricUniformHMCSampler(
        m,
        pg.MetricUniformHMCSamplerConfig(
            metric="posteriors", num_centroids=5, mcmc_steps_nbr=2, seed=0
        ),
    ),
    "pullback": lambda m: pg.BrownianMotionSampler(
        m, pg.BrownianMotionSamplerConfig(metric="pullback", time=0.1, steps=3, seed=0)
    ),
    "posterior": lambda m: pg.BrownianMotionSampler(
        m, pg.BrownianMotionSamplerConfig(metric="posterior", time=0.1, steps=3, seed=0)
    ),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers(name):
    def drawn(device):
        sampler = SAMPLERS[name](a_vae(device))
        sampler.device = str(device)  # pythae knows CUDA alone, and has moved the model
        sampler.model.to(device)
        sampler._restart()
        sampler.fit(images(60))
        z = sampler.sample_latent(5)
        x = sampler.sample(5)
        assert z.device == x.device == torch.device(device)
        return x

    assert drawn(DEVICE).shape == drawn("cpu").shape == (5, 1, 4, 4)


@pytest.mark.parametrize("path", ["line", "geodesic"])
def test_interpolation(path):
    def found(device):
        x = images(4).to(device)
        return pg.interpolate(a_vae(device), x[:2], x[2:], path, granularity=3).reconstructions

    agree(found(DEVICE), found("cpu"))


# Measures and pictures


def test_measures():
    x = images(40)
    labels = torch.arange(40) % 2
    network = evaluation.train_feature_network(x, labels, seed=0, epochs=1)
    clouds = [network.features(part) for part in (x[:20], x[20:])]
    there = [cloud.to(DEVICE) for cloud in clouds]
    for measure in (
        evaluation.frechet_distance,
        evaluation.density_and_coverage,
        lambda *clouds: evaluation.prd_scores(*clouds, seed=0),
    ):
        assert measure(*there) == pytest.approx(measure(*clouds), rel=1e-4)
    codes, held_out = clouds
    scores = evaluation.class_f1(
        there[0], labels[:20].to(DEVICE), there[1], labels[20:].to(DEVICE), seed=0, classifiers=1
    )
    expected = evaluation.class_f1(codes, labels[:20], held_out, labels[20:], 0, classifiers=1)
    assert scores == pytest.approx(expected)
    error = evaluation.reconstruction_error(a_vae(DEVICE), x.to(DEVICE))
    assert 0 < error < 1


def test_pictures():
    pytest.importorskip("matplotlib")
    for metric in (PullbackMetric(network().to(DEVICE)), mixture_metric().to(DEVICE)):
        plotting.latent_map(metric, points().to(DEVICE), resolution=4)
    plotting.image_grid(images().to(DEVICE))


def test_symmetric_data():
    data = symmetric_data(geometry.Circle(), 4, network().to(DEVICE))
    assert data.data.device == DEVICE and data.data.shape == (4, 5)


def test_tensors_of_two_devices_do_not_meet():
    """The device itself: what torch refuses on a GPU, and what it allows."""
    x = torch.ones(3).to(DEVICE)
    for meet in (
        lambda: x + torch.ones(3),
        lambda: torch.cat([x, torch.ones(3)]),
        lambda: torch.ones(3)[torch.zeros(2, dtype=torch.long).to(DEVICE)],
        lambda: network().to(DEVICE)(points()),
    ):
        with pytest.raises(RuntimeError):
            meet()
    assert (x + torch.tensor(1.0)).cpu().tolist() == [2.0, 2.0, 2.0]
    assert x[torch.tensor([0, 1])].shape == (2,)
    assert torch.zeros(2, device=DEVICE).device == x.new_ones(2).device == DEVICE
