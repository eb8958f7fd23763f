"""Choosing the centroids of a metric among posterior means."""

import numpy as np
import torch

from .._extras import require

# k-medoids takes an N x N matrix of distances: 100 MB for this many points.
MAX_MEDOID_POINTS = 5000

# The faster way, by a matrix product, does not see that two points are the same.
EXACT = "donot_use_mm_for_euclid_dist"


def select_centroids(
    means: torch.Tensor, num_centroids: int, method: str, seed: int
) -> torch.Tensor:
    """Indices ``[K]`` of the centroids among ``means`` ``[N, d]``, by one of three methods.

    ``"kmedoids"`` and ``"sklearn-extra"`` take a matrix of all distances. Of more than 5,000 means
    (or twice the number of centroids, if that is more) they see a random subsample of this size.

    Raises:
        ValueError: if that matrix would be too large.
    """
    generator = torch.Generator().manual_seed(seed)
    if num_centroids == len(means):
        return torch.arange(num_centroids)
    if method == "random":
        return torch.randperm(len(means), generator=generator)[:num_centroids]
    if num_centroids > MAX_MEDOID_POINTS:
        raise ValueError(
            f"k-medoids of {num_centroids} centroids needs all distances between twice as many "
            f"points: set num_centroids to at most {MAX_MEDOID_POINTS}, or "
            "centroid_selection='random'."
        )
    most = max(MAX_MEDOID_POINTS, 2 * num_centroids)
    if len(means) > most:
        subsample = torch.randperm(len(means), generator=generator)[:most]
        return subsample[select_centroids(means[subsample], num_centroids, method, seed)]
    if method == "sklearn-extra":
        cluster = require("sklearn_extra.cluster", "sklearn-extra")
        model = cluster.KMedoids(n_clusters=num_centroids, random_state=seed).fit(means.numpy())
        indices = model.medoid_indices_
    else:
        import kmedoids

        distances = torch.cdist(means, means, compute_mode=EXACT).numpy()
        # One thread, so that two runs agree.
        indices = kmedoids.fasterpam(distances, num_centroids, random_state=seed, n_cpu=1).medoids
    return torch.from_numpy(np.asarray(indices, dtype=np.int64))


def largest_nearest_distance(centroids: torch.Tensor) -> float:
    r"""The paper's temperature, :math:`\rho = \max_i \min_{j \ne i} |c_i - c_j|` (Algorithm 1)."""
    nearest = [
        torch.cdist(c, centroids, compute_mode=EXACT).topk(2, largest=False).values[:, 1]
        for c in centroids.split(1000)
    ]
    return float(torch.cat(nearest).max())
