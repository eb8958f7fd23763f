"""Manifold-valued latents by embedding and reparameterisation: the table, and which symmetry wins.

    python examples/reproduce/golikov2018.py [--output-dir FOLDER] [--quick] [--seeds 5]

The toy task of E. Golikov and M. Kretov (2018): uniform points of a circle, a sphere or a torus go
through a random network into 100 dimensions, without noise. Five models, of equal networks:

  VAE, d = n              Gaussian latent of the dimension of the manifold
  learned                 ERManifoldVAE, Beta posterior, embedding learned from samples
  exact                   the same with a formula ("projection")
  learned, group action   the same as learned, with a group-action encoder
  VAE, d = m              Gaussian latent of the dimension of the space that holds the manifold

A seed draws the random network, the data and the initial weights, the same for all models; gaps are
between models of one seed. ELBO and IWAE (300 samples) are in nats, on test data. Then data of each
manifold under each latent manifold, and digits that turn. Writes ``golikov2018.md``,
``golikov2018.json`` and the pictures.
"""

import itertools
import math
import os
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
from lib.arguments import at_least, parser
from lib.data import digits
from lib.files import write_json, write_text
from lib.tables import deviation, spread, table
from lib.training import fit
from torch.nn import functional as F

from pythae_geometric import ERManifoldVAE, ERManifoldVAEConfig, plotting
from pythae_geometric.data.symmetric import random_network, rotate, symmetric_data
from pythae_geometric.models.er_manifold_vae import PoorEmbeddingWarning
from pythae_geometric.models.er_manifold_vae.er_manifold_vae_config import manifold_from_name

MANIFOLDS = ["circle", "sphere(2)", "torus(2)"]
# Deviations of the likelihood; the smaller one of the toy task is for the circle alone.
TOY_STD, SMALL_STD, DIGIT_STD = 0.2, 0.05, 0.1
TURN = 360  # angles along a full turn
# Where a digit is on the canvas that turns: what is left and right of it, above and below; and the
# side of the images.
PLACES = {"about its own centre": ((0, 0, 0, 0), 16), "beside the centre": ((8, 0, 4, 4), 24)}


class AsTheyAre(torch.nn.Module):
    """The embedding of a Gaussian latent: none."""

    fitted = True

    def forward(self, z):
        return z


class VAE(ERManifoldVAE):
    """The VAE to compare with: latent codes go to the decoder as they are."""

    def __init__(self, model_config, encoder=None, decoder=None):
        super().__init__(model_config, encoder, decoder, exact_embedding=lambda u: u)
        self.decoder.embedding = AsTheyAre()

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
    model = build(
        row,
        latent,
        input_dim=(100,),
        hidden_dims=(100,),
        likelihood_std=std,
        embedding_epochs=settings["embedding_epochs"],
    )
    start = time.process_time()
    fields = {"learning_rate": 3e-3, "per_device_train_batch_size": 100, "seed": seed}
    model = train(model, images, settings["epochs"], **fields)
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
    margins, side = PLACES[place]
    image = F.pad(digits()[0][seed + 1][None], margins)
    return rotate(image.expand(len(angle), -1, -1, -1), angle, side)


@torch.no_grad()
def continuity(model, turn):
    """The largest step of the code along a full turn, as a part of the length of its whole way
    (1 / 360 if it is even), and how often the code goes round, if it is in a plane."""
    codes = model.manifold_points(turn)
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
    codes = model.manifold_points(images)
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
        fields = {"learning_rate": 1e-3, "per_device_train_batch_size": 50, "seed": seed}
        train(model, images, settings["digit_epochs"], **fields)
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
        codes = model.manifold_points(data)
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
        codes = model.manifold_points(turn)
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


def gap(runs, baseline, key):
    """Mean difference of runs of equal seeds, and that in standard errors."""
    change = [a[key] - b[key] for a, b in zip(runs, baseline, strict=True)]
    mean, error = np.mean(change), deviation(change, of_mean=True)
    return f"{mean:+.2f}" + ("" if error is None else f" ({mean / error:+.1f})")


def select(runs, **wanted):
    found = [run for run in runs if all(run[key] == value for key, value in wanted.items())]
    return sorted(found, key=lambda run: run["seed"])


def spreads(group, keys, digits=2):
    return [spread([run[key] for run in group], digits) for key in keys]


def with_dimension(row, n, m):
    return row.replace("= n", f"= {n}").replace("= m", f"= {m}")


def report(results, arguments):
    """The results as Markdown."""
    runs = results["runs"]
    seeds = len({run["seed"] for run in runs})
    lines = [
        "# Embedding and reparameterisation: results",
        "",
        f"`python examples/reproduce/golikov2018.py{arguments}`, {results['seconds'] / 60:.0f} "
        f"minutes of one core. Mean ± standard deviation over {seeds} seeds; nats; test data; "
        "more is better. The likelihood is Gaussian in 100 dimensions, of the deviation stated, "
        "with all constants. (The source says neither the deviation nor the dimension, and the "
        "numbers of its table are missing in our copy: what can be compared is the order.)",
        "",
        "Gap: to the VAE with d = n, seed by seed; in brackets, in standard errors.",
        "",
    ]
    for number, (manifold, std) in enumerate(TABLES, 1):
        lines += [f"## Table {number}: {manifold}, deviation {std:g}", ""]
        lines += [*toy_table(runs, manifold, std), ""]
    lines += [
        "## Learned embeddings",
        "",
        "Distance from the manifold and energy distance to its uniform distribution (with the "
        "p-value of a two-sample test, 1,000 points each), smallest singular value of the Jacobian "
        "over the median one, share of points where the embedding meets itself; processor seconds "
        "of the training. Lengths in units of the root mean square norm.",
        "",
        *embedding_table(results["embeddings"]),
        "",
        "## Which symmetry wins",
        "",
        f"IWAE (deviation {TOY_STD:g}) of data (rows) under the exact latent manifolds (columns); "
        "after it the gap to the true manifold, in brackets in standard errors.",
        "",
        *symmetry_table(runs),
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
        lines += ["", f"Turning {place}:", "", *digit_table(results["digits"], place)]
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


def toy_table(runs, manifold, std):
    """The five models on one manifold."""
    M, rows = manifold_from_name(manifold), []
    baseline = select(runs, data=manifold, std=std, latent=manifold, row=ROWS[0])
    for row in ROWS:
        group = select(runs, data=manifold, std=std, latent=manifold, row=row)
        gaps = ["" if row == ROWS[0] else gap(group, baseline, key) for key in ("elbo", "iwae")]
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
        truth, cells, means = select(runs, data=data, std=TOY_STD, latent=data, row="exact"), [], []
        for latent in MANIFOLDS:
            group = select(runs, data=data, std=TOY_STD, latent=latent, row="exact")
            means.append(np.mean([run["iwae"] for run in group]))
            (cell,) = spreads(group, ["iwae"])
            cells.append(cell if latent == data else f"{cell}; {gap(group, truth, 'iwae')}")
        rows.append([data, *cells, MANIFOLDS[int(np.argmax(means))]])
    return table(["data", *MANIFOLDS, "best"], rows)


def digit_table(runs, place):
    """The models of a digit that turns about one place."""
    rows = []
    for row in DIGIT_ROWS:
        group = select(runs, row=row, place=place)
        steps = ", ".join(f"{run['jump']:.3f}" for run in group)
        rounds = ", ".join("-" if run["rounds"] is None else str(run["rounds"]) for run in group)
        name = with_dimension(row, 1, 2)
        rows.append([name, *spreads(group, ("elbo", "iwae"), 1), steps, rounds])
    return table(["model", "ELBO", "IWAE", "largest step", "rounds"], rows)


FULL = {"train": 2000, "test": 500, "epochs": 60, "samples": 300, "embedding_epochs": 30}
FULL |= {"digits": 1000, "digit_epochs": 60, "restarts": 4}
QUICK = {"train": 200, "test": 500, "epochs": 2, "samples": 5, "embedding_epochs": 1}
QUICK |= {"digits": 100, "digit_epochs": 2, "restarts": 2}


def main():
    p = parser(__doc__)
    p.add_argument("--output-dir", default="outputs/golikov2018")
    p.add_argument("--seeds", type=at_least(2), default=5)
    p.add_argument("--quick", action="store_true", help="few epochs, to see that it runs")
    args = p.parse_args()
    lib.quiet.settle(1)
    os.makedirs(args.output_dir, exist_ok=True)
    begin = time.process_time()
    settings, seeds = (QUICK, 2) if args.quick else (FULL, args.seeds)

    base = os.path.join(args.output_dir, "golikov2018")
    runs, turning, drawn, turns = [], [], {}, {}  # the last two: models to draw
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
                drawn[with_dimension(row, 1, 2)] = model, test, points
    draw_latents(drawn, f"{base}_circle.png")
    for seed in range(seeds):
        for place, row in itertools.product(PLACES, DIGIT_ROWS):
            run, model, turn = digit_run(row, place, seed, settings)
            turning.append(run)
            if seed == 1 and place == "beside the centre":
                turns[with_dimension(row, 1, 2)] = model, turn
    draw_turn(turns, f"{base}_turn.png")

    results = {
        "seconds": time.process_time() - begin,
        "restarts": settings["restarts"],
        "runs": runs,
        "digits": sorted(turning, key=lambda run: DIGIT_ROWS.index(run["row"])),
        "embeddings": {name: (list(q), seconds) for name, (_, q, seconds) in _learned.items()},
    }
    write_json(base + ".json", results)
    options = " --quick" * args.quick + (f" --seeds {seeds}" if seeds != 5 else "")
    text = report(results, options)
    write_text(base + ".md", text)
    print(text)


if __name__ == "__main__":
    main()
