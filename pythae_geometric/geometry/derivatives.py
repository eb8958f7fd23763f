r"""First and second derivatives of a map between batches, by forward-mode differentiation.

The maps are *immersions* ``f``: callables or modules that send points ``z`` of shape ``[B, d]`` to
values ``f(z)`` of shape ``[B, *out]``, row by row. Where a latent space has few dimensions and
data has many, ``d`` forward products of the whole batch give the Jacobian of every sample at once;
reverse mode would need one pass for each of the many outputs.

All results can be differentiated again, in ``z`` and in the parameters of ``f`` (reverse over
forward mode); inside ``torch.no_grad()`` no graph is kept.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ._checks import check_map, check_points, check_vectors, value_of
from ._formulas import Formulas, Pure
from ._guard import guard

Immersion = Callable[[torch.Tensor], torch.Tensor]

# By torch's own annotations the first may return three values, and the second takes fewer axes.
jvp: Any = torch.func.jvp
vmap: Any = torch.func.vmap


def directional_derivative(
    f: Immersion, z: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Value and derivative along ``v``: :math:`f(z)` and :math:`df_z(v)`, one forward product.

    Args:
        f: map ``[B, d] -> [B, *out]``.
        z: points, ``[B, d]``.
        v: one direction for each point, ``[B, d]``.

    Returns:
        ``f(z)`` and ``df_z(v)``, both ``[B, *out]``.

    Raises:
        ValueError, TypeError: ``z``, ``v`` or ``f(z)`` do not have these shapes.

    Example:
        >>> z, v = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]])
        >>> directional_derivative(torch.square, z, v)
        (tensor([[1., 4.]]), tensor([[2., 0.]]))
    """
    z = check_points(z)
    v = check_vectors(z, v, "The directions v")
    with _differentiable(f, z):
        return jvp(_checked(f, z), (z,), (v,))


def second_directional_derivative(
    f: Immersion, z: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Value and two derivatives along ``v``: :math:`f(z)`, :math:`df_z(v)`, :math:`d^2f_z(v, v)`.

    Args:
        f: map ``[B, d] -> [B, *out]``.
        z: points, ``[B, d]``.
        v: one direction for each point, ``[B, d]``.

    Returns:
        Three tensors ``[B, *out]``.

    Raises:
        ValueError, TypeError: ``z``, ``v`` or ``f(z)`` do not have these shapes.
    """
    z = check_points(z)
    v = check_vectors(z, v, "The directions v")
    f_checked = _checked(f, z)
    with _differentiable(f, z):
        (x, df), (_, d2f) = jvp(lambda y: jvp(f_checked, (y,), (v,)), (z,), (v,))
    return x, df, d2f


def value_and_jacobian(f: Immersion, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Value ``f(z)`` ``[B, *out]`` and Jacobian ``[B, *out, d]``; see :func:`jacobian`."""
    z = check_points(z)
    x, J = directional_derivatives(f, z, _basis(z))
    return x, J.movedim(0, -1)


def directional_derivatives(
    f: Immersion, z: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Value ``[B, *out]`` and the derivatives ``[n, B, *out]`` along n vectors at each point, ``v
    [n, B, d]``, by n forward products."""
    f_checked = _checked(f, z)
    with _differentiable(f, z):
        # The value does not depend on the direction: vmap computes it once.
        return vmap(lambda v: jvp(f_checked, (z,), (v,)), out_dims=(None, 0))(v)


def jacobian(f: Immersion, z: torch.Tensor) -> torch.Tensor:
    r"""The Jacobian :math:`J_{bai} = \partial f_a / \partial z_i (z_b)`, by ``d`` forward products.

    Args:
        f: map ``[B, d] -> [B, *out]``.
        z: points, ``[B, d]``.

    Returns:
        ``[B, *out, d]``.

    Raises:
        ValueError, TypeError: ``z`` or ``f(z)`` do not have these shapes.

    Example:
        >>> jacobian(torch.square, torch.tensor([[1.0, 2.0]]))
        tensor([[[2., 0.],
                 [0., 4.]]])
    """
    return value_and_jacobian(f, z)[1]


def second_derivatives(f: Immersion, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Jacobian and the distinct second derivatives :math:`H_{ij} = \partial_i \partial_j f`.

    Args:
        f: map ``[B, d] -> [B, *out]``.
        z: points, ``[B, d]``.

    Returns:
        ``J`` ``[B, *out, d]`` and ``H`` ``[B, *out, d(d+1)/2]``, whose last axis runs over the
        pairs ``i <= j`` in the order of ``torch.triu_indices(d, d)``.

    Raises:
        ValueError, TypeError: ``z`` or ``f(z)`` do not have these shapes.

    Example:
        >>> J, H = second_derivatives(lambda z: z.prod(-1), torch.tensor([[2.0, 3.0]]))
        >>> J, H
        (tensor([[3., 2.]]), tensor([[0., 1., 0.]]))
    """
    z = check_points(z)
    return second_derivatives_along(f, z, _basis(z))


def second_derivatives_along(
    f: Immersion, z: torch.Tensor, frame: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""First and distinct second derivatives along vectors :math:`e_1, \dots, e_m` at each point.

    Args:
        frame: the vectors, ``[m, B, d]``.

    Returns:
        :math:`df(e_i)` ``[B, *out, m]`` and :math:`d^2f(e_i, e_j)` ``[B, *out, m(m+1)/2]`` for
        ``i <= j``, in the order of :func:`second_derivatives`.
    """
    f_checked = _checked(f, z)

    def second_derivative(u, v):
        return jvp(lambda y: jvp(f_checked, (y,), (v,))[1], (z,), (u,))

    # Rows i of H against the columns from the block's first row on. The m² products of one block
    # share their first derivatives; two blocks leave out a quarter of the pairs, but repeat some of
    # those. Measured: one block is faster for m < 8, two are by 10 to 15 % from there.
    m = len(frame)
    size = m if m < 8 else (m + 1) // 2
    block = vmap(vmap(second_derivative, in_dims=(None, 0)), in_dims=(0, None), out_dims=(None, 0))
    J, rows = [], []
    with _differentiable(f, z):
        for start in range(0, m, size):
            df, H = block(frame[start : start + size], frame[start:])
            J.append(df)
            rows += [H[k, k:] for k in range(len(H))]
    return J[0].movedim(0, -1), torch.cat(rows).movedim(0, -1)


@contextmanager
def differentiable(f: Immersion, z: torch.Tensor) -> Iterator[Immersion]:
    """The state in which ``f`` is differentiated at ``z``, and ``f`` with its value checked."""
    f_checked = _checked(f, z)
    with _differentiable(f, z):
        yield f_checked


@contextmanager
def _differentiable(f: Immersion, z: torch.Tensor) -> Iterator[None]:
    with guard(f, z):
        try:
            with Formulas():
                yield
        except (NotImplementedError, torch.cuda.OutOfMemoryError):
            raise
        except RuntimeError as error:
            _explain(f, z, error)
            raise


def _explain(f: Immersion, z: torch.Tensor, error: RuntimeError) -> None:
    """Raise an error that tells a map that fails at these points from one that torch cannot
    differentiate."""
    reason = str(error).splitlines()[0]
    try:
        with torch.no_grad(), Pure():
            f(z)
    except (TypeError, ValueError):
        raise
    except Exception:
        raise ValueError(
            f"The map fails at points of shape {list(z.shape)}, {z.dtype} on {z.device} ({reason})"
            ": check its latent dimension, dtype and device."
        ) from error
    raise NotImplementedError(
        f"The map has values at these points, but torch cannot differentiate it ({reason}): it "
        "must consist of functions of torch that give new tensors, without numpy and without "
        "writing into tensors."
    ) from error


def _basis(z: torch.Tensor) -> torch.Tensor:
    """The coordinate directions at every point, ``[d, B, d]``."""
    d = z.shape[1]
    return torch.eye(d, dtype=z.dtype, device=z.device).unsqueeze(1).expand(d, *z.shape)


def _checked(f: Immersion, z: torch.Tensor) -> Immersion:
    """``f`` with the shape and the type of its value checked."""
    check_map(f)
    return lambda y: value_of(f(y), len(z))
