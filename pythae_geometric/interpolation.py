"""Interpolation between data points along curves of a model's latent space."""

from typing import Literal, NamedTuple

import torch
from pythae.models import BaseAE

from ._checks import check_count
from ._inputs import as_data, as_model, like
from .geometry import Metric, PullbackMetric, evaluation_mode, geodesic, potential_path
from .models.checks import check_data
from .models.decoder_map import DecoderMap, decoder_space
from .models.foreign import given, labels_for
from .samplers.posteriors import code, decode


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
    starting_inputs: object,
    ending_inputs: object,
    path: Literal["line", "geodesic", "potential"] = "geodesic",
    metric: Metric | None = None,
    granularity: int = 10,
    steps: int = 32,
    iterations: int = 400,
    labels: object = None,
) -> Interpolation:
    r"""Encode pairs of data points, join them by curves, and decode along the way.

    Args:
        model: any pythae model; used in evaluation mode.
        starting_inputs: where the curves start, ``[B, *input_dim]``: array, tensor, list, data
            frame, data set or ``DataLoader``.
        ending_inputs: where they end, likewise.
        path: ``"line"``: the straight line. ``"geodesic"``: the shortest curve near it.
            ``"potential"``: the curve that minimises :math:`1 / \sqrt{\det G}` along the way
            (Chadebec and Allassonnière, NeurIPS 2022), which keeps to where data are.
        metric: of the latent space; None: the pullback of the Euclidean metric by the decoder. A
            fitted sampler's ``metric``; with ``metric="posteriors"`` it is the paper's.
        granularity: number of points on each strip, at least 2.
        steps: number of steps of the curves' discretisation, even and at least 4.
        iterations: the most that the search for a curve may take, 1 or more.
        labels: of the pairs, ``[B, ...]``, for models whose networks take them
            (:mod:`~pythae_geometric.models.foreign`). Both ends of a
            curve, and all that is between, have its label.

    Raises:
        TypeError: if the inputs are not real numbers, the model is not pythae's, ``metric`` is no
            metric, or labels are missing or not taken.
        ValueError: if the inputs are not finite or their shapes are wrong, labels are not as many,
            a number is out of range, or ``path`` is unknown.

    Warns:
        ConvergenceWarning: some curves did not converge.

    Example:
        >>> strips = interpolate(model, x[:3], x[3:6], "geodesic").reconstructions
        >>> plotting.image_grid(strips.flatten(0, 1), columns=10)
    """
    if path not in ("line", "geodesic", "potential"):
        raise ValueError(f"path must be 'line', 'geodesic' or 'potential', got {path!r}.")
    granularity = check_count("granularity", granularity, 2)
    model = as_model(model)
    if metric is not None and not isinstance(metric, Metric):
        raise TypeError(f"metric must be a geometry.Metric, got {type(metric).__name__}.")
    ends = {"starting_inputs": starting_inputs, "ending_inputs": ending_inputs}
    ends = {name: as_data(x, name).to(like(model)) for name, x in ends.items()}
    shapes = [list(x.shape) for x in ends.values()]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "starting_inputs and ending_inputs must have one shape [B >= 1, ...], got "
            f"{shapes[0]} and {shapes[1]}."
        )
    for name, x in ends.items():
        check_data(x, model.model_config, name)
    if (labels := labels_for(model, labels, shapes[0][0])) is not None:
        options = (path, metric, granularity, steps, iterations)
        return _label_by_label(model, labels, *ends.values(), *options)
    with evaluation_mode(model):
        with torch.no_grad():
            start, end = (code(model, x) for x in ends.values())
        t = torch.linspace(0, 1, granularity, dtype=start.dtype, device=start.device)
        if path == "line":
            latent = start.unsqueeze(1) + t.unsqueeze(-1) * (end - start).unsqueeze(1)
            converged = torch.ones(len(start), dtype=torch.bool, device=start.device)
        else:
            steps = check_count("steps", steps, 4)
            iterations = check_count("iterations", iterations, 1)
            find = geodesic if path == "geodesic" else potential_path
            metric = PullbackMetric(DecoderMap(model)) if metric is None else metric
            # Decoders of ReLU have kinks, where no search converges to the last digit: this
            # tolerance leaves an energy within 1e-4 of the least.
            curve = find(metric, start, end, steps, iterations=iterations, tolerance=1e-2)
            latent, converged = curve(t), curve.converged
        with torch.no_grad():
            z = decoder_space(model)(latent.flatten(0, 1))
            x = decode(model, z)
    return Interpolation(x.unflatten(0, latent.shape[:2]), latent, converged)


def _label_by_label(model: BaseAE, labels: torch.Tensor, start, end, *options) -> Interpolation:
    """The curves of all pairs, those of one label together."""
    values, which = labels.unique(dim=0, return_inverse=True)
    order, parts = [], []
    for i, label in enumerate(values):
        rows = (which == i).nonzero().flatten()
        order.append(rows)
        parts.append(interpolate(given(model, label), start[rows], end[rows], *options))
    back = torch.cat(order).argsort()
    return Interpolation(*(torch.cat(part)[back] for part in zip(*parts, strict=True)))
