"""Coordinates in which a mixture has the scale 1."""

import torch

from ...geometry import MixtureMetric
from ...geometry.row_streams import Source


class LocalUnits:
    r"""Coordinates y with :math:`z = m + L y`, where :math:`L L^\top` is the mean covariance of the
    components of a mixture: steps of one size fit every direction. Hamiltonian Monte Carlo in them
    is the same as in z with the mass matrix :math:`(L L^\top)^{-1}`, so it leaves the same
    distribution invariant.
    """

    def __init__(self, metric: MixtureMetric):
        like = metric.centroids
        # On the CPU, since not every device has float64.
        weights, c, S = (tensor.cpu().double() for tensor in metric.state_dict().values())
        L = torch.linalg.cholesky(torch.einsum("k,kij->ij", weights, S))
        m = c.mean(0)
        c = torch.linalg.solve_triangular(L, (c - m).mT, upper=False).mT
        half = torch.linalg.solve_triangular(L, S, upper=False)
        S = torch.linalg.solve_triangular(L, half.mT, upper=False)
        S = (S + S.mT) / 2
        self._metric = MixtureMetric(*(t.to(like.dtype) for t in (weights, c, S))).to(like.device)
        self._origin, self._factor = m.to(like), L.to(like)

    def log_prob_and_grad(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log density ``[B]``, up to a constant, and its gradient in y, ``[B, d]``."""
        return self._metric.log_volume_and_grad(y)

    def draw(self, num_samples: int, generator: Source) -> torch.Tensor:
        """Independent draws ``[num_samples, d]`` from the mixture."""
        return self._metric.sample(num_samples, generator)

    def to_latent(self, y: torch.Tensor) -> torch.Tensor:
        """The latent points of ``y``, both ``[..., d]``."""
        return self._origin + y @ self._factor.mT
