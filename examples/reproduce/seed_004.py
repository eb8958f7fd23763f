r"""Manifold-valued latents by embedding and reparameterisation: the table, and which symmetry wins.

    python examples/reproduce/seed_004.py [--output-dir outputs/seed_004] [--quick] [--seeds 5]

The toy task of E. Golikov and M. Kretov (2018): uniform points of a circle, a sphere or a torus go
through a random network into 100 dimensions, without noise. Five models, of equal networks:

  VAE, d = n              Gaussian latent of the dimension of the manifold
  learned                 ERManifoldVAE, Beta posterior, embedding learned from samples
  exact                   the same with a formula ("projection")
  learned, group action   the same as learned, with a group-action encoder
  VAE, d = m              Gaussian latent of the dimension of the space that holds the manifold

A seed draws the random network, the data and the initial weights, the same for all models; gaps are
between models of one seed. ELBO and IWAE (300 samples) are in nats, on test data. Then data of each
manifold under each latent manifold, and digits that turn. Writes ``seed_004.md``, ``seed_004.json``
and the pictures.
"""

import argparse
import itertools
import json
import logging
import math
import os
import tempfile
import time
import warnings

os.environ.setdefault("TQDM_DISABLE", "1")

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from sklearn.datasets import load_digits
from torch.nn import functional as F

import pythae_geometric
from pythae_geometric import plotting
from pythae_geometric.data.symmetric import random_network, rotate, symmetric_data
from pythae_geometric.models.er_manifold_vae import (
    ERManifoldVAE,
    ERManifoldVAEConfig,
    PoorEmbeddingWarning,
)
from pythae_geometric.models.er_manifold_vae.er_manifold_vae_config import manifold_from_name

pythae_geometric.register(ERManifoldVAE, ERManifoldVAEConfig)

MANIFOLDS = ["circle", "sphere(2)", "torus(2)"]
# Deviations of the likelihood; the smaller one of the toy task is for the circle alone.
TOY_STD, SMALL_STD, DIGIT_STD = 0.2, 0.05, 0.1
TURN = 360  # angles along a full turn
# Where a digit is on the canvas that turns: what is left and right of it, above and below; and the
# side of the images.
PLACES = {"about its own centre": ((0, 0, 0, 0), 16), "beside the centre": ((8, 0, 4, 4), 24)}


class VAE(ERManifoldVAE):
    """The VAE to compare with: hidden points go to the decoder as they are."""

    def __init__(self, model_config, encoder=None, decoder=None):
        super().__init__(model_config, encoder, decoder, exact_embedding=lambda u: u)
        self.decoder.embedding = torch.nn.Identity()

    def save(self, dir_path):
        """Nothing: pythae's trainer saves what it trains, and this model is not registered."""

    @classmethod
    def config(cls, dim, **fields):
        return ERManifoldVAEConfig(
            manifold="custom", latent_dim=dim, ambient_dim=dim, posterior="normal", **fields
        )


_learned = {}  # the state of the learned embedding of each manifold, and its quality


def build(name, manifold, **fields):
    """A model of a row of the table."""
    M = manifold_from_name(manifold)
    if name == "VAE, d = n":
        return VAE(VAE.config(M.dim, **fields))
    if name == "VAE, d = m":
        return VAE(VAE.config(M.ambient_dim, **fields))
    embedding, group = name.split(", ") if ", " in name else (name, "")
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
            _learned[manifold] = model.embedding.state_dict(), quality, seconds
        model.embedding.load_state_dict(_learned[manifold][0])
    return model


ROWS = ["VAE, d = n", "learned", "exact", "learned, group action", "VAE, d = m"]
TABLES = [("circle", TOY_STD), ("circle", SMALL_STD), ("sphere(2)", TOY_STD), ("torus(2)", TOY_STD)]


def train(model, data, epochs, batch_size, seed, lr):
    """The model after pythae's pipeline, at the end of training."""
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            learning_rate=lr,
            per_device_train_batch_size=batch_size,
            scheduler_cls="CosineAnnealingLR",
            scheduler_params={"T_max": epochs},
            seed=seed,
        )
        TrainingPipeline(model, config)(data)
    return model.eval()


@torch.no_grad()
def evaluate(model, data, samples):
    """ELBO, its parts, and the IWAE bound."""
    torch.manual_seed(0)
    outputs = [model({"data": data}) for _ in range(10)]
    return {
        "elbo": -float(np.mean([float(o.loss) for o in outputs])),
        "rec": float(np.mean([float(o.recon_loss) for o in outputs])),
        "kl": float(np.mean([float(o.reg_loss) for o in outputs])),
        "iwae": model.get_nll(data, n_samples=samples, batch_size=20_000),
    }


def toy_run(row, latent, data_manifold, std, seed, settings):
    """A model of a row, with the latent manifold ``latent``, on data of another or the same."""
    M = manifold_from_name(data_manifold)
    generator = torch.Generator().manual_seed(seed)
    network = random_network(M.ambient_dim, generator=generator)
    images = symmetric_data(M, settings["train"], network, generator).data
    test, points = symmetric_data(M, settings["test"], network, generator)
    torch.manual_seed(seed)
    model = build(
        row,
        latent,
        input_dim=(100,),
        hidden_dims=(100,),
        likelihood_std=std,
        embedding_epochs=settings["embedding_epochs"],
    )
    start = time.process_time()
    model = train(model, images, settings["epochs"], 100, seed, 3e-3)
    run = {"row": row, "latent": latent, "data": data_manifold, "std": std, "seed": seed}
    run |= evaluate(model, test, settings["samples"])
    run["seconds"] = time.process_time() - start
    print(
        f"{data_manifold}, deviation {std:g}, latent {latent}, {row}, seed {seed}: "
        f"ELBO {run['elbo']:.2f}, IWAE {run['iwae']:.2f}, {run['seconds']:.0f} s",
        flush=True,
    )
    return run, model, test, points


# Digits that turn


DIGIT_ROWS = ["VAE, d = n", "exact", "exact, group action", "VAE, d = m"]


def digit(seed, place, angle):
    """A digit at some angles, ``[B, 1, side, side]``."""
    image = torch.as_tensor(load_digits().images[seed + 1, None, None] / 16, dtype=torch.float32)
    margins, side = PLACES[place]
    image = F.pad(image, margins)
    return rotate(image.expand(len(angle), -1, -1, -1), angle, side)


@torch.no_grad()
def continuity(model, turn):
    """The largest step of the code along a full turn, as a part of the length of its whole way
    (1 / 360 if it is even), and how often the code goes round, if it is in a plane."""
    codes = model.embed_on_manifold(turn)
    if isinstance(model, VAE):
        steps = (codes - codes.roll(1, 0)).norm(dim=1)
    else:
        steps = model.manifold.distance(codes, codes.roll(1, 0))
    rounds = None
    if codes.shape[1] == 2:
        codes = codes - codes.mean(0) if isinstance(model, VAE) else codes
        angle = torch.atan2(codes[:, 1], codes[:, 0])
        change = (angle - angle.roll(1) + math.pi).remainder(2 * math.pi) - math.pi
        rounds = round(float(change.sum()) / (2 * math.pi))
    return float(steps.max() / steps.sum()), rounds


@torch.no_grad()
def torn(model, images):
    """Whether codes of two images nearest to one another are far apart: more than a quarter of the
    greatest distance of codes. It needs no angles."""
    between = torch.cdist(images.flatten(1), images.flatten(1)).fill_diagonal_(math.inf)
    codes = model.embed_on_manifold(images)
    far = torch.cdist(codes, codes)
    return bool(far.gather(1, between.argmin(1, keepdim=True)).max() > far.max() / 4)


def digit_run(row, place, seed, settings):
    """A model of one digit that turns, another for each seed: of several initial weights, the one
    with the largest ELBO on the training data, of those whose code is not torn if there is one."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(settings["digits"], generator=generator)
    images, side = digit(seed, place, angle), PLACES[place][1]
    candidates = []
    for restart in range(settings["restarts"]):
        torch.manual_seed(100 * restart + seed)
        model = build(
            row, "circle", input_dim=(1, side, side), hidden_dims=(256,), likelihood_std=DIGIT_STD
        )
        train(model, images, settings["digit_epochs"], 50, seed, 1e-3)
        candidates.append((torn(model, images), -evaluate(model, images, 1)["elbo"], model))
    model = min(candidates, key=lambda candidate: candidate[:2])[2]
    turn = digit(seed, place, 2 * math.pi * torch.arange(TURN) / TURN)
    run = {"row": row, "place": place, "seed": seed}
    run |= evaluate(model, turn, settings["samples"])
    run["jump"], run["rounds"] = continuity(model, turn)
    print(
        f"digit {seed + 1} {place}, {row}: IWAE {run['iwae']:.1f}, largest step {run['jump']:.3f} "
        f"of the way, rounds {run['rounds']}",
        flush=True,
    )
    return run, model, turn


# Pictures


@torch.no_grad()
def draw_latents(models, path):
    """Codes of test points of a circle, coloured by the true angle."""
    figure, axes = plt.subplots(1, len(models), figsize=(3.1 * len(models), 3.3))
    for ax, (name, (model, data, points)) in zip(axes, models.items(), strict=True):
        codes = model.embed_on_manifold(data)
        angle = torch.atan2(points[:, 1], points[:, 0])
        if not isinstance(model, VAE):
            z = torch.linspace(-4, 4, 400)[:, None]
            ax.plot(*model.embedding(z).T, color="lightgrey", zorder=0)
        if codes.shape[1] == 1:
            codes = torch.cat([codes, torch.zeros_like(codes)], dim=1)
        dots = ax.scatter(*codes.T, c=angle, cmap="twilight", s=8)
        ax.set(title=name, aspect="equal" if codes[:, 1].any() else "auto")
        ax.tick_params(labelsize=7)
    figure.subplots_adjust(left=0.04, right=0.92, wspace=0.25, bottom=0.1)
    bar = figure.add_axes((0.94, 0.15, 0.01, 0.7))
    figure.colorbar(dots, cax=bar, label="true angle")
    figure.savefig(path, dpi=100)
    plt.close(figure)


@torch.no_grad()
def draw_turn(models, path):
    """Codes against the true angle, and reconstructions along the turn."""
    figure = plt.figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.5))
    ax = left.subplots()
    strips, every = [], TURN // 16
    for name, (model, turn) in models.items():
        codes = model.embed_on_manifold(turn)
        if isinstance(model, VAE):
            if codes.shape[1] > 1:
                continue
            value = codes[:, 0] / (codes.max() - codes.min())
            value = value - value.min()
        else:
            value = torch.atan2(codes[:, 1], codes[:, 0]).remainder(2 * math.pi) / (2 * math.pi)
        ax.plot(torch.arange(TURN) * 360 / TURN, value, ".", markersize=3, label=name)
        strips.append(model.predict(turn[::every]).recon_x[:16])
    ax.set(
        xlabel="true angle (degrees)", ylabel="code (parts of its range; of a turn on the circle)"
    )
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    names = [name for name, (m, _) in models.items() if not isinstance(m, VAE) or m.latent_dim == 1]
    rows = right.subplots(1 + len(strips), 1)
    turn = next(iter(models.values()))[1]
    for row, title, strip in zip(
        rows, ["data", *names], [turn[::every][:16], *strips], strict=True
    ):
        plotting.image_grid(strip, columns=16, ax=row)
        row.set_title(title, fontsize=9)
    figure.savefig(path, dpi=100)
    plt.close(figure)


# Tables


def spread(values, digits=2):
    values = np.array(values, dtype=float)
    return f"{values.mean():.{digits}f} ± {values.std(ddof=min(1, len(values) - 1)):.{digits}f}"


def gap(runs, baseline, key):
    """Mean difference of runs of equal seeds, and that in standard errors."""
    change = np.array([a[key] - b[key] for a, b in zip(runs, baseline, strict=True)])
    if len(change) < 2:
        return f"{change.mean():+.2f}"
    error = change.std(ddof=1) / math.sqrt(len(change))
    return f"{change.mean():+.2f} ({change.mean() / error:+.1f})"


def select(runs, **wanted):
    found = [run for run in runs if all(run[key] == value for key, value in wanted.items())]
    return sorted(found, key=lambda run: run["seed"])


def tables(results, arguments):
    runs, digits, embeddings = results["runs"], results["digits"], results["embeddings"]
    seeds = len({run["seed"] for run in runs})
    lines = [
        "# Embedding and reparameterisation: results",
        "",
        f"`python examples/reproduce/seed_004.py{arguments}`, {results['seconds'] / 60:.0f} "
        f"minutes of one core. Mean ± standard deviation over {seeds} seeds; nats; test data; "
        "more is better. The likelihood is Gaussian in 100 dimensions, of the deviation stated, "
        "with all constants. (The source says neither the deviation nor the dimension, and the "
        "numbers of its table are missing in our copy: what can be compared is the order.)",
        "",
        "Gap: to the VAE with d = n, seed by seed; in brackets, in standard errors.",
        "",
    ]
    for number, (manifold, std) in enumerate(TABLES, 1):
        lines += [
            f"## Table {number}: {manifold}, deviation {std:g}",
            "",
            "| model | ELBO | IWAE | KL | gap in ELBO | gap in IWAE |",
            "|---|---|---|---|---|---|",
        ]
        baseline = select(runs, data=manifold, std=std, latent=manifold, row=ROWS[0])
        M = manifold_from_name(manifold)
        for row in ROWS:
            group = select(runs, data=manifold, std=std, latent=manifold, row=row)
            gaps = [gap(group, baseline, key) for key in ("elbo", "iwae")]
            if row == ROWS[0]:
                gaps = ["", ""]
            cells = [spread([run[key] for run in group]) for key in ("elbo", "iwae", "kl")]
            name = row.replace("= n", f"= {M.dim}").replace("= m", f"= {M.ambient_dim}")
            lines.append(f"| {name} | {' | '.join(cells + gaps)} |")
        lines.append("")
    lines += [
        "## Learned embeddings",
        "",
        "Distance from the manifold and energy distance to its uniform law (with the p-value of a "
        "two-sample test, 1,000 points each), smallest singular value of the Jacobian over the "
        "median one, share of points where the embedding meets itself; processor seconds of the "
        "training. Lengths in units of the root mean square norm.",
        "",
        "| manifold | distance | energy | p | singular value | meets itself | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for manifold, (quality, seconds) in embeddings.items():
        distance, energy, p_value, singular, meets = quality
        lines.append(
            f"| {manifold} | {distance:.4f} | {energy:.4f} | {p_value:.3f} | {singular:.2f} | "
            f"{meets:.1%} | {seconds:.0f} |"
        )
    lines += [
        "",
        "## Which symmetry wins",
        "",
        f"IWAE (deviation {TOY_STD:g}) of data (rows) under the exact latent manifolds (columns); "
        "after it the gap to the true manifold, in brackets in standard errors.",
        "",
        f"| data | {' | '.join(MANIFOLDS)} | best |",
        "|---|---|---|---|---|",
    ]
    for data in MANIFOLDS:
        truth, cells, means = select(runs, data=data, std=TOY_STD, latent=data, row="exact"), [], []
        for latent in MANIFOLDS:
            group = select(runs, data=data, std=TOY_STD, latent=latent, row="exact")
            means.append(np.mean([run["iwae"] for run in group]))
            cell = spread([run["iwae"] for run in group])
            cells.append(cell if latent == data else f"{cell}; {gap(group, truth, 'iwae')}")
        lines.append(f"| {data} | {' | '.join(cells)} | {MANIFOLDS[int(np.argmax(means))]} |")
    lines += [
        "",
        "## Digits that turn",
        "",
        f"One digit a seed ({', '.join(str(seed + 1) for seed in range(seeds))}), deviation "
        f"{DIGIT_STD:g}; a circle as the latent. Of {results['restarts']} initial weights the "
        "model with the best ELBO on the training data, of those that leave nearest images near "
        "one another if there are any, for every row. Largest step of the code along "
        f"{TURN} equally spaced angles, as a part of the length of its whole way (even: "
        f"{1 / TURN:.4f}; arcs on the circle, Euclidean distances for a VAE): each seed, and how "
        "often the code goes round the circle (in a plane: round its mean).",
    ]
    for place in PLACES:
        lines += [
            "",
            f"Turning {place}:",
            "",
            "| model | ELBO | IWAE | largest step | rounds |",
            "|---|---|---|---|---|",
        ]
        for row in DIGIT_ROWS:
            group = select(digits, row=row, place=place)
            steps = ", ".join(f"{run['jump']:.3f}" for run in group)
            rounds = ", ".join("-" if r["rounds"] is None else str(r["rounds"]) for r in group)
            name = row.replace("= n", "= 1").replace("= m", "= 2")
            cells = [spread([run[key] for run in group], 1) for key in ("elbo", "iwae")]
            lines.append(f"| {name} | {' | '.join(cells)} | {steps} | {rounds} |")
    lines += [
        "",
        "A circle has no continuous coordinate in an interval: without a group action the code "
        "has to jump, or to run back through all of the manifold. Frames of the group have no "
        "such cut. But nothing in the loss asks for continuity, or that the code go round once. "
        "Digits about their own centre change most with twice the angle (half a turn nearly gives "
        "the image back): where a code then goes round twice or tears, this is why, for the VAE in "
        "a plane too. Beside the centre of the turn they change most with the angle itself.",
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", default="outputs/seed_004")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few epochs, to see that it runs")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    os.makedirs(args.output_dir, exist_ok=True)
    begin = time.process_time()
    settings = {
        "train": 2000,
        "test": 500,
        "epochs": 60,
        "samples": 300,
        "embedding_epochs": 30,
        "digits": 1000,
        "digit_epochs": 60,
        "restarts": 4,
    }
    seeds = args.seeds
    if args.quick:
        seeds = 2
        settings |= {"train": 200, "epochs": 2, "samples": 5, "embedding_epochs": 1}
        settings |= {"digits": 100, "digit_epochs": 2, "restarts": 2}

    picture = os.path.join(args.output_dir, "seed_004_{}.png").format
    runs, digits, drawn, turns = [], [], {}, {}  # the last two: models to draw
    tasks = [
        (row, latent, data, std)
        for data, std in TABLES
        for latent in (MANIFOLDS if std == TOY_STD else [data])
        for row in (ROWS if latent == data else ["exact"])
    ]
    for row, latent, data, std in tasks:
        for seed in range(seeds):
            run, model, test, points = toy_run(row, latent, data, std, seed, settings)
            runs.append(run)
            if data == latent == "circle" and std == SMALL_STD and seed == 0:
                name = row.replace("= n", "= 1").replace("= m", "= 2")
                drawn[name] = model, test, points
    draw_latents(drawn, picture("circle"))
    for seed in range(seeds):
        for place, row in itertools.product(PLACES, DIGIT_ROWS):
            run, model, turn = digit_run(row, place, seed, settings)
            digits.append(run)
            if seed == 1 and place == "beside the centre":
                name = row.replace("= n", "= 1").replace("= m", "= 2")
                turns[name] = model, turn
    draw_turn(turns, picture("turn"))

    results = {
        "seconds": time.process_time() - begin,
        "restarts": settings["restarts"],
        "runs": runs,
        "digits": sorted(digits, key=lambda run: DIGIT_ROWS.index(run["row"])),
        "embeddings": {name: (list(q), seconds) for name, (_, q, seconds) in _learned.items()},
    }
    with open(os.path.join(args.output_dir, "seed_004.json"), "w", encoding="utf-8") as f:
        json.dump(results, f, indent=1)
    options = (" --quick" if args.quick else "") + (f" --seeds {seeds}" if seeds != 5 else "")
    text = tables(results, options)
    with open(os.path.join(args.output_dir, "seed_004.md"), "w", encoding="utf-8") as f:
        f.write(text)
    print(text)


if __name__ == "__main__":
    main()
