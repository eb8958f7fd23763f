"""What happened to the paths of a sampler."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BrownianMotionDiagnostics:
    """What happened to the paths behind a call of ``sample``, ``sample_latent`` or
    ``trajectories``.

    Attributes:
        time: the duration of the motion.
        paths: number of paths.
        stopped: how many of them met a place where the metric is degenerate, and stopped at their
            last point before it.
        shortened: how many have taken shorter steps somewhere, because the metric changes there
            within the length of a step.
        excess_log_density: for ``stationary="codes"`` the mean log density of the ends in the
            distribution of the codes, minus its mean over that distribution. Near 0 if the motion
            has arrived there, negative if it has not, or if its steps are too long. None for
            ``"volume"``.
    """

    time: float
    paths: int
    stopped: int
    shortened: int
    excess_log_density: float | None = None
