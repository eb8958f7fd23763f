r"""Posteriors of the latent code z in :math:`\mathbb{R}^n`, whose prior is N(0, I).

A mean of 0 and a log variance of 0 give the prior.
"""

import math

import torch
from torch.distributions import Beta
from torch.nn import functional as F
from torch.special import log_ndtr, ndtri

from ...geometry._warnings import warn

# Beta distributions are kept between these parameters: below, nearly all mass is at the ends, and
# above, the deviation is less than a thousandth of the interval.
BETA_PARAMETERS = (0.05, 1e5)


class BoundaryWarning(UserWarning):
    """The parameters of many Beta posteriors have run to the ends of their range."""


class NormalPosterior:
    """The posterior :math:`N(m, diag(s^2))`.

    Args:
        mean: m, ``[B, n]``.
        log_variance: of s², ``[B, n]``.
    """

    def __init__(self, mean: torch.Tensor, log_variance: torch.Tensor):
        self.mean, self.log_variance = mean, log_variance

    def rsample(self) -> torch.Tensor:
        """One sample each, ``[B, n]``."""
        return self.mean + (0.5 * self.log_variance).exp() * torch.randn_like(self.mean)

    def kl(self) -> torch.Tensor:
        """The Kullback-Leibler divergence from the prior, ``[B]``."""
        square = self.mean.square() + self.log_variance.exp()
        return 0.5 * (square - 1 - self.log_variance).sum(1)

    def log_ratio(self, z: torch.Tensor) -> torch.Tensor:
        r""":math:`\log q(z) - \log p(z)`, ``[B]``."""
        scaled = (z - self.mean).square() * (-self.log_variance).exp()
        return 0.5 * (z.square() - scaled - self.log_variance).sum(1)


class BetaPosterior:
    r"""The posterior that is Beta on the cube, where the prior is uniform.

    .. math:: u = \Phi(z) \sim \mathrm{Beta}(a, b), \qquad
              a = 2 \Phi(m) / s^2, \quad b = 2 \Phi(-m) / s^2

    with the normal distribution function :math:`\Phi`. Its mean is :math:`\Phi(m)`, and for
    small s its deviation in z is about s, as that of the Gaussian of the same parameters.

    Args:
        mean: m, ``[B, n]``.
        log_variance: of s², ``[B, n]``.
    """

    def __init__(self, mean: torch.Tensor, log_variance: torch.Tensor):
        log_ab = math.log(2) - log_variance + torch.stack([log_ndtr(mean), log_ndtr(-mean)])
        a, b = _within(log_ab).exp()
        self.beta = Beta(a, b, validate_args=False)
        _warn_at_the_ends(log_ab.detach())

    def rsample(self) -> torch.Tensor:
        """One sample each, ``[B, n]``."""
        a, b = self.beta.concentration1, self.beta.concentration0
        u = Beta(_repaired(a), _repaired(b), validate_args=False).rsample()
        margin = 8 * torch.finfo(u.dtype).eps
        return ndtri(u.clamp(margin, 1 - margin))

    def kl(self) -> torch.Tensor:
        """The Kullback-Leibler divergence from the prior, ``[B]``: minus the entropy."""
        # Its terms grow as the parameters do and cancel: float32 would lose all digits.
        double = Beta(*self._double(), validate_args=False)
        return -double.entropy().sum(1).to(self.beta.mean.dtype)

    def log_ratio(self, z: torch.Tensor) -> torch.Tensor:
        r""":math:`\log q(z) - \log p(z)`, ``[B]``."""
        a, b = self._double()
        log_beta = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
        y = z.double()
        ratio = (a - 1) * log_ndtr(y) + (b - 1) * log_ndtr(-y) - log_beta
        return ratio.sum(1).to(z.dtype)

    def _double(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.beta.concentration1.double(), self.beta.concentration0.double()


POSTERIORS = {"normal": NormalPosterior, "beta": BetaPosterior}


def _repaired(parameter: torch.Tensor) -> torch.Tensor:
    """The parameter, whose gradient from a sample is 0 where torch's is not a number.

    In float32 that of a Beta sample sometimes is, for parameters such as 66,043 and 0.7 in one
    sample of some hundreds.
    """
    parameter = parameter.view_as(parameter)
    if parameter.requires_grad:
        parameter.register_hook(lambda gradient: gradient.nan_to_num(0.0, 0.0, 0.0))
    return parameter


def _within(log_parameter: torch.Tensor) -> torch.Tensor:
    """The identity inside the range, constant outside, and smooth."""
    low, high = (math.log(bound) for bound in BETA_PARAMETERS)
    rise = F.softplus(log_parameter - low, beta=10) - F.softplus(log_parameter - high, beta=10)
    return low + rise


def _warn_at_the_ends(log_ab: torch.Tensor) -> None:
    low, high = BETA_PARAMETERS
    outside = (log_ab < math.log(low)) | (log_ab > math.log(high))
    share = float(outside.any(0).float().mean())
    if share > 0.5:
        warn(
            f"{share:.0%} of the Beta posteriors have parameters at the ends of their range, "
            f"{low:g} to {high:g}: they are held there, and learn no more. The codes have all but "
            "lost their noise, or lie at the cut of the chart. Scale the data to about [0, 1], "
            'lower the learning rate, set a larger likelihood_std, or take posterior="normal".',
            BoundaryWarning,
        )
