"""Train a VAE on the digits, generate from it in three ways, save, and load in another process.

    python examples/quickstart.py [--output-dir outputs/quickstart] [--quick]

Takes about a minute on two cores. Look at ``generated.png``, ``latent_map.png`` and
``reloaded.png`` in the output folder.
"""

import argparse
import os
import subprocess
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from pythae.models import VAE, AutoModel, VAEConfig
from pythae.pipelines import GenerationPipeline, TrainingPipeline
from pythae.samplers import GaussianMixtureSamplerConfig, NormalSamplerConfig
from pythae.trainers import BaseTrainerConfig
from sklearn.datasets import load_digits

from pythae_geometric import MetricUniformHMCSampler, MetricUniformHMCSamplerConfig, plotting


def train(data, latent_dim, epochs, folder):
    """A VAE, trained by pythae's pipeline as it is."""
    torch.manual_seed(0)
    model = VAE(VAEConfig(input_dim=(1, 8, 8), latent_dim=latent_dim, reconstruction_loss="bce"))
    config = BaseTrainerConfig(
        output_dir=folder,
        num_epochs=epochs,
        learning_rate=1e-3,
        per_device_train_batch_size=100,
    )
    pipeline = TrainingPipeline(model=model, training_config=config)
    pipeline(train_data=data)
    return AutoModel.load_from_folder(os.path.join(pipeline.trainer.training_dir, "final_model"))


def generate(model, data, folder):
    """Samples of pythae's samplers and ours, side by side; saves our fitted sampler.

    Ours chooses all scales from the codes of the data; ``metric="posteriors"`` is the paper's
    setting.
    """
    configs = {
        "Normal (pythae)": NormalSamplerConfig(),
        "Gaussian mixture (pythae)": GaussianMixtureSamplerConfig(n_components=10),
        "Metric-uniform HMC": MetricUniformHMCSamplerConfig(seed=0),
    }
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained")
    figure.get_layout_engine().set(wspace=0.04)  # the grids of images stand apart
    plotting.image_grid(data[:64], title="Data", ax=axes[0])
    for ax, (name, config) in zip(axes[1:], configs.items(), strict=True):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002  (scikit-learn's mixture draws from it)
        pipeline = GenerationPipeline(model=model, sampler_config=config)
        images = pipeline(num_samples=64, train_data=data)
        plotting.image_grid(images, title=name, ax=ax)
    figure.savefig(os.path.join(folder, "generated.png"), dpi=150)
    print(pipeline.sampler.diagnostics)
    pipeline.sampler.save(os.path.join(folder, "sampler"))


def draw_latent_map(model, data, labels, folder):
    """The latent plane of a model, coloured by volume, with a few chains."""
    sampler = MetricUniformHMCSampler(model, MetricUniformHMCSamplerConfig(seed=0))
    sampler.fit(data)
    sampler.sample_latent(12)
    chains = sampler.diagnostics.chains
    with torch.no_grad():
        means = model.encoder(torch.as_tensor(data)).embedding
    ax = plotting.latent_map(sampler.metric, means, labels)
    plotting.draw_curves(ax, chains.transpose(0, 1), label="Chains")
    ax.set_title("Codes of the digits, the volume of their metric, and 12 chains")
    ax.figure.savefig(os.path.join(folder, "latent_map.png"), dpi=150)


RELOAD = """
import sys
import matplotlib
matplotlib.use("Agg")
from pythae.models import AutoModel
from pythae_geometric import MetricUniformHMCSampler, plotting

model = AutoModel.load_from_folder(sys.argv[1])
sampler = MetricUniformHMCSampler.load(sys.argv[2], model)
ax = plotting.image_grid(sampler.sample(num_samples=64), title="From another process")
ax.figure.savefig(sys.argv[3], dpi=150)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", default="outputs/quickstart")
    parser.add_argument("--quick", action="store_true", help="three epochs, to see that it runs")
    args = parser.parse_args()
    folder = args.output_dir
    plt.rcParams.update(plotting.STYLE)
    os.makedirs(folder, exist_ok=True)
    digits = load_digits()
    data = (digits.images[:, None] / 16).astype(np.float32)
    epochs = 3 if args.quick else 150

    model = train(data, 8, epochs, os.path.join(folder, "training"))
    generate(model, data, folder)
    plane = train(data, 2, epochs, os.path.join(folder, "training_plane"))
    draw_latent_map(plane, data, digits.target, folder)

    model.save(os.path.join(folder, "model"))
    paths = [os.path.join(folder, name) for name in ("model", "sampler", "reloaded.png")]
    subprocess.run([sys.executable, "-c", RELOAD, *paths], check=True)
    print(f"Look at generated.png, latent_map.png and reloaded.png in {folder}.")


if __name__ == "__main__":
    main()
