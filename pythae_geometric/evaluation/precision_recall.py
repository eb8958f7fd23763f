"""Precision and recall for distributions."""

from typing import NamedTuple

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from .._checks import check_count
from .._inputs import as_data
from ._checks import as_clouds


class PRDScores(NamedTuple):
    """What :func:`prd_scores` found: ``recall`` is F8, ``precision`` is F1/8."""

    recall: float
    precision: float


def prd_curve_of_histograms(
    real: object, fake: object, angles: int = 1001
) -> tuple[np.ndarray, np.ndarray]:
    r"""The precision-recall curve of a discrete distribution q ("fake") for p ("real").

    .. math::
        \alpha(\lambda) = \sum_\omega \min(\lambda p(\omega), q(\omega)), \qquad
        \beta(\lambda) = \alpha(\lambda) / \lambda,

    for slopes :math:`\lambda` whose angles divide :math:`(0, \pi/2)` evenly.

    Args:
        real: weights ``[n]`` of p, which need not sum to 1.
        fake: weights ``[n]`` of q.
        angles: number of points on the curve, 1 or more.

    Returns:
        precision :math:`\alpha` and recall :math:`\beta`, each ``[angles]``.

    Raises:
        TypeError: if the weights are not real numbers.
        ValueError: if they are not two lists of one length, are negative or not finite, or sum to
            0; or if ``angles`` is out of range.

    References:
        Sajjadi et al., *Assessing Generative Models via Precision and Recall*, NeurIPS 2018, eqs. 6
        and 7 and algorithm 1, https://arxiv.org/abs/1806.00035
    """
    angles = check_count("angles", angles, 1)
    p, q = (
        as_data(weights, name).double().cpu().numpy()
        for name, weights in (("real", real), ("fake", fake))
    )
    if (
        p.ndim != 1
        or p.shape != q.shape
        or not all(w.min() >= 0 < w.sum() < np.inf for w in (p, q))
    ):
        raise ValueError(
            "real and fake must be two lists of one length, of finite weights that are not "
            f"negative and not all 0, got shapes {list(p.shape)} and {list(q.shape)}."
        )
    p, q = p / p.sum(), q / q.sum()
    slopes = np.tan(np.linspace(0, np.pi / 2, angles + 2)[1:-1])[:, None]
    precision = np.minimum(slopes * p, q).sum(1)
    return precision, precision / slopes[:, 0]


def prd_curve(
    real_features: object, fake_features: object, seed: int, clusters: int = 20, angles: int = 1001
) -> tuple[np.ndarray, np.ndarray]:
    """The precision-recall curve of two clouds, by their shares of clusters of their union.

    The larger cloud is cut to the size of the smaller one, at random.

    Args:
        real_features: ``[N, p]``.
        fake_features: ``[M, p]``.
        seed: of the clusters (k-means), 0 or more.
        clusters: their number, at most N + M.
        angles: number of points on the curve.

    Returns:
        precision and recall, each ``[angles]``.

    Raises:
        TypeError: if the points are not real numbers.
        ValueError: if a number is out of range, points are not finite, or dimensions differ.
    """
    real, fake = as_clouds(1, real_features=real_features, fake_features=fake_features)
    size = min(len(real), len(fake))
    seed, clusters = check_count("seed", seed, 0), check_count("clusters", clusters, 1)
    if clusters > 2 * size:
        raise ValueError(f"clusters must be at most the {2 * size} points, got {clusters}.")
    random = np.random.default_rng(seed)
    real, fake = (
        cloud.cpu().numpy()[np.sort(random.permutation(len(cloud))[:size])]
        for cloud in (real, fake)
    )
    kmeans = MiniBatchKMeans(clusters, n_init=10, random_state=int(random.integers(2**31)))
    labels = kmeans.fit_predict(np.concatenate([real, fake]))
    p, q = (np.bincount(part, minlength=clusters) for part in (labels[:size], labels[size:]))
    return prd_curve_of_histograms(p, q, angles)


def prd_scores(
    real_features: object, fake_features: object, seed: int, clusters: int = 20, repeats: int = 10
) -> PRDScores:
    r"""F8 (recall) and F1/8 (precision) of a cloud of samples, means over several clusterings.

    .. math::
        F_\beta = \max_\lambda \frac{(1 + \beta^2)\, \text{precision}\cdot\text{recall}}
        {\beta^2\, \text{precision} + \text{recall}}

    Both are in [0, 1]. Points of the same distribution score a little less than 1, because the
    shares of the clusters are random.

    Args:
        real_features: ``[N, p]``.
        fake_features: ``[M, p]``.
        seed: of the clusters, 0 or more.
        clusters: their number.
        repeats: number of clusterings, 1 or more.

    Raises:
        TypeError: if the points are not real numbers.
        ValueError: if a number is out of range, points are not finite, or dimensions differ.

    References:
        Sajjadi et al., NeurIPS 2018, section 4.3 (20 clusters, :math:`\beta = 8`)
    """
    seed, repeats = check_count("seed", seed, 0), check_count("repeats", repeats, 1)
    real, fake = as_clouds(1, real_features=real_features, fake_features=fake_features)
    scores = []
    for run in range(repeats):
        precision, recall = prd_curve(real, fake, seed + run, clusters)
        scores.append([_best_f(precision, recall, beta) for beta in (8, 1 / 8)])
    return PRDScores(*np.mean(scores, axis=0).tolist())


def _best_f(precision: np.ndarray, recall: np.ndarray, beta: float) -> float:
    below = beta**2 * precision + recall
    product = (1 + beta**2) * precision * recall
    return float(np.divide(product, below, out=np.zeros_like(below), where=below > 0).max())
