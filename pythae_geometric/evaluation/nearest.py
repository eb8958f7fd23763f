"""Distances to the nearest training point: is the model copying?"""

import torch

from .._checks import check_count
from ._checks import as_clouds


def nearest_distances(
    points: object, train_points: object, batch_size: int = 1000
) -> tuple[torch.Tensor, torch.Tensor]:
    """Euclidean distance from each point to the nearest training point, and which one that is.

    A model copies when its samples are nearer to the training data than held-out data are: compare
    the distances of both.

    Args:
        points: ``[N, ...]``, such as generated or held-out images.
        train_points: ``[M, ...]``, of the same shape each.
        batch_size: how many are compared with all training points at a time, 1 or more.

    Returns:
        distances ``[N]`` in float64, and indices ``[N]`` into ``train_points``.

    Raises:
        TypeError: if the points are not real numbers.
        ValueError: if there are no points, they are not finite, dimensions differ, or a number is
            out of range.
    """
    batch_size = check_count("batch_size", batch_size, 1)
    points, train_points = as_clouds(1, points=points, train_points=train_points)
    nearest = [torch.cdist(batch, train_points).min(1) for batch in points.split(batch_size)]
    return torch.cat([n.values for n in nearest]), torch.cat([n.indices for n in nearest])
