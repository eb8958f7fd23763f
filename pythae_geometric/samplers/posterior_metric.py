"""The metric of Chadebec and Allassonnière (NeurIPS 2022), made from the posteriors of a model."""

import torch

from ..geometry import PosteriorMetric
from ..models.brownian_rvae import BrownianRVAE
from .centroids import largest_nearest_distance, select_centroids

# The paper's numbers (section 4 and Algorithm 1).
NUM_CENTROIDS = 100
REGULARIZATION = 0.01
# Log variances within these bounds have precisions that float32 holds.
MAX_LOG_VARIANCE = 80.0


def posterior_metric(
    means: torch.Tensor,
    log_vars: torch.Tensor,
    num_centroids: int | None = None,
    centroid_selection: str = "kmedoids",
    temperature: float | None = None,
    regularization: float = REGULARIZATION,
    decay: float = 0.0,
    additive_volume: bool = False,
    seed: int = 0,
) -> PosteriorMetric:
    r"""The metric interpolated between the inverse posterior covariances at a few centroids.

    Args:
        means: posterior means, ``[N, d]``.
        log_vars: logarithms of the posterior variances, ``[N, d]``.
        num_centroids: K, chosen among the means; None: the paper's 100, or all means if there are
            fewer.
        centroid_selection: ``"kmedoids"``, ``"sklearn-extra"`` or ``"random"``.
        temperature: :math:`\rho > 0`; None: the paper's rule, the largest distance from a centroid
            to its nearest other one.
        regularization: :math:`\lambda \ge 0`.
        decay: :math:`\tau \ge 0`.
        additive_volume: see :class:`~pythae_geometric.geometry.PosteriorMetric`.
        seed: of the choice of centroids.

    Raises:
        ValueError: if there are fewer means than centroids, if the variances have collapsed or
            exploded, if the paper's temperature is not defined or 0, or if the temperature is too
            small or too large for floating-point numbers.
    """
    if num_centroids is None:
        num_centroids = min(NUM_CENTROIDS, len(means))
    if num_centroids > len(means):
        raise ValueError(
            f"num_centroids is {num_centroids}, but there are only {len(means)} training points to "
            "choose them from: set it to at most that."
        )
    chosen = select_centroids(means, num_centroids, centroid_selection, seed)
    centroids, log_var = means[chosen], log_vars[chosen]
    if temperature is None:
        temperature = _paper_temperature(centroids)
    numbers = torch.finfo(centroids.dtype)
    if not numbers.tiny < temperature**2 < numbers.max:
        raise ValueError(
            f"temperature is {temperature:.3g}, and {centroids.dtype} does not hold its square: "
            "choose one on the scale of the distances between codes."
        )
    if float(log_var.abs().max()) > MAX_LOG_VARIANCE:
        raise ValueError(
            "The posterior variances of the model have collapsed or exploded (log variances from "
            f"{float(log_var.min()):.3g} to {float(log_var.max()):.3g}): no metric can be made of "
            "them. Train the model again, with a smaller learning rate."
        )
    precisions = torch.exp(-log_var)
    return PosteriorMetric(
        centroids, precisions, temperature, regularization, decay, additive_volume
    )


def refuse_times(model) -> None:
    """Raise a TypeError for a model whose encoder gives times, not variances."""
    if isinstance(model, BrownianRVAE):
        raise TypeError(
            "The encoder of a BrownianRVAE gives the logarithm of a time, not variances "
            "(log_covariance), so there is no posterior metric of its codes: take its own metric "
            "(BrownianMotionSampler), or that of the codes (metric='codes' of "
            "MetricUniformHMCSampler)."
        )


def _paper_temperature(centroids: torch.Tensor) -> float:
    if len(centroids) == 1:
        raise ValueError(
            "With a single centroid the paper's temperature (a distance between centroids) is not "
            "defined: pass more data, or in a MetricUniformHMCSamplerConfig set temperature or "
            "raise num_centroids."
        )
    temperature = largest_nearest_distance(centroids)
    if temperature == 0:
        raise ValueError(
            "Every centroid coincides with another one, so the paper's temperature is 0: the model "
            "encodes different data to the same point, or the data are duplicates. Remove the "
            "duplicates, or in a MetricUniformHMCSamplerConfig set temperature or lower "
            "num_centroids."
        )
    return temperature
