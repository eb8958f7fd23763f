"""What the measures ask of their inputs."""

import torch

from .._checks import check_finite
from .._inputs import as_data


def as_clouds(least: int, **clouds: object) -> list[torch.Tensor]:
    """The clouds of points ``[N, p]`` by their names, in float64 and without gradients.

    Data of more dimensions are flattened.

    Raises:
        TypeError: if they are not real numbers.
        ValueError: if one has fewer than ``least`` points, or is not finite, or if their dimensions
            differ.
    """
    points = []
    for name, cloud in clouds.items():
        cloud = as_data(cloud, name)
        if cloud.dim() < 2 or len(cloud) < least:
            raise ValueError(
                f"{name} must be [N >= {least}, dimension], a row a point, got {list(cloud.shape)}."
            )
        points.append(cloud.flatten(1).double())
        check_finite(points[-1], name)
    if len({cloud.shape[1] for cloud in points}) > 1:
        sizes = ", ".join(f"{n} {c.shape[1]}" for n, c in zip(clouds, points, strict=True))
        raise ValueError(f"Points must have one dimension, got {sizes}.")
    return points
