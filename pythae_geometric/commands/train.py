"""Train any model of pythae or of this package, by name.

    pythae-geometric train --model VAE --data digits --latent-dim 8 --epochs 100
    pythae-geometric train --model my_model.json --training-config my_training.json \\
        --data my_faces --networks convnet
    pythae-geometric train --model ERManifoldVAE --manifold "sphere(2)"
    pythae-geometric train --data digits --epochs 100 \\
        --resume outputs/VAE_digits/VAE_training_.../checkpoint_epoch_50

In a checkout, python examples/train.py does the same. The digits of scikit-learn are built in;
other data are read from files, see --data. A model by name is trained with the binary cross entropy
where it has the choice ("reconstruction_loss": "bce"): with pythae's default, half the squared
error, a VAE of the digits gives the mean image for all of them. JSON files are configs as pythae
saves them: {"name": "VAEConfig", "latent_dim": 8}. The last line printed is the folder of the
trained model, which generate and compare take.
"""

import argparse
import os
from collections.abc import Sequence

import torch
from pythae.models import AutoModel

from .arguments import at_least, parser, positive
from .data import HELP, load_data
from .models import DEVICE, classes, image_fields, make_config, make_model
from .training import train


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    quick = "two epochs, to see that it runs"
    p = parser(__doc__, quick=quick, prog="pythae-geometric train")
    p.add_argument(
        "--model",
        default="VAE",
        help=f"a JSON config of a model, or one of {', '.join(sorted(classes()))}",
    )
    p.add_argument("--data", default="digits", help=HELP)
    p.add_argument("--data-dir", default="data", help="the folder of data sets (data)")
    p.add_argument(
        "--networks",
        default="default",
        choices=("default", "convnet", "resnet"),
        help="the model's own, or those of pythae's benchmark (28x28, 32x32, 64x64)",
    )
    p.add_argument("--latent-dim", type=at_least(1), default=8, help="if --model is a name (8)")
    p.add_argument(
        "--manifold",
        help='of ERManifoldVAE, such as circle or "sphere(2)" (a torus of LATENT_DIM dimensions)',
    )
    p.add_argument(
        "--training-config", help="a JSON config of a trainer, in place of --epochs and the rest"
    )
    p.add_argument("--epochs", type=at_least(1), default=100, help="(100)")
    p.add_argument("--batch-size", type=at_least(1), default=100, help="(100)")
    p.add_argument("--learning-rate", type=positive, default=1e-3, help="(1e-3)")
    p.add_argument("--save-every", type=at_least(1), help="epochs between checkpoints (none)")
    p.add_argument("--resume", help="a folder checkpoint_epoch_N, to go on from")
    p.add_argument("--seed", type=at_least(0), default=0, help="(0)")
    p.add_argument("--output-dir", help="(outputs/MODEL_DATA)")
    return p.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these arguments; None: those of the process."""
    args = parse(arguments)
    data = load_data(args.data, args.data_dir)
    if args.quick:
        args.epochs, data = 2, data.first(200, 50)
    if args.resume is None:
        fields = image_fields(data.train, args.latent_dim, args.epochs, args.manifold)
        cls, config = make_config(args.model, **fields)
        torch.manual_seed(args.seed)
        model = make_model(cls, config, args.networks)
    else:
        if not os.path.exists(os.path.join(args.resume, "model.pt")):
            raise SystemExit(f"--resume {args.resume} is no folder checkpoint_epoch_N of pythae's.")
        model = AutoModel.load_from_folder(args.resume)
    print(f"{model.model_name} on {DEVICE}, {len(data.train)} images {list(data.train.shape[1:])}")
    folder = train(
        model,
        data,
        args.output_dir or os.path.join("outputs", f"{model.model_name}_{args.data}"),
        args.training_config,
        args.resume,
        seed=args.seed,
        num_epochs=args.epochs,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        steps_saving=args.save_every,
    )
    print(folder)
