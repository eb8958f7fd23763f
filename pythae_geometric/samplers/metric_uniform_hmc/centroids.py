"""Choosing the centroids of a metric among posterior means."""

import numpy as np
import torch

from ..._extras import require

# The faster way, by a matrix product, does not see that two points are the same.
EXACT = {"compute_mode": "donot_use_mm_for_euclid_dist"}


def select_centroids(
    means: torch.Tensor, num_centroids: int, method: str, seed: int
) -> torch.Tensor:
    """Indices ``[K]`` of the centroids among ``means`` ``[N, d]``, by one of three methods.

    ``"kmedoids"`` takes an N x N matrix of distances.
    """
    if method == "random":
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(len(means), generator=generator)[:num_centroids]
    if method == "sklearn-extra":
        cluster = require("sklearn_extra.cluster", "sklearn-extra")
        model = cluster.KMedoids(n_clusters=num_centroids, random_state=seed).fit(means.numpy())
        indices = model.medoid_indices_
    else:
        import kmedoids

        distances = torch.cdist(means, means, **EXACT).numpy()
        # One thread, so that two runs agree.
        indices = kmedoids.fasterpam(distances, num_centroids, random_state=seed, n_cpu=1).medoids
    return torch.from_numpy(np.asarray(indices, dtype=np.int64))


def largest_nearest_distance(centroids: torch.Tensor) -> float:
    r"""The paper's temperature, :math:`\rho = \max_i \min_{j \ne i} |c_i - c_j|` (Algorithm 1)."""
    nearest = [
        torch.cdist(c, centroids, **EXACT).topk(2, largest=False).values[:, 1]
        for c in centroids.split(1000)
    ]
    return float(torch.cat(nearest).max())
