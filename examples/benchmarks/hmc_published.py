"""Metric-uniform sampling: the published algorithm against this package's, side by side.

- ``published``: ``examples/lib/published_hmc.py``, 100 steps of 10 leapfrog steps of size 0.01.
- ``ours``: ``geometry.hmc`` on ``PosteriorMetric(...).log_volume_and_grad``, as many steps, of size
  0.005. The published momenta have half the scale, so this is a walk of the same length.

Both take a batch of 500 chains in 16 dimensions, with 100 centroids. Codes are synthetic: normal
of deviation 1.16, with posteriors of deviation 0.035, as of a model that was trained on MNIST in
the regime of the source.

    python examples/benchmarks/hmc_published.py [--quick] [--threads N] [--rounds 5] [--device cuda]

prints

- seconds per sample. Time is proportional to the number of steps, so a few steps are timed in each
  round and the median over the rounds is scaled to 100 steps;
- peak memory above the inputs, in one step;
- the deviation per coordinate of the walk of whole chains, all 100 steps, that start far from every
  centroid, where the metric is flat. It should be 0.5 for both: steps * leapfrogs * size * scale of
  the momenta, divided by the root of the number of steps.
"""

import pathlib
import sys
from functools import partial

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from lib.arguments import at_least, parser
from lib.costs import in_turn
from lib.published_hmc import published_metric, published_samples
from lib.tables import table
from log_volume import peak_memory

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


def published(metric, codes, batch, steps, generator):
    return published_samples(metric, codes, batch, steps, LEAPFROGS, 0.01, batch, generator)


def ours(metric, codes, batch, steps, generator):
    start = codes[torch.randint(len(codes), (batch,), device=codes.device, generator=generator)]
    result = hmc(
        metric.log_volume_and_grad, start, steps, LEAPFROGS, 0.005, keep_chains=0,
        generator=generator,
    )  # fmt: skip
    return result.position, float(result.acceptance.mean())


def walk(way, codes, chains, seed):
    """Deviation per coordinate of chains that start far from every centroid, and its standard
    error."""
    far = torch.full_like(codes[:1], 50.0)
    generator = torch.Generator(codes.device).manual_seed(seed)
    end, _ = way(far, chains, STEPS, generator)
    moved = end - far
    deviation = float(moved.square().mean().sqrt())
    return deviation, deviation / (2 * moved.numel()) ** 0.5


def main():
    p = parser(__doc__)
    p.add_argument("--quick", action="store_true", help="a small problem and few steps")
    p.add_argument("--threads", type=at_least(1), help="threads of torch (default: its own choice)")
    p.add_argument("--rounds", type=at_least(1), default=5, help="timed rounds")
    p.add_argument("--device", default="cpu")
    args = p.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    d, K, batch, chains = 16, 100, 500, 50
    timed_steps = {"published": 2, "ours": STEPS}
    if args.quick:
        d, K, batch, chains, args.rounds = 4, 20, 50, 100, 2
        timed_steps = {"published": 1, "ours": 5}

    codes, theirs, metric = problem(d, K, args.device)
    ways = {"published": partial(published, theirs), "ours": partial(ours, metric)}
    generator = torch.Generator(args.device).manual_seed(1)
    runs = {
        name: lambda steps, way=way: way(codes, batch, steps, generator)
        for name, way in ways.items()
    }
    times = in_turn(
        {name: partial(run, timed_steps[name]) for name, run in runs.items()}, args.rounds
    )
    seconds = {name: t / timed_steps[name] * STEPS / batch for name, t in times.items()}
    memory = {
        name: peak_memory(lambda *_, run=run: run(1), None, codes) for name, run in runs.items()
    }
    walks = {
        name: walk(way, codes, chains, seed)
        for seed, (name, way) in enumerate(ways.items(), start=2)
    }

    print(
        f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads, float32; "
        f"d = {d}, {K} centroids, batch {batch}, {STEPS} steps of {LEAPFROGS} leapfrogs\n"
    )
    rows = []
    for name in ways:
        deviation, error = walks[name]
        timed = f"{args.rounds} x {timed_steps[name]}"
        flat = f"{deviation:.3f} ± {error:.3f}"
        rows.append([name, f"{seconds[name]:.3g}", timed, f"{memory[name]:.3g}", flat])
    header = ["seconds per sample", "timed steps", "peak memory, MB", "walk in the flat part"]
    print("\n".join(table(["", *header], rows)))
    print(
        f"\npublished / ours: {seconds['published'] / seconds['ours']:.1f} times the time, "
        f"{memory['published'] / memory['ours']:.1f} times the memory"
    )


if __name__ == "__main__":
    main()
