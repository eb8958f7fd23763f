r"""Linear flows of a Riemannian metric towards a steady one (Gracyk 2024).

.. math:: \partial_t g = -\Lambda g - \alpha (g - \Sigma)

with :math:`\Lambda = B^\top B` symmetric and positive semidefinite, a rate :math:`\alpha \ge 0` and
a steady metric :math:`\Sigma`. Where :math:`\Lambda` does not depend on time it is the gradient
flow, in the Frobenius product, of :func:`flow_functional`. Where it commutes with g and
:math:`\Sigma` too,

.. math:: g(t) = \Sigma_\infty + e^{-(\Lambda + \alpha I) t} (g_0 - \Sigma_\infty), \qquad
          \Sigma_\infty = \alpha (\Lambda + \alpha I)^{-1} \Sigma

stays symmetric and positive definite; with :math:`\Lambda = 0` it decays to :math:`\Sigma` at rate
:math:`\alpha`. For another :math:`\Lambda` the product :math:`\Lambda g` is not symmetric, and the
flow of matrices leaves the metrics. A metric cannot follow it: of its residual, the antisymmetric
part is :math:`\tfrac12 [\Lambda, g]` whatever :math:`\partial_t g`, so that a small residual means
a flow operator that commutes with the metric, and the symmetrised flow.
"""

import torch


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

    References:
        A. Gracyk, Variational autoencoders with latent high-dimensional steady geometric flows for
        dynamics, 2024: the flow, and the second term of the loss.
    """
    return dg + Lambda @ g + alpha * (g - Sigma)


def flow_functional(
    g: torch.Tensor, Lambda: torch.Tensor, alpha: float, Sigma: torch.Tensor
) -> torch.Tensor:
    r"""The functional that falls along the flow, at each point.

    .. math:: \mathcal{F}(g) = \tfrac12 \langle (\Lambda + \alpha I) g, g \rangle_F
              - \alpha \langle \Sigma, g \rangle_F

    Its gradient is the right side of the flow with the sign turned, so that
    :math:`d\mathcal{F}/dt = -|\partial_t g|_F^2` for a symmetric :math:`\Lambda` without time.

    Args:
        g, Lambda, alpha, Sigma: as in :func:`flow_residual`.

    Returns:
        ``[B]``; its mean over points is the integral of the paper.

    References:
        Gracyk 2024, theorem 1.
    """
    quadratic = ((Lambda @ g + alpha * g) * g).sum((-2, -1))
    return 0.5 * quadratic - alpha * (Sigma * g).sum((-2, -1))


def eigenvalue_penalty(g: torch.Tensor, Sigma: torch.Tensor) -> torch.Tensor:
    r""":math:`\max(0, -\lambda_i(g - \Sigma))^2`, zero where :math:`g \succeq \Sigma`: the metric
    is at least as large as the steady one in every direction.

    Args:
        g: symmetric, ``[B, d, d]``.
        Sigma: symmetric, ``[B, d, d]`` or ``[d, d]``.

    Returns:
        ``[B, d]``, for the eigenvalues in ascending order.
    """
    return torch.relu(-torch.linalg.eigvalsh(g - Sigma)).square()


def sphere_metric(u: torch.Tensor, scale: float = 10.0) -> torch.Tensor:
    r"""The round metric of a sphere of radius :math:`\sqrt{s}` in its angles.

    .. math:: \Sigma(u) = s \operatorname{diag}(1, \sin^2 u_1, \sin^2 u_1 \sin^2 u_2, \dots)

    Args:
        u: angles, ``[B, d]``.
        scale: s > 0, the square of the radius.

    Returns:
        ``[B, d, d]``; degenerate where an angle but the last is a multiple of :math:`\pi`.
    """
    sines = u[:, :-1].sin().square().cumprod(1)
    return scale * torch.diag_embed(torch.cat([torch.ones_like(u[:, :1]), sines], dim=1))


def euclidean_metric(u: torch.Tensor, scale: float = 10.0) -> torch.Tensor:
    r"""The flat metric :math:`s I` at points ``[B, d]``: ``[B, d, d]``."""
    return scale * torch.diag_embed(torch.ones_like(u))
