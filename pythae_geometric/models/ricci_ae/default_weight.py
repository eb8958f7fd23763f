r"""The weight of the curvature where the user gives none: it never outweighs the reconstruction."""

import math

import torch
from torch import nn

# w, for lengths in data space of about 1, and ρ.
LARGEST_WEIGHT, LARGEST_SHARE = 0.001, 0.001

# What a step leaves of the largest functional of the past.
FADING = 0.99


class DefaultWeight(nn.Module):
    r"""The weight of the functional C beside the error E, step by step.

    .. math:: \min\Big(w,\ \rho\, E\, \frac{\bar C}{\max(\bar C, |C|)^2}\Big),
              \qquad w = 0.001,\quad \rho = 0.001,

    with :math:`\bar C` the largest :math:`|C|` of the past training steps, of which each step
    forgets 1 %; in the first step it is that step's own. The weighted functional is then at most
    the share :math:`\rho` of the error. Why neither a number nor the ratio E / C would do:

    - A fixed weight stops a surface that has to bend before it fits the data, because the curvature
      of such a surface exceeds its final one by powers of ten.
    - On a folded surface a few points decide C, and most steps draw none of them. A weight
      proportional to E / C would give those steps the full share: in two trainings on the Swiss
      roll the sum of their gradients was a tenth to a half of that of the error. With
      :math:`\bar C` the weight changes slowly, and is small where C is that uncertain; a step whose
      C exceeds all of the past by far counts less.
    """

    peak: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("peak", torch.zeros(()))

    def forward(self, error: float, functional: float) -> float:
        """The weight; in training mode, remember the functional.

        Args:
            error: reconstruction error E, at least 0.
            functional: value C of the curvature functional, of either sign.
        """
        size = abs(functional)
        peak = float(self.peak) or size
        if self.training and math.isfinite(size):
            self.peak.fill_(max(size, FADING * peak))
        largest = max(size, peak)
        if LARGEST_WEIGHT * largest * largest <= LARGEST_SHARE * error * peak:
            return LARGEST_WEIGHT
        return LARGEST_SHARE * error * (peak / largest) / largest
