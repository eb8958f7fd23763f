"""The latent region over which a :class:`~.RicciAE` integrates, and what it finds there."""

import math

import torch
from pythae.models.base.base_utils import ModelOutput

from ...geometry._warnings import warn
from .ricci_ae_config import RicciAEConfig


def points_of_region(
    z: torch.Tensor, config: RicciAEConfig, generator: torch.Generator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of the smallest box with sides along the axes that holds the codes of a batch.

    Args:
        z: codes, ``[B, d]``.
        config: how many points, and whether they are uniform or codes.
        generator: of uniform points; None: torch's global one.

    Returns:
        Points ``[num_points, d]``, through which no gradient passes, and the logarithm ``[]`` of
        the volume that each stands for, through which one does.
    """
    low, high = z.amin(0), z.amax(0)
    extent = (high - low).clamp(min=torch.finfo(z.dtype).tiny)
    if config.points == "uniform":
        shape = config.num_points, z.shape[1]
        unit = torch.rand(shape, dtype=z.dtype, device=z.device, generator=generator)
        points = (low + extent * unit).detach()
    else:
        points = z[: config.num_points].detach()
    return points, extent.log().sum() - math.log(len(points))


def summary(R: torch.Tensor, L: torch.Tensor, regularization: float) -> ModelOutput:
    """Statistics of the curvature at the points, and how many of them have a degenerate metric.

    Args:
        R: scalar curvatures, ``[B]``.
        L: Cholesky factors of the regularised metric, ``[B, d, d]``.
        regularization: ε.

    Warns:
        UserWarning: the regularisation decides the metric at some points.
    """
    R, squared = R.detach(), R.detach().square()
    # Of J itself: the smallest eigenvalue of g is its square plus ε².
    smallest = torch.linalg.svdvals(L.detach())[:, -1].square()
    num_degenerate = int((smallest < 2 * regularization**2).sum())
    if num_degenerate:
        warn(
            f"The decoder's Jacobian has all but lost its rank at {num_degenerate} of {len(R)} "
            f"points (a singular value below regularization = {regularization:g}), and the "
            "regularisation decides the metric there. This is common early in training; if it "
            "lasts, use fewer latent dimensions."
        )
    return ModelOutput(
        mean_curvature=R.mean(),
        mean_squared_curvature=squared.mean(),
        max_squared_curvature=squared.max(),
        num_degenerate=num_degenerate,
    )
