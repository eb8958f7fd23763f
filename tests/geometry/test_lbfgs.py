"""The batched minimiser on functions with known minima."""

import itertools

import torch

from pythae_geometric.geometry.lbfgs import minimise


def rosenbrock(x, scale):
    a, b = x.unbind(-1)
    return (1 - a) ** 2 + scale * (b - a**2) ** 2


def test_quadratic_with_its_own_hessian_takes_one_step():
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(5, 4, 4, generator=generator, dtype=torch.float64)
    H = A @ A.mT + torch.eye(4, dtype=torch.float64)
    minimum = torch.randn(5, 4, generator=generator, dtype=torch.float64)

    def objective(x, rows):
        return 0.5 * torch.einsum("bi,bij,bj->b", x - minimum[rows], H[rows], x - minimum[rows])

    found = minimise(objective, torch.zeros_like(minimum), torch.linalg.inv(H), 1, 1e-8)
    assert found.converged.all()
    torch.testing.assert_close(found.point, minimum)


def test_functions_of_different_difficulty():
    """Each row has its own scale, leaves when it is done, and ends at its own minimum (1, 1)."""
    scale = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    start = torch.tensor([[-1.2, 1.0], [1.0, 1.0], [-1.2, 1.0]], dtype=torch.float64)
    evaluated = []

    def objective(x, rows):
        evaluated.append(len(rows))
        return rosenbrock(x, scale[rows])

    P = torch.eye(2, dtype=torch.float64).expand(3, 2, 2)
    found = minimise(objective, start, P, 200, 1e-7)
    assert found.converged.all()
    torch.testing.assert_close(found.point, torch.ones_like(start), rtol=0, atol=1e-5)
    assert evaluated[0] == 3 and evaluated[1] == 2 and evaluated[-1] == 1
    alone = minimise(lambda x, rows: rosenbrock(x, scale[2:]), start[2:], P[2:], 200, 1e-7)
    torch.testing.assert_close(found.point[2:], alone.point)


def test_walls_of_infinity_and_nan():
    """x - log x with its logarithm undefined below 0, where the first step leads."""
    start = torch.tensor([[20.0], [0.001]], dtype=torch.float64)
    P = 100 * torch.ones(2, 1, 1, dtype=torch.float64)
    found = minimise(lambda x, rows: (x - x.log()).sum(-1), start, P, 100, 1e-7)
    assert found.converged.all()
    torch.testing.assert_close(found.point, torch.ones_like(start), rtol=0, atol=1e-6)


def test_stops_at_its_budget_and_never_goes_up():
    start = torch.tensor([[-1.2, 1.0]])
    values = [
        minimise(lambda x, rows: rosenbrock(x, 100.0), start, torch.eye(2)[None], n, 1e-4)
        for n in (1, 3, 10, 30)
    ]
    assert not values[0].converged.any()
    assert all(a.value >= b.value for a, b in itertools.pairwise(values))
