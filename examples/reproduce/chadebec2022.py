"""A geometric perspective on variational autoencoders: the source's tables, on its own data.

    python examples/reproduce/chadebec2022.py --data mnist fashion_mnist --data-dir FOLDER

Chadebec and Allassonnière (NeurIPS 2022) sample from the uniform distribution of a model's
Riemannian latent space. Here are

- their table: samplers of one model, in their regime and with pythae's defaults, and other models;
- their last table: the prior of four other models against this sampler;
- their studies: the number of centroids, lambda, and the number of training images.

The last two are made on the first data set. Writes chadebec2022.md, .json and pictures. Every row
is kept in OUTPUT_DIR/rows: an interrupted run goes on from there, several runs with other --data or
--parts can share one folder, and the last of them writes the tables of all. Delete a file to
compute its row again. A full run takes hours; --quick shows in a minute that everything runs.
"""

import os
import pathlib
import statistics
import sys
import time
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import lib.quiet

# isort: split
import chadebec2022_samplers as s
import matplotlib.pyplot as plt
import torch
from lib import figures
from lib.costs import DEVICE, SECONDS, measured
from lib.measures import feature_measures
from lib.samples import draw_samples, keep_samples
from lib.tables import deviation, grouped, page, spreads
from matplotlib.ticker import LogFormatter
from threadpoolctl import threadpool_limits

from pythae_geometric.commands.arguments import at_least, parser
from pythae_geometric.commands.files import read_json, row_path, write_json
from pythae_geometric.commands.tables import publish, table

FLOORS = (s.TRAINING, s.REBUILT_TEST, s.REBUILT_TRAINING)
ALL = (*FLOORS, s.NORMAL, s.MIXTURE, s.CHOSEN, s.MAF, s.PUBLISHED, s.PAPER, s.OURS)
TABLE = {
    "BetaVAE": ALL,
    "VAE": ALL[1:],  # training images are the same for all models
    "AE": (s.MIXTURE, s.OURS),
    "WAE": (s.MIXTURE, s.OURS),
    "RAE": (s.MIXTURE, s.OURS),
    "VAMP": (s.VAMP_PRIOR, s.OURS),
    "HVAE": (s.NORMAL, s.OURS),
    "RHVAE": (s.RHVAE_OWN, s.OURS),
}
LAST = {
    "VAMP": (s.VAMP_PRIOR, s.PAPER, s.OURS),
    "IWAE": (s.NORMAL, s.PAPER, s.OURS),
    "Adversarial_AE": (s.NORMAL, s.PAPER, s.OURS),
    "VAEGAN": (s.NORMAL, s.PAPER, s.OURS),
}
STUDIED = "BetaVAE"  # the source's regime
STUDIES = {
    "centroids": "Influence of the number of centroids",
    "lambda": "Influence of lambda",
    "images": "Influence of the number of training images",
}
# A row with a larger share of copies is left out.
COPIES = 0.5
PARTS = ("table", "last", "studies")
# Columns of means and their errors, and of means alone: a measure, and how many digits are shown.
COLUMNS = {
    "Fréchet ↓": ("frechet", 2),
    "F8 ↑": ("recall", 3),
    "F1/8 ↑": ("precision", 3),
    "density": ("density", 2),
    "coverage ↑": ("coverage", 3),
    "nearest": ("nearest", 3),
    "nearest code": ("nearest_code", 3),
}
MEANS = {
    "duplicates": ("duplicates", 4),
    "acceptance": ("acceptance", 2),
    "flat": ("flat", 2),
    "fit, s": ("fit_seconds", 1),
    "draw, s": ("draw_seconds", 1),
}


def duplicates(codes, training_codes):
    """Share of codes that are, bit by bit, one of a training image or one that came before."""
    seen, count = {code.tobytes() for code in training_codes.numpy()}, 0
    for code in codes.numpy():
        count += code.tobytes() in seen
        seen.add(code.tobytes())
    return count / len(codes)


def novelty(case, images, codes):
    """How far samples are from the training data (1: as far as test images), and duplicates."""
    of_images, of_codes = case.held_out
    found = {"nearest": s.median_nearest(images[: s.FEW], case.data.train) / of_images}
    if codes is not None:
        distance = s.median_nearest(codes[: s.FEW], case.codes)
        # Codes of a collapsed model are all but one point.
        found["nearest_code"] = distance / of_codes if of_codes else None
        found["duplicates"] = duplicates(codes, case.codes)
    return found


def row(case, sampler, seed, **settings):
    """The row of a sampler, read or computed; None: there is none yet, and --collect is given."""
    label = " ".join([sampler, *(f"{k}={v}" for k, v in settings.items())])
    path = row_path(case.args.output_dir, case.name, label, seed)
    found = read_json(path)
    if found is None and not case.args.collect:
        found = compute(case, sampler, seed, settings)
        write_json(path, found)
        names = "frechet", "nearest", "acceptance", "fit_seconds", "draw_seconds", "measure_seconds"
        shown = ", ".join(f"{name} {found[name]:.3g}" for name in names if name in found)
        print(f"{case.name}, {label}, seed {seed}: {found.get('error', shown)}", flush=True)
    return found and without_copies(found)


def without_copies(found):
    """A row, or why there is none: chains that stood still, or codes that are all one, are no
    samples, whatever they score."""
    share = found.get("duplicates", 0)
    if share <= COPIES or found["sampler"] in FLOORS:
        return found
    identity = ("data", "model", "train_seed", "sampler", "seed", "images")
    error = f"left out: {share:.0%} of its codes are, bit by bit, training codes or one another"
    return {key: found[key] for key in identity} | {"error": error}


def compute(case, sampler, seed, settings):
    budget = case.args.budget
    found = {"data": case.args.data, "model": case.key, "train_seed": case.seed}
    found |= {"sampler": sampler, "seed": seed, **settings}
    found["images"] = len(case.data.train)
    try:
        model = case.model  # trained before the clock starts
        torch.manual_seed(seed)
        with measured() as fitting:
            draw_codes = s.SAMPLERS[sampler](case, seed, **settings)
        with measured() as drawing:
            codes, kept = draw_codes(case.args.samples)
        found |= {"fit_seconds": fitting[SECONDS], "draw_seconds": drawing[SECONDS]}
        with measured() as measuring:
            images = kept.pop("images", None)
            if codes is not None:  # pythae's VAMPSampler goes through its components in order
                codes = s.shuffled(codes.detach().cpu().float())
                images = case.decode(codes)
            images = images.reshape(-1, *case.data.test.shape[1:]).clamp(0, 1)
            features = case.judge.network.features(images)
            found |= kept | feature_measures(case.judge.real, features, budget.clusterings)
            found |= novelty(case, images, codes)
        found["measure_seconds"] = measuring[SECONDS]
    except Exception as error:  # a sampler that fails is a result, and hours of others go on
        text = " ".join(str(error).split())[:200]
        left_out = isinstance(error, NotImplementedError)
        return found | {"error": text if left_out else f"{type(error).__name__}: {text}"}
    if case.seed == seed == 0 and not case.count and not settings:
        key = f"{case.args.data}-{case.key}", sampler
        keep_samples(model, images, case.data, case.args.output_dir, *key)
    return found


def cases(keys, judge, args, count=None):
    keys = [key for key in keys if key in args.models]
    seeds = range(args.train_seeds)
    return [s.Case(key, seed, judge, args, count) for seed in seeds for key in keys]


def table_rows(samplers_of, judge, args):
    """All rows of one case after the other."""
    for case in cases(samplers_of, judge, args):
        rows = [
            row(case, sampler, seed)
            for sampler in samplers_of[case.key]
            for seed in range(1 if sampler == s.REBUILT_TEST else args.seeds)
        ]
        yield list(filter(None, rows))


def study_rows(judge, args):
    """Rows of the three studies. The paper's setting is a row of the table, and not repeated."""
    budget, found = args.budget, {study: [] for study in STUDIES}

    def add(studies, value, case, sampler, **settings):
        for seed in range(args.seeds):
            one = row(case, sampler, seed, **settings)
            for study in studies if one else ():
                found[study].append({**one, "value": one["images"] if study == "images" else value})

    for case in cases([STUDIED], judge, args):
        for sampler in (s.PUBLISHED, s.PAPER, s.OURS):
            for k in budget.centroids:
                is_paper = sampler != s.OURS and k == 100
                add(["centroids"], k, case, sampler, **({} if is_paper else {"num_centroids": k}))
        for sampler in (s.PUBLISHED, s.PAPER):
            for x in budget.regularizations:
                add(["lambda"], x, case, sampler, **({} if x == 0.01 else {"regularization": x}))
        for sampler in (s.CHOSEN, s.OURS):  # which have no such number, or choose it
            add(["centroids", "lambda"], None, case, sampler)
    for count in (*budget.images, None):
        for case in cases([STUDIED], judge, args, count):
            for sampler in (s.NORMAL, s.MIXTURE, s.CHOSEN, s.PUBLISHED, s.PAPER, s.OURS):
                add(["images"], None, case, sampler)
    return found


def results(rows, *by):
    """A table with a line for each combination of the values of ``by``."""
    lines = []
    for names, group in grouped(rows, *by).items():
        good = [row for row in group if "error" not in row]
        cells = [spreads(good, [key], n, of_mean=True)[0] for key, n in COLUMNS.values()]
        cells += [spreads(good, [key], n)[0].partition(" ")[0] for key, n in MEANS.values()]
        notes = [row["note"] for row in good if "note" in row]
        notes += [row["error"] for row in group if "error" in row]
        names = ["—" if name is None else name for name in names]
        lines.append([*names, *cells, len(good), "; ".join(dict.fromkeys(notes))])
    return table([*by, *COLUMNS, *MEANS, "rows", "notes"], lines)


def write_report(tables, last, studies, args):
    """Write what there is: an interrupted run leaves tables of its finished rows."""
    sections = []
    for name, rows in tables.items():
        sections += [
            f"## Samplers and models on {name}",
            "",
            *results(rows, "model", "sampler"),
            "",
        ]
    if last:
        sections += [f"## Priors against this sampler, on {args.data[0]}", ""]
        sections += [*results(last, "model", "sampler"), ""]
    for study, rows in studies.items():
        if rows:
            rows = sorted(rows, key=lambda one: (one["value"] is None, one["value"]))
            rows = [{**one, study: one["value"]} for one in rows]
            sections += [f"## {STUDIES[study]} ({STUDIED} on {args.data[0]})", ""]
            sections += [*results(rows, study, "sampler"), ""]
    text = page(
        "chadebec2022",
        sizes="few" if args.quick else "50,000 / 10,000 / 10,000",
        args=args,
        epochs=", ".join(f"{key} {args.epochs or s.MODELS[key][2]}" for key in args.models),
        mixtures=", ".join(map(str, args.budget.mixtures)),
        feature_epochs=s.FEATURE_EPOCHS,
        few=s.FEW,
        clock="of wall time" if DEVICE == "cuda" else "of one core",
        sections=sections[:-1],
    )
    found = {"tables": tables, "last": last, "studies": studies}
    return publish(args.output_dir, "chadebec2022", text, found)


def draw_all_samples(args):
    for name in args.data:
        chosen = [
            (f"{key}: {sampler}", f"{name}-{key}", sampler)
            for key in args.models
            for sampler in dict.fromkeys(TABLE.get(key, ()) + LAST.get(key, ()))
        ]
        draw_samples(chosen, args.output_dir, f"samples_{name}.png")


def draw_studies(studies, folder):
    """Fréchet distance, and distance to the training images, against what is studied.

    Dashed: samplers that have no such number, or choose it.
    """
    figure, axes = plt.subplots(2, 3, figsize=(12, 6.6), layout="constrained", sharex="col")
    samplers = (s.PUBLISHED, s.PAPER, s.OURS, s.CHOSEN, s.MIXTURE, s.NORMAL)
    colors = {sampler: f"C{i}" for i, sampler in enumerate(samplers)}
    for column, rows in enumerate(studies.values()):
        for ax, measure in zip(axes[:, column], ("frechet", "nearest"), strict=True):
            for sampler, color in colors.items():
                draw_curve(ax, [r for r in rows if r["sampler"] == sampler], measure, color)
            ax.set_xscale("log")
    for ax in axes[0]:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        # Labels between the powers of ten only where there are few of these.
        ax.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    axes[0, 0].set_ylabel("Fréchet distance (log scale)")
    axes[1, 0].set_ylabel("Distance to training images\n(test images: 1)")
    for ax, label in zip(axes[1], ("Centroids", "$\\lambda$", "Training images"), strict=True):
        ax.set_xlabel(label)
    handles = [plt.Line2D([], [], color=c, marker="o", label=name) for name, c in colors.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    figures.save(figure, folder, "studies.png")


def draw_curve(ax, rows, measure, color):
    """Means and standard errors against values; a dashed line for a sampler without the value."""
    found = {}
    for (value,), group in grouped([row for row in rows if "error" not in row], "value").items():
        values = [row[measure] for row in group]
        found[value] = statistics.fmean(values), deviation(values, of_mean=True) or 0
    if None in found:
        ax.axhline(found.pop(None)[0], color=color, linestyle="--")
    if found:
        means, errors = zip(*(found[value] for value in sorted(found)), strict=True)
        ax.errorbar(sorted(found), means, errors, color=color, marker="o", markersize=4, capsize=3)


def parse():
    p = parser(__doc__, quick="a few digits, to see that it runs")
    p.add_argument("--data", nargs="+", help="names of data sets, or digits (default: mnist)")
    p.add_argument("--data-dir", default="data", help="where their folders are")
    p.add_argument("--output-dir", help="default: outputs/chadebec2022, or _quick after it")
    p.add_argument("--models", nargs="+", default=list(s.MODELS), choices=s.MODELS)
    p.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    p.add_argument("--train-seeds", type=at_least(1), default=2, help="how many trainings")
    p.add_argument("--seeds", type=at_least(1), default=3, help="runs of a sampler on each")
    p.add_argument("--samples", type=at_least(1), default=10_000, help="in each run")
    p.add_argument("--collect", action="store_true", help="only write what there is")
    p.add_argument("--threads", type=at_least(1), default=1)
    args = p.parse_args()
    args.output_dir = args.output_dir or "outputs/chadebec2022" + "_quick" * args.quick
    args.data = args.data or ["digits" if args.quick else "mnist"]
    args.latent_dim, args.epochs, args.budget = s.LATENT_DIM, 0, s.Budget()
    if args.quick:
        args.latent_dim, args.epochs, args.budget = 4, 1, s.QUICK
        args.train_seeds, args.seeds, args.samples = 1, 2, 200
    return args


def run(args):
    tables, last, studies = {}, [], {}
    for name in args.data:
        one = s.with_fields(args, data=name)
        judge, is_first = s.Judge(one), name == args.data[0]
        if "table" in args.parts:
            for rows in table_rows(TABLE, judge, one):
                tables.setdefault(name, []).extend(rows)
                write_report(tables, last, studies, args)
        if "last" in args.parts and is_first:
            for rows in table_rows(LAST, judge, one):
                last += rows
                write_report(tables, last, studies, args)
        if "studies" in args.parts and is_first and STUDIED in args.models:
            studies = study_rows(judge, one)
            if all(studies.values()):
                draw_studies(studies, args.output_dir)
    draw_all_samples(args)
    print(write_report(tables, last, studies, args))


def main():
    args = parse()
    lib.quiet.settle(args.threads)
    warnings.filterwarnings("ignore", "Of the .* chains")  # the tables have these numbers
    os.makedirs(args.output_dir, exist_ok=True)
    start = time.perf_counter()
    with threadpool_limits(args.threads):
        run(args)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
