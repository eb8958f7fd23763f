"""What can be wrong with the data, the encoder or the training of a :class:`~.BrownianRVAE`."""

import torch

from ..base import check_finite


def check_data(x: torch.Tensor, config) -> None:
    """Raise a ValueError unless ``x`` is finite, of the right shape and in range."""
    input_dim = tuple(config.input_dim)
    if tuple(x.shape[1:]) != input_dim or len(x) == 0:
        raise ValueError(
            f"The data must have shape [B, {', '.join(map(str, input_dim))}], the model's "
            f"input_dim, got {list(x.shape)}."
        )
    check_finite(x, "The data")
    if config.uses_default_decoder:
        low, high = float(x.min()), float(x.max())
        if low < 0 or high > 1:
            raise ValueError(
                f"The data must be in [0, 1], the range of the default decoder, got "
                f"{low:.4g} to {high:.4g}: rescale them, or give a decoder of your own."
            )


def check_encoded(mean: torch.Tensor, log_covariance: torch.Tensor, B: int, d: int) -> None:
    """Raise a ValueError unless the encoder's outputs have the right shapes."""
    if mean.shape != (B, d) or log_covariance.shape not in ((B, 1), (B, d)):
        raise ValueError(
            f"The encoder must give embedding of shape {[B, d]} (latent_dim is {d}) and "
            f"log_covariance of shape {[B, 1]} or {[B, d]}, got {list(mean.shape)} and "
            f"{list(log_covariance.shape)}."
        )


def check_training(config, dataset_size: int | None = None, uses_ddp: bool = False, **_) -> None:
    """Raise a ValueError unless a trainer that calls with these keywords can train the model."""
    if uses_ddp:
        raise ValueError(
            "BrownianRVAE cannot be trained by several processes: pythae's trainer wraps it in "
            "a DistributedDataParallel that needs gradients of all parameters in every step, "
            "and each phase trains only some of them. Train it in one process."
        )
    K = config.num_centers
    if dataset_size is not None and dataset_size < K:
        raise ValueError(
            f"num_centers is {K}, but there are only {dataset_size} training points whose codes "
            "could place them: set it to at most that."
        )
