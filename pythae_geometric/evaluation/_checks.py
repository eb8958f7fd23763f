"""What the measures ask of their inputs."""

import torch


def as_clouds(least: int, **clouds) -> list[torch.Tensor]:
    """The clouds of points ``[N, p]`` by their names, in float64 and without gradients.

    Data of more dimensions are flattened.

    Raises:
        ValueError: if one has fewer than ``least`` points, or is not finite, or if their dimensions
            differ.
    """
    points = []
    for name, cloud in clouds.items():
        cloud = torch.as_tensor(cloud).detach()
        if cloud.dim() < 2 or len(cloud) < least:
            raise ValueError(
                f"{name} must be [N >= {least}, dimension], a row a point, got {list(cloud.shape)}."
            )
        cloud = cloud.flatten(1).double()
        if not bool(torch.isfinite(cloud).all()):
            raise ValueError(f"{name} holds NaN or infinity: look at what made it.")
        points.append(cloud)
    if len({cloud.shape[1] for cloud in points}) > 1:
        sizes = ", ".join(f"{n} {c.shape[1]}" for n, c in zip(clouds, points, strict=True))
        raise ValueError(f"Points must have one dimension, got {sizes}.")
    return points
