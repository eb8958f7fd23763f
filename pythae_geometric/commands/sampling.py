"""Any sampler of pythae or of this package: fitted to the training data if it needs to be, and
drawn from."""

import os
from typing import Any

import numpy as np
import torch
from pythae.models import BaseAE
from pythae.pipelines import GenerationPipeline
from pythae.trainers import BaseTrainerConfig

from ..samplers.base import LatentSampler
from .data import Data

# Of the samplers that are trained.
EPOCHS = 50


def make_pipeline(model: BaseAE, config: Any, seed: int) -> GenerationPipeline:
    """The pipeline of a sampler, with the global generators at ``seed``.

    Raises:
        TypeError, ValueError, AssertionError: if the sampler does not fit the model.
    """
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (scikit-learn's mixture draws from it)
    return GenerationPipeline(model, config)


def draw(
    pipeline: GenerationPipeline,
    data: Data,
    num_samples: int,
    epochs: int,
    folder: str,
    **options: Any,
) -> torch.Tensor:
    """Fit the sampler of a pipeline, and draw from it.

    Args:
        pipeline: the pipeline.
        data: what the model was trained on.
        num_samples: how many images.
        epochs: of a sampler that is trained.
        folder: where its training writes.
        options: others that the pipeline takes.

    Returns:
        images ``[num_samples, *input_dim]``; of several processes the share of this one.
    """
    if not isinstance(pipeline.sampler, LatentSampler):
        # Ours are not trained, and torch takes seconds to load what a trainer needs.
        options["training_config"] = BaseTrainerConfig(
            output_dir=os.path.join(folder, "training"),
            num_epochs=epochs,
            learning_rate=1e-3,
            per_device_train_batch_size=100,
        )
    return pipeline(
        num_samples=num_samples, train_data=data.train, eval_data=data.validation, **options
    )


def reason(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
