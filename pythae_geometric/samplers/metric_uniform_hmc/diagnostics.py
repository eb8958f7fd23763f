from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from ..._extras import require

# A chain whose mean acceptance probability is below this (almost) never accepts.
NEVER = 1e-3
# A mean acceptance below this is a standstill.
STANDSTILL = 0.1
# More chains than this share in one of these states are worth a warning.
SHARE = 0.05


@dataclass(frozen=True)
class HMCDiagnostics:
    """What happened in the chains behind a call of ``sample``.

    Attributes:
        acceptance_rate: mean Metropolis acceptance probability, over all chains.
        divergences: number of divergent steps, over all chains.
        step_size: the mean leapfrog step size in use (after adaptation, if there was one).
        chains: paths ``[steps, n, latent_dim]`` of the first chains, in the space of the
            posteriors.
        num_chains: number of chains.
        never_accepted: number of chains with a mean acceptance probability below 0.001.
        at_start: number of chains that ended at the very point where they started. With
            ``metric="posteriors"`` these are codes of training data.
        restarted: how often a chain that did not move was begun again at another training code,
            up to five times each. ``never_accepted`` counts it by its first try.
        diverged: number of chains with a divergent step.
        flat: number of chains that ended where the metric of ``"posteriors"`` is flat: where its
            volume differs by less than 1 % a coordinate from that of the regularisation alone.

    A good acceptance rate is from 0.6 to 0.95. ``ess`` and ``r_hat`` need the extra ``diagnostics``
    (arviz). Chains of the paper's setting are short, with small steps, and start at random training
    points: they are far from stationary, and an ``r_hat`` well above 1 says that they still
    remember where they started.
    """

    acceptance_rate: float
    divergences: int
    step_size: float
    chains: torch.Tensor = field(repr=False)
    num_chains: int = 0
    never_accepted: int = 0
    at_start: int = 0
    diverged: int = 0
    flat: int = 0
    restarted: int = 0

    def problems(self, metric: str) -> str | None:
        """What the user should know of these chains and what to do, in one message; or None."""
        if metric == "codes":  # starts are exact draws: a few chains that keep to them do no harm
            if self.acceptance_rate > STANDSTILL:
                return None
            return (
                f"The mean acceptance of the {self.num_chains} chains is "
                f"{self.acceptance_rate:.2g}: most samples are the draws from which the chains "
                "started. Lower eps_lf, or leave it out."
            )
        smaller = "lower eps_lf, or take metric='codes'"
        causes = {
            "at_start": f"ended at the very point where they started, a training code ({smaller})",
            "never_accepted": f"accepted less than one step in 1,000 ({smaller})",
            "diverged": f"diverged ({smaller})",
            "flat": (
                "ended in the flat part of the metric, where a chain is a random walk that knows "
                "nothing of the data (take metric='codes', more centroids, or a higher temperature)"
            ),
        }
        found = [
            f"{100 * count / self.num_chains:.0f} % {text}"
            for name, text in causes.items()
            if (count := getattr(self, name)) > SHARE * self.num_chains
        ]
        if not found:
            return None
        return (
            f"Of the {self.num_chains} chains " + "; ".join(found) + ". Their mean acceptance is "
            f"{self.acceptance_rate:.2g}; sampler.diagnostics has the numbers."
        )

    @cached_property
    def ess(self) -> np.ndarray:
        """Bulk effective sample size of each latent coordinate, over ``chains``:
        ``[latent_dim]``."""
        return self._arviz("ess")

    @cached_property
    def r_hat(self) -> np.ndarray:
        """Rank-normalised split R-hat of each latent coordinate, over ``chains``:
        ``[latent_dim]``."""
        return self._arviz("rhat")

    def _arviz(self, statistic: str) -> np.ndarray:
        arviz = require("arviz", "diagnostics")
        steps, n, _ = self.chains.shape
        if steps < 4 or n < 2:
            raise ValueError(
                f"ESS and R-hat need at least 4 steps of 2 chains, here are {steps} of {n}: sample "
                "more, or raise mcmc_steps_nbr."
            )
        z = self.chains.permute(1, 0, 2).double().numpy()
        return getattr(arviz, statistic)(arviz.convert_to_dataset({"z": z}))["z"].values


def summarise(outcomes: list[HMCDiagnostics]) -> HMCDiagnostics:
    """The diagnostics of several batches of chains together; of the first the paths."""
    num_chains = sum(o.num_chains for o in outcomes)

    def mean(name):
        return sum(getattr(o, name) * o.num_chains for o in outcomes) / max(num_chains, 1)

    totals = ("divergences", "never_accepted", "at_start", "diverged", "flat", "restarted")
    return HMCDiagnostics(
        acceptance_rate=mean("acceptance_rate"),
        step_size=mean("step_size"),
        chains=outcomes[0].chains,
        num_chains=num_chains,
        **{name: sum(getattr(o, name) for o in outcomes) for name in totals},
    )
