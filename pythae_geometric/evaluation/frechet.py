"""Fréchet distance between Gaussians fitted to two clouds of features."""

import torch

from ._checks import as_clouds


def frechet_distance(features_a: object, features_b: object) -> float:
    r"""Squared Fréchet (2-Wasserstein) distance between Gaussians fitted to two clouds.

    .. math::
        |m_a - m_b|^2 + \operatorname{tr}(C_a + C_b - 2 (C_a C_b)^{1/2}),

    with means m and unbiased covariances C. With Inception features this is the FID. It is biased
    upwards for few points: compare only distances between equal numbers of points.

    Args:
        features_a: ``[N, p]``, N at least 2.
        features_b: ``[M, p]``, M at least 2.

    Raises:
        TypeError: if the points are not real numbers.
        ValueError: if there are too few points, they or their squares are not finite, or dimensions
            differ.

    References:
        Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
        Equilibrium*, NeurIPS 2017, eq. 6, https://arxiv.org/abs/1706.08500

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> frechet_distance(x, x + 3)
        9.0
    """
    a, b = as_clouds(2, features_a=features_a, features_b=features_b)
    difference = a.mean(0) - b.mean(0)
    # C = RᵀR, and tr (C_a C_b)^½ is the sum of the singular values of R_a R_bᵀ: no root of a
    # matrix is taken, so that singular covariances do no harm.
    roots = [
        torch.linalg.qr((cloud - cloud.mean(0)) / (len(cloud) - 1) ** 0.5, mode="r").R
        for cloud in (a, b)
    ]
    apart = difference.square().sum() + sum(root.square().sum() for root in roots)
    if not bool(torch.isfinite(apart)):
        raise ValueError("The squares of the features are too large for float64: rescale them.")
    common = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return max(0.0, float(apart - 2 * common))
