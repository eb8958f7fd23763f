"""Manifold-valued latents by embedding and reparameterisation: the table, and which symmetry wins.

    python examples/reproduce/golikov2018.py [--output-dir FOLDER] [--quick] [--seeds 5]

The toy task of E. Golikov and M. Kretov (2018): uniform points of a circle, a sphere or a torus go
through a random network into 100 dimensions, without noise. Five models, of equal networks: a VAE
with a Gaussian latent of the manifold's dimension n, or of that of the space around it, m; and
ERManifoldVAE with a learned embedding, an exact one, and a learned one with a group action. A seed
draws the random network, the data and the initial weights, the same for all. Then data of each
manifold under each latent manifold, and digits that turn.
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
from lib.tables import deviation, page, spread, spreads
from lib.training import fit
from torch.nn import functional as F

from pythae_geometric import ERManifoldVAE, ERManifoldVAEConfig, plotting
from pythae_geometric.commands.arguments import at_least, parser
from pythae_geometric.commands.data import digits
from pythae_geometric.commands.tables import publish, table
from pythae_geometric.data.symmetric import random_network, rotate, symmetric_data
from pythae_geometric.models.er_manifold_vae import PoorEmbeddingWarning
from pythae_geometric.models.er_manifold_vae.er_manifold_vae_config import manifold_from_name

MANIFOLDS = ["circle", "sphere(2)", "torus(2)"]
# Deviations of the likelihood; the smaller one of the toy task is for the circle alone.
TOY_STD, SMALL_STD, DIGIT_STD = 0.2, 0.05, 0.1
TABLES = [("circle", TOY_STD), ("circle", SMALL_STD), ("sphere(2)", TOY_STD), ("torus(2)", TOY_STD)]
ROWS = ["VAE, d = n", "learned", "exact", "learned, group action", "VAE, d = m"]
DIGIT_ROWS = ["VAE, d = n", "exact", "exact, group action", "VAE, d = m"]
TURN = 360  # angles along a full turn
# Where a digit is on the canvas that turns: what is left and right of it, above and below; and the
# side of the images.
PLACES = {"about its own centre": ((0, 0, 0, 0), 16), "beside the centre": ((8, 0, 4, 4), 24)}
FULL = {"train": 2000, "test": 500, "epochs": 60, "samples": 300, "embedding_epochs": 30}
FULL |= {"digits": 1000, "digit_epochs": 60, "restarts": 4}
QUICK = {"train": 100, "test": 100, "epochs": 1, "samples": 5, "embedding_epochs": 1}
QUICK |= {"digits": 50, "digit_epochs": 1, "restarts": 2}


class AsTheyAre(torch.nn.Module):
    """The embedding of a Gaussian latent: none."""

    fitted = True

    def forward(self, z):
        return z


class VAE(ERManifoldVAE):
    """The VAE to compare with: latent codes go to the decoder as they are."""

    def __init__(self, dim, **fields):
        config = ERManifoldVAEConfig(
            manifold="custom", latent_dim=dim, ambient_dim=dim, posterior="normal", **fields
        )
        super().__init__(config, exact_embedding=lambda u: u)
        self.decoder.embedding = AsTheyAre()

    def save(self, dir_path):
        """Nothing: pythae's trainer saves what it trains, and this model is not registered."""


_learned = {}  # the state of the learned embedding of each manifold, its quality, and seconds


def build(name, manifold, **fields):
    """A model of a row of the table."""
    M = manifold_from_name(manifold)
    if name.startswith("VAE"):
        return VAE(M.dim if name == "VAE, d = n" else M.ambient_dim, **fields)
    embedding, _, group = name.partition(", ")
    config = ERManifoldVAEConfig(
        manifold=manifold, embedding=embedding, group_action=bool(group), **fields
    )
    model = ERManifoldVAE(config)
    if embedding == "learned":
        # The same for all models: it depends on nothing but the manifold.
        if manifold not in _learned:
            start = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PoorEmbeddingWarning)
                quality = model.fit_embedding()
            seconds = time.process_time() - start
            _learned[manifold] = model.embedding.state_dict(), list(quality), seconds
        model.embedding.load_state_dict(_learned[manifold][0])
    return model


def train(model, data, epochs, **fields):
    """The model after pythae's pipeline, at the end of training."""
    fields |= {"scheduler_cls": "CosineAnnealingLR", "scheduler_params": {"T_max": epochs}}
    with tempfile.TemporaryDirectory() as folder:
        fit(model, data, folder, num_epochs=epochs, **fields)
    return model.eval()


@torch.no_grad()
def evaluate(model, data, samples):
    """ELBO, its parts, and the IWAE bound."""
    torch.manual_seed(0)
    outputs = [model({"data": data}) for _ in range(10)]
    elbo, rec, kl = (
        float(np.mean([float(output[key]) for output in outputs]))
        for key in ("loss", "recon_loss", "reg_loss")
    )
    iwae = model.get_nll(data, n_samples=samples, batch_size=20_000)
    return {"elbo": -elbo, "rec": rec, "kl": kl, "iwae": iwae}


def toy_run(row, latent, data_manifold, std, seed, settings):
    """A model of a row, with the latent manifold ``latent``, on data of another or the same."""
    M = manifold_from_name(data_manifold)
    generator = torch.Generator().manual_seed(seed)
    network = random_network(M.ambient_dim, generator=generator)
    images = symmetric_data(M, settings["train"], network, generator).data
    test, points = symmetric_data(M, settings["test"], network, generator)
    torch.manual_seed(seed)
    fields = {"input_dim": (100,), "hidden_dims": (100,), "likelihood_std": std}
    model = build(row, latent, embedding_epochs=settings["embedding_epochs"], **fields)
    start = time.process_time()
    fields = {"learning_rate": 3e-3, "per_device_train_batch_size": 100, "seed": seed}
    train(model, images, settings["epochs"], **fields)
    run = {"row": row, "latent": latent, "data": data_manifold, "std": std, "seed": seed}
    run |= evaluate(model, test, settings["samples"])
    run["seconds"] = time.process_time() - start
    print(
        f"{data_manifold}, deviation {std:g}, latent {latent}, {row}, seed {seed}: "
        f"ELBO {run['elbo']:.2f}, IWAE {run['iwae']:.2f}, {run['seconds']:.0f} s",
        flush=True,
    )
    return run, model, test, points


def digit(seed, place, angle):
    """A digit at some angles, ``[B, 1, side, side]``."""
    margins, side = PLACES[place]
    image = F.pad(digits()[0][seed + 1][None], margins)
    return rotate(image.expand(len(angle), -1, -1, -1), angle, side)


@torch.no_grad()
def continuity(model, turn):
    """The largest step of the code along a full turn, as a part of the length of its whole way
    (1 / 360 if it is even), and how often the code goes round, if it is in a plane."""
    codes, is_vae = model.manifold_points(turn), isinstance(model, VAE)
    before = codes.roll(1, 0)
    steps = (codes - before).norm(dim=1) if is_vae else model.manifold.distance(codes, before)
    rounds = None
    if codes.shape[1] == 2:
        codes = codes - codes.mean(0) if is_vae else codes
        angle = torch.atan2(codes[:, 1], codes[:, 0])
        change = (angle - angle.roll(1) + math.pi).remainder(2 * math.pi) - math.pi
        rounds = round(float(change.sum()) / (2 * math.pi))
    return float(steps.max() / steps.sum()), rounds


@torch.no_grad()
def torn(model, images):
    """Whether codes of two images nearest to one another are far apart: more than a quarter of the
    greatest distance of codes. It needs no angles."""
    between = torch.cdist(images.flatten(1), images.flatten(1)).fill_diagonal_(math.inf)
    codes = model.manifold_points(images)
    far = torch.cdist(codes, codes)
    return bool(far.gather(1, between.argmin(1, keepdim=True)).max() > far.max() / 4)


def digit_run(row, place, seed, settings):
    """A model of one digit that turns, another for each seed: of several initial weights, the one
    with the largest ELBO on the training data, of those whose code is not torn if there is one."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(settings["digits"], generator=generator)
    images, side = digit(seed, place, angle), PLACES[place][1]
    shape = {"input_dim": (1, side, side), "hidden_dims": (256,), "likelihood_std": DIGIT_STD}
    fields = {"learning_rate": 1e-3, "per_device_train_batch_size": 50, "seed": seed}
    candidates = []
    for restart in range(settings["restarts"]):
        torch.manual_seed(100 * restart + seed)
        model = train(build(row, "circle", **shape), images, settings["digit_epochs"], **fields)
        candidates.append((torn(model, images), -evaluate(model, images, 1)["elbo"], model))
    model = min(candidates, key=lambda candidate: candidate[:2])[2]
    turn = digit(seed, place, 2 * math.pi * torch.arange(TURN) / TURN)
    run = {"row": row, "place": place, "seed": seed} | evaluate(model, turn, settings["samples"])
    run["jump"], run["rounds"] = continuity(model, turn)
    print(
        f"digit {seed + 1} {place}, {row}: IWAE {run['iwae']:.1f}, largest step {run['jump']:.3f} "
        f"of the way, rounds {run['rounds']}",
        flush=True,
    )
    return run, model, turn


@torch.no_grad()
def draw_latents(models, folder):
    """Codes of test points of a circle, coloured by the true angle."""
    shape = {"figsize": (2.8 * len(models) + 0.8, 3), "layout": "constrained"}
    figure, axes = plt.subplots(1, len(models), **shape)
    for ax, (name, (model, data, points)) in zip(axes, models.items(), strict=True):
        codes = model.manifold_points(data)
        if not isinstance(model, VAE):
            z = torch.linspace(-4, 4, 400)[:, None]
            ax.plot(*model.embedding(z).T, color="lightgrey", zorder=0)
        if codes.shape[1] == 1:
            codes = F.pad(codes, (0, 1))
        angle = torch.atan2(points[:, 1], points[:, 0])
        dots = ax.scatter(*codes.T, c=angle, cmap="twilight", s=8)
        # The limits give way, so that all pictures have one size.
        ax.set(title=name, aspect="equal", adjustable="datalim")
    figure.colorbar(dots, ax=axes, label="true angle (radians)")
    save(figure, folder, "golikov2018_circle.png")


@torch.no_grad()
def draw_turn(models, folder):
    """Codes against the true angle, and reconstructions along the turn."""
    figure = plt.figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.5))
    ax, every = left.subplots(), TURN // 16
    strips = {"data": next(iter(models.values()))[1][::every]}
    for name, (model, turn) in models.items():
        codes = model.manifold_points(turn)
        if not isinstance(model, VAE):
            value = torch.atan2(codes[:, 1], codes[:, 0]).remainder(2 * math.pi) / (2 * math.pi)
        elif codes.shape[1] == 1:
            value = (codes[:, 0] - codes.min()) / (codes.max() - codes.min())
        else:
            continue
        ax.plot(torch.arange(TURN) * 360 / TURN, value, ".", markersize=3, label=name)
        strips[name] = model.predict(turn[::every]).recon_x
    ax.set(
        xlabel="true angle (degrees)", ylabel="code (parts of its range; of a turn on the circle)"
    )
    left.legend(loc="outside upper center", ncols=len(strips), markerscale=3)
    for row, (name, strip) in zip(right.subplots(len(strips), 1), strips.items(), strict=True):
        plotting.image_grid(strip[:16], columns=16, ax=row, title=name)
    save(figure, folder, "golikov2018_turn.png")


def gap(runs, baseline, key):
    """Mean difference of runs of equal seeds, and that in standard errors."""
    change = [a[key] - b[key] for a, b in zip(runs, baseline, strict=True)]
    mean, error = np.mean(change), deviation(change, of_mean=True)
    return f"{mean:+.2f}" + ("" if error is None else f" ({mean / error:+.1f})")


def select(runs, **wanted):
    found = [run for run in runs if all(run[key] == value for key, value in wanted.items())]
    return sorted(found, key=lambda run: run["seed"])


def with_dimension(row, n, m):
    return row.replace("= n", f"= {n}").replace("= m", f"= {m}")


def toy_table(runs, manifold, std):
    """The five models on one manifold."""
    M, rows = manifold_from_name(manifold), []
    groups = [select(runs, data=manifold, std=std, latent=manifold, row=row) for row in ROWS]
    for row, group in zip(ROWS, groups, strict=True):
        gaps = ["" if row == ROWS[0] else gap(group, groups[0], key) for key in ("elbo", "iwae")]
        name = with_dimension(row, M.dim, M.ambient_dim)
        rows.append([name, *spreads(group, ("elbo", "iwae", "kl")), *gaps])
    return table(["model", "ELBO", "IWAE", "KL", "gap in ELBO", "gap in IWAE"], rows)


def embedding_table(embeddings):
    """The quality of the learned embeddings."""
    formats = "{:.4f}", "{:.4f}", "{:.3f}", "{:.2f}", "{:.1%}"
    rows = [
        [manifold, *(f.format(v) for f, v in zip(formats, quality, strict=True)), f"{seconds:.0f}"]
        for manifold, (quality, seconds) in embeddings.items()
    ]
    header = ["manifold", "distance", "energy", "p", "singular value", "meets itself", "seconds"]
    return table(header, rows)


def symmetry_table(runs):
    """Data of each manifold under each latent manifold."""
    rows = []
    for data in MANIFOLDS:
        groups = {
            latent: select(runs, data=data, std=TOY_STD, latent=latent, row="exact")
            for latent in MANIFOLDS
        }
        cells = [
            spread([run["iwae"] for run in group])
            + ("" if latent == data else f"; {gap(group, groups[data], 'iwae')}")
            for latent, group in groups.items()
        ]
        best = max(groups, key=lambda m: np.mean([run["iwae"] for run in groups[m]]))
        rows.append([data, *cells, best])
    return table(["data", *MANIFOLDS, "best"], rows)


def digit_table(runs, place):
    """The models of a digit that turns about one place."""
    rows = []
    for row in DIGIT_ROWS:
        group = select(runs, row=row, place=place)
        steps = ", ".join(f"{run['jump']:.3f}" for run in group)
        rounds = ", ".join("-" if run["rounds"] is None else str(run["rounds"]) for run in group)
        rows.append(
            [with_dimension(row, 1, 2), *spreads(group, ("elbo", "iwae"), 1), steps, rounds]
        )
    return table(["model", "ELBO", "IWAE", "largest step", "rounds"], rows)


def report(results, options):
    """The results as Markdown."""
    runs, toy, turning = results["runs"], [], []
    seeds = len({run["seed"] for run in runs})
    for number, (manifold, std) in enumerate(TABLES, 1):
        title = f"## Table {number}: {manifold}, deviation {std:g}"
        toy += ["", title, "", *toy_table(runs, manifold, std)]
    for place in PLACES:
        turning += ["", f"Turning {place}:", "", *digit_table(results["digits"], place)]
    return page(
        "golikov2018",
        options=options,
        minutes=results["seconds"] / 60,
        seeds=seeds,
        toy=toy[1:],
        embeddings=embedding_table(results["embeddings"]),
        symmetry=symmetry_table(runs),
        digits=", ".join(str(seed + 1) for seed in range(seeds)),
        restarts=results["restarts"],
        turning=turning[1:],
    )


def main():
    p = parser(__doc__, "outputs/golikov2018")
    p.add_argument("--seeds", type=at_least(2), default=5)
    args = p.parse_args()
    lib.quiet.settle(1)
    begin = time.process_time()
    settings, seeds = (QUICK, 2) if args.quick else (FULL, args.seeds)

    runs, turning, drawn, turns = [], [], {}, {}  # the last two: models to draw
    for data, std in TABLES:
        for latent in MANIFOLDS if std == TOY_STD else [data]:
            for row in ROWS if latent == data else ["exact"]:
                for seed in range(seeds):
                    run, *rest = toy_run(row, latent, data, std, seed, settings)
                    runs.append(run)
                    if data == latent == "circle" and std == SMALL_STD and seed == 0:
                        drawn[with_dimension(row, 1, 2)] = rest
    draw_latents(drawn, args.output_dir)
    for row, seed, place in itertools.product(DIGIT_ROWS, range(seeds), PLACES):
        run, *rest = digit_run(row, place, seed, settings)
        turning.append(run)
        if seed == 1 and place == "beside the centre":
            turns[with_dimension(row, 1, 2)] = rest
    draw_turn(turns, args.output_dir)

    results = {
        "seconds": time.process_time() - begin,
        "restarts": settings["restarts"],
        "runs": runs,
        "digits": turning,
        "embeddings": {name: found[1:] for name, found in _learned.items()},
    }
    options = " --quick" * args.quick + (f" --seeds {seeds}" if seeds != 5 else "")
    print(publish(args.output_dir, "golikov2018", report(results, options), results))


if __name__ == "__main__":
    main()
