"""How time and memory grow: with the latent dimension, the data, the images, centroids and samples.

    python examples/benchmarks/scale.py [--output-dir outputs/scale] [--quick]

Steps of training (loss, gradient, Adam) of every model, and fitting and sampling of both samplers,
each in a process of its own with one thread; processor time, and the peak of memory above that
before (Linux; 0 where it fits in what is left free). A row ends where a cell takes more than a
minute or 12 GB. Exponents are slopes between the logarithms over the upper half of a row.
"""

import itertools
import math
import multiprocessing
import os
import pathlib
import re
import sys
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import lib.quiet
import matplotlib.pyplot as plt
import numpy as np
import torch
from lib.costs import measure, resource, shown
from lib.figures import save
from pythae.data.datasets import DatasetOutput
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseEncoder

from pythae_geometric import (
    BrownianMotionSampler,
    BrownianMotionSamplerConfig,
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
)
from pythae_geometric.commands.arguments import parser
from pythae_geometric.commands.files import write_json, write_text
from pythae_geometric.commands.models import make_config
from pythae_geometric.commands.tables import table
from pythae_geometric.geometry import ConvergenceWarning
from pythae_geometric.plotting_style import COLOURS

SECONDS, BYTES = 60, 12 * 2**30
MODELS = ["VAE", "RicciAE", "ERManifoldVAE", "VAE_DLM", "BrownianRVAE"]
STEPS = [f"step of {name}" for name in MODELS]
GEODESICS = "geodesics of BrownianRVAE, once an epoch"
CODES, HMC, POSTERIOR, PULLBACK = (
    "MetricUniformHMC",
    "MetricUniformHMC, posteriors",
    "BrownianMotion, posterior",
    "BrownianMotion, decoder",
)
# What stays the same while one of the numbers grows.
FIXED = {"d": 8, "batch": 100, "side": 28, "points": 10_000, "centroids": 100, "samples": 100}
STUDIES = {
    "latent dimension": (
        "d",
        [2, 4, 8, 16, 32, 64, 128],
        [*STEPS, GEODESICS] + [f"sample by {name}" for name in (CODES, HMC, POSTERIOR, PULLBACK)],
        {},
    ),
    "embeddings": (
        "points",
        [10**3, 10**4, 10**5, 10**6, 10**7],
        [f"fit of {name}" for name in (CODES, HMC, POSTERIOR)],
        {},
    ),
    "side of the image": ("side", [8, 16, 32, 64, 128, 256], STEPS, {"d": 2, "batch": 16}),
    "centroids": (
        "centroids",
        [10, 100, 1000, 5000],  # k-medoids takes at most 5,000
        [f"{act} {name}" for act in ("fit of", "sample by") for name in (CODES, HMC)],
        {"points": 20_000},
    ),
    "samples": (
        "samples",
        [10**2, 10**3, 10**4, 10**5, 10**6],
        [f"sample by {name}" for name in (CODES, HMC, POSTERIOR, PULLBACK)],
        {"points": 1000, "d": 2},
    ),
}


class Embeddings(BaseEncoder):
    """The data are the embeddings."""

    def forward(self, x):
        return ModelOutput(embedding=x, log_covariance=0.3 * x.flip(-1) - 2)


def build(name, d, side):
    """A model, with its default networks."""
    fields = {"input_dim": (1, side, side), "latent_dim": d, "manifold": f"torus({d})"}
    cls, config = make_config(name, **fields, num_centers=100, warmup_epochs=1)
    return cls(config)


def step(name, d, batch, side):
    """A training step; of a BrownianRVAE, in its second phase."""
    model = build(name, d, side).train()
    generator = torch.Generator().manual_seed(0)
    data = torch.rand(max(batch, 100), 1, side, side, generator=generator)
    if name == "BrownianRVAE":
        model({"data": data}, epoch=1)  # collects the codes
        model.update()
    inputs = DatasetOutput(data=data[:batch])
    optimiser = torch.optim.Adam(model.parameters(), lr=0.0)

    def run():
        optimiser.zero_grad()
        model(inputs, epoch=2, dataset_size=len(data)).loss.backward()
        optimiser.step()

    return run, model


def sampler(name, d, points, centroids):
    """A sampler, not fitted, and its data."""
    width = 784 if name == PULLBACK else d  # of an image
    data = torch.randn(points, width, generator=torch.Generator().manual_seed(0))
    encoder = None if name == PULLBACK else Embeddings()
    model = VAE(VAEConfig(input_dim=(width,), latent_dim=d), encoder)
    if name in (CODES, HMC):
        fields = {"num_centroids": centroids, "mcmc_steps_nbr": 10, "n_lf": 5, "seed": 0}
        metric = "codes" if name == CODES else "posteriors"
        config = MetricUniformHMCSamplerConfig(metric=metric, **fields)
        return MetricUniformHMCSampler(model, config), data
    metric = "posterior" if name == POSTERIOR else "pullback"
    config = BrownianMotionSamplerConfig(metric=metric, time=1e-3, steps=20, seed=0)
    return BrownianMotionSampler(model, config), data


def prepare(row, d, batch, side, points, centroids, samples):
    """What is measured, as a function without arguments."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    # The embeddings are data of an autoencoder that never decodes them.
    warnings.filterwarnings("ignore", message="train_data reaches from")
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    torch.manual_seed(0)
    if row.startswith("step of "):
        return step(row.removeprefix("step of "), d, batch, side)[0]
    if row == GEODESICS:
        return step("BrownianRVAE", d, batch, side)[1].update
    act, name = re.fullmatch("(fit of|sample by) (.*)", row).groups()
    drawn, data = sampler(name, d, points, centroids)
    if act == "fit of":
        return lambda: drawn.fit(data)
    drawn.fit(data)
    return lambda: drawn.sample_latent(samples)


def cost(row, fields):
    """Seconds and megabytes of a cell, or why there are none."""
    small = {"d": 2, "batch": 2, "side": 8, "points": 200, "centroids": 10, "samples": 2}
    arguments = ((row, *(values[name] for name in FIXED)) for values in (fields, small))
    repeats = 5 if row in STEPS else 2 if row == GEODESICS else 1
    try:
        seconds, megabytes, _ = measure(prepare, *arguments, repeats, limit=4 * SECONDS)
    except multiprocessing.TimeoutError:
        return "too long"
    except (MemoryError, RuntimeError) as error:
        text = str(error) or "memory"
        return "memory" if "memory" in text.lower() or "alloc" in text else text.splitlines()[-1]
    return {"seconds": seconds, "megabytes": megabytes}


def exponent(x, y, least):
    """Of the growth of y in x, over the upper half, if it is above ``least`` there."""
    half = max(2, math.ceil(len(x) / 2))
    if len(x) < 3 or None in y or min(y[-half:]) <= least:
        return None
    return float(np.polyfit(np.log(x[-half:]), np.log(y[-half:]), 1)[0])


def grow(study, quick):
    """All rows of a study: ``{row: {number: measurement}}``."""
    field, numbers, rows, change = STUDIES[study]
    fixed = {**FIXED, **change}
    if quick:  # one cell of each study, and two of the first, which then has exponents
        count = 2 if study == next(iter(STUDIES)) else 1
        numbers, rows, fixed = numbers[:count], rows[-1:], {**fixed, "batch": 4, "points": 1000}
    results = {}
    for row in rows:
        results[row] = {}
        for number in numbers:
            result = cost(row, {**fixed, field: number})
            results[row][number] = result
            print(f"{study} {number}, {row}: {result}", flush=True)
            if isinstance(result, str) or result["seconds"] > SECONDS:
                break
    return results


def cell(result):
    if result is None:
        return ""
    if isinstance(result, str):
        return result[:80]
    seconds = result["seconds"]
    text = f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"
    return f"{text}, {shown(result['megabytes'])}"


def study_table(study, results):
    field, _, _, change = STUDIES[study]
    fixed = {k: v for k, v in {**FIXED, **change}.items() if k != field}
    numbers = sorted({n for row in results.values() for n in row})
    rows = []
    for row, cells in results.items():
        # Memory below 1 MB is lost in what the process has left free.
        units = {"seconds": 0, "megabytes": 1}
        powers = [exponent(*series(cells, unit), least) for unit, least in units.items()]
        text = ", ".join("-" if power is None else f"{power:.2f}" for power in powers)
        rows.append([row, *(cell(cells.get(n)) for n in numbers), text])
    elsewhere = ", ".join(f"{k} {v}" for k, v in fixed.items())
    lines = [f"## {study.capitalize()}", "", f"Elsewhere: {elsewhere}.", ""]
    lines += table(["", *map(str, numbers), "exponents: time, memory"], rows)
    return "\n".join(lines) + "\n"


def series(cells, unit):
    pairs = [(n, r[unit]) for n, r in cells.items() if not isinstance(r, str)]
    return [n for n, _ in pairs], [value for _, value in pairs]


def draw(results, path):
    figure, axes = plt.subplots(2, len(results), figsize=(4 * len(results), 7))
    names = dict.fromkeys(row for rows in results.values() for row in rows)
    styles = itertools.product(("-", "--", ":"), COLOURS)
    looks = {name: dict(zip(("ls", "color"), next(styles), strict=True)) for name in names}
    for column, (study, rows) in zip(axes.T, results.items(), strict=True):
        for ax, unit in zip(column, ("seconds", "megabytes"), strict=True):
            for row, cells in rows.items():
                x, y = series(cells, unit)
                y = np.maximum(y, 1) if unit == "megabytes" else y  # below, chance decides
                ax.plot(x, y, marker="o", ms=3, label=row, **looks[row])
            ax.set(xscale="log", yscale="log", xlabel=study)
            ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("processor time, s")
    axes[1, 0].set_ylabel("peak memory, MB (from 1)")
    handles = {h.get_label(): h for ax in axes[0] for h in ax.get_legend_handles_labels()[0]}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4)
    save(figure, *os.path.split(path), dpi=70)


def main():
    args = parser(__doc__, "outputs/scale").parse_args()
    lib.quiet.settle(1)
    results = {study: grow(study, args.quick) for study in STUDIES}
    text = (
        "# Growth of time and memory\n\n`python examples/benchmarks/scale.py`, one thread; chains "
        "of MetricUniformHMC of 10 steps of 5 leapfrogs, Brownian motions of 20 steps.\n\n"
    )
    text += "\n".join(study_table(study, rows) for study, rows in results.items())
    print("\n" + text)
    base = os.path.join(args.output_dir, "scale")
    write_text(base + ".md", text)
    write_json(base + ".json", results)
    draw(results, base + ".png")


if __name__ == "__main__":
    main()
