"""Layers of torch, seen by name while a map is evaluated or differentiated.

Two modes that see every call of torch in their context. :class:`Pure` refuses what is random or
mixes the points of a batch. :class:`Formulas` does so too, and writes out in elementary functions
what torch differentiates incorrectly, slowly or not at all in forward mode. For each formula a test
shows what torch does by itself (as of 2.13), and fails once torch is right, so that the formula
can go.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode, resolve_name

# -- what has no derivative point by point -----------------------------------------------------

_RANDOM = {
    torch.rand, torch.rand_like, torch.randn, torch.randn_like, torch.randint, torch.randint_like,
    torch.randperm, torch.normal, torch.bernoulli, torch.multinomial, torch.poisson,
    torch.Tensor.bernoulli, torch.Tensor.bernoulli_, torch.Tensor.cauchy_,
    torch.Tensor.exponential_, torch.Tensor.geometric_, torch.Tensor.log_normal_,
    torch.Tensor.multinomial, torch.Tensor.normal_, torch.Tensor.random_, torch.Tensor.uniform_,
    F.gumbel_softmax, F.fractional_max_pool2d, F.fractional_max_pool3d,
}  # fmt: skip


def _draws(p: float, training: bool) -> bool:
    return bool(training) and p > 0


# Whether a call with these arguments draws random numbers.
_RANDOM_IF: dict[Callable, Callable[..., bool]] = {
    **dict.fromkeys(
        (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d),
        lambda input, p=0.5, training=True, inplace=False: _draws(p, training),
    ),
    **dict.fromkeys(
        (F.alpha_dropout, F.feature_alpha_dropout),
        lambda input, p=0.5, training=False, inplace=False: _draws(p, training),
    ),
    **dict.fromkeys(
        (
            torch.dropout, torch.dropout_, torch.alpha_dropout, torch.feature_dropout,
            torch.feature_alpha_dropout, torch.native_dropout,
        ),
        lambda input, p, train: _draws(p, train),
    ),
    **dict.fromkeys(
        (F.rrelu, torch.rrelu),
        lambda input, lower=1 / 8, upper=1 / 3, training=False, *rest, **more: bool(training),
    ),
    F.scaled_dot_product_attention: (
        lambda query, key, value, attn_mask=None, dropout_p=0.0, *rest, **more: dropout_p > 0
    ),
    F.multi_head_attention_forward: (
        lambda *args, training=True, dropout_p=0.0, **more: _draws(
            args[10] if len(args) > 10 else dropout_p, args[13] if len(args) > 13 else training
        )
    ),
    **dict.fromkeys(
        (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu),
        lambda input, hx, weights, bias, layers, dropout, train, *rest: (
            layers > 1 and _draws(dropout, train)
        ),
    ),
}  # fmt: skip

# The running mean of a batch norm that is called with these arguments, and whether it uses the
# statistics of the batch.
_BATCH_NORMS: dict[Callable, Callable[..., tuple[object, bool]]] = {
    F.batch_norm: (
        lambda input, running_mean, running_var, weight=None, bias=None, training=False,
        momentum=0.1, eps=1e-5: (running_mean, training)
    ),
    torch.batch_norm: (
        lambda input, weight, bias, running_mean, running_var, training, *rest: (
            running_mean,
            training,
        )
    ),
}  # fmt: skip


class Pure(TorchFunctionMode):
    """Refuses functions whose value is random or depends on the other points of the batch."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _RANDOM or (func in _RANDOM_IF and _RANDOM_IF[func](*args, **kwargs)):
            raise ValueError(
                f"The map is random, since it calls {name_of(func)}, and a random map has no "
                f"derivative. {_REMEDY}"
            )
        if func in _BATCH_NORMS:
            running_mean, training = _BATCH_NORMS[func](*args, **kwargs)
            if training and running_mean is None:
                raise ValueError(
                    "The map mixes the points of a batch, since it has a batch norm without "
                    "running statistics, and so it has no derivative point by point. Train the "
                    "network with track_running_stats=True, or with layer or group norms."
                )
            if training:
                raise ValueError(_TRAINING_BATCH_NORM)
        if func is torch.Tensor.add_ and args[0].ndim == 0 and not args[0].is_floating_point():
            raise ValueError(_TRAINING_BATCH_NORM)  # its count of batches, which it raises first
        return self.call(func, args, kwargs)

    def call(self, func, args, kwargs):
        return func(*args, **kwargs)


_REMEDY = (
    "Call .eval() on the network, or pass the module itself in place of a function that uses it: "
    "a module is put in evaluation mode and restored."
)
_TRAINING_BATCH_NORM = (
    "The map mixes the points of a batch, since it has a batch norm in training mode, and so it "
    f"has no derivative point by point. {_REMEDY}"
)


def name_of(func: Callable) -> str:
    """The name of a function of torch, as a user would write it."""
    return resolve_name(func) or getattr(func, "__name__", str(func))


class Formulas(Pure):
    """Writes out what torch differentiates incorrectly, slowly or not at all in forward mode."""

    def call(self, func, args, kwargs):
        if func in _WRONG:
            raise NotImplementedError(
                f"The map calls {name_of(func)}, whose second derivative torch gets wrong in "
                f"forward mode: {_WRONG[func]}."
            )
        try:
            return _FORMULAS.get(func, func)(*args, **kwargs)
        except NotImplementedError as error:
            if "forward AD" not in str(error):
                raise
            raise NotImplementedError(
                f"The map calls {name_of(func)}, which torch cannot differentiate in forward "
                "mode: replace it in the network, or write it out in elementary functions of torch."
            ) from error


# -- formulas ----------------------------------------------------------------------------------

# Adding a constant bias takes a slow Python path in forward mode, which costs more than a small
# linear layer itself; rsub avoids it.


def _linear(input, weight, bias=None):
    return input @ weight.T if bias is None else torch.rsub(-bias, input @ weight.T)


# "Trying to use forward AD with ... that does not support it": the derivative of silu, mish,
# hardsigmoid and logit inside torch.no_grad() or twice, that of glu twice.


def _silu(input, inplace=False):
    return input * input.sigmoid()


def _mish(input, inplace=False):
    return input * F.softplus(input).tanh()


def _glu(input, dim=-1):
    a, b = input.chunk(2, dim)
    return a * b.sigmoid()


def _hardsigmoid(input, inplace=False):
    return (input + 3).clamp(0, 6) / 6


def _logit(input, eps=None):
    x = input if eps is None else input.clamp(eps, 1 - eps)
    return x.log() - (-x).log1p()


# The second forward derivative of layer norm and instance norm is wrong, without an error.


def _layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5, cudnn_enable=True):
    x = _standardise(input, tuple(range(-len(normalized_shape), 0)), eps)
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _instance_norm(
    input, running_mean=None, running_var=None, weight=None, bias=None,
    use_input_stats=True, momentum=0.1, eps=1e-5,
):  # fmt: skip
    if not use_input_stats:  # a batch norm, which torch differentiates correctly
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


def _torch_instance_norm(
    input, weight, bias, running_mean, running_var, use_input_stats, momentum, eps, cudnn_enabled
):
    return _instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )


# Second derivatives of norms cannot be differentiated again: "one of the variables needed for
# gradient computation has been modified by an inplace operation".


def _vector_norm(x, ord=2, dim=None, keepdim=False, *, dtype=None):
    p = float(ord)
    if p in (0.0, 1.0, float("inf"), -float("inf")):
        return torch.linalg.vector_norm(x, ord, dim, keepdim, dtype=dtype)
    x = x if dtype is None else x.to(dtype)
    dim = tuple(range(x.ndim)) if dim is None else dim
    total = (x.square() if p == 2 else x.abs().pow(p)).sum(dim, keepdim)
    # The derivative at 0 is 0, as that of torch is.
    is_zero = total == 0
    total = torch.where(is_zero, 1.0, total)
    return torch.where(is_zero, 0.0, total.sqrt() if p == 2 else total.pow(1 / p))


def _linalg_norm(A, ord=None, dim=None, keepdim=False, *, dtype=None):
    if ord is None or isinstance(dim, int) or (dim is None and A.ndim == 1):
        return _vector_norm(A, 2 if ord is None else ord, dim, keepdim, dtype=dtype)
    return _matrix_norm(A, ord, (-2, -1) if dim is None else dim, keepdim, dtype=dtype)


def _matrix_norm(A, ord="fro", dim=(-2, -1), keepdim=False, *, dtype=None):
    if ord == "fro":
        return _vector_norm(A, 2, dim, keepdim, dtype=dtype)
    return torch.linalg.matrix_norm(A, ord, dim, keepdim, dtype=dtype)


def _norm(input, p="fro", dim=None, keepdim=False, out=None, dtype=None):
    if p == "nuc":
        return torch.norm(input, p, dim, keepdim, dtype=dtype)
    return _vector_norm(input, 2 if p in ("fro", None) else p, dim, keepdim, dtype=dtype)


def _normalize(input, p=2.0, dim=1, eps=1e-12, out=None):
    return input / _vector_norm(input, p, dim, keepdim=True).clamp(min=eps)


def _cosine_similarity(x1, x2, dim=1, eps=1e-8):
    a, b = (_normalize(x, dim=dim, eps=eps) for x in torch.broadcast_tensors(x1, x2))
    return (a * b).sum(dim)


def _pairwise_distance(x1, x2, p=2.0, eps=1e-6, keepdim=False):
    return _vector_norm(x1 - x2 + eps, p, -1, keepdim)


def _std(input, *args, **kwargs):
    return torch.var(input, *args, **kwargs).sqrt()


def _std_mean(input, *args, **kwargs):
    variance, mean = torch.var_mean(input, *args, **kwargs)
    return variance.sqrt(), mean


# "Trying to use forward AD with _cdist_forward that does not support it".


def _cdist(x1, x2, p=2.0, compute_mode=None):
    return _vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


# The second forward derivative of solve is wrong, without an error; that of inv is right.


def _solve(A, B, *, left=True):
    inverse = torch.linalg.inv(A)
    if left and (B.ndim == 1 or B.shape == A.shape[:-1]):
        return (inverse @ B.unsqueeze(-1)).squeeze(-1)
    return inverse @ B if left else B @ inverse


# The fast kernels of attention, of the LSTM in float32 on the CPU and of all recurrent layers in
# cuDNN have no forward derivative; the mathematical ones have.


def _by_the_mathematical_kernel(attention):
    def formula(*args, **kwargs):
        with sdpa_kernel(SDPBackend.MATH):
            return attention(*args, **kwargs)

    return formula


def _without_fused_kernels(layer):
    def formula(*args, **kwargs):
        mkldnn: Any = torch.backends.mkldnn
        cudnn: Any = torch.backends.cudnn
        enabled = mkldnn.enabled, cudnn.enabled
        mkldnn.enabled = cudnn.enabled = False
        try:
            return layer(*args, **kwargs)
        finally:
            mkldnn.enabled, cudnn.enabled = enabled

    return formula


_FORMULAS = {
    F.linear: _linear,
    F.silu: _silu,
    F.mish: _mish,
    F.glu: _glu,
    F.hardsigmoid: _hardsigmoid,
    **dict.fromkeys((torch.logit, torch.Tensor.logit, torch.special.logit), _logit),
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.instance_norm: _instance_norm,
    torch.instance_norm: _torch_instance_norm,
    torch.linalg.vector_norm: _vector_norm,
    torch.linalg.norm: _linalg_norm,
    torch.linalg.matrix_norm: _matrix_norm,
    torch.norm: _norm,
    torch.Tensor.norm: _norm,
    F.normalize: _normalize,
    F.cosine_similarity: _cosine_similarity,
    F.pairwise_distance: _pairwise_distance,
    **dict.fromkeys((torch.std, torch.Tensor.std), _std),
    torch.std_mean: _std_mean,
    torch.cdist: _cdist,
    torch.linalg.solve: _solve,
    **{
        attention: _by_the_mathematical_kernel(attention)
        for attention in (F.scaled_dot_product_attention, F.multi_head_attention_forward)
    },
    **{
        layer: _without_fused_kernels(layer)
        for layer in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
    },
}

_WRONG = {
    torch.native_layer_norm: "use torch.nn.functional.layer_norm",
    torch.renorm: "use torch.nn.functional.normalize",
    **dict.fromkeys(
        (torch.det, torch.linalg.det, torch.Tensor.det),
        "use the product of the eigenvalues, or write the determinant out",
    ),
}
