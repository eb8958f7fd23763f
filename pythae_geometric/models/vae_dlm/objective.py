r"""The loss of VAE-DLM: a metric that flows to a steady one, and the likelihood beside it.

.. math:: \partial_t g = -\Lambda g - \alpha (g - \Sigma)

with :math:`\Lambda = B^\top B` symmetric and positive semidefinite, a rate :math:`\alpha \ge 0` and
a steady metric :math:`\Sigma`. Where :math:`\Lambda` does not depend on time this is a gradient
flow in the Frobenius product (Gracyk 2024, theorem 1). Where it also commutes with g and
:math:`\Sigma`,

.. math:: g(t) = \Sigma_\infty + e^{-(\Lambda + \alpha I) t} (g_0 - \Sigma_\infty), \qquad
          \Sigma_\infty = \alpha (\Lambda + \alpha I)^{-1} \Sigma

stays symmetric and positive definite; with :math:`\Lambda = 0` it decays to :math:`\Sigma` at rate
:math:`\alpha`. For any other :math:`\Lambda` the product :math:`\Lambda g` is not symmetric, and
the flow of matrices leaves the set of metrics, where a metric cannot follow it: the antisymmetric
part of the residual is :math:`\tfrac12 [\Lambda, g]` whatever :math:`\partial_t g`. A small
residual therefore means a flow operator that commutes with the metric.

References:
    A. Gracyk, Variational autoencoders with latent high-dimensional steady geometric flows for
    dynamics, 2024, https://arxiv.org/abs/2410.10137
"""

import math
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch.nn import functional as F

from ..bernoulli import bernoulli_log_prob
from ..scale import diverged
from .networks import GramNetwork, TimeNetwork
from .vae_dlm_config import VAE_DLM_Config

# The parts of the loss, and the fields of the config with their weights.
WEIGHTS = {
    "recon_loss": "recon_weight",
    "reg_loss": "kl_weight",
    "metric_loss": "metric_weight",
    "flow_loss": "flow_weight",
    "eigenvalue_loss": "eigenvalue_weight",
}


def total_loss(
    config: VAE_DLM_Config, terms: Mapping[str, torch.Tensor | int], data: torch.Tensor
) -> torch.Tensor:
    """The weighted sum of those terms that there are.

    Args:
        config: the weights.
        terms: by their names, unweighted.
        data: of the batch, for the error.

    Raises:
        ArithmeticError: if it is not finite.
    """
    loss = sum(
        getattr(config, weight) * terms[name] for name, weight in WEIGHTS.items() if name in terms
    )
    _check_not_diverged(loss, data)
    return loss


# Of a batch in training, for the terms of the metric: their mean is that of all rows, and a step
# takes 2.1 times a plain one, where it took 3.0 to 4.0.
SHARE = 0.5


def split_rows(u: torch.Tensor, training: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The numbers of those chart points ``[B, d]`` that have the terms of the metric, in training a
    random share, at least one, otherwise all; of the rest; and the order that puts both parts,
    joined, back into that of ``u``."""
    count, order = len(u), torch.arange(len(u), device=u.device)
    if training:
        count, order = max(1, round(SHARE * count)), torch.randperm(count, device=u.device)
    return order[:count], order[count:], order.argsort()


def lost_rank(lost: torch.Tensor | int, count: int, smallest: torch.Tensor | int) -> str:
    """What to say where the metric has lost its rank."""
    return (
        f"The metric of the latent manifold has lost its rank at {lost} of {count} points: the "
        f"smallest eigenvalue of its Jacobian's JᵀJ is {float(smallest):.3g}, zero up to rounding. "
        "Raise alpha or flow_weight, set eigenvalue_weight, or use fewer latent dimensions. (This "
        "warning is given once.)"
    )


def metric_terms(
    config: VAE_DLM_Config,
    E: TimeNetwork,
    metric: GramNetwork,
    flow_operator: GramNetwork | None,
    steady: Callable[[torch.Tensor], torch.Tensor],
    u: torch.Tensor,
    t: torch.Tensor,
    data: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor | int]]:
    r"""Points of the manifold, and the terms of the loss whose weights are not 0, unweighted.

    .. math::
        \overline{(g - J^\top J)^2}, \qquad
        \overline{(\partial_t g + \Lambda g + \alpha (g - \Sigma))^2}, \qquad
        \overline{\max(0, -\lambda(g - \Sigma))^2}

    Args:
        config: the weights, and :math:`\alpha`.
        E: the manifold map, of which :math:`J = \partial E / \partial u`.
        metric: g.
        flow_operator: :math:`\Lambda`; None only if ``flow_weight`` is 0.
        steady: :math:`\Sigma(u)`.
        u: chart points, ``[B, d]``.
        t: their times, ``[B, 1]``.
        data: of which they are codes, for the error, if they are known.

    Returns:
        :math:`E(u, t)`, ``[B, d + 1]``, and of ``metric_loss``, ``flow_loss`` and
        ``eigenvalue_loss`` those with a weight; with ``metric_loss`` also the smallest eigenvalue
        of :math:`J^\top J` in the batch, ``min_eigenvalue``, and ``num_degenerate``, the number
        of points where rounding decides its sign.

    Raises:
        ArithmeticError: if g or :math:`J^\top J` is not finite.
    """
    terms: dict[str, torch.Tensor | int] = {}
    g, dg = metric.time_derivative(u, t)
    _check_not_diverged(g, data)
    if config.metric_weight:
        z, J = E.chart_derivatives(u, t)
        induced = torch.einsum("ibm,jbm->bij", J, J)
        _check_not_diverged(induced, data)
        terms["metric_loss"] = (g - induced).square().mean()
        terms["min_eigenvalue"], terms["num_degenerate"] = rank(induced.detach())
    else:
        z = E(u, t)
    if config.flow_weight or config.eigenvalue_weight:
        Sigma = steady(u)
    if config.flow_weight:
        Lambda = cast(GramNetwork, flow_operator)
        residual = flow_residual(dg, g, Lambda(u, t), config.alpha, Sigma)
        terms["flow_loss"] = residual.square().mean()
    if config.eigenvalue_weight:
        terms["eigenvalue_loss"] = eigenvalue_penalty(g, Sigma).mean()
    return z, terms


def flow_residual(
    dg: torch.Tensor, g: torch.Tensor, Lambda: torch.Tensor, alpha: float, Sigma: torch.Tensor
) -> torch.Tensor:
    r""":math:`\partial_t g + \Lambda g + \alpha (g - \Sigma)`, zero along the flow.

    Args:
        dg: the time derivative of the metric, ``[B, d, d]``.
        g: the metric, ``[B, d, d]``.
        Lambda: the flow operator, ``[B, d, d]``.
        alpha: the rate.
        Sigma: the steady metric, ``[B, d, d]`` or ``[d, d]``.

    Returns:
        ``[B, d, d]``; not symmetric unless :math:`\Lambda` and g commute.
    """
    return dg + Lambda @ g + alpha * (g - Sigma)


def eigenvalue_penalty(g: torch.Tensor, Sigma: torch.Tensor) -> torch.Tensor:
    r""":math:`\max(0, -\lambda_i(g - \Sigma))^2`, zero where :math:`g \succeq \Sigma`: where the
    metric is at least as large as the steady one in every direction.

    Args:
        g: symmetric, ``[B, d, d]``.
        Sigma: symmetric, ``[B, d, d]`` or ``[d, d]``.

    Returns:
        ``[B, d]``, for the eigenvalues in ascending order.
    """
    return torch.relu(-torch.linalg.eigvalsh(g - Sigma)).square()


def rank(induced: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The smallest eigenvalue of metrics ``[B, d, d]``, and the number of those whose smallest
    eigenvalue is zero up to rounding."""
    eigenvalues = torch.linalg.eigvalsh(induced)
    low, high = eigenvalues[:, 0], eigenvalues[:, -1]
    resolution = induced.shape[-1] * torch.finfo(induced.dtype).eps
    return low.min(), int((low <= resolution * high).sum())


# Steady metrics


def sphere_metric(u: torch.Tensor, scale: float = 10.0) -> torch.Tensor:
    r"""The round metric of a sphere of radius :math:`\sqrt{s}` in its angles.

    .. math:: \Sigma(u) = s \operatorname{diag}(1, \sin^2 u_1, \sin^2 u_1 \sin^2 u_2, \dots)

    Args:
        u: angles, ``[B, d]``.
        scale: s > 0, the square of the radius.

    Returns:
        ``[B, d, d]``; degenerate where any angle except the last is a multiple of :math:`\pi`.
    """
    sines = u[:, :-1].sin().square().cumprod(1)
    return scale * torch.diag_embed(torch.cat([torch.ones_like(u[:, :1]), sines], dim=1))


def euclidean_metric(u: torch.Tensor, scale: float = 10.0) -> torch.Tensor:
    r"""The flat metric :math:`s I` at points ``[B, d]``: ``[B, d, d]``."""
    return scale * torch.diag_embed(torch.ones_like(u))


STEADY_METRICS = {"sphere": sphere_metric, "euclidean": euclidean_metric}


# Posterior and likelihood


def divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    r""":math:`\sum_i (\mu_i^2 + \sigma_i^2 - 1 - \log \sigma_i^2)`, twice the divergence of
    :math:`N(\mu, \sigma^2)` from N(0, I): from ``[B, d]`` to ``[B]``."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def draw(mean: torch.Tensor, log_variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""A draw :math:`u = \mu + \sigma \epsilon` from each posterior, and :math:`\epsilon`."""
    noise = torch.randn_like(mean)
    return mean + (0.5 * log_variance).exp() * noise, noise


def reconstruction_loss(
    config: VAE_DLM_Config, x: torch.Tensor, recon_x: torch.Tensor
) -> torch.Tensor:
    """The mean squared error or cross entropy of the numbers of states ``[B, *input_dim]``.

    Raises:
        ValueError: for the cross entropy, if the states are not in [0, 1].
    """
    if config.reconstruction_loss == "bce":
        return -_bernoulli(x, recon_x).mean() / x[0].numel()
    return F.mse_loss(recon_x, x)


def likelihood_variance(config: VAE_DLM_Config) -> float | None:
    r"""The variance :math:`\varsigma^2 = D w_k / w_r` of the Gaussian likelihood that the weights
    of the loss mean, with D the numbers of a state; None: the likelihood is Bernoulli.

    Raises:
        ValueError: if there is none, since :math:`w_k` is 0.
    """
    if config.reconstruction_loss == "bce":
        return None
    if config.kl_weight == 0:
        raise ValueError("With kl_weight = 0 the loss is no likelihood: set it above 0.")
    return math.prod(config.input_dim) * config.kl_weight / config.recon_weight


def log_weight(
    x: torch.Tensor,
    recon_x: torch.Tensor,
    variance: float | None,
    u: torch.Tensor,
    noise: torch.Tensor,
    log_variance: torch.Tensor,
) -> torch.Tensor:
    r"""The logarithm of :math:`p(x | u)\, N(u; 0, I) / q(u)` at a draw.

    Args:
        x, recon_x: ``[B, *input_dim]``.
        variance: :math:`\varsigma^2` of :math:`p(x | u) = N(x; \hat x, \varsigma^2 I)`; None: the
            likelihood is Bernoulli.
        u, noise: a draw from q and its :math:`\epsilon`, ``[B, d]``; see :func:`draw`.
        log_variance: of q, ``[B, d]``.

    Returns:
        ``[B]``.
    """
    if variance is None:
        log_likelihood = _bernoulli(x, recon_x)
    else:
        square = (x - recon_x).flatten(1).square()
        log_likelihood = -0.5 * (square / variance + math.log(2 * math.pi * variance)).sum(1)
    # The constants of prior and posterior cancel.
    return log_likelihood + 0.5 * (noise.square() + log_variance - u.square()).sum(1)


def _bernoulli(x: torch.Tensor, recon_x: torch.Tensor) -> torch.Tensor:
    return bernoulli_log_prob(x, recon_x, 'reconstruction_loss="mse"')


def _check_not_diverged(values: torch.Tensor, data: torch.Tensor | None) -> None:
    if not bool(torch.isfinite(values.detach()).all()):
        raise diverged("The loss", data)
