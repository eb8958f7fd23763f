"""Minimisation of many independent smooth functions at once."""

from collections.abc import Callable
from typing import NamedTuple

import torch

MEMORY = 10
SUFFICIENT_DECREASE = 1e-4


class Minimum(NamedTuple):
    """What `minimise` found: ``point [B, n]``, ``value [B]`` and ``converged [B]``, detached."""

    point: torch.Tensor
    value: torch.Tensor
    converged: torch.Tensor


def minimise(
    objective: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    inverse_hessian: torch.Tensor,
    iterations: int,
    tolerance: float,
) -> Minimum:
    r"""Minimise ``B`` functions of ``n`` variables together by preconditioned L-BFGS.

    The functions share nothing but their evaluation: each has its own step, its own line search
    and its own history, and leaves the batch when it has converged. One iteration is one evaluation
    of value and gradient: a function whose trial point is refused tries a shorter step in the next.

    A function has converged when :math:`\sqrt{\tfrac12 \nabla^\top P \nabla} \le` ``tolerance``,
    with ``P`` the guess at the inverse Hessian: the square is, to second order, the estimated
    remaining decrease. It does not depend on the units of the variables, and where the function is
    the logarithm of a positive one, it is the relative gain in that.

    Args:
        objective: ``(points [b, n], rows [b]) -> values [b]``, the functions number ``rows``.
        start: where to begin, ``[B, n]``.
        inverse_hessian: a positive definite guess ``P`` at the inverse Hessians, ``[B, n, n]``.
        iterations: evaluations allowed.
        tolerance: square root of the negligible decrease.

    References:
        Nocedal, Updating quasi-Newton matrices with limited storage, Math. Comp. 35 (1980).
    """
    best_point, best_value = start.clone(), start.new_empty(len(start))
    converged = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    # Below this relative difference two values cannot be told apart.
    resolution = 10 * torch.finfo(start.dtype).eps

    rows, x, P = torch.arange(len(start), device=start.device), start, inverse_hessian
    f, g = _value_and_grad(objective, x, rows)
    scale, step = torch.ones_like(f), torch.ones_like(f)
    history: list[tuple[torch.Tensor, ...]] = []  # three of each step
    direction = -_apply(P, g)

    for iteration in range(iterations + 1):
        done = (g * _apply(P, g)).sum(-1) <= 2 * tolerance**2
        converged[rows[done]] = True
        if iteration == iterations or bool(done.all()):
            best_point[rows], best_value[rows] = x, f
            break
        if bool(done.any()):
            best_point[rows[done]], best_value[rows[done]] = x[done], f[done]
            keep = ~done
            rows, x, f, g, P, direction, scale, step = (
                a[keep] for a in (rows, x, f, g, P, direction, scale, step)
            )
            history = [tuple(a[keep] for a in pair) for pair in history]

        slope = (g * direction).sum(-1)
        trial = x + step.unsqueeze(-1) * direction
        f_trial, g_trial = _value_and_grad(objective, trial, rows)
        accept = f_trial <= f + SUFFICIENT_DECREASE * step * slope + resolution * (1 + f.abs())
        accept &= torch.isfinite(g_trial).all(-1)

        s, y = trial - x, g_trial - g
        sy, yPy = (s * y).sum(-1), (y * _apply(P, y)).sum(-1)
        # A pair of non-positive curvature is kept with weight 0, where it has no effect.
        curved = accept & (sy > resolution * s.norm(dim=-1) * y.norm(dim=-1))
        rho = torch.where(curved, 1 / sy, 0.0)
        history = [*history[1 - MEMORY :], (_zero_where(~curved, s), _zero_where(~curved, y), rho)]
        scale = torch.where(curved, sy / yPy, scale)

        # Minimum of the parabola through f, slope and f_trial, for the functions that were refused.
        shorter = (-slope * step / (2 * ((f_trial - f) / step - slope))).nan_to_num(0.0)
        step = torch.where(accept, 1.0, torch.clamp(shorter, min=0.1 * step, max=0.5 * step))
        x = torch.where(accept.unsqueeze(-1), trial, x)
        g = torch.where(accept.unsqueeze(-1), g_trial, g)
        f = torch.where(accept, f_trial, f)
        new = -_two_loops(g, history, P, scale)
        direction = torch.where(accept.unsqueeze(-1), new, direction)

    return Minimum(best_point, best_value, converged)


def _two_loops(g, history, P, scale):
    """The L-BFGS approximation of the inverse Hessian, applied to ``g``."""
    weights = []
    for s, y, rho in reversed(history):
        weight = rho * (s * g).sum(-1)
        g = g - weight.unsqueeze(-1) * y
        weights.append(weight)
    g = scale.unsqueeze(-1) * _apply(P, g)
    for (s, y, rho), weight in zip(history, reversed(weights), strict=True):
        g = g + (weight - rho * (y * g).sum(-1)).unsqueeze(-1) * s
    return g


def _value_and_grad(objective, x, rows):
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = objective(x, rows)
        (grad,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), grad


def _apply(P, g):
    return (P @ g.unsqueeze(-1)).squeeze(-1)


def _zero_where(mask, a):
    return a.masked_fill(mask.unsqueeze(-1), 0.0)
