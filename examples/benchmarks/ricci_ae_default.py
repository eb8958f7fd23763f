"""What the default weight of the curvature costs in a training from scratch.

    python examples/benchmarks/ricci_ae_default.py [--seeds 8] [--quick]

RicciAE as it is, beside the same without curvature: same seed, same data, pythae's pipeline, which
keeps the model of the lowest loss on the validation data. The data: 2,000 points of the Swiss roll
(standardised; one factor for all coordinates) and of three Gaussian clouds in planes of 784
dimensions, and the digits of scikit-learn. Cost: the mean error over the seeds, on validation and
on test points, over the mean without curvature; the same of the medians and of the geometric means,
since some trainings end far below the others; and of the median of R² at the codes of test points
and of its mean, which a few sharp folds decide (geometric means). In parentheses: the range of an
error, and 90 % intervals of ratios, by drawing seeds again with replacement. Every training is kept
in the output folder: started again, the script goes on with what is missing.
"""

import pathlib
import statistics
import sys
import tempfile
import time
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import lib.quiet
import torch
from lib.training import fit

from pythae_geometric import RicciAE, RicciAEConfig
from pythae_geometric.commands.arguments import at_least, parser
from pythae_geometric.commands.data import digits
from pythae_geometric.commands.files import kept, row_path
from pythae_geometric.commands.tables import table
from pythae_geometric.data.synthetic import swiss_roll, synthetic_gaussians


class Problem(NamedTuple):
    data: torch.Tensor
    sizes: tuple[int, int, int]  # for training, validation and test
    latent_dim: int
    epochs: int
    learning_rate: float


def roll():
    data = swiss_roll(4500, generator=torch.Generator().manual_seed(0)).data
    data = data - data.mean(0)
    return data / data.std()


def gaussians():
    return synthetic_gaussians(4500, generator=torch.Generator().manual_seed(0)).data


def shuffled_digits():
    images = digits()[0].flatten(1)
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]


def problems():
    small, sizes = shuffled_digits(), (1200, 300, 297)
    return {
        "Swiss roll": Problem(roll(), (2000, 500, 2000), 2, 200, 5e-3),
        "Gaussians": Problem(gaussians(), (2000, 500, 2000), 2, 60, 1e-3),
        "digits, d = 2": Problem(small, sizes, 2, 60, 1e-3),
        "digits, d = 8": Problem(small, sizes, 8, 20, 1e-3),
    }


@torch.no_grad()
def measure(model, data, points):
    error = (model.reconstruct(data) - data).square().sum(1).mean()
    z = model.embed(data)[:points]
    squared = model.curvature(z).square()
    return float(error), float(squared.median()), float(squared.mean())


def one_training(problem, weight, seed, epochs):
    """Errors, curvatures and seconds of one model."""
    train, valid, test = problem.data[: sum(problem.sizes)].split(problem.sizes)
    fields = {"latent_dim": problem.latent_dim, "curvature_weight": weight}
    torch.manual_seed(seed)
    model = RicciAE(RicciAEConfig(input_dim=tuple(train.shape[1:]), **fields))
    training = {"learning_rate": problem.learning_rate, "num_epochs": epochs}
    training |= {"per_device_train_batch_size": 100, "per_device_eval_batch_size": 500}
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = fit(model, train, folder, eval_data=valid, seed=seed, **training)
        model = RicciAE.load_from_folder(path).eval()
    seconds = time.process_time() - start
    points = 500 if problem.latent_dim == 2 else 100
    error, median, mean = measure(model, test, points)
    row = {"test": error, "median": median, "mean": mean, "seconds": seconds}
    return row | {"validation": measure(model, valid, 1)[0]}


def ratio(rows, key, statistic):
    """A statistic of a figure over that without curvature, with its 90 % interval."""
    pairs = torch.tensor([[pair[0][key], pair[1][key]] for pair in rows], dtype=torch.float64)

    def of(pairs):
        none, ours = (statistic(column.tolist()) for column in pairs.T)
        return ours / none

    cell = f"{of(pairs):.2f}"
    if len(rows) == 1:
        return cell
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(len(rows), (1000, len(rows)), generator=generator)
    low, high = statistics.quantiles([of(pairs[i]) for i in draws], n=20)[::18]
    return f"{cell} ({low:.2f} to {high:.2f})"


def errors(rows, kind):
    """Mean, least and largest validation error, without (0) or with (1) curvature."""
    values = [pair[kind]["validation"] for pair in rows]
    return f"{statistics.fmean(values):.2g} ({min(values):.2g} to {max(values):.2g})"


def main():
    p = parser(__doc__, "outputs/ricci_ae_default")
    p.add_argument("--seeds", type=at_least(1), default=8, help="trainings of each kind (8)")
    p.add_argument("--data", nargs="+", help="only these")
    args = p.parse_args()
    lib.quiet.settle(1)
    header = "data, seeds, error without, error, ratio of means, of medians, geometric mean"
    header += ", test error: ratio of means, median R²: ratio, mean R²: ratio, seconds: ratio"
    print("\n".join(table(header.split(", "), [])))
    for name, problem in problems().items():
        if args.data and name not in args.data:
            continue
        seeds, epochs = (1, 1) if args.quick else (args.seeds, problem.epochs)
        rows = []
        for seed in range(seeds):
            pair = []
            for weight in (0.0, None):
                path = row_path(args.output_dir, name, epochs, seed, weight)
                pair.append(kept(path, one_training, problem, weight, seed, epochs))
            rows.append(pair)
        mean, geometric = statistics.fmean, statistics.geometric_mean
        cells = [name, seeds, errors(rows, 0), errors(rows, 1)]
        for statistic in (mean, statistics.median, geometric):
            cells.append(ratio(rows, "validation", statistic))
        cells.append(ratio(rows, "test", mean))
        cells += [ratio(rows, key, geometric) for key in ("median", "mean")]
        seconds = [sum(pair[kind]["seconds"] for pair in rows) for kind in (0, 1)]
        print(table([*cells, f"{seconds[1] / seconds[0]:.2g}"], [])[0], flush=True)


if __name__ == "__main__":
    main()
