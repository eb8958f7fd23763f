"""Compare models and samplers of pythae and of this package on equal terms, in one command.

    python examples/benchmark.py [--data digits] [--seeds 3] [--jobs 2] [--output-dir FOLDER]

Two tables: all samplers that apply on one trained model (--samplers-on, a VAE), and all models,
each with the sampler that has the least Fréchet distance on the validation images. Measures are on
the test images. Samplers that give back the training data, or whose chains stay where they start,
are marked and not chosen. Results are kept row by row in OUTPUT_DIR/rows: run the command again and
only what is missing is computed; delete a file, or name other models, to add rows. On the digits it
takes about half an hour of one core.
"""

import concurrent.futures
import dataclasses
import os
import statistics
import time

import lib.quiet
import numpy as np
import torch
from lib.costs import DEVICE, SECONDS, measured, processes
from lib.measures import Judge
from lib.samples import draw_samples, keep_samples
from lib.tables import grouped, page, spread, spreads
from pythae import samplers
from pythae.models import VAE, AutoModel
from pythae.pipelines import GenerationPipeline
from pythae.trainers import BaseTrainerConfig

from pythae_geometric import (
    BrownianMotionSamplerConfig,
    MetricUniformHMCSamplerConfig,
    evaluation,
)
from pythae_geometric.commands.arguments import at_least, parser
from pythae_geometric.commands.data import HELP, load_data
from pythae_geometric.commands.files import kept, read_json, row_path, write_json
from pythae_geometric.commands.measures import COPY, reconstructions
from pythae_geometric.commands.models import find, image_fields, make_config, make_model
from pythae_geometric.commands.tables import publish, table
from pythae_geometric.commands.training import train

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
# Of a model itself.
OF_MODELS = {"MSE ↓": ("reconstruction", 4), "NLL ↓": ("nll", 2), "F1 ↑": ("f1", 3)}
COLUMNS = [*(name for name, _ in MEASURES.values()), "acceptance", "seconds", "MB"]
# A sampler with more copies than this share, or more chains that did not move, is marked.
MANY = 0.05


def sampler_configs(model, data, everything, seed, motion_steps):
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
            config = BrownianMotionSamplerConfig(metric=metric, seed=seed, steps=motion_steps)
            configs[f"BrownianMotion {metric}"] = config
    return configs


def model_config(name, images, args):
    """The class of a model, and its config in this comparison."""
    fields = image_fields(images, args.latent_dim, args.epochs)
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
    judge = Judge(data, feature_network(args, data), model, 1 if args.quick else 10)
    is_main = name == args.samplers_on
    rows = references(model, judge, seed, args) if is_main else []
    for sampler, config in sampler_configs(model, data, is_main, seed, args.motion_steps).items():
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
    figures += spreads([row.get("diagnostics", {}) for row in rows], ["acceptance_rate"])
    figures += spreads(rows, (SECONDS, "megabytes"), 1)
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


def report(models, rows, command, seconds, args):
    groups = {}
    for (name, sampler), group in grouped(rows, "model", "sampler").items():
        groups.setdefault(name, {})[sampler] = group
    best = best_samplers(groups)
    trainings = grouped(models, "model")
    chosen = [
        [name, *cells(sampler, groups[name][sampler])]
        + spreads(trainings[name,], (SECONDS, "megabytes"), 0)
        + [spreads(trainings[name,], [key], n)[0] for key, n in OF_MODELS.values()]
        for name, sampler in best.items()
    ]
    others = [
        [name, *cells(*one)]
        for name, by_sampler in groups.items()
        if name != args.samplers_on
        for one in by_sampler.items()
    ]
    on_one = [cells(*one) for one in groups.get(args.samplers_on, {}).items()]
    training = ["training s", "training MB"]
    text = page(
        "benchmark",
        args=args,
        command=command,
        minutes=seconds / 60,
        busy=sum(row.get("processor_seconds", 0) for row in models + rows) / 60,
        features="Inception" if args.features == "inception" else "a small classifier",
        copy=100 * COPY,
        many=100 * MANY,
        clock="wall time" if DEVICE == "cuda" else "the processor",
        on_one=table(["sampler", *COLUMNS], on_one),
        chosen=table(["model", "sampler", *COLUMNS, *training, *OF_MODELS], chosen),
        others=table(["model", "sampler", *COLUMNS], others),
    )
    return text, best, groups


def parse():
    p = parser(__doc__, "outputs/benchmark")
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
    args = p.parse_args()
    args.flow_epochs, args.likelihoods, args.importance_samples, args.classifiers = 50, 50, 100, 2
    args.motion_steps = 100
    if args.quick:
        args.epochs, args.seeds, args.flow_epochs, args.likelihoods = 2, 1, 1, 5
        args.classifiers, args.motion_steps = 1, 5
    return args


def main():
    args = parse()
    lib.quiet.settle()
    load_data(args.data, args.data_dir)  # says what is missing before any work
    names = list(dict.fromkeys([args.samplers_on, *args.models]))
    for name in names:
        find(name)
    command = f"python examples/benchmark.py --data {args.data}{' --quick' * args.quick}"
    report_name, start = f"benchmark_{args.data}", time.perf_counter()
    earlier = read_json(os.path.join(args.output_dir, f"{report_name}.json"), {})
    order = [name for name in MODELS if name in names] + [n for n in names if n not in MODELS]

    def write(models, rows):
        """Write what there is: an interrupted run leaves tables of its finished rows."""
        for found in (models, rows):
            found.sort(key=lambda row: (order.index(row["model"]), row["seed"]))
        seconds = earlier.get("wall_seconds", 0.0) + time.perf_counter() - start
        text, best, groups = report(models, rows, command, seconds, args)
        results = {"arguments": vars(args), "wall_seconds": seconds}
        results |= {"models": models, "samplers": rows}
        return publish(args.output_dir, report_name, text, results), best, groups

    text, best, groups = write(*run_all(names, args, write))
    every = [(sampler, args.samplers_on, sampler) for sampler in groups[args.samplers_on]]
    chosen = [(f"{name}, {sampler}", name, sampler) for name, sampler in best.items()]
    draw_samples(every, args.output_dir, f"{report_name}_samplers.png")
    draw_samples(chosen, args.output_dir, f"{report_name}_models.png")
    print(text)


def run_all(names, args, write):
    """Rows of all models and seeds, several at a time if asked for."""
    tasks = [(name, seed) for seed in range(args.seeds) for name in names]
    models, rows, start = [], [], time.perf_counter()

    def keep(task, found):
        models.append(found[0])
        rows.extend(found[1])
        write(models, rows)
        done, passed = f"{len(models)}/{len(tasks)}", time.perf_counter() - start
        print(f"[{done}, {passed:.0f} s] {task[0]}, seed {task[1]}", flush=True)

    if args.jobs == 1:
        for task in tasks:
            keep(task, compare(*task, args))
        return models, rows
    with concurrent.futures.ProcessPoolExecutor(args.jobs, processes()) as pool:
        futures = {pool.submit(compare, *task, args): task for task in tasks}
        for future in concurrent.futures.as_completed(futures):
            keep(futures[future], future.result())
    return models, rows


if __name__ == "__main__":
    main()
