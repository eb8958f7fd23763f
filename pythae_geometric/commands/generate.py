"""Generate images from a trained model, with any sampler of pythae or of this package.

    pythae-geometric generate --model-folder FOLDER --sampler MetricUniformHMC --data digits
    pythae-geometric generate --model-folder FOLDER --sampler my_sampler.json --data mnist

In a checkout, python examples/generate.py does the same. FOLDER is what train printed. A sampler's
name stands for its defaults; a JSON file sets more: {"name": "MetricUniformHMCSamplerConfig",
"metric": "posteriors"} is the setting of the paper. Samplers that are fitted are fitted on the
training data. BrownianMotion takes the pullback metric of the decoder for a model that has no
metric of its own. Writes images 00000000.png and on, and grid.png, where there is matplotlib, in
the output folder.

Several processes share the work of this package's samplers, one GPU each, and write the images
that one process writes:

    torchrun --nproc_per_node 2 examples/generate.py --model-folder FOLDER
    torchrun --nproc_per_node 2 -m pythae_geometric generate --model-folder FOLDER
"""

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence

import torch
from torch import distributed

from .. import plotting
from .._extras import require
from .._processes import place
from .arguments import at_least, parser
from .data import HELP, load_data
from .models import load_model, make_sampler_config, sampler_names
from .sampling import EPOCHS, draw, make_pipeline, reason


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    quick = "few images, to see that it runs"
    p = parser(__doc__, quick=quick, prog="pythae-geometric generate")
    p.add_argument("--model-folder", required=True, help="the folder of a trained model")
    p.add_argument(
        "--sampler",
        default="MetricUniformHMC",
        help=f"a JSON config, or one of {sampler_names()}",
    )
    p.add_argument("--data", default="digits", help=f"what it was trained on: {HELP}")
    p.add_argument("--data-dir", default="data", help="the folder of data sets (data)")
    p.add_argument("--num-samples", type=at_least(1), default=100, help="(100)")
    p.add_argument("--batch-size", type=at_least(1), default=500, help="at a time (500)")
    p.add_argument(
        "--epochs",
        type=at_least(1),
        default=EPOCHS,
        help=f"of samplers that are trained ({EPOCHS})",
    )
    p.add_argument("--seed", type=at_least(0), default=0, help="(0)")
    p.add_argument("--output-dir", help="(MODEL_FOLDER/generated_SAMPLER)")
    return p.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these arguments; None: those of the process."""
    args = parse(arguments)
    if args.quick:
        args.num_samples, args.epochs = 16, 1
    data = load_data(args.data, args.data_dir)
    model = load_model(args.model_folder, data, args.data)
    config = make_sampler_config(args.sampler, model, seed=args.seed)
    sampler = os.path.basename(args.sampler).removesuffix(".json")
    folder = args.output_dir or os.path.join(args.model_folder, f"generated_{sampler}")
    if several_processes():
        if not hasattr(config, "several_processes"):
            raise SystemExit(
                f"--sampler {args.sampler} is pythae's, and draws in one process: start it without "
                "torchrun."
            )
        config.several_processes = True
    with group():
        try:
            pipeline = make_pipeline(model, config, args.seed)
        except (TypeError, ValueError, AssertionError) as error:
            raise SystemExit(
                f"--sampler {args.sampler} does not fit this model: {reason(error)}"
            ) from None
        os.makedirs(folder, exist_ok=True)
        options = {"batch_size": args.batch_size, "output_dir": folder}
        draw(pipeline, data, args.num_samples, args.epochs, folder, **options)
        rank, processes = place()
        if processes > 1:
            distributed.barrier()  # then the images of all are there
        if rank == 0:
            draw_grid(folder, min(args.num_samples, 100))
            print(f"{args.num_samples} images in {folder}")


def several_processes() -> bool:
    """Whether torchrun started this process as one of several."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1


@contextlib.contextmanager
def group() -> Iterator[None]:
    """The group of the processes that torchrun started, if it did, open during the block."""
    if not several_processes():
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        backend, gpu = "nccl", int(os.environ["LOCAL_RANK"])
        if gpu >= torch.cuda.device_count():
            raise SystemExit(
                f"There are {torch.cuda.device_count()} GPUs here, and each process takes one: "
                "start torchrun with a smaller --nproc_per_node."
            )
        torch.cuda.set_device(gpu)
    distributed.init_process_group(backend)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def draw_grid(folder: str, count: int) -> None:
    """Draw the first images of a folder as grid.png, where there is matplotlib."""
    try:
        pyplot = require("matplotlib.pyplot", "viz")
        paths = (os.path.join(folder, f"{number:08d}.png") for number in range(count))
        images = [torch.as_tensor(pyplot.imread(path)).movedim(2, 0)[:3] for path in paths]
        figure = plotting.image_grid(torch.stack(images)).figure
        figure.savefig(os.path.join(folder, "grid.png"), dpi=100)
        pyplot.close(figure)
    except ImportError as error:
        print(f"No grid.png: {error}")
