"""What can be wrong with the data or the training of a :class:`~.BrownianRVAE`."""

import torch

from .brownian_rvae_config import BrownianRVAEConfig


def check_in_range(x: torch.Tensor, config: BrownianRVAEConfig) -> torch.Tensor:
    """The data, which must be in the range of the decoder.

    Raises:
        ValueError: if they are not.
    """
    if config.uses_default_decoder:
        low, high = float(x.min()), float(x.max())
        if low < 0 or high > 1:
            raise ValueError(
                f"The data must be in [0, 1], the range of the default decoder, got "
                f"{low:.4g} to {high:.4g}: rescale them, or give a decoder of your own."
            )
    return x


def check_training(config: BrownianRVAEConfig, dataset_size: int | None = None, **_) -> None:
    """Raise a ValueError unless a trainer that calls with these keywords can train the model."""
    K = config.num_centers
    if dataset_size is not None and dataset_size < K:
        raise ValueError(
            f"num_centers is {K}, but there are only {dataset_size} training points whose codes "
            "could place them: set it to at most that."
        )
