"""Compare models and samplers of pythae and of this package on equal terms, in one command.

    python examples/benchmark.py [--data digits] [--seeds 3] [--jobs 2] [--output-dir FOLDER]

Two tables: all samplers that apply on one trained model (--samplers-on, a VAE), and all models,
each with the sampler that has the least Fréchet distance on the validation images. Measures are on
the test images. Samplers that give back the training data, or whose chains stay where they start,
are marked and not chosen. Writes benchmark_DATA.md, .json and pictures (a sample, the training
image nearest to it, the model's reconstruction of that). Results are kept row by row in
OUTPUT_DIR/rows: run the command again and only what is missing is computed; delete a file, or name
other models, to add rows. On the digits it takes about half an hour of one core.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import statistics
import time

import lib.quiet
import numpy as np
import torch
from lib.arguments import at_least, parser
from lib.costs import DEVICE, SECONDS, measured
from lib.data import HELP, load_data
from lib.files import kept, read_json, row_path, write_json, write_text
from lib.measures import COPY, Judge
from lib.models import find, image_fields, make_config, make_model
from lib.samples import draw_samples, keep_samples, reconstructions
from lib.tables import grouped, spread, table
from lib.training import train
from pythae import samplers
from pythae.models import VAE, AutoModel
from pythae.pipelines import GenerationPipeline
from pythae.trainers import BaseTrainerConfig

from pythae_geometric import (
    BrownianMotionSamplerConfig,
    MetricUniformHMCSamplerConfig,
    evaluation,
)

# pythae's, then ours. Fields beyond those that all models share.
MODELS = {
    "AE": {},
    "WAE_MMD": {},
    "RAE_GP": {},
    "VAE": {},
    "BetaVAE": {"beta": 0.5},
    "IWAE": {},
    "VAMP": {},
    "Adversarial_AE": {},
    "VAEGAN": {},
    "RHVAE": {"n_lf": 1},
    "BrownianRVAE": {},
    "RicciAE": {"curvature_every": 20},
    "VAE_DLM": {"hidden_dim": 200},
    "ERManifoldVAE": {"posterior": "normal", "likelihood_std": 0.2},
}
# A measure, its column, and how many digits are shown.
MEASURES = {
    "frechet": ("Fréchet ↓", 2),
    "recall": ("F8 ↑", 3),
    "precision": ("F1/8 ↑", 3),
    "density": ("density", 2),
    "coverage": ("coverage ↑", 3),
    "nearest": ("nearest", 2),
    "copies": ("copies", 3),
}
COLUMNS = [*(name for name, _ in MEASURES.values()), "acceptance", "seconds", "MB"]
# A sampler with more copies than this share, or more chains that did not move, is marked.
MANY = 0.05


def sampler_configs(model, data, everything, seed):
    """The samplers to compare on a model. The first is the prior, or what pythae takes for it."""
    configs = {
        "VAMP": {"VAMP": samplers.VAMPSamplerConfig()},
        # Each of the default 100 steps takes seconds: K x B x d x d in memory.
        "RHVAE": {"RHVAE 5 steps": samplers.RHVAESamplerConfig(mcmc_steps_nbr=5)},
        "BrownianRVAE": {"BrownianMotion": BrownianMotionSamplerConfig()},
    }.get(model.model_name, {"Normal": samplers.NormalSamplerConfig()})
    configs["GaussianMixture"] = samplers.GaussianMixtureSamplerConfig(n_components=10)
    configs["MetricUniformHMC"] = MetricUniformHMCSamplerConfig(seed=seed)
    with torch.no_grad():
        variances = "log_covariance" in model.encoder(data.train[:2].to(DEVICE))
    if variances and model.model_name != "BrownianRVAE":  # its posterior is not Gaussian
        paper = MetricUniformHMCSamplerConfig(metric="posteriors", seed=seed)
        configs["MetricUniformHMC, paper"] = paper
    if everything:
        configs["MAF"] = samplers.MAFSamplerConfig()
        configs["IAF"] = samplers.IAFSamplerConfig()
        if isinstance(model, VAE):
            configs["TwoStageVAE"] = samplers.TwoStageVAESamplerConfig()
        for metric in ("posterior", "pullback"):
            config = BrownianMotionSamplerConfig(metric=metric, seed=seed)
            configs[f"BrownianMotion {metric}"] = config
    return configs


def model_config(name, images, args):
    """The class of a model, and its config in this comparison."""
    fields = image_fields(images, args.latent_dim, args.epochs) | {"reconstruction_loss": "bce"}
    if args.data == "digits":
        fields |= {"hidden_dims": (128, 64) if name == "BrownianRVAE" else (512,)}
        fields |= {"num_centers": 64}
    return make_config(name, **(fields | MODELS.get(name, {})))


def trained_model(name, seed, args, data):
    """The model, trained or loaded, and the row of its own measures."""
    path = row_path(args.output_dir, "model", name, seed)
    folder = os.path.join(args.output_dir, "models", f"{name}-{seed}")
    result, figures = read_json(path), {}
    if result is None or not os.path.exists(os.path.join(folder, "model.pt")):
        torch.manual_seed(seed)
        model = make_model(*model_config(name, data.train, args), args.networks)
        with measured() as figures:
            trained = train(
                model,
                data,
                os.path.join(folder, "training"),
                num_epochs=args.epochs,
                per_device_train_batch_size=100,
                per_device_eval_batch_size=100,
                seed=seed,
            )
        AutoModel.load_from_folder(trained).save(folder)
        result = None
    model = AutoModel.load_from_folder(folder).to(DEVICE).eval()
    if result is None:
        torch.manual_seed(seed)
        result = {"model": name, "seed": seed, **figures, **measures_of(model, seed, args, data)}
        write_json(path, result)
    return model, result


@torch.no_grad()
def measures_of(model, seed, args, data):
    """Reconstruction, likelihood, and how well the codes tell classes apart."""
    test = data.test.to(DEVICE)
    found = {
        "reconstruction": evaluation.reconstruction_error(model, test),
        "nll": None,
        "f1": None,
    }
    if hasattr(model, "get_nll"):
        few = test[: args.likelihoods]
        found["nll"] = evaluation.negative_log_likelihood(model, few, args.importance_samples)
    if data.train_labels is not None:
        codes, test_codes = (
            torch.cat([model.encoder(batch.to(DEVICE)).embedding for batch in images.split(500)])
            for images in (data.train, data.test)
        )
        labels = data.train_labels, data.test_labels
        f1 = evaluation.class_f1(codes, labels[0], test_codes, labels[1], seed, args.classifiers)
        found["f1"] = float(f1.mean())
    return found


def generate(model, config, count, data, folder, args):
    """Samples from a sampler, which is fitted if it needs to be, and its diagnostics."""
    flow = BaseTrainerConfig(
        output_dir=os.path.join(folder, "sampler"),
        num_epochs=args.flow_epochs,
        learning_rate=1e-3,
        per_device_train_batch_size=100,
    )
    pipeline = GenerationPipeline(model, config)
    images = pipeline(
        num_samples=count,
        train_data=data.train,
        eval_data=data.validation,
        training_config=flow,
    )
    # Mixtures give their samples one component after another, and halves are measured apart.
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    found = getattr(pipeline.sampler, "diagnostics", None)
    fields = [] if found is None else [f.name for f in dataclasses.fields(found) if f.repr]
    return images, {name: getattr(found, name) for name in fields}


def compare(name, seed, args):
    """The row of one model and seed, and those of its samplers."""
    lib.quiet.settle(1 if args.jobs > 1 else None)
    data = load_subset(args)
    model, result = trained_model(name, seed, args, data)
    judge = Judge(data, feature_network(args, data), model)
    is_main = name == args.samplers_on
    rows = references(model, judge, seed, args) if is_main else []
    for sampler, config in sampler_configs(model, data, is_main, seed).items():
        path = row_path(args.output_dir, "samples", name, sampler, seed)
        case = {"model": name, "sampler": sampler, "seed": seed}
        rows.append(kept(path, sampled, case, model, config, judge, args))
    return result, rows


def sampled(case, model, config, judge, args):
    """The row of a sampler: measures of its samples, and their cost."""
    name, sampler, seed = case.values()
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (scikit-learn's mixture draws from it)
    data, found = judge.data, {}
    try:
        folder = os.path.join(args.output_dir, "models", f"{name}-{seed}")
        count = 2 * min(len(data.test), args.samples)
        with measured() as figures:
            images, found["diagnostics"] = generate(model, config, count, data, folder, args)
        found |= figures | judge.measure(images)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        return case | found | {"error": (str(error).strip() or repr(error)).splitlines()[0]}
    if seed == 0:
        half = images[len(images) // 2 :]
        keep_samples(model, half, data, args.output_dir, name, sampler)
    return case | found


def references(model, judge, seed, args):
    """What the measures give for training images, and for reconstructions of held-out ones."""
    data = judge.data
    decoded = [reconstructions(model, images) for images in (data.validation, data.test)]
    few = min(map(len, decoded))
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))
    cases = {
        "(training images)": data.train[order[: 2 * few]],
        "(reconstructions)": torch.cat([part[:few] for part in decoded]),
    }
    rows = []
    for name, images in cases.items():
        case = {"model": args.samplers_on, "sampler": name, "seed": seed}
        path = row_path(args.output_dir, "samples", *case.values())
        rows.append(kept(path, lambda case, images: case | judge.measure(images), case, images))
    return rows


def feature_network(args, data):
    """The features in which images are compared; None: those of Inception."""
    if args.features == "inception":
        return None
    if data.train_labels is None:
        raise SystemExit(
            f"{args.data} has no labels to train a feature network on: add them to "
            "train_data.npz, or take --features inception."
        )
    return evaluation.train_feature_network(data.train, data.train_labels, seed=0).features


def load_subset(args):
    data = load_data(args.data, args.data_dir)
    return data.first(300, 60, 60) if args.quick else data


# Tables


def cells(sampler, rows):
    """The name of a sampler, marked if it copies, and its figures."""
    errors = [row["error"] for row in rows if "error" in row]
    if errors:
        reason = errors[0].partition(":")[0][:80]
        return [sampler, f"does not apply: {reason}", *["—"] * (len(COLUMNS) - 1)]
    figures = [
        spread([row["test"][measure] for row in rows], digits)
        for measure, (_, digits) in MEASURES.items()
    ]
    chains = [row.get("diagnostics", {}) for row in rows]
    figures.append(spread([found.get("acceptance_rate") for found in chains]))
    figures += [spread([row.get(key) for row in rows], 1) for key in (SECONDS, "megabytes")]
    return [sampler + " †" * copying(rows), *figures]


def copying(rows):
    """Whether many samples of a sampler are copies, or many of its chains did not move."""
    copies = [row[part]["copies"] for row in rows for part in ("validation", "test")]
    chains = [row.get("diagnostics", {}) for row in rows]
    starts = [
        found["at_start"] / found.get("num_chains", found.get("number"))  # in earlier rows
        for found in chains
        if "at_start" in found
    ]
    return any(statistics.fmean(shares) > MANY for shares in (copies, starts or [0]))


def best_samplers(groups):
    """For each model, the sampler with the least mean Fréchet distance on the validation images,
    of those that do not copy."""
    best = {}
    for name, by_sampler in groups.items():
        scores = {
            sampler: statistics.fmean(row["validation"]["frechet"] for row in rows)
            for sampler, rows in by_sampler.items()
            if not sampler.startswith("(")
            and not any("error" in row for row in rows)
            and not copying(rows)
        }
        if scores:
            best[name] = min(scores, key=scores.get)
    return best


def by_model(rows):
    """Rows by model, then by sampler."""
    groups = {}
    for (name, sampler), group in grouped(rows, "model", "sampler").items():
        groups.setdefault(name, {})[sampler] = group
    return groups


def report(models, rows, command, minutes, args):
    busy = sum(row.get("processor_seconds", 0) for row in models + rows) / 60
    groups = by_model(rows)
    best = best_samplers(groups)
    features = "Inception" if args.features == "inception" else "a small classifier"
    lines = [
        f"# Benchmark on {args.data}",
        "",
        f"`{command}`: {minutes:.0f} minutes of wall time ({args.jobs} at a time), of "
        f"which {busy:.0f} minutes of the processor in training and sampling. Latent dimension "
        f"{args.latent_dim}, {args.epochs} epochs; mean ± standard deviation of "
        f"{args.seeds} seeds of training and sampling, on one split of the data. Fréchet distance, "
        "F8 (recall), F1/8 (precision), density and coverage against the test images in the "
        f"features of {features}; nearest: median distance of a sample to the nearest training "
        "image, that of a test image being 1. Copies: share of samples that all but coincide with "
        "a training image or with the decoded code of one, at less than "
        f"{100 * COPY:.0f} % of the distance of a test image, or of its decoded code, to the "
        "nearest (medians). Acceptance: of the proposals of chains; a dash where a sampler has "
        f"none, or does not tell. †: more than {100 * MANY:.0f} % of the samples are copies, or of "
        "the chains ended where they started; such a sampler is not chosen. MAF and IAF train for "
        f"{args.flow_epochs} epochs. Seconds (of "
        f"{'wall time' if DEVICE == 'cuda' else 'the processor'}) and megabytes are those of "
        "fitting and sampling; memory that the process holds from before is not counted.",
    ]
    if args.samplers_on in groups:
        lines += ["", f"## Samplers on one {args.samplers_on}", ""]
        found = groups[args.samplers_on].items()
        lines += table(["sampler", *COLUMNS], [cells(*one) for one in found])
    chosen = []
    for name, sampler in best.items():
        own = [m for m in models if m["model"] == name]
        figures = [(SECONDS, 0), ("megabytes", 0), ("reconstruction", 4), ("nll", 2), ("f1", 3)]
        chosen.append(
            [name, *cells(sampler, groups[name][sampler])]
            + [spread([m[key] for m in own], digits) for key, digits in figures]
        )
    more = ["training s", "training MB", "MSE ↓", "NLL ↓", "F1 ↑"]
    lines += [
        "",
        "## Models, each with the sampler that is best on the validation images",
        "",
        *table(["model", "sampler", *COLUMNS, *more], chosen),
        "",
        "MSE: of reconstructions of test images, per pixel. NLL: importance-weighted, nats, of "
        f"{args.likelihoods} test images, by the model's own likelihood (binary cross-entropy for "
        "pythae's, Gaussians of different variances for ours): comparable within one kind only. "
        "F1: mean over classes, of small classifiers on the codes.",
        "",
        "## All samplers of all models",
        "",
    ]
    others = [
        [name, *cells(*one)]
        for name, by_sampler in groups.items()
        if name != args.samplers_on
        for one in by_sampler.items()
    ]
    return "\n".join(lines + table(["model", "sampler", *COLUMNS], others)) + "\n", best, groups


def parse():
    p = parser(__doc__)
    p.add_argument("--data", default="digits", help=HELP)
    p.add_argument("--data-dir", default="data", help="the folder of data sets")
    p.add_argument("--networks", default="default", choices=("default", "convnet", "resnet"))
    p.add_argument("--features", default="classifier", choices=("classifier", "inception"))
    p.add_argument("--latent-dim", type=at_least(1), default=8)
    p.add_argument("--epochs", type=at_least(1), default=200)
    p.add_argument("--models", nargs="+", default=list(MODELS), help="names of models")
    p.add_argument("--samplers-on", default="VAE", help="the model for all samplers")
    p.add_argument("--seeds", type=at_least(1), default=3, help="how many")
    p.add_argument("--samples", type=at_least(1), default=10_000, help="at most, for each measure")
    p.add_argument("--jobs", type=at_least(1), default=1, help="models that are trained at a time")
    p.add_argument("--output-dir", default="outputs/benchmark")
    p.add_argument("--quick", action="store_true", help="a few epochs, to see that it runs")
    args = p.parse_args()
    args.flow_epochs, args.likelihoods, args.importance_samples = 50, 50, 100
    args.classifiers = 2
    if args.quick:
        args.epochs, args.seeds, args.flow_epochs, args.likelihoods = 2, 1, 1, 5
        args.classifiers = 1
    return args


def main():
    args = parse()
    lib.quiet.settle()
    load_data(args.data, args.data_dir)  # says what is missing before any work
    names = list(dict.fromkeys([args.samplers_on, *args.models]))
    for name in names:
        find(name)
    flags = " --quick" if args.quick else ""
    command = f"python examples/benchmark.py --data {args.data}{flags}"
    base = os.path.join(args.output_dir, f"benchmark_{args.data}")
    earlier = read_json(base + ".json", {"wall_seconds": 0.0})["wall_seconds"]
    start = time.perf_counter()
    order = [name for name in MODELS if name in names] + [n for n in names if n not in MODELS]

    def publish(models, rows):
        """Write what there is: an interrupted run leaves tables of its finished rows."""
        for found in (models, rows):
            found.sort(key=lambda row: (order.index(row["model"]), row["seed"]))
        seconds = earlier + time.perf_counter() - start
        text, best, groups = report(models, rows, command, seconds / 60, args)
        write_text(base + ".md", text)
        results = {"arguments": vars(args), "wall_seconds": seconds}
        write_json(base + ".json", results | {"models": models, "samplers": rows})
        return text, best, groups

    text, best, groups = publish(*run_all(names, args, publish))
    on = args.samplers_on
    chosen = [(f"{name}, {sampler}", name, sampler) for name, sampler in best.items()]
    every = [(sampler, on, sampler) for sampler in groups.get(on, {})]
    draw_samples(every, f"{base}_samplers.png", args.output_dir)
    draw_samples(chosen, f"{base}_models.png", args.output_dir)
    print(text)


def run_all(names, args, publish):
    """Rows of all models and seeds, several at a time if asked for."""
    tasks = [(name, seed) for seed in range(args.seeds) for name in names]
    models, rows, start = [], [], time.perf_counter()

    def keep(number, name, seed, found):
        models.append(found[0])
        rows.extend(found[1])
        passed = time.perf_counter() - start
        publish(models, rows)
        print(f"[{number}/{len(tasks)}, {passed:.0f} s] {name}, seed {seed}", flush=True)

    if args.jobs == 1:
        for number, (name, seed) in enumerate(tasks, 1):
            keep(number, name, seed, compare(name, seed, args))
        return models, rows
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        futures = {pool.submit(compare, *task, args): task for task in tasks}
        for number, future in enumerate(concurrent.futures.as_completed(futures), 1):
            keep(number, *futures[future], future.result())
    return models, rows


if __name__ == "__main__":
    main()
