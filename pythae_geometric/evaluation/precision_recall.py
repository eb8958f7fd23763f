"""Precision and recall for distributions."""

from typing import NamedTuple

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from ._checks import as_clouds


class PRDScores(NamedTuple):
    """What :func:`prd_scores` found: ``recall`` is F8, ``precision`` is F1/8."""

    recall: float
    precision: float


def prd_curve_of_histograms(real, fake, angles: int = 1001) -> tuple[np.ndarray, np.ndarray]:
    r"""The precision-recall curve of a discrete law q ("fake") for another one p ("real").

    .. math::
        \alpha(\lambda) = \sum_\omega \min(\lambda p(\omega), q(\omega)), \qquad
        \beta(\lambda) = \alpha(\lambda) / \lambda,

    for slopes :math:`\lambda` whose angles divide :math:`(0, \pi/2)` evenly.

    Args:
        real: weights ``[n]`` of p, which need not sum to 1.
        fake: weights ``[n]`` of q.
        angles: number of points on the curve.

    Returns:
        precision :math:`\alpha` and recall :math:`\beta`, each ``[angles]``.

    Raises:
        ValueError: if the weights are not two lists of one length, are negative, or sum to 0.

    References:
        Sajjadi et al., *Assessing Generative Models via Precision and Recall*, NeurIPS 2018, eqs. 6
        and 7 and algorithm 1, https://arxiv.org/abs/1806.00035
    """
    p, q = (np.asarray(weights, dtype=float) for weights in (real, fake))
    if p.ndim != 1 or p.shape != q.shape or not all(w.min() >= 0 < w.sum() for w in (p, q)):
        raise ValueError(
            "real and fake must be two lists of one length, of weights that are not negative and "
            f"not all 0, got shapes {list(p.shape)} and {list(q.shape)}."
        )
    if angles < 1:
        raise ValueError(f"angles must be at least 1, got {angles}.")
    p, q = p / p.sum(), q / q.sum()
    slopes = np.tan(np.linspace(0, np.pi / 2, angles + 2)[1:-1])[:, None]
    precision = np.minimum(slopes * p, q).sum(1)
    return precision, precision / slopes[:, 0]


def prd_curve(
    real_features, fake_features, seed: int, clusters: int = 20, angles: int = 1001
) -> tuple[np.ndarray, np.ndarray]:
    """The precision-recall curve of two clouds, by their shares of clusters of their union.

    The larger cloud is cut to the size of the smaller one, at random.

    Args:
        real_features: ``[N, p]``.
        fake_features: ``[M, p]``.
        seed: of the clusters (k-means).
        clusters: their number, at most N + M.
        angles: number of points on the curve.

    Returns:
        precision and recall, each ``[angles]``.

    Raises:
        ValueError: if a number is out of range, points are not finite, or dimensions differ.
    """
    real, fake = as_clouds(1, real_features=real_features, fake_features=fake_features)
    size = min(len(real), len(fake))
    if not 1 <= clusters <= 2 * size:
        raise ValueError(f"clusters must be from 1 to the {2 * size} points, got {clusters}.")
    random = np.random.default_rng(seed)
    real, fake = (
        cloud.cpu().numpy()[np.sort(random.permutation(len(cloud))[:size])]
        for cloud in (real, fake)
    )
    kmeans = MiniBatchKMeans(clusters, n_init=10, random_state=int(random.integers(2**31)))
    labels = kmeans.fit_predict(np.concatenate([real, fake]))
    shares = [np.bincount(part, minlength=clusters) for part in (labels[:size], labels[size:])]
    return prd_curve_of_histograms(*shares, angles)


def prd_scores(
    real_features, fake_features, seed: int, clusters: int = 20, repeats: int = 10
) -> PRDScores:
    r"""F8 (recall) and F1/8 (precision) of a cloud of samples, means over several clusterings.

    .. math::
        F_\beta = \max_\lambda \frac{(1 + \beta^2)\, \text{precision}\cdot\text{recall}}
        {\beta^2\, \text{precision} + \text{recall}}

    Both are in [0, 1]. Points of the same law score a little less than 1, as shares of clusters
    scatter.

    Args:
        real_features: ``[N, p]``.
        fake_features: ``[M, p]``.
        seed: of the clusters.
        clusters: their number.
        repeats: number of clusterings.

    Raises:
        ValueError: if a number is out of range, points are not finite, or dimensions differ.

    References:
        Sajjadi et al., NeurIPS 2018, section 4.3 (20 clusters, :math:`\beta = 8`)
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}.")
    scores = []
    for run in range(repeats):
        precision, recall = prd_curve(real_features, fake_features, seed + run, clusters)
        scores.append([_best_f(precision, recall, beta) for beta in (8, 1 / 8)])
    return PRDScores(*np.mean(scores, axis=0).tolist())


def _best_f(precision: np.ndarray, recall: np.ndarray, beta: float) -> float:
    below = beta**2 * precision + recall
    product = (1 + beta**2) * precision * recall
    return float(np.divide(product, below, out=np.zeros_like(below), where=below > 0).max())
