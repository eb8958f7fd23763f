r"""The sampling algorithm of Chadebec and Allassonnière as they published it, with its faults.

This is what ``MetricUniformHMCSampler`` is compared with. It does, in code of our own, what the
public code of *A Geometric Perspective on Variational Autoencoders* (NeurIPS 2022,
https://arxiv.org/abs/2209.07370) does. Do not use it to sample: use
:func:`pythae_geometric.geometry.hmc` with :class:`~pythae_geometric.geometry.PosteriorMetric`.

The metric has centroids :math:`c_k` with posterior variances :math:`\sigma_k^2`,

.. math::
    G(z) = \sum_k P_k\, w_k(z) + \lambda I, \qquad
    w_k(z) = e^{-(z - c_k)^\top P_k (z - c_k) / T^2}, \qquad
    P_k = \operatorname{diag}(1 / \sigma_k^2)

and the chains are meant to sample the density :math:`\pi \propto \sqrt{\det G}`. In the source the
centroids are 100 medoids of the posterior means, :math:`T = \max_i \min_{j \ne i} |c_i - c_j|` and
:math:`\lambda = 0.01` (MNIST).

The faults, all of them kept here:

- The determinant is capped at 1e10: around narrow posteriors the density is constant.
- The gradient is not that of :math:`\log \pi`. The factor 1/2 of the square root is missing,
  :math:`\lambda` is counted once for each centroid, and the cap is not noticed. The Metropolis test
  repairs this, at the price of rejected moves.
- Momenta are drawn with standard deviation 1/2, but the energy of a momentum :math:`\rho` is
  :math:`|\rho|^2 / 2`, as if it were 1. The Metropolis test does not repair this: the chain does
  not leave :math:`\pi` invariant.
- The acceptance probability is :math:`e^{-H} / e^{-H_0}`. Both can underflow or overflow, and then
  the ratio is NaN and the move is rejected.
- Chains start at the means of random training points, almost all of which are far from every
  centroid, where the metric is flat: what comes out is mostly that mean plus isotropic noise. The
  density is not proper either.
- Everything is computed from tensors ``[B, K, d, d]``, though only their diagonals differ from 0,
  and each gradient but the first and last twice.
"""

from typing import NamedTuple

import torch

LARGEST_DETERMINANT = 1e10
MOMENTUM_SCALE = 0.5


class PublishedMetric(NamedTuple):
    """``centroids`` ``[K, d]``, their ``precisions`` ``[K, d]``, temperature T, and lambda."""

    centroids: torch.Tensor
    precisions: torch.Tensor
    temperature: float
    regularization: float

    def weights(self, z):
        """The weights of the centroids, ``[B, d] -> [B, K]``."""
        difference = z[:, None] - self.centroids
        squares = difference[..., None, :] @ self.precisions.diag_embed() @ difference[..., None]
        return torch.exp(-squares[..., 0, 0] / self.temperature**2)

    def tensor(self, z):
        """The metric tensor G, ``[B, d] -> [B, d, d]``."""
        terms = self.precisions.diag_embed() * self.weights(z)[..., None, None]
        identity = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        return terms.sum(1) + self.regularization * identity

    def log_density(self, z):
        """Half the logarithm of the capped determinant of G, ``[B, d] -> [B]``."""
        return 0.5 * torch.linalg.det(self.tensor(z)).clamp(0, LARGEST_DETERMINANT).log()

    def gradient(self, z):
        """What is used as the gradient of the log density, ``[B, d] -> [B, d]``; see the module for
        what is wrong with it."""
        w = self.weights(z)[..., None]
        dw = -2 * self.precisions * (z[:, None] - self.centroids) / self.temperature**2 * w
        numerator = (self.precisions[..., None] * dw[..., None, :]).sum(1)
        denominator = (self.precisions * w + self.regularization).sum(1)
        return (numerator / denominator[..., None]).sum(1)


class PublishedMetricByProducts(PublishedMetric):
    """The same values from a few matrix products, as precisions are diagonal: for tables of many
    samples. :class:`PublishedMetric` does what the public code does, and is what is timed."""

    def weights(self, z):
        c, P = self.centroids, self.precisions
        squares = z.square() @ P.T - 2 * z @ (P * c).T + (P * c.square()).sum(-1)
        return torch.exp(-squares.clamp(min=0) / self.temperature**2)

    def log_density(self, z):
        # A product, not a sum of logarithms: it leaves the range of float32 where theirs does.
        determinant = (self.weights(z) @ self.precisions + self.regularization).prod(-1)
        return 0.5 * determinant.clamp(0, LARGEST_DETERMINANT).log()

    def gradient(self, z):
        c, P = self.centroids, self.precisions
        w = self.weights(z)
        denominator = w @ P + len(c) * self.regularization
        w = w * ((1 / denominator) @ P.T)
        return -2 / self.temperature**2 * (z * (w @ P) - w @ (P * c))


def published_metric(centroids, log_variances, temperature, regularization=0.01):
    """The metric of ``centroids`` ``[K, d]`` whose posteriors have ``log_variances`` ``[K, d]``."""
    return PublishedMetric(centroids, torch.exp(-log_variances), temperature, regularization)


@torch.no_grad()
def published_samples(
    metric,
    means,
    num_samples,
    steps=100,
    leapfrog_steps=10,
    step_size=0.01,
    batch_size=500,
    generator=None,
):
    """Run a chain for each sample, ``batch_size`` at a time, from random ``means`` ``[N, d]`` of
    the posteriors of all training points: the last states ``[num_samples, d]``, and the share of
    all moves that were accepted."""
    like = {"dtype": means.dtype, "device": means.device, "generator": generator}
    samples, accepted = [], 0
    for first in range(0, num_samples, batch_size):
        count = min(batch_size, num_samples - first)
        start = torch.randint(len(means), (count,), device=means.device, generator=generator)
        z = means[start]
        for _ in range(steps):
            momentum = MOMENTUM_SCALE * torch.randn(z.shape, **like)
            energy = -metric.log_density(z) + momentum.square().sum(-1) / 2
            proposal = z
            for _ in range(leapfrog_steps):
                momentum = momentum + step_size / 2 * metric.gradient(proposal)
                proposal = proposal + step_size * momentum
                momentum = momentum + step_size / 2 * metric.gradient(proposal)
            new_energy = -metric.log_density(proposal) + momentum.square().sum(-1) / 2
            ratio = torch.exp(-new_energy) / torch.exp(-energy)
            moves = torch.rand(count, **like) < ratio  # false where the ratio is NaN
            z = torch.where(moves[:, None], proposal, z)
            accepted += int(moves.sum())
        samples.append(z)
    return torch.cat(samples), accepted / (num_samples * steps)
