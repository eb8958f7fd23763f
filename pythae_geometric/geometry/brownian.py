"""Brownian motion of a metric."""

import torch

from .connection import brownian_drift
from .curves import as_metric
from .derivatives import Immersion, evaluation_mode
from .metric import DegenerateMetricError, Metric


@torch.no_grad()
def brownian_motion(
    immersion_or_metric: Immersion | Metric,
    start: torch.Tensor,
    time: float | torch.Tensor,
    steps: int,
    drift: bool = True,
    generator: torch.Generator | None = None,
    trajectory: bool = True,
) -> torch.Tensor:
    r"""Paths of Brownian motion, the diffusion with generator half the Laplacian of the metric.

    In coordinates, in the sense of Itô, by Euler's method,

    .. math:: dz^i = -\tfrac12 g^{jk} \Gamma^i_{jk}\, dt + (G^{-1/2} dW)^i.

    The law depends on the factor of the noise through its square :math:`G^{-1}` alone, so
    :math:`L^{-\top}` with :math:`L L^\top = G` replaces the symmetric root. The law of the ends
    has an error of order ``time / steps``. The paths are not differentiable.

    Without drift this is the random walk of the published code of R-VAE. It is no Brownian motion
    of the metric: its law depends on the coordinates.

    Args:
        immersion_or_metric: a map ``[B, d] -> [B, ...]`` or a metric.
        start: starting points, ``[B, d]``.
        time: duration, a number or one for each path, ``[B]``; not negative.
        steps: number of steps of size ``time / steps``.
        drift: leave the drift out if False.
        generator: source of the randomness, on the device of ``start``.
        trajectory: whether to return the way or the end only, which needs memory for one step.

    Returns:
        ``[steps + 1, B, d]``, or the end points ``[B, d]`` if not ``trajectory``.

    Raises:
        TypeError, ValueError: arguments of wrong type, shape or range, or a path that has left the
            range of floating-point numbers.
        DegenerateMetricError: the metric is not positive definite at some point of a path.

    References:
        E. P. Hsu, Stochastic Analysis on Manifolds, AMS 2002, section 3.3.
        Kalatzis, Eklund, Arvanitidis, Hauberg, Variational autoencoders with Riemannian Brownian
        motion priors, ICML 2020, section 3.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> start = torch.zeros(1000, 2)
        >>> path = brownian_motion(lambda z: 2 * z, start, 1.0, 10, generator=generator)
        >>> path.shape, bool((path[-1].std() - 0.5).abs() < 0.02)
        (torch.Size([11, 1000, 2]), True)
    """
    metric = as_metric(immersion_or_metric)
    if not isinstance(start, torch.Tensor) or not start.is_floating_point():
        raise TypeError("The starting points must be a floating-point tensor [B, d].")
    if start.ndim != 2 or start.shape[1] == 0:
        raise ValueError(f"The starting points must have shape [B, d], got {list(start.shape)}.")
    if not bool(torch.isfinite(start).all()):
        raise ValueError("The starting points contain a value that is not finite.")
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a positive integer, got {steps}.")
    dt = check_time(time, start, positive=False).unsqueeze(-1) / steps

    z = start.detach().clone()
    path = [z]
    with evaluation_mode(metric):
        for step in range(steps):
            noise = torch.randn(z.shape, generator=generator, dtype=z.dtype, device=z.device)
            noise = dt.sqrt() * noise
            try:
                L = metric.cholesky(z)
            except DegenerateMetricError as error:
                raise DegenerateMetricError(
                    f"In step {step + 1} of {steps} of a Brownian motion: {error} A motion over a "
                    "shorter time goes less far."
                ) from error
            dz = torch.linalg.solve_triangular(L.mT, noise.unsqueeze(-1), upper=True).squeeze(-1)
            z = z + dz + dt * brownian_drift(metric, z) if drift else z + dz
            if not bool(torch.isfinite(z).all()):
                raise ValueError(
                    f"A path is no longer finite after step {step + 1} of {steps}: take more "
                    "steps, or a shorter time."
                )
            if trajectory:
                path.append(z)
    return torch.stack(path) if trajectory else z


def check_time(time: float | torch.Tensor, z: torch.Tensor, positive: bool) -> torch.Tensor:
    """The times of a batch ``z [B, d]`` as ``[1]`` or ``[B]``."""
    time = torch.as_tensor(time, dtype=z.dtype, device=z.device)
    if time.ndim > 1 or (time.ndim == 1 and len(time) not in (1, len(z))):
        raise ValueError(
            f"The time must be a number or one for each of the {len(z)} points, "
            f"got shape {list(time.shape)}."
        )
    allowed = time > 0 if positive else time >= 0
    if not bool((allowed & torch.isfinite(time)).all()):
        raise ValueError(f"The time must be {'positive' if positive else 'at least 0'} and finite.")
    return time.reshape(-1)
