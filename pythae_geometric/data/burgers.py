r"""Solutions of the viscous Burgers equation, the first data set of Gracyk 2024."""

import math
from typing import NamedTuple

import torch
from tqdm import tqdm

from .._checks import check_count, check_finite, check_flag, check_generator, check_number
from .._inputs import as_data

NUM_POINTS, NUM_TIMES = 201, 201
SPACING = 0.005
# Solutions that are advanced together: larger blocks leave the processor's cache.
BLOCK = 250
MAX_SUBSTEPS = 256


class Burgers(NamedTuple):
    """Solutions, and where they are.

    Attributes:
        trajectories: ``[N, 201, 201]``, time before space.
        times: ``[201]``, on [0, 1].
        grid: the points of space, ``[201]``, on [0, 1].
    """

    trajectories: torch.Tensor
    times: torch.Tensor
    grid: torch.Tensor


def burgers(
    num_samples: int = 5000,
    viscosity: float = 0.01,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Burgers:
    r"""Random solutions of :math:`u_t = -u\,u_x + \nu\,u_{xx}` for times in [0, 1].

    .. math:: u_0 = a_1 c + a_2 c^3 + a_3 c^5, \qquad c = \cos 2 \pi x, \qquad
              a \sim U[-1, 1]^3

    See :func:`solve_burgers` for the equation on the grid.

    Args:
        num_samples: N, at least 1.
        viscosity: :math:`\nu > 0`.
        generator: source of the randomness; None: torch's global one.
        progress: whether to show a progress bar.

    Returns:
        Solutions in float32 at 201 times and 201 points.

    Raises:
        TypeError: if ``generator`` is neither a generator nor None, or ``progress`` is not True or
            False.
        ValueError: if a number is out of range.

    Example:
        >>> data = burgers(3, generator=torch.Generator().manual_seed(0))
        >>> data.trajectories.shape
        torch.Size([3, 201, 201])
    """
    num_samples = check_count("num_samples", num_samples, 1)
    check_generator(generator)
    check_flag("progress", progress)
    a = 2 * torch.rand(num_samples, 3, dtype=torch.float64, generator=generator) - 1
    grid = torch.arange(NUM_POINTS, dtype=torch.float64) * SPACING
    c = torch.cos(2 * math.pi * grid)
    initial = a @ torch.stack([c, c**3, c**5])
    trajectories = torch.empty(num_samples, NUM_TIMES, NUM_POINTS)
    blocks = initial.split(BLOCK), trajectories.split(BLOCK)
    bar = tqdm(total=num_samples, desc="Burgers", disable=not progress)
    with bar:
        for start, solution in zip(*blocks, strict=True):
            solution.copy_(solve_burgers(start, viscosity))
            bar.update(len(start))
    times = torch.linspace(0, 1, NUM_TIMES)
    return Burgers(trajectories, times, grid.float())


@torch.no_grad()
def solve_burgers(
    initial: object,
    viscosity: float = 0.01,
    num_times: int = NUM_TIMES,
    spacing: float = SPACING,
    tolerance: float = 1e-6,
) -> torch.Tensor:
    r"""Solve :math:`u_t = -u\,u_x + \nu\,u_{xx}` on [0, 1] with spectral derivatives.

    The grid is periodic: n points at a spacing h have the period ``n h``. (For the published 201
    points at 0.005 this is 1.005 and not 1: the points x = 0 and x = 1 are neighbours with the same
    value, a slight kink in the cosines of period 1. The data of the paper have it.)

    The diffusion is solved exactly, by an integrating factor, and the rest by the Runge-Kutta
    scheme of fourth order. Steps are halved, for the solutions that need it, until the error that
    the last halving shows, a fifteenth of the change, is below the tolerance.

    Args:
        initial: ``[B, n]``; it is solved in float64.
        viscosity: :math:`\nu > 0`.
        num_times: T, evenly on [0, 1]; odd and at least 3, so that steps may be as long as two of
            the intervals.
        spacing: h > 0.
        tolerance: of the estimated absolute error at every time and point.

    Returns:
        ``[B, T, n]``, in float64.

    Raises:
        TypeError: if the initial states are not real numbers.
        ValueError: if a number is out of range, or the initial states are not finite.
        ArithmeticError: if the tolerance is not reached, as for a shock that the grid cannot
            resolve.

    References:
        A. Kassam, L. N. Trefethen, Fourth-order time-stepping for stiff PDEs, 2005, section 2.
    """
    for name, value in (("viscosity", viscosity), ("spacing", spacing), ("tolerance", tolerance)):
        check_number(name, value, above=0)
    num_times = check_count("num_times", num_times, 3)
    if num_times % 2 == 0:
        raise ValueError(f"num_times must be odd, got {num_times}.")
    initial = as_data(initial, "initial").double()
    if initial.ndim != 2 or initial.numel() == 0:
        raise ValueError(f"initial must be of shape [B >= 1, n], got {list(initial.shape)}.")
    check_finite(initial, "initial")
    coarse = _integrate(initial, viscosity, (num_times + 1) // 2, spacing, 1)
    solution = initial.new_empty(len(initial), num_times, initial.shape[1])
    pending, substeps = torch.arange(len(initial), device=initial.device), 1
    while len(pending):
        if substeps > MAX_SUBSTEPS:
            raise ArithmeticError(
                f"{len(pending)} of {len(initial)} solutions did not reach the tolerance "
                f"{tolerance:g} with {MAX_SUBSTEPS} steps between two times: their shocks are too "
                "steep for the grid. Raise viscosity or tolerance, or use more points."
            )
        fine = _integrate(initial[pending], viscosity, num_times, spacing, substeps)
        solution[pending] = fine
        # NaN, of steps that were too long by far, is not within any tolerance.
        close = (fine[:, ::2] - coarse).abs().amax((1, 2)) / 15 < tolerance
        pending, coarse = pending[~close], fine[~close, ::2]
        substeps *= 2
    return solution


def _integrate(u, viscosity, num_times, spacing, substeps):
    """The solutions ``[B, T, n]`` with so many steps between two times."""
    n = u.shape[1]
    step = 1 / ((num_times - 1) * substeps)
    k = 2 * math.pi * torch.fft.rfftfreq(n, spacing, dtype=u.dtype, device=u.device)
    # Matrices that act on rows: on so few points products with them are faster than transforms.
    transform = torch.fft.rfft(torch.eye(n, dtype=u.dtype, device=u.device))
    derivative = torch.fft.irfft(1j * k * transform, n)
    half = torch.fft.irfft(torch.exp(-0.5 * step * viscosity * k**2) * transform, n)

    def slope(v):
        return (v @ derivative).mul_(v).mul_(-step)

    solution = u.new_empty(len(u), num_times, n)
    solution[:, 0] = u
    for i in range(1, num_times):
        for _ in range(substeps):
            first = slope(u)
            diffused, middle = u @ half, (u + first / 2) @ half
            second = slope(middle)
            third = slope(diffused + second / 2)
            fourth = slope((diffused + third) @ half)
            # (middle - diffused) / 3 is the first slope over six, half a step later.
            u = (diffused + (middle - diffused + second + third) / 3) @ half + fourth / 6
        solution[:, i] = u
    return solution
