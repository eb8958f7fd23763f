r"""Sums of second derivatives of a map, carried forward through its layers.

The Laplacian of a map along n vectors, :math:`\sum_a d^2f(e_a, e_a)`, needs no second derivative
for each of them. With :math:`x` the value of what a map has computed so far, :math:`x_a` its
derivatives and :math:`s` the sum of its second derivatives, a function g of torch takes them to

.. math:: g(x), \qquad dg_x(x_a), \qquad dg_x(s) + \sum_a d^2g_x(x_a, x_a).

The last sum is 0 where g is affine (a linear layer, a convolution, a reshape), and
:math:`g''(x) \sum_a x_a^2` where g acts on each number by itself: then a map costs n + 2
evaluations in place of more than 2 n. For other functions the sum is taken direction by direction,
function by function, so that the result is exact for every map.

References:
    R. Li et al., A computational framework for neural network-based variational Monte Carlo with
    Forward Laplacian, Nature Machine Intelligence 6, 2024, https://arxiv.org/abs/2307.08214
"""

from typing import Any

import torch
from torch.nn import functional as F
from torch.utils import _pytree

from .derivatives import Immersion, differentiable, jvp, vmap

_T = torch.Tensor
# Affine in each argument that depends on the point, one at a time or together.
_AFFINE = {
    F.linear, F.batch_norm, F.pad, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.pixel_shuffle,
    F.adaptive_avg_pool2d, F.interpolate,
    *(getattr(F, f"conv{kind}{n}d") for kind in ("", "_transpose") for n in (1, 2, 3)),
    *(getattr(torch, f"conv{kind}{n}d") for kind in ("", "_transpose") for n in (1, 2, 3)),
    torch.add, torch.sub, torch.rsub, torch.neg, torch.cat, torch.stack, torch.sum, torch.mean,
    torch.flatten, torch.unflatten, torch.reshape, torch.permute, torch.transpose, torch.movedim,
    torch.squeeze, torch.unsqueeze, torch.split, torch.chunk, torch.narrow, torch.roll, torch.flip,
    _T.add, _T.sub, _T.neg, _T.sum, _T.mean, _T.flatten, _T.unflatten, _T.reshape, _T.view,
    _T.permute, _T.transpose, _T.movedim, _T.squeeze, _T.unsqueeze, _T.split, _T.chunk, _T.narrow,
    _T.expand, _T.contiguous, _T.clone, _T.to, _T.float, _T.double, _T.__getitem__,
    _T.__add__, _T.__radd__, _T.__sub__, _T.__rsub__, _T.__neg__,
}  # fmt: skip
# Affine where only one of their arguments depends on the point.
_BILINEAR = {
    torch.mul, torch.matmul, torch.mm, torch.bmm, _T.mul, _T.matmul, _T.__mul__, _T.__rmul__,
    _T.__matmul__, _T.__rmatmul__,
}  # fmt: skip
# Act on each number of one argument by itself.
_ELEMENTWISE = {
    F.relu, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.softplus, F.sigmoid, F.tanh,
    F.logsigmoid, F.hardtanh, F.relu6, F.softsign, F.tanhshrink,
    torch.relu, torch.sigmoid, torch.tanh, torch.exp, torch.expm1, torch.log, torch.log1p,
    torch.sin, torch.cos, torch.sinh, torch.cosh, torch.sqrt, torch.rsqrt, torch.square,
    torch.reciprocal, torch.erf, torch.atan, torch.abs, torch.clamp,
    _T.relu, _T.sigmoid, _T.tanh, _T.exp, _T.expm1, _T.log, _T.log1p, _T.sin, _T.cos, _T.sqrt,
    _T.rsqrt, _T.square, _T.reciprocal, _T.abs, _T.clamp,
}  # fmt: skip


def sum_of_second_derivatives(f: Immersion, z: torch.Tensor, frame: torch.Tensor) -> torch.Tensor:
    r""":math:`\sum_a d^2f_z(e_a, e_a)` over n vectors at each point.

    Args:
        f: map ``[B, d] -> [B, *out]``.
        z: points, ``[B, d]``.
        frame: the vectors, ``[n, B, d]``.

    Returns:
        ``[B, *out]``.

    Raises:
        ValueError, TypeError: ``z`` or ``f(z)`` do not have these shapes.
        NotImplementedError: torch cannot differentiate a function that ``f`` calls.
    """
    with differentiable(f, z) as f:
        try:
            x = f(_Carried.of(z, frame, torch.zeros_like(z)))
        except torch.cuda.OutOfMemoryError:
            raise
        except (NotImplementedError, RuntimeError, TypeError):
            # A map that writes into tensors or asks what it is given: one direction after another.
            x = None
        if isinstance(x, _Carried):
            return x.second
        return vmap(lambda e: jvp(lambda y: jvp(f, (y,), (e,))[1], (z,), (e,))[1])(frame).sum(0)


class _Carried(torch.Tensor):
    """A value with its derivatives ``first [n, *shape]`` and the sum ``second [*shape]`` of its
    second ones, which every function of torch carries on."""

    first: torch.Tensor
    second: torch.Tensor

    @classmethod
    def of(cls, value: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> "_Carried":
        carried: Any = value.as_subclass(cls)
        carried.first, carried.second = first, second
        return carried

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        leaves, form = _pytree.tree_flatten((args, kwargs or {}))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, cls)]
        carried = [leaves[i] for i in places]
        values = tuple(c.as_subclass(torch.Tensor) for c in carried)

        def g(*xs):
            filled = list(leaves)
            for i, x in zip(places, xs, strict=True):
                filled[i] = x
            a, k = _pytree.tree_unflatten(filled, form)
            return func(*a, **k)

        name = getattr(func, "__name__", "")
        if _writes(name, args, kwargs or {}):
            raise NotImplementedError(f"{name} writes into a tensor")
        with torch._C.DisableTorchFunctionSubclass():
            if func not in _ELEMENTWISE | _AFFINE | _BILINEAR:
                result = g(*values)  # a shape, perhaps, or a comparison
                found = [r for r in _pytree.tree_leaves(result) if isinstance(r, torch.Tensor)]
                if not any(r.is_floating_point() for r in found):
                    return result
            return _carried_on(func, g, values, carried)


def _writes(name: str, args: tuple, kwargs: dict) -> bool:
    in_place = name.endswith("_") and not name.endswith("__")
    in_place |= name.startswith("__i") and name not in ("__invert__", "__index__", "__int__")
    return in_place or name == "__setitem__" or kwargs.get("out") is not None


def _carried_on(func, g, values, carried):
    if func in _ELEMENTWISE and len(values) == 1:
        (x,), (c,) = values, carried
        one = torch.ones_like(x)

        def act(y):
            return g(y.clone())  # an activation may have been asked to work in place

        (value, slope), (_, bend) = jvp(lambda y: jvp(act, (y,), (one,)), (x,), (one,))
        if value.shape == x.shape:
            second = slope * c.second + bend * c.first.square().sum(0)
            return _Carried.of(value, slope * c.first, second)
    first = tuple(c.first for c in carried)
    tangents = tuple(torch.cat([c.first, c.second.unsqueeze(0)]) for c in carried)
    value, pushed = vmap(lambda *t: jvp(g, values, t), out_dims=(None, 0))(*tangents)
    values_out, form = _pytree.tree_flatten(value)
    sums = [p[-1] for p in _pytree.tree_leaves(pushed)]
    if not (func in _AFFINE or (func in _BILINEAR and len(values) == 1)):
        bends = vmap(lambda *t: jvp(lambda *y: jvp(g, y, t)[1], values, t)[1])(*first)
        sums = [s + b.sum(0) for s, b in zip(sums, _pytree.tree_leaves(bends), strict=True)]
    parts = zip(values_out, _pytree.tree_leaves(pushed), sums, strict=True)
    return _pytree.tree_unflatten([_Carried.of(v, p[:-1], s) for v, p, s in parts], form)
