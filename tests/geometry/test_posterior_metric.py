"""PosteriorMetric against its definition: float64 autograd, and arithmetic of 60 digits."""

import copy
import math
import pickle

import mpmath
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pythae_geometric.geometry import Metric, PosteriorMetric

K, D = 12, 3
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def make_metric(
    full, dtype=torch.float64, regularization=0.02, decay=0.05, scale=1.0, additive=False
):
    g = torch.Generator().manual_seed(0)
    centroids = scale * torch.randn(K, D, generator=g, dtype=torch.float64)
    if full:
        A = torch.randn(K, D, D, generator=g, dtype=torch.float64)
        precisions = A @ A.mT + 0.5 * torch.eye(D)
    else:
        precisions = 0.5 + 10 * torch.rand(K, D, generator=g, dtype=torch.float64)
    return PosteriorMetric(
        centroids.to(dtype), precisions.to(dtype), 1.3 * scale, regularization, decay, additive
    )


def points(n=40, spread=1.5, dtype=torch.float64):
    return spread * torch.randn(n, D, generator=torch.Generator().manual_seed(1)).to(dtype)


def definition(metric, z):
    """The sum of the paper, or that with additive volumes, term by term, from [B, K, d, d] tensors
    in float64."""
    c, P = metric.centroids.double(), metric.precisions.double()
    P = torch.diag_embed(P) if P.dim() == 2 else P
    difference = z[:, None] - c
    distance = torch.einsum("bki,kij,bkj->bk", difference, P, difference)
    log_w = -distance / metric.temperature.double() ** 2
    if metric.additive_volume:
        log_v = 0.5 * z.shape[1] * log_w
        log_w = log_v + (2 / z.shape[1] - 1) * log_v.logsumexp(1, keepdim=True)
    w = log_w.exp()
    decay = torch.exp(-metric.decay.double() * z.square().sum(-1))
    eye = torch.eye(z.shape[1], dtype=z.dtype)
    return (w[..., None, None] * P).sum(1) + (
        metric.regularization.double() * decay[:, None, None] * eye
    )


def definition_log_volume(metric, z):
    """Value and gradient of the definition by float64 autograd."""
    z = z.double().detach().requires_grad_()
    log_volume = 0.5 * torch.logdet(definition(metric, z))
    return log_volume.detach(), torch.autograd.grad(log_volume.sum(), z)[0]


def exact_log_volume(metric, z):
    """Value and gradient at one point with 60 digits, where float64 would underflow."""
    with mpmath.workdps(60):
        c = [[mpmath.mpf(float(v)) for v in row] for row in metric.centroids]
        P = metric.precisions if metric.precisions.dim() == 3 else metric.precisions.diag_embed()
        P = [mpmath.matrix([[mpmath.mpf(float(v)) for v in row] for row in p]) for p in P]
        rho, lam, tau = (
            mpmath.mpf(float(v)) for v in (metric.temperature, metric.regularization, metric.decay)
        )

        def log_volume(*z):
            G = lam * mpmath.exp(-tau * sum(v * v for v in z)) * mpmath.eye(D)
            u = [mpmath.matrix([a - b for a, b in zip(z, ck, strict=True)]) for ck in c]
            w = [mpmath.exp(-(uk.T * Pk * uk)[0] / rho**2) for uk, Pk in zip(u, P, strict=True)]
            if metric.additive_volume:
                v = [wk ** (mpmath.mpf(D) / 2) for wk in w]
                w = [sum(v) ** (mpmath.mpf(2) / D - 1) * vk for vk in v]
            for wk, Pk in zip(w, P, strict=True):
                G += wk * Pk
            return mpmath.log(mpmath.det(G)) / 2

        z = [mpmath.mpf(float(v)) for v in z]
        grad = [
            mpmath.diff(
                log_volume, tuple(z), tuple(int(i == j) for j in range(D)), h=mpmath.mpf(10) ** -20
            )
            for i in range(D)
        ]
        return float(log_volume(*z)), torch.tensor([float(v) for v in grad], dtype=torch.float64)


ADDITIVE = pytest.mark.parametrize("additive", [False, True], ids=["paper", "additive"])


@ADDITIVE
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_tensor_is_its_definition(full, decay, additive):
    metric, z = make_metric(full, decay=decay, additive=additive), points()
    torch.testing.assert_close(metric(z), definition(metric, z), rtol=1e-12, atol=1e-12)


@ADDITIVE
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("spread", [0.5, 1.5, 4.0])
def test_log_volume_and_grad_equal_autograd(full, dtype, spread, additive):
    metric = make_metric(full, dtype, additive=additive)
    z = torch.cat([metric.centroids, points(spread=spread, dtype=dtype)])  # on and off centroids
    log_volume, grad = metric.log_volume_and_grad(z)
    expected_volume, expected_grad = definition_log_volume(metric, z)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(log_volume.double(), expected_volume, rtol=0, atol=tolerance)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=tolerance, atol=tolerance)
    assert log_volume.dtype == grad.dtype == dtype
    torch.testing.assert_close(metric.log_volume(z), log_volume)


@ADDITIVE
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "regularization, decay", [(0.0, 0.0), (0.02, 0.05), (0.02, 3.0), (0.02, 0.0)]
)
def test_exact_where_every_weight_underflows(full, dtype, regularization, decay, additive):
    """At 30 and 300 units from the centroids e^(-q) is far below the smallest float64."""
    metric = make_metric(full, dtype, regularization, decay, additive=additive)
    for distance in (30.0, 300.0):
        z = distance * torch.tensor([[0.6, -0.64, 0.48]], dtype=dtype)
        log_volume, grad = metric.log_volume_and_grad(z)
        expected_volume, expected_grad = exact_log_volume(metric, z[0])
        # Relative here: the values themselves run to hundreds of thousands.
        tolerance = TOLERANCE[dtype]
        assert float(log_volume) == pytest.approx(expected_volume, rel=tolerance, abs=tolerance)
        torch.testing.assert_close(grad[0].double(), expected_grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("full", [False, True])
def test_float32_keeps_its_digits_far_from_the_origin(full):
    """Sharp posteriors far from 0: the expanded square cancels, and float32 alone would fail."""
    metric = make_metric(full, torch.float32)
    shift = 1000.0
    metric = PosteriorMetric(metric.centroids + shift, metric.precisions * 30, 6.0, 0.02)
    z = (metric.centroids + 0.3 * points(K)).float()
    log_volume, grad = metric.log_volume_and_grad(z)
    expected_volume, expected_grad = definition_log_volume(metric, z)
    torch.testing.assert_close(log_volume.double(), expected_volume, rtol=0, atol=1e-4)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("full", [False, True])
def test_log_volume_is_differentiable_twice(full):
    metric, z = make_metric(full), points(4).requires_grad_()
    assert torch.autograd.gradcheck(metric.log_volume, z)
    assert torch.autograd.gradgradcheck(metric.log_volume, z)
    assert torch.autograd.gradcheck(metric, z)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("regularization, decay", [(0.0, 0.0), (0.02, 0.05)])
def test_gradients_flow_through_additive_volumes(full, regularization, decay):
    metric = make_metric(full, regularization=regularization, decay=decay, additive=True)
    z = points(5).requires_grad_()
    assert torch.autograd.gradcheck(metric.log_volume, z)
    assert torch.autograd.gradgradcheck(metric.log_volume, z)
    assert torch.autograd.gradcheck(metric, z)


def test_volumes_of_coinciding_centroids_add():
    """m centroids in one place: m times the volume of one, where the paper's has m^(d/2) times."""
    m, d = 7, 5
    c, P = torch.zeros(1, d).double(), torch.linspace(1, 9, d).double()[None]
    z = torch.randn(20, d, generator=torch.Generator().manual_seed(0)).double()

    def log_ratio(additive):
        one, many = (
            PosteriorMetric(c.expand(n, d), P.expand(n, d), 1.3, 0.0, additive_volume=additive)
            for n in (1, m)
        )
        return many.log_volume(z) - one.log_volume(z)

    log_m = torch.tensor(m, dtype=torch.float64).log().expand(20)
    torch.testing.assert_close(log_ratio(True), log_m)
    torch.testing.assert_close(log_ratio(False), d / 2 * log_m)


@pytest.mark.parametrize("full", [False, True])
def test_uniform_distribution_of_additive_volumes_is_a_mixture_of_normals(full):
    """Equal precisions P, lambda = 0: equal weights, means c_k, covariances rho²/d P^-1."""
    reference = make_metric(full)
    c, P, rho = reference.centroids, reference.precisions[:1], 1.7
    metric = PosteriorMetric(c, P.expand_as(reference.precisions), rho, 0.0, additive_volume=True)
    covariance = rho**2 / D * torch.linalg.inv(P[0] if full else P[0].diag())
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(K).double()),
        torch.distributions.MultivariateNormal(c, covariance),
    )
    z = points()
    # The density is the volume over its integral: the same constant at every point.
    constant = metric.log_volume(z) - mixture.log_prob(z)
    exact = K * (2 * torch.pi * rho**2 / D) ** (D / 2)
    torch.testing.assert_close(constant.exp(), torch.full_like(constant, exact))


def test_additive_volumes_change_nothing_in_two_dimensions_or_for_one_centroid():
    g = torch.Generator().manual_seed(0)
    for K, d in ((9, 2), (1, 4)):
        c, P = torch.randn(K, d, generator=g).double(), 1 + torch.rand(K, d, generator=g).double()
        paper, additive = (PosteriorMetric(c, P, 0.8, 0.02, 0.1, a) for a in (False, True))
        z = torch.randn(30, d, generator=g).double()
        torch.testing.assert_close(additive(z), paper(z))


@ADDITIVE
@pytest.mark.parametrize(
    "spread, regularization, decay",
    [(1.5, 0.0, 0.0), (1.5, 0.02, 0.0), (1.5, 0.02, 0.05), (8.0, 0.02, 0.0)],
)
def test_brownian_drift_equals_that_of_the_christoffel_symbols(
    spread, regularization, decay, additive
):
    metric = make_metric(False, torch.float64, regularization, decay, additive=additive)
    z = points(spread=spread).requires_grad_()
    drift, expected = metric.brownian_drift(z), Metric.brownian_drift(metric, z)
    assert torch.allclose(drift, expected, rtol=1e-9, atol=1e-12)
    (value,), (reference,) = (torch.autograd.grad(d.sum(), z) for d in (drift, expected))
    assert torch.allclose(value, reference, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("full", [False, True])
def test_roots_and_inner_products(full):
    metric, z, u, v = make_metric(full), points(), points(spread=1.0), points(spread=0.5)
    G = definition(metric, z)
    root, inverse_root = metric.cholesky(z), metric.inverse_sqrt(z)
    torch.testing.assert_close(root @ root.mT, G)
    identity = torch.eye(D, dtype=z.dtype).expand_as(G)
    torch.testing.assert_close(inverse_root @ G @ inverse_root, identity)
    torch.testing.assert_close(inverse_root, inverse_root.mT)
    torch.testing.assert_close(metric.inner(z, u, v), torch.einsum("bi,bij,bj->b", u, G, v))
    torch.testing.assert_close(metric.norm(z, u) ** 2, metric.inner(z, u, u))


@pytest.mark.parametrize("full", [False, True])
@ADDITIVE
def test_state_is_six_tensors_that_build_the_metric_again(full, additive, tmp_path):
    metric, z = make_metric(full, additive=additive), points()
    torch.save(metric.state_dict(), tmp_path / "metric.pt")
    state = torch.load(tmp_path / "metric.pt", weights_only=True)
    assert list(state) == [
        "centroids", "precisions", "temperature", "regularization", "decay", "additive_volume",
    ]  # fmt: skip
    expected = metric.log_volume(z)
    assert torch.equal(PosteriorMetric(**state).log_volume(z), expected)

    other = PosteriorMetric(metric.centroids + 1, 2 * metric.precisions, 0.5)
    other.load_state_dict(state)
    assert torch.equal(other.log_volume(z), expected)
    assert torch.equal(copy.deepcopy(metric).log_volume(z), expected)
    assert torch.equal(pickle.loads(pickle.dumps(metric)).log_volume(z), expected)


def test_conversion_of_dtype_keeps_the_exponents_in_float64():
    metric = make_metric(False)
    there_and_back = copy.deepcopy(metric).float().double()
    reference = PosteriorMetric(
        **{name: v.float().double() for name, v in metric.state_dict().items()}
    )
    assert torch.equal(there_and_back.log_volume(points()), reference.log_volume(points()))


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation makes."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.largest = max(self.largest, value.numel())
        return result


@ADDITIVE
def test_memory_is_batch_times_centroids(additive):
    B, K, d = 200, 300, 8
    metric = PosteriorMetric(torch.randn(K, d), torch.ones(K, d), 1.0, additive_volume=additive)
    with LargestTensor() as record:
        metric.log_volume_and_grad(torch.randn(B, d))
    assert record.largest == B * (K + 1)  # one more for the regularisation; not B x K x d


EYE = torch.eye(2).expand(3, 2, 2)
BAD = {
    "no tensor": (([[0.0]], torch.ones(1, 1), 1.0), TypeError, "centroids must be a torch.Tensor"),
    "integers": ((torch.ones(3, 2).long(), torch.ones(3, 2), 1.0), TypeError, "float32 or float64"),
    "half": ((torch.ones(3, 2).half(), torch.ones(3, 2).half(), 1.0), TypeError, "float32 or"),
    "two dtypes": ((torch.ones(3, 2), torch.ones(3, 2).double(), 1.0), TypeError, "one dtype"),
    "vector": ((torch.ones(3), torch.ones(3), 1.0), ValueError, r"shape \[K, d\]"),
    "empty": ((torch.ones(0, 2), torch.ones(0, 2), 1.0), ValueError, "K, d >= 1"),
    "other K": ((torch.ones(3, 2), torch.ones(4, 2), 1.0), ValueError, "precisions must have"),
    "other d": ((torch.ones(3, 2), torch.ones(3, 3, 3), 1.0), ValueError, "precisions must have"),
    "nan": ((torch.full((3, 2), torch.nan), torch.ones(3, 2), 1.0), ValueError, "contain NaN"),
    "infinite": ((torch.ones(3, 2), torch.full((3, 2), torch.inf), 1.0), ValueError, "infinity"),
    "zero": ((torch.ones(3, 2), torch.zeros(3, 2), 1.0), ValueError, "must be positive"),
    "indefinite": ((torch.ones(3, 2), -EYE, 1.0), ValueError, "number 0 is not"),
    "skew": ((torch.ones(3, 2), EYE + torch.tensor([[0, 0.1], [0, 0]]), 1.0), ValueError, "symmet"),
    "temperature 0": ((torch.ones(3, 2), EYE, 0.0), ValueError, "temperature must be finite and p"),
    "temperature nan": ((torch.ones(3, 2), EYE, float("nan")), ValueError, "temperature must be"),
    "lambda": ((torch.ones(3, 2), EYE, 1.0, -0.1), ValueError, "regularization must be finite"),
    "tau": ((torch.ones(3, 2), EYE, 1.0, 0.1, -1.0), ValueError, "decay must be finite and zero"),
}


@pytest.mark.parametrize("arguments, error, message", BAD.values(), ids=BAD.keys())
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        PosteriorMetric(*arguments)


def test_bad_points():
    metric = make_metric(False)
    with pytest.raises(ValueError, match=r"z must have shape \[B, 3\], got \[4, 2\]"):
        metric.log_volume(torch.zeros(4, 2, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"z is torch.float32 but the metric is torch.float64"):
        metric.log_volume_and_grad(torch.zeros(4, 3))


@pytest.mark.parametrize("log_variance", [-20.0, -31.0, -40.0, -60.0, -80.0])
@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_posteriors_as_narrow_as_rounding(log_variance, additive, full):
    """At the centroids, where the gradient is 0, beside them and far off, in float32."""
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(5, 2, generator=generator)
    P = torch.full((5, 2), math.exp(-log_variance)) * torch.tensor([1.0, 2.0])
    metric = PosteriorMetric(
        c, torch.diag_embed(P) if full else P, 1.0, 0.01, additive_volume=additive
    )
    z = torch.cat([c, c + 0.5 * P.rsqrt(), torch.randn(5, 2, generator=generator)])
    y = z.double().requires_grad_()
    q = ((y[:, None] - c.double()).square() * P.double()).sum(-1)
    diagonal = (-q).exp() @ P.double() + 0.01  # the same for d = 2 where volumes add
    exact = 0.5 * diagonal.log().sum(-1)
    (gradient,) = torch.autograd.grad(exact.sum(), y)
    log_volume, got = metric.log_volume_and_grad(z)
    torch.testing.assert_close(log_volume.double(), exact.detach(), rtol=1e-5, atol=1e-5)
    scale = P.max().sqrt()
    assert (got - gradient).abs().max() < 1e-5 * scale
    assert not got[:5].any()
    x = z.clone().requires_grad_()
    (autograd,) = torch.autograd.grad(metric.log_volume(x).sum(), x)
    assert (autograd - gradient).abs().max() < 1e-5 * scale
    exact_metric = PosteriorMetric(
        c.double(), metric.precisions.double(), 1.0, 0.01, additive_volume=additive
    )
    drift, difference = exact_metric.brownian_drift(z.double()), metric.brownian_drift(z)
    assert (drift - difference).abs().max() < 1e-5 * drift.abs().max().clamp(min=1e-5)
