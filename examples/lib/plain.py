"""Published algorithms, written plainly: what the benchmarks compare with."""

import torch
from torch.func import jacfwd, vmap


def nested_christoffel(f, z):
    """Scalar curvature and log volume at points ``[B, d]``, both ``[B]``, from three nested
    derivatives.

    The metric, its derivative, the Christoffel symbols, their derivative and the Riemann tensor,
    each by automatic differentiation of the one before, vectorised over the points.

    Args:
        f: map of one point ``[d] -> [D]``.
        z: the points.
    """

    def metric(p):
        J = jacfwd(f)(p)
        return J.mT @ J

    def christoffel(p):
        dg = jacfwd(metric)(p)  # [l, j, k] = ∂_k g_lj
        lowered = 0.5 * (dg.transpose(1, 2) + dg - dg.permute(2, 0, 1))
        return torch.einsum("il,ljk->ijk", torch.linalg.inv(metric(p)), lowered)

    def curvature(p):
        gamma, d_gamma = christoffel(p), jacfwd(christoffel)(p)
        products = torch.einsum("ikm,mjl->ijkl", gamma, gamma)
        derivatives = torch.einsum("ijlk->ijkl", d_gamma)
        riemann = derivatives - derivatives.mT + products - products.mT
        ricci = torch.einsum("ijil->jl", riemann)
        g = metric(p)
        return (torch.linalg.inv(g) * ricci).sum(), 0.5 * torch.logdet(g)

    return vmap(curvature)(z)


def natural_spline(free, points):
    """The matrix ``[points, free + 2]`` from the values of a natural cubic spline at equally spaced
    knots, the two ends among them, to those at equally spaced times from 0 to 1."""
    n = free + 1
    A, b = torch.eye(n + 1, dtype=torch.float64), torch.zeros(n + 1, n + 1, dtype=torch.float64)
    for i in range(1, n):
        A[i, i - 1 : i + 2] = torch.tensor([1.0, 4.0, 1.0])
        b[i, i - 1 : i + 2] = torch.tensor([6.0, -12.0, 6.0])
    second = torch.linalg.solve(A, b)
    t = torch.linspace(0, n, points, dtype=torch.float64)
    i = t.long().clamp(max=n - 1)
    s = (t - i).unsqueeze(-1)
    knots = torch.eye(n + 1, dtype=torch.float64)
    cubic = ((1 - s) ** 3 - (1 - s)) * second[i] + (s**3 - s) * second[i + 1]
    return ((1 - s) * knots[i] + s * knots[i + 1] + cubic / 6).float()
