"""Random numbers that belong to rows, and not to batches or processes."""

import math

import torch

from ._checks import check_count, check_generator

# Steele, Lea, Flood, Fast splittable pseudorandom number generators, OOPSLA 2014, figure 16.
GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class RowStreams:
    r"""A stream of random numbers for each row of a batch.

    What a row draws depends on the seed, the number of the row and what it has drawn before, and on
    nothing else: rows get the same numbers in one batch or in many, in one process or in several,
    on any device. Where this package takes a ``generator`` for a batch, it takes streams for as
    many rows, too.

    Each is a SplitMix64, whose n-th number is a hash of its start plus n, so that a batch is drawn
    at once. The start is a hash of the seed and the number of the row.

    Args:
        seed: of all rows, 0 or more, less than :math:`2^{63}`.
        num_rows: how many, 0 or more.
        first: the number of the first row; the others follow.
        device: of the numbers.

    Raises:
        ValueError: if a number is out of range.

    References:
        G. Steele, D. Lea, C. Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.

    Example:
        >>> whole = RowStreams(seed=0, num_rows=5).normal(2)
        >>> torch.equal(whole[3:], RowStreams(seed=0, num_rows=2, first=3).normal(2))
        True
    """

    def __init__(
        self, seed: int, num_rows: int, first: int = 0, device: torch.device | str = "cpu"
    ):
        seed, first = check_count("seed", seed, 0), check_count("first", first, 0)
        if seed >= 2**63:
            raise ValueError(f"seed must be less than 2**63, got {seed}.")
        num_rows = check_count("num_rows", num_rows, 0)
        rows = torch.arange(first, first + num_rows, device=device)
        start = _mixed(torch.tensor(seed, device=device) + _signed(GOLDEN))
        self._start = _mixed(start + rows * _signed(GOLDEN))
        self._drawn = torch.zeros_like(rows)

    def __len__(self) -> int:
        return len(self._start)

    def uniform(self, *shape: int, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Uniform numbers in [0, 1), one tensor of a shape for each row.

        Args:
            shape: of the numbers of one row.
            rows: the places in the batch of those that draw, ``[n]``; None: all do.

        Returns:
            ``[B, *shape]`` or ``[n, *shape]``, float64 (float32 on a device without it).
        """
        count = math.prod(check_count("shape", size, 0) for size in shape)
        rows = torch.arange(len(self), device=self._start.device) if rows is None else rows
        places = self._drawn[rows, None] + torch.arange(1, count + 1, device=rows.device)
        self._drawn[rows] += count
        bits = _mixed(self._start[rows, None] + places * _signed(GOLDEN))
        dtype = torch.float32 if bits.device.type == "mps" else torch.float64
        kept = 24 if dtype == torch.float32 else 53  # bits, so that the largest is less than 1
        return (_shifted(bits, 64 - kept).to(dtype) * 2.0**-kept).view(len(rows), *shape)

    def normal(self, *shape: int, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Standard normal numbers by the method of Box and Muller; as :meth:`uniform`."""
        count = math.prod(check_count("shape", size, 0) for size in shape)
        u, v = self.uniform(2, (count + 1) // 2, rows=rows).unbind(1)
        radius, angle = (-2 * (1 - u).log()).sqrt(), 2 * math.pi * v
        pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
        return pairs.flatten(1)[:, :count].reshape(len(u), *shape)

    def beside(self, number: int) -> "RowStreams":
        """Other streams of the same rows, from their beginning; one for each number of 1 or more.

        Args:
            number: less than :math:`2^{31}`.
        """
        other = RowStreams(check_count("number", number, 1), 0, device=self._start.device)
        other._start = _mixed(self._start ^ _mixed(torch.full_like(self._start, number)))
        other._drawn = torch.zeros_like(other._start)
        return other

    def of(self, rows: torch.Tensor) -> "RowStreams":
        """The streams of some rows; what they draw leaves these where they are.

        Args:
            rows: their places in the batch, whole numbers ``[n]``.

        Raises:
            TypeError, ValueError: if they are none.
        """
        if not isinstance(rows, torch.Tensor) or rows.dtype != torch.long:
            raise TypeError(f"rows must be a tensor of whole numbers (int64), got {rows!r}.")
        if rows.ndim != 1 or not bool(((rows >= 0) & (rows < len(self))).all()):
            raise ValueError(f"rows must be places [n] in a batch of {len(self)} rows.")
        part = RowStreams(0, 0, device=self._start.device)
        part._start, part._drawn = self._start[rows], self._drawn[rows]
        return part


Source = torch.Generator | RowStreams | None


def check_source(generator: Source, num_rows: int) -> None:
    """Raise a TypeError unless it is a source of random numbers for so many rows, or None; a
    ValueError if it has streams for other rows."""
    if not isinstance(generator, RowStreams):
        check_generator(generator)
    elif len(generator) != num_rows:
        raise ValueError(f"generator has streams for {len(generator)} rows, not for {num_rows}.")


def normal_like(x: torch.Tensor, generator: Source, rows: torch.Tensor | None = None):
    """Standard normal numbers of the shape of ``x [B, ...]``, for all rows or those at ``rows``."""
    if isinstance(generator, RowStreams):
        return generator.normal(*x.shape[1:], rows=rows).to(x)
    return torch.empty_like(x, memory_format=torch.contiguous_format).normal_(generator=generator)


def uniform_like(x: torch.Tensor, generator: Source):
    """Uniform numbers in [0, 1) of the shape of ``x [B, ...]``."""
    if isinstance(generator, RowStreams):
        # In float32 the largest would be rounded to 1.
        below = 1 - torch.finfo(x.dtype).eps / 2
        return generator.uniform(*x.shape[1:]).to(x).clamp(max=below)
    return torch.empty_like(x).uniform_(generator=generator)


def choices(num_choices: int, num_rows: int, generator: Source, device) -> torch.Tensor:
    """A whole number below ``num_choices`` for each row, ``[B]``."""
    if isinstance(generator, RowStreams):
        return (generator.uniform() * num_choices).long().clamp(max=num_choices - 1)
    return torch.randint(num_choices, (num_rows,), generator=generator, device=device)


def _mixed(x: torch.Tensor) -> torch.Tensor:
    """The finaliser of SplitMix64, on int64, whose products wrap round."""
    x = (x ^ _shifted(x, 30)) * _signed(FIRST)
    x = (x ^ _shifted(x, 27)) * _signed(SECOND)
    return x ^ _shifted(x, 31)


def _shifted(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Shifted to the right, with zeros from the left."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x
