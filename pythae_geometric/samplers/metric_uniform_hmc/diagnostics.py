"""How well the chains of a sampler mixed."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from ..._extras import require


@dataclass(frozen=True)
class HMCDiagnostics:
    """What happened in the chains behind a call of ``sample``.

    Attributes:
        acceptance_rate: mean Metropolis acceptance probability, over all chains.
        divergences: number of divergent steps, over all chains.
        step_size: the mean leapfrog step size in use (after adaptation, if there was one).
        chains: paths ``[steps, n, latent_dim]`` of the first chains, in the space of the
            posteriors.

    ``ess`` and ``r_hat`` need the extra ``diagnostics`` (arviz). A sampler of the paper's setting
    starts a short chain with small steps at each of many random points. Such chains are far from
    stationary: an ``r_hat`` well above 1 says that they still remember where they started.
    """

    acceptance_rate: float
    divergences: int
    step_size: float
    chains: torch.Tensor = field(repr=False)

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
