"""One door for what users bring: every public function takes the same data, and refuses the same.

Numbers may come as numpy arrays of any layout, torch tensors, lists or data frames; data also as
data sets that return an item at a time, of torch, of Hugging Face or of any class with
``__getitem__`` and ``__len__`` or ``__iter__``, and as a ``DataLoader``. An item may be the data
itself, a tuple that begins with them, or a dictionary with the key ``"data"``.
"""

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from pythae.models import BaseAE
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ._checks import check_count, check_finite


def as_tensor(values: object, name: str) -> torch.Tensor:
    """Real numbers as a tensor of their own type and device, without gradients.

    It shares memory with an array where torch can.

    Args:
        values: array, tensor, list or data frame of any shape.
        name: what they are called in an error.

    Raises:
        TypeError: if they are not real numbers.
        ValueError: if some are masked, or rows have different shapes.
    """
    return _tensor(_array(values, name))


def batches(data: object, name: str, batch_size: int) -> Iterator[torch.Tensor]:
    """The rows of data of any kind as tensors ``[B, ...]``, read as they are asked for.

    Args:
        data: array, tensor, list, data frame, data set or ``DataLoader``.
        name: what they are called in an error.
        batch_size: B at the most.

    Raises:
        TypeError: if they are not real numbers.
        ValueError: if they are empty, if rows have different shapes, or if items are dictionaries
            without ``"data"``.
    """
    shape = None
    for rows in _blocks(data, name, batch_size):
        if rows.ndim == 0 or len(rows) == 0:
            continue
        if shape is not None and rows.shape[1:] != shape:
            raise ValueError(_different_shapes(name, shape, rows.shape[1:]))
        shape = rows.shape[1:]
        yield from rows.split(batch_size)
    if shape is None:
        raise ValueError(f"{name} has no rows: at least one is needed.")


def labelled_batches(
    data: object, name: str, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The rows of a data set and their labels, ``[B, ...]`` each, read as they are asked for.

    Args:
        data: data set or ``DataLoader`` with items that are tuples, whose second part is the label,
            or dictionaries with ``"data"`` and ``"labels"``; or such a dictionary of all rows.
        name: what they are called in an error.
        batch_size: B at the most, but for a ``DataLoader``, which has its own.

    Raises:
        TypeError: if they are not real numbers, or there are no labels.
        ValueError: if rows have different shapes.
    """
    if isinstance(data, DataLoader):
        pairs = ((_data_of(batch, name), _label_of(batch, name)) for batch in data)
    elif isinstance(data, Mapping):
        rows, labels = (as_tensor(part(data, name), name) for part in (_data_of, _label_of))
        if labels.shape[:1] != rows.shape[:1]:
            raise ValueError(
                f"{name} must have one label for each row, got shapes {list(rows.shape)} and "
                f"{list(labels.shape)}."
            )
        pairs = zip(rows.split(batch_size), labels.split(batch_size), strict=True)
    elif _is_data_set(data):
        items = _items(data)
        chunks = iter(lambda: list(itertools.islice(items, batch_size)), [])
        pairs = (
            [[part(i, name) for i in chunk] for part in (_data_of, _label_of)] for chunk in chunks
        )
    else:
        raise _without_labels(name)
    is_empty = True
    for rows, labels in pairs:
        x = as_tensor(rows, name)
        if x.ndim and len(x):
            is_empty = False
            yield x, as_tensor(labels, f"The labels of {name}")
    if is_empty:
        raise ValueError(f"{name} has no rows: at least one is needed.")


def as_data(data: object, name: str) -> torch.Tensor:
    """All rows of data of any kind, ``[N, ...]`` with N at least 1; see :func:`batches`."""
    parts = list(batches(data, name, batch_size=sys.maxsize))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def as_points(points: object, name: str, dim: int) -> torch.Tensor:
    """Points ``[N >= 1, dim]``, finite floating-point numbers; see :func:`as_data`.

    Raises:
        TypeError: if they are not real numbers.
        ValueError: if they have another shape, or are not finite.
    """
    points = as_data(points, name)
    if points.ndim != 2 or points.shape[1] != dim:
        raise ValueError(f"{name} must be [N >= 1, {dim}], got {list(points.shape)}.")
    check_finite(points, name)
    return floating(points)


def as_images(
    images: object, name: str = "images", channels: tuple[int, ...] | None = None
) -> torch.Tensor:
    """Images ``[N >= 1, C, H, W]`` in floating-point numbers; see :func:`as_data`.

    Numbers of type uint8 are divided by 255, and those of other integer types if any is above 1.

    Args:
        images: the images.
        name: what they are called in an error.
        channels: the numbers of channels that they may have; None: any.

    Raises:
        TypeError: if they are not real numbers.
        ValueError: if they have another shape, or are not finite.
    """
    images = as_data(images, name)
    if images.ndim != 4 or (channels is not None and images.shape[1] not in channels):
        wanted = "channels" if channels is None else " or ".join(map(str, channels))
        raise ValueError(
            f"{name} must have shape [N >= 1, {wanted}, height, width], got {list(images.shape)}."
        )
    check_finite(images, name)
    integers = not images.is_floating_point() and images.dtype != torch.bool
    if images.dtype == torch.uint8 or (integers and int(images.max()) > 1):
        return images / 255
    return floating(images)


def as_labels(labels: object, name: str, count: int) -> np.ndarray:
    """One label for each of ``count`` rows, ``[count]``: numbers or words, on the CPU.

    One-hot labels ``[count, K]`` give the number of their class.

    Raises:
        TypeError: if they are neither numbers nor words.
        ValueError: if they are not as many, or not finite.
    """
    if isinstance(labels, torch.Tensor) or _holds_tensors(labels):
        labels = as_tensor(labels, name).cpu()
        labels = (labels.double() if labels.is_floating_point() else labels).numpy()
    elif hasattr(labels, "to_numpy"):
        labels = labels.to_numpy()
    labels = _asarray(labels, name)
    if labels.dtype == object and all(isinstance(label, str) for label in labels.flat):
        labels = labels.astype(str)
    if labels.dtype.kind not in "fiubU":
        raise TypeError(f"{name} must be numbers or words, got an array of {labels.dtype}.")
    if labels.ndim == 2 and labels.dtype.kind != "U":
        one_hot = ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()
        if one_hot and labels.shape[1] > 1:
            labels = labels.argmax(1)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,):
        raise ValueError(
            f"{name} must hold one label for each of the {count} rows (or a one-hot row each), got "
            f"shape {list(labels.shape)}."
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError(f"{name} contains NaN or infinity: remove those rows.")
    return labels


def as_shape(shape: object, name: str) -> tuple[int, ...]:
    """The shape of a data point: a list of whole numbers of at least 1, as a tuple.

    Raises:
        TypeError: if it is no list or tuple.
        ValueError: if it is empty, or has other numbers.
    """
    if not isinstance(shape, list | tuple):
        raise TypeError(f"{name} must be a tuple such as (1, 28, 28), got {shape!r}.")
    if not shape:
        raise ValueError(f"{name} must have one number at least, such as (1, 28, 28), got {shape}.")
    return tuple(check_count(name, size, 1) for size in shape)


def as_model(model: object) -> BaseAE:
    """A pythae model; of one that ``torch.compile`` wrapped, the model itself.

    Raises:
        TypeError: if it is something else.
    """
    # The wrapper is of a class of its own, and what a model needs is decided by its class.
    model = getattr(model, "_orig_mod", model)
    if not isinstance(model, BaseAE):
        raise TypeError(
            f"model must be a pythae model, got {type(model).__name__}: "
            "models.foreign.autoencoder_of makes one of an encoder and a decoder."
        )
    return model


def like(module: nn.Module, other: torch.Tensor | None = None) -> torch.Tensor:
    """A tensor of the type and on the device of the numbers of a module, to convert others by.

    For a module without any it is ``other``, or a tensor of torch's defaults.
    """
    numbers = itertools.chain(module.parameters(), module.buffers())
    other = torch.empty(0) if other is None else other
    return next((t for t in numbers if t.is_floating_point()), other)


# Arrays


def _array(values: object, name: str) -> np.ndarray | torch.Tensor:
    """Real numbers as an array or a tensor, not copied if they are one."""
    if _holds_tensors(values):
        return _stacked(values, name)
    if isinstance(values, torch.Tensor):
        if values.is_complex() or values.is_quantized:
            raise TypeError(_not_real(name, f"a tensor of {values.dtype}"))
        if values.layout != torch.strided or values.is_meta:
            raise TypeError(f"{name} must be a dense tensor with values, got {values.layout}.")
        return values.detach()
    if hasattr(values, "to_numpy"):  # of pandas or polars
        values = values.to_numpy()
    if np.ma.is_masked(values):
        raise ValueError(f"{name} has masked entries: fill them, or remove those rows.")
    array = _asarray(values, name)
    if array.dtype.kind not in "fiub":
        got = f"an array of {array.dtype}" if hasattr(values, "dtype") else type(values).__name__
        raise TypeError(_not_real(name, got))
    return array


def _asarray(values: object, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # numpy's, of ragged lists and others
        raise TypeError(_not_real(name, f"a {type(values).__name__} that is no array")) from error


def _tensor(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    if isinstance(array, torch.Tensor):
        return array
    # torch has no wider numbers, and few functions for unsigned ones.
    wide = array.dtype.itemsize > 8 or (array.dtype.kind == "u" and array.dtype.itemsize > 1)
    dtype = np.dtype(np.float64) if wide else array.dtype.newbyteorder("=")
    # It takes no strides below 0, and memory that is not to be written to only with a warning.
    return torch.from_numpy(np.require(array, dtype, ["C", "W"]))


def floating(x: torch.Tensor) -> torch.Tensor:
    """float32 and float64 as they are, all others in float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _not_real(name: str, got: str) -> str:
    return (
        f"{name} must hold real numbers, in an array, a tensor, a list, a data frame, a data set "
        f"or a DataLoader, got {got}."
    )


def _different_shapes(name: str, one: torch.Size, other: torch.Size) -> str:
    return (
        f"The rows of {name} must have one shape, got {list(one)} and {list(other)}: crop or pad "
        "them."
    )


def _holds_tensors(values: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(values, list | tuple) and any(isinstance(v, torch.Tensor) for v in values)


def _stacked(rows: Sequence[Any], name: str) -> torch.Tensor:
    rows = [as_tensor(row, name) for row in rows]
    for row in rows:
        if row.shape != rows[0].shape:
            raise ValueError(_different_shapes(name, rows[0].shape, row.shape))
    return torch.stack([row.to(rows[0].device) for row in rows])


# Data sets


def _blocks(data: object, name: str, batch_size: int) -> Iterator[torch.Tensor]:
    if isinstance(data, Mapping):
        data = _data_of(data, name)
    if isinstance(data, DataLoader):
        for batch in data:
            yield as_tensor(_data_of(batch, name), name)
    elif _is_data_set(data):
        items = (_data_of(item, name) for item in _items(data))
        while rows := list(itertools.islice(items, batch_size)):
            yield _stacked(rows, name)
    else:
        array = _array(data, name)  # which may lie on the disk: it is copied batch by batch
        for start in range(0, len(array) if array.ndim else 0, batch_size):
            yield _tensor(array[start : start + batch_size])


def _is_data_set(data: object) -> bool:
    if isinstance(data, Dataset):
        return True
    is_array = hasattr(data, "__array__") or hasattr(data, "to_numpy")
    if is_array or isinstance(data, list | tuple | str | bytes | set | frozenset | range):
        return False
    is_sequence = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    return is_sequence or hasattr(data, "__iter__")


def _items(data) -> Iterator[object]:
    # torch's class for streams has a __getitem__ too, which raises.
    is_stream = isinstance(data, IterableDataset) or not hasattr(data, "__getitem__")
    if is_stream or not hasattr(data, "__len__"):
        return iter(data)
    return (data[i] for i in range(len(data)))


def _data_of(item: object, name: str) -> object:
    """The data of an item, or of a batch of a ``DataLoader``."""
    if isinstance(item, Mapping):
        if "data" not in item:
            raise ValueError(
                f"The items of {name} must have 'data', got {', '.join(map(str, item)) or 'none'}: "
                "rename the key of what the model takes."
            )
        return item["data"]
    if isinstance(item, tuple) and item:
        return item[0]
    # What torch makes of a batch of tuples.
    if isinstance(item, list) and item and isinstance(item[0], torch.Tensor | np.ndarray):
        return item[0]
    return item


def _label_of(item: object, name: str) -> object:
    """The label of an item, or the labels of a batch."""
    if isinstance(item, Mapping) and "labels" in item:
        return item["labels"]
    if isinstance(item, tuple | list) and len(item) > 1:
        return item[1]
    raise _without_labels(name)


def _without_labels(name: str) -> TypeError:
    return TypeError(
        f"The networks of this model take labels, and {name} has none: pass labels, one for each "
        "row, or take the model of one label, models.foreign.given(model, label)."
    )
