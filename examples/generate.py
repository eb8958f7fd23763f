"""Generate images from a trained model, with any sampler of pythae or of this package.

    python examples/generate.py --model-folder FOLDER --sampler MetricUniformHMC --data digits
    python examples/generate.py --model-folder FOLDER --sampler my_sampler.json --data mnist

FOLDER is what train.py printed. A sampler's name stands for its defaults; a JSON file sets more:
{"name": "MetricUniformHMCSamplerConfig", "metric": "posteriors"} is the setting of the paper.
Samplers that are fitted are fitted on the training data. BrownianMotion takes the pullback metric
of the decoder for a model that has no metric of its own. Writes images 00000000.png and on, and
grid.png, where there is matplotlib, in the output folder.
"""

import os

import numpy as np
import torch
from lib.arguments import at_least, parser
from lib.data import HELP, load_data
from lib.models import classes, make_sampler_config
from pythae.models import AutoModel
from pythae.pipelines import GenerationPipeline
from pythae.samplers import BaseSampler
from pythae.trainers import BaseTrainerConfig


def parse():
    samplers = ", ".join(sorted(name.removesuffix("Sampler") for name in classes(BaseSampler)))
    p = parser(__doc__, quick="few images, to see that it runs")
    p.add_argument("--model-folder", required=True, help="the folder of a trained model")
    p.add_argument(
        "--sampler", default="MetricUniformHMC", help=f"a JSON config, or one of {samplers}"
    )
    p.add_argument("--data", default="digits", help=f"what it was trained on: {HELP}")
    p.add_argument("--data-dir", default="data", help="the folder of data sets (data)")
    p.add_argument("--num-samples", type=at_least(1), default=100, help="(100)")
    p.add_argument("--batch-size", type=at_least(1), default=500, help="at a time (500)")
    p.add_argument(
        "--epochs", type=at_least(1), default=50, help="of samplers that are trained (50)"
    )
    p.add_argument("--seed", type=at_least(0), default=0, help="(0)")
    p.add_argument("--output-dir", help="(MODEL_FOLDER/generated_SAMPLER)")
    return p.parse_args()


def main():
    args = parse()
    if args.quick:
        args.num_samples, args.epochs = 16, 1
    if not os.path.exists(os.path.join(args.model_folder, "model_config.json")):
        raise SystemExit(
            f"--model-folder {args.model_folder} holds no model: give the folder that train.py "
            "printed, which ends in final_model."
        )
    data = load_data(args.data, args.data_dir)
    model = AutoModel.load_from_folder(args.model_folder).eval()
    expected = tuple(model.model_config.input_dim)
    if tuple(data.train.shape[1:]) != expected:
        raise SystemExit(
            f"The model is of data {list(expected)}, but {args.data} is "
            f"{list(data.train.shape[1:])}: name the data that it was trained on with --data."
        )
    config = make_sampler_config(args.sampler, model, seed=args.seed)
    sampler = os.path.basename(args.sampler).removesuffix(".json")
    folder = args.output_dir or os.path.join(args.model_folder, f"generated_{sampler}")
    os.makedirs(folder, exist_ok=True)
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)  # noqa: NPY002  (scikit-learn's mixture draws from it)
    try:
        pipeline = GenerationPipeline(model, config)
    except (TypeError, ValueError, AssertionError) as error:
        text = " ".join(str(error).split())
        raise SystemExit(f"--sampler {args.sampler} does not fit this model: {text}") from None
    images = pipeline(
        num_samples=args.num_samples,
        batch_size=args.batch_size,
        output_dir=folder,
        train_data=data.train,
        eval_data=data.validation,
        training_config=BaseTrainerConfig(
            output_dir=os.path.join(folder, "training"),
            num_epochs=args.epochs,
            learning_rate=1e-3,
            per_device_train_batch_size=100,
        ),
    )
    try:
        from pythae_geometric import plotting

        ax = plotting.image_grid(images[:100].clamp(0, 1))
        ax.figure.savefig(os.path.join(folder, "grid.png"), dpi=100)
    except ImportError as error:
        print(f"No grid.png: {error}")
    print(f"{len(images)} images in {folder}")


if __name__ == "__main__":
    main()
