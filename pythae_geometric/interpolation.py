"""Interpolation between data points along curves of a model's latent space."""

from typing import Literal, NamedTuple

import torch
from pythae.models import BaseAE

from .geometry import Metric, PullbackMetric, geodesic, potential_path
from .samplers.posteriors import to_decoder_space


class Interpolation(NamedTuple):
    """What :func:`interpolate` found, for each pair of data points.

    ``reconstructions`` ``[B, T, *input_dim]`` are the decoded strips, ``latent``
    ``[B, T, latent_dim]`` the points of the curves, and ``converged`` ``[B]`` says which curves
    are those asked for, to the accuracy of the solver.
    """

    reconstructions: torch.Tensor
    latent: torch.Tensor
    converged: torch.Tensor


def interpolate(
    model: BaseAE,
    starting_inputs: torch.Tensor,
    ending_inputs: torch.Tensor,
    path: Literal["line", "geodesic", "potential"] = "geodesic",
    metric: Metric | None = None,
    granularity: int = 10,
    nodes: int = 32,
) -> Interpolation:
    r"""Encode pairs of data points, join them by curves, and decode along the way.

    Args:
        model: any pythae model; used in evaluation mode.
        starting_inputs: where the curves start, ``[B, *input_dim]``.
        ending_inputs: where they end, ``[B, *input_dim]``.
        path: ``"line"``: the straight line. ``"geodesic"``: the shortest curve near it.
            ``"potential"``: the curve that minimises :math:`1 / \sqrt{\det G}` along the way
            (Chadebec and Allassonnière, NeurIPS 2022), which keeps to where data are.
        metric: of the latent space; None: the pullback of the Euclidean metric by the decoder. A
            fitted sampler's ``metric``; with ``metric="posteriors"`` it is the paper's.
        granularity: number of points on each strip, at least 2.
        nodes: number of steps of the curves' discretisation, even.

    Raises:
        ValueError: if the inputs' shapes differ, a number is out of range, or ``path`` is unknown.

    Warns:
        ConvergenceWarning: some curves did not converge.

    Example:
        >>> strips = interpolate(model, x[:3], x[3:6], "geodesic").reconstructions
        >>> plotting.image_grid(strips.flatten(0, 1), columns=10)
    """
    if path not in ("line", "geodesic", "potential"):
        raise ValueError(f"path must be 'line', 'geodesic' or 'potential', got {path!r}.")
    if starting_inputs.shape != ending_inputs.shape or len(starting_inputs) == 0:
        raise ValueError(
            "starting_inputs and ending_inputs must have one shape [B >= 1, ...], got "
            f"{list(starting_inputs.shape)} and {list(ending_inputs.shape)}."
        )
    if granularity < 2:
        raise ValueError(f"granularity must be at least 2, the two ends, got {granularity}.")

    def decode(z):
        return model.decoder(to_decoder_space(model, z))["reconstruction"]

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            start = model.encoder(starting_inputs).embedding
            end = model.encoder(ending_inputs).embedding
        t = torch.linspace(0, 1, granularity, dtype=start.dtype, device=start.device)
        if path == "line":
            latent = start.unsqueeze(1) + t.unsqueeze(-1) * (end - start).unsqueeze(1)
            converged = torch.ones(len(start), dtype=torch.bool, device=start.device)
        else:
            find = geodesic if path == "geodesic" else potential_path
            metric = PullbackMetric(decode) if metric is None else metric
            # Decoders of ReLU have kinks, where no search converges to the last digit: this
            # tolerance leaves an energy within 1e-4 of the least.
            curve = find(metric, start, end, nodes, iterations=400, tolerance=1e-2)
            latent, converged = curve(t), curve.converged
        with torch.no_grad():
            strips = decode(latent.flatten(0, 1)).unflatten(0, latent.shape[:2])
    finally:
        model.train(was_training)
    return Interpolation(strips, latent, converged)
