import math

import pytest
import torch
from scipy import stats

from pythae_geometric.geometry import (
    MixtureMetric,
    PullbackMetric,
    RowStreams,
    brownian_motion,
    hmc,
)
from pythae_geometric.geometry.brownian import walk

MASK = 2**64 - 1


def mixed(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def test_numbers_are_those_of_splitmix64():
    """By Python's integers. The hash itself is checked at the first numbers of its seed 1234567
    (those of the reference code of S. Vigna, https://prng.di.unimi.it/splitmix64.c)."""
    golden = 0x9E3779B97F4A7C15
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [mixed((1234567 + i * golden) & MASK) for i in (1, 2, 3)] == known

    drawn = RowStreams(seed=5, num_rows=3, first=7).uniform(4)
    for row in range(3):
        start = mixed((mixed((5 + golden) & MASK) + (7 + row) * golden) & MASK)
        numbers = [mixed((start + i * golden) & MASK) >> 11 for i in (1, 2, 3, 4)]
        assert drawn[row].tolist() == [n / 2**53 for n in numbers]


def test_rows_draw_the_same_in_any_batch():
    whole = RowStreams(0, 10)
    first, second = whole.normal(3), whole.uniform(2, 2)
    part = RowStreams(0, 4, first=3)
    assert torch.equal(part.normal(3), first[3:7]) and torch.equal(part.uniform(2, 2), second[3:7])

    # Rows that draw when others do not.
    alone, rows = RowStreams(0, 10), torch.tensor([8, 2])
    assert torch.equal(alone.normal(3, rows=rows), first[rows])
    assert torch.equal(alone.of(rows).uniform(2, 2), second[rows])
    assert torch.equal(alone.normal(3)[0], first[0])

    again = RowStreams(0, 10).beside(1)
    assert torch.equal(again.normal(3)[3:7], RowStreams(0, 4, first=3).beside(1).normal(3))


@pytest.mark.parametrize("draw", ["rows", "one row", "seeds", "beside"])
def test_numbers_are_independent_and_uniform(draw):
    """Over rows, within a row, over seeds, and over streams beside each other."""
    n = 20_000
    u = {
        "rows": lambda: RowStreams(1, n).uniform(2),
        "one row": lambda: RowStreams(1, 1).uniform(n, 2)[0],
        "seeds": lambda: torch.cat([RowStreams(seed, 1).uniform(2) for seed in range(n // 10)]),
        "beside": lambda: torch.stack(
            [RowStreams(1, n).uniform(), RowStreams(1, n).beside(1).uniform()], 1
        ),
    }[draw]()
    for x in (u[:, 0], u[:, 1]):
        assert stats.kstest(x.numpy(), "uniform").pvalue > 1e-3
    table = torch.histogramdd(u.double(), bins=[8, 8], range=[0.0, 1.0, 0.0, 1.0]).hist
    assert stats.chisquare(table.flatten().numpy()).pvalue > 1e-3
    neighbours = torch.corrcoef(torch.stack([u[:-1, 0], u[1:, 0]]))[0, 1]
    assert abs(float(neighbours)) < 4 / len(u) ** 0.5


def test_normal_numbers_are():
    x = RowStreams(2, 5000).normal(3)  # an odd number of each row
    assert x.shape == (5000, 3)
    assert stats.kstest(x.flatten().numpy(), "norm").pvalue > 1e-3
    correlation = torch.corrcoef(x.T) - torch.eye(3)
    assert float(correlation.abs().max()) < 4 / 5000**0.5


def normal(z):
    return -0.5 * z.square().sum(-1), -z


def two_humps():
    c = torch.tensor([[-2.0, 0.0], [2.0, 1.0]])
    return MixtureMetric(torch.tensor([0.3, 0.7]), c, 0.2 * torch.eye(2).expand(2, 2, 2))


def sheet(z):
    """It bends where the first coordinate is far from 0."""
    return torch.cat([z, (2 * z[:, :1].square()).sin()], 1)


RUNS = {
    "hmc": lambda streams, z: hmc(normal, z, 5, 3, 0.3, generator=streams).position,
    "motion": lambda streams, z: brownian_motion(sheet, z, 0.5, 6, generator=streams)[-1],
    "mixture": lambda streams, z: two_humps().sample(len(z), streams),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_batches_of_any_size_give_the_same_samples(run):
    z = torch.linspace(-1, 1, 80).view(40, 2)
    whole = run(RowStreams(3, 40), z)
    split = zip((0, 7, 30), z.split([7, 23, 10]), strict=True)
    parts = [run(RowStreams(3, len(part), first), part) for first, part in split]
    # Products of another number of rows round otherwise.
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-5)
    other = run(RowStreams(4, 40), z)
    assert float((other - whole).abs().min()) > 0


def test_the_motion_of_the_last_test_has_shortened_steps():
    """Whose noise is another stream of the row, drawn when others do not."""
    z = torch.linspace(-1, 1, 80).view(40, 2)
    walked = walk(PullbackMetric(sheet), z, 0.5, 6, generator=RowStreams(3, 40))
    assert 0 < int(walked.shortened.sum()) < 40


def test_the_mixture_is_drawn_by_its_weights():
    z = two_humps().sample(20_000, RowStreams(0, 20_000))
    right = float((z[:, 0] > 0).double().mean())
    assert abs(right - 0.7) < 4 * math.sqrt(0.21 / 20_000)


def test_bad_arguments():
    with pytest.raises(ValueError, match="2\\*\\*63"):
        RowStreams(2**63, 1)
    with pytest.raises(ValueError, match="streams for 3 rows, not for 2"):
        hmc(normal, torch.zeros(2, 2), 1, generator=RowStreams(0, 3))
    with pytest.raises(ValueError, match="num_rows"):
        RowStreams(0, -1)
    assert RowStreams(0, 0).normal(3).shape == (0, 3)
