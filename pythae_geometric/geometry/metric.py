"""The vocabulary that every Riemannian metric of this package shares."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import nn

from ._checks import check_points, check_vectors
from ._formulas import Pure
from ._guard import guard, is_plain
from .derivatives import directional_derivative, jacobian

Method = TypeVar("Method", bound=Callable)


def at_points(method: Method) -> Method:
    """A method of a metric at points ``z``, and of vectors there, with all of them checked, and
    evaluated under the guard of this package."""

    @functools.wraps(method)
    def guarded(self, z, *vectors, **named):
        z = check_points(z)
        vectors = [check_vectors(z, v) for v in vectors]
        named = {name: check_vectors(z, v, f"The vectors {name}") for name, v in named.items()}
        if self.is_closed_form and is_plain(z):
            return method(self, z, *vectors, **named)
        with guard(self, z):
            return method(self, z, *vectors, **named)

    return cast(Method, guarded)


class DegenerateMetricError(ValueError):
    """The metric tensor is not positive definite at some point."""


class Metric(nn.Module):
    r"""A Riemannian metric on :math:`\mathbb{R}^d`, evaluated at whole batches of points.

    A metric is a module whose ``forward`` maps points ``z`` of shape ``[B, d]`` to tensors ``G(z)``
    of shape ``[B, d, d]``, symmetric and positive definite. Everything else here follows from it;
    a subclass overrides what it knows in closed form. A metric is evaluated in evaluation mode, as
    it is differentiated, whatever its mode is.

    Example:
        >>> class Hyperbolic(Metric):  # the upper half plane, (dx² + dy²) / y²
        ...     def forward(self, z):
        ...         return torch.diag_embed(z[:, 1:].expand(-1, 2) ** -2)
        >>> Hyperbolic().log_volume(torch.tensor([[0.0, 2.0]]))  # -log y²
        tensor([-1.3863])
    """

    # Whether it is made of formulas alone: then steps of chains need not be guarded.
    is_closed_form = False

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """The metric tensor ``G(z)``, ``[B, d] -> [B, d, d]``."""
        raise NotImplementedError

    @at_points
    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        with Pure():
            G = super().__call__(z)
        if not isinstance(G, torch.Tensor) or G.shape != (*z.shape, z.shape[1]):
            got = list(G.shape) if isinstance(G, torch.Tensor) else f"a {type(G).__name__}"
            raise ValueError(
                f"The metric must return tensors {[*z.shape, z.shape[1]]} at {len(z)} points, "
                f"but returned {got}."
            )
        return G

    @at_points
    def inner(self, z: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        r"""Inner product :math:`u^\top G(z) v` of tangent vectors ``[B, d]`` at ``z``: ``[B]``."""
        return torch.einsum("bi,bij,bj->b", u, self(z), v)

    @at_points
    def norm(self, z: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        r"""Norm :math:`\sqrt{u^\top G(z) u}` of tangent vectors ``[B, d]`` at ``z``: ``[B]``."""
        return self.inner(z, u, u).clamp(min=0).sqrt()

    @at_points
    def cholesky(self, z: torch.Tensor) -> torch.Tensor:
        r"""Lower triangular ``L`` with :math:`L L^\top = G(z)`, ``[B, d, d]``.

        Raises:
            DegenerateMetricError: where ``G(z)`` is not positive definite.
        """
        return cholesky_factor(self(z))

    @at_points
    def log_volume(self, z: torch.Tensor) -> torch.Tensor:
        r"""Log volume element :math:`\log\sqrt{\det G(z)}`, ``[B, d] -> [B]``."""
        return self.cholesky(z).diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @at_points
    def log_volume_and_grad(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log volume ``[B]`` and its gradient in ``z``, ``[B, d]``, both detached."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_volume = self.log_volume(z)
            if not log_volume.requires_grad:  # it is constant, as that of a linear map
                return log_volume, torch.zeros_like(z).detach()
            (grad,) = torch.autograd.grad(log_volume.sum(), z, materialize_grads=True)
        return log_volume.detach(), grad

    @at_points
    def inverse_sqrt(self, z: torch.Tensor) -> torch.Tensor:
        r"""The symmetric positive definite :math:`G(z)^{-1/2}`, ``[B, d, d]``.

        Raises:
            DegenerateMetricError: where ``G(z)`` is not positive definite.
        """
        eigenvalues, eigenvectors = torch.linalg.eigh(self(z))
        if not bool((eigenvalues > 0).all()):
            raise DegenerateMetricError(_degenerate_message(eigenvalues[:, 0]))
        return eigenvectors * eigenvalues.rsqrt().unsqueeze(-2) @ eigenvectors.mT

    @at_points
    def christoffel(self, z: torch.Tensor) -> torch.Tensor:
        r"""Christoffel symbols ``[b, i, j, k]`` :math:`= \Gamma^i_{jk}(z_b)`, ``[B, d, d, d]``.

        .. math:: \Gamma^i_{jk} = \tfrac12 g^{il}
                  (\partial_j g_{lk} + \partial_k g_{lj} - \partial_l g_{jk})

        Raises:
            DegenerateMetricError: where ``G(z)`` is not positive definite.

        References:
            M. P. do Carmo, Riemannian Geometry, Birkhäuser 1992, chapter 2.

        Example:
            >>> class Hyperbolic(Metric):  # the upper half plane, (dx² + dy²) / y²
            ...     def forward(self, z):
            ...         return torch.diag_embed(z[:, 1:].expand(-1, 2) ** -2)
            >>> Hyperbolic().christoffel(torch.tensor([[0.0, 2.0]]))[0, 1]  # Γ^y: diag(1, -1) / y
            tensor([[ 0.5000,  0.0000],
                    [ 0.0000, -0.5000]])
        """
        dG = jacobian(self, z)  # [b, l, j, k] = ∂_k g_lj
        lowered = 0.5 * (dG.transpose(2, 3) + dG - dG.permute(0, 3, 1, 2))
        return torch.cholesky_solve(lowered.flatten(2), self.cholesky(z)).view_as(dG)

    @at_points
    def geodesic_acceleration(self, z: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        r"""Acceleration :math:`-\Gamma^i_{jk} v^j v^k` at velocity ``v``, ``[B, d]``.

        Raises:
            DegenerateMetricError: where ``G(z)`` is not positive definite.
        """
        # One forward and one reverse product: Γ_l(v, v) = (∂_v G v)_l - ½ ∂_l (vᵀ G v).
        dG_v = directional_derivative(self, z, v)[1]
        vjp: Any = torch.func.vjp  # by torch's own annotation it may return three values
        speed, pull = vjp(lambda y: self.inner(y, v, v), z)
        (gradient,) = pull(torch.ones_like(speed))
        lowered = (dG_v @ v.unsqueeze(-1)).squeeze(-1) - 0.5 * gradient
        return -torch.cholesky_solve(lowered.unsqueeze(-1), self.cholesky(z)).squeeze(-1)

    @at_points
    def brownian_drift(self, z: torch.Tensor) -> torch.Tensor:
        r"""Drift :math:`-\tfrac12 g^{jk} \Gamma^i_{jk}` of Brownian motion, ``[B, d]``.

        In coordinates, Brownian motion of the metric solves
        :math:`dz^i = -\tfrac12 g^{jk} \Gamma^i_{jk} dt + (g^{-1/2} dW)^i` in the sense of Itô.

        Raises:
            DegenerateMetricError: where ``G(z)`` is not positive definite.

        References:
            E. P. Hsu, Stochastic Analysis on Manifolds, AMS 2002, section 3.3.
        """
        inverse = torch.cholesky_inverse(self.cholesky(z))
        return -0.5 * torch.einsum("bjk,bijk->bi", inverse, self.christoffel(z))

    @at_points
    def cholesky_and_drift(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a step of Brownian motion needs: :meth:`cholesky` and :meth:`brownian_drift`."""
        return self.cholesky(z), self.brownian_drift(z)


def cholesky_factor(G: torch.Tensor) -> torch.Tensor:
    r"""Lower triangular ``L`` with :math:`L L^\top = G` of tensors ``[B, d, d]``.

    Raises:
        DegenerateMetricError: where ``G`` is not positive definite.
    """
    L, info = torch.linalg.cholesky_ex(G)
    if bool((info > 0).any()) or not bool(torch.isfinite(L.diagonal(dim1=-2, dim2=-1)).all()):
        smallest = torch.linalg.eigvalsh(torch.nan_to_num(G.detach(), posinf=0.0, neginf=0.0))
        raise DegenerateMetricError(_degenerate_message(smallest[:, 0]))
    return L


def skewness(L: torch.Tensor) -> torch.Tensor:
    """The condition number, in the Frobenius norm, that Cholesky factors ``[B, d, d]`` have in
    coordinates of length 1: ``[B]``, at least d, without a gradient."""
    L = L.detach()
    scaled = L / L.norm(dim=-1, keepdim=True)
    eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    inverse = torch.linalg.solve_triangular(scaled, eye, upper=False)
    return scaled.norm(dim=(-2, -1)) * inverse.norm(dim=(-2, -1))


def _degenerate_message(smallest_eigenvalues: torch.Tensor) -> str:
    return (
        f"The metric tensor is not positive definite at some of the {len(smallest_eigenvalues)} "
        f"points (smallest eigenvalue {smallest_eigenvalues.min().item():.3g}): the map that "
        "defines it has collapsed a direction there or is not finite. Move the points, or add a "
        "regularisation to the metric."
    )
