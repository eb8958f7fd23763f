"""Variational autoencoders with Riemannian Brownian motion priors: the tables and figures.

    python examples/reproduce/kalatzis2020.py [--output-dir outputs/kalatzis2020] [--quick]
        [--data digits|FOLDER] [--dims 2 5 10] [--seeds 3] [--epochs 100]

The R-VAE of K. Jurasz and P. Pietrzak's reproduction of Kalatzis et al. (ICML 2020), against VAEs
with the same networks and the same budget, on the digits of scikit-learn, or on images in pythae's
convention (``FOLDER/train_data.npz`` and ``eval_data.npz``): see VAE, FlatFree and Flat below. Each
of the two phases has so many ``--epochs``. Every run is kept in the output folder: started again,
the script goes on with what is missing.

Negative ELBO is that of N(x; mu(z), sigma(z)^2) with all constants, in nats, on test data, two
samples each test point, with converged geodesics. "published" is what the published code would
report for the same R-VAE: posterior samples from a flat Gaussian that are scored as a heat kernel,
½ Σ |f(γ_i+1) - f(γ_i)|² over 16 points taken for l², and the absolute value of the difference; of
the first 300 test images, corrected by how much our own estimate for these differs from that for
all.
"""

import itertools
import math
import pathlib
import sys
import tempfile
import time
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import lib.quiet
import matplotlib.pyplot as plt
import numpy as np
import torch
from lib.figures import save
from lib.tables import grouped, page, spread, spreads
from lib.training import fit
from pythae.models.base.base_utils import ModelOutput
from scipy.stats import gaussian_kde

from pythae_geometric import (
    BrownianMotionSampler,
    BrownianMotionSamplerConfig,
    BrownianRVAE,
    BrownianRVAEConfig,
    plotting,
)
from pythae_geometric.commands.arguments import at_least, parser
from pythae_geometric.commands.data import digits, read_images
from pythae_geometric.commands.files import kept, row_path
from pythae_geometric.commands.tables import publish, table
from pythae_geometric.evaluation import class_f1
from pythae_geometric.geometry import ConvergenceWarning, geodesic
from pythae_geometric.models.brownian_rvae.distributions import BrownianPosterior
from pythae_geometric.models.brownian_rvae.phases import CodeStatistics
from pythae_geometric.models.brownian_rvae.stochastic_decoder import gaussian_log_prob
from pythae_geometric.models.networks import PerceptronEncoder
from pythae_geometric.plotting_style import COLOURS

LOG_2PI = math.log(2 * math.pi)


class VAE(BrownianRVAE):
    """Posterior N(m(x), diag v(x)), prior N(0, I); the same networks and phases as of the R-VAE:
    sigma = 1 in the first, then everything is trained."""

    fixed_mean = False

    def __init__(self, model_config, encoder=None, decoder=None):
        super().__init__(model_config, encoder, decoder)
        shape, widths, d = model_config.input_dim, model_config.hidden_dims, self.latent_dim
        self.encoder = PerceptronEncoder(torch.nn.Softplus, shape, widths, d, num_variances=d)

    def update(self):
        self.epochs_done += 1
        epochs_of_phase = int(self.epochs_done) - self.model_config.warmup_epochs
        if epochs_of_phase == 0:
            self.begin_second_phase(self._statistics.codes)
            self._statistics = CodeStatistics()
        self._last_phase.end_epoch(self, epochs_of_phase)

    def begin_second_phase(self, codes):
        self.std.place(codes, self._statistics.variance)

    def forward(self, inputs, **kwargs):
        x = inputs["data"]
        if self.training:
            self._last_phase = self._last_phase.in_training(kwargs.get("epoch"))
        self.decoder.requires_grad_(self.in_warmup or not self.fixed_mean)
        m, log_v, z, reg_loss = self.encode(x)
        recon_x = self.decoder(z)["reconstruction"]
        mean = recon_x.flatten(1)
        std = torch.ones_like(mean) if self.in_warmup else self.std(z)
        recon_loss = -gaussian_log_prob(x.flatten(1), mean, std).mean()
        loss = recon_loss + reg_loss
        if not self.in_warmup:
            self._last_phase.add_loss(loss, self.training)
        elif self.training and int(self.epochs_done) == self.model_config.warmup_epochs - 1:
            self._statistics.add(m, log_v, x.flatten(1) - mean)
        return ModelOutput(
            loss=loss, recon_loss=recon_loss, reg_loss=reg_loss, recon_x=recon_x, z=z
        )

    def encode(self, x):
        m, log_v, z = self.sample(x)
        return m, log_v, z, self.divergence(m, log_v).mean()

    def sample(self, x):
        encoded = self.encoder(x)
        m, log_v = encoded.embedding, encoded.log_covariance + self.log_time_unit
        return m, log_v, m + (0.5 * log_v).exp() * torch.randn_like(m)

    def divergence(self, m, log_v):
        return 0.5 * (m.square() + log_v.exp() - 1 - log_v).sum(1)

    def sample_prior(self, count):
        return torch.randn(count, self.latent_dim)


class FlatFree(VAE):
    """A first phase as that of the R-VAE, without any prior; then the same posterior as the VAE and
    a prior N(a, diag b) with learned a and b."""

    def __init__(self, model_config, encoder=None, decoder=None):
        super().__init__(model_config, encoder, decoder)
        self.prior_log_scale = torch.nn.Parameter(torch.zeros(self.latent_dim))

    @torch.no_grad()
    def begin_second_phase(self, codes):
        super().begin_second_phase(codes)
        self.prior_center.copy_(codes.mean(0))
        self.prior_log_scale.copy_(codes.std(0).log())
        # Posteriors begin at a twentieth of the scale of the codes.
        self.log_time_unit.copy_(2 * (codes.std(0).mean() / 20).log())

    def encode(self, x):
        if not self.in_warmup:
            return super().encode(x)
        m, log_v, _ = self.sample(x)
        return m, log_v, m, torch.zeros(())

    def divergence(self, m, log_v):
        return super().divergence(
            (m - self.prior_center) / self.prior_log_scale.exp(), log_v - 2 * self.prior_log_scale
        )

    def sample_prior(self, count):
        return self.prior_center + self.prior_log_scale.exp() * super().sample_prior(count)


class Flat(FlatFree):
    """With the mean decoder fixed as in the R-VAE: this differs from it by its distributions."""

    fixed_mean = True


MODELS = {"VAE": VAE, "flat": Flat, "flat free": FlatFree, "R-VAE": BrownianRVAE}


def load(name):
    """Images in [0, 1] and labels: train, and test, of which the first 2,000 are taken."""
    if name != "digits":
        test, test_labels = read_images(name, "eval")
        test_labels = None if test_labels is None else test_labels[:2000]
        return read_images(name, "train"), (test[:2000], test_labels)
    images, labels = digits()
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order]
    return (images[:1500], labels[:1500]), (images[1500:], labels[1500:])


def train(cls, config, images, epochs, seed):
    """A model trained by pythae's pipeline as it is, and the seconds of the processor."""
    torch.manual_seed(seed)
    fields = {"num_epochs": epochs, "learning_rate": 1e-3, "per_device_train_batch_size": 100}
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        path = fit(cls(config), images, folder, seed=seed, **fields)
        return cls.load_from_folder(path).eval(), time.process_time() - start


@torch.no_grad()
def evaluate(model, images):
    """Negative log likelihood and KL of each test point, means of two samples."""
    x, rec, kl = images.flatten(1), 0.0, 0.0
    for _ in range(2):
        if isinstance(model, VAE):
            m, log_v, z = model.sample(images)
            kl = kl + model.divergence(m, log_v)
        else:
            posterior = BrownianPosterior(model.metric, *model._posterior(images))
            z = posterior.rsample()
            kl = kl - posterior.entropy() - model.log_prior(z)
        mean = model.decoder(z)["reconstruction"].flatten(1)
        rec = rec - gaussian_log_prob(x, mean, model.std(z))
    return rec / 2, kl / 2


@torch.no_grad()
def published_estimate(model, images, points=16):
    """Negative ELBO of an R-VAE as the published code estimates it."""
    metric, c, s = model.metric, model.prior_center, model.prior_log_time.exp()
    m, log_t = model._posterior(images)
    t, d = log_t.exp(), model.latent_dim
    z = m + t.sqrt().unsqueeze(1) * torch.randn_like(m)

    def kernel(start, time):
        curve = geodesic(metric, start, z)(torch.linspace(0, 1, points))
        image = metric.immersion(curve.flatten(0, 1)).unflatten(0, curve.shape[:2])
        square = 0.5 * image.diff(dim=1).square().sum((1, 2))
        volume = metric.log_volume(z) - metric.log_volume(start)
        return volume - 0.5 * d * (LOG_2PI + time.log()) - square / (2 * time)

    kl = (kernel(m, t) - kernel(c.expand_as(z), s)).abs()
    mean = model.decoder(z)["reconstruction"].flatten(1)
    return float((kl - gaussian_log_prob(images.flatten(1), mean, model.std(z))).mean())


def published(model, images, neg_elbo, count=300):
    """The published estimate for all images, from how it differs from ours on the first ones."""
    return published_estimate(model, images[:count]) - float(
        neg_elbo[:count].mean() - neg_elbo.mean()
    )


@torch.no_grad()
def log_normaliser(model, codes, resolution):
    """The logarithm of the prior's total mass, over a box of twice the size of the codes'."""
    low, high = codes.amin(0), codes.amax(0)
    axes = [
        torch.linspace(float(a - (b - a) / 2), float(b + (b - a) / 2), resolution)
        for a, b in zip(low, high, strict=True)
    ]
    cell = math.prod(float(a[1] - a[0]) for a in axes)
    grid = torch.cartesian_prod(*axes)
    log_density = torch.cat([model.log_prior(z) for z in grid.split(1000)])
    return float(log_density.logsumexp(0)) + math.log(cell)


def share_inside(samples, train_codes, codes):
    """Share of samples that are as near to a training code as 99 of 100 test codes are."""
    radius = torch.cdist(codes, train_codes).amin(1).quantile(0.99)
    return float((torch.cdist(samples, train_codes).amin(1) <= radius).float().mean())


def reach(samples, train_codes, codes):
    """Median Mahalanobis distance of samples from the mean of the codes, in units of that of test
    codes."""
    mean, factor = train_codes.mean(0), torch.linalg.cholesky(torch.cov(train_codes.T))
    inner, outer = (
        torch.linalg.solve_triangular(factor, (z - mean).T, upper=False).norm(dim=0).median()
        for z in (codes, samples)
    )
    return float(outer / inner)


@torch.no_grad()
def explore(model, train_codes, codes, count, steps, motions):
    """Where samples of the prior are, and sigma on the codes and away from them."""

    def place(distribution, time, samples):
        where = share_inside(samples, train_codes, codes), reach(samples, train_codes, codes)
        return {"distribution": distribution, "time": time, "place": where}

    places = []
    if isinstance(model, VAE):
        torch.manual_seed(0)
        places.append(place("prior", 1, model.sample_prior(count)))
    else:
        d = codes.shape[1]
        covariance = torch.linalg.cholesky(torch.cov(train_codes.T).reshape(d, d))
        for factor in motions:
            motion = float(model.prior_log_time.exp()) * factor
            config = BrownianMotionSamplerConfig(time=motion, steps=steps * factor, seed=0)
            sampler = BrownianMotionSampler(model, config)
            sampler.fit()
            places.append(place("Brownian", factor, sampler.sample_latent(count)))
            torch.manual_seed(0)
            flat = train_codes.mean(0) + factor**0.5 * torch.randn(count, d) @ covariance.T
            places.append(place("Euclidean", factor, flat))
    away = codes.mean(0) + 5 * (codes - codes.mean(0))
    sigma, sigma_away = (float(model.std(z).mean()) for z in (codes, away))
    return {"places": places, "sigma": sigma, "sigma_away": sigma_away}


@torch.no_grad()
def draw_geodesics(model, images, labels, folder):
    """Figure 1: geodesics and lines between three pairs of test points, and both decoded."""
    torch.manual_seed(0)
    codes, _ = model._posterior(images)
    apart = torch.cdist(codes, codes)
    # Of 200 pairs that are far apart, those for which line and geodesic differ most, one after
    # another, each with a start in another region.
    far = (apart > apart.quantile(0.7)).nonzero()
    far = far[torch.randperm(len(far))[:200]]
    curve = geodesic(model.metric, codes[far[:, 0]], codes[far[:, 1]])
    t = torch.linspace(0, 1, 12)
    lines = codes[far[:, :1]] + t[:, None] * (codes[far[:, 1:]] - codes[far[:, :1]])
    image = model.metric.immersion(lines.flatten(0, 1)).unflatten(0, lines.shape[:2])
    gain = image.diff(dim=1).norm(dim=2).sum(1) / curve.length
    left_over, chosen = gain.where(curve.converged, 0), []
    for _ in range(3):
        chosen.append(int(left_over.argmax()))
        near = apart[far[:, 0], far[chosen[-1], 0]] < apart.median()
        left_over = left_over.where(~near, 0)

    figure = plt.figure(figsize=(12, 5.5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.2))
    ax = plotting.latent_map(model.metric, codes, labels, ax=left.subplots())
    plotting.draw_curves(ax, curve(t)[chosen], label="Geodesic", linewidth=2)
    plotting.draw_curves(ax, lines[chosen], label="Line", linestyle="--")
    legend = ax.get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    ax.legend(legend.legend_handles, names, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    rows = right.subplots(3, 1)
    for row, pair in zip(rows, chosen, strict=True):
        points = torch.cat([curve(t)[pair], lines[pair]])
        strips = model.decoder(points)["reconstruction"]
        title = f"Geodesic (above), line (below, {float(gain[pair]):.2f} times as long)"
        plotting.image_grid(strips, columns=len(t), title=title, ax=row)
    save(figure, folder, "figure_1.png", dpi=130)


@torch.no_grad()
def draw_motion(model, codes, folder):
    """Figure 2: Brownian motions over the density of the codes."""
    figure, ax = plt.subplots(figsize=(7, 6), layout="constrained")
    low, high = codes.amin(0) - 5, codes.amax(0) + 5
    axes = [np.linspace(float(a), float(b), 120) for a, b in zip(low, high, strict=True)]
    x, y = np.meshgrid(*axes)
    density = gaussian_kde(codes.T.numpy(), 0.2)(np.stack([x.ravel(), y.ravel()]))
    ax.contourf(x, y, density.reshape(x.shape), levels=15, cmap="Blues")
    config = BrownianMotionSamplerConfig(steps=400, seed=1)
    sampler = BrownianMotionSampler(model, config)
    sampler.fit()
    paths = sampler.trajectories(4).transpose(0, 1)
    for path, colour in zip(paths, (*COLOURS[1:4], "black"), strict=True):
        plotting.draw_curves(ax, path[None], color=colour, linewidth=0.8)
    ax.set(xlabel="$z_1$", ylabel="$z_2$", title="Brownian motions from the prior's centre")
    save(figure, folder, "figure_2.png", dpi=130)


def mean(group, key):
    return np.mean([run[key] for run in group])


def gaps(groups, d):
    """The R-VAE minus the others, run by run, and what belongs to the R-VAE alone."""
    ours, texts = groups[d, "R-VAE"], []
    for other in list(MODELS)[:-1]:
        pairs = zip(ours, groups[d, other], strict=True)
        texts.append(f"{spread([a['neg_elbo'] - b['neg_elbo'] for a, b in pairs])} ({other})")
    published, *mass = spreads(ours, ["published"]) + spreads(ours, ["log_normaliser"], 3)
    line = f"- d = {d}: {', '.join(texts)}. Published estimate for this R-VAE: {published}."
    if ours[0]["log_normaliser"] is None:
        return [line]
    quadrature = f"  Logarithm of the prior's mass, by quadrature: {mass[0]}. Added to "
    return [line, quadrature + "the negative ELBO, it gives that of the normalised prior."]


def report(runs, minutes, options, epochs):
    """The results as Markdown."""
    groups = grouped(runs, "d", "model")
    losses, scores, places = [], [], []
    for case, group in groups.items():
        cells = spreads(group, ("neg_elbo", "rec", "kl"))
        losses.append([*case, *cells, f"{mean(group, 'kl_error'):.2f}"])
        if group[0]["f1"]:
            f1 = np.array([run["f1"] for run in group])  # [runs, classifiers, classes]
            cells = [f"{value:.2f}" for value in f1.mean((0, 1))]
            scores.append([*case, *cells, spread(f1.mean(2).ravel())])
        sigma, away = mean(group, "sigma"), mean(group, "sigma_away")
        for i, row in enumerate(group[0]["places"]):
            inside, outer = np.mean([run["places"][i]["place"] for run in group], axis=0)
            cells = [f"{inside:.2f}", f"{outer:.1f}", f"{sigma:.3f}", f"{away:.3g}"]
            places.append([*case, row["distribution"], row["time"], *cells])
    classes = range(len(scores[0]) - 3) if scores else []
    where = ["distribution", "time", "inside", "reach", "sigma on codes", "sigma away"]
    header = ["neg. ELBO", "reconstruction", "KL", "KL standard error"]
    return page(
        "kalatzis2020",
        options=options,
        minutes=minutes,
        epochs=epochs,
        losses=table(["d", "model", *header], losses),
        gaps=[line for d in dict.fromkeys(d for d, _ in groups) for line in gaps(groups, d)],
        scores=table(["d", "model", *classes, "mean"], scores),
        places=table(["d", "model", *where], places),
    )


def one_run(name, d, seed, data, budget, folder):
    """The row of results of a model of one kind; the figures of the first R-VAE with two latent
    dimensions."""
    begin = time.process_time()
    cls, ((images, labels), (test_images, test_labels)) = MODELS[name], data
    shape, phase = {"input_dim": tuple(images.shape[1:]), "latent_dim": d}, budget["phase"]
    config = BrownianRVAEConfig(**shape, warmup_epochs=phase, **budget["networks"])
    model, seconds = train(cls, config, images, 2 * phase, seed)
    torch.manual_seed(seed)
    rec, kl = evaluate(model, test_images)
    with torch.no_grad():
        codes, test_codes = (model.encoder(x)["embedding"] for x in (images, test_images))
    is_rvae = cls is BrownianRVAE
    run = {"d": d, "seed": seed, "model": name, "seconds": seconds}
    run |= {"neg_elbo": float((rec + kl).mean()), "rec": float(rec.mean())}
    run |= {"kl": float(kl.mean()), "kl_error": float(kl.std() / len(kl) ** 0.5)}
    run |= {"published": published(model, test_images, rec + kl) if is_rvae else None}
    run |= {"log_normaliser": None, "f1": []}
    run |= explore(model, codes, test_codes, *budget["explore"])
    if is_rvae and d == 2:
        run["log_normaliser"] = log_normaliser(model, codes, budget["resolution"])
    if labels is not None:
        f1 = class_f1(codes, labels, test_codes, test_labels, 0, budget["classifiers"])
        run["f1"] = f1.tolist()
    elbo = f"negative ELBO {run['neg_elbo']:.2f} (KL {run['kl']:.2f})"
    print(f"d = {d}, seed {seed}, {name}: {elbo}, {seconds:.0f} s", flush=True)
    if is_rvae and d == 2 and seed == 0:
        draw_geodesics(model, test_images, test_labels, folder)
        draw_motion(model, codes, folder)
    return run | {"minutes": (time.process_time() - begin) / 60}


FULL = {"phase": 100, "classifiers": 5, "explore": (300, 50, (1, 5, 25)), "resolution": 50}
QUICK = {"phase": 3, "classifiers": 1, "explore": (20, 10, (1, 2)), "resolution": 10}


def main():
    p = parser(__doc__, "outputs/kalatzis2020")
    p.add_argument("--data", default="digits", help="'digits', or a folder of images")
    p.add_argument("--dims", type=at_least(1), nargs="+", default=[2, 5, 10])
    p.add_argument("--seeds", type=at_least(1), default=3)
    p.add_argument("--epochs", type=at_least(1), help="of each phase (default: 100)")
    args = p.parse_args()
    lib.quiet.settle(1)
    # Some test points lie where a straight line is no good start; their distance is an upper bound.
    warnings.simplefilter("ignore", ConvergenceWarning)

    data, budget, networks = load(args.data), FULL, {"hidden_dims": (300, 300), "num_centers": 350}
    if args.data == "digits":
        networks = {"hidden_dims": (128, 64), "num_centers": 64}
    if args.quick:
        args.dims, args.seeds, budget = [2], 1, QUICK
        data = [
            [None if part is None else part[:count] for part in pair]
            for pair, count in zip(data, (300, 50), strict=True)
        ]
    budget |= {"networks": networks, "phase": args.epochs or budget["phase"]}
    runs = []
    # A whole table of the first seed comes before the second.
    for seed, d, name in itertools.product(range(args.seeds), args.dims, MODELS):
        key = pathlib.Path(args.data).name, budget["phase"], d, seed, name
        path = row_path(args.output_dir, *key)
        runs.append(kept(path, one_run, name, d, seed, data, budget, args.output_dir))

    minutes = sum(run["minutes"] for run in runs)
    options = ("" if args.data == "digits" else f" --data {args.data}") + " --quick" * args.quick
    options += f" --epochs {args.epochs}" if args.epochs else ""
    options += "" if args.dims == [2, 5, 10] else " --dims " + " ".join(map(str, args.dims))
    options += f" --seeds {args.seeds}" if args.seeds != 3 else ""
    results = {"minutes": minutes, "runs": runs}
    text = report(runs, minutes, options, budget["phase"])
    print(publish(args.output_dir, "kalatzis2020", text, results))


if __name__ == "__main__":
    main()
