"""Derivatives against reverse-mode autograd, closed forms and finite differences."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

from pythae_geometric.geometry import evaluation_mode
from pythae_geometric.geometry.derivatives import (
    directional_derivative,
    jacobian,
    second_derivatives,
    second_directional_derivative,
    value_and_jacobian,
)

D = 3


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 5)).double()


def deconvolution():
    """A decoder of images with everything that mixes samples or draws noise in training mode."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Linear(D, 8),
        nn.BatchNorm1d(8),
        nn.GELU(),
        nn.Dropout(),
        nn.Unflatten(1, (2, 2, 2)),
        nn.ConvTranspose2d(2, 3, 3, stride=2),
        nn.BatchNorm2d(3),
        nn.SiLU(),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.GroupNorm(1, 3),
        nn.Sigmoid(),
    ).double()
    net(torch.randn(32, D, dtype=torch.float64))  # running statistics other than 0 and 1
    return net


def function():
    return lambda z: torch.stack([z.prod(1), z.sin().sum(1), z[:, 0].exp()], dim=1)


IMMERSIONS = [mlp, deconvolution, function]


def points(n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, D, generator=generator, dtype=torch.float64)


def reverse_derivatives(f, z):
    """Jacobian and Hessian sample by sample and output by output."""
    with evaluation_mode(f):
        J, H = [], []
        for p in z:
            outputs = f(p[None]).numel()

            def row(q, k):
                return f(q[None]).flatten()[k]

            hessian = torch.autograd.functional.hessian
            J.append(torch.autograd.functional.jacobian(lambda q: f(q[None])[0], p))
            rows = [hessian(functools.partial(row, k=k), p) for k in range(outputs)]
            H.append(torch.stack(rows).view(*J[-1].shape, D))
    return torch.stack(J), torch.stack(H)


@pytest.mark.parametrize("make", IMMERSIONS)
def test_equal_reverse_mode_sample_by_sample(make):
    f, z = make(), points(2)
    J, H = reverse_derivatives(f, z)
    i, j = torch.triu_indices(D, D)
    forward_J, forward_H = second_derivatives(f, z)
    torch.testing.assert_close(jacobian(f, z), J, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(forward_J, J, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(forward_H, H[..., i, j], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("make", IMMERSIONS)
def test_directional_derivatives_contract_the_full_ones(make):
    f, z, v = make(), points(), points(seed=1)
    J, H = reverse_derivatives(f, z)
    x, df, d2f = second_directional_derivative(f, z, v)
    with evaluation_mode(f):
        torch.testing.assert_close(x, f(z))
    torch.testing.assert_close(df, torch.einsum("b...i,bi->b...", J, v))
    torch.testing.assert_close(d2f, torch.einsum("b...ij,bi,bj->b...", H, v, v))
    torch.testing.assert_close(directional_derivative(f, z, v), (x, df))
    torch.testing.assert_close(value_and_jacobian(f, z), (x, J))


@pytest.mark.parametrize("make", IMMERSIONS)
def test_directional_derivative_is_the_limit_of_differences(make):
    f, z, v, h = make(), points(), points(seed=1), 1e-5
    _, df = directional_derivative(f, z, v)
    with evaluation_mode(f):
        central = (f(z + h * v) - f(z - h * v)) / (2 * h)
    torch.testing.assert_close(df, central, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("d", [1, 2, 7, 8, 9, 16])
def test_second_derivatives_of_a_quadratic_map_are_its_matrices(d):
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(7, d, d, dtype=torch.float64, generator=generator)
    z = torch.randn(4, d, dtype=torch.float64, generator=generator)
    J, H = second_derivatives(lambda y: torch.einsum("kij,bi,bj->bk", A, y, y), z)
    i, j = torch.triu_indices(d, d)
    symmetric = A + A.mT
    torch.testing.assert_close(J, torch.einsum("kij,bj->bki", symmetric, z))
    torch.testing.assert_close(H, symmetric[:, i, j].expand(len(z), -1, -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_shapes_and_dtypes(d, dtype):
    z = torch.randn(6, d, dtype=dtype, generator=torch.Generator().manual_seed(0))
    J, H = second_derivatives(lambda y: y.unsqueeze(-1).expand(-1, -1, 4).sin(), z)
    assert J.shape == (6, d, 4, d) and H.shape == (6, d, 4, d * (d + 1) // 2)
    assert J.dtype == H.dtype == dtype
    assert jacobian(lambda y: y.sum(1), z).shape == (6, d)
    assert jacobian(lambda y: y.sum(1), z[:0]).shape == (0, d)


def test_a_map_that_ignores_z_has_zero_derivatives():
    J, H = second_derivatives(lambda z: torch.ones(len(z), 2, dtype=z.dtype), points())
    assert J.shape == (4, 2, D) and not J.any()
    assert H.shape == (4, 2, 6) and not H.any()


def test_parameter_gradients_equal_finite_differences():
    f, z = mlp().eval(), points()

    def loss():
        J, H = second_derivatives(f, z)
        return J.sin().sum() + H.square().sum()

    loss().backward()
    h = 1e-6
    for parameter in f.parameters():
        direction = torch.randn_like(parameter)
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        with torch.no_grad():
            parameter += h * direction
            above = loss()
            parameter -= 2 * h * direction
            below = loss()
            parameter += h * direction
        difference = (above - below) / (2 * h)
        expected = (gradient * direction).sum()
        torch.testing.assert_close(difference, expected, rtol=1e-6, atol=1e-7)


def test_point_gradients_equal_finite_differences():
    f, z = mlp(), points(2).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: second_derivatives(f, y), z)
    assert torch.autograd.gradcheck(lambda y: second_directional_derivative(f, y, y.sin()), z)


def test_no_graph_is_kept_without_gradients():
    f, z = mlp(), points().requires_grad_()
    with torch.no_grad():
        J, H = second_derivatives(f, z)
    assert not J.requires_grad and not H.requires_grad
    assert jacobian(f, z).requires_grad


# -- evaluation mode ---------------------------------------------------------------------------


WAYS_TO_CALL = {"module": lambda net: net, "method": lambda net: net.forward}


@pytest.mark.parametrize("way", WAYS_TO_CALL)
def test_samples_do_not_mix_however_the_module_is_wrapped(way):
    net = deconvolution().train()
    f, z = WAYS_TO_CALL[way](net), points()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    together = jacobian(f, z)
    alone = torch.cat([jacobian(f, z[i : i + 1]) for i in range(len(z))])
    torch.testing.assert_close(together, alone)
    assert all(module.training for module in net.modules())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} was changed"


def test_every_module_gets_its_own_mode_back_even_after_an_error():
    net = deconvolution().train()
    net[1].eval()
    modes = [module.training for module in net.modules()]
    with pytest.raises(RuntimeError), evaluation_mode(net):
        assert not any(module.training for module in net.modules())
        raise RuntimeError
    assert [module.training for module in net.modules()] == modes


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "z", "error", "words"),
    [
        (torch.sin, torch.zeros(3), ValueError, "unsqueeze"),
        (torch.sin, torch.zeros(2, 0), ValueError, r"\[B, d\]"),
        (torch.sin, torch.zeros(2, 2, dtype=torch.long), TypeError, "floating-point"),
        (torch.sin, [[0.0]], TypeError, "must be a tensor"),
        (lambda z: z.sum(), torch.zeros(2, 2), ValueError, "batch axis first"),
        (lambda z: z.T, torch.zeros(2, 3), ValueError, "batch axis first"),
        (lambda z: {"mean": z}, torch.zeros(2, 2), TypeError, "one tensor"),
        (nn.Linear(3, 4), torch.zeros(2, 2), ValueError, "fails at points of shape"),
        (nn.Linear(2, 4).double(), torch.zeros(2, 2), ValueError, "dtype and device"),
    ],
)
@pytest.mark.parametrize("derivative", [jacobian, second_derivatives])
def test_bad_input_is_refused_with_a_reason(derivative, f, z, error, words):
    with pytest.raises(error, match=words):
        derivative(f, z)


@pytest.mark.parametrize("derivative", [directional_derivative, second_directional_derivative])
def test_directions_of_another_shape_are_refused(derivative):
    with pytest.raises(ValueError, match="shape of the points"):
        derivative(torch.sin, torch.zeros(2, 2), torch.zeros(2))


@pytest.mark.parametrize("derivative", [directional_derivative, second_directional_derivative])
def test_directions_of_another_dtype_are_refused(derivative):
    with pytest.raises(TypeError, match="dtype and on the device of the points"):
        derivative(torch.sin, torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.float64))


def test_a_map_that_torch_cannot_differentiate_is_told_from_one_that_fails():
    with pytest.raises(NotImplementedError, match=r"has values .* but torch cannot differentiate"):
        jacobian(lambda z: torch.from_numpy(np.sin(z.detach().numpy())), torch.ones(2, 2))


def test_of_what_a_decoder_of_pythae_returns_the_reconstruction_counts():
    z = points()
    f = lambda y: {"reconstruction": y.sin(), "embedding": y}  # noqa: E731
    torch.testing.assert_close(jacobian(f, z), torch.diag_embed(z.cos()))


def test_points_that_share_memory():
    """Forward mode of torch refuses what expand gives."""
    z, v = torch.tensor([[0.3, -0.2]]).expand(4, 2), torch.tensor([[1.0, 2.0]]).expand(4, 2)
    f = lambda z: z.prod(1, keepdim=True)  # noqa: E731
    assert torch.allclose(jacobian(f, z), torch.tensor([-0.2, 0.3]).expand(4, 1, 2))
    assert torch.allclose(directional_derivative(f, z, v)[1], torch.full((4, 1), 0.4))
    assert torch.allclose(second_directional_derivative(f, z, v)[2], torch.full((4, 1), 4.0))
    assert torch.allclose(second_derivatives(f, z)[1][0, 0], torch.tensor([0.0, 1.0, 0.0]))
