"""Curvature of latent spaces: three planar clouds in 784 dimensions, and the Swiss roll.

    python examples/reproduce/lazarev2023.py [--output-dir FOLDER] [--seeds 3] [--quick]

The data sets of Lazarev (2023). Every comparison starts from one autoencoder, trained without
curvature; from there it is trained for the same number of steps as it is ("none"), and with each
functional, whose weight rises: on the Gaussians large constant weights cost more error at equal
curvature. The study shows both. The first training of the roll begins with a small piece, which
grows as it is learned: an autoencoder that sees the whole roll at once ("at once") tears it.
Everything is measured on points that were not trained on. The rows of a seed are kept in the output
folder when they are complete: started again, the script goes on with what is missing.
"""

import pathlib
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import lib.quiet

# isort: split
import lazarev2023_training as training
import matplotlib.pyplot as plt
import numpy as np
import torch
from lazarev2023_training import LOSSES
from lib.costs import processes
from lib.figures import save
from lib.tables import grouped, page
from matplotlib.colors import LogNorm
from sklearn.manifold import TSNE

from pythae_geometric.commands.arguments import at_least, parser
from pythae_geometric.commands.files import kept, row_path
from pythae_geometric.commands.tables import publish, table
from pythae_geometric.geometry import DegenerateMetricError

SHOWN = 2000  # points, in pictures
NOT_PICTURED = "total_squared, codes 60"  # to leave room
# Constant weights, and two that rise.
RISING = ", rising"
STUDY = {
    "total_squared, box": (0.01, 0.1, 1.0, 10.0, 100.0),
    "total_squared, codes": (1.0, 10.0, 100.0),
    "total_squared, codes" + RISING: (10.0, 100.0),
    "perelman_f": (-1.0, -0.1, -0.01, 0.01, 0.1, 1.0),
    "perelman_w": (-1.0, -0.1, -0.01, 0.01, 0.1, 1.0),
}


def off_data(z):
    """Points uniform in the box of the codes."""
    low, high = z.amin(0), z.amax(0)
    return low + (high - low) * torch.rand(len(z), 2, generator=training.seeded(7))


def squared_curvature(model, points):
    """R², or NaN where a training has made the metric degenerate."""
    try:
        return torch.cat([model.curvature(part).square() for part in points.split(2000)])
    except DegenerateMetricError:
        return torch.full((len(points),), torch.nan)


def measures(model, problem):
    model.eval()
    with torch.no_grad():
        z = model.encoder(problem.test).embedding
        x = model.decoder(z)["reconstruction"]
        on, off = squared_curvature(model, z), squared_curvature(model, off_data(z))
        singular = 0.5 * torch.linalg.eigvalsh(model.metric(z)).clamp(min=1e-12).log()
    return {
        "MSE": float((x - problem.test).square().sum(1).mean()),
        "mean R²": float(on.mean()),
        "max R²": float(on.max()),
        "mean R² off": float(off.mean()),
        "max R² off": float(off.max()),
        "distortion": float(singular.std()),
        **problem.measure(z.numpy()),
    }


def number(values, digits=2):
    values = np.asarray(values, dtype=float)
    mean, sd = values.mean(), values.std(ddof=min(1, len(values) - 1))
    if mean and not 0.01 <= abs(mean) < 1000:
        return f"{mean:.{digits - 1}e} ± {sd:.0e}"
    return f"{mean:.{digits}f} ± {sd:.{digits}f}"


def results_table(rows):
    """A row for each training, mean and deviation over the seeds."""
    names, lines = list(rows[0]["measures"]), []
    for (key,), group in grouped(rows, "training").items():
        stops = sum(bool(row["stopped"]) for row in group)
        note = f" (stopped in {stops} of {len(group)})" if stops else ""
        cells = [number([row["measures"][name] for row in group]) for name in names]
        lines.append([key + note, *cells])
    return table(["training", *names], lines)


def ratios(rows):
    """Against no regularisation, seed by seed."""
    base, lines = {row["seed"]: row["measures"] for row in rows if row["training"] == "none"}, []
    for row in rows:
        if row["training"] in LOSSES and row["training"] != "none":
            m, b = row["measures"], base[row["seed"]]
            cells = [m["MSE"] / b["MSE"]]
            cells += [b[f"mean R²{k}"] / m[f"mean R²{k}"] for k in ("", " off")]
            cells = [f"{value:.3g}" for value in cells]
            lines.append([row["training"], str(row["seed"]), *cells])
    header = ["training", "seed", "MSE / that of none", "mean R² of none / mean R²", "off data"]
    return table(header, lines)


def draw_problem(problem, folder):
    """The data in three dimensions, their t-SNE, and the ideal flat picture."""
    figure = plt.figure(figsize=(12, 4), layout="constrained")
    test, flat = problem.test.numpy()[:SHOWN], problem.flat[:SHOWN]
    _, _, axes = np.linalg.svd(test - test.mean(0), full_matrices=False)
    space = figure.add_subplot(1, 3, 1, projection="3d")
    shown = test if test.shape[1] == 3 else (test - test.mean(0)) @ axes[:3].T
    space.scatter(*shown.T, **problem.style(SHOWN))
    space.set_title("data" if test.shape[1] == 3 else "data, three principal directions")
    perplexity = min(30, len(test) / 4)
    embedded = TSNE(random_state=0, perplexity=perplexity).fit_transform(test)
    for k, (points, title) in enumerate(((embedded, "t-SNE"), (flat, "ideal")), 2):
        ax = figure.add_subplot(1, 3, k)
        ax.scatter(*points.T, **problem.style(SHOWN))
        ax.set(title=title, aspect="equal")
        ax.set_axis_off()
    save(figure, folder, f"{problem.file_name}_data.png", dpi=90)


@torch.no_grad()
def draw_latents(models, problem, folder):
    """Latent spaces, and the curvature over them."""
    shape = {"figsize": (2.4 * len(models) + 1, 5.2), "layout": "constrained"}
    figure, axes = plt.subplots(2, len(models), squeeze=False, **shape)
    codes = [model.encoder(problem.test).embedding for model in models.values()]
    grids = []
    for z, model in zip(codes, models.values(), strict=True):
        # Squares, so that all pictures have one size.
        middle, half = (z.amin(0) + z.amax(0)) / 2, 0.55 * float((z.amax(0) - z.amin(0)).max())
        x, y = (torch.linspace(m - half, m + half, 80) for m in middle.tolist())
        R = model.curvature(torch.cartesian_prod(x, y))
        grids.append((x, y, R.abs().view(80, 80).T.clamp(min=1e-8)))
    top = max(float(grid[2].quantile(0.99)) for grid in grids)
    scale = LogNorm(1e-5 * top, top, clip=True)
    for title, z, column, grid in zip(models, codes, axes.T, grids, strict=True):
        column[0].scatter(*z[:SHOWN].T, **problem.style(SHOWN))
        column[0].set_title(title.replace(", at once", ",\nat once"))
        mesh = column[1].pcolormesh(*grid, norm=scale, cmap="magma", rasterized=True)
        column[1].scatter(*z[:300].T, c="white", s=0.3)
        for ax in column:
            ax.set(aspect="equal", xlim=grid[0][[0, -1]], ylim=grid[1][[0, -1]])
            ax.set_axis_off()
    figure.colorbar(mesh, ax=axes[1], label="|R|")
    save(figure, folder, f"{problem.file_name}_latent.png", dpi=90)


def compare(problem, seed, folder):
    """The rows of one seed; of the first one also the pictures."""
    start = training.first_training(problem, seed, problem.grows)
    plans = {name: (start, loss) for name, loss in LOSSES.items()}
    if problem.grows:
        once = training.first_training(problem, seed, grows=False)
        for name in ("none", "total_squared, box"):
            plans[f"{name}, at once"] = once, LOSSES[name]
    rows, models = [], {}
    for name, (begin, loss) in plans.items():
        models[name], stopped = training.second_training(problem, begin, loss, seed)
        found = measures(models[name], problem)
        rows.append({"training": name, "seed": seed, "stopped": stopped, "measures": found})
        figures = ", ".join(f"{k} {v:.3g}" for k, v in found.items())
        print(f"{problem.name}, seed {seed}, {name}: {figures} {stopped}", flush=True)
    if seed == 0:
        draw_problem(problem, folder)
        models.pop(NOT_PICTURED)
        draw_latents(models, problem, folder)
    return rows


def study(problem, epochs, tried):
    """Rows: the weights, from the first seed's autoencoder."""
    rows, start = [], training.first_training(problem, 0, problem.grows)
    for name, weights in {"none": (0.0,), **tried}.items():
        for weight in weights:
            loss = LOSSES[name.removesuffix(RISING)]._replace(weight=weight)
            loss = loss if name.endswith(RISING) else loss._replace(rise=1.0)
            model, stopped = training.second_training(problem, start, loss, 0, epochs)
            m = measures(model, problem)
            rows.append({"functional": name, "weight": weight, "stopped": stopped, **m})
            figures = f"MSE {m['MSE']:.3g}, mean R² {m['mean R²']:.3g} {stopped}"
            print(f"{problem.name}, study, {name} {weight:g}: {figures}", flush=True)
    return rows


def study_table(rows):
    lines = []
    for row in rows:
        figures = row["weight"], row["MSE"] / rows[0]["MSE"], row["mean R²"]
        cells = [f"{value:.3g}" for value in figures]
        lines.append([row["functional"], *cells, "stopped" if row["stopped"] else ""])
    return table(["functional", "weight", "MSE / that of none", "mean R²", ""], lines)


def costs_of_weights(results):
    """``{(loss, weight): [(times the error, times flatter) on each data set]}``"""
    costs = {}
    for part in results.values():
        none = part["study"][0]
        for row in part["study"]:
            cost = row["MSE"] / none["MSE"], none["mean R²"] / row["mean R²"]
            costs.setdefault((row["functional"], row["weight"]), []).append(cost)
    return costs


def task(build, seed, args):
    """Rows of one seed, or where it is None of the study; and the seconds they took."""
    lib.quiet.settle(1)
    # Of points where the regularisation decides the metric: counted in the measures.
    warnings.filterwarnings("ignore", message="The decoder's Jacobian has all but lost")
    clock, length = time.process_time(), training.QUICK if args.quick else training.FULL
    problem = build(length)
    if seed is None:
        tried = {k: v[:1] for k, v in STUDY.items()} if args.quick else STUDY
        rows = study(problem, length.study, tried)
    else:
        rows = compare(problem, seed, args.output_dir)
    return rows, time.process_time() - clock


def report(results, seconds, seeds, quick):
    """The Markdown page."""
    length, problems = training.QUICK if quick else training.FULL, []
    steps = length.study * training.STEPS_PER_EPOCH
    for name, part in results.items():
        problems += ["", f"## {name}", "", *results_table(part["rows"]), "", *ratios(part["rows"])]
        title = f"Constant and rising weights, the first seed's autoencoder, {steps} steps:"
        problems += ["", title, "", *study_table(part["study"])]
    costs, cheap = costs_of_weights(results), []
    for name in ("total_squared, box", "total_squared, codes"):
        weights = [w for n, w in costs if n == name and max(c for c, _ in costs[n, w]) <= 1.1]
        cheap.append(f"{name}: {max(weights):g}" if weights else f"{name}: none")
    default = STUDY["total_squared, box"][0]
    of_default = costs["total_squared, box", default]
    return page(
        "lazarev2023",
        options=" --quick" * quick,
        minutes=seconds / 60,
        seeds=seeds,
        length=length,
        weights="; ".join(
            f"{name} {loss.weight / loss.rise:.2g} to {loss.weight:g}"
            for name, loss in LOSSES.items()
            if loss.weight
        ),
        problems=problems[1:],
        cheap="; ".join(cheap),
        default=default,
        costs=" and ".join(f"{cost:.2f}" for cost, _ in of_default),
        gains=" and ".join(f"{gain:.1f}" for _, gain in of_default),
        names=", ".join(results),
    )


def main():
    p = parser(__doc__, "outputs/lazarev2023")
    p.add_argument("--seeds", type=at_least(1), default=3)
    args = p.parse_args()
    seeds = 1 if args.quick else args.seeds
    builds = {"Gaussians": training.gaussians_problem, "Swiss roll": training.roll_problem}
    results, seconds = {name: {"rows": []} for name in builds}, 0.0
    with ProcessPoolExecutor(2, processes()) as pool:
        plan = [(name, seed) for name in builds for seed in (*range(seeds), None)]
        length, futures = (training.QUICK if args.quick else training.FULL), {}
        for name, seed in plan:
            key = name, "study" if seed is None else seed, length.num_samples
            path = row_path(args.output_dir, *key)
            futures[name, seed] = pool.submit(kept, path, task, builds[name], seed, args)
        for (name, seed), future in futures.items():
            rows, spent = future.result()
            seconds += spent
            if seed is None:
                results[name]["study"] = rows
            else:
                results[name]["rows"] += rows
    text = report(results, seconds, seeds, args.quick)
    print(publish(args.output_dir, "lazarev2023", text, {"seconds": seconds, **results}))


if __name__ == "__main__":
    main()
