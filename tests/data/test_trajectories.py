"""TrajectoryDataset: its items, in pythae's loader, and what it refuses."""

import numpy as np
import pytest
import torch
from pythae.data.datasets import collate_dataset_output
from torch.utils.data import DataLoader

from pythae_geometric.data.trajectories import TrajectoryDataset

TIMES = torch.tensor([0.0, 0.3, 1.0])


def trajectories(*shape):
    return torch.randn(5, 3, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(8,), (1, 8), (2, 4, 6)])
def test_items_of_any_shape(shape):
    x = trajectories(*shape)
    data = TrajectoryDataset(x, TIMES)
    assert len(data) == 5
    for i in range(5):
        item = data[i]
        k = TIMES.tolist().index(float(item.time))
        torch.testing.assert_close(item.data, x[i, 0])
        torch.testing.assert_close(item.target, x[i, k])
    batch = next(iter(DataLoader(data, batch_size=4, collate_fn=collate_dataset_output)))
    assert batch.data.shape == batch.target.shape == (4, *shape) and batch.time.shape == (4,)


def test_every_time_is_drawn_equally_often():
    data = TrajectoryDataset(trajectories(2), TIMES)
    torch.manual_seed(0)
    n = 3000
    drawn = torch.tensor([float(data[i % 5].time) for i in range(n)])
    counts = (drawn.unsqueeze(1) == TIMES).sum(0)
    # Five deviations of a binomial count.
    assert (counts - n / 3).abs().max() < 5 * (n * 2 / 9) ** 0.5


def test_all_pairs_for_evaluation():
    x = trajectories(2)
    data = TrajectoryDataset(x, TIMES, random_time=False)
    items = [data[i] for i in range(len(data))]
    assert len(items) == 15
    torch.testing.assert_close(torch.stack([item.target for item in items]), x.flatten(0, 1))
    torch.testing.assert_close(torch.stack([item.time for item in items]), TIMES.repeat(5))
    torch.testing.assert_close(data[-1].target, x[-1, -1])


def test_arrays_and_doubles_become_floats():
    data = TrajectoryDataset(trajectories(2).double().numpy(), np.array([0, 1, 2]))
    assert data[0].data.dtype == data[0].time.dtype == torch.float32


# Times of their own


def irregular(random_time):
    """Trajectories of 3, 2 and 4 states, which name their trajectory and their time."""
    times = [[0.0, 0.4, 1.0], [0.0, 0.7], [0.0, 0.1, 0.2, 0.9]]
    x = [torch.tensor([[i, t] for t in row]) for i, row in enumerate(times)]
    return TrajectoryDataset(x, times, random_time), times


def test_each_trajectory_at_times_of_its_own():
    data, times = irregular(random_time=False)
    items = [data[i] for i in range(len(data))]
    wanted = [[i, t] for i, row in enumerate(times) for t in row]
    torch.testing.assert_close(torch.stack([item.target for item in items]), torch.tensor(wanted))
    for item, (i, t) in zip(items, wanted, strict=True):
        assert item.data.tolist() == [i, 0] and float(item.time) == pytest.approx(t)
    assert data[-1].target.tolist() == items[-1].target.tolist()


def test_times_of_their_own_are_drawn_equally_often():
    data, times = irregular(random_time=True)
    assert len(data) == 3
    torch.manual_seed(0)
    n = 1000
    for i, row in enumerate(times):
        items = [data[i] for _ in range(n)]
        assert all(item.target.tolist() == [i, float(item.time)] for item in items)
        drawn = torch.stack([item.time for item in items])
        p = 1 / len(row)
        counts = (drawn.unsqueeze(1) == torch.tensor(row)).sum(0)
        assert (counts - n * p).abs().max() < 5 * (n * p * (1 - p)) ** 0.5


def test_a_mask_of_observed_states():
    """As the docstring says: what is missing never shows, and what is not is there once."""
    x, observed = trajectories(2), torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 0]] + 2 * [[1, 1, 1]])
    observed = observed.bool()
    x[~observed] = torch.nan
    data = TrajectoryDataset(
        [row[m] for row, m in zip(x, observed, strict=True)],
        [TIMES[m] for m in observed],
        random_time=False,
    )
    batch = next(iter(DataLoader(data, batch_size=20, collate_fn=collate_dataset_output)))
    torch.testing.assert_close(batch.target, x[observed])
    torch.testing.assert_close(batch.time, TIMES.expand(5, 3)[observed])
    torch.testing.assert_close(batch.data, x[:, 0].repeat_interleave(observed.sum(1), dim=0))


def test_times_of_all_are_times_of_each():
    x = trajectories(2, 4)
    same = TrajectoryDataset(x, TIMES, random_time=False)
    for times in ([TIMES] * 5, TIMES.expand(5, 3), TIMES.expand(5, 3).numpy()):
        data = TrajectoryDataset(list(x.numpy()), times, random_time=False)
        assert len(data) == len(same)
        for i in range(len(same)):
            for key in ("data", "time", "target"):
                assert torch.equal(data[i][key], same[i][key])


def nan_at(i):
    x = trajectories(2)
    x[i, 1, 0] = torch.nan
    return x


@pytest.mark.parametrize(
    ("x", "times", "message"),
    [
        (nan_at(3), TIMES, "1 of 5 trajectories contain NaN or infinity, the first .* number 3"),
        (trajectories(2), torch.tensor([0.0, 1.0, 0.5]), "increasing"),
        (trajectories(2), torch.tensor([0.0, 0.5, 0.5]), "increasing"),
        (trajectories(2), torch.tensor([0.0, 0.5, torch.nan]), "finite and increasing"),
        (trajectories(2), TIMES[:2], "one entry for each of the 3 states"),
        (trajectories(2)[:, :1], TIMES[:1], "at least two times"),
        (trajectories(2)[0], TIMES, r"shape \[N >= 1, T, \*input_dim\], got \[3, 2\]"),
        (trajectories(2)[:0], TIMES, "N >= 1"),
        (trajectories(2), [TIMES] * 4, "one entry for each of the 5 trajectories, got 4"),
        (trajectories(2), [TIMES] * 4 + [TIMES[:2]], "one entry for each of the 3 states"),
        (trajectories(2), [TIMES] * 4 + [TIMES + 0.1], "begin at the same time, got 0 to 0.1"),
        (trajectories(2), [TIMES] * 4 + [TIMES.flip(0)], "increasing"),
        ([torch.zeros(3, 2), torch.zeros(3, 4)], [TIMES] * 2, r"got \[3, 2\] and \[3, 4\]"),
        ([torch.zeros(3), torch.zeros(3)], [TIMES] * 2, r"must have shape \[T, \*input_dim\]"),
        ([], [TIMES], "trajectories, got 1"),
        ([torch.zeros(3, 2), torch.zeros(1, 2)], [TIMES, TIMES[:1]], "at least two times"),
        (trajectories(2), 1.0, "one entry for each of the 3 states"),
    ],
)
def test_bad_input(x, times, message):
    with pytest.raises(ValueError, match=message):
        TrajectoryDataset(x, times)


def test_an_index_out_of_range():
    with pytest.raises(IndexError, match="no item 5 in a data set of 5"):
        TrajectoryDataset(trajectories(2), TIMES)[5]
