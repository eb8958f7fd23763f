"""The models that keep the contract of ``test_contract_models.py``: a new one joins by its name."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from torch import nn

from pythae_geometric import (
    VAE_DLM,
    BrownianRVAE,
    BrownianRVAEConfig,
    ERManifoldVAE,
    ERManifoldVAEConfig,
    RicciAE,
    RicciAEConfig,
    VAE_DLM_Config,
)


class Case(NamedTuple):
    """A model of the contract.

    Attributes:
        model, config: the classes.
        fields: of the config, such that training takes a second.
        phases: numbers of epochs after which a phase with an objective of its own begins.
        likelihood: whether there is a ``get_nll``.
        encoder: kind of pythae's benchmark encoders that it takes, "AE" or "VAE".
    """

    model: type
    config: type
    fields: Mapping[str, Any] = MappingProxyType({})
    phases: tuple[int, ...] = (0,)
    likelihood: bool = True
    encoder: str = "VAE"

    @property
    def epochs(self) -> int:
        """Enough to be two epochs in the last phase."""
        return self.phases[-1] + 2

    def build_config(self, **fields):
        fields = {"input_dim": (1, 8, 8), "latent_dim": 3, **self.fields, **fields}
        if "manifold" in fields:
            fields["manifold"] = fields["manifold"].format(**fields)
        return self.config(**fields)

    def decoder_config(self, config):
        """The config from which a network is built that takes what this model decodes."""
        widths = {
            ERManifoldVAE: 2 * config.latent_dim,  # a torus: each circle in a plane
            VAE_DLM: config.latent_dim + 1,  # a hypersurface
        }
        width = widths.get(self.model, config.latent_dim)
        return VAEConfig(input_dim=config.input_dim, latent_dim=width)

    def build(self, own_networks=False, **fields):
        config = self.build_config(**fields)
        if own_networks:
            encoder, decoder = Encoder(config, self.encoder), Decoder(self.decoder_config(config))
            return self.model(config, encoder=encoder, decoder=decoder)
        return self.model(config)


class Encoder(BaseEncoder):
    """An encoder as users write them, for an autoencoder ("AE") or a variational one ("VAE")."""

    def __init__(self, config, kind):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh())
        self.embedding = nn.Linear(16, config.latent_dim)
        self.log_covariance = nn.Linear(16, config.latent_dim) if kind == "VAE" else None

    def forward(self, x):
        h = self.layers(x)
        output = ModelOutput(embedding=self.embedding(h))
        if self.log_covariance is not None:
            output["log_covariance"] = self.log_covariance(h)
        return output


class Decoder(BaseDecoder):
    """A decoder as users write them."""

    def __init__(self, config):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(config.latent_dim, 16), nn.Tanh(), nn.Linear(16, 64), nn.Sigmoid()
        )

    def forward(self, z):
        return ModelOutput(reconstruction=self.layers(z).view(-1, 1, 8, 8))


CASES = {
    # pythae's own: what it does not keep is not pythae's contract.
    "VAE": Case(VAE, VAEConfig),
    "BrownianRVAE": Case(
        BrownianRVAE,
        BrownianRVAEConfig,
        {"hidden_dims": (32, 16), "num_centers": 10, "warmup_epochs": 2},
        phases=(0, 2),
    ),
    "RicciAE": Case(RicciAE, RicciAEConfig, {"num_points": 16}, likelihood=False, encoder="AE"),
    "ERManifoldVAE": Case(
        ERManifoldVAE,
        ERManifoldVAEConfig,
        {"manifold": "torus({latent_dim})", "hidden_dims": (32,)},
    ),
    "VAE_DLM": Case(VAE_DLM, VAE_DLM_Config, {"hidden_dim": 24, "num_layers": 2}),
}


def train(model, data, folder, epochs, eval_data=None, callbacks=None, **fields):
    """pythae's trainer, after pythae's pipeline has trained the model on the CPU."""
    config = BaseTrainerConfig(
        **{
            "output_dir": str(folder),
            "num_epochs": epochs,
            "learning_rate": 1e-3,
            "per_device_train_batch_size": 50,
            "per_device_eval_batch_size": 50,
            "no_cuda": True,
            **fields,
        }
    )
    pipeline = TrainingPipeline(model, config)
    pipeline(data, eval_data, callbacks=callbacks)
    return pipeline.trainer


def seeded(function, *arguments, **keywords):
    """The value of a function that draws random numbers, always the same."""
    torch.manual_seed(0)
    with torch.no_grad():
        return function(*arguments, **keywords)


class Run(NamedTuple):
    """The files of a training through all phases of a model, with a checkpoint of each epoch."""

    case: Case
    own_networks: bool
    folder: pathlib.Path

    @property
    def final(self):
        return self.folder / "final_model"

    def checkpoint(self, epoch):
        return self.folder / f"checkpoint_epoch_{epoch}"


def train_through_all_phases(case, own_networks, digits, folder):
    """The folder in which pythae's trainer left the files of a :class:`Run`."""
    torch.manual_seed(0)
    model = case.build(own_networks)
    data, eval_data = digits[:150], digits[150:220]
    fields = {"steps_saving": 1, "learning_rate": 3e-3}
    return train(model, data, folder, case.epochs, eval_data, **fields).training_dir


def run_once(case, own_networks, digits, shared):
    """The run of a model, trained if no process that shares the folder has done so."""
    name = f"{case.model.__name__}-{'own' if own_networks else 'default'}"
    if not (shared / name).exists():
        folder = tempfile.mkdtemp(dir=shared)
        trained = train_through_all_phases(case, own_networks, digits, folder)
        with contextlib.suppress(OSError):  # another process was faster: its files stay
            os.rename(trained, shared / name)
    return Run(case, own_networks, shared / name)
