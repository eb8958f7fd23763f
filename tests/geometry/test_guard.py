"""torch's ambient modes, threads and TorchScript at the boundary of the geometry."""

import threading
import warnings

import pytest
import torch
from spaces import SphereMetric, stereographic
from torch import nn

from pythae_geometric import geometry as g


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.LayerNorm(16), nn.Linear(16, 5))


def points(dtype=torch.float32):
    return torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(0), dtype=dtype)


def posterior():
    return g.PosteriorMetric(points()[0], torch.ones(4, 2), temperature=1.0)


def mixture():
    return g.MixtureMetric(torch.ones(4), points()[0], torch.eye(2).expand(4, 2, 2))


def generator():
    return torch.Generator().manual_seed(0)


# Everything that differentiates or evaluates a map or a metric.
CALLS = {
    "jacobian": lambda f, x, y: g.jacobian(f, x),
    "second_derivatives": lambda f, x, y: g.second_derivatives(f, x)[1],
    "directional_derivative": lambda f, x, y: g.directional_derivative(f, x, y)[1],
    "scalar_curvature": lambda f, x, y: g.scalar_curvature(f, x),
    "pullback": lambda f, x, y: g.PullbackMetric(f)(x),
    "inner": lambda f, x, y: g.PullbackMetric(f).inner(x, y, y),
    "inverse_sqrt": lambda f, x, y: g.PullbackMetric(f).inverse_sqrt(x),
    "christoffel": lambda f, x, y: g.PullbackMetric(f).christoffel(x),
    "brownian_drift": lambda f, x, y: g.PullbackMetric(f).brownian_drift(x),
    "log_volume_and_grad": lambda f, x, y: g.PullbackMetric(f).log_volume_and_grad(x)[1],
    "geodesic": lambda f, x, y: g.geodesic(f, x, y).length,
    "squared_distance": lambda f, x, y: g.squared_distance(f, x, y),
    "logarithm": lambda f, x, y: g.logarithm(f, x, y),
    "exponential_map": lambda f, x, y: g.exponential_map(f, x, 0.1 * y),
    "potential_path": lambda f, x, y: g.potential_path(f, x, y, iterations=20).length,
    "heat_kernel_log_prob": lambda f, x, y: g.heat_kernel_log_prob(f, x, y, 0.1),
    "brownian_motion": lambda f, x, y: g.brownian_motion(f, x, 0.01, 3, generator=generator()),
    "metric": lambda f, x, y: SphereMetric().log_volume_and_grad(x)[1],
    "geodesic of a metric": lambda f, x, y: g.geodesic(SphereMetric(), 0.1 * x, 0.1 * y).length,
    "posterior metric": lambda f, x, y: posterior().log_volume_and_grad(x)[1],
    "mixture metric": lambda f, x, y: mixture().christoffel(x),
}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", g.ConvergenceWarning)
        yield


@pytest.mark.parametrize("name", CALLS)
def test_inference_mode_changes_nothing(name):
    f, (x, y) = network(), points()
    expected = CALLS[name](f, x, y)
    with torch.inference_mode():
        values = CALLS[name](f, x.clone(), y.clone())  # the points are made in it too
        assert not values.requires_grad
    torch.testing.assert_close(values, expected.detach())


def test_a_metric_made_in_inference_mode_can_be_differentiated_outside():
    z = points()[1]
    for make in (posterior, mixture):
        with torch.inference_mode():
            metric = make()
            metric.double().float()
            metric.load_state_dict(make().state_dict())
        y = z.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(metric.log_volume(y).sum(), y)
        torch.testing.assert_close(gradient, metric.log_volume_and_grad(z)[1])


@pytest.mark.parametrize("name", CALLS)
def test_autocast_changes_nothing(name):
    f, (x, y) = network(), points()
    expected = CALLS[name](f, x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = CALLS[name](f, x, y)
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(values, expected)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("other", [torch.float32, torch.float64])
def test_the_default_dtype_and_deterministic_algorithms_change_nothing(name, other):
    dtype = torch.float32 if other == torch.float64 or "metric" in name else torch.float64
    f, (x, y) = network().to(dtype), points(dtype)
    expected = CALLS[name](f, x, y)
    if name in ("posterior metric", "mixture metric") and other == torch.float64:
        pytest.skip("they are built in the default dtype here")
    default = torch.get_default_dtype()
    torch.set_default_dtype(other)
    torch.use_deterministic_algorithms(True)
    try:
        values = CALLS[name](f, x, y)
    finally:
        torch.set_default_dtype(default)
        torch.use_deterministic_algorithms(False)
    assert values.dtype == dtype
    torch.testing.assert_close(values, expected)


def test_four_threads_at_once():
    f, z = network().train(), torch.randn(50, 2, generator=generator())
    right = g.jacobian(f, z).detach()
    wrong = []

    def work():
        for _ in range(100):
            try:
                if not torch.equal(g.jacobian(f, z).detach(), right):
                    wrong.append("other values")
            except Exception as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, f"{len(wrong)} of 400 Jacobians, the first: {wrong[0]}"
    assert f.training


def test_threads_share_the_evaluation_mode_of_a_module():
    """No thread gives a module its mode back while another one needs it in evaluation mode."""
    net = nn.Sequential(nn.Linear(2, 3), nn.Dropout())
    entered, seen = threading.Event(), []

    def short():
        entered.wait()
        with g.evaluation_mode(net):
            pass
        seen.append(net.training)

    thread = threading.Thread(target=short)
    thread.start()
    with g.evaluation_mode(net):
        entered.set()
        thread.join(0.2)
        assert not net.training
    thread.join()
    assert seen == [True] and net.training


# -- TorchScript -------------------------------------------------------------------------------

SCRIPTED = {
    "scripted": lambda net, z: torch.jit.script(net),
    "traced": lambda net, z: torch.jit.trace(net, z),
    "method": lambda net, z: torch.jit.script(net).forward,
    "inside a module": lambda net, z: nn.Sequential(torch.jit.script(net), nn.Tanh()),
    "function": lambda net, z: torch.jit.trace(torch.sin, z),
}


@pytest.mark.parametrize("kind", SCRIPTED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused(kind):
    z = points()[0]
    f = SCRIPTED[kind](nn.Sequential(nn.Linear(2, 4), nn.Tanh()), z)
    for refuse in (
        lambda: g.jacobian(f, z),
        lambda: g.scalar_curvature(f, z),
        lambda: g.geodesic(f, z, z + 1),
    ):
        with pytest.raises(TypeError, match=r"TorchScript.* pass the module that it was made from"):
            refuse()


# -- what is no batch of points ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("z", "error"),
    [
        ([[0.0, 0.0]], TypeError),
        (torch.zeros(2, 2).numpy(), TypeError),
        (None, TypeError),
        (torch.zeros(2, 2, dtype=torch.long), TypeError),
        (torch.zeros(2, 2, dtype=torch.complex64), TypeError),
        (torch.zeros(2), ValueError),
        (torch.zeros(2, 2, 2), ValueError),
        (torch.zeros(2, 0), ValueError),
    ],
)
@pytest.mark.parametrize("metric", [g.PullbackMetric(stereographic), SphereMetric(), posterior()])
def test_metrics_refuse_what_is_no_batch_of_points(metric, z, error):
    for call in (
        metric,
        metric.cholesky,
        metric.log_volume,
        metric.log_volume_and_grad,
        metric.inverse_sqrt,
        metric.christoffel,
        metric.brownian_drift,
        lambda z: metric.norm(z, z),
        lambda z: metric.geodesic_acceleration(z, z),
    ):
        with pytest.raises(error, match="The points z must"):
            call(z)


def test_a_metric_must_return_a_matrix_for_each_point():
    class Wrong(g.Metric):
        def forward(self, z):
            return z

    with pytest.raises(ValueError, match=r"must return tensors \[3, 2, 2\]"):
        Wrong()(torch.zeros(3, 2))


def test_a_bound_method_is_a_part_of_the_metric():
    net = network().train()
    metric = g.PullbackMetric(net.forward)
    assert len(list(metric.parameters())) == len(list(net.parameters()))
    metric.double()
    assert metric(points(torch.float64)[0]).dtype == torch.float64
