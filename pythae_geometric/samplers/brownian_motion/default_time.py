"""How long a Brownian motion takes to go as far as new data are from known ones."""

import torch

from ...geometry import Metric, evaluation_mode

# That many points give a median to a few per cent.
MAX_POINTS = 1000
# The line between two codes is measured in that many pieces.
PIECES = 8
# Numbers in a block of the matrix of distances.
BLOCK = 2**24


@torch.no_grad()
def default_time(
    metric: Metric,
    codes: torch.Tensor,
    new_codes: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
    batch_size: int = 500,
) -> float:
    r"""The median squared distance of a new datum to the nearest training datum, divided by d.

    A Brownian motion of time t goes, for short times, a mean squared distance of :math:`d\,t`:
    after this time a typical path has gone as far as a new datum is from what is known.

    The nearest training datum is that of the nearest code, by the Euclidean distance. The squared
    distance is that along the straight line between the two codes in the metric,
    :math:`\int_0^1 \delta^\top G(z + s \delta)\, \delta\, ds` by the midpoint rule on 8 pieces,
    which is the squared geodesic distance or more. At most 1,000 new data, chosen at random, count.

    Args:
        metric: of the space of the codes.
        codes: of the training data, ``[N, d]``.
        new_codes: of held-out data, ``[M, d]``; None: each training datum is held out in turn, and
            compared with all others.
        generator: source of the choice.
        batch_size: how many lines are measured at a time.

    Returns:
        The time, in units of the squared length of the metric.

    Raises:
        ValueError: if there is no other datum, or most have a code in common with another one, or
            the metric is not finite.
    """
    remedy = "set time in the config."
    new = codes if new_codes is None else new_codes
    if new_codes is None and len(codes) < 2:
        raise ValueError(
            "A single training datum has no distance to another one from which a time could be "
            f"chosen: {remedy}"
        )
    own = torch.arange(len(new), device=codes.device)  # the place of each among the codes
    if len(new) > MAX_POINTS:
        own = torch.randperm(len(new), generator=generator, device=codes.device)[:MAX_POINTS]
    new = new[own]

    nearest = []
    rows = max(1, BLOCK // len(codes))
    for z, i in zip(new.split(rows), own.split(rows), strict=True):
        # The faster way, by a matrix product, does not see that two points are the same.
        distance = torch.cdist(z, codes, compute_mode="donot_use_mm_for_euclid_dist")
        if new_codes is None:
            distance[torch.arange(len(z), device=z.device), i] = torch.inf
        nearest.append(codes[distance.argmin(1)])

    with evaluation_mode(metric):
        square = [
            _squared_length(metric, z, y)
            for z, y in zip(
                new.split(batch_size), torch.cat(nearest).split(batch_size), strict=True
            )
        ]
    time = float(torch.cat(square).double().median()) / codes.shape[1]
    if time == 0:
        raise ValueError(
            "At least half of the data have the code of another one, or are at distance 0 from it "
            f"in the metric, so no time can be chosen by their distances: {remedy}"
        )
    if not 0 < time < float("inf"):
        raise ValueError(
            f"The metric is not finite between the codes, so no time can be chosen: {remedy}"
        )
    return time


def _squared_length(metric: Metric, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Squared lengths ``[B]`` of the straight lines between points ``[B, d]``, or a bit more where
    their speed changes."""
    delta, total = y - x, x.new_zeros(len(x))
    for k in range(PIECES):
        total = total + metric.norm(x + (k + 0.5) / PIECES * delta, delta).square()
    return total / PIECES
