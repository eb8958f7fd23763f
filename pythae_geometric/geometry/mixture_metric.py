"""The metric whose uniform distribution is a given mixture of normal distributions."""

import math

import torch

from ._checks import check_count
from .centroid_metric import CentroidMetric, check_centroids, check_definite, check_tensors
from .metric import at_points, cholesky_factor
from .row_streams import RowStreams, Source, check_source, normal_like


class MixtureMetric(CentroidMetric):
    r"""The metric whose uniform distribution is a given mixture of normal distributions.

    .. math::
        G(z) = p(z)^{2/d}\, \frac{S(z)}{(\det S(z))^{1/d}}, \qquad
        p(z) = \sum_k \pi_k\, \mathcal{N}(z; c_k, \Sigma_k), \qquad
        S(z) = \sum_k r_k(z)\, \Sigma_k^{-1},

    with the shares :math:`r_k(z) = \pi_k \mathcal{N}(z; c_k, \Sigma_k) / p(z)` of the components.
    As in :class:`~pythae_geometric.geometry.PosteriorMetric` the shape of the metric interpolates
    precisions. Its volume element is the density of the mixture,

    .. math:: \sqrt{\det G(z)} = p(z),

    so the whole space has volume 1, and the uniform distribution can be drawn from directly
    (:meth:`sample`). (This metric is of this package, not of the paper.)

    The volume and its gradient are two matrix products in :math:`O(B (K + d^2))` memory: the log
    densities of the components are linear in the features :math:`(z z^\top, z, 1)`. No factor of
    ``G`` is taken.

    Args:
        weights: :math:`\pi_k > 0`, ``[K]``; divided by their sum.
        centroids: the means :math:`c_k`, ``[K, d]``, float32 or float64.
        covariances: :math:`\Sigma_k`, symmetric and positive definite, ``[K, d, d]``.

    Raises:
        TypeError: if the tensors are not float32 or float64, or differ in dtype.
        ValueError: if a shape, a range or the definiteness of a covariance is wrong.

    See also:
        :func:`~pythae_geometric.samplers.mixture_metric.fit_mixture_metric`, which fits this
        metric to latent codes.

    Example:
        >>> eye = torch.eye(2).expand(3, 2, 2)
        >>> metric = MixtureMetric(torch.ones(3), torch.randn(3, 2), eye)
        >>> z = metric.sample(500)
        >>> log_volume, grad = metric.log_volume_and_grad(z)
    """

    weights: torch.Tensor
    covariances: torch.Tensor

    def __init__(self, weights: torch.Tensor, centroids: torch.Tensor, covariances: torch.Tensor):
        _check(weights, centroids, covariances)
        super().__init__(
            weights=weights / weights.sum(), centroids=centroids, covariances=covariances
        )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """The metric tensor ``G(z)``, ``[B, d] -> [B, d, d]``."""
        log_volume, S = self._volume_and_shape(z)
        L = cholesky_factor(S)
        log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_scale = (2 * log_volume - log_det) / self.dim
        return log_scale.exp()[:, None, None] * S

    @at_points
    def log_volume(self, z: torch.Tensor) -> torch.Tensor:
        r"""Log volume element :math:`\log\sqrt{\det G(z)} = \log p(z)`, ``[B, d] -> [B]``."""
        return self._log_terms(z).logsumexp(-1).to(z.dtype)

    @at_points
    @torch.no_grad()
    def log_volume_and_grad(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Log volume ``[B]`` and its gradient in ``z``, ``[B, d]``, in closed form:
        :math:`\nabla \log p = \sum_k r_k \Sigma_k^{-1} (c_k - z)`."""
        terms = self._log_terms(z)
        log_volume = terms.logsumexp(-1, keepdim=True)
        r = terms.sub_(log_volume).to(z.dtype)
        # Arithmetic is many times slower on subnormal numbers, and these are far below rounding.
        r = r.clamp_(min=-80.0).exp_()
        packed, linear = (r @ self._precisions_and_linear).split([self._pairs, self.dim], -1)
        S = self._unpack(packed)
        y = z - self._origin
        return log_volume.squeeze(-1).to(z.dtype), linear - (S @ y.unsqueeze(-1)).squeeze(-1)

    @at_points
    def shares(self, z: torch.Tensor) -> torch.Tensor:
        """The shares :math:`r_k(z)` of the components in the density, ``[B, d] -> [B, K]``."""
        return self._log_terms(z).softmax(-1).to(z.dtype)

    @torch.no_grad()
    def sample(self, num_samples: int, generator: Source = None) -> torch.Tensor:
        """Independent draws from the uniform distribution of the metric.

        Args:
            num_samples: how many, 0 or more.
            generator: source of randomness, on the device of the metric: a generator of torch, or
                :class:`~pythae_geometric.geometry.RowStreams` for so many rows; None: torch's
                global one.

        Returns:
            ``[num_samples, d]``.

        Raises:
            TypeError: if ``generator`` is no source of random numbers.
            ValueError: if ``num_samples`` is out of range, or ``generator`` has streams for other
                rows.
        """
        num_samples = check_count("num_samples", num_samples, 0)
        check_source(generator, num_samples)
        c = self.centroids
        which = torch.zeros(0, dtype=torch.long, device=c.device)
        if isinstance(generator, RowStreams):
            at = generator.uniform()
            ends = self.weights.to(at).cumsum(0)
            which = torch.searchsorted(ends, at * ends[-1], right=True).clamp(max=len(c) - 1)
        elif num_samples > 0:
            which = torch.multinomial(self.weights, num_samples, True, generator=generator)
        noise = normal_like(c.new_empty(num_samples, self.dim, 1), generator)
        return c[which] + (self._factors[which] @ noise).squeeze(-1)

    def extra_repr(self) -> str:
        return f"{len(self.centroids)} components in dimension {self.dim}"

    def _volume_and_shape(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        terms = self._log_terms(z)
        log_volume = terms.logsumexp(-1, keepdim=True)
        r = (terms - log_volume).exp().to(z.dtype)
        S = self._unpack(r @ self._precisions_and_linear[:, : self._pairs])
        return log_volume.squeeze(-1).to(z.dtype), S

    def _log_terms(self, z: torch.Tensor) -> torch.Tensor:
        r"""``log (pi_k N(z; c_k, Sigma_k))``, ``[B, K]``, in the exact dtype."""
        self._check_points(z)
        return features((z - self._origin).to(self._coefficients.dtype)) @ self._coefficients

    @property
    def _pairs(self) -> int:
        return self.dim * (self.dim + 1) // 2

    def _unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """Symmetric matrices ``[B, d, d]`` from their lower triangles ``[B, d (d + 1) / 2]``."""
        i, j = torch.tril_indices(self.dim, self.dim)
        S = packed.new_empty(len(packed), self.dim, self.dim)
        S[:, i, j] = packed
        S[:, j, i] = packed
        return S

    def _prepare(self) -> None:
        c = self.centroids
        exact = torch.float32 if c.device.type == "mps" else torch.float64  # MPS has no float64
        # The origin is amid the centroids, so that little cancels wherever they lie.
        self._origin = c.mean(0)
        factors = torch.linalg.cholesky(self.covariances.to(exact))
        coefficients, precisions, linear = log_density_coefficients(
            self.weights.to(exact).log(), (c - self._origin).to(exact), factors
        )
        self._factors = factors.to(c.dtype)
        self._coefficients = coefficients
        self._precisions_and_linear = torch.cat([precisions, linear], -1).to(c.dtype)


def features(y: torch.Tensor) -> torch.Tensor:
    r"""``(y y^T, y, 1)``, of the first its lower triangle: ``[B, d (d + 1) / 2 + d + 1]``."""
    i, j = torch.tril_indices(y.shape[1], y.shape[1])
    return torch.cat([y[:, i] * y[:, j], y, torch.ones_like(y[:, :1])], -1)


def log_density_coefficients(
    log_weights: torch.Tensor, centroids: torch.Tensor, factors: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""The log densities of weighted normal distributions as linear functions of ``features``.

    Args:
        log_weights: ``[K]``.
        centroids: ``[K, d]``.
        factors: lower triangular ``L`` with :math:`L L^\top = \Sigma_k`, ``[K, d, d]``.

    Returns:
        the coefficients, ``[d (d + 1) / 2 + d + 1, K]``; the lower triangles of the precisions,
        ``[K, d (d + 1) / 2]``; and :math:`\Sigma_k^{-1} c_k`, ``[K, d]``.
    """
    d = centroids.shape[1]
    P = torch.cholesky_inverse(factors)
    i, j = torch.tril_indices(d, d)
    linear = (P @ centroids.unsqueeze(-1)).squeeze(-1)
    precisions = P[:, i, j]
    # An entry off the diagonal stands for two.
    quadratic = precisions * torch.where(i == j, -0.5, -1.0).to(P)
    log_det = 2 * factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    bias = log_weights - 0.5 * ((centroids * linear).sum(-1) + log_det + d * math.log(2 * math.pi))
    return (
        torch.cat([quadratic, linear, bias.unsqueeze(-1)], -1).mT.contiguous(),
        precisions,
        linear,
    )


def _check(weights: torch.Tensor, centroids: torch.Tensor, covariances: torch.Tensor) -> None:
    check_tensors(weights=weights, centroids=centroids, covariances=covariances)
    check_centroids(centroids)
    K, d = centroids.shape
    if weights.shape != (K,) or covariances.shape != (K, d, d):
        raise ValueError(
            f"To go with centroids of shape [{K}, {d}], weights must have shape [{K}] and "
            f"covariances [{K}, {d}, {d}], got {list(weights.shape)} and "
            f"{list(covariances.shape)}."
        )
    if not bool((weights > 0).all()):
        raise ValueError(f"weights must be positive, the smallest is {weights.min().item():.3g}.")
    check_definite("covariances", covariances)
