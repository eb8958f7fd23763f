"""The published algorithm, which ours is compared with, is what its description says, with its
faults; its benchmark is run with the others, in test_scripts.py."""

import math

import pytest
import torch

from pythae_geometric.geometry import PosteriorMetric, hmc


@pytest.fixture
def module(lib):
    return lib("published_hmc")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


CENTROIDS = torch.tensor([[-1.0, 0.0], [0.8, 0.6], [0.3, -1.0]], dtype=torch.float64)
VARIANCES = torch.tensor([[0.25, 1.0], [1.0, 0.2], [0.4, 0.5]], dtype=torch.float64)
TEMPERATURE = 1.2


def both(module, regularization):
    """The metric of three centroids in the plane, in the published form and in ours."""
    scalars = TEMPERATURE, regularization
    return (
        module.published_metric(CENTROIDS, VARIANCES.log(), *scalars),
        PosteriorMetric(CENTROIDS, 1 / VARIANCES, *scalars),
    )


def test_density_and_gradient_are_the_published_formulas(module):
    lam, (c, var) = 0.01, (CENTROIDS.tolist(), VARIANCES.tolist())
    metric, _ = both(module, lam)
    points = torch.randn(20, 2, generator=seeded(0), dtype=torch.float64)
    densities, gradients = metric.log_density(points), metric.gradient(points)
    for z, density, gradient in zip(points.tolist(), densities, gradients, strict=True):
        g, denominator, numerator = [lam, lam], [0.0, 0.0], [[0.0, 0.0], [0.0, 0.0]]
        for k in range(3):
            distance = sum((z[i] - c[k][i]) ** 2 / var[k][i] for i in range(2))
            w = math.exp(-distance / TEMPERATURE**2)
            for i in range(2):
                g[i] += w / var[k][i]
                denominator[i] += w / var[k][i] + lam
                for j in range(2):
                    dw = -2 * (z[j] - c[k][j]) / var[k][j] / TEMPERATURE**2 * w
                    numerator[i][j] += dw / var[k][i]
        expected = [sum(numerator[i][j] / denominator[i] for i in range(2)) for j in range(2)]
        assert float(density) == pytest.approx(0.5 * math.log(g[0] * g[1]), rel=1e-12)
        assert gradient.tolist() == pytest.approx(expected, rel=1e-11)


def test_gradient_is_twice_too_long(module):
    metric, ours = both(module, 0.0)  # which leaves lambda out of it
    points = torch.randn(20, 2, generator=seeded(1), dtype=torch.float64)
    density, gradient = ours.log_volume_and_grad(points)
    torch.testing.assert_close(metric.log_density(points), density)
    torch.testing.assert_close(metric.gradient(points), 2 * gradient)


def test_determinant_is_capped(module):
    log_variances = torch.full((1, 4), 2 * math.log(0.035))
    metric = module.published_metric(torch.zeros(1, 4), log_variances, 1.0)
    z = torch.tensor([[0.0] * 4, [0.01] * 4, [1.0] * 4])
    expected = [0.5 * math.log(1e10)] * 2 + [0.5 * math.log(0.01**4)]
    assert metric.log_density(z).tolist() == pytest.approx(expected, rel=1e-6)
    assert metric.gradient(z)[1].abs().min() > 1  # as if there were no cap


def test_undefined_acceptance_rejects(module):
    # det G = 0.01^40 is 0 in float32, and exp(-H) / exp(-H0) is 0 / 0.
    metric = module.published_metric(torch.zeros(3, 40), torch.zeros(3, 40), 1.0)
    far = torch.full((1, 40), 50.0)
    end, acceptance = module.published_samples(metric, far, 5, steps=3)
    assert acceptance == 0 and torch.equal(end, far.expand(5, 40))


def test_walk_in_the_flat_part_is_one_half(module):
    metric, ours = both(module, 0.01)
    far = torch.full((1, 2), 50.0, dtype=torch.float64)
    published, acceptance = module.published_samples(metric, far, 1000, generator=seeded(2))
    assert acceptance == 1
    # Momenta of full scale take steps of half the size.
    start = far.repeat(1000, 1)
    result = hmc(ours.log_volume_and_grad, start, 100, step_size=0.005, generator=seeded(3))
    for end in (published, result.position):
        deviation = float((end - far).square().mean().sqrt())
        assert deviation == pytest.approx(0.5, abs=4.5 * 0.5 / math.sqrt(2 * 2000))


def test_published_chain_leaves_its_density_and_ours_does_not(module, monkeypatch):
    metric, ours = both(module, 0.0)  # with which the volume is finite
    side = torch.linspace(-8, 8, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    probability = ours.log_volume(grid).exp()
    probability /= probability.sum()
    expected = probability @ grid.square()

    # Both start at exact draws.
    cells = torch.multinomial(probability, 4000, replacement=True, generator=seeded(4))
    jitter = torch.rand(4000, 2, generator=seeded(5), dtype=torch.float64) - 0.5
    draws = grid[cells] + (side[1] - side[0]) * jitter
    options = {"steps": 15, "leapfrog_steps": 10, "step_size": 0.1}
    result = hmc(ours.log_volume_and_grad, draws, generator=seeded(6), **options)
    options |= {"num_samples": 4000, "batch_size": 4000}
    published, acceptance = module.published_samples(metric, draws, generator=seeded(7), **options)
    # The wrong gradient alone is repaired by the Metropolis test.
    monkeypatch.setattr(module, "MOMENTUM_SCALE", 1.0)
    repaired, _ = module.published_samples(metric, draws, generator=seeded(8), **options)

    def errors(sample):
        squares = sample.square()
        return (squares.mean(0) - expected) / (squares.std(0) / math.sqrt(len(sample)))

    assert (errors(draws).abs() < 4.5).all()
    assert (errors(result.position).abs() < 4.5).all()
    assert (errors(repaired).abs() < 4.5).all()
    assert 0.2 < acceptance < 1
    assert (errors(published) < -10).all()


def test_seeds_and_batches(module):
    metric, _ = both(module, 0.01)
    means = CENTROIDS.repeat(5, 1)
    runs = [
        module.published_samples(metric, means, 7, steps=2, batch_size=3, generator=seeded(seed))
        for seed in (0, 0, 1)
    ]
    assert runs[0][0].shape == (7, 2) and 0 <= runs[0][1] <= 1
    assert torch.equal(runs[0][0], runs[1][0]) and not torch.equal(runs[0][0], runs[2][0])
