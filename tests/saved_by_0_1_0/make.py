"""Makes the files in this folder, with version 0.1.0 of the package and no later one.

    git worktree add /tmp/v010 983d881  # the last commit of version 0.1.0
    PYTHONPATH=/tmp/v010 python tests/saved_by_0_1_0/make.py

Small models, trained for moments on digits of 4x4 pixels, and samplers of two of them; and what
0.1.0 gave when it loaded them (``expected.json``). Networks are the defaults: those of a user's own
are pickled, and pickles are for one version of Python.
"""

import json
import os
import shutil
import tempfile

import numpy as np
import torch
from pythae.models import VAE, AutoModel, VAEConfig
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from sklearn.datasets import load_digits

import pythae_geometric
from pythae_geometric import (
    VAE_DLM,
    BrownianMotionSampler,
    BrownianMotionSamplerConfig,
    BrownianRVAE,
    BrownianRVAEConfig,
    ERManifoldVAE,
    ERManifoldVAEConfig,
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
    RicciAE,
    RicciAEConfig,
    VAE_DLM_Config,
)

assert pythae_geometric.__version__ == "0.1.0", pythae_geometric.__version__
FOLDER = os.path.dirname(os.path.abspath(__file__))
X = (load_digits().images[:120, None, ::2, ::2] / 16).astype(np.float32)
SHAPE = {"input_dim": (1, 4, 4)}
MODELS = {
    "VAE": (VAE, VAEConfig(**SHAPE, latent_dim=2), 60),
    "BrownianRVAE": (
        BrownianRVAE,
        BrownianRVAEConfig(
            **SHAPE, latent_dim=2, hidden_dims=(16, 8), num_centers=6, warmup_epochs=20
        ),
        22,
    ),
    "RicciAE": (RicciAE, RicciAEConfig(**SHAPE, latent_dim=2), 2),
    "ERManifoldVAE": (
        ERManifoldVAE,
        ERManifoldVAEConfig(**SHAPE, latent_dim=3, manifold="torus(3)", hidden_dims=(16,)),
        2,
    ),
    "VAE_DLM": (VAE_DLM, VAE_DLM_Config(**SHAPE, latent_dim=3, hidden_dim=12, num_layers=2), 2),
}
CHAINS = {"num_centroids": 8, "mcmc_steps_nbr": 5, "n_lf": 3, "seed": 0}
SAMPLERS = {
    "hmc": ("VAE", MetricUniformHMCSamplerConfig(**CHAINS)),
    "hmc_additive": (
        "VAE",
        MetricUniformHMCSamplerConfig(
            **CHAINS, centroid_selection="random", additive_volume=True, temperature=1.5, eps_lf=0.1
        ),
    ),
    "motion_pullback": (
        "VAE",
        BrownianMotionSamplerConfig(metric="pullback", time=0.001, steps=20, seed=0),
    ),
    "motion_posterior": (
        "VAE",
        BrownianMotionSamplerConfig(metric="posterior", time=0.001, steps=20, seed=0),
    ),
    "motion_prior": ("BrownianRVAE", BrownianMotionSamplerConfig(steps=100, seed=0)),
}


def train(model, epochs):
    """The model as pythae's trainer keeps it."""
    config = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(),
        num_epochs=epochs,
        learning_rate=3e-3,
        per_device_train_batch_size=40,
        no_cuda=True,
    )
    pipeline = TrainingPipeline(model, config)
    pipeline(X)
    return AutoModel.load_from_folder(os.path.join(pipeline.trainer.training_dir, "final_model"))


def shrink(model):
    """Make each large matrix one of equal numbers along each antidiagonal, of which torch stores
    each once: a file of kilobytes in place of a megabyte."""
    for parameter in model.parameters():
        if parameter.dim() == 2 and parameter.numel() > 10_000:
            rows, columns = parameter.shape
            numbers = torch.cat([parameter.data[:, 0], parameter.data[-1, 1:]])
            parameter.data = torch.as_strided(numbers, (rows, columns), (1, 1))


def outputs(model):
    x = torch.as_tensor(X[:5])
    torch.manual_seed(0)
    with torch.no_grad():
        output = model.eval()({"data": x})
        codes = model.encoder(x).embedding
    reconstructed = output.recon_x.flatten(1)[:, :8]
    return {
        "loss": float(output.loss),
        "recon_x": reconstructed.tolist(),
        "z": output.z.tolist(),
        "embedding": codes.tolist(),
    }


def main():
    models, expected = {}, {"models": {}, "samplers": {}}
    for name, (cls, config, epochs) in MODELS.items():
        folder = os.path.join(FOLDER, name)
        shutil.rmtree(folder, ignore_errors=True)
        torch.manual_seed(0)
        model = train(cls(config), epochs)
        shrink(model)
        model.save(folder)
        models[name] = AutoModel.load_from_folder(folder)
        expected["models"][name] = outputs(models[name])
    for name, (model, config) in SAMPLERS.items():
        folder = os.path.join(FOLDER, name)
        shutil.rmtree(folder, ignore_errors=True)
        hmc = isinstance(config, MetricUniformHMCSamplerConfig)
        cls = MetricUniformHMCSampler if hmc else BrownianMotionSampler
        sampler = cls(models[model], config)
        sampler.fit(X)
        sampler.save(folder)
        z = cls.load(folder, models[model]).sample_latent(4)
        expected["samplers"][name] = {"model": model, "z": z.tolist()}
    with open(os.path.join(FOLDER, "expected.json"), "w", encoding="utf-8") as file:
        json.dump(expected, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
