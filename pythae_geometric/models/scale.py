"""Notices data on a scale that the networks of a model are not made for."""

import torch

from ..geometry._warnings import warn

# Numbers beyond this are large for networks as they are initialised.
LARGE = 20.0
# Data in [0, 1], with some noise on them, do not leave this interval.
LOW, HIGH = -0.1, 1.1
# A decoder that has not left [0, 1] in so many epochs, though more than this share of the data's
# numbers lie outside the interval, is one that cannot.
EPOCHS, SHARE = 2, 0.05


class ScaleWatch:
    """The ranges of data and reconstructions, and one warning if the second is [0, 1] alone.

    A decoder that ends in a sigmoid trains on any data, to pictures in black and white.
    """

    def __init__(self):
        self.epochs, self._batches = 0, []

    @torch.no_grad()
    def add(self, x: torch.Tensor, recon_x: torch.Tensor) -> None:
        """Take a batch of data and their reconstructions, both ``[B, *input_dim]``."""
        if self.epochs < EPOCHS:
            ends = [float(end) for end in (*x.aminmax(), *recon_x.aminmax())]
            self._batches.append([_share_outside(x, *ends[:2]), *ends])

    def end_epoch(self) -> None:
        """Count an epoch, if there was a batch in it.

        Warns:
            UserWarning: if the decoder gives numbers in [0, 1], and data are outside.
        """
        if self.epochs >= EPOCHS or not self._batches:
            return
        self.epochs += 1
        if self.epochs < EPOCHS:
            return
        shares, low, high, lowest, highest = zip(*self._batches, strict=True)
        self._batches = []
        share = sum(shares) / len(shares)
        low, high, lowest, highest = min(low), max(high), min(lowest), max(highest)
        if share > SHARE and lowest >= 0 and highest <= 1:
            warn(
                f"The data reach from {low:.4g} to {high:.4g}, and in {EPOCHS} epochs no "
                "reconstruction has left [0, 1]: a decoder that ends in a sigmoid cannot learn "
                "them. Scale the data to [0, 1] (images of 0 to 255: divide by 255), or give a "
                "decoder with a linear output."
            )


def warn_of_scale(x: torch.Tensor, recon_x: torch.Tensor, name: str) -> None:
    """Warn of data outside [0, 1] that a trained model reconstructs in [0, 1]."""
    low, high = map(float, x.aminmax())
    lowest, highest = map(float, recon_x.aminmax())
    if _share_outside(x, low, high) > SHARE and lowest >= 0 and highest <= 1:
        warn(
            f"{name} reaches from {low:.4g} to {high:.4g}, but this model "
            "reconstructs it in [0, 1]: it was trained on another scale, so the codes are not "
            "those of such data. Scale them as in training (images of 0 to 255: divide by 255)."
        )


def _share_outside(x: torch.Tensor, low: float, high: float) -> float:
    """The share of numbers, of which these are the least and the greatest, outside [0, 1]."""
    if low >= LOW and high <= HIGH:
        return 0.0
    return float(((x < LOW) | (x > HIGH)).count_nonzero()) / x.numel()


def diverged(what: str, x: torch.Tensor | None) -> ArithmeticError:
    """The error for numbers that are not finite though the data are.

    Args:
        what: which numbers, such as "The loss".
        x: the data, whose scale is named where it is the likely cause; None: they are not known.
    """
    largest = 0.0 if x is None else float(x.abs().max())
    if largest > LARGE:
        cause = (
            f"the data reach {largest:.4g}, and networks as they are initialised expect numbers of "
            "about 1. Scale them (images of 0 to 255: divide by 255)."
        )
    else:
        cause = "training has diverged. Lower the learning rate."
    return ArithmeticError(f"{what} is not finite, though the data are: {cause}")
