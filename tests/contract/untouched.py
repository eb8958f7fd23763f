"""Numbers of every model and sampler of pythae, as JSON; a program that
``test_contract_untouched.py`` runs with and without ``import pythae_geometric``."""

import hashlib
import json
import logging
import os
import sys
import tempfile
import warnings

os.environ["TQDM_DISABLE"] = "1"
import numpy as np
import pythae.models
import pythae.samplers
import torch
from pythae.models import AutoModel
from pythae.pipelines import GenerationPipeline, TrainingPipeline
from pythae.trainers import (
    AdversarialTrainerConfig,
    BaseTrainerConfig,
    CoupledOptimizerAdversarialTrainerConfig,
    CoupledOptimizerTrainerConfig,
)
from sklearn.datasets import load_digits

if sys.argv[1] == "with":
    import pythae_geometric  # noqa: F401

warnings.simplefilter("ignore")
logging.disable(logging.INFO)
torch.set_num_threads(1)
images = (load_digits().images[:60, None] / 16).astype(np.float32)

TRAINERS = {
    "Adversarial_AE": AdversarialTrainerConfig,
    "FactorVAE": AdversarialTrainerConfig,
    "VAEGAN": CoupledOptimizerAdversarialTrainerConfig,
    "RAE_L2": CoupledOptimizerTrainerConfig,
    "PIWAE": CoupledOptimizerTrainerConfig,
}
FIELDS = {
    "VQVAE": {"num_embeddings": 8},
    "RAE_L2": {"embedding_weight": 0.1, "reg_weight": 0.1},
    "RAE_GP": {"embedding_weight": 0.1, "reg_weight": 0.1},
    "RHVAE": {"n_lf": 1},
    "HVAE": {"n_lf": 1},
    "MSSSIM_VAE": {"window_size": 3},
    "SVAE": {"latent_dim": 4},
}
SAMPLERS = {
    "NormalSampler": ["AE", "VAE", "WAE_MMD", "Adversarial_AE"],
    "GaussianMixtureSampler": ["AE", "RAE_L2", "VAE"],
    "MAFSampler": ["VAE"],
    "IAFSampler": ["VAE"],
    "TwoStageVAESampler": ["VAE"],
    "VAMPSampler": ["VAMP"],
    "RHVAESampler": ["RHVAE"],
    "HypersphereUniformSampler": ["SVAE"],
    "PoincareDiskSampler": ["PoincareVAE"],
    "PixelCNNSampler": ["VQVAE"],
}
SAMPLER_FIELDS = {
    "GaussianMixtureSampler": {"n_components": 2},
    "RHVAESampler": {"mcmc_steps_nbr": 2, "n_lf": 1},
    "MAFSampler": {"n_made_blocks": 1, "hidden_size": 8},
    "IAFSampler": {"n_made_blocks": 1, "hidden_size": 8},
}


def digest(values) -> str:
    """Every bit of some tensors."""
    sums = hashlib.sha256()
    for value in values:
        sums.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    return sums.hexdigest()


def seeded(function):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 (scikit-learn and pythae draw from it)
    return function()


def record(name, folder):
    config_class = getattr(pythae.models, f"{name}Config", None)
    config_class = config_class or getattr(pythae.models, f"{name}_Config")
    fields = {"input_dim": (1, 8, 8), "latent_dim": 2, **FIELDS.get(name, {})}
    model = seeded(lambda: getattr(pythae.models, name)(config_class(**fields)))
    training = TRAINERS.get(name, BaseTrainerConfig)(
        output_dir=os.path.join(folder, name),
        num_epochs=1,
        per_device_train_batch_size=20,
        no_cuda=True,
    )
    pipeline = TrainingPipeline(model, training)
    pipeline(images)
    final = os.path.join(pipeline.trainer.training_dir, "final_model")
    loaded = AutoModel.load_from_folder(final).eval()
    x = torch.as_tensor(images[:5])
    result = {
        "class": type(loaded).__qualname__,
        "config": type(loaded.model_config).__qualname__,
        "weights": digest(loaded.state_dict().values()),
        "embedding": digest([loaded.encoder(x).embedding]),
    }
    if name != "VQVAE":
        result["output"] = digest([seeded(lambda: loaded({"data": x})).recon_x])
    for sampler, models in SAMPLERS.items():
        if name in models:
            result[sampler] = digest([seeded(lambda s=sampler: generate(loaded, s, folder))])
    return result


def generate(model, sampler, folder):
    config = getattr(pythae.samplers, f"{sampler}Config")(**SAMPLER_FIELDS.get(sampler, {}))
    training = BaseTrainerConfig(
        output_dir=os.path.join(folder, sampler), num_epochs=1, no_cuda=True
    )
    pipeline = GenerationPipeline(model, config)
    return pipeline(num_samples=3, train_data=images, training_config=training)


names = sorted(
    name
    for name in dir(pythae.models)
    if isinstance(getattr(pythae.models, name), type)
    and issubclass(getattr(pythae.models, name), pythae.models.BaseAE)
    and name != "BaseAE"
)
results = {}
with tempfile.TemporaryDirectory() as folder:
    for name in names:
        try:
            results[name] = record(name, folder)
        except Exception as error:  # what pythae cannot do, it must not do either way
            results[name] = {"error": f"{type(error).__name__}: {error}"[:500]}
results["samplers"] = sorted(SAMPLERS)
print(json.dumps(results))
