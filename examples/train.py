"""Train any model of pythae or of this package, by name.

    python examples/train.py --model VAE --data digits --latent-dim 8 --epochs 100
    python examples/train.py --model my_model.json --training-config my_training.json \\
        --data mnist --networks convnet
    python examples/train.py --resume outputs/VAE_digits/VAE_training_.../checkpoint_epoch_50 \\
        --data digits --epochs 100

The digits of scikit-learn are built in; other data are read from files, see --data. JSON files are
configs as pythae saves them: {"name": "VAEConfig", "latent_dim": 8}. The last line printed is the
folder of the trained model, which generate.py takes.
"""

import argparse
import os

import torch
from common import DEVICE, FILES, load_data, make_config, make_model, names, train
from pythae.models import AutoModel


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="VAE", help=f"a JSON config of a model, or one of {', '.join(names())}"
    )
    parser.add_argument(
        "--data",
        default="digits",
        help=f"digits (built in), or {', '.join(FILES)}: read from DATA_DIR/NAME/train_data.npz "
        "and eval_data.npz, key 'data', values 0-255, [N, channels, height, width]",
    )
    parser.add_argument("--data-dir", default="data", help="the folder of data sets (data)")
    parser.add_argument(
        "--networks",
        default="default",
        choices=("default", "convnet", "resnet"),
        help="the model's own, or those of pythae's benchmark (28x28, 32x32, 64x64)",
    )
    parser.add_argument("--latent-dim", type=int, default=8, help="unless --model is a file (8)")
    parser.add_argument(
        "--training-config", help="a JSON config of a trainer, in place of --epochs and the rest"
    )
    parser.add_argument("--epochs", type=int, default=100, help="(100)")
    parser.add_argument("--batch-size", type=int, default=100, help="(100)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="(1e-3)")
    parser.add_argument("--save-every", type=int, help="epochs from one checkpoint to the next")
    parser.add_argument("--resume", help="a folder checkpoint_epoch_N, to go on from")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    parser.add_argument("--output-dir", help="(outputs/MODEL_DATA)")
    parser.add_argument("--quick", action="store_true", help="two epochs, to see that it runs")
    args = parser.parse_args()

    if args.quick:
        args.epochs = 2
    data = load_data(args.data, args.data_dir)
    if args.quick:
        data = data._replace(train=data.train[:200], validation=data.validation[:50])
    if args.resume is None:
        cls, config = make_config(
            args.model,
            input_dim=data.train.shape[1:],
            latent_dim=args.latent_dim,
            warmup_epochs=max(1, args.epochs // 2),
        )
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
        args.seed,
        num_epochs=args.epochs,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        steps_saving=args.save_every,
    )
    print(folder)


if __name__ == "__main__":
    main()
