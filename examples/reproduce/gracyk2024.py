"""VAE-DLM on the Burgers equation: the table and figures of the source.

    python examples/reproduce/gracyk2024.py [--output-dir outputs/gracyk2024] [--quick]
        [--steps 5500] [--batch-size 125] [--device cpu]

Four methods of the same code, trained by pythae's trainer on the same 5,000 solutions for the same
number of steps: see METHODS. The source names two variants, "unweighted" and "weighted", and does
not say what is weighted; the penalty here is a reading of ours. Errors are relative L1 against the
clean solution, decoded from the posterior mean of the state at time 0, which is perturbed in four
ways. A fifth training, of a fifth of the steps, drops the steady term (alpha = 0) for the figure on
degeneracy. A run that was interrupted goes on with the next method.
"""

import json
import math
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import lib.quiet
import matplotlib.pyplot as plt
import torch
from lib.costs import measured
from lib.figures import save
from lib.tables import page, spread
from lib.training import fit
from pythae.models import AutoModel
from pythae.trainers.training_callbacks import TrainingCallback

from pythae_geometric import VAE_DLM, VAE_DLM_Config, plotting
from pythae_geometric.commands.arguments import at_least, parser
from pythae_geometric.commands.files import (
    kept_tensors,
    read_json,
    replaced,
    write_json,
    write_text,
)
from pythae_geometric.commands.tables import table
from pythae_geometric.data.burgers import burgers
from pythae_geometric.data.trajectories import TrajectoryDataset

NO_GEOMETRY = {"metric_weight": 0.0, "flow_weight": 0.0}
METHODS = {
    "VAE": {"manifold_map": False, **NO_GEOMETRY},  # the decoder sees (u, t) itself
    "VAE, extended": NO_GEOMETRY,  # the networks of VAE-DLM
    "VAE-DLM": {},  # metric match and flow residual with weight 1
    "VAE-DLM, penalty": {"eigenvalue_weight": 1.0},
}
WITHOUT_STEADY_TERM = "VAE-DLM, alpha = 0"
SETS = {
    "in distribution": "clean",
    "1: noise sd 1 on 51 points": (1.0, 1.0, 51),
    "2: x1.15, noise sd 0.65 on 101 points": (1.15, 0.65, 101),
    "3: noise sd 0.5 on all points": (1.0, 0.5, 201),
    "4: noise sd 1 on all points": (1.0, 1.0, 201),
}
TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Measured by running the author's networks with the published weights, on the 1,000 test solutions
# and the noise of this script: means at the five times, and mean and standard error of the average
# over them.
PUBLISHED = {
    "in distribution": ((0.0947, 0.0276, 0.0290, 0.0295, 0.0481), (0.0458, 0.0015)),
    "1: noise sd 1 on 51 points": ((0.2258, 0.1658, 0.1592, 0.1662, 0.1841), (0.1802, 0.0096)),
    "2: x1.15, noise sd 0.65 on 101 points": (
        (0.2654, 0.1991, 0.1678, 0.1638, 0.1746),
        (0.1942, 0.0088),
    ),
    "3: noise sd 0.5 on all points": ((0.2212, 0.1575, 0.1483, 0.1538, 0.1710), (0.1704, 0.0091)),
    "4: noise sd 1 on all points": ((0.4446, 0.3346, 0.3132, 0.3157, 0.3300), (0.3476, 0.0227)),
}
# Trained with decoupled weight decay too.
DECAYED, WEIGHT_DECAY = ("VAE", "VAE-DLM, penalty"), 1.0
LEARNING_RATE = 7e-4
SEEN = 200  # of the test solutions, for the errors during training


def perturbed(x0):
    """The five sets of states at time 0, ``{name: [N, 201]}``."""
    sets = {}
    for seed, (name, change) in enumerate(SETS.items()):
        generator = torch.Generator().manual_seed(100 + seed)
        if change == "clean":
            sets[name] = x0
            continue
        factor, deviation, count = change
        points = torch.rand(x0.shape, generator=generator).argsort(1)[:, :count]
        noise = deviation * torch.randn(x0.shape, generator=generator)
        mask = torch.zeros_like(x0).scatter_(1, points, 1.0)
        sets[name] = factor * x0 + mask * noise
    return sets


def relative_error(model, x0, truth):
    """Relative L1 error of each solution at each time, ``[N, T]``."""
    prediction = model.evolve(x0.to(next(model.parameters())), TIMES).cpu()
    return (prediction - truth).abs().sum(-1) / truth.abs().sum(-1)


def at_times(trajectories):
    """The states ``[N, T, 201]`` at the times of the table."""
    return trajectories[:, [round(200 * t) for t in TIMES]]


class Progress(TrainingCallback):
    """Errors, and the metric of the manifold, as training goes on."""

    def __init__(self, model, sets, truth, steps_per_epoch, every):
        self.model, self.truth, self.every = model, truth, every
        self.sets = {name: sets[name] for name in list(sets)[:2]}
        self.steps_per_epoch, self.epoch, self.record = steps_per_epoch, 0, []

    def on_epoch_end(self, training_config, **kwargs):
        self.epoch += 1
        if self.epoch % self.every and self.epoch != training_config.num_epochs:
            return
        row = {"step": self.epoch * self.steps_per_epoch}
        for name, x0 in self.sets.items():
            row[name] = float(relative_error(self.model, x0, self.truth).mean())
        row.update(diagonal(self.model, self.sets["in distribution"]))
        self.record.append(row)
        print(json.dumps(row), flush=True)


@torch.no_grad()
def diagonal(model, x0):
    """Mean diagonal of the manifold's metric, and smallest eigenvalue, at the codes, t = 1/2."""
    if model.decoder.manifold_map is None:
        return {}
    mode = model.training
    u, _ = model.eval().posterior(x0.to(next(model.parameters())))
    model.train(mode)
    g = model.metric_at(0.5)(u)
    return {
        "diagonal": g.diagonal(dim1=1, dim2=2).mean(0).tolist(),
        "smallest eigenvalue": float(torch.linalg.eigvalsh(g)[:, 0].median()),
    }


def train(name, fields, data, test, args, weight_decay=0.0, share=1):
    """Train a method for a share of the steps, or read what an earlier run left of it."""
    key = f"gracyk2024_{name}{', decay' * bool(weight_decay)}"
    key = "".join(c if c.isalnum() else "_" for c in key)
    path = os.path.join(args.output_dir, key)
    batch = min(args.batch_size, len(data.trajectories))
    per_epoch = -(-len(data.trajectories) // batch)
    epochs = max(1, round(args.steps // share / per_epoch))
    settings = {
        "steps": epochs * per_epoch,
        "batch size": batch,
        "solutions": len(data.trajectories),
        "learning rate": LEARNING_RATE,
    } | ({"weight decay": weight_decay} if weight_decay else {})
    result = read_json(path + ".json")
    if result is not None and result["settings"] == settings:
        return result, AutoModel.load_from_folder(path)
    sets, truth = perturbed(test[:SEEN, 0]), at_times(test[:SEEN])
    torch.manual_seed(0)
    model = VAE_DLM(VAE_DLM_Config(input_dim=(201,), **args.sizes, **fields))
    progress = Progress(model, sets, truth, per_epoch, max(1, epochs // 25))
    print(f"{key}: {settings['steps']} steps", flush=True)
    with measured() as spent:
        folder = fit(
            model,
            TrajectoryDataset(*data[:2]),
            os.path.join(args.output_dir, "training"),
            callbacks=[progress],
            num_epochs=epochs,
            learning_rate=LEARNING_RATE,
            per_device_train_batch_size=batch,
            optimizer_cls="AdamW",  # Adam, where there is no decay
            optimizer_params={"weight_decay": weight_decay},
            scheduler_cls="CosineAnnealingLR",
            scheduler_params={"T_max": epochs, "eta_min": LEARNING_RATE / 100},
            no_cuda=args.device == "cpu",
            keep_best_on_train=True,
        )
    times = {"seconds": spent["wall_seconds"], "cpu seconds": spent["processor_seconds"]}
    result = {"settings": settings, **times, "progress": progress.record}
    model = AutoModel.load_from_folder(folder)  # of the epoch with the lowest loss
    model.save(path)
    write_json(path + ".json", result)
    return result, model


def report(results, errors, decayed, options):
    """The report: what ``train`` gave, and the errors ``{method: {set: [N, T]}}``, without and with
    weight decay."""
    settings, sets = next(iter(results.values()))["settings"], []
    for name in SETS:
        sets += ["", f"## {name[0].upper() + name[1:]}", "", *set_table(name, errors)]
    spent = [
        [name, r["settings"]["steps"], f"{r['seconds']:.0f}", f"{r['cpu seconds']:.0f}"]
        for name, r in results.items()
    ]
    return page(
        "gracyk2024",
        options=options,
        steps=settings["steps"],
        batch=settings["batch size"],
        solutions=settings["solutions"],
        rate=LEARNING_RATE,
        count=len(errors["VAE"]["in distribution"]),
        sets=sets[1:],
        averages=summary(errors),
        decay=WEIGHT_DECAY,
        decayed=summary(decayed),
        against=comparison(errors | {f"{n}, weight decay": e for n, e in decayed.items()}),
        verdicts=verdicts(errors),
        spent=table(["method", "steps", "wall seconds", "processor seconds"], spent),
    )


def set_table(set_name, errors):
    """Errors at each time, the lowest in bold."""
    rows, means = [], {name: error[set_name].mean(0) for name, error in errors.items()}
    best = torch.stack(list(means.values())).amin(0)
    for name, error in errors.items():
        parts = zip(means[name], error[set_name].std(0), means[name] == best, strict=True)
        cells = [(f"{mean:.4f} ± {deviation:.4f}", lowest) for mean, deviation, lowest in parts]
        rows.append([name, *(f"**{cell}**" if lowest else cell for cell, lowest in cells)])
    rows.append(["published", *(f"{x:.4f}" for x in PUBLISHED[set_name][0])])
    return table(["method", *(f"t = {t:g}" for t in TIMES)], rows)


def summary(errors):
    """Averages over the times, and gaps to the methods without geometry, pair by pair."""
    others, rows = [name for name in errors if not name.startswith("VAE-DLM")], []
    for set_name in SETS:
        average = {name: error[set_name].mean(1) for name, error in errors.items()}
        for name, value in average.items():
            pairs = [] if name in others else [value - average[other] for other in others]
            cells = [spread(values, 4, of_mean=True) for values in (value, *pairs)]
            gaps = cells[1:] or [""] * len(others)
            rows.append([set_name, name, cells[0], f"{value.median():.4f}", *gaps])
    return table(["set", "method", "mean", "median", *(f"gap to {o}" for o in others)], rows)


def comparison(errors):
    """Averages over the times beside the published ones."""
    rows = []
    for set_name, (_, (published, its_error)) in PUBLISHED.items():
        cells = [set_name, f"{published:.4f} ± {its_error:.4f}"]
        for sets in errors.values():
            values = sets[set_name].mean(1)
            mean, error = float(values.mean()), float(values.std()) / len(values) ** 0.5
            far = (mean - published) / math.hypot(error, its_error)
            cells.append(f"{mean:.4f} ± {error:.4f} ({far:+.1f})")
        rows.append(cells)
    return table(["set", "published", *errors], rows)


def verdicts(errors):
    """Which cells of the claims hold; by how many standard errors those miss that do not."""
    lines, cells = [], 5 * (len(SETS) - 1)
    geometric = [name for name in errors if name.startswith("VAE-DLM")]
    for name in geometric:
        for set_name, (published, _) in PUBLISHED.items():
            missed = above(errors[name][set_name] - torch.tensor(published))
            held = f"at most the published errors at {5 - len(missed)} of 5 times"
            misses = f"; above at {', '.join(missed)}" if missed else ""
            lines.append(f"- {name}, {set_name}: {held}{misses}.")
        for other in (n for n in errors if n not in geometric):
            missed = [
                f"set {set_name[0]}, {cell}"
                for set_name in list(SETS)[1:]
                for cell in above(errors[name][set_name] - errors[other][set_name])
            ]
            held = f"at most its errors in {cells - len(missed)} of {cells} cells"
            misses = f"; above in {'; '.join(missed)}" if missed else ""
            lines.append(f"- {name} against {other}, out of distribution: {held}{misses}.")
    return lines


def above(gaps):
    """The times where a gap ``[N, T]`` is above 0 on average, and its size."""
    means, scale = gaps.mean(0), gaps.std(0) / len(gaps) ** 0.5
    return [
        f"t = {t:g} (+{m:.4f}, {m / s:.1f} standard errors)"
        for t, m, s in zip(TIMES, means.tolist(), scale.tolist(), strict=True)
        if m > 0
    ]


def subplots(count, width, height=3.5, **options):
    return plt.subplots(1, count, figsize=(width, height), layout="constrained", **options)


def draw_training(results, without, folder):
    """The errors of all methods as training goes on; the metric with and without steady term."""
    figure, axes = subplots(2, 9)
    for ax, set_name in zip(axes, list(SETS)[:2], strict=True):
        for name, result in results.items():
            record = result["progress"]
            ax.semilogy([r["step"] for r in record], [r[set_name] for r in record], label=name)
        ax.set(title=set_name, xlabel="training step", ylabel="relative L1 error, mean over times")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save(figure, folder, "gracyk2024_robustness.png")

    figure, axes = subplots(2, 9)
    with_term, last = results["VAE-DLM"]["progress"], without["progress"][-1]["step"]
    with_term = [r for r in with_term if r["step"] <= last] or with_term[:1]
    for label, record, style in (
        ("with steady term", with_term, "-"),
        ("without (alpha = 0)", without["progress"], "--"),
    ):
        steps = [r["step"] for r in record]
        for i, entry in enumerate(zip(*(r["diagonal"] for r in record), strict=True)):
            axes[0].semilogy(steps, entry, style, color=f"C{i}")
        smallest = [r["smallest eigenvalue"] for r in record]
        axes[1].semilogy(steps, smallest, style, color="black", label=label)
    axes[0].set(title="diagonal of $J^T J$, mean over codes, t = 1/2", xlabel="training step")
    axes[1].set(title="its smallest eigenvalue, median", xlabel="training step")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    save(figure, folder, "gracyk2024_degeneracy.png")


@torch.no_grad()
def draw_solutions(models, test, data, args):
    """A solution and its prediction, the manifold over time, and solutions from the prior."""
    model, truth, folder = models["VAE-DLM"].cpu(), test[0], args.output_dir
    prediction = model.evolve(test[:1, 0], data.times)[0]
    axes = plotting.trajectory_error(truth, prediction, data.times, data.grid)
    save(axes[0].figure, folder, "gracyk2024_solution.png")
    every = 100 if args.quick else 10  # frames take most of the time of a small run
    animation = plotting.animate_trajectory(truth, prediction, data.times, data.grid, every=every)
    with replaced(os.path.join(folder, "gracyk2024_solution.gif")) as beside:
        animation.save(beside, writer="pillow", dpi=60, fps=8)
    plt.close(animation._fig)

    figure, axes = subplots(2, 9, 4)
    for ax, name in zip(axes, ("VAE, extended", "VAE-DLM"), strict=True):
        u, _ = models[name].cpu().posterior(test[:, 0])
        z = [models[name].decoder.points(u, torch.full_like(u[:, :1], t)) for t in TIMES]
        plotting.manifold_over_time(torch.stack(z), TIMES, ax=ax).set_title(name)
    save(figure, folder, "gracyk2024_manifold.png")

    figure, axes = subplots(4, 11, 3, sharey=True)
    u = torch.randn(4, model.latent_dim, generator=torch.Generator().manual_seed(3))
    for t in TIMES:
        for ax, x in zip(axes, model.decoder(u, t)["reconstruction"], strict=True):
            ax.plot(data.grid, x, color=plt.cm.viridis(t), label=f"t = {t:g}")
            ax.set_xlabel("x")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(TIMES)
    )
    save(figure, folder, "gracyk2024_generated.png")


def load(count, folder):
    """The solutions to train on, made once."""

    def make():
        return burgers(count, generator=torch.Generator().manual_seed(0)).trajectories

    found = kept_tensors(os.path.join(folder, f"burgers_{count}.pt"), make)
    return burgers(1)._replace(trajectories=found)


def main():
    p = parser(__doc__, "outputs/gracyk2024")
    p.add_argument("--steps", type=at_least(1), default=5500, help="of each method")
    p.add_argument("--batch-size", type=at_least(1), default=125)
    p.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    args = p.parse_args()
    lib.quiet.settle(1)
    args.sizes, count, tests = {}, 5000, 1000
    options = f" --steps {args.steps} --batch-size {args.batch_size}"
    if args.quick:
        args.sizes, count, tests, args.steps = {"hidden_dim": 32}, 40, 10, 6
        args.batch_size, options = 20, " --quick"
    data = load(count, args.output_dir)
    test = burgers(tests, generator=torch.Generator().manual_seed(1)).trajectories

    found = {name: train(name, fields, data, test, args) for name, fields in METHODS.items()}
    results, models = ({name: pair[i] for name, pair in found.items()} for i in (0, 1))
    decayed = {name: train(name, METHODS[name], data, test, args, WEIGHT_DECAY)[1]
               for name in DECAYED}  # fmt: skip
    without, _ = train(WITHOUT_STEADY_TERM, {"alpha": 0.0}, data, test, args, share=5)
    sets, truth = perturbed(test[:, 0]), at_times(test)
    errors, decayed_errors = (
        {
            name: {key: relative_error(model, x0, truth) for key, x0 in sets.items()}
            for name, model in group.items()
        }
        for group in (models, decayed)
    )
    draw_training(results, without, args.output_dir)
    draw_solutions(models, test[:SEEN], data, args)
    text = report(results, errors, decayed_errors, options)
    write_text(os.path.join(args.output_dir, "gracyk2024.md"), text)
    print(text)


if __name__ == "__main__":
    main()
