"""Hamiltonian Monte Carlo on whole batches of chains.

The kernel is a pure function: :func:`hmc_step` takes a state and returns a new one, with what
happened. The state carries the gradient, so a leapfrog step costs one evaluation of the target.
:func:`hmc` runs it, with an optional warm-up that adapts the step size.

References:
    Neal, *MCMC using Hamiltonian dynamics*, 2011, https://arxiv.org/abs/1206.1901
    Hoffman and Gelman, *The No-U-Turn Sampler*, JMLR 2014, section 3.2 (dual averaging),
    https://arxiv.org/abs/1111.4246
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from ._checks import (
    check_count,
    check_map,
    check_number,
    check_real,
    check_tensor,
    check_vectors,
)
from .row_streams import Source, check_source, normal_like, uniform_like

LogProbAndGrad = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

# A trajectory whose energy error is larger than this has left the level set for good (as in Stan).
MAX_ENERGY_ERROR = 1000.0


class HMCState(NamedTuple):
    """Where the chains are: ``position`` ``[B, d]``, ``log_prob`` ``[B]``, ``grad`` ``[B, d]``."""

    position: torch.Tensor
    log_prob: torch.Tensor
    grad: torch.Tensor


class HMCInfo(NamedTuple):
    """What one step did to each chain, all ``[B]``.

    ``acceptance`` is the Metropolis probability, ``accepted`` the outcome, ``divergent`` flags a
    trajectory with an excessive energy error or a non-finite value, ``energy`` is the Hamiltonian
    of the proposal.
    """

    acceptance: torch.Tensor
    accepted: torch.Tensor
    divergent: torch.Tensor
    energy: torch.Tensor


class HMCResult(NamedTuple):
    """The outcome of :func:`hmc`.

    ``position`` ``[B, d]`` is where the chains ended, ``samples`` ``[steps, n, d]`` the path of
    the first ``n = keep_chains`` of them, ``acceptance`` ``[B]`` each chain's mean Metropolis
    probability, ``divergences`` ``[B]`` its number of divergent steps (both after the warm-up), and
    ``step_size`` the step size in use after the warm-up.
    """

    position: torch.Tensor
    samples: torch.Tensor
    acceptance: torch.Tensor
    divergences: torch.Tensor
    step_size: float


def init(log_prob_and_grad: LogProbAndGrad, position: torch.Tensor) -> HMCState:
    """State of chains that start at ``position`` ``[B, d]``.

    Raises:
        ValueError: if the shape is wrong, or the target or its gradient is not finite there.
    """
    check_map(log_prob_and_grad, "log_prob_and_grad")
    log_prob, grad = _evaluated(log_prob_and_grad, position)
    bad = ~(torch.isfinite(log_prob) & torch.isfinite(grad).all(-1))
    if bool(bad.any()):
        raise ValueError(
            f"The log density or its gradient is not finite at {int(bad.sum())} of "
            f"{len(position)} starting points: start where the density is positive."
        )
    return HMCState(position, log_prob, grad)


def _evaluated(
    log_prob_and_grad: LogProbAndGrad, position: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log density and gradient, checked.

    Raises:
        TypeError: if they are not two tensors.
        ValueError: if these have other shapes than ``[B]`` and ``[B, d]``.
    """
    pair = log_prob_and_grad(position)
    is_pair = isinstance(pair, tuple) and len(pair) == 2
    if not is_pair or not all(isinstance(part, torch.Tensor) for part in pair):
        raise TypeError(
            "log_prob_and_grad must return two tensors, [B] and [B, d], got a "
            f"{type(pair).__name__}."
        )
    log_prob, grad = pair
    if log_prob.shape != position.shape[:1] or grad.shape != position.shape:
        raise ValueError(
            "log_prob_and_grad must return shapes [B] and [B, d], got "
            f"{list(log_prob.shape)} and {list(grad.shape)} for points {list(position.shape)}."
        )
    return pair


def leapfrog(
    log_prob_and_grad: LogProbAndGrad,
    state: HMCState,
    momentum: torch.Tensor,
    steps: int,
    step_size: float,
) -> tuple[HMCState, torch.Tensor]:
    """Integrate Hamilton's equations for ``steps`` steps; one gradient each.

    Reversible and volume preserving: integrating again from the end with the opposite momentum
    returns to the start.

    Raises:
        TypeError, ValueError: if ``state``, ``momentum`` or a number does not fit.
    """
    _check_step(log_prob_and_grad, state, "steps", steps, step_size)
    momentum = check_vectors(state.position, momentum, "The momentum")
    position, log_prob, grad = state
    momentum = momentum + 0.5 * step_size * grad
    for i in range(steps):
        position = position + step_size * momentum
        log_prob, grad = _evaluated(log_prob_and_grad, position)
        # Two half kicks meet between steps; the last one stays half.
        momentum = momentum + (1.0 if i < steps - 1 else 0.5) * step_size * grad
    return HMCState(position, log_prob, grad), momentum


def hmc_step(
    log_prob_and_grad: LogProbAndGrad,
    state: HMCState,
    leapfrog_steps: int,
    step_size: float,
    generator: Source = None,
) -> tuple[HMCState, HMCInfo]:
    """One Hamiltonian Monte Carlo step of every chain: standard normal momenta, leapfrog, and a
    Metropolis test in the log domain. Leaves the target distribution invariant.

    Raises:
        TypeError: if ``state`` is no :class:`HMCState`, or ``generator`` no source
            of random numbers.
        ValueError: if ``leapfrog_steps`` is less than 1, or ``step_size`` is not above 0.
    """
    _check_step(log_prob_and_grad, state, "leapfrog_steps", leapfrog_steps, step_size)
    check_source(generator, len(state.position))
    momentum = normal_like(state.position, generator)
    energy = _energy(state, momentum)
    proposal, momentum = leapfrog(log_prob_and_grad, state, momentum, leapfrog_steps, step_size)
    proposal_energy = _energy(proposal, momentum)
    error = proposal_energy - energy

    divergent = ~(error < MAX_ENERGY_ERROR)  # true for NaN as well
    divergent |= ~torch.isfinite(proposal.grad).all(-1)
    acceptance = torch.where(divergent, 0.0, torch.exp(-error.clamp(min=0.0)))
    accepted = uniform_like(error, generator) < acceptance
    state = HMCState(
        *(
            torch.where(accepted.reshape(-1, *[1] * (new.dim() - 1)), new, old)
            for new, old in zip(proposal, state, strict=True)
        )
    )
    return state, HMCInfo(acceptance, accepted, divergent, proposal_energy)


def hmc(
    log_prob_and_grad: LogProbAndGrad,
    start: torch.Tensor,
    steps: int,
    leapfrog_steps: int = 10,
    step_size: float = 0.01,
    adaptation_steps: int = 0,
    target_acceptance: float = 0.8,
    keep_chains: int | None = None,
    generator: Source = None,
    progress: Callable[[int], object] | None = None,
) -> HMCResult:
    """Run ``B`` independent chains for ``steps`` steps and return where they went.

    Args:
        log_prob_and_grad: the target, ``[B, d] -> ([B], [B, d])``: log density (up to a constant)
            and its gradient.
        start: starting points ``[B, d]``.
        steps: number of steps after the warm-up, at least 1.
        leapfrog_steps: leapfrog steps in each step, at least 1.
        step_size: leapfrog step size, positive; where the adaptation starts.
        adaptation_steps: number of steps taken first, during which one step size for all chains is
            adapted to ``target_acceptance`` by dual averaging, then frozen. 0: no adaptation.
        target_acceptance: mean acceptance probability aimed at, in (0, 1).
        keep_chains: how many chains to record; None: all of them.
        generator: source of randomness, on the device of ``start``: a generator of torch, or
            :class:`~pythae_geometric.geometry.RowStreams` for B rows; None: torch's global one.
        progress: called with 1 after every step, as the ``update`` of a progress bar is.

    Raises:
        ValueError: for values out of range, or a target that is not finite at the start.

    Example:
        >>> normal = lambda z: (-0.5 * z.square().sum(-1), -z)
        >>> result = hmc(normal, torch.zeros(1000, 2), steps=20, step_size=0.2)
        >>> result.samples.shape
        torch.Size([20, 1000, 2])
    """
    check_tensor(start, "start")
    if start.dim() != 2:
        raise ValueError(f"Chains must start at points [B, d], got {list(start.shape)}.")
    _check_arguments(steps, leapfrog_steps, step_size, adaptation_steps, target_acceptance)
    check_source(generator, len(start))
    if keep_chains is None:
        keep_chains = len(start)
    keep_chains = min(check_count("keep_chains", keep_chains, 0), len(start))
    with torch.no_grad():
        state = init(log_prob_and_grad, start.detach())
        adaptation = _DualAveraging(step_size, target_acceptance)
        samples = start.new_empty(steps, keep_chains, start.shape[1])
        acceptance = torch.zeros_like(state.log_prob)
        divergences = torch.zeros(len(start), dtype=torch.long, device=start.device)
        for step in range(-adaptation_steps, steps):
            state, info = hmc_step(log_prob_and_grad, state, leapfrog_steps, step_size, generator)
            if step < 0:
                step_size = adaptation.update(float(info.acceptance.mean()))
                if step == -1:
                    step_size = adaptation.averaged
            else:
                samples[step] = state.position[:keep_chains]
                acceptance += info.acceptance
                divergences += info.divergent
            if progress is not None:
                progress(1)
    return HMCResult(state.position, samples, acceptance / steps, divergences, step_size)


def _energy(state: HMCState, momentum: torch.Tensor) -> torch.Tensor:
    return 0.5 * momentum.square().sum(-1) - state.log_prob


class _DualAveraging:
    """Stochastic approximation of the step size with a given mean acceptance."""

    def __init__(self, step_size: float, target: float):
        self.target = target
        self.centre = math.log(10 * step_size)
        self.error = 0.0
        self.log_average = 0.0
        self.count = 0

    def update(self, acceptance: float) -> float:
        """Take in the last step's mean acceptance; the step size to try next."""
        self.count += 1
        weight = 1 / (self.count + 10)
        self.error += weight * (self.target - acceptance - self.error)
        log_step = self.centre - math.sqrt(self.count) / 0.05 * self.error
        self.log_average += self.count**-0.75 * (log_step - self.log_average)
        return math.exp(log_step)

    @property
    def averaged(self) -> float:
        """The step size to use from now on."""
        return math.exp(self.log_average)


def _check_step(log_prob_and_grad, state, name: str, steps: int, step_size: float) -> None:
    check_map(log_prob_and_grad, "log_prob_and_grad")
    if not isinstance(state, HMCState):
        raise TypeError(f"state must be an HMCState, got a {type(state).__name__}: init makes one.")
    check_count(name, steps, 1)
    check_number("step_size", step_size, above=0)


def _check_arguments(
    steps: int,
    leapfrog_steps: int,
    step_size: float,
    adaptation_steps: int,
    target_acceptance: float,
) -> None:
    for name, value, least in (
        ("steps", steps, 1),
        ("leapfrog_steps", leapfrog_steps, 1),
        ("adaptation_steps", adaptation_steps, 0),
    ):
        check_count(name, value, least)
    if not 0 < check_real("step_size", step_size) < float("inf"):
        raise ValueError(f"step_size must be positive and finite, got {step_size!r}.")
    if not 0 < check_real("target_acceptance", target_acceptance) < 1:
        raise ValueError(
            f"target_acceptance must be between 0 and 1, exclusive, got {target_acceptance!r}."
        )
