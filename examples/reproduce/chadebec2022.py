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

import argparse
import json
import math
import os
import pathlib
import statistics
import sys
import time
import warnings
from functools import cached_property
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

os.environ.setdefault("TQDM_DISABLE", "1")  # the bars of hundreds of trainings

import matplotlib.pyplot as plt
import torch
from benchmark import SECONDS, Row, draw, draw_grids
from common import DEVICE, find, load_data, measured, settle, train
from networks import HIDDEN, Decoder, Encoder
from published_hmc import PublishedMetricByProducts, published_samples
from pythae.models import AutoModel
from pythae.samplers import MAFSampler, NormalSampler, VAMPSampler
from pythae.trainers import BaseTrainerConfig
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from pythae_geometric import MetricUniformHMCSampler, MetricUniformHMCSamplerConfig
from pythae_geometric._files import written_beside
from pythae_geometric.evaluation import (
    FeatureNetwork,
    density_and_coverage,
    frechet_distance,
    prd_scores,
    train_feature_network,
)
from pythae_geometric.samplers.posteriors import embed

LATENT_DIM = 16
# Two regimes. The source's loss is |x - f(z)|² + 0.01 KL; pythae's squared error has a factor 1/2.
SOURCE = {"reconstruction_loss": "mse", "beta": 0.005}
PYTHAE = {"reconstruction_loss": "bce"}
# Model, its fields, and how many epochs it trains.
MODELS = {
    "BetaVAE": ("BetaVAE", SOURCE, 20),
    "VAE": ("VAE", PYTHAE, 20),
    "AE": ("AE", {}, 10),
    "WAE": ("WAE_MMD", {}, 10),
    "RAE": ("RAE_GP", {}, 10),
    "VAMP": ("VAMP", {**PYTHAE, "number_components": 100}, 10),
    "IWAE": ("IWAE", {**PYTHAE, "number_samples": 3}, 10),
    "Adversarial_AE": ("Adversarial_AE", {}, 10),
    "VAEGAN": ("VAEGAN", {}, 10),
    "HVAE": ("HVAE", {"n_lf": 1}, 10),  # pythae's takes binary images for "bce"
    "RHVAE": ("RHVAE", {**PYTHAE, "n_lf": 1}, 5),
}
WITHOUT_VARIANCES = ("AE", "WAE", "RAE")

# The samplers of each part.
NORMAL, MIXTURE, CHOSEN, MAF = "N(0, I)", "mixture of 10", "mixture, chosen", "MAF"
PUBLISHED, PAPER, OURS = "published algorithm", "ours, paper's setting", "ours, default"
VAMP_PRIOR, RHVAE_OWN = "VAMP prior", "RHVAE sampler"
TRAINING, REBUILT_TEST, REBUILT_TRAINING = (
    "(training images)",
    "(test images, reconstructed)",
    "(training images, reconstructed)",
)
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
FEATURE_EPOCHS = 10
FEW = 2000  # samples whose distances to the training data are taken


class Budget(NamedTuple):
    """What a run computes."""

    mixtures: tuple = (10, 50, 100, 200, 300, 400)  # numbers to choose from
    maf_epochs: int = 50
    steps: int = 100  # of the chains of the paper's setting
    centroids: tuple = (10, 50, 100, 200, 500, 1000)
    regularizations: tuple = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    images: tuple = (1000, 2000, 5000, 10_000)


QUICK = Budget((2, 4), 1, 3, (20, 100), (0.01, 1.0), (150,))


# Data and models


def split(data):
    """The last 10,000 training images, as in the source, choose epochs and settings."""
    whole = torch.cat([data.train, data.validation])
    labels = torch.cat([data.train_labels, data.validation_labels])
    cut = len(whole) - min(10_000, len(whole) // 6)
    return data._replace(
        train=whole[:cut],
        train_labels=labels[:cut],
        validation=whole[cut:],
        validation_labels=labels[cut:],
    )


def first(data, train_count, validation_count, test_count=None):
    """The first images of each part."""
    return data._replace(
        train=data.train[:train_count],
        train_labels=data.train_labels[:train_count],
        validation=data.validation[:validation_count],
        validation_labels=data.validation_labels[:validation_count],
        test=data.test[:test_count],
        test_labels=data.test_labels[:test_count],
    )


def trained_model(key, seed, data, args):
    """The model ``key`` of :data:`MODELS`, trained or loaded."""
    name, fields, epochs = MODELS[key]
    folder = os.path.join(args.output_dir, "models", f"{args.data}-{key}-{seed}")
    if not os.path.exists(os.path.join(folder, "model.pt")):
        cls, config = find(name)
        config = config(input_dim=tuple(data.train.shape[1:]), latent_dim=args.latent_dim, **fields)
        eval_batch_size = 500
        if key == "RHVAE":  # evaluation takes images x 10,000 centroids x d x d numbers
            data, eval_batch_size = data._replace(validation=data.validation[:200]), 10
        torch.manual_seed(seed)
        model = cls(config, Encoder(config, key not in WITHOUT_VARIANCES), Decoder(config))
        trained = train(
            model,
            data,
            os.path.join(folder, "training"),
            num_epochs=args.epochs or epochs,
            per_device_train_batch_size=100,
            per_device_eval_batch_size=eval_batch_size,
            seed=seed,
        )
        AutoModel.load_from_folder(trained).save(folder)
    return AutoModel.load_from_folder(folder).to(DEVICE).eval()


class Case:
    """A model and a seed of training, on a data set or on its first ``count`` training images.

    What a row needs is loaded or computed when it is asked for: rows that are kept need nothing.
    """

    def __init__(self, key, seed, judge, args, count=None):
        self.key, self.seed, self.judge, self.args, self.count = key, seed, judge, args, count
        self.name = f"{args.data}-{key}-{seed}" + (f"-{count}_images" if count else "")

    @cached_property
    def data(self):
        data = self.judge.data
        return first(data, self.count, self.count // 5) if self.count else data

    @cached_property
    def model(self):
        args = self.args
        if self.count:  # as many steps as with all images, up to 10 times as many epochs
            epochs = MODELS[self.key][2]
            epochs = args.epochs or epochs * min(10, len(self.judge.data.train) // self.count)
            folder = os.path.join(args.output_dir, f"train_{self.count}")
            args = with_fields(args, output_dir=folder, epochs=epochs)
        return trained_model(self.key, self.seed, self.data, args)

    def encode(self, images):
        """Their codes, bit by bit as the samplers of this package see them."""
        return embed(self.model, images, 500, DEVICE, torch.float32)

    @cached_property
    def codes(self):
        """Codes of the training images: where chains start."""
        return self.encode(self.data.train)

    @cached_property
    def held_out(self):
        """Median distances of test images, and of their codes, to the nearest of training."""
        images = shuffled(self.data.test)[:FEW]
        return (
            median_nearest(images, self.data.train),
            median_nearest(self.encode(images), self.codes),
        )

    @cached_property
    def maf(self):
        """pythae's MAF sampler, fitted once: sampling seeds share it."""
        torch.manual_seed(self.seed)
        sampler = MAFSampler(self.model)
        config = BaseTrainerConfig(
            output_dir=os.path.join(self.args.output_dir, "maf", self.name),
            num_epochs=self.args.budget.maf_epochs,
            learning_rate=1e-3,
            per_device_train_batch_size=500,
            per_device_eval_batch_size=500,
            seed=self.seed,
        )
        sampler.fit(self.data.train, self.data.validation, config)
        return sampler

    @torch.no_grad()
    def decode(self, codes):
        batches = codes.to(DEVICE).split(500)
        return torch.cat([self.model.decoder(z)["reconstruction"].cpu() for z in batches])


def with_fields(args, **fields):
    return argparse.Namespace(**{**vars(args), **fields})


def shuffled(tensor, seed=0):
    return tensor[torch.randperm(len(tensor), generator=torch.Generator().manual_seed(seed))]


# Samplers: each is fitted to a case, and gives a function that draws codes, and what is to be kept
# of them in the row (acceptance, a note, ...).


def caught(model, sampler, count):
    """The codes that one of pythae's samplers decodes."""
    codes = []

    def keep(_, args, kwargs):
        codes.append(next(iter([*args, *kwargs.values()])).detach())

    hook = model.decoder.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        sampler.sample(count)
    finally:
        hook.remove()
    return torch.cat(codes)


def normal(case, seed):
    return lambda count: (caught(case.model, NormalSampler(case.model), count), {})


def vamp_prior(case, seed):
    return lambda count: (caught(case.model, VAMPSampler(case.model), count), {})


def rhvae_own(case, seed):
    raise NotImplementedError(
        "left out: pythae's RHVAESampler sums over 10,000 centroids x d x d numbers in each "
        "leapfrog step of each sample, 45 s a sample on one core"
    )


def maf(case, seed):
    sampler = case.maf
    torch.manual_seed(seed)
    return lambda count: (caught(case.model, sampler, count), {})


def fitted_mixture(case, number):
    """A Gaussian mixture of the codes, with the likelihood of held-out codes; kept.

    pythae's own sampler fits draws of the posteriors instead of their means."""
    path = os.path.join(case.args.output_dir, "mixtures", f"{case.name}-{number}.pt")
    if not os.path.exists(path):
        codes, held_out = case.codes, case.encode(case.data.validation)
        with measured() as figures:
            mixture = GaussianMixture(number, max_iter=2000, random_state=case.seed)
            mixture.fit(codes.numpy())
        parameters = mixture.weights_, mixture.means_, mixture.covariances_
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with written_beside(path) as beside:
            torch.save(
                {
                    "number": number,
                    "parameters": [torch.as_tensor(p).double() for p in parameters],
                    "likelihood": float(mixture.score(held_out.numpy())),
                    "seconds": figures[SECONDS],
                },
                beside,
            )
        print(f"  mixture of {number} for {case.name}: {figures[SECONDS]:.0f} s", flush=True)
    return torch.load(path, weights_only=True)


def draws_of(mixture, seed, **kept):
    """Draws in random order (scikit-learn's are ordered by component)."""
    weights, means, covariances = mixture["parameters"]
    generator = torch.Generator().manual_seed(seed)

    def draw_codes(count):
        k = torch.multinomial(weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, means.shape[1], 1, generator=generator, dtype=means.dtype)
        codes = means[k] + (torch.linalg.cholesky(covariances)[k] @ noise)[..., 0]
        return codes.float(), {"fit_seconds": mixture["seconds"], **kept}

    return draw_codes


def mixture_of_10(case, seed):
    return draws_of(fitted_mixture(case, 10), seed)


def chosen_mixture(case, seed):
    """The number grows until the likelihood of the codes of validation images falls."""
    best, seconds = None, 0.0
    for number in case.args.budget.mixtures:
        mixture = fitted_mixture(case, number)
        seconds += mixture["seconds"]
        if best is not None and mixture["likelihood"] < best["likelihood"]:
            break
        best = mixture
    note = f"{best['number']} components"
    return draws_of(best, seed, note=note, fit_seconds=seconds)


def paper_sampler(case, seed, **settings):
    if case.args.quick:
        settings["mcmc_steps_nbr"] = case.args.budget.steps
    config = MetricUniformHMCSamplerConfig(metric="posteriors", seed=seed, **settings)
    sampler = MetricUniformHMCSampler(case.model, config)
    sampler.fit(case.data.train)
    return sampler


def published(case, seed, **settings):
    """With the centroids and the temperature of the paper's setting of ours."""
    m = paper_sampler(case, seed, **settings).metric
    lam = float(m.regularization)
    metric = PublishedMetricByProducts(m.centroids, m.precisions, float(m.temperature), lam)
    generator = torch.Generator(DEVICE).manual_seed(seed)
    steps, means = case.args.budget.steps, case.codes.to(DEVICE)

    def draw_codes(count):
        codes, acceptance = published_samples(metric, means, count, steps, generator=generator)
        # As HMCDiagnostics counts it: 1 % a coordinate.
        flat = m.log_volume(codes) < m.dim * (0.5 * math.log(lam) + 0.01)
        return codes, {"acceptance": acceptance, "flat": float(flat.float().mean())}

    return draw_codes


def run_chains(sampler):
    def draw_codes(count):
        codes, found = sampler.sample_latent(count), sampler.diagnostics
        kept = {"acceptance": found.acceptance_rate, "step_size": found.step_size}
        if sampler.sampler_config.metric == "posteriors":
            return codes, {**kept, "flat": found.flat / found.number}
        return codes, {**kept, "note": f"{len(sampler.metric.centroids)} centroids"}

    return draw_codes


def paper(case, seed, **settings):
    return run_chains(paper_sampler(case, seed, **settings))


def ours(case, seed, **settings):
    config = MetricUniformHMCSamplerConfig(seed=seed, **settings)
    sampler = MetricUniformHMCSampler(case.model, config)
    sampler.fit(case.data.train)
    return run_chains(sampler)


# What no sampler can pass: images themselves, and images that went through the model.


def training_images(case, seed):
    return lambda count: (None, {"images": shuffled(case.data.train, seed)[:count]})


def rebuilt(part):
    def fit(case, seed):
        codes = case.codes if part == "train" else case.encode(case.data.test)
        return lambda count: (shuffled(codes, seed)[:count], {})

    return fit


SAMPLERS = {
    NORMAL: normal,
    VAMP_PRIOR: vamp_prior,
    RHVAE_OWN: rhvae_own,
    MAF: maf,
    MIXTURE: mixture_of_10,
    CHOSEN: chosen_mixture,
    PUBLISHED: published,
    PAPER: paper,
    OURS: ours,
    TRAINING: training_images,
    REBUILT_TEST: rebuilt("test"),
    REBUILT_TRAINING: rebuilt("train"),
}


# Measures


class Judge:
    """A data set, and the measures of images against all of its test images."""

    def __init__(self, args):
        self.args = args

    @cached_property
    def data(self):
        data = split(load_data(self.args.data, self.args.data_dir))
        return first(data, 300, 60, 200) if self.args.quick else data

    @cached_property
    def network(self):
        data, path = self.data, os.path.join(self.args.output_dir, f"features-{self.args.data}.pt")
        if not os.path.exists(path):
            found = train_feature_network(data.train, data.train_labels, 0, FEATURE_EPOCHS)
            with written_beside(path) as beside:
                torch.save(found.state_dict(), beside)
        network = FeatureNetwork(data.train.shape[1:], int(data.train_labels.max()) + 1)
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval().requires_grad_(False)

    @cached_property
    def real(self):
        return self.network.features(self.data.test)

    def measure(self, images):
        fake = self.network.features(images)
        recall, precision = prd_scores(self.real, fake, seed=0)
        density, coverage = density_and_coverage(self.real, fake)
        return {
            "frechet": frechet_distance(self.real, fake),
            "recall": recall,
            "precision": precision,
            "density": density,
            "coverage": coverage,
        }


def median_nearest(points, others):
    """Median distance to the nearest of ``others``.

    In float32: in float64, as :func:`~pythae_geometric.evaluation.nearest_distances` has it, this
    would take most of the time of a row; distances here are far above the rounding.
    """
    others = others.flatten(1)
    batches = points.flatten(1).split(500)
    return float(torch.cat([torch.cdist(b, others).amin(1) for b in batches]).median())


def duplicates(codes, training_codes):
    """Share of codes that are, bit by bit, one of a training image or one that came before."""
    seen = {code.tobytes() for code in training_codes.numpy()}
    count = 0
    for code in codes.numpy():
        count += code.tobytes() in seen
        seen.add(code.tobytes())
    return count / len(codes)


def novelty(case, images, codes):
    """How far samples are from the training data, test images being at 1; and copies."""
    of_images, of_codes = case.held_out
    found = {"nearest": median_nearest(images[:FEW], case.data.train) / of_images}
    if codes is not None:
        found["nearest_code"] = median_nearest(codes[:FEW], case.codes) / of_codes
        found["duplicates"] = duplicates(codes, case.codes)
    return found


# Rows


def row(case, sampler, seed, **settings):
    """The row of a sampler, from its file or computed; None: it is to be neither (--collect)."""
    label = " ".join([sampler, *(f"{k}={v}" for k, v in settings.items())])
    file = Row(case.args.output_dir, case.name, label, seed)
    found = file.load()
    if found is None and not case.args.collect:
        found = file.save(compute(case, sampler, seed, settings))
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
        model = case.model
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
            found |= kept | case.judge.measure(images) | novelty(case, images, codes)
        found["measure_seconds"] = measuring[SECONDS]
    except Exception as error:  # a sampler that fails is a result, and hours of others go on
        text = " ".join(str(error).split())[:200]
        left_out = isinstance(error, NotImplementedError)
        return found | {"error": text if left_out else f"{type(error).__name__}: {text}"}
    if case.seed == seed == 0 and not case.count and not settings:
        draw(model, images, case.data, f"{case.args.data}-{case.key}", sampler, case.args)
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


def mean_and_error(values):
    """The mean, and its standard error, which one value does not have."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return statistics.fmean(values), error


def cell(rows, measure, digits, with_error=True):
    values = [row[measure] for row in rows if row.get(measure) is not None]
    if not values:
        return "—"
    mean, error = mean_and_error(values)
    if not with_error:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± " + ("—" if error is None else f"{error:.{digits}f}")


def line(names, rows):
    good = [row for row in rows if "error" not in row]
    cells = [cell(good, *column) for column in COLUMNS.values()]
    cells += [cell(good, *column, with_error=False) for column in MEANS.values()]
    failed = [row["error"] for row in rows if "error" in row]
    notes = [row["note"] for row in good if "note" in row] + failed
    return (
        "| " + " | ".join([*names, *cells, str(len(good)), "; ".join(dict.fromkeys(notes))]) + " |"
    )


def table(rows, *by):
    """A table with a line for each combination of the values of ``by``."""
    groups = {}
    for one in rows:
        groups.setdefault(tuple(one[key] for key in by), []).append(one)
    header = [*by, *COLUMNS, *MEANS, "rows", "notes"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for names, group in groups.items():
        lines.append(line(["—" if name is None else str(name) for name in names], group))
    return lines


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
        "(examples/published_hmc.py); its centroids and temperature are those of ours in the "
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
        lines += ["", f"## Samplers and models on {name}", "", *table(rows, "model", "sampler")]
    if last:
        lines += ["", f"## Priors against this sampler, on {args.data[0]}", ""]
        lines += table(last, "model", "sampler")
    for study, rows in studies.items():
        if not rows:
            continue
        rows = sorted(rows, key=lambda one: (one["value"] is None, one["value"]))
        lines += ["", f"## {TITLES[study]} ({STUDIED} on {args.data[0]})", ""]
        lines += table([{**one, study: one["value"]} for one in rows], study, "sampler")
    text = "\n".join(lines) + "\n"
    everything = {"tables": tables, "last": last, "studies": studies}
    base = os.path.join(args.output_dir, "chadebec2022")
    for end, content in ((".md", text), (".json", json.dumps(everything, indent=1))):
        with written_beside(base + end) as path, open(path, "w", encoding="utf-8") as file:
            file.write(content)
    return text


def draw_samples(args):
    for name in args.data:
        blocks = [
            (f"{key}: {sampler}", f"{name}-{key}", sampler)
            for key in args.models
            for sampler in dict.fromkeys(TABLE.get(key, ()) + LAST.get(key, ()))
        ]
        draw_grids(blocks, os.path.join(args.output_dir, f"samples_{name}.png"), args)


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
    groups = {}
    for one in rows:
        if "error" not in one:
            groups.setdefault(one["value"], []).append(one[measure])
    if None in groups:
        ax.axhline(statistics.fmean(groups.pop(None)), color=color, linestyle="--")
    if groups:
        points = [(value, *mean_and_error(v)) for value, v in sorted(groups.items())]
        values, means, errors = zip(*points, strict=True)
        errors = [error or 0 for error in errors]
        ax.errorbar(values, means, errors, color=color, marker="o", markersize=4, capsize=3)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", help="digits, mnist, fashion_mnist (default: mnist)")
    parser.add_argument("--data-dir", default="data", help="where their folders are")
    parser.add_argument("--output-dir", help="default: outputs/chadebec2022, or _quick after it")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--train-seeds", type=int, default=2, help="how many trainings")
    parser.add_argument("--seeds", type=int, default=3, help="runs of a sampler on each")
    parser.add_argument("--samples", type=int, default=10_000, help="in each run")
    parser.add_argument("--only-train", action="store_true", help="train the models, and stop")
    parser.add_argument("--collect", action="store_true", help="only write what there is")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a few digits, to see that it runs")
    args = parser.parse_args()
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
        draw_samples(args)
        print(publish(tables, last, studies, args))


def main():
    args = parse()
    settle()
    warnings.filterwarnings("ignore", "Of the .* chains")  # the tables have these numbers
    torch.set_num_threads(args.threads)
    os.makedirs(args.output_dir, exist_ok=True)
    start = time.perf_counter()
    with threadpool_limits(args.threads):
        run(args)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
