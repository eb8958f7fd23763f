"""An adaptive Runge-Kutta method of order 5 that can be differentiated.

References:
    J. R. Dormand, P. J. Prince, A family of embedded Runge-Kutta formulae, J. Comput. Appl. Math.
    6 (1980), 19-26.
    E. Hairer, S. P. Nørsett, G. Wanner, Solving Ordinary Differential Equations I, Springer 1993,
    section II.4 (the choice of the steps).
"""

from collections.abc import Callable
from typing import Any

import torch

# Row i: the weights of the slopes 0, ..., i in the point where slope i + 1 is taken. The last row
# is the step of order 5 itself.
_A = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
# The weights of the seven slopes in the difference of that step to one of order 4.
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


class StepTooSmall(ArithmeticError):
    """The step has shrunk to the rounding error of the time: the solution ends before time 1."""


def integrate(
    derivative: Callable[[torch.Tensor], torch.Tensor], y: torch.Tensor, tolerance: float
) -> torch.Tensor:
    """The solution at time 1 of an equation that does not depend on time, from ``y`` at time 0.

    The root mean square over all entries of the error of a step, relative to
    ``tolerance (1 + |y|)``, is kept below 1. The steps are constants to differentiation.

    Raises:
        StepTooSmall: the solution does not reach time 1.
    """
    least = 8 * torch.finfo(y.dtype).eps
    slope = derivative(y)
    t, h = 0.0, _first_step(y, slope, tolerance)
    while t < 1:
        h = min(h, 1 - t)
        if h < min(least, 1 - t):
            raise StepTooSmall
        slopes = [slope]
        for weights in _A:
            point = y + h * sum(a * k for a, k in zip(weights, slopes, strict=True) if a)
            slopes.append(derivative(point))
        difference: Any = h * sum(e * k for e, k in zip(_ERROR, slopes, strict=True) if e)
        error = _size(difference, torch.maximum(y.abs(), point.abs()), tolerance)
        if error <= 1:
            t, y, slope = t + h, point, slopes[-1]
        # A value that is not finite makes the step as short as any.
        factor = 0.9 * error**-0.2 if 0 < error < float("inf") else 10.0 if error == 0 else 0.2
        h = h * min(10.0, max(0.2, factor))
    return y


def _size(x: torch.Tensor, scale: torch.Tensor, tolerance: float) -> float:
    size = float((x.detach() / (tolerance * (1 + scale.detach()))).square().mean().sqrt())
    return size if size == size else float("inf")


def _first_step(y: torch.Tensor, slope: torch.Tensor, tolerance: float) -> float:
    """A step in which the solution changes by about a hundredth of its size."""
    size, speed = _size(y, y.abs(), tolerance), _size(slope, y.abs(), tolerance)
    return 0.01 * size / speed if size > 1e-5 and speed > 1e-5 else 1e-6
