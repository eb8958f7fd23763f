r"""Posterior and prior of a :class:`~.BrownianRVAE`: Brownian motion on its latent manifold.

All densities refer to the Lebesgue measure dz of the latent coordinates.
"""

import math

import torch

from ...geometry import heat_kernel_log_prob
from .stochastic_decoder import DecoderMetric


class BrownianPosterior:
    r"""The posterior :math:`q(z | x) = N(z;\, m,\, t\, G(m)^{-1})`.

    One Euler step of Brownian motion, which starts at m and takes the time t.

    Args:
        metric: G.
        mean: m, ``[B, d]``.
        log_time: log t, ``[B]``.
    """

    def __init__(self, metric: DecoderMetric, mean: torch.Tensor, log_time: torch.Tensor):
        self.mean, self.log_time = mean, log_time
        self.cholesky = metric.cholesky(mean)  # L of L Lᵀ = G(m)

    def rsample(self) -> torch.Tensor:
        r"""One sample each, ``[B, d]``: :math:`z = m + \sqrt t\, L^{-\top} \epsilon` with
        :math:`\epsilon \sim N(0, I)`."""
        noise = torch.randn_like(self.mean).unsqueeze(-1)
        step = torch.linalg.solve_triangular(self.cholesky.mT, noise, upper=True).squeeze(-1)
        return self.mean + (0.5 * self.log_time).exp().unsqueeze(1) * step

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        r""":math:`\log q(z | x)`, ``[B]``."""
        white = (self.cholesky.mT @ (z - self.mean).unsqueeze(-1)).squeeze(-1)
        square = white.square().sum(1) * (-self.log_time).exp()
        return 0.5 * (self.mean.shape[1] - square) - self.entropy()

    def entropy(self) -> torch.Tensor:
        r""":math:`\tfrac d2 (\log(2 \pi t) + 1) - \tfrac12 \log \det G(m)`, ``[B]``."""
        d = self.mean.shape[1]
        log_volume = self.cholesky.diagonal(dim1=1, dim2=2).log().sum(1)
        return 0.5 * d * (self.log_time + math.log(2 * math.pi) + 1) - log_volume


class BrownianPrior:
    r"""The prior: the zeroth-order heat kernel around c after the time s.

    .. math:: \log p(z) = -\tfrac d2 \log(2 \pi s) + \tfrac12 \log \det G(z) - l^2(z, c) / 2s

    with the geodesic distance l.

    Args:
        metric: G.
        center: c, ``[d]``.
        log_time: log s, ``[]``.
    """

    def __init__(self, metric: DecoderMetric, center: torch.Tensor, log_time: torch.Tensor):
        self.metric, self.center, self.log_time = metric, center, log_time

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        r""":math:`\log p(z)`, ``[B]``, its geodesics solved to convergence."""
        c, s = self.center, self.log_time.exp()
        kernel = heat_kernel_log_prob(self.metric, z, c.expand_as(z), s.expand(len(z)))
        return kernel + self.metric.log_volume(c.unsqueeze(0))

    def log_prob_at(self, z: torch.Tensor, squared_distance: torch.Tensor) -> torch.Tensor:
        r""":math:`\log p(z)`, ``[B]``, for given :math:`l^2(z, c)`. The gradient of the volume is
        that of :func:`log_volume`."""
        log_kernel = log_volume(self.metric, z) - squared_distance / (2 * self.log_time.exp())
        return log_kernel - 0.5 * z.shape[1] * (self.log_time + math.log(2 * math.pi))


def log_volume(metric: DecoderMetric, z: torch.Tensor) -> torch.Tensor:
    r"""The log volume ``[B]``, with an unbiased estimate of its gradient.

    :math:`\nabla \tfrac12 \log \det J^\top J = \operatorname{tr} (J^\top J)^{-1} J^\top \nabla J
    = E\, (J w)^\top \nabla (J w)` for w from :math:`N(0, G^{-1})` held fixed: one differentiable
    tangent instead of d.

    A sample that has strayed to where the map is constant up to rounding gets the smallest volume
    that rounding can tell, and no gradient: a single such sample must not end the training.
    """
    with torch.no_grad():
        R = torch.linalg.qr(metric.jacobian(z), mode="r").R
        diagonal = R.diagonal(dim1=1, dim2=2).abs()
        finfo = torch.finfo(z.dtype)
        least = (64 * finfo.eps * R.norm(dim=1)).clamp(min=finfo.tiny)
        value = diagonal.clamp(min=least).log().sum(1)
    if not torch.is_grad_enabled():
        return value
    regular = (diagonal > least).all(1)[:, None, None]
    R = torch.where(regular, R, torch.eye(z.shape[1], dtype=z.dtype, device=z.device))
    w = torch.linalg.solve_triangular(R, torch.randn_like(z).unsqueeze(-1), upper=True)
    w = torch.where(regular, w, 0.0).squeeze(-1)
    surrogate = 0.5 * metric.pushforward(z, w).square().sum(1)
    return value + surrogate - surrogate.detach()
