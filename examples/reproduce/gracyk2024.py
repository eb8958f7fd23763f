"""VAE-DLM on the Burgers equation: the table and figures of the source.

    python examples/reproduce/gracyk2024.py [--output-dir outputs/gracyk2024] [--quick]
        [--steps 5500] [--batch-size 125] [--device cpu]

Four methods of the same code, trained by pythae's trainer on the same 5,000 solutions for the same
number of steps:

  VAE                 the decoder sees (u, t) itself (manifold_map=False)
  VAE, extended       the networks of VAE-DLM without geometry: metric and flow have weight 0
  VAE-DLM             metric match and flow residual with weight 1
  VAE-DLM, penalty    the same, and the eigenvalue penalty with weight 1

The source names its two variants "unweighted" and "weighted" and does not say what is weighted; the
penalty here is a reading of ours. Errors are relative L1 against the clean solution, decoded from
the posterior mean of the state at time 0, which is perturbed in four ways. A fifth training, of a
fifth of the steps, drops the steady term (alpha = 0) for the figure on degeneracy.

Results are written as each method finishes, and a run that was interrupted goes on with the next
method. Writes ``gracyk2024.md``, ``gracyk2024_METHOD.json``, the trained models and the pictures.
"""

import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import lib.quiet
import matplotlib.pyplot as plt
import torch
from lib.arguments import at_least, parser
from lib.files import read_json, replaced, write_json, write_text
from lib.tables import spread, table
from lib.training import fit
from pythae.models import AutoModel
from pythae.trainers.training_callbacks import TrainingCallback

from pythae_geometric import VAE_DLM, VAE_DLM_Config, plotting
from pythae_geometric.data.burgers import burgers
from pythae_geometric.data.trajectories import TrajectoryDataset

NO_GEOMETRY = {"metric_weight": 0.0, "flow_weight": 0.0}
METHODS = {
    "VAE": {"manifold_map": False, **NO_GEOMETRY},
    "VAE, extended": NO_GEOMETRY,
    "VAE-DLM": {},
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


def train(name, fields, data, test, steps, args, weight_decay=0.0):
    """Train a method, or read what an earlier run left of it."""
    key = name + (", decay" if weight_decay else "")
    key = "gracyk2024_" + "".join(c if c.isalnum() else "_" for c in key)
    path = os.path.join(args.output_dir, key)
    batch = min(args.batch_size, len(data.trajectories))
    per_epoch = -(-len(data.trajectories) // batch)
    epochs = max(1, round(steps / per_epoch))
    settings = {
        "steps": epochs * per_epoch,
        "batch size": batch,
        "solutions": len(data.trajectories),
        "learning rate": LEARNING_RATE,
        **({"weight decay": weight_decay} if weight_decay else {}),
    }
    result = read_json(path + ".json")
    if result is not None and result["settings"] == settings:
        return result, AutoModel.load_from_folder(path)
    sets, truth = perturbed(test[:SEEN, 0]), at_times(test[:SEEN])
    torch.manual_seed(0)
    model = VAE_DLM(VAE_DLM_Config(input_dim=(201,), **args.sizes, **fields))
    progress = Progress(model, sets, truth, per_epoch, max(1, epochs // 25))
    print(f"{key}: {settings['steps']} steps", flush=True)
    begin, cpu = time.perf_counter(), time.process_time()
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
    result = {
        "settings": settings,
        "seconds": time.perf_counter() - begin,
        "cpu seconds": time.process_time() - cpu,
        "progress": progress.record,
    }
    model = AutoModel.load_from_folder(folder)  # of the epoch with the lowest loss
    model.save(path)
    write_json(path + ".json", result)
    return result, model


def report(results, errors, decayed, options):
    """The report: what ``train`` gave, and the errors ``{method: {set: [N, T]}}``, without and with
    weight decay."""
    lines = [
        "# VAE-DLM on the Burgers equation",
        "",
        f"`python examples/reproduce/gracyk2024.py{options}`",
        "",
    ]
    settings = next(iter(results.values()))["settings"]
    count = len(errors["VAE"]["in distribution"])
    lines += [
        f"Each method: {settings['steps']} steps of Adam on batches of {settings['batch size']}, "
        f"from {settings['solutions']} solutions, with one random time each; learning rate "
        f"{settings['learning rate']:g}, falling as a cosine to a hundredth. The seed is the same. "
        f"Relative L1 error, mean ± standard deviation over {count} test solutions, against the "
        "clean solution, decoded from the posterior mean.",
        "",
        '"published" is what the published weights give on the 1,000 test solutions of the full '
        "run, with the same noise. Bold: the lowest of our four. The two VAE-DLM rows are the flow "
        "with weight 1, and with the eigenvalue penalty too: the source's "
        '"unweighted" and "weighted", as far as that can be told.',
    ]
    for set_name in SETS:
        rows = []
        means = {name: error[set_name].mean(0) for name, error in errors.items()}
        best = torch.stack(list(means.values())).amin(0)
        for name, error in errors.items():
            parts = zip(means[name].tolist(), error[set_name].std(0).tolist(), strict=True)
            cells = [f"{m:.4f} ± {s:.4f}" for m, s in parts]
            cells = [f"**{c}**" if means[name][i] == best[i] else c for i, c in enumerate(cells)]
            rows.append([name, *cells])
        rows.append(["published", *(f"{x:.4f}" for x in PUBLISHED[set_name][0])])
        lines += ["", f"## {set_name[0].upper() + set_name[1:]}", ""]
        lines += table(["method", *(f"t = {t:g}" for t in TIMES)], rows)
    lines += [
        "",
        "## Averages over the five times",
        "",
        "Mean ± standard error, median, and the gap to the methods without geometry on the same "
        "states, ± its standard error (below 0: the geometric model is better). The deviations "
        "above are large since some solutions are nearly 0, and their relative errors huge: "
        "medians are about half of the means.",
        "",
        *summary(errors),
        "",
        f"The same with decoupled weight decay ({WEIGHT_DECAY:g}). The initial states span few "
        "directions; in the others the first weights keep their initial values without it, and "
        "noise passes through them.",
        "",
        *summary(decayed),
    ]
    averages = {
        name: {key: mean_and_error(error.mean(1)) for key, error in sets.items()}
        for name, sets in [
            *errors.items(),
            *((f"{n}, weight decay", e) for n, e in decayed.items()),
        ]
    }
    lines += [
        "",
        "## Against the published weights",
        "",
        "Averages over the five times, mean ± standard error. In brackets: how far this is from "
        "the published weights, in standard errors of the difference (below 0: ours is better). "
        "They are those of two independent means, since the errors of the published weights on "
        "single solutions were not kept; the solutions are the same, so the differences are "
        "probably known better than this. Each method was trained once, and standard errors are "
        "over the test solutions only.",
        "",
        *comparison(averages),
        "",
        "## What was to be shown",
        "",
        "Single times. Standard errors of a gap to the published errors are those of our mean "
        "alone; those of the published means should be about as large.",
        "",
        *verdicts(errors),
    ]
    spent = [
        [name, str(r["settings"]["steps"]), f"{r['seconds']:.0f}", f"{r['cpu seconds']:.0f}"]
        for name, r in results.items()
    ]
    lines += ["", "## Time", ""]
    lines += table(["method", "steps", "wall seconds", "processor seconds"], spent)
    return "\n".join(lines) + "\n"


def summary(errors):
    """Averages over the times, and gaps to the methods without geometry, pair by pair."""
    others = [name for name in errors if not name.startswith("VAE-DLM")]
    rows = []
    for set_name in SETS:
        average = {name: error[set_name].mean(1) for name, error in errors.items()}
        for name, value in average.items():
            gaps = [
                "" if name in others else spread(value - average[o], 4, of_mean=True)
                for o in others
            ]
            rows.append(
                [set_name, name, spread(value, 4, of_mean=True), f"{value.median():.4f}", *gaps]
            )
    return table(["set", "method", "mean", "median", *(f"gap to {o}" for o in others)], rows)


def mean_and_error(values):
    return float(values.mean()), float(values.std()) / len(values) ** 0.5


def comparison(averages):
    """The averages ``{method: {set: (mean, standard error)}}`` beside the published ones."""
    rows = []
    for set_name, (_, published) in PUBLISHED.items():
        cells = [set_name, f"{published[0]:.4f} ± {published[1]:.4f}"]
        for average in averages.values():
            mean, error = average[set_name]
            far = (mean - published[0]) / (error**2 + published[1] ** 2) ** 0.5
            cells.append(f"{mean:.4f} ± {error:.4f} ({far:+.1f})")
        rows.append(cells)
    return table(["set", "published", *averages], rows)


def verdicts(errors):
    """Which cells of the claims hold; by how many standard errors those miss that do not."""
    lines = []
    geometric = [name for name in errors if name.startswith("VAE-DLM")]
    for name in geometric:
        for set_name, (published, _) in PUBLISHED.items():
            missed = above(errors[name][set_name] - torch.tensor(published))
            lines.append(
                f"- {name}, {set_name}: at most the published errors at {5 - len(missed)} of 5 "
                "times" + (f"; above at {', '.join(missed)}." if missed else ".")
            )
        for other in (n for n in errors if n not in geometric):
            missed = [
                f"set {set_name[0]}, {cell}"
                for set_name in list(SETS)[1:]
                for cell in above(errors[name][set_name] - errors[other][set_name])
            ]
            cells = 5 * (len(SETS) - 1)
            lines.append(
                f"- {name} against {other}, out of distribution: at most its errors in "
                f"{cells - len(missed)} of {cells} cells"
                + (f"; above in {'; '.join(missed)}." if missed else ".")
            )
    return lines


def above(gaps):
    """The times where a gap ``[N, T]`` is above 0 on average, and its size."""
    means, scale = gaps.mean(0), gaps.std(0) / len(gaps) ** 0.5
    return [
        f"t = {t:g} (+{m:.4f}, {m / s:.1f} standard errors)"
        for t, m, s in zip(TIMES, means.tolist(), scale.tolist(), strict=True)
        if m > 0
    ]


def draw(results, models, without, test, data, folder):
    """The figures, from the saved results and models."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for ax, set_name in zip(axes, list(SETS)[:2], strict=True):
        for name, result in results.items():
            record = result["progress"]
            ax.semilogy([r["step"] for r in record], [r[set_name] for r in record], label=name)
        ax.set(title=set_name, xlabel="training step", ylabel="relative L1 error, mean over times")
    axes[0].legend(fontsize=8)
    save(figure, folder, "robustness")

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for label, result, style in (
        ("with steady term", results["VAE-DLM"], "-"),
        ("without (alpha = 0)", without, "--"),
    ):
        last = without["progress"][-1]["step"]
        record = [r for r in result["progress"] if r["step"] <= last] or result["progress"][:1]
        steps = [r["step"] for r in record]
        for i in range(len(record[0]["diagonal"])):
            name = label if i == 0 else None
            entry = [r["diagonal"][i] for r in record]
            axes[0].semilogy(steps, entry, style, color=f"C{i}", label=name)
        axes[1].semilogy(
            steps, [r["smallest eigenvalue"] for r in record], "k" + style, label=label
        )
    axes[0].set(title="diagonal of $J^T J$, mean over codes, t = 1/2", xlabel="training step")
    axes[1].set(title="its smallest eigenvalue, median", xlabel="training step")
    for ax in axes:
        ax.legend(fontsize=8)
    save(figure, folder, "degeneracy")

    model, truth = models["VAE-DLM"], test[0]
    prediction = model.evolve(test[:1, 0].to(next(model.parameters())), data.times)[0].cpu()
    axes = plotting.trajectory_error(truth, prediction, data.times, data.grid)
    save(axes[0].figure, folder, "solution")
    animation = plotting.animate_trajectory(truth, prediction, data.times, data.grid, every=10)
    path = os.path.join(folder, "gracyk2024_solution.gif")
    with replaced(path) as beside:
        animation.save(beside, writer="pillow", dpi=60, fps=8)
    plt.close(animation._fig)

    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for ax, name in zip(axes, ("VAE, extended", "VAE-DLM"), strict=True):
        with torch.no_grad():
            u, _ = models[name].posterior(test[:, 0].to(next(models[name].parameters())))
            z = [models[name].decoder.points(u, torch.full_like(u[:, :1], t)) for t in TIMES]
        plotting.manifold_over_time(torch.stack(z), TIMES, ax=ax).set_title(name)
    save(figure, folder, "manifold")

    figure, axes = plt.subplots(1, 4, figsize=(11, 2.6), sharey=True, layout="constrained")
    u = torch.randn(4, model.latent_dim, generator=torch.Generator().manual_seed(3))
    for ax, point in zip(axes, u, strict=True):
        for t in TIMES:
            x = model.decoder(point[None].to(next(model.parameters())), t)["reconstruction"]
            ax.plot(data.grid, x[0].detach().cpu(), color=plt.cm.viridis(t), label=f"t = {t:g}")
        ax.set_xlabel("x")
    axes[0].legend(fontsize=7)
    save(figure, folder, "generated")


def save(figure, folder, name):
    path = os.path.join(folder, f"gracyk2024_{name}.png")
    with replaced(path) as beside:
        figure.savefig(beside, dpi=100)
    plt.close(figure)


def load(count, folder):
    """The solutions to train on, made once."""
    path = os.path.join(folder, f"burgers_{count}.pt")
    if not os.path.exists(path):
        begin = time.perf_counter()
        found = burgers(count, generator=torch.Generator().manual_seed(0)).trajectories
        print(f"{count} solutions in {time.perf_counter() - begin:.0f} s", flush=True)
        with replaced(path) as beside:
            torch.save(found, beside)
    return burgers(1)._replace(trajectories=torch.load(path, weights_only=True))


def main():
    p = parser(__doc__)
    p.add_argument("--output-dir", default="outputs/gracyk2024")
    p.add_argument("--steps", type=at_least(1), default=5500, help="of each method")
    p.add_argument("--batch-size", type=at_least(1), default=125)
    p.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    p.add_argument("--quick", action="store_true", help="few steps, to see that it runs")
    args = p.parse_args()
    lib.quiet.settle(1)
    args.sizes, count, tests, steps = {}, 5000, 1000, args.steps
    options = f" --steps {args.steps} --batch-size {args.batch_size}"
    if args.quick:
        args.sizes, count, tests, steps = {"hidden_dim": 32}, 40, 10, 6
        args.batch_size, options = 20, " --quick"
    data = load(count, args.output_dir)
    test = burgers(tests, generator=torch.Generator().manual_seed(1)).trajectories

    results, models, decayed = {}, {}, {}
    for name, fields in METHODS.items():
        results[name], models[name] = train(name, fields, data, test, steps, args)
    for name in DECAYED:
        _, decayed[name] = train(name, METHODS[name], data, test, steps, args, WEIGHT_DECAY)
    without, _ = train(WITHOUT_STEADY_TERM, {"alpha": 0.0}, data, test, steps // 5, args)
    sets, truth = perturbed(test[:, 0]), at_times(test)
    errors, decayed_errors = (
        {
            name: {key: relative_error(model, x0, truth) for key, x0 in sets.items()}
            for name, model in group.items()
        }
        for group in (models, decayed)
    )
    draw(results, models, without, test[:SEEN], data, args.output_dir)
    text = report(results, errors, decayed_errors, options)
    write_text(os.path.join(args.output_dir, "gracyk2024.md"), text)
    print(text)


if __name__ == "__main__":
    main()
