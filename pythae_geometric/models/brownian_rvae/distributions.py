r"""Posterior and prior of a :class:`~.BrownianRVAE`: Brownian motion on its latent manifold.

All densities refer to the Lebesgue measure dz of the latent coordinates.
"""

import math

import torch

from ...geometry import heat_kernel_log_prob
from ...geometry.pullback import triangular_factor
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
        self.metric, self.mean, self.log_time = metric, mean, log_time
        with torch.no_grad():
            self.cholesky = triangular_factor(metric.jacobian(mean)).mT  # L of L Lᵀ = G(m)

    def rsample(self) -> torch.Tensor:
        r"""One sample each, ``[B, d]``: :math:`z = m + \sqrt t\, L^{-\top} \epsilon` with
        :math:`\epsilon \sim N(0, I)`."""
        return self.rsample_and_log_volume()[0]

    def rsample_and_log_volume(self) -> tuple[torch.Tensor, torch.Tensor]:
        r"""One sample each ``[B, d]``, and :math:`\tfrac12 \log \det G(m)`, ``[B]``, with an
        unbiased estimate of its gradient, for which it takes the sample (:class:`_Step`)."""
        parameters = [p for p in self.metric.parameters() if p.requires_grad]
        step, log_volume = _Step.apply(self.metric, self.cholesky, self.mean, *parameters)
        return self.mean + (0.5 * self.log_time).exp().unsqueeze(1) * step, log_volume

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        r""":math:`\log q(z | x)`, ``[B]``."""
        white = (self.cholesky.mT @ (z - self.mean).unsqueeze(-1)).squeeze(-1)
        square = white.square().sum(1) * (-self.log_time).exp()
        return 0.5 * (self.mean.shape[1] - square) - self.entropy()

    def entropy(self) -> torch.Tensor:
        r""":math:`\tfrac d2 (\log(2 \pi t) + 1) - \tfrac12 \log \det G(m)`, ``[B]``, without a
        gradient in m."""
        return self.entropy_at(_log_volume(self.cholesky))

    def entropy_at(self, log_volume: torch.Tensor) -> torch.Tensor:
        """The entropy for given log volumes at m, ``[B]``."""
        d = self.mean.shape[1]
        return 0.5 * d * (self.log_time + math.log(2 * math.pi) + 1) - log_volume


class _Step(torch.autograd.Function):
    r"""A vector u of :math:`N(0, G(m)^{-1})`, and :math:`\tfrac12 \log \det G(m)`.

    Both are differentiated in m and in the parameters of G by two tangents of the decoder, where
    the derivative of the factor L would take d. Along :math:`\dot G`, the distribution of u moves
    as u itself does by :math:`\dot u = -\tfrac12 G^{-1} \dot G u` (its covariance changes by
    :math:`-G^{-1} \dot G G^{-1}`, as it should), and the log volume by :math:`\tfrac12
    \operatorname{tr} G^{-1} \dot G = E\, \tfrac12 u^\top \dot G u`. With the gradients g and h of
    the loss in u and in the log volume, its derivative is that of

    .. math:: \tfrac12 \langle u, v \rangle_{G(m)}, \qquad v = h u - G^{-1} g,

    at u and v held fixed: implicit reparameterisation (Figurnov, Mohamed, Mnih, 2018), with the
    field that moves least in the metric G.
    """

    @staticmethod
    def forward(ctx, metric, cholesky, mean, *parameters):
        noise = torch.randn_like(mean).unsqueeze(-1)
        u = torch.linalg.solve_triangular(cholesky.mT, noise, upper=True).squeeze(-1)
        ctx.metric = metric
        ctx.save_for_backward(u, cholesky, mean, *parameters)
        return u, _log_volume(cholesky)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g, h):
        u, cholesky, mean, *parameters = ctx.saved_tensors
        v = h.unsqueeze(1) * u - torch.cholesky_solve(g.unsqueeze(-1), cholesky).squeeze(-1)
        held = torch.stack([u, v])  # u is a result of this function: here without its graph
        with torch.enable_grad():
            m = mean.detach().clone().requires_grad_()
            Ju, Jv = ctx.metric.pushforwards(m, held)
            product = 0.5 * (Ju * Jv).sum()
        return None, None, *torch.autograd.grad(product, (m, *parameters), allow_unused=True)


def _log_volume(cholesky: torch.Tensor) -> torch.Tensor:
    return cholesky.diagonal(dim1=1, dim2=2).log().sum(1)


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

    def log_prob_at(self, log_volume: torch.Tensor, squared_distance: torch.Tensor) -> torch.Tensor:
        r""":math:`\log p(z)`, ``[B]``, for given log volumes at z and :math:`l^2(z, c)`."""
        log_kernel = log_volume - squared_distance / (2 * self.log_time.exp())
        return log_kernel - 0.5 * len(self.center) * (self.log_time + math.log(2 * math.pi))


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
    surrogate = 0.5 * metric.pushforwards(z, w.unsqueeze(0))[0].square().sum(1)
    return value + surrogate - surrogate.detach()
