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
import matplotlib.pyplot as plt
import torch
from chadebec2022_samplers import (
    CHOSEN,
    FEATURE_EPOCHS,
    FEW,
    LATENT_DIM,
    MAF,
    MIXTURE,
    MODELS,
    NORMAL,
    OURS,
    PAPER,
    PUBLISHED,
    QUICK,
    REBUILT_TEST,
    REBUILT_TRAINING,
    RHVAE_OWN,
    SAMPLERS,
    TRAINING,
    VAMP_PRIOR,
    Budget,
    Case,
    Judge,
    median_nearest,
    shuffled,
    with_fields,
)
from lib.arguments import at_least, parser
from lib.costs import DEVICE, SECONDS, measured
from lib.files import read_json, row_path, write_json, write_text
from lib.measures import feature_measures
from lib.networks import HIDDEN
from lib.samples import draw_samples, keep_samples
from lib.tables import deviation, grouped, spread, table
from threadpoolctl import threadpool_limits

FLOORS = (TRAINING, REBUILT_TEST, REBUILT_TRAINING)
ALL = (*FLOORS, NORMAL, MIXTURE, CHOSEN, MAF, PUBLISHED, PAPER, OURS)
TABLE = {
    "BetaVAE": ALL,
    "VAE": ALL[1:],  # training images are the same for all models
    "AE": (MIXTURE, OURS),
    "WAE": (MIXTURE, OURS),
    "RAE": (MIXTURE, OURS),
    "VAMP": (VAMP_PRIOR, OURS),
    "HVAE": (NORMAL, OURS),
    "RHVAE": (RHVAE_OWN, OURS),
}
LAST = {
    "VAMP": (VAMP_PRIOR, PAPER, OURS),
    "IWAE": (NORMAL, PAPER, OURS),
    "Adversarial_AE": (NORMAL, PAPER, OURS),
    "VAEGAN": (NORMAL, PAPER, OURS),
}
STUDIED = "BetaVAE"  # the source's regime
PARTS = ("table", "last", "studies")


# Measures


def duplicates(codes, training_codes):
    """Share of codes that are, bit by bit, one of a training image or one that came before."""
    seen = {code.tobytes() for code in training_codes.numpy()}
    count = 0
    for code in codes.numpy():
        count += code.tobytes() in seen
        seen.add(code.tobytes())
    return count / len(codes)


def novelty(case, images, codes):
    """How far samples are from the training data (1: as far as test images), and duplicates."""
    of_images, of_codes = case.held_out
    found = {"nearest": median_nearest(images[:FEW], case.data.train) / of_images}
    if codes is not None:
        distance = median_nearest(codes[:FEW], case.codes)
        # Codes of a collapsed model are all but one point.
        found["nearest_code"] = distance / of_codes if of_codes else None
        found["duplicates"] = duplicates(codes, case.codes)
    return found


# Rows


def row(case, sampler, seed, **settings):
    """The row of a sampler, read or computed; None: there is none yet, and --collect is given."""
    label = " ".join([sampler, *(f"{k}={v}" for k, v in settings.items())])
    path = row_path(case.args.output_dir, case.name, label, seed)
    found = read_json(path)
    if found is None and not case.args.collect:
        found = compute(case, sampler, seed, settings)
        write_json(path, found)
        print(f"{case.name}, {label}, seed {seed}: {in_short(found)}", flush=True)
    return found


def in_short(found):
    if "error" in found:
        return found["error"]
    acceptance = f", acceptance {found['acceptance']:.2g}" if "acceptance" in found else ""
    return (
        f"Fréchet {found['frechet']:.2f}, nearest {found['nearest']:.3f}{acceptance} "
        f"({found['fit_seconds']:.1f} + {found['draw_seconds']:.1f} s, measures "
        f"{found['measure_seconds']:.0f} s)"
    )


def compute(case, sampler, seed, settings):
    found = {"data": case.args.data, "model": case.key, "train_seed": case.seed}
    found |= {"sampler": sampler, "seed": seed, **settings}
    found["images"] = len(case.data.train)
    try:
        model = case.model  # trained before the clock starts
        torch.manual_seed(seed)
        with measured() as fitting:
            draw_codes = SAMPLERS[sampler](case, seed, **settings)
        with measured() as drawing:
            codes, kept = draw_codes(case.args.samples)
        found |= {"fit_seconds": fitting[SECONDS], "draw_seconds": drawing[SECONDS]}
        with measured() as measuring:
            images = kept.pop("images", None)
            if codes is not None:  # pythae's VAMPSampler goes through its components in order
                codes = shuffled(codes.detach().cpu().float())
                images = case.decode(codes)
            images = images.reshape(-1, *case.data.test.shape[1:]).clamp(0, 1)
            found |= (
                kept
                | feature_measures(case.judge.real, case.judge.network.features(images))
                | novelty(case, images, codes)
            )
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
    return [Case(key, seed, judge, args, count) for seed in range(args.train_seeds) for key in keys]


def wanted_cases(judge, args, is_first):
    """Every model that the parts of the run need."""
    found = cases(TABLE, judge, args) if "table" in args.parts else []
    if is_first and "last" in args.parts:
        found += cases(LAST, judge, args)
    if is_first and "studies" in args.parts:
        for count in (*args.budget.images, None):
            found += cases([STUDIED], judge, args, count)
    return found


def table_rows(samplers_of, judge, args):
    """All rows of one case after the other."""
    for case in cases(samplers_of, judge, args):
        rows = [
            row(case, sampler, seed)
            for sampler in samplers_of[case.key]
            for seed in range(1 if sampler == REBUILT_TEST else args.seeds)
        ]
        yield list(filter(None, rows))


def study_rows(judge, args):
    """Rows of the three studies. The paper's setting is a row of the table, and not repeated."""
    budget, seeds, found = args.budget, range(args.seeds), {"centroids": [], "lambda": []}
    steps = [
        ("centroids", sampler, k, {} if sampler != OURS and k == 100 else {"num_centroids": k})
        for sampler in (PUBLISHED, PAPER, OURS)
        for k in budget.centroids
    ]
    steps += [
        ("lambda", sampler, x, {} if x == 0.01 else {"regularization": x})
        for sampler in (PUBLISHED, PAPER)
        for x in budget.regularizations
    ]
    for case in cases([STUDIED], judge, args):
        for study, sampler, value, settings in steps:
            rows = [row(case, sampler, seed, **settings) for seed in seeds]
            found[study] += [{**one, "value": value} for one in filter(None, rows)]
        others = [row(case, sampler, seed) for sampler in (CHOSEN, OURS) for seed in seeds]
        for study in found:  # which have no such number, or choose it
            found[study] += [{**one, "value": None} for one in filter(None, others)]
    images = [
        row(case, sampler, seed)
        for count in (*budget.images, None)
        for case in cases([STUDIED], judge, args, count)
        for sampler in (NORMAL, MIXTURE, CHOSEN, PUBLISHED, PAPER, OURS)
        for seed in seeds
    ]
    found["images"] = [{**one, "value": one["images"]} for one in filter(None, images)]
    return found


# Report

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


def results(rows, *by):
    """A table with a line for each combination of the values of ``by``."""
    lines = []
    for names, group in grouped(rows, *by).items():
        good = [row for row in group if "error" not in row]
        cells = ["—" if name is None else str(name) for name in names]
        cells += [
            spread([row.get(measure) for row in good], digits, of_mean=True)
            for measure, digits in COLUMNS.values()
        ]
        cells += [
            spread([row.get(measure) for row in good], digits).partition(" ")[0]
            for measure, digits in MEANS.values()
        ]
        notes = [row["note"] for row in good if "note" in row]
        notes += [row["error"] for row in group if "error" in row]
        lines.append([*cells, str(len(good)), "; ".join(dict.fromkeys(notes))])
    return table([*by, *COLUMNS, *MEANS, "rows", "notes"], lines)


TITLES = {
    "centroids": "Influence of the number of centroids",
    "lambda": "Influence of lambda",
    "images": "Influence of the number of training images",
}


def header(args):
    epochs = ", ".join(f"{key} {args.epochs or MODELS[key][2]}" for key in args.models)
    sizes = "50,000 / 10,000 / 10,000" if not args.quick else "few"
    return [
        "# A geometric perspective on variational autoencoders: results",
        "",
        f"**Models.** {sizes} images for training, validation and test (validation: the last of "
        "the training images). Encoder and decoder are perceptrons with hidden layers of "
        f"{HIDDEN[0]} and {HIDDEN[1]} units, the source's networks for SVHN (for MNIST it has "
        f"convolutions, and trains up to 100 epochs); latent dimension {args.latent_dim}; Adam, "
        "rate 0.001, batches of 100. Numbers of epochs, of which the best on the validation images "
        f"is kept: {epochs}. BetaVAE is the source's regime (squared error, beta 0.005 in pythae's "
        "convention, where squared errors have a factor 1/2). VAE, VAMP, IWAE and RHVAE have "
        "binary cross-entropy and beta 1; the others pythae's defaults. RHVAE chooses its epoch on "
        "200 validation images. Models of the study of training images have as many steps of "
        "training as with all images, up to 10 times as many epochs.",
        "",
        f"**Samplers.** {args.samples:,} samples a row. Mixtures are fitted by scikit-learn with "
        "full covariances to the codes (pythae's sampler fits draws of the posteriors); the chosen "
        "number of "
        f"{', '.join(map(str, args.budget.mixtures))} grows until the likelihood of the codes of "
        f"validation images falls. MAF: pythae's, {args.budget.maf_epochs} epochs of batches of "
        "500, fitted once for each training. The published algorithm has its faults and its "
        "momenta of half the scale (steps of 0.01), but is computed by matrix products "
        "(examples/lib/published_hmc.py); its centroids and temperature are those of ours in the "
        "paper's setting.",
        "",
        "**Measures**, all against all test images. Fréchet distance, recall (F8) and precision "
        "(F1/8) of PRD, density and coverage are taken in the features of a small classifier that "
        f"was trained on the training images for {FEATURE_EPOCHS} epochs: they are not FIDs of "
        f"Inception. Nearest: median distance of {FEW:,} samples to the nearest training image, "
        f"divided by that of {FEW:,} random test images (0: copies); nearest code: the same of "
        "codes. Duplicates: the share of samples whose code is bit by bit that of a training image "
        "or of an earlier sample. Acceptance: mean acceptance of a move, for chains; flat: the "
        "share of chains that ended where the metric of the posteriors is flat, and knows nothing "
        "of the data. Seconds are "
        f"{'of wall time' if DEVICE == 'cuda' else 'of one core'}; fitting the chosen mixture "
        "counts all that were tried.",
        "",
        f"Mean ± standard error; trainings: {args.train_seeds}, and on each {args.seeds} runs of "
        "the sampler (a dash: of one row there is none). Runs on one model share its training, so "
        "the error says little of other trainings. No row chooses anything on test images. Lines "
        "in brackets are floors: what images themselves, and images that went through the model, "
        "score.",
    ]


def publish(tables, last, studies, args):
    """Write what there is: an interrupted run leaves tables of its finished rows."""
    lines = header(args)
    for name, rows in tables.items():
        lines += ["", f"## Samplers and models on {name}", "", *results(rows, "model", "sampler")]
    if last:
        lines += ["", f"## Priors against this sampler, on {args.data[0]}", ""]
        lines += results(last, "model", "sampler")
    for study, rows in studies.items():
        if not rows:
            continue
        rows = sorted(rows, key=lambda one: (one["value"] is None, one["value"]))
        lines += ["", f"## {TITLES[study]} ({STUDIED} on {args.data[0]})", ""]
        lines += results([{**one, study: one["value"]} for one in rows], study, "sampler")
    text = "\n".join(lines) + "\n"
    base = os.path.join(args.output_dir, "chadebec2022")
    write_text(base + ".md", text)
    write_json(base + ".json", {"tables": tables, "last": last, "studies": studies})
    return text


def draw_all_samples(args):
    for name in args.data:
        chosen = [
            (f"{key}: {sampler}", f"{name}-{key}", sampler)
            for key in args.models
            for sampler in dict.fromkeys(TABLE.get(key, ()) + LAST.get(key, ()))
        ]
        path = os.path.join(args.output_dir, f"samples_{name}.png")
        draw_samples(chosen, path, args.output_dir)


def draw_studies(studies, path):
    """Fréchet distance, and distance to the training images, against what is studied.

    Dashed: samplers that have no such number, or choose it.
    """
    figure, axes = plt.subplots(2, 3, figsize=(12, 6.6), layout="constrained", sharex="col")
    samplers = (PUBLISHED, PAPER, OURS, CHOSEN, MIXTURE, NORMAL)
    colors = {sampler: f"C{i}" for i, sampler in enumerate(samplers)}
    for column, rows in enumerate(studies.values()):
        for ax, measure in zip(axes[:, column], ("frechet", "nearest"), strict=True):
            for sampler, color in colors.items():
                draw_curve(ax, [r for r in rows if r["sampler"] == sampler], measure, color)
            ax.set_xscale("log")
    for ax, label in zip(axes[0], ("Fréchet distance (log scale)", "", ""), strict=True):
        ax.set(yscale="log", ylabel=label)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
    axes[1, 0].set_ylabel("Distance to training images\n(test images: 1)")
    for ax, label in zip(axes[1], ("Centroids", "$\\lambda$", "Training images"), strict=True):
        ax.set_xlabel(label)
    handles = [plt.Line2D([], [], color=c, marker="o", label=s) for s, c in colors.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    figure.savefig(path, dpi=100)
    plt.close(figure)


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
    p = parser(__doc__)
    p.add_argument("--data", nargs="+", help="names of data sets, or digits (default: mnist)")
    p.add_argument("--data-dir", default="data", help="where their folders are")
    p.add_argument("--output-dir", help="default: outputs/chadebec2022, or _quick after it")
    p.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    p.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    p.add_argument("--train-seeds", type=at_least(1), default=2, help="how many trainings")
    p.add_argument("--seeds", type=at_least(1), default=3, help="runs of a sampler on each")
    p.add_argument("--samples", type=at_least(1), default=10_000, help="in each run")
    p.add_argument("--only-train", action="store_true", help="train the models, and stop")
    p.add_argument("--collect", action="store_true", help="only write what there is")
    p.add_argument("--threads", type=at_least(1), default=1)
    p.add_argument("--quick", action="store_true", help="a few digits, to see that it runs")
    args = p.parse_args()
    args.output_dir = args.output_dir or "outputs/chadebec2022" + "_quick" * args.quick
    args.data = args.data or ["digits" if args.quick else "mnist"]
    args.latent_dim, args.epochs, args.budget = LATENT_DIM, 0, Budget()
    if args.quick:
        args.latent_dim, args.epochs, args.budget = 4, 1, QUICK
        args.train_seeds, args.seeds, args.samples = 1, 2, 200
    return args


def run(args):
    tables, last, studies = {}, [], {}
    for name in args.data:
        one = with_fields(args, data=name)
        judge, is_first = Judge(one), name == args.data[0]
        if args.only_train:
            for case in wanted_cases(judge, one, is_first):
                print(f"{case.name}: {type(case.model).__name__}", flush=True)
            continue
        if "table" in args.parts:
            for rows in table_rows(TABLE, judge, one):
                tables.setdefault(name, []).extend(rows)
                publish(tables, last, studies, args)
        if "last" in args.parts and is_first:
            for rows in table_rows(LAST, judge, one):
                last += rows
                publish(tables, last, studies, args)
        if "studies" in args.parts and is_first and STUDIED in args.models:
            studies = study_rows(judge, one)
            if all(studies.values()):
                draw_studies(studies, os.path.join(args.output_dir, "studies.png"))
    if not args.only_train:
        draw_all_samples(args)
        print(publish(tables, last, studies, args))


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
