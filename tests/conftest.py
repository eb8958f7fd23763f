import numpy as np
import pytest
import torch
from pythae.models import VAE, VAEConfig
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits():
    """The 8x8 digits, ``[1797, 1, 8, 8]`` in [0, 1]."""
    return (load_digits().images[:, None] / 16).astype(np.float32)


@pytest.fixture(scope="session")
def trained(digits, tmp_path_factory):
    """A VAE of latent dimension 2, trained for a few seconds by pythae's pipeline."""
    torch.manual_seed(0)
    model = VAE(VAEConfig(input_dim=(1, 8, 8), latent_dim=2))
    config = BaseTrainerConfig(
        output_dir=str(tmp_path_factory.mktemp("training")),
        num_epochs=5,
        learning_rate=1e-3,
        per_device_train_batch_size=100,
    )
    TrainingPipeline(model=model, training_config=config)(digits[:1000])
    return model.eval()
