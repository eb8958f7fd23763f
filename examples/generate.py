"""Generate images from a trained model, with any sampler of pythae or of this package.

    python examples/generate.py --model-folder FOLDER --sampler MetricUniformHMC --data digits
    python examples/generate.py --model-folder FOLDER --sampler my_sampler.json --data mnist

FOLDER is what train.py printed. A sampler's name stands for its defaults; a JSON file sets more:
{"name": "MetricUniformHMCSamplerConfig", "metric": "posteriors"} is the setting of the paper.
Samplers that are fitted are fitted on the training data. Writes images 00000000.png and on, and
grid.png, where there is matplotlib, in the output folder.
"""

import argparse
import os

import numpy as np
import torch
from common import FILES, load_data, make_sampler_config, names
from pythae.models import AutoModel
from pythae.pipelines import GenerationPipeline
from pythae.samplers import BaseSampler
from pythae.trainers import BaseTrainerConfig


def main():
    samplers = ", ".join(name.removesuffix("Sampler") for name in names(BaseSampler))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-folder", required=True, help="the folder of a trained model")
    parser.add_argument(
        "--sampler", default="MetricUniformHMC", help=f"a JSON config, or one of {samplers}"
    )
    parser.add_argument(
        "--data", default="digits", help=f"what it was trained on: digits, {', '.join(FILES)}"
    )
    parser.add_argument("--data-dir", default="data", help="the folder of data sets (data)")
    parser.add_argument("--num-samples", type=int, default=100, help="(100)")
    parser.add_argument("--batch-size", type=int, default=500, help="at a time (500)")
    parser.add_argument("--epochs", type=int, default=50, help="of samplers that are trained (50)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    parser.add_argument("--output-dir", help="(MODEL_FOLDER/generated_SAMPLER)")
    parser.add_argument("--quick", action="store_true", help="few images, to see that it runs")
    args = parser.parse_args()

    if args.quick:
        args.num_samples, args.epochs = 16, 1
    if not os.path.exists(os.path.join(args.model_folder, "model_config.json")):
        raise SystemExit(
            f"--model-folder {args.model_folder} holds no model: give the folder that train.py "
            "printed, which ends in final_model."
        )
    data = load_data(args.data, args.data_dir)
    try:
        config = make_sampler_config(args.sampler, seed=args.seed)
    except ValueError as error:
        reasons = [e["msg"] for e in error.errors()] if hasattr(error, "errors") else [error]
        raise SystemExit(f"--sampler {args.sampler}: {'; '.join(map(str, reasons))}") from None
    model = AutoModel.load_from_folder(args.model_folder).eval()
    expected = tuple(model.model_config.input_dim)
    if tuple(data.train.shape[1:]) != expected:
        raise SystemExit(
            f"The model is of data {list(expected)}, but {args.data} is "
            f"{list(data.train.shape[1:])}: name the data that it was trained on with --data."
        )
    sampler = os.path.basename(args.sampler).removesuffix(".json")
    folder = args.output_dir or os.path.join(args.model_folder, f"generated_{sampler}")
    os.makedirs(folder, exist_ok=True)
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)  # noqa: NPY002  (scikit-learn's mixture draws from it)
    images = GenerationPipeline(model, config)(
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
