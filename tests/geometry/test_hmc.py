"""HMC against quadrature, and the leapfrog integrator against mechanics."""

import importlib
import math

import pytest
import torch

import pythae_geometric.geometry.hmc  # noqa: F401  (the module; the package exports the function)
from pythae_geometric.geometry import HMCState, PosteriorMetric, hmc, hmc_step, leapfrog


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(z):
    return -0.5 * z.square().sum(-1), -z


def three_centroids(full):
    """A metric in the plane, uneven and skewed, whose volume a decay makes finite."""
    centroids = torch.tensor([[-1.0, 0.0], [0.8, 0.6], [0.3, -1.0]], dtype=torch.float64)
    precisions = torch.tensor([[4.0, 1.0], [1.0, 6.0], [3.0, 2.0]], dtype=torch.float64)
    if full:
        angles = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)
        c, s = angles.cos(), angles.sin()
        Q = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
        precisions = Q @ torch.diag_embed(precisions) @ Q.mT
    return PosteriorMetric(centroids, precisions, 1.2, regularization=0.1, decay=0.5)


def quadrature(metric, box=9.0, n=601):
    """Mean, covariance, and the probability of each of 9 boxes under the uniform distribution."""
    axis = torch.linspace(-box, box, n, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    p = metric.log_volume(z).exp()
    p = p / p.sum()
    mean = p @ z
    centred = z - mean
    return mean, centred.T @ (p[:, None] * centred), boxes(z).T.double() @ p


def boxes(z):
    """Membership ``[B, 9]`` in the cells of a 3 x 3 partition of the plane."""
    x, y = (torch.bucketize(z[:, i].contiguous(), torch.tensor([-0.5, 0.5]).to(z)) for i in (0, 1))
    return torch.nn.functional.one_hot(3 * x + y, 9)


def check_distribution(sample, metric, deviations=4.5):
    """Independent draws agree with quadrature, within so many standard errors.

    Twenty statistics: at 4.5 deviations a right sampler fails once in 7,000 seeds.
    """
    mean, covariance, probability = quadrature(metric)
    n = len(sample)
    centred = sample - mean
    for statistic, expected in (
        (sample, mean),
        (torch.stack([centred[:, 0] ** 2, centred[:, 1] ** 2, centred.prod(-1)], -1),
         torch.stack([covariance[0, 0], covariance[1, 1], covariance[0, 1]])),
    ):  # fmt: skip
        error = statistic.mean(0) - expected
        assert (error.abs() < deviations * statistic.std(0) / math.sqrt(n)).all()
    error = boxes(sample).double().mean(0) - probability
    assert (error.abs() < deviations * (probability * (1 - probability) / n).sqrt()).all()


def run_chains(metric, n=8000):
    # Chains of 60 long steps forget a start this close to the target; their ends are independent.
    start = metric.centroids[torch.randint(3, (n,), generator=seeded(1))]
    result = hmc(
        metric.log_volume_and_grad, start, 60, leapfrog_steps=10, step_size=0.25,
        keep_chains=0, generator=seeded(2),
    )  # fmt: skip
    assert 0.9 < float(result.acceptance.mean()) < 0.9999  # the Metropolis test has work to do
    return result.position


@pytest.mark.parametrize("full", [False, True])
def test_uniform_distribution_of_a_metric_agrees_with_quadrature(full):
    metric = three_centroids(full)
    check_distribution(run_chains(metric), metric)


def test_the_check_notices_momenta_of_half_scale(monkeypatch):
    """The fault of the published sampler; it breaks the invariance of the target distribution."""
    metric = three_centroids(False)
    module = importlib.import_module("pythae_geometric.geometry.hmc")
    draw = module.normal_like
    monkeypatch.setattr(module, "normal_like", lambda *args: 0.5 * draw(*args))
    sample = run_chains_without_acceptance_check(metric)
    with pytest.raises(AssertionError):
        check_distribution(sample, metric)


def run_chains_without_acceptance_check(metric, n=8000):
    start = metric.centroids[torch.randint(3, (n,), generator=seeded(1))]
    return hmc(
        metric.log_volume_and_grad, start, 60, step_size=0.25, generator=seeded(2)
    ).position  # fmt: skip


def energy_errors(log_prob_and_grad, step_sizes, time=1.0):
    z = 0.7 * torch.randn(200, 2, generator=seeded(3), dtype=torch.float64)
    momentum = torch.randn(200, 2, generator=seeded(4), dtype=torch.float64)
    state = HMCState(z, *log_prob_and_grad(z))

    def energy(state, momentum):
        return 0.5 * momentum.square().sum(-1) - state.log_prob

    errors = []
    for step_size in step_sizes:
        end = leapfrog(log_prob_and_grad, state, momentum, round(time / step_size), step_size)
        errors.append(float((energy(*end) - energy(state, momentum)).abs().mean()))
    return errors


@pytest.mark.parametrize("full", [False, True])
def test_leapfrog_keeps_the_energy_to_second_order(full):
    metric = three_centroids(full)
    coarse, fine = energy_errors(metric.log_volume_and_grad, [0.02, 0.01])
    assert coarse / fine == pytest.approx(4.0, rel=0.02)


def test_the_energy_notices_a_gradient_of_twice_the_length():
    """The other fault of the published sampler: Metropolis hides it, the energy does not."""
    metric = three_centroids(False)

    def wrong(z):
        log_volume, grad = metric.log_volume_and_grad(z)
        return log_volume, 2 * grad

    coarse, fine = energy_errors(wrong, [0.02, 0.01])
    assert coarse / fine < 1.1 and fine > 0.01


@pytest.mark.parametrize("full", [False, True])
def test_leapfrog_runs_back_to_its_start(full):
    metric = three_centroids(full)
    z = torch.randn(100, 2, generator=seeded(), dtype=torch.float64)
    momentum = torch.randn(100, 2, generator=seeded(1), dtype=torch.float64)
    start = HMCState(z, *metric.log_volume_and_grad(z))
    end, end_momentum = leapfrog(metric.log_volume_and_grad, start, momentum, 50, 0.1)
    assert (end.position - z).norm(dim=-1).mean() > 0.5  # it did go somewhere
    back, back_momentum = leapfrog(metric.log_volume_and_grad, end, -end_momentum, 50, 0.1)
    for there, here in zip((*back, -back_momentum), (*start, momentum), strict=True):
        torch.testing.assert_close(there, here, rtol=1e-10, atol=1e-10)


def test_leapfrog_preserves_volume():
    metric = three_centroids(True)

    def flow(state):
        z, momentum = state[None, :2], state[None, 2:]
        start = HMCState(z, *differentiable(z))
        end, momentum = leapfrog(differentiable, start, momentum, 5, 0.2)
        return torch.cat([end.position[0], momentum[0]])

    def differentiable(z):
        log_volume = metric.log_volume(z)
        (grad,) = torch.autograd.grad(log_volume.sum(), z, create_graph=True)
        return log_volume, grad

    J = torch.autograd.functional.jacobian(flow, torch.tensor([0.3, -0.2, 0.9, -0.5]).double())
    assert float(torch.det(J)) == pytest.approx(1.0, abs=1e-10)


def test_one_gradient_per_leapfrog_step():
    calls = []

    def counting(z):
        calls.append(len(z))
        return normal(z)

    hmc(counting, torch.zeros(5, 2), steps=7, leapfrog_steps=4, step_size=0.1, adaptation_steps=3)
    assert len(calls) == 1 + (7 + 3) * 4


def test_metropolis_survives_densities_that_overflow():
    """Log densities near 1e6: exp of either energy is 0 or infinite, their difference is not."""

    def huge(z):
        return -0.5 * z.square().sum(-1) + 1e6, -z

    start = torch.randn(4000, 1, generator=seeded(), dtype=torch.float64)
    result = hmc(huge, start, 20, 5, 0.5, generator=seeded(1))
    assert float(result.acceptance.mean()) > 0.9
    # Variance of the sample variance of n normals is 2 / n.
    assert float(result.position.var()) == pytest.approx(1.0, abs=4.5 * math.sqrt(2 / 4000))


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95])
def test_warm_up_reaches_the_target_acceptance(target):
    # Many frequencies: on an isotropic normal the acceptance is not monotone in the step size.
    precision = torch.linspace(0.2, 4.0, 20)
    result = hmc(
        lambda z: (-0.5 * (precision * z * z).sum(-1), -precision * z),
        precision.rsqrt() * torch.randn(500, 20, generator=seeded()), steps=50, leapfrog_steps=5,
        step_size=1e-3, adaptation_steps=200, target_acceptance=target, generator=seeded(1),
    )  # fmt: skip
    assert float(result.acceptance.mean()) == pytest.approx(target, abs=0.03)


def test_divergences_are_counted_and_refused():
    """A wall of NaN, and a step size far beyond stability."""

    def walled(z):
        log_prob, grad = normal(z)
        return torch.where(z[:, 0] > 1.5, torch.nan, log_prob), grad

    result = hmc(walled, torch.zeros(500, 2), 50, 5, 0.3, generator=seeded())
    assert int(result.divergences.sum()) > 0
    assert torch.isfinite(result.samples).all() and float(result.samples[..., 0].max()) <= 1.5

    unstable = hmc(normal, torch.ones(100, 2), 10, 20, 10.0, generator=seeded())
    assert (unstable.divergences == 10).all() and (unstable.acceptance == 0).all()
    assert torch.equal(unstable.position, torch.ones(100, 2))


def test_a_generator_makes_runs_agree():
    run = [hmc(normal, torch.zeros(5, 2), 10, generator=seeded(7)).samples for _ in range(2)]
    assert torch.equal(*run)
    other = hmc(normal, torch.zeros(5, 2), 10, generator=seeded(8)).samples
    assert not torch.equal(run[0], other)


def test_what_comes_back():
    result = hmc(normal, torch.zeros(6, 2), 5, keep_chains=2, generator=seeded())
    assert result.samples.shape == (5, 2, 2)
    assert torch.equal(result.samples[-1], result.position[:2])
    state = HMCState(torch.zeros(6, 2), *normal(torch.zeros(6, 2)))
    new, info = hmc_step(normal, state, 3, 0.1, seeded())
    assert all(field.shape == (6,) for field in info)
    torch.testing.assert_close(new.log_prob, normal(new.position)[0])
    moved = (new.position != state.position).any(-1)
    assert torch.equal(moved, info.accepted)


BAD = {
    "steps": (dict(steps=0), "steps must be a whole number of at least 1"),
    "leapfrog": (dict(leapfrog_steps=0), "leapfrog_steps must be a whole number"),
    "fraction": (dict(leapfrog_steps=2.5), "leapfrog_steps must be a whole number"),
    "warm-up": (dict(adaptation_steps=-1), "adaptation_steps must be a whole number of at least 0"),
    "step size": (dict(step_size=0.0), "step_size must be positive and finite"),
    "infinite": (dict(step_size=math.inf), "step_size must be positive and finite"),
    "target": (dict(target_acceptance=1.0), "target_acceptance must be between 0 and 1"),
    "shape": (dict(start=torch.zeros(3)), r"start at points \[B, d\], got \[3\]"),
    "start": (dict(start=torch.full((4, 2), torch.nan)), "not finite at 4 of 4 starting points"),
    "target shape": (
        dict(log_prob_and_grad=lambda z: (z.sum(), z)), r"must return shapes \[B\] and \[B, d\]"),
}  # fmt: skip


@pytest.mark.parametrize("change, message", BAD.values(), ids=BAD.keys())
def test_bad_arguments(change, message):
    arguments = {"log_prob_and_grad": normal, "start": torch.zeros(4, 2), "steps": 3, **change}
    with pytest.raises(ValueError, match=message):
        hmc(**arguments)


@pytest.mark.parametrize("leapfrog_steps, step_size", [(0, 0.1), (-1, 0.1), (1, 0.0), (1, -0.1)])
def test_a_step_that_goes_nowhere_is_refused(leapfrog_steps, step_size):
    z = torch.zeros(2, 1)
    with pytest.raises(ValueError, match=r"(leapfrog_steps|step_size) must be"):
        hmc_step(lambda z: (z.sum(1), z), HMCState(z, z.sum(1), z), leapfrog_steps, step_size)
