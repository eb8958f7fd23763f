"""Notices a collapsed posterior, which is the prior whatever the data."""

import torch

from ..geometry._warnings import warn

# A divergence in nats, which bounds the information of a code on its data point, below which a
# model of this many epochs has collapsed. Before, posteriors are near the prior in any model.
COLLAPSED, EPOCHS = 0.1, 10


class CollapsedPosteriorWarning(UserWarning):
    """The posterior of every data point is the prior: nothing is learned."""


class CollapseWatch:
    """The mean divergence from the prior in each epoch, and one warning if it stays near 0."""

    total: torch.Tensor | float

    def __init__(self):
        self.epochs, self.warned = 0, False
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.total, self.batches = 0.0, 0

    def add(self, kl: torch.Tensor) -> None:
        """Count the mean divergence of a batch, ``[]``."""
        self.total, self.batches = self.total + kl.detach(), self.batches + 1

    def end_epoch(self, remedy: str) -> None:
        """Count an epoch, if there was a batch in it.

        Args:
            remedy: what to do, for the warning.

        Warns:
            CollapsedPosteriorWarning: if the posterior has collapsed.
        """
        if not self.batches:
            return
        self.epochs += 1
        kl = float(self.total) / self.batches
        self._begin_epoch()
        if self.epochs >= EPOCHS and kl < COLLAPSED and not self.warned:
            self.warned = True
            warn(
                f"The posterior has collapsed: after {self.epochs} epochs its divergence from the "
                f"prior is {kl:.2g} nats, so the codes say next to nothing about the data, and "
                f"samples will all look alike. {remedy}",
                CollapsedPosteriorWarning,
            )
