"""Long motions: how many samples stay near the codes, and what they are worth as images.

    python examples/benchmarks/long_motion.py [--data fashion_mnist --data-dir FOLDER] [--quick]

A BrownianRVAE of two latent dimensions is trained, a third of its epochs in the metric (once; it is
kept in the output folder), and sampled by motions from the centre of its prior for 1, 5 and 25
times the learned time: by the plain one, which after 1 time is the prior, and by the one that tends
to the codes. Last is the mixture of normal distributions to which that one tends. Near: the share
of samples as near to a training code as 99 of 100 test codes are. Fréchet distance and coverage are
in the features of a classifier of the training images, against the test images; nearest is the
median distance to a training image, that of test images being 1.
"""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import lib.quiet
import torch
from lib.costs import measured
from lib.measures import feature_measures

from pythae_geometric import BrownianMotionSampler, BrownianMotionSamplerConfig
from pythae_geometric.commands.arguments import at_least, parser
from pythae_geometric.commands.data import HELP, load_data
from pythae_geometric.commands.files import kept, slug
from pythae_geometric.commands.tables import table
from pythae_geometric.commands.training import train
from pythae_geometric.evaluation import nearest_distances, train_feature_network
from pythae_geometric.models import BrownianRVAE, BrownianRVAEConfig


def trained(args, data):
    """The model, and the features of the classifier."""
    fields = {"num_centers": min(350, args.images // 4), "warmup_epochs": args.epochs * 2 // 3}
    config = BrownianRVAEConfig(input_dim=tuple(data.train.shape[1:]), latent_dim=2, **fields)
    key = slug(args.data, len(data.train), args.epochs)

    folder = os.path.join(args.output_dir, key)

    def fit():
        torch.manual_seed(0)
        fields = {"num_epochs": args.epochs, "per_device_train_batch_size": 100}
        return train(BrownianRVAE(config), data, folder, **fields)

    model = BrownianRVAE.load_from_folder(kept(f"{folder}.json", fit))
    network = train_feature_network(data.train, data.train_labels, seed=0)
    return model.cpu().eval(), network.features


@torch.no_grad()
def report(args, data, model, features):
    """Print the table, row by row."""
    known, new = (model.encoder(x).embedding for x in (data.train, data.test))
    reach = torch.cdist(new, known).amin(1).quantile(0.99)
    apart, real = nearest_distances(data.test, data.train)[0].median(), features(data.test)

    def row(name, z, times, *figures):
        x = model.decoder(z).reconstruction.reshape(-1, *data.test.shape[1:]).clamp(0, 1)
        found = feature_measures(real, features(x), clusterings=1)
        near = float((torch.cdist(z, known).amin(1) <= reach).double().mean())
        nearest = float(nearest_distances(x, data.train)[0].median() / apart)
        measures = [f"{m:.2f}" for m in (near, found["frechet"], found["coverage"], nearest)]
        print(table([name, times, *measures, *figures], [])[0], flush=True)

    header = "distribution, time, near, Fréchet, coverage, nearest, shortened, stopped, seconds"
    print("\n".join(table(header.split(", "), [])))
    row("reconstructed test images", new, *"————")
    for stationary in ("volume", "codes"):
        for times in (1, 5, 25):
            duration = times * float(model.prior_log_time.exp())
            fields = {"steps": args.steps, "seed": 0, "stationary": stationary}
            config = BrownianMotionSamplerConfig(time=duration, **fields)
            sampler = BrownianMotionSampler(model, config)
            sampler.fit(data.train)
            with measured() as cost:
                z = sampler.sample_latent(args.samples)
            d = sampler.diagnostics
            figures = d.shortened, d.stopped, f"{cost['processor_seconds']:.0f}"
            row(f"motion to the {stationary}", z, times, *figures)
    row("mixture", sampler.mixture.sample(args.samples), *"————")


def main():
    p = parser(__doc__, "outputs/long_motion")
    p.add_argument("--data", default="digits", help=HELP)
    p.add_argument("--data-dir", default="data", help="the folder of data sets (data)")
    for name, number in (("images", 10_000), ("epochs", 30), ("samples", 1000), ("steps", 100)):
        p.add_argument(f"--{name}", type=at_least(2), default=number, help=f"({number})")
    args = p.parse_args()
    lib.quiet.settle(1)
    if args.quick:
        args.images, args.epochs, args.samples, args.steps = 200, 3, 20, 3
    data = load_data(args.data, args.data_dir).first(args.images, 1000)
    report(args, data, *trained(args, data))


if __name__ == "__main__":
    main()
