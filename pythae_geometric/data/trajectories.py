"""Trajectories as training data: the state at the start, a time, and the state then."""

import bisect
import itertools

import torch
from pythae.data.datasets import DatasetOutput
from torch.utils.data import Dataset

from .._checks import check_flag
from .._inputs import as_tensor


class TrajectoryDataset(Dataset):
    """Solutions of an evolution equation, for models that go from the first state to any time.

    An item has ``data``, the state at the first time; ``time``, one of the times; and ``target``,
    the state then. States have any shape: profiles ``[n]``, fields ``[channels, height, width]``.

    Trajectories that were observed at times of their own, or with states missing, come as a list,
    with a list of their times. From an array and a mask ``observed [N, T]`` these are
    ``[x[m] for x, m in zip(trajectories, observed)]`` and ``[times[m] for m in observed]``.

    Args:
        trajectories: ``[N, T, *input_dim]``, tensor or array, or N of ``[T_i, *input_dim]``; kept
            as float32.
        times: ``[T]``, increasing, at least two; or N of ``[T_i]``, one for each trajectory, which
            all begin at the same time.
        random_time: True: an item is a trajectory, with one of its times drawn at each access from
            torch's global generator (which pythae's trainer seeds): for training. False: an item is
            a trajectory with a time, N x T deterministic items: for evaluation. Choose a few times
            there: ``TrajectoryDataset(x[:, ::50], times[::50], random_time=False)``.

    Raises:
        TypeError: if trajectories or times are not real numbers, or ``random_time`` is not True or
            False.
        ValueError: if trajectories contain NaN or infinity or have states of different shapes, if
            there is only one time, or if the times are not increasing, not as many as the states,
            or do not begin together.

    Example:
        >>> data = TrajectoryDataset(torch.zeros(5, 3, 8), torch.tensor([0.0, 0.5, 1.0]))
        >>> item = data[0]
        >>> len(data), item.data.shape, item.target.shape, item.time.shape
        (5, torch.Size([8]), torch.Size([8]), torch.Size([]))
        >>> len(TrajectoryDataset([torch.zeros(3, 8), torch.zeros(2, 8)], [[0, 0.4, 1], [0, 0.7]]))
        2
    """

    def __init__(self, trajectories, times, random_time: bool = True):
        check_flag("random_time", random_time)
        if _one_for_each(times):
            self.trajectories = [as_tensor(x, "trajectories").float() for x in trajectories]
            self.times = [as_tensor(t, "times").float() for t in times]
        else:
            x = as_tensor(trajectories, "trajectories").float()
            self.trajectories = list(x) if x.ndim > 2 else []
            self.times = [as_tensor(times, "times").float()] * len(self.trajectories)
            if not self.trajectories:
                raise ValueError(
                    f"trajectories must have shape [N >= 1, T, *input_dim], got {list(x.shape)}: a "
                    "single trajectory is x[None]."
                )
        self.random_time = random_time
        self._check()
        self._ends = list(itertools.accumulate(map(len, self.times)))

    def __len__(self) -> int:
        return len(self.trajectories) if self.random_time else self._ends[-1]

    def __getitem__(self, index: int) -> DatasetOutput:
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no item {index} in a data set of {len(self)}.")
        index %= len(self)
        if self.random_time:
            i = index
            k = int(torch.randint(len(self.times[i]), ()))
        else:
            i = bisect.bisect_right(self._ends, index)
            k = index - self._ends[i]  # negative: counted from the trajectory's end
        x, times = self.trajectories[i], self.times[i]
        return DatasetOutput(data=x[0], time=times[k], target=x[k])

    def _check(self) -> None:
        N = len(self.trajectories)
        if len(self.times) != N:
            raise ValueError(
                f"times must have one entry for each of the {N} trajectories, got "
                f"{len(self.times)}."
            )
        shape = self.trajectories[0].shape[1:]
        for x, times in zip(self.trajectories, self.times, strict=True):
            if x.ndim < 2 or x.shape[1:] != shape:
                raise ValueError(
                    "Each of the trajectories must have shape [T, *input_dim], with one input_dim "
                    f"for all, got {list(self.trajectories[0].shape)} and {list(x.shape)}."
                )
            _check_times(times, len(x))
        starts = torch.stack([times[0] for times in self.times])
        low, high = float(starts.min()), float(starts.max())
        if low < high:
            raise ValueError(
                f"All trajectories must begin at the same time, got {low:g} to {high:g}: where "
                "the equation does not depend on time, subtract from each its first one."
            )
        bad = [i for i, x in enumerate(self.trajectories) if not bool(torch.isfinite(x).all())]
        if bad:
            raise ValueError(
                f"{len(bad)} of {N} trajectories contain NaN or infinity, the first of them number "
                f"{bad[0]}: remove them, or only the states that are missing, and give each "
                "trajectory times of its own."
            )


def _one_for_each(times) -> bool:
    """Whether there are times ``[T_i]`` for each trajectory, and not ``[T]`` for all."""
    if isinstance(times, list | tuple):
        return any(isinstance(t, list | tuple) or getattr(t, "ndim", 0) > 0 for t in times)
    return getattr(times, "ndim", 1) > 1


def _check_times(times: torch.Tensor, count: int) -> None:
    if times.ndim != 1 or len(times) != count:
        raise ValueError(
            f"times must have one entry for each of the {count} states of a trajectory, got shape "
            f"{list(times.shape)}."
        )
    if count < 2:
        raise ValueError(
            "A trajectory needs at least two times, got one: data without a time train as they "
            "are, as arrays."
        )
    # Not "any(diff <= 0)": comparisons with NaN are all false.
    if not bool((times.diff() > 0).all()) or not bool(torch.isfinite(times).all()):
        raise ValueError("times must be finite and increasing: sort the states by their time.")
