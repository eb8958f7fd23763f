r"""First and second derivatives of a map between batches, by forward-mode differentiation.

The maps are *immersions* ``f``: callables or modules that send points ``z`` of shape ``[B, d]`` to
values ``f(z)`` of shape ``[B, *out]``, row by row. Where a latent space has few dimensions and
data has many, ``d`` forward products of the whole batch give the Jacobian of every sample at once;
reverse mode would need one pass for each of the many outputs.

All results can be differentiated again, in ``z`` and in the parameters of ``f`` (reverse over
forward mode); inside ``torch.no_grad()`` no graph is kept.
"""

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.func import jvp, vmap
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Immersion = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def evaluation_mode(f: Immersion) -> Iterator[None]:
    """Put every module that ``f`` uses in evaluation mode, and restore each one's own mode after.

    A batch norm in training mode mixes the samples of a batch, dropout draws a new map at every
    call: neither has a derivative sample by sample. Modules are found when ``f`` is a module, a
    method of one, a ``functools.partial``, an object that holds one, or a function that refers to
    any of these by name.

    Example:
        >>> decoder = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        >>> with evaluation_mode(decoder):
        ...     decoder.training, decoder[1].training
        (False, False)
        >>> decoder.training
        True
    """
    in_training = [module for module in modules_of(f) if module.training]
    try:
        for module in in_training:
            module.training = False
        yield
    finally:
        for module in in_training:
            module.training = True


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
    z = _points(z)
    _check_directions(z, v)
    with _differentiable(f):
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
    z = _points(z)
    _check_directions(z, v)
    f_checked = _checked(f, z)
    with _differentiable(f):
        (x, df), (_, d2f) = jvp(lambda y: jvp(f_checked, (y,), (v,)), (z,), (v,))
    return x, df, d2f


def value_and_jacobian(f: Immersion, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Value ``f(z)`` ``[B, *out]`` and Jacobian ``[B, *out, d]``; see :func:`jacobian`."""
    z = _points(z)
    f_checked = _checked(f, z)
    with _differentiable(f):
        # The value does not depend on the direction: vmap computes it once.
        x, J = vmap(lambda v: jvp(f_checked, (z,), (v,)), out_dims=(None, 0))(_basis(z))
    return x, J.movedim(0, -1)


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
    z = _points(z)
    f_checked = _checked(f, z)
    basis = _basis(z)

    def second_derivative(u, v):
        return jvp(lambda y: jvp(f_checked, (y,), (v,))[1], (z,), (u,))

    # Rows i of H against the columns from the block's first row on. The d² products of one block
    # share their first derivatives; two blocks leave out a quarter of the pairs, but repeat some of
    # those. Measured: one block is faster for d < 8, two are by 10 to 15 % from there.
    d = len(basis)
    size = d if d < 8 else (d + 1) // 2
    block = vmap(vmap(second_derivative, in_dims=(None, 0)), in_dims=(0, None), out_dims=(None, 0))
    J, rows = [], []
    with _differentiable(f):
        for start in range(0, d, size):
            df, H = block(basis[start : start + size], basis[start:])
            J.append(df)
            rows += [H[k, k:] for k in range(len(H))]
    return J[0].movedim(0, -1), torch.cat(rows).movedim(0, -1)


class _ElementaryFormulas(TorchFunctionMode):
    """Writes out layers whose forward-mode derivative torch differentiates incorrectly or slowly.

    In torch 2.13 the second forward derivative of layer norm and instance norm is silently wrong,
    that of SiLU and Mish fails inside ``torch.no_grad()``, that of GLU everywhere. Adding a
    constant bias takes a slow Python path, which costs more than a small linear layer itself;
    ``rsub`` avoids it.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _FORMULAS.get(func, func)(*args, **(kwargs or {}))


def _linear(input, weight, bias=None):
    return input @ weight.T if bias is None else torch.rsub(-bias, input @ weight.T)


def _silu(input, inplace=False):
    return input * input.sigmoid()


def _mish(input, inplace=False):
    return input * F.softplus(input).tanh()


def _glu(input, dim=-1):
    a, b = input.chunk(2, dim)
    return a * b.sigmoid()


def _layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    x = _standardise(input, tuple(range(-len(normalized_shape), 0)), eps)
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _instance_norm(
    input, running_mean=None, running_var=None, weight=None, bias=None,
    use_input_stats=True, momentum=0.1, eps=1e-5,
):  # fmt: skip
    if not use_input_stats:  # a batch norm, which torch differentiates rightly
        return F.instance_norm(
            input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
        )
    x = _standardise(input, tuple(range(2, input.ndim)), eps)
    channels = (-1,) + (1,) * (input.ndim - 2)
    x = x if weight is None else x * weight.view(channels)
    return x if bias is None else x + bias.view(channels)


def _standardise(x, axes, eps):
    x = x - x.mean(axes, keepdim=True)
    return x * (x.square().mean(axes, keepdim=True) + eps).rsqrt()


_FORMULAS = {
    F.linear: _linear,
    F.silu: _silu,
    F.mish: _mish,
    F.glu: _glu,
    F.layer_norm: _layer_norm,
    F.instance_norm: _instance_norm,
}


@contextmanager
def _differentiable(f: Immersion) -> Iterator[None]:
    # torch 2.4 has no forward mode in inference mode: leave it. No graph is kept that was not.
    with_graph = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.set_grad_enabled(with_graph):
        with evaluation_mode(f), _ElementaryFormulas():
            yield


def _basis(z: torch.Tensor) -> torch.Tensor:
    """The coordinate directions at every point, ``[d, B, d]``."""
    d = z.shape[1]
    return torch.eye(d, dtype=z.dtype, device=z.device).unsqueeze(1).expand(d, *z.shape)


def modules_of(f: object) -> Iterator[nn.Module]:
    """Every module that a callable is, belongs to, or refers to, with its submodules."""
    pending, seen = [f], {}
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part  # kept alive: the id of a collected object may be used again
        if isinstance(part, types.MethodType):
            pending += [part.__self__, part.__func__]
        elif isinstance(part, functools.partial):
            pending += [part.func, *part.args, *part.keywords.values()]
        elif isinstance(part, types.FunctionType):
            names = (part.__globals__.get(name) for name in part.__code__.co_names)
            pending += [value for value in names if isinstance(value, nn.Module)]
            pending += _closure_values(part)
        else:
            if isinstance(part, nn.Module):
                yield part
                pending += part.children()
            # A module, or another object with a state, may hold a function that uses a module.
            if not isinstance(part, type | types.ModuleType):
                pending += [v for v in getattr(part, "__dict__", {}).values() if _is_map(v)]


def _is_map(value: object) -> bool:
    return isinstance(value, nn.Module | types.MethodType | types.FunctionType | functools.partial)


def _closure_values(f: types.FunctionType) -> list[object]:
    values = []
    for cell in f.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # a name that has no value yet
            continue
    return values


def _checked(f: Immersion, z: torch.Tensor) -> Immersion:
    """``f`` with the shape and the type of its value checked."""

    def f_checked(y):
        x = f(y)
        if not isinstance(x, torch.Tensor):
            raise TypeError(
                f"The map must return one tensor of shape [B, ...], but returned a "
                f"{type(x).__name__}: wrap it to select the tensor, for example "
                "lambda z: decoder(z)['reconstruction']."
            )
        if x.ndim == 0 or x.shape[0] != z.shape[0]:
            raise ValueError(
                f"The map must keep the batch axis first: for {z.shape[0]} points it returned "
                f"shape {list(x.shape)} and not [{z.shape[0]}, ...]."
            )
        return x

    return f_checked


def _points(z: torch.Tensor) -> torch.Tensor:
    """``z``, checked; forward mode refuses tensors whose rows share memory, as expand gives."""
    if not isinstance(z, torch.Tensor):
        raise TypeError(f"The points z must be a tensor [B, d], got a {type(z).__name__}.")
    if z.ndim != 2 or z.shape[1] == 0:
        raise ValueError(
            f"The points z must have shape [B, d], got {list(z.shape)}: "
            "a single point is z.unsqueeze(0)."
        )
    if not z.is_floating_point():
        raise TypeError(f"The points z must be floating-point numbers, got {z.dtype}.")
    return z.contiguous()


def _check_directions(z: torch.Tensor, v: torch.Tensor) -> None:
    if not isinstance(v, torch.Tensor) or v.shape != z.shape:
        got = list(v.shape) if isinstance(v, torch.Tensor) else type(v).__name__
        raise ValueError(
            f"The directions v must have the shape of the points, {list(z.shape)}, got {got}."
        )
