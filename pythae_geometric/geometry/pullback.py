"""Metrics that a map into a Euclidean space induces on its domain."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from ._checks import value_of
from ._formulas import Pure
from ._guard import owner_of
from .derivatives import (
    Immersion,
    directional_derivative,
    jacobian,
    second_derivatives,
    second_directional_derivative,
)
from .forward_laplacian import sum_of_second_derivatives
from .metric import DegenerateMetricError, Metric, at_points

Map = TypeVar("Map", bound=Callable)


class PullbackMetric(Metric):
    r"""The pullback :math:`G(z) = J(z)^\top J(z)` of the Euclidean metric by an immersion.

    Distances and volumes in the latent space are those of the image :math:`f(z)`. Everything
    but ``forward`` works on the QR decomposition of ``J`` and not on ``G``, whose condition
    number is the square of that of ``J``: in float32 the Cholesky factor of ``G`` is lost when
    ``J`` stretches one direction 3,000 times more than another, the triangular factor of ``J``
    is not.

    Args:
        immersion: map ``[B, d] -> [B, *out]``: a module, such as a decoder of pythae, a bound
            method of one, or a pure function. A module becomes a submodule of the metric, and is
            differentiated in evaluation mode.

    References:
        G. Arvanitidis, L. K. Hansen, S. Hauberg, Latent space oddity: on the curvature of deep
        generative models, ICLR 2018, equation 3.

    Example:
        >>> polar = lambda z: z[:, :1] * torch.cat([z[:, 1:].cos(), z[:, 1:].sin()], 1)
        >>> PullbackMetric(polar)(torch.tensor([[2.0, 0.0]]))  # dr² + r² dθ²
        tensor([[[1., 0.],
                 [0., 4.]]])
    """

    def __init__(self, immersion: Immersion):
        super().__init__()
        if not callable(immersion):
            raise TypeError(
                "The immersion must be a module or a function [B, d] -> [B, ...], "
                f"got a {type(immersion).__name__}."
            )
        self.immersion = as_map(immersion)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        J = self.jacobian(z)
        return J.mT @ J

    @at_points
    def jacobian(self, z: torch.Tensor) -> torch.Tensor:
        """The Jacobian of the flattened immersion, ``[B, D, d]``."""
        return jacobian(self.immersion, z).flatten(1, -2)

    @at_points
    def image(self, z: torch.Tensor) -> torch.Tensor:
        """The points ``f(z)``, flattened: ``[B, d] -> [B, D]``."""
        with Pure():
            return value_of(self.immersion(z), len(z)).reshape(len(z), -1)

    @at_points
    def inner(self, z: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        r"""Inner product :math:`\langle J u, J v \rangle`: two forward products, never ``G``."""
        Ju, Jv = (directional_derivative(self.immersion, z, w)[1].flatten(1) for w in (u, v))
        return (Ju * Jv).sum(-1)

    @at_points
    def norm(self, z: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        r"""Norm :math:`|J u|` of tangent vectors ``[B, d]`` at ``z``: ``[B]``."""
        return directional_derivative(self.immersion, z, u)[1].flatten(1).norm(dim=-1)

    @at_points
    def cholesky(self, z: torch.Tensor) -> torch.Tensor:
        r"""Lower triangular ``L`` with :math:`L L^\top = G(z)`, from the QR decomposition of J."""
        return orthonormal_frame(self.jacobian(z))[1].mT

    @at_points
    def inverse_sqrt(self, z: torch.Tensor) -> torch.Tensor:
        r"""The symmetric positive definite :math:`G(z)^{-1/2}`, from the singular values of J."""
        _, S, Vh = torch.linalg.svd(orthonormal_frame(self.jacobian(z))[1])
        return Vh.mT / S.unsqueeze(-2) @ Vh

    @at_points
    def christoffel(self, z: torch.Tensor) -> torch.Tensor:
        r""":math:`\Gamma^i_{jk} = g^{il} \langle J_l, H_{jk} \rangle`: no derivative of G."""
        J, H = second_derivatives(self.immersion, z)
        gamma = self._tangential(J.flatten(1, -2), H.flatten(1, -2))
        d = z.shape[1]
        i, j = torch.triu_indices(d, d, device=z.device)
        order = torch.empty(d, d, dtype=torch.long, device=z.device)
        order[i, j] = order[j, i] = torch.arange(len(i), device=z.device)
        return gamma[..., order]

    @at_points
    def geodesic_acceleration(self, z: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        r""":math:`-J^+ d^2f(v, v)`: one second directional derivative, never the full symbol."""
        J = self.jacobian(z)
        d2f = second_directional_derivative(self.immersion, z, v)[2].flatten(1)
        return -self._tangential(J, d2f.unsqueeze(-1)).squeeze(-1)

    @at_points
    def brownian_drift(self, z: torch.Tensor) -> torch.Tensor:
        r""":math:`-\tfrac12 J^+ \sum_a d^2f(e_a, e_a)` over an orthonormal frame :math:`e_a`."""
        return self.cholesky_and_drift(z)[1]

    @at_points
    def cholesky_and_drift(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """:meth:`cholesky` and :meth:`brownian_drift`, by one Jacobian."""
        Q, R = orthonormal_frame(self.jacobian(z))
        eye = torch.eye(R.shape[-1], dtype=R.dtype, device=R.device)
        frame = torch.linalg.solve_triangular(R, eye, upper=True)
        laplacian = sum_of_second_derivatives(self.immersion, z, frame.movedim(-1, 0))
        tangential = Q.mT @ laplacian.flatten(1).unsqueeze(-1)
        return R.mT, -0.5 * (frame @ tangential).squeeze(-1)

    @staticmethod
    def _tangential(J: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Coordinates ``J⁺ w`` of the tangential part of ambient vectors ``w`` ``[B, D, m]``."""
        Q, R = orthonormal_frame(J)
        return torch.linalg.solve_triangular(R, Q.mT @ w, upper=True)


class StochasticPullbackMetric(PullbackMetric):
    r"""The pullback :math:`G = J_\mu^\top J_\mu + J_\sigma^\top J_\sigma` of a random decoder.

    It is the pullback by the map :math:`z \mapsto (\mu(z), \sigma(z))` of a decoder with Gaussian
    output, and the expectation of the pullback by a sample of it.

    Args:
        immersion: map from ``[B, d]`` to a tuple of tensors, each ``[B, *out]``, such as the mean
            and the standard deviation; differentiated in evaluation mode.

    References:
        Arvanitidis et al., Latent space oddity, ICLR 2018, equation 6.

    Example:
        >>> metric = StochasticPullbackMetric(lambda z: (z, 2 * z))
        >>> metric(torch.zeros(1, 1))
        tensor([[[5.]]])
    """

    def __init__(self, immersion: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]):
        maps: Any = immersion  # not one tensor, as of every other immersion
        super().__init__(maps)
        self.immersion = Concatenation(as_map(maps))


class Concatenation(nn.Module):
    """The map ``[B, d] -> [B, D]`` that flattens and joins the tensors that a map returns."""

    def __init__(self, maps: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]):
        super().__init__()
        self.maps = maps

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        parts = self.maps(z)
        if not isinstance(parts, tuple | list):
            raise TypeError(
                "The immersion of a StochasticPullbackMetric must return a tuple of tensors such "
                f"as (mu, sigma), but returned a {type(parts).__name__}; for one tensor use "
                "PullbackMetric."
            )
        return torch.cat([part.flatten(1) for part in parts], dim=1)


class BoundMethod(nn.Module):
    """A method of a module as a module, so that the module can be moved, trained and found."""

    def __init__(self, method: Any):
        super().__init__()
        self.owner, self.name = method.__self__, method.__name__

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return getattr(self.owner, self.name)(z)


def as_map(f: Map) -> Map | BoundMethod:
    """A map as it is; a bound method of a module as a module."""
    return f if isinstance(f, nn.Module) or owner_of(f) is None else BoundMethod(f)


def as_metric(immersion_or_metric: Immersion | Metric) -> Metric:
    """A metric as it is; of a map, the pullback of the Euclidean metric by it."""
    if isinstance(immersion_or_metric, Metric):
        return immersion_or_metric
    return PullbackMetric(immersion_or_metric)


def orthonormal_frame(J: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""QR decomposition :math:`J = QR` of Jacobians ``[B, D, d]`` with a positive diagonal of R.

    The columns of ``Q`` are an orthonormal frame of the image of ``J``, those of :math:`R^{-1}`
    the same frame in latent coordinates, and :math:`R^\top` is the Cholesky factor of the metric.

    Returns:
        ``Q`` ``[B, D, d]`` and ``R`` ``[B, d, d]``, upper triangular.

    Raises:
        DegenerateMetricError: where ``J`` is not finite or its columns are linearly dependent.
    """
    Q, R = torch.linalg.qr(J)
    sign = _signs(J, R)
    return Q * sign.unsqueeze(-2), R * sign.unsqueeze(-1)


def triangular_factor(J: torch.Tensor) -> torch.Tensor:
    """R alone of :func:`orthonormal_frame`, without a gradient, and faster: Q is not formed.

    Raises:
        DegenerateMetricError: likewise.
    """
    R = torch.linalg.qr(J.detach(), mode="r").R
    return R * _signs(J, R).unsqueeze(-1)


def _signs(J, R):
    """The signs of the diagonal of R, none of which may be 0."""
    if J.shape[-2] < J.shape[-1]:
        raise DegenerateMetricError(
            f"A map from {J.shape[-1]} to {J.shape[-2]} dimensions is no immersion: its pullback "
            "metric is degenerate everywhere. The output needs at least the dimension of z."
        )
    diagonal = R.diagonal(dim1=-2, dim2=-1)
    # |R_ii| is the part of column i that the columns before it do not span. Relative to the
    # column's own norm it does not change with the units of the latent coordinates.
    independent = diagonal.abs() > 64 * torch.finfo(J.dtype).eps * R.norm(dim=-2)
    if not bool(independent.all()):
        bad = (~independent).any(-1)
        raise DegenerateMetricError(
            f"The Jacobian has no full rank at {int(bad.sum())} of the {len(J)} points, the first "
            f"at index {int(bad.int().argmax())}: the map has collapsed a latent direction there, "
            "or is not finite. Use fewer latent dimensions, move the points, or train longer."
        )
    return diagonal.sign()
