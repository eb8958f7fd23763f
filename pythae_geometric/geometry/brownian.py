r"""Brownian motion of a metric.

Euler's method takes the metric as constant along a step. Where the metric changes within the
length of a step, as near a place where a decoder is flat, a step can go far astray: the noise
:math:`G^{-1/2} dW` was scaled by a metric that no longer holds where it leads. Before each step the
metric is therefore looked at where a step of this length *could* end, and if it differs too much
the step is halved. The look has noise of its own, so whether a step is halved does not depend on
the noise that is then taken: choosing steps by their noise would bias the motion. Shortened steps
divide the noise of the whole step by a Brownian bridge, whose parts are independent again.

What the motion tends to follows from its generator. For a density :math:`p` with respect to
:math:`dz`, :math:`A f = \frac{1}{2p} \partial_i (p\, g^{ij} \partial_j f)` is symmetric in
:math:`L^2(p\, dz)`, so the diffusion that it generates is reversible and keeps the distribution
:math:`p\, dz`. For :math:`p = \sqrt{\det G}` it is half the Laplacian: Brownian motion keeps the
volume. For another :math:`p` there is one more drift,
:math:`\tfrac12 g^{ij} \partial_j \log (p / \sqrt{\det G})`: half the gradient, in the metric, of
the log density with respect to the volume. This is the Langevin diffusion of the manifold.

References:
    E. P. Hsu, Stochastic Analysis on Manifolds, AMS 2002, section 3.3 (the equation).
    J. G. Gaines, T. J. Lyons, Variable step size control in the numerical solution of stochastic
    differential equations, SIAM J. Appl. Math. 57, 1997 (bridges; and why Euler's method must not
    choose its steps by their noise).
    M. Hutzenthaler, A. Jentzen, P. E. Kloeden, Strong convergence of an explicit numerical method
    for SDEs with nonglobally Lipschitz continuous coefficients, Ann. Appl. Probab. 22, 2012 (a
    drift that is held).
    M. Girolami, B. Calderhead, Riemann manifold Langevin and Hamiltonian Monte Carlo methods,
    J. R. Stat. Soc. B 73, 2011, section 5; T. Xifara, C. Sherlock, S. Livingstone, S. Byrne,
    M. Girolami, Langevin diffusions and the Metropolis-adjusted Langevin algorithm, Statistics and
    Probability Letters 91, 2014, https://arxiv.org/abs/1309.2983 (the drift for a density p).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ._checks import (
    check_count,
    check_flag,
    check_map,
    check_points,
    check_real,
    check_vectors,
)
from ._guard import guard
from .derivatives import Immersion
from .metric import DegenerateMetricError, Metric
from .pullback import as_metric
from .row_streams import RowStreams, Source, check_source, normal_like

# The gradient of a log density: [B, d] -> [B, d].
Score = Callable[[torch.Tensor], torch.Tensor]

# A step is too long if, from where it could end, a step of the same noise would differ from it by
# more than this fraction of its length (root mean square over the noise).
TOLERANCE = 0.5
# The length of standard normal noise in d dimensions has mean sqrt(d) and standard deviation
# 1 / sqrt(2), nearly: the look ahead goes two deviations further, as far as long steps go.
REACH = 2**0.5
# The drift to a density takes a step at most this many times as far as noise does.
# In steps that are short enough for the density it never would.
LONGEST = 2.0
# A step is halved at most this often.
HALVINGS = 4
# Paths wait for each other only where the noise of their steps would need more numbers than this.
MAX_NOISE = 2**22


@torch.no_grad()
def brownian_motion(
    immersion_or_metric: Immersion | Metric,
    start: torch.Tensor,
    time: float | torch.Tensor,
    steps: int,
    drift: bool = True,
    generator: Source = None,
    trajectory: bool = True,
    halvings: int = HALVINGS,
    score: Score | None = None,
) -> torch.Tensor:
    r"""Paths of Brownian motion, the diffusion with generator half the Laplacian of the metric.

    In coordinates, in the sense of Itô, by Euler's method,

    .. math:: dz^i = -\tfrac12 g^{jk} \Gamma^i_{jk}\, dt + (G^{-1/2} dW)^i.

    The distribution depends on the factor of the noise through its square :math:`G^{-1}` alone, so
    :math:`L^{-\top}` with :math:`L L^\top = G` replaces the symmetric root. The distribution of the
    ends has an error of order ``time / steps``. The paths are not differentiable.

    A path's step is halved, up to ``halvings`` times, where the metric changes too much within its
    length: where, with :math:`y` a random place at which the step could end, the root mean square
    over noise :math:`w` of :math:`|(L(y)^{-\top} - L(z)^{-\top}) w|` exceeds half of that of
    :math:`|L(z)^{-\top} w|`, lengths being those of the metric at :math:`z`. Paths none of whose
    steps are halved are the same as with ``halvings=0``, for the same seed.

    Without drift this is the random walk of the published code of R-VAE. It is no Brownian motion
    of the metric: its distribution depends on the coordinates.

    The longer the motion, the nearer its distribution comes to the volume of the metric, wherever
    that is largest, and if the volume of the space is infinite it never comes to rest. With the
    ``score`` :math:`\nabla \log p` of a density it tends to :math:`p\, dz` instead: there is one
    more drift,

    .. math:: \tfrac12\, g^{ij}\, \partial_j \big(\log p - \log\sqrt{\det G}\big)\, dt,

    while noise and the unit of time stay as they are. A motion that starts from p keeps it at all
    times. One that starts elsewhere needs the time that it takes to go as far as p is wide. The
    error of Euler's method is of order ``time / steps`` here, too: for a normal distribution of
    variance v on the flat line the motion keeps the variance :math:`v / (1 - h / (4 v))` with steps
    h. Steps are halved where the drift changes too much as well: where
    :math:`|h (b(y) - b(z))|^2` plus the square of the difference above exceeds a quarter of the
    square of the length of the noise. Where they are still too long the drift is held to twice the
    length of the noise: the distribution becomes wider than p, but no path is thrown away.

    Args:
        immersion_or_metric: a map ``[B, d] -> [B, ...]`` or a metric.
        start: starting points, ``[B, d]``.
        time: duration, a number or one for each path, ``[B]``; not negative. In units of the
            squared length of the metric: the squared distance gone is, for short times, ``d time``
            in the mean.
        steps: number of steps of size ``time / steps``.
        drift: leave the drift out if False.
        generator: source of the randomness, on the device of ``start``: a generator of torch, or
            :class:`~pythae_geometric.geometry.RowStreams` for B rows; None: torch's global one.
        trajectory: whether to return the way or the end only, which needs little memory.
        halvings: how often a step may be halved, 0 or more; each doubles the work where the metric
            is roughest. 0: all steps are equal, which saves a quarter (a decoder's metric) to a
            half (a posterior metric) of the work of a path that needs no shorter ones.
        score: the gradient of the log density to which the motion tends, with respect to ``dz`` and
            not to the volume, as a function of points ``[B, d] -> [B, d]``, such as
            ``lambda z: mixture.log_volume_and_grad(z)[1]`` of a
            :class:`~pythae_geometric.geometry.MixtureMetric`. None: the motion is Brownian.

    Returns:
        ``[steps + 1, B, d]``, or the end points ``[B, d]`` if not ``trajectory``.

    Raises:
        TypeError, ValueError: arguments of wrong type, shape or range, a score without drift, or a
            path that has left the range of floating-point numbers.
        DegenerateMetricError: the metric is not positive definite at some point of a path.

    References:
        E. P. Hsu, Stochastic Analysis on Manifolds, AMS 2002, section 3.3.
        Kalatzis, Eklund, Arvanitidis, Hauberg, Variational autoencoders with Riemannian Brownian
        motion priors, ICML 2020, section 3.
        Xifara et al., Statistics and Probability Letters 91, 2014, https://arxiv.org/abs/1309.2983
        (with a score).

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> start = torch.zeros(1000, 2)
        >>> path = brownian_motion(lambda z: 2 * z, start, 1.0, 10, generator=generator)
        >>> path.shape, bool((path[-1].std() - 0.5).abs() < 0.02)
        (torch.Size([11, 1000, 2]), True)
        >>> path = brownian_motion(  # tends to the standard normal distribution
        ...     lambda z: 2 * z, start, 40.0, 200, generator=generator, score=lambda z: -z
        ... )
        >>> bool((path[-1].std() - 1).abs() < 0.05)
        True
    """
    metric = as_metric(immersion_or_metric)
    return walk(
        metric,
        start,
        time,
        steps,
        stop=False,
        drift=drift,
        halvings=halvings,
        generator=generator,
        trajectory=trajectory,
        score=score,
    ).path


@dataclass(frozen=True)
class Walk:
    """What happened to a batch of Brownian motions.

    Attributes:
        path: points at the times ``0, time / steps, ..., time``, ``[steps + 1, B, d]``, or the end
            points ``[B, d]``.
        stopped: which paths met a place where the metric is degenerate, or left the range of
            floating-point numbers, and have stayed since at their last point before, ``[B]``.
        shortened: which paths have taken shortened steps, ``[B]``.
    """

    path: torch.Tensor
    stopped: torch.Tensor
    shortened: torch.Tensor


@torch.no_grad()
def walk(
    metric: Metric,
    start: torch.Tensor,
    time: float | torch.Tensor,
    steps: int,
    *,
    stop: bool = True,
    progress: Callable[[int], object] | None = None,
    drift: bool = True,
    halvings: int = HALVINGS,
    generator: Source = None,
    trajectory: bool = True,
    score: Score | None = None,
) -> Walk:
    """Brownian motions as of :func:`brownian_motion`, and what happened to them.

    Args:
        stop: let a path stop where it cannot go on, while the others do. False: raise an error.
        progress: called with the number of steps that all paths have taken since the last call, as
            the ``update`` of a progress bar is.
    """
    start = check_points(start, "The starting points")
    if not bool(torch.isfinite(start).all()):
        raise ValueError("The starting points contain a value that is not finite.")
    steps = check_count("steps", steps, 1)
    check_flag("drift", drift)
    check_flag("trajectory", trajectory)
    halvings = check_count("halvings", halvings, 0)
    check_source(generator, len(start))
    if score is not None:
        check_map(score, "score")
        if not drift:
            raise ValueError("A score is a drift, so it needs drift=True: leave one of them out.")
    dt = check_time(time, start, positive=False).expand(len(start)) / steps

    with guard(metric, start):
        paths = _Paths(metric, start.detach().clone(), dt, drift, score, halvings, steps, stop)
        path = [paths.z.clone()]
        block = max(1, MAX_NOISE // start.numel()) if len(start) else steps
        for first in range(0, steps, block):
            noise = [normal_like(start, generator) for _ in range(min(block, steps - first))]
            if paths.own is None:
                paths.own = _stream_beside(noise[0], generator)
            points = paths.take(torch.stack(noise), first, progress, trajectory)
            if trajectory:
                path.append(points)
    ends = torch.cat([path[0].unsqueeze(0), *path[1:]]) if trajectory else paths.z
    return Walk(ends, paths.stopped, paths.shortened)


class _Paths:
    """A batch of paths, and the metric where they are.

    Each path goes at its own pace through the steps whose noise is there: one that takes many small
    steps does not make the others wait, and those that wait cost nothing.
    """

    def __init__(self, metric, z, dt, drift, score, halvings, steps, stop):
        self.metric, self.drift, self.score = metric, drift, score
        self.steps, self.stop = steps, stop
        self.z, self.dt, self.shortest = z, dt, dt / 2**halvings
        self.h = dt.clone()  # the length of each path's next step
        self.shortened = torch.zeros(len(z), dtype=torch.bool, device=z.device)
        self.own: Source = None  # the random numbers of the looks ahead and of the bridges
        # The factor L [B, d, d] of the metric and the drift b [B, d] at the points.
        self.L, self.b, defined = self._coefficients(z, torch.zeros_like(dt, dtype=torch.long))
        self.stopped = ~defined

    def take(self, noise, first, progress, trajectory):
        """Steps ``first`` and on with standard normal noise ``[S, B, d]``; the points after each,
        ``[S, B, d]``, if they are wanted."""
        S = len(noise)
        noise = noise * self.dt.sqrt().unsqueeze(-1)
        points = self.z.expand_as(noise).clone() if trajectory else None
        at = torch.where(self.stopped | (self.dt == 0), S, 0)  # the step in which each path is
        remaining = self.dt.clone()  # of its step
        done = 0
        while len(rows := (at < S).nonzero().squeeze(1)):
            left = remaining[rows]
            h = torch.minimum(self.h[rows], left)
            too_long = self._too_long(rows, h)
            self.h[rows] = torch.where(too_long, torch.maximum(h / 2, self.shortest[rows]), h)

            rows, left, h = rows[~too_long], left[~too_long], h[~too_long]
            step = at[rows]
            # The noise of the part, given that of what is left of the step (a Brownian bridge).
            share = (h / left).unsqueeze(-1)
            dW = share * noise[step, rows]
            is_part = h < left
            part = is_part.nonzero().squeeze(1)
            if len(part):
                spread = ((1 - share[part]) * h[part].unsqueeze(-1)).sqrt()
                dW[part] += spread * normal_like(dW[part], self.own, rows[part])
            y = self._euler(rows, h, dW)
            L, b, defined = self._coefficients(y, first + step)

            self.shortened[rows] |= is_part
            noise[step, rows] -= dW
            good = rows[defined]
            self.z[good], self.L[good], self.b[good] = y[defined], L[defined], b[defined]
            # What is left of a step may be a rounding error: the next one is not to be that short.
            self.h[rows] = torch.maximum(2 * h, self.shortest[rows])
            remaining[rows] = torch.where(is_part, left - h, self.dt[rows])
            at[rows] += (~is_part).long()
            if points is not None:
                points[step, rows] = self.z[rows]
            bad = rows[~defined]
            self.stopped[bad], at[bad] = True, S
            if points is not None and len(bad):
                after = torch.arange(S, device=step.device)[:, None] >= step[~defined]
                points[:, bad] = torch.where(after[..., None], self.z[bad], points[:, bad])
            least = int(at.min())
            if progress is not None:
                progress(least - done)
            done = least
        if progress is not None:
            progress(S - done)
        return points

    def _euler(self, rows, h, dW):
        """Where steps ``h [B]`` with noise ``dW [B, d]`` lead, ``[B, d]``."""
        z, L, b = self.z[rows], self.L[rows], self.b[rows]
        noise = torch.linalg.solve_triangular(L.mT, dW.unsqueeze(-1), upper=True).squeeze(-1)
        if self.score is not None:
            speed = (L.mT @ b.unsqueeze(-1)).norm(dim=(-2, -1))
            longest = LONGEST * (z.shape[1] / h).sqrt()
            b = b * (longest / speed).clamp(max=1).unsqueeze(-1)
        return z + noise + h.unsqueeze(-1) * b

    def _too_long(self, rows, h):
        """Whether the metric, or the drift to a density, changes too much where steps ``h`` could
        end, ``[B]``.

        What is looked at must not be the noise that the step will take, see the top of this file.
        """
        too_long = h > self.shortest[rows]
        i = too_long.nonzero().squeeze(1)
        if len(i) == 0:
            return too_long
        rows, h = rows[i], h[i]
        z, L = self.z[rows], self.L[rows]
        d = z.shape[1]
        dW = normal_like(z, self.own, rows)
        dW = dW * (h.sqrt() * (d**0.5 + REACH) / dW.norm(dim=1)).unsqueeze(-1)
        y = self._euler(rows, h, dW)
        # The drift of Brownian motion changes as the metric does, and is not looked at.
        if self.score is None:
            there, defined, _ = _defined(self.metric.cholesky, y, d)
        else:
            there, defined, _ = _defined(self._factor_and_drift, y, d + 1)
        eye = torch.eye(d, dtype=z.dtype, device=z.device)
        L_y = torch.where(defined[:, None, None], there[..., :d], eye)
        # In an orthonormal frame at z, in which the noise has the unit matrix for its factor.
        change = torch.linalg.solve_triangular(L_y, L, upper=False) - eye
        change = change.square().sum((-2, -1)) / d
        if self.score is not None:
            turn = L.mT @ (there[..., d] - self.b[rows]).unsqueeze(-1)
            change = change + h / d * turn.square().sum((-2, -1))
        too_long[i] = ~(defined & (change <= TOLERANCE**2))
        return too_long

    def _coefficients(self, z, step):
        """``L [B, d, d]``, ``b [B, d]``, and at which points they are defined, ``[B]``."""

        both, defined, error = _defined(self._factor_and_drift, z, z.shape[1] + 1)
        if not self.stop and not bool(defined.all()):
            where = f"step {int(step[~defined].min()) + 1} of {self.steps}"
            if error is None:
                raise ValueError(
                    f"A path is no longer finite in {where}: take more steps, or a shorter time."
                )
            raise DegenerateMetricError(
                f"In {where} of a Brownian motion: {error} Use a shorter time."
            ) from error
        return both[..., :-1], both[..., -1], defined

    def _factor_and_drift(self, z):
        """``(L, b)`` side by side, ``[B, d, d + 1]``."""
        if self.drift:
            L, b = self.metric.cholesky_and_drift(z)
        else:
            L, b = self.metric.cholesky(z), torch.zeros_like(z)
        b = b.unsqueeze(-1)
        if self.score is not None:
            score = check_vectors(z, self.score(z), "The score")
            vjp: Any = torch.func.vjp  # by torch's own annotation it may return three values
            log_volume, pull = vjp(self.metric.log_volume, z)
            (of_volume,) = pull(torch.ones_like(log_volume))
            b = b + 0.5 * torch.cholesky_solve((score - of_volume).unsqueeze(-1), L)
        return torch.cat([L, b], dim=-1)


def _defined(evaluate: Callable, z: torch.Tensor, columns: int):
    """Values ``[B, d, columns]`` of a function of the metric, at which points they are defined and
    finite, ``[B]``, and the error of the first point where the metric is degenerate, or None.

    A metric refuses a whole batch for one degenerate point: it is found by halving the batch.
    """
    B, d = z.shape
    finite = torch.isfinite(z).all(-1)
    values, error = z.new_full((B, d, columns), torch.nan), None
    pending = [finite.nonzero().squeeze(1)]
    while pending:
        rows = pending.pop()
        if len(rows) == 0:
            continue
        try:
            values[rows] = evaluate(z[rows])
        except DegenerateMetricError as refused:
            error = error or refused
            if len(rows) > 1:
                pending += rows.tensor_split(2)
    return values, torch.isfinite(values).flatten(1).all(1), error


def _stream_beside(noise: torch.Tensor, generator: Source) -> Source:
    """A stream of random numbers beside the one that gave ``noise``, which it takes nothing from:
    paths keep their noise whether or not others need more."""
    if isinstance(generator, RowStreams):
        return generator.beside(1)
    seed = int(noise.cpu().double().sum().view(torch.int64))
    return torch.Generator(noise.device).manual_seed(seed)


def check_time(time: float | torch.Tensor, z: torch.Tensor, positive: bool) -> torch.Tensor:
    """The times of a batch ``z [B, d]`` as ``[1]`` or ``[B]``."""
    if not isinstance(time, torch.Tensor):
        time = torch.tensor(check_real("The time", time), dtype=z.dtype)
    if not time.is_floating_point():
        raise TypeError(f"The time must be a floating-point number, got {time.dtype}.")
    time = time.to(z)
    if time.ndim > 1 or (time.ndim == 1 and len(time) not in (1, len(z))):
        raise ValueError(
            f"The time must be a number or one for each of the {len(z)} points, "
            f"got shape {list(time.shape)}."
        )
    allowed = time > 0 if positive else time >= 0
    if not bool((allowed & torch.isfinite(time)).all()):
        raise ValueError(f"The time must be {'positive' if positive else 'at least 0'} and finite.")
    return time.reshape(-1)
