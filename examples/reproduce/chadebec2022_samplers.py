"""Data, models and samplers of the reproduction of Chadebec and Allassonnière (NeurIPS 2022).

chadebec2022.py measures the samples and writes the tables.
"""

import argparse
import math
import os
from functools import cached_property
from typing import NamedTuple

import torch
from lib.costs import DEVICE, SECONDS, measured
from lib.networks import decoder, encoder
from lib.published_hmc import PublishedMetricByProducts, published_samples
from pythae.models import AutoModel
from pythae.samplers import MAFSampler, NormalSampler, VAMPSampler
from pythae.trainers import BaseTrainerConfig
from sklearn.mixture import GaussianMixture

from pythae_geometric import MetricUniformHMCSampler, MetricUniformHMCSamplerConfig
from pythae_geometric.commands.data import load_data
from pythae_geometric.commands.files import kept_tensors
from pythae_geometric.commands.models import find
from pythae_geometric.commands.training import train
from pythae_geometric.evaluation import FeatureNetwork, train_feature_network

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

# The names of the samplers.
NORMAL, MIXTURE, CHOSEN, MAF = "N(0, I)", "mixture of 10", "mixture, chosen", "MAF"
PUBLISHED, PAPER, OURS = "published algorithm", "ours, paper's setting", "ours, default"
VAMP_PRIOR, RHVAE_OWN = "VAMP prior", "RHVAE sampler"
TRAINING, REBUILT_TEST, REBUILT_TRAINING = (
    "(training images)",
    "(test images, reconstructed)",
    "(training images, reconstructed)",
)
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
    clusterings: int = 10  # of the images of a row


QUICK = Budget((2, 4), 1, 3, (20, 100), (0.01, 1.0), (150,), 1)


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


class Judge:
    """A data set, and the features in which images are compared with all of its test images."""

    def __init__(self, args):
        self.args = args

    @cached_property
    def data(self):
        data = split(load_data(self.args.data, self.args.data_dir))
        return data.first(300, 60, 200) if self.args.quick else data

    @cached_property
    def network(self):
        def fit():
            labels = self.data.train_labels
            found = train_feature_network(self.data.train, labels, 0, FEATURE_EPOCHS)
            return found.state_dict()

        path = os.path.join(self.args.output_dir, f"features-{self.args.data}.pt")
        data = self.data
        network = FeatureNetwork(data.train.shape[1:], int(data.train_labels.max()) + 1)
        network.load_state_dict(kept_tensors(path, fit))
        return network.eval().requires_grad_(False)

    @cached_property
    def real(self):
        return self.network.features(self.data.test)


def trained_model(key, seed, data, args):
    """The model ``key`` of :data:`MODELS`, trained or loaded."""
    name, fields, epochs = MODELS[key]
    folder = os.path.join(args.output_dir, "models", f"{args.data}-{key}-{seed}")
    if not os.path.exists(os.path.join(folder, "model.pt")):
        cls, config_class = find(name)
        config = config_class(
            input_dim=tuple(data.train.shape[1:]), latent_dim=args.latent_dim, **fields
        )
        eval_batch_size = 500
        if key == "RHVAE":  # evaluation takes images x 10,000 centroids x d x d numbers
            data, eval_batch_size = data._replace(validation=data.validation[:200]), 10
        torch.manual_seed(seed)
        model = cls(config, encoder(config, key not in WITHOUT_VARIANCES), decoder(config))
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

    Everything is loaded or computed on demand: rows that are kept need nothing.
    """

    def __init__(self, key, seed, judge, args, count=None):
        self.key, self.seed, self.judge, self.args, self.count = key, seed, judge, args, count
        self.name = f"{args.data}-{key}-{seed}" + (f"-{count}_images" if count else "")

    @cached_property
    def data(self):
        data = self.judge.data
        return data.first(self.count, self.count // 5) if self.count else data

    @cached_property
    def model(self):
        args = self.args
        if self.count:  # as many steps as with all images, up to 10 times as many epochs
            epochs = MODELS[self.key][2]
            epochs = args.epochs or epochs * min(10, len(self.judge.data.train) // self.count)
            folder = os.path.join(args.output_dir, f"train_{self.count}")
            args = with_fields(args, output_dir=folder, epochs=epochs)
        return trained_model(self.key, self.seed, self.data, args)

    @torch.no_grad()
    def encode(self, images):
        """Their codes, in batches as the samplers of this package: bit by bit what these see."""
        batches = images.to(DEVICE).split(500)
        return torch.cat([self.model.encoder(x).embedding.cpu() for x in batches])

    @cached_property
    def codes(self):
        """Codes of the training images: where chains start."""
        return self.encode(self.data.train)

    @cached_property
    def held_out(self):
        """Median distances of test images to the nearest training image, and of their codes."""
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


def median_nearest(points, others):
    """Median distance to the nearest of ``others``.

    In float32: in float64, as :func:`~pythae_geometric.evaluation.nearest_distances` has it, this
    would take most of the time of a row; distances here are far above the rounding.
    """
    others = others.flatten(1)
    batches = points.flatten(1).split(500)
    return float(torch.cat([torch.cdist(b, others).amin(1) for b in batches]).median())


def with_fields(args, **fields):
    return argparse.Namespace(**{**vars(args), **fields})


def shuffled(tensor, seed=0):
    return tensor[torch.randperm(len(tensor), generator=torch.Generator().manual_seed(seed))]


# Samplers: each is fitted to a case, and returns a function that draws codes and says what the row
# should keep about them (acceptance, a note, ...).


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


def of_pythae(sampler_class):
    """A sampler that is not fitted."""
    return lambda case, seed: (
        lambda count: (caught(case.model, sampler_class(case.model), count), {})
    )


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

    def fit():
        codes, held_out = case.codes, case.encode(case.data.validation)
        with measured() as figures:
            mixture = GaussianMixture(number, max_iter=2000, random_state=case.seed)
            mixture.fit(codes.numpy())
        print(f"  mixture of {number} for {case.name}: {figures[SECONDS]:.0f} s", flush=True)
        parameters = mixture.weights_, mixture.means_, mixture.covariances_
        return {
            "number": number,
            "parameters": [torch.as_tensor(p).double() for p in parameters],
            "likelihood": float(mixture.score(held_out.numpy())),
            "seconds": figures[SECONDS],
        }

    name = f"{case.name}-{number}.pt"
    return kept_tensors(os.path.join(case.args.output_dir, "mixtures", name), fit)


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


def metric_uniform(case, seed, **settings):
    config = MetricUniformHMCSamplerConfig(seed=seed, **settings)
    sampler = MetricUniformHMCSampler(case.model, config)
    sampler.fit(case.data.train)
    return sampler


def paper_sampler(case, seed, **settings):
    steps = {"mcmc_steps_nbr": case.args.budget.steps}
    return metric_uniform(case, seed, metric="posteriors", **steps, **settings)


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
            return codes, {**kept, "flat": found.flat / found.num_chains}
        return codes, {**kept, "note": f"{len(sampler.metric.centroids)} centroids"}

    return draw_codes


# Bounds for any sampler: images themselves, and images that went through the model.


def training_images(case, seed):
    return lambda count: (None, {"images": shuffled(case.data.train, seed)[:count]})


def rebuilt(part):
    def fit(case, seed):
        codes = case.codes if part == "train" else case.encode(case.data.test)
        return lambda count: (shuffled(codes, seed)[:count], {})

    return fit


SAMPLERS = {
    NORMAL: of_pythae(NormalSampler),
    VAMP_PRIOR: of_pythae(VAMPSampler),
    RHVAE_OWN: rhvae_own,
    MAF: maf,
    MIXTURE: lambda case, seed: draws_of(fitted_mixture(case, 10), seed),
    CHOSEN: chosen_mixture,
    PUBLISHED: published,
    PAPER: lambda case, seed, **settings: run_chains(paper_sampler(case, seed, **settings)),
    OURS: lambda case, seed, **settings: run_chains(metric_uniform(case, seed, **settings)),
    TRAINING: training_images,
    REBUILT_TEST: rebuilt("test"),
    REBUILT_TRAINING: rebuilt("train"),
}
