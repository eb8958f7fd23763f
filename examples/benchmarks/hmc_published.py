"""Metric-uniform sampling: the published algorithm against this package's, side by side.

- ``published``: ``examples/lib/published_hmc.py``, 100 steps of 10 leapfrog steps of size 0.01.
- ``ours``: ``geometry.hmc`` on ``PosteriorMetric(...).log_volume_and_grad``, as many steps, of size
  0.005. The published momenta have half the scale, so this is a walk of the same length.

Both take a batch of 500 chains in 16 dimensions, with 100 centroids, of synthetic codes as of a
model that was trained on MNIST in the regime of the source.

    python examples/benchmarks/hmc_published.py [--quick] [--threads N] [--device cuda]

A few steps are timed, in turn, and scaled to 100. Memory is that of one step, above the inputs. The
walk is the deviation per coordinate of whole chains that start far from every centroid, where the
metric is flat: it should be 0.5, steps * leapfrogs * size * scale of the momenta, divided by the
root of the number of steps.
"""

import pathlib
import sys
from functools import partial

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from lib.arguments import timing_arguments
from lib.costs import in_turn
from lib.published_hmc import published_metric, published_samples
from log_volume import peak_memory

from pythae_geometric.commands.tables import table
from pythae_geometric.geometry import PosteriorMetric, hmc

CODE_DEVIATION, POSTERIOR_DEVIATION, REGULARIZATION = 1.16, 0.035, 0.01
STEPS, LEAPFROGS = 100, 10


def problem(d, K, device):
    """Codes ``[50 K, d]``, and the same metric in both forms; the first codes are its centroids."""
    codes = CODE_DEVIATION * torch.randn(50 * K, d, generator=torch.Generator().manual_seed(0))
    codes = codes.to(device)
    variances = torch.full_like(codes[:K], POSTERIOR_DEVIATION**2)
    distances = torch.cdist(codes[:K], codes[:K]).fill_diagonal_(torch.inf)
    scalars = float(distances.amin(-1).max()), REGULARIZATION
    theirs = published_metric(codes[:K], variances.log(), *scalars)
    return codes, theirs, PosteriorMetric(codes[:K], 1 / variances, *scalars).to(device)


def published(metric, starts, chains, steps, generator):
    options = {"step_size": 0.01, "batch_size": chains, "generator": generator}
    return published_samples(metric, starts, chains, steps, LEAPFROGS, **options)[0]


def ours(metric, starts, chains, steps, generator):
    chosen = torch.randint(len(starts), (chains,), device=starts.device, generator=generator)
    options = {"step_size": 0.005, "keep_chains": 0, "generator": generator}
    return hmc(metric.log_volume_and_grad, starts[chosen], steps, LEAPFROGS, **options).position


def main():
    args = timing_arguments(__doc__)
    d, K, batch, chains, rounds, timed = 16, 100, 500, 50, 5, (2, STEPS)
    if args.quick:
        d, K, batch, chains, rounds, timed = 4, 20, 50, 100, 2, (1, 5)
    codes, theirs, metric = problem(d, K, args.device)
    ways = {"published": partial(published, theirs), "ours": partial(ours, metric)}
    timed = dict(zip(ways, timed, strict=True))
    generator = torch.Generator(args.device).manual_seed(1)
    calls = {name: partial(way, codes, batch, timed[name], generator) for name, way in ways.items()}
    times, far, rows = in_turn(calls, rounds), torch.full_like(codes[:1], 50.0), []
    for name, way in ways.items():
        seconds = times[name] / timed[name] * STEPS / batch
        memory = peak_memory(partial(way, codes, batch, 1, generator), args.device)
        moved = way(far, chains, STEPS, generator) - far
        walk = float(moved.square().mean().sqrt())
        flat = f"{walk:.3f} ± {walk / (2 * moved.numel()) ** 0.5:.3f}"
        rows.append([name, f"{seconds:.3g}", str(timed[name]), f"{memory:.3g}", flat])
    print(f"d = {d}, {K} centroids, batch {batch}, {STEPS} steps of {LEAPFROGS} leapfrogs\n")
    header = ["seconds per sample", "timed steps", "peak memory, MB", "walk in the flat part"]
    print("\n".join(table(["", *header], rows)))
    ratio, more = (float(rows[0][i]) / float(rows[1][i]) for i in (1, 3))
    print(f"\npublished / ours: {ratio:.1f} times the time, {more:.1f} times the memory")


if __name__ == "__main__":
    main()
