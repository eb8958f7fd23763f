"""Trajectories as training data: the state at the start, a time, and the state then."""

import torch
from pythae.data.datasets import DatasetOutput
from torch.utils.data import Dataset


class TrajectoryDataset(Dataset):
    """Solutions of an evolution equation, for models that go from the first state to any time.

    An item has ``data``, the state at the first time; ``time``, one of the times; and ``target``,
    the state then. States have any shape: profiles ``[n]``, fields ``[channels, height, width]``.

    Args:
        trajectories: ``[N, T, *input_dim]``, tensor or array; kept as float32.
        times: ``[T]``, increasing, at least two.
        random_time: True: an item is a trajectory, with a time drawn at each access from torch's
            global generator (which pythae's trainer seeds): for training. False: an item is a
            trajectory with a time, N T items of which none is random: for evaluation. Choose a few
            times there: ``TrajectoryDataset(x[:, ::50], times[::50], random_time=False)``.

    Raises:
        ValueError: the trajectories contain NaN or infinity, there is only one time, or the times
            are not increasing or not as many as the states.

    Example:
        >>> data = TrajectoryDataset(torch.zeros(5, 3, 8), torch.tensor([0.0, 0.5, 1.0]))
        >>> item = data[0]
        >>> len(data), item.data.shape, item.target.shape, item.time.shape
        (5, torch.Size([8]), torch.Size([8]), torch.Size([]))
    """

    def __init__(self, trajectories, times, random_time: bool = True):
        trajectories = torch.as_tensor(trajectories)
        times = torch.as_tensor(times, dtype=torch.float32)
        if trajectories.ndim < 3 or len(trajectories) == 0:
            raise ValueError(
                "trajectories must have shape [N >= 1, T, *input_dim], got "
                f"{list(trajectories.shape)}: a single trajectory is x[None]."
            )
        if times.ndim != 1 or len(times) != trajectories.shape[1]:
            raise ValueError(
                f"times must have one entry for each of the {trajectories.shape[1]} states of a "
                f"trajectory, got shape {list(times.shape)}."
            )
        if len(times) < 2:
            raise ValueError(
                "A trajectory needs at least two times, got one: data without a time train as they "
                "are, as arrays."
            )
        # Not "any(diff <= 0)": comparisons with NaN are all false.
        if not bool((times.diff() > 0).all()) or not bool(torch.isfinite(times).all()):
            raise ValueError("times must be finite and increasing: sort the states by their time.")
        bad = [i for i, x in enumerate(trajectories) if not bool(torch.isfinite(x).all())]
        if bad:
            raise ValueError(
                f"{len(bad)} of {len(trajectories)} trajectories contain NaN or infinity, the "
                f"first of them number {bad[0]}: remove them."
            )
        self.trajectories, self.times = trajectories.float(), times
        self.random_time = random_time

    def __len__(self) -> int:
        return len(self.trajectories) * (1 if self.random_time else len(self.times))

    def __getitem__(self, index: int) -> DatasetOutput:
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no item {index} in a data set of {len(self)}.")
        if self.random_time:
            k = int(torch.randint(len(self.times), ()))
        else:
            index, k = divmod(index % len(self), len(self.times))
        states = self.trajectories[index]
        return DatasetOutput(data=states[0], time=self.times[k], target=states[k])
