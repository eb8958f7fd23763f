"""Compare samplers on trained models, all on equal terms, in one table.

    pythae-geometric compare --model-folders VAE_FOLDER RICCI_FOLDER --data digits
    pythae-geometric compare --model-folders FOLDER --samplers Normal my_sampler.json --data mnist

Fits each sampler on each model, draws, and measures the images against the test images. Prints the
table, and writes it as compare.md and compare.json in the output folder. Rows are kept in
OUTPUT_DIR/rows: an interrupted run continues, and a run with more models or samplers computes only
what is missing. A sampler that fails has a row that says why. The data need labels, for the
classifier in whose features images are compared.
"""

import argparse
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from pythae.models import BaseAE

from .. import __version__
from ..evaluation import train_feature_network
from ..samplers.fingerprint import fingerprint
from .arguments import at_least, parser
from .data import HELP, Data, load_data
from .files import kept, row_path
from .measures import COPY, Judge, reconstructions
from .models import DEVICE, load_model, make_sampler_config, sampler_names
from .sampling import EPOCHS, draw, make_pipeline, reason
from .tables import publish, table

COLUMNS = ["model", "sampler", "images", "Fréchet ↓", "coverage ↑", "nearest", "copies"]
COLUMNS += ["acceptance"]
# A measure, and how many digits are shown.
MEASURES = {"frechet": 2, "coverage": 3, "nearest": 2, "copies": 3, "acceptance": 2}
REPORT = """# Samplers on {data}

{table}

{folders}

Measured against the {test} test images, seed {seed}. Fréchet distance and coverage (the share of
test images that have a sample near them) are those of features of a small classifier of the
training images: compare them only within this table, and between rows of as many images. nearest
is the median distance to the nearest training image, where test images are at 1. A copy is nearer
to a training image, or to its reconstruction, than {copy:.0%} of the distance of a new one. The
rows in parentheses are what a sampler can reach: test images as the model reconstructs them, and
the training images themselves, all of which are copies. One seed says little about a difference of
a few percent: repeat the comparison with other seeds, and with other trainings.
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    p = parser(__doc__, prog="pythae-geometric compare")
    p.add_argument("--model-folders", nargs="+", required=True, help="folders of trained models")
    p.add_argument(
        "--samplers",
        nargs="+",
        default=["Normal", "GaussianMixture", "MetricUniformHMC"],
        help=f"JSON configs, or of {sampler_names()} (Normal GaussianMixture MetricUniformHMC)",
    )
    p.add_argument("--data", default="digits", help=f"what they were trained on: {HELP}")
    p.add_argument("--data-dir", default="data", help="the folder of data sets (data)")
    p.add_argument(
        "--num-samples", type=at_least(1), help="of each sampler (as many as test images)"
    )
    p.add_argument("--seed", type=at_least(0), default=0, help="(0)")
    p.add_argument("--output-dir", help="(outputs/compare_DATA)")
    return p.parse_args(arguments)


Features = Callable[[torch.Tensor], torch.Tensor]
# Images, and the acceptance rate of their sampler, if it has one.
Made = tuple[torch.Tensor, float | None]


class Rows:
    """The rows of one model, each of which is computed once.

    Args:
        model: the model.
        data: what it was trained on.
        features: gives the function from images to features, when a row needs it.
        setting: what decides a row beside the model and the sampler.
        args: of the command.
    """

    def __init__(
        self,
        model: BaseAE,
        data: Data,
        features: Callable[[], Features],
        setting: dict[str, Any],
        args: argparse.Namespace,
    ):
        self.model, self.data, self.features, self.args = model.to(DEVICE), data, features, args
        self.setting = setting | {"weights": fingerprint(model).tolist()}

    @functools.cached_property
    def judge(self) -> Judge:
        return Judge(self.data, self.features(), self.model)

    def training_images(self) -> dict[str, Any]:
        """The row of the training images, which is that of any model."""
        return self.row("(training images)", {}, lambda: (self.some(self.data.train), None))

    def of_samplers(self, configs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The row of what the decoder can reach, then those of samplers by their names."""
        yield self.row("(test images, reconstructed)", {}, self.reconstructed)
        for name, config in configs.items():
            yield self.row(name, config.to_dict(), functools.partial(self.drawn, config))

    def row(self, name: str, config: dict[str, Any], make: Callable[[], Made]) -> dict[str, Any]:
        """The measures of the images that ``make`` gives, or why there are none."""
        setting = json.dumps([self.setting, config], sort_keys=True)
        digest = hashlib.sha256(setting.encode()).hexdigest()[:12]
        key = self.model.model_name, os.path.basename(name), digest
        path = row_path(self.args.output_dir, *key)
        try:
            return {"sampler": name} | kept(path, self.measured, make)
        except Exception as error:  # whatever it is, the other samplers have their rows
            return {"sampler": name, "error": reason(error)}

    def measured(self, make: Callable[[], Made]) -> dict[str, Any]:
        """The measures of the images that ``make`` gives."""
        images, acceptance = make()
        return {"images": len(images), **self.judge.measure(images), "acceptance": acceptance}

    def drawn(self, config: Any) -> Made:
        args, pipeline = self.args, make_pipeline(self.model, config, self.args.seed)
        images = draw(pipeline, self.data, args.num_samples, args.epochs, args.output_dir)
        diagnostics = getattr(pipeline.sampler, "diagnostics", None)
        return images, getattr(diagnostics, "acceptance_rate", None)

    def reconstructed(self) -> Made:
        return reconstructions(self.model, self.some(self.data.test)), None

    def some(self, images: torch.Tensor) -> torch.Tensor:
        """As many of them as there are samples, in a random order."""
        generator = torch.Generator().manual_seed(self.args.seed)
        return images[torch.randperm(len(images), generator=generator)[: self.args.num_samples]]


def cells(row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    names = [row["model"], row["sampler"]]
    if "error" in row:
        why = row["error"].replace("|", "\\|")
        return [*names, f"failed: {why}", *["—"] * len(MEASURES)]
    values = ((row[measure], digits) for measure, digits in MEASURES.items())
    shown = ["—" if value is None else f"{value:.{digits}f}" for value, digits in values]
    return [*names, str(row["images"]), *shown]


def digest_of(data: Data) -> str:
    """The SHA-256 of all images and labels."""
    digest = hashlib.sha256()
    for part in data:
        if part is not None:
            digest.update(part.numpy().tobytes())
    return digest.hexdigest()


def all_rows(
    models: dict[str, BaseAE],
    configs: dict[str, dict[str, Any]],
    data: Data,
    args: argparse.Namespace,
) -> list[dict[str, Any]]:
    """The rows of all models and their samplers, a line printed for each."""

    @functools.cache
    def features() -> Features:
        return train_feature_network(data.train, data.train_labels, seed=0).features

    setting = {"data": digest_of(data), "version": __version__, "epochs": args.epochs}
    setting |= {"num_samples": args.num_samples, "seed": args.seed}
    rows = {name: Rows(model, data, features, setting, args) for name, model in models.items()}
    found = [{"model": "—"} | next(iter(rows.values())).training_images()]
    for name, of_model in rows.items():
        for row in of_model.of_samplers(configs[name]):
            found.append({"model": name} | row)
            print(f"{name}, {row['sampler']}: {row.get('error', 'done')}", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these arguments; None: those of the process."""
    args = parse(arguments)
    data, args.epochs = load_data(args.data, args.data_dir), EPOCHS
    if args.quick:
        data, args.epochs = data.first(300, 60, 60), 1
    if data.train_labels is None:
        raise SystemExit(
            f"{args.data} has no labels for the classifier in whose features images are compared: "
            "add an array 'labels' [N] of whole numbers from 0 to train_data.npz."
        )
    args.num_samples = args.num_samples or len(data.test)
    args.output_dir = args.output_dir or os.path.join("outputs", f"compare_{args.data}")
    # All that can be refused is refused before any work.
    loaded = [load_model(folder, data, args.data) for folder in args.model_folders]
    names = [model.model_name for model in loaded]
    if len(set(names)) < len(names):
        names = [f"{name} {number}" for number, name in enumerate(names, 1)]
    models = dict(zip(names, loaded, strict=True))
    configs = {
        name: {
            sampler: make_sampler_config(sampler, model, seed=args.seed)
            for sampler in args.samplers
        }
        for name, model in models.items()
    }
    rows = all_rows(models, configs, data, args)
    folders = dict(zip(names, args.model_folders, strict=True))
    text = REPORT.format(
        data=args.data,
        table="\n".join(table(COLUMNS, map(cells, rows))),
        folders="\n".join(f"- {name}: `{folder}`" for name, folder in folders.items()),
        test=len(data.test),
        seed=args.seed,
        copy=COPY,
    )
    results = {"arguments": vars(args), "models": folders, "rows": rows}
    print(publish(args.output_dir, "compare", text, results))
