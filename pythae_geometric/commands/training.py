"""Training by pythae's pipeline, with the trainer that a model needs, from a checkpoint too."""

import glob
import os
from typing import Any

import pythae.trainers
import torch
from pythae.models import BaseAE
from pythae.pipelines import TrainingPipeline
from pythae.trainers import CoupledOptimizerTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback

from .data import Data
from .models import read_config, read_object


class _Restored(TrainingCallback):
    """Puts the state of the optimizer of a checkpoint back."""

    def __init__(self, pipeline: TrainingPipeline, checkpoint: str):
        self.pipeline, self.checkpoint = pipeline, checkpoint

    def on_train_begin(self, training_config, **kwargs):
        trainer = self.pipeline.trainer  # which the pipeline keeps before training begins
        for path in glob.glob(os.path.join(self.checkpoint, "*optimizer.pt")):
            optimizer = getattr(trainer, os.path.basename(path)[:-3], None)
            if optimizer is not None:
                state = torch.load(path, map_location=trainer.device, weights_only=True)
                optimizer.load_state_dict(state)


def train(
    model: BaseAE,
    data: Data,
    output_dir: str,
    training_config: str | None = None,
    checkpoint: str | None = None,
    **fields: Any,
) -> str:
    """Train by pythae's pipeline, with the trainer that the model needs.

    Args:
        model: the model.
        data: the data, whose validation part chooses the best epoch.
        output_dir: where the pipeline writes.
        training_config: a JSON file; None: pythae's defaults with ``fields``.
        checkpoint: folder ``checkpoint_epoch_N`` to go on from, of which ``model`` was loaded.
        fields: of the config of the trainer.

    Returns:
        the folder of the trained model.
    """
    config_class = type(TrainingPipeline(model).training_config)
    if model.model_name == "PIWAE":  # whose trainer the pipeline asks for, but does not choose
        config_class = CoupledOptimizerTrainerConfig
    if training_config is not None:
        name = read_object(training_config)["name"]
        config = read_config(getattr(pythae.trainers, name, config_class), training_config)
        config.output_dir = output_dir
    else:
        rate = fields.pop("learning_rate", 1e-3)
        config = config_class(output_dir=output_dir, **fields)
        # The trainers of pythae that have two optimizers have rates of their own.
        rates = [name for name in vars(config) if name.endswith("learning_rate")]
        for name in [r for r in rates if r != "learning_rate"] or rates:
            setattr(config, name, rate)
    if checkpoint is not None:
        done = int(os.path.basename(os.path.normpath(checkpoint)).rpartition("_")[2])
        if done >= config.num_epochs:
            raise SystemExit(f"{checkpoint} has all of its {config.num_epochs} epochs.")
        config.num_epochs -= done
    pipeline = TrainingPipeline(model, config)
    callbacks = None if checkpoint is None else [_Restored(pipeline, checkpoint)]
    pipeline(data.train, data.validation, callbacks=callbacks)
    return os.path.join(pipeline.trainer.training_dir, "final_model")
