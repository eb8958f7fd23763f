"""A second device for tests: it computes real numbers on the CPU, and refuses to meet its tensors.

What runs on a GPU must not mix tensors of two devices, and a machine without one cannot show that.
Here a tensor of the device ``second`` wraps one of the CPU, and every operation of torch checks
where its arguments are, by torch's rules: numbers (tensors without axes) and indices may come from
the CPU, everything else may not.
"""

import torch
from torch.utils import _pytree, backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

aten = torch.ops.aten
MOVES = {aten._to_copy.default, aten.copy_.default}
INDEXES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
           aten._index_put_impl_.default}  # fmt: skip


class _Backend(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self):
        return [torch.bfloat16]

    def get_rng_state(self, device=None):
        return torch.get_rng_state()

    def set_rng_state(self, state, device=None):
        pass


backend_registration._setup_privateuseone_for_python_backend("second", backend_module=_Backend())
DEVICE = torch.device("second", 0)


class OnDevice(torch.Tensor):
    """A tensor of the second device; ``held`` has its numbers on the CPU."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=DEVICE
        )

    def __init__(self, held):
        self.held = held

    def __repr__(self):
        return f"{self.held} on {DEVICE}"

    def tolist(self):
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})


class SecondDevice(TorchDispatchMode):
    """While it is active, tensors can be made on the second device and moved to it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})


def _dispatch(func, args, kwargs):
    leaves = [t for t in _pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    there = [t for t in leaves if isinstance(t, OnDevice)]
    here = [t for t in leaves if not isinstance(t, OnDevice) and t.dim() > 0]
    is_indexed = func in INDEXES and isinstance(args[0], OnDevice)
    if there and here and func not in MOVES and not is_indexed:
        shapes = [list(t.shape) for t in there], [list(t.shape) for t in here]
        raise RuntimeError(f"{func} has arguments {shapes[0]} on {DEVICE} and {shapes[1]} on cpu")
    to_device = bool(there)
    if (device := kwargs.get("device")) is not None:
        to_device = torch.device(device).type == DEVICE.type
        kwargs = {**kwargs, "device": torch.device("cpu")}
    elif func is aten.copy_.default:
        to_device = isinstance(args[0], OnDevice)
    if func is aten._efficientzerotensor.default:  # holds no memory, which only torch knows
        func = aten.zeros.default
    with _disable_current_modes():
        inputs = _pytree.tree_map(_held, (args, kwargs))
        result = func(*inputs[0], **inputs[1])
    if func._schema.is_mutable and args and result is _held(args[0]):
        return args[0]
    return _pytree.tree_map(_wrapped, result) if to_device else result


def _held(value):
    while isinstance(value, OnDevice):
        value = value.held
    return value


def _wrapped(value):
    is_plain = isinstance(value, torch.Tensor) and not isinstance(value, OnDevice)
    return OnDevice(value) if is_plain else value


_library = torch.library.Library("aten", "IMPL")


def _empty_strided(size, stride, dtype=None, layout=None, device=None, pin_memory=None):
    return OnDevice(torch.empty_strided(size, stride, dtype=dtype))


def _empty(size, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    return OnDevice(torch.empty(size, dtype=dtype))


def _copy_from(source, target, non_blocking=False):
    _held(target).copy_(_held(source))
    return target


for _name, _function in (
    ("empty_strided", _empty_strided), ("empty.memory_format", _empty), ("_copy_from", _copy_from)
):  # fmt: skip
    _library.impl(_name, _function, "PrivateUse1")
