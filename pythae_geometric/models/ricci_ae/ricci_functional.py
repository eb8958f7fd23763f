r"""The curvature losses of a surface with a potential on it, as training sees them."""

import torch
from torch import nn
from torch.func import functional_call

from ...geometry import (
    curvature_and_cholesky,
    curvature_estimates,
    gradient_norm_squared,
    normalize_potential,
    perelman_f,
    perelman_w,
    total_squared_curvature,
)
from ...geometry.derivatives import Immersion

# A term of the loss that has fallen below minus this is on its way to minus infinity.
RUNAWAY = 1e6


class RunawayFunctionalError(ArithmeticError):
    """A curvature functional has run away to minus infinity, or is not finite any more."""


class RicciFunctional(nn.Module):
    r"""One of three functionals of the metric that an immersion induces, at given points.

    .. math::
        \int R^2 d\mu, \qquad
        \mathcal{F} = \int (R + |\nabla f|^2)\, e^{-f} d\mu, \qquad
        \mathcal{W} = \int [\tau (|\nabla f|^2 + R) + f - n] (4\pi\tau)^{-n/2} e^{-f} d\mu

    The potential ``f`` is a network with one hidden layer, shifted by the constant that makes
    :math:`e^{-f} d\mu` (for :math:`\mathcal{W}`: :math:`(4\pi\tau)^{-n/2} e^{-f} d\mu`) a
    probability over the points.

    Args:
        name: ``"total_squared"``, ``"perelman_f"`` or ``"perelman_w"``.
        dim: latent dimension ``n``.
        tau: scale of :math:`\mathcal{W}`.
        num_tangents: of the estimates of the curvature
            (:func:`~pythae_geometric.geometry.curvature_estimates`); None: the exact one.

    References:
        Lazarev, 2023, equations 1 to 3; Perelman, 2002, arXiv:math/0211159, sections 1 and 3.
    """

    def __init__(self, name: str, dim: int, tau: float, num_tangents: int | None = None):
        super().__init__()
        self.name, self.dim, self.tau, self.num_tangents = name, dim, tau, num_tangents
        self.potential = None
        if name != "total_squared":
            self.potential = nn.Sequential(nn.Linear(dim, 64), nn.Tanh(), nn.Linear(64, 1))

    def forward(
        self,
        immersion: Immersion,
        z: torch.Tensor,
        log_weights: torch.Tensor,
        ascent: bool = False,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        r"""Value, curvatures and the Cholesky factors of the metric.

        Args:
            immersion: map ``[B, d] -> [B, D]``.
            z: points, ``[B, d]``.
            log_weights: of the points; see :func:`~pythae_geometric.geometry.perelman_f`.
            ascent: whether the immersion climbs. The potential descends all the same, as in
                Perelman's :math:`\lambda(g) = \inf_f \mathcal{F}(g, f)`: its gradient is reversed.
            generator: of the estimates; None: torch's global one.

        Returns:
            The value (a scalar), ``R`` ``[B]`` and ``L`` ``[B, d, d]``.
        """
        estimates = None
        if self.num_tangents is None:
            R, L = curvature_and_cholesky(immersion, z)
        else:
            estimates, L = curvature_estimates(immersion, z, self.num_tangents, 2, generator)
            R = estimates.mean(0)
        log_volume = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        if self.potential is None:
            if estimates is not None:  # the square of a mean would be too large
                value = (estimates.prod(0) * (log_volume + log_weights).exp()).sum()
            else:
                value = total_squared_curvature(R, log_volume, log_weights)
            return value, R, L
        potential = self.potential
        if torch.is_grad_enabled():
            potential = WithCheckedGradients(potential, -1.0 if ascent else 1.0)
        f = potential(z).squeeze(-1)
        grad_f_sq = gradient_norm_squared(potential, z, L)
        if self.name == "perelman_f":
            f = normalize_potential(f, log_volume, log_weights=log_weights)
            return perelman_f(R, grad_f_sq, f, log_volume, log_weights), R, L
        tau, n = self.tau, self.dim
        f = normalize_potential(f, log_volume, tau, n, log_weights)
        return perelman_w(R, grad_f_sq, f, log_volume, tau, n, log_weights), R, L

    def zero(self) -> torch.Tensor:
        """The number 0, as a function of the potential's parameters."""
        parameters = [] if self.potential is None else self.potential.parameters()
        return 0.0 * sum((p.sum() for p in parameters), torch.zeros(()))


class WithCheckedGradients(nn.Module):
    """A network in which the gradients of the parameters are checked, and multiplied by a factor.

    It is made for one step of training, and keeps the parameters of that moment.

    Raises (in the backward pass, before any optimiser step):
        RunawayFunctionalError: a gradient is not finite.
    """

    def __init__(self, network: nn.Module, scale: float = 1.0):
        super().__init__()
        self.network = network
        names, parameters = zip(*network.named_parameters(), strict=True)
        self._checked = dict(zip(names, _Checked.apply(scale, *parameters), strict=True))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return functional_call(self.network, self._checked, (z,))


class _Checked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scale, *parameters):
        ctx.scale = scale
        return tuple(p.view_as(p) for p in parameters)

    @staticmethod
    def backward(ctx, *gradients):
        # A sum of absolute values is finite where all of them are, but for an overflow that would
        # be no gradient to step along either.
        if not all(bool(torch.isfinite(g.abs().sum())) for g in gradients if g is not None):
            raise RunawayFunctionalError(
                "The gradient of the curvature functional is not finite, so training stopped "
                "before it reached the weights: the surface has a spike. Lower "
                "curvature_weight or the learning rate, or raise regularization."
            )
        return None, *(None if g is None else ctx.scale * g for g in gradients)


def check_runaway(term: torch.Tensor, name: str) -> None:
    """Raise unless a weighted functional is finite and above minus one million.

    Raises:
        RunawayFunctionalError: it is not.
    """
    value = float(term.detach())
    if not -RUNAWAY < value < float("inf"):
        advice = (
            "lower curvature_weight or the learning rate, or raise regularization."
            if name == "total_squared"
            else "it is unbounded on this side: lower the size of curvature_weight, change its "
            'sign, or take points="encoded", where the data hold the surface.'
        )
        raise RunawayFunctionalError(
            f"curvature_weight times {name} has become {value:.3g}, so training stopped before NaN "
            f"reached the weights: {advice}"
        )
