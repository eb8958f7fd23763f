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

import argparse
import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import statistics
import time

os.environ.setdefault("TQDM_DISABLE", "1")  # the bars of hundreds of trainings

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from common import DEVICE, find, load_data, make_config, make_model, measured, settle, train
from pythae.models import VAE, AutoModel
from pythae.pipelines import GenerationPipeline
from pythae.samplers import (
    GaussianMixtureSamplerConfig,
    IAFSamplerConfig,
    MAFSamplerConfig,
    NormalSamplerConfig,
    RHVAESamplerConfig,
    TwoStageVAESamplerConfig,
    VAMPSamplerConfig,
)
from pythae.trainers import BaseTrainerConfig

from pythae_geometric import BrownianMotionSamplerConfig, MetricUniformHMCSamplerConfig, plotting
from pythae_geometric._files import written_beside
from pythae_geometric.evaluation import (
    class_f1,
    density_and_coverage,
    frechet_distance,
    inception_features,
    nearest_distances,
    negative_log_likelihood,
    prd_scores,
    reconstruction_error,
    train_feature_network,
)
from pythae_geometric.samplers.posteriors import to_decoder_space

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
    "ERManifoldVAE": {
        "manifold": "torus({latent_dim})",
        "posterior": "normal",
        "likelihood_std": 0.2,
    },
}
PRIORS = {
    "VAMP": VAMPSamplerConfig,
    "RHVAE": RHVAESamplerConfig,
    "BrownianRVAE": BrownianMotionSamplerConfig,
}
# On a machine that others use too, wall time says little.
SECONDS = "wall_seconds" if DEVICE == "cuda" else "processor_seconds"
MEASURES = ("frechet", "recall", "precision", "density", "coverage", "nearest", "copies")
# A copy is nearer to a training image, or its reconstruction, than this times a new image.
COPY = 0.1
# A sampler with more copies than this share, or more chains that did not move, is marked.
MANY = 0.05


def sampler_configs(model, data, everything, seed):
    """The samplers to compare on a model. The first is the prior, or what pythae takes for it."""
    name = model.model_name
    prior = PRIORS.get(name, NormalSamplerConfig)
    first = prior.__name__.removesuffix("SamplerConfig"), prior()
    if name == "RHVAE":  # of whose default 100 steps each takes seconds: K x B x d x d in memory
        first = "RHVAE 5 steps", RHVAESamplerConfig(mcmc_steps_nbr=5)
    configs = {
        first[0]: first[1],
        "GaussianMixture": GaussianMixtureSamplerConfig(n_components=10),
        "MetricUniformHMC": MetricUniformHMCSamplerConfig(seed=seed),
    }
    with torch.no_grad():
        variances = "log_covariance" in model.encoder(data.train[:2].to(DEVICE))
    if variances and name != "BrownianRVAE":  # whose posterior is no Gaussian
        configs["MetricUniformHMC, paper"] = MetricUniformHMCSamplerConfig(
            metric="posteriors", seed=seed
        )
    if everything:
        configs["MAF"] = MAFSamplerConfig()
        configs["IAF"] = IAFSamplerConfig()
        if isinstance(model, VAE):
            configs["TwoStageVAE"] = TwoStageVAESamplerConfig()
        for metric in ("posterior", "pullback"):
            configs[f"BrownianMotion {metric}"] = BrownianMotionSamplerConfig(
                metric=metric, seed=seed
            )
    return configs


@torch.no_grad()
def reconstructions(model, images):
    """The decoded codes of images."""
    parts = []
    for batch in images.split(500):
        code = to_decoder_space(model, model.encoder(batch.to(DEVICE)).embedding)
        parts.append(model.decoder(code)["reconstruction"].cpu().reshape(batch.shape).clamp(0, 1))
    return torch.cat(parts)


class Judge:
    """The measures of generated images against the validation, and against the test images."""

    def __init__(self, data, network, model):
        self.data, self.network = data, network
        self.real = {part: self.features(getattr(data, part)) for part in ("validation", "test")}
        # What a sample could copy, and how far from it new images are.
        decoded = [reconstructions(model, images) for images in (data.train, data.test)]
        self.known = [
            (old, nearest_distances(new, old)[0].median())
            for old, new in ((data.train, data.test), decoded)
        ]

    def features(self, images):
        if self.network is None:
            return inception_features(images.to(DEVICE)).cpu()
        return self.network(images)

    def measure(self, images):
        """The first half is measured on the validation images, the other on the test images."""
        images = images.detach().cpu().reshape(-1, *self.data.test.shape[1:]).clamp(0, 1)
        halves = zip(("validation", "test"), images.split(-(-len(images) // 2)), strict=True)
        return {part: self._one(part, half) for part, half in halves}

    def _one(self, part, images):
        real, fake = self.real[part], self.features(images)
        recall, precision = prd_scores(real, fake, seed=0)
        density, coverage = density_and_coverage(real, fake)
        apart = [nearest_distances(images, old)[0] / new for old, new in self.known]
        nearest = float(apart[0].median())
        copies = float((torch.minimum(*apart) < COPY).double().mean())
        values = frechet_distance(real, fake), recall, precision, density, coverage, nearest, copies
        return dict(zip(MEASURES, values, strict=True))


class Row:
    """A row of results in a file of its own."""

    def __init__(self, folder, *key):
        name = "-".join(str(part).replace(" ", "_").replace("/", "_") for part in key)
        self.path = os.path.join(folder, "rows", f"{name}.json")

    def load(self):
        if os.path.exists(self.path):
            with open(self.path, encoding="utf-8") as file:
                return json.load(file)
        return None

    def save(self, result):
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with written_beside(self.path) as path, open(path, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
        return result


def model_fields(name, args):
    """The fields of the config of a model in this comparison."""
    fields = {"latent_dim": args.latent_dim, "reconstruction_loss": "bce"}
    fields["warmup_epochs"] = max(1, args.epochs // 2)
    if args.data == "digits":
        fields |= {"hidden_dims": (128, 64) if name == "BrownianRVAE" else (512,)}
        fields |= {"num_centers": 64}
    special = MODELS.get(name, {})
    return fields | {
        k: v.format(latent_dim=args.latent_dim) if isinstance(v, str) else v
        for k, v in special.items()
    }


def trained_model(name, seed, args, data):
    """The model, trained or loaded, and the row of its own measures."""
    row = Row(args.output_dir, "model", name, seed)
    folder = os.path.join(args.output_dir, "models", f"{name}-{seed}")
    result = row.load()
    if result is None or not os.path.exists(os.path.join(folder, "model.pt")):
        cls, config = make_config(name, input_dim=data.train.shape[1:], **model_fields(name, args))
        torch.manual_seed(seed)
        model = make_model(cls, config, args.networks)
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
        test = data.test.to(DEVICE)
        result = {"model": name, "seed": seed, **figures}
        result["reconstruction"] = reconstruction_error(model, test)
        result["nll"] = result["f1"] = None
        if hasattr(model, "get_nll"):
            few = test[: args.likelihoods]
            result["nll"] = negative_log_likelihood(model, few, args.importance_samples)
        if data.train_labels is not None:
            with torch.no_grad():
                codes, test_codes = (
                    torch.cat([model.encoder(b.to(DEVICE)).embedding for b in x.split(500)])
                    for x in (data.train, data.test)
                )
            labels = data.train_labels, data.test_labels
            f1 = class_f1(codes, labels[0], test_codes, labels[1], seed, args.classifiers)
            result["f1"] = float(f1.mean())
        row.save(result)
    return model, result


def generate(model, config, count, data, folder, args):
    """Samples of a sampler, fitted where it must be, and what it tells of its chains or paths."""
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
    """All rows of one model and one seed, as lines to print."""
    settle()
    torch.set_num_threads(1 if args.jobs > 1 else torch.get_num_threads())
    data = load_subset(args)
    rows = []
    model, result = trained_model(name, seed, args, data)
    judge = Judge(data, feature_network(args, data), model)
    if name == args.samplers_on:
        rows += references(model, judge, seed, args)
    count = 2 * min(len(data.test), args.samples)
    configs = sampler_configs(model, data, name == args.samplers_on, seed)
    for sampler, config in configs.items():
        row = Row(args.output_dir, "samples", name, sampler, seed)
        found = row.load()
        if found is None:
            found = {"model": name, "sampler": sampler, "seed": seed}
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002  (scikit-learn's mixture draws from it)
            try:
                folder = os.path.join(args.output_dir, "models", f"{name}-{seed}")
                with measured() as figures:
                    images, found["diagnostics"] = generate(
                        model, config, count, data, folder, args
                    )
                found |= figures | judge.measure(images)
            except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
                found["error"] = str(error).strip().splitlines()[0] if str(error) else repr(error)
            else:
                if seed == 0:
                    draw(model, images[len(images) // 2 :], data, name, sampler, args)
            row.save(found)
        rows.append(found)
    return result, rows


def references(model, judge, seed, args):
    """What the measures give for training images, and for reconstructions of held-out ones."""
    data, rows = judge.data, []
    decoded = [reconstructions(model, images) for images in (data.validation, data.test)]
    few = min(map(len, decoded))
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))
    cases = {
        "(training images)": data.train[order[: 2 * few]],
        "(reconstructions)": torch.cat([part[:few] for part in decoded]),
    }
    for name, images in cases.items():
        row = Row(args.output_dir, "samples", args.samplers_on, name, seed)
        found = row.load() or row.save(
            {"model": args.samplers_on, "sampler": name, "seed": seed, **judge.measure(images)}
        )
        rows.append(found)
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
    return train_feature_network(data.train, data.train_labels, seed=0).features


def load_subset(args):
    data = load_data(args.data, args.data_dir)
    if args.quick:
        return data._replace(
            train=data.train[:300],
            train_labels=None if data.train_labels is None else data.train_labels[:300],
            validation=data.validation[:60],
            test=data.test[:60],
            test_labels=None if data.test_labels is None else data.test_labels[:60],
        )
    return data


def draw(model, images, data, name, sampler, args, count=12):
    """A sample, the training image nearest to it, and the reconstruction of that."""
    images = images[:count].detach().cpu().reshape(-1, *data.test.shape[1:]).clamp(0, 1)
    _, nearest = nearest_distances(images, data.train)
    near = data.train[nearest]
    folder = os.path.join(args.output_dir, "samples")
    os.makedirs(folder, exist_ok=True)
    cells = torch.stack([images, near, reconstructions(model, near)])
    key = Row("", name, sampler).path.split(os.sep)[-1].removesuffix(".json")
    torch.save(cells, os.path.join(folder, f"{key}.pt"))


def draw_grids(chosen, path, args):
    """One block of rows for each (title, model, sampler): samples, nearest, reconstructions."""
    blocks = []
    for title, name, sampler in chosen:
        key = Row("", name, sampler).path.split(os.sep)[-1].removesuffix(".json")
        file = os.path.join(args.output_dir, "samples", f"{key}.pt")
        if os.path.exists(file):
            blocks.append((title, torch.load(file, weights_only=True)))
    if not blocks:
        return
    columns = 2
    rows = -(-len(blocks) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(10, 1.75 * rows), layout="constrained", squeeze=False
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (title, cells) in zip(axes.flat, blocks, strict=False):
        plotting.image_grid(cells.flatten(0, 1), columns=cells.shape[1], ax=ax)
        ax.set_title(title, fontsize=9)
    figure.suptitle("Sample, nearest training image, its reconstruction", fontsize=10)
    figure.savefig(path, dpi=100)
    plt.close(figure)


# Tables


def spread(values, digits):
    values = [value for value in values if value is not None]
    if not values:
        return "—"
    deviation = f"{statistics.stdev(values):.{digits}f}" if len(values) > 1 else "—"
    return f"{statistics.fmean(values):.{digits}f} ± {deviation}"


HEADER = (
    "Fréchet ↓ | F8 ↑ | F1/8 ↑ | density | coverage ↑ | nearest | copies | acceptance | "
    "seconds | MB"
)
DIGITS = (2, 3, 3, 2, 3, 2, 3)


def heading(columns):
    return [f"| {columns} |", "|---" * (columns.count("|") + 1) + "|"]


def line(sampler, rows):
    """The name of a sampler, marked if it copies, and its figures."""
    if any("error" in row for row in rows):
        error = next(row["error"] for row in rows if "error" in row)
        return f"{sampler} | does not apply: {error.partition(':')[0][:80]} |" + " — |" * 9
    measures = [
        spread([row["test"][m] for row in rows], d) for m, d in zip(MEASURES, DIGITS, strict=True)
    ]
    chains = [row.get("diagnostics", {}) for row in rows]
    measures.append(spread([found.get("acceptance_rate") for found in chains], 2))
    costs = [spread([row.get(key) for row in rows], 1) for key in (SECONDS, "megabytes")]
    return " | ".join([sampler + " †" * copying(rows), *measures, *costs]) + " |"


def copying(rows):
    """Whether many samples of a sampler are copies, or many of its chains did not move."""
    copies = [row[part]["copies"] for row in rows for part in ("validation", "test")]
    chains = [row.get("diagnostics", {}) for row in rows]
    starts = [found["at_start"] / found["number"] for found in chains if "at_start" in found]
    return any(statistics.fmean(shares) > MANY for shares in (copies, starts or [0]))


def grouped(rows):
    """Rows by model, then by sampler."""
    groups = {}
    for row in rows:
        groups.setdefault(row["model"], {}).setdefault(row["sampler"], []).append(row)
    return groups


def best_samplers(groups):
    """For each model, the sampler with the least mean Fréchet distance on the validation images,
    of those that do not copy."""
    best = {}
    for name, samplers in groups.items():
        scores = {
            sampler: statistics.fmean(row["validation"]["frechet"] for row in rows)
            for sampler, rows in samplers.items()
            if not sampler.startswith("(")
            and not any("error" in row for row in rows)
            and not copying(rows)
        }
        if scores:
            best[name] = min(scores, key=scores.get)
    return best


def report(models, rows, command, minutes, args):
    busy = sum(row.get("processor_seconds", 0) for row in models + rows) / 60
    groups = grouped(rows)
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
        lines += ["", f"## Samplers on one {args.samplers_on}", "", *heading(f"sampler | {HEADER}")]
        lines += [f"| {line(s, r)}" for s, r in groups[args.samplers_on].items()]
    lines += [
        "",
        "## Models, each with the sampler that is best on the validation images",
        "",
        *heading(f"model | sampler | {HEADER} | training s | training MB | MSE ↓ | NLL ↓ | F1 ↑"),
    ]
    for name, sampler in best.items():
        own = [m for m in models if m["model"] == name]
        costs = [spread([m[key] for m in own], 0) for key in (SECONDS, "megabytes")]
        keeps = [spread([m[key] for m in own], d) for key, d in (("reconstruction", 4), ("nll", 2))]
        keeps.append(spread([m["f1"] for m in own], 3))
        lines.append(
            f"| {name} | {line(sampler, groups[name][sampler])} " + " | ".join(costs + keeps) + " |"
        )
    lines += [
        "",
        "MSE: of reconstructions of test images, per pixel. NLL: importance-weighted, nats, of "
        f"{args.likelihoods} test images, by the model's own likelihood (binary cross-entropy for "
        "pythae's, Gaussians of different variances for ours): comparable within one kind only. "
        "F1: mean over classes, of small classifiers on the codes.",
        "",
        "## All samplers of all models",
        "",
        *heading(f"model | sampler | {HEADER}"),
    ]
    for name, samplers in groups.items():
        if name != args.samplers_on:
            lines += [f"| {name} | {line(s, r)}" for s, r in samplers.items()]
    return "\n".join(lines) + "\n", best, groups


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits", help="digits, or the name of a folder of data")
    parser.add_argument("--data-dir", default="data", help="where that folder is")
    parser.add_argument("--networks", default="default", choices=("default", "convnet", "resnet"))
    parser.add_argument("--features", default="classifier", choices=("classifier", "inception"))
    parser.add_argument("--latent-dim", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="names of models")
    parser.add_argument("--samplers-on", default="VAE", help="the model for all samplers")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--samples", type=int, default=10_000, help="at most, for each measure")
    parser.add_argument("--jobs", type=int, default=1, help="models that are trained at a time")
    parser.add_argument("--output-dir", default="outputs/benchmark")
    parser.add_argument("--quick", action="store_true", help="a few epochs, to see that it runs")
    args = parser.parse_args()
    settle()
    args.flow_epochs, args.likelihoods, args.importance_samples = 50, 50, 100
    args.classifiers = 2
    if args.quick:
        args.epochs, args.seeds, args.flow_epochs, args.likelihoods = 2, 1, 1, 5
        args.classifiers = 1
    load_data(args.data, args.data_dir)  # says what is missing before any work
    os.makedirs(args.output_dir, exist_ok=True)
    names = []
    for name in dict.fromkeys([args.samplers_on, *args.models]):
        try:
            find(name)
            names.append(name)
        except SystemExit as error:
            if name not in MODELS:
                raise
            print(f"{name} is left out: {error}")

    flags = " --quick" if args.quick else ""
    command = f"python examples/benchmark.py --data {args.data}{flags}"
    base = os.path.join(args.output_dir, f"benchmark_{args.data}")
    start, earlier = time.perf_counter(), earlier_seconds(base + ".json")
    order = [name for name in MODELS if name in names] + [n for n in names if n not in MODELS]

    def publish(models, rows):
        """Write what there is: an interrupted run leaves tables of its finished rows."""
        models.sort(key=lambda row: (order.index(row["model"]), row["seed"]))
        rows.sort(key=lambda row: (order.index(row["model"]), row["seed"]))
        seconds = earlier + time.perf_counter() - start
        text, best, groups = report(models, rows, command, seconds / 60, args)
        with written_beside(base + ".md") as path, open(path, "w", encoding="utf-8") as file:
            file.write(text)
        with written_beside(base + ".json") as path, open(path, "w", encoding="utf-8") as file:
            results = {"arguments": vars(args), "wall_seconds": seconds}
            json.dump(results | {"models": models, "samplers": rows}, file, indent=1)
        return text, best, groups

    text, best, groups = publish(*run_all(names, args, publish))
    on = args.samplers_on
    draw_grids([(s, on, s) for s in groups.get(on, {})], f"{base}_samplers.png", args)
    draw_grids([(f"{n}, {s}", n, s) for n, s in best.items()], f"{base}_models.png", args)
    print(text)


def earlier_seconds(path):
    """The wall time of earlier runs that wrote these results."""
    if not os.path.exists(path):
        return 0.0
    with open(path, encoding="utf-8") as file:
        return json.load(file)["wall_seconds"]


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
