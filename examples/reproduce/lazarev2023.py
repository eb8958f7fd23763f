"""Curvature of latent spaces: three planar clouds in 784 dimensions, and the Swiss roll.

    python examples/reproduce/lazarev2023.py [--output-dir FOLDER] [--seeds 3] [--quick]

The data sets of Lazarev (2023). Every comparison starts from one and the same autoencoder, trained
without curvature; from there it is trained for the same number of steps as it is ("none"), and with
each functional. All trainings are pythae's ``TrainingPipeline``, with AdamW. Writes
``lazarev2023.md``, ``lazarev2023.json`` and the pictures.

The weight of the functional rises during the second training (``Second`` in
lazarev2023_training.py): on the Gaussians large constant weights cost more error at equal
curvature. The study shows both.

The first training of the Swiss roll begins with a small piece of it, which grows over the surface
as it is learned (``Growing``): an autoencoder that sees the whole roll at once decides early which
latents its layers get, and tears it. For comparison "at once" trains on the whole roll from the
start. Everything is measured on points that were not trained on.
"""

import os
import pathlib
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import lib.quiet
import matplotlib.pyplot as plt
import numpy as np
import torch
from lazarev2023_training import (
    FULL,
    LOSSES,
    QUICK,
    STEPS_PER_EPOCH,
    first_training,
    gaussians_problem,
    roll_problem,
    second_training,
    seeded,
)
from lib.arguments import at_least, parser
from lib.files import write_json, write_text
from lib.tables import grouped, table
from matplotlib.colors import LogNorm
from sklearn.manifold import TSNE

from pythae_geometric import RicciAEConfig
from pythae_geometric.geometry import DegenerateMetricError

NOT_PICTURED = "total_squared, codes 60"  # to leave room
# Constant weights, as RicciAEConfig's are; and two that rise.
RISING = ", rising"
STUDY = {
    "total_squared, box": (0.01, 0.1, 1.0, 10.0, 100.0),
    "total_squared, codes": (1.0, 10.0, 100.0),
    "total_squared, codes" + RISING: (10.0, 100.0),
    "perelman_f": (-1.0, -0.1, -0.01, 0.01, 0.1, 1.0),
    "perelman_w": (-1.0, -0.1, -0.01, 0.01, 0.1, 1.0),
}


# Measures


def off_data(z):
    """Points uniform in the box of the codes."""
    low, high = z.amin(0), z.amax(0)
    return low + (high - low) * torch.rand(len(z), 2, generator=seeded(7))


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


# Tables


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


# Pictures


def latents(model, problem):
    with torch.no_grad():
        return model.encoder(problem.test).embedding


SHOWN = 2000


def draw_problem(problem, folder):
    """The data in three dimensions, their t-SNE, and the ideal flat picture."""
    figure = plt.figure(figsize=(12, 4), layout="constrained")
    test, flat, colour = (v[:SHOWN] for v in (problem.test.numpy(), problem.flat, problem.colour))
    _, _, axes = np.linalg.svd(test - test.mean(0), full_matrices=False)
    space = figure.add_subplot(1, 3, 1, projection="3d")
    shown = test if test.shape[1] == 3 else (test - test.mean(0)) @ axes[:3].T
    space.scatter(*shown.T, c=colour, s=2, cmap="turbo")
    space.set_title("data" if test.shape[1] == 3 else "data, three principal directions")
    perplexity = min(30, len(test) / 4)
    embedded = TSNE(random_state=0, perplexity=perplexity).fit_transform(test)
    for k, (points, title) in enumerate(((embedded, "t-SNE"), (flat, "ideal")), 2):
        ax = figure.add_subplot(1, 3, k)
        ax.scatter(*points.T, c=colour, s=2, cmap="turbo")
        ax.set(title=title, aspect="equal", xticks=[], yticks=[])
    figure.savefig(os.path.join(folder, f"{problem.file_name}_data.png"), dpi=90)
    plt.close(figure)


def draw_latents(models, problem, folder):
    """Latent spaces, and the curvature over them."""
    figure, axes = plt.subplots(2, len(models), figsize=(3.2 * len(models), 6.4), squeeze=False)
    grids = []
    for model in models.values():
        z = latents(model, problem)
        low, high = z.amin(0), z.amax(0)
        margin = 0.05 * (high - low)
        x, y = (
            torch.linspace(float(a), float(b), 80)
            for a, b in zip(low - margin, high + margin, strict=True)
        )
        with torch.no_grad():
            R = model.curvature(torch.cartesian_prod(x, y))
        grids.append((x, y, R.abs().view(80, 80).T.clamp(min=1e-8)))
    top = max(float(grid[2].quantile(0.99)) for grid in grids)
    scale = LogNorm(1e-5 * top, top, clip=True)
    for (title, model), column, grid in zip(models.items(), axes.T, grids, strict=True):
        z = latents(model, problem)[:SHOWN]
        column[0].scatter(*z.T, c=problem.colour[:SHOWN], s=2, cmap="turbo")
        column[0].set(title=title, aspect="equal", xticks=[], yticks=[])
        mesh = column[1].pcolormesh(*grid, norm=scale, cmap="magma", rasterized=True)
        column[1].scatter(*z[:300].T, c="white", s=0.3)
        column[1].set(aspect="equal", xticks=[], yticks=[])
    figure.colorbar(mesh, ax=axes[1], label="|R|", shrink=0.8)
    figure.savefig(
        os.path.join(folder, f"{problem.file_name}_latent.png"), dpi=90, bbox_inches="tight"
    )
    plt.close(figure)


# All of it


def compare(problem, seed, folder):
    """The rows of one seed; of the first one also the pictures."""
    start = first_training(problem, seed, problem.grows)
    plans = {name: (start, loss) for name, loss in LOSSES.items()}
    if problem.grows:
        once = first_training(problem, seed, grows=False)
        for name in ("none", "total_squared, box"):
            plans[f"{name}, at once"] = once, LOSSES[name]
    rows, models = [], {}
    for training, (begin, loss) in plans.items():
        clock = time.process_time()
        models[training], stopped = second_training(problem, begin, loss, seed)
        row = {"training": training, "seed": seed, "stopped": stopped}
        row["measures"] = measures(models[training], problem)
        rows.append(row)
        print(
            f"{problem.name}, seed {seed}, {training}: "
            + ", ".join(f"{k} {v:.3g}" for k, v in row["measures"].items())
            + f" ({time.process_time() - clock:.0f} s) {stopped}",
            flush=True,
        )
    if seed == 0:
        draw_problem(problem, folder)
        models.pop(NOT_PICTURED)
        draw_latents(models, problem, folder)
    return rows


def study(problem, epochs, tried):
    """Rows: the weights, from the first seed's autoencoder."""
    rows, start = [], first_training(problem, 0, problem.grows)
    for name, weights in {"none": (0.0,), **tried}.items():
        for weight in weights:
            loss = LOSSES[name.removesuffix(RISING)]._replace(weight=weight)
            if not name.endswith(RISING):
                loss = loss._replace(rise=1.0)
            model, stopped = second_training(problem, start, loss, 0, epochs)
            m = measures(model, problem)
            rows.append({"functional": name, "weight": weight, "stopped": stopped, **m})
            print(
                f"{problem.name}, study, {name} {weight:g}: MSE {m['MSE']:.3g}, "
                f"mean R² {m['mean R²']:.3g} {stopped}",
                flush=True,
            )
    return rows


def study_table(rows):
    lines = []
    for row in rows:
        cells = [row["weight"], row["MSE"] / rows[0]["MSE"], row["mean R²"]]
        weight, cost, curvature = f"{cells[0]:g}", f"{cells[1]:.3g}", f"{cells[2]:.3g}"
        stopped = "stopped" if row["stopped"] else ""
        lines.append([row["functional"], weight, cost, curvature, stopped])
    return table(["functional", "weight", "MSE / that of none", "mean R²", ""], lines)


def default_weight(results):
    """The largest weights of the study that cost little on every data set, and the default's."""
    costs = {  # of (loss, weight), on each data set
        (row["functional"], row["weight"]): [
            next(
                (r["MSE"] / part["study"][0]["MSE"], part["study"][0]["mean R²"] / r["mean R²"])
                for r in part["study"]
                if (r["functional"], r["weight"]) == (row["functional"], row["weight"])
            )
            for part in results.values()
        ]
        for row in next(iter(results.values()))["study"]
    }
    text = []
    for name in ("total_squared, box", "total_squared, codes"):
        cheap = [w for n, w in costs if n == name and max(c for c, _ in costs[n, w]) <= 1.1]
        text.append(f"{name}: {max(cheap):g}" if cheap else f"{name}: none")
    default = RicciAEConfig(input_dim=(3,)).curvature_weight
    of_default = costs["total_squared, box", default]
    return (
        "The largest weight in this study that costs at most 10 % more error on both data sets is, "
        f"for {'; '.join(text)}. The default of `RicciAEConfig`, {default:g} at points in the box, "
        "is for total_squared: it costs errors "
        f"{' and '.join(f'{c:.2f}' for c, _ in of_default)} times that of none, for a mean R² "
        f"{' and '.join(f'{g:.1f}' for _, g in of_default)} times lower ({', '.join(results)}). "
        "What it costs with Perelman's functionals is in the rows above."
    )


def task(build, seed, args):
    """Rows of one seed, or where it is None of the study; and the seconds they took."""
    lib.quiet.settle(1)
    # Of points where the regularisation decides the metric: counted in the measures.
    warnings.filterwarnings("ignore", message="The decoder's Jacobian has all but lost")
    clock = time.process_time()
    length = QUICK if args.quick else FULL
    problem = build(length)
    if seed is None:
        tried = {k: v[:1] for k, v in STUDY.items()} if args.quick else STUDY
        rows = study(problem, length.study, tried)
    else:
        rows = compare(problem, seed, args.output_dir)
    return rows, time.process_time() - clock


def report(results, seconds, seeds, quick):
    """The Markdown page."""
    length, text = QUICK if quick else FULL, []
    for name, part in results.items():
        text += ["", f"## {name}", "", *results_table(part["rows"]), "", *ratios(part["rows"]), ""]
        steps = length.study * STEPS_PER_EPOCH
        text += [f"Constant and rising weights, the first seed's autoencoder, {steps} steps:", ""]
        text += study_table(part["study"])
    text += ["", "## The default weight", "", default_weight(results)]
    option = " --quick" if quick else ""
    weights = "; ".join(
        f"{name} {loss.weight / loss.rise:.2g} to {loss.weight:g}"
        for name, loss in LOSSES.items()
        if loss.weight
    )
    intro = [
        "# Autoencoders regularised by curvature: results",
        "",
        f"`python examples/reproduce/lazarev2023.py{option}`, {seconds / 60:.0f} minutes of "
        "processor time, in two processes. "
        f"Mean ± standard deviation over {seeds} seeds; test points: "
        f"{length.num_test[0]} of the Gaussians, {length.num_test[1]} of the roll. MSE: squared "
        "error, summed over the dimensions. Off: at points uniform in the box of the codes. "
        "Distortion: standard deviation of the logarithms of the singular values of J over the "
        "data. Procrustes: share of the variance of the latent clouds that the ideal picture "
        "leaves out after the best similarity (each cloud may turn about its centre: the planes "
        "have no common frame). Spearman: of latent distances with distances on the sheet. Torn: "
        "share of points with one of 6 neighbours on the sheet more than 10 times as far away in "
        "the latent plane as is usual. At once: a first training on the whole roll from the start.",
        "Box: the loss at points uniform in the box of the batch's codes; codes: at the codes. "
        f"Weights, from the first epoch to the last: {weights}. 15, its rise and the length of the "
        "training were chosen on the Gaussians with other seeds (10 to 13) and other points; 5 in "
        "the box on the first seed of the roll. 60 was added when the first two seeds of the "
        "Gaussians had shown smaller errors at 15 than none: read its ratios with that in mind.",
    ]
    return "\n".join(intro + text) + "\n"


def main():
    p = parser(__doc__)
    p.add_argument("--output-dir", default="outputs/lazarev2023")
    p.add_argument("--seeds", type=at_least(1), default=3)
    p.add_argument("--quick", action="store_true", help="few steps, to see that it runs")
    args = p.parse_args()
    os.makedirs(args.output_dir, exist_ok=True)
    seeds = 1 if args.quick else args.seeds
    builds = {"Gaussians": gaussians_problem, "Swiss roll": roll_problem}
    results, seconds = {}, 0.0
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        plan = [(name, seed) for name in builds for seed in (*range(seeds), None)]
        futures = {key: pool.submit(task, builds[key[0]], key[1], args) for key in plan}
        for (name, seed), future in futures.items():
            rows, spent = future.result()
            part = results.setdefault(name, {"rows": []})
            seconds += spent
            if seed is None:
                part["study"] = rows
            else:
                part["rows"] += rows
    page = report(results, seconds, seeds, args.quick)
    base = os.path.join(args.output_dir, "lazarev2023")
    write_json(base + ".json", {"seconds": seconds, **results})
    write_text(base + ".md", page)
    print(page)


if __name__ == "__main__":
    main()
