"""Pictures: grids of images, latent maps, trajectories. Needs the extra ``viz`` (matplotlib).

Every function draws on the ``Axes`` it is given, or on a new figure, and returns the ``Axes``; save
with ``ax.figure.savefig(path)``. New figures have the style of this package, ``STYLE``, given ones
keep theirs. Legends stand beside the ``Axes``: give your own figures ``layout="constrained"``, so
that there is room for them.
"""

import math

import numpy as np
import torch

from ._checks import check_count, check_finite
from ._extras import require
from ._inputs import as_data, as_images, as_labels, as_points, floating, like
from .geometry import Metric, evaluation_mode
from .geometry._warnings import warn
from .plotting_style import COLOURS, MARKERS, legend_beside, style_for, volume_map
from .plotting_style import STYLE as STYLE  # for users

# Labels of more values than this are shown by a colour bar.
MOST_CLASSES = 20
# Pixels of a map whose volume is computed at a time.
BATCH = 2000
# Times at which fields are drawn.
FIELD_TIMES = 5


def image_grid(images, columns: int | None = None, title: str | None = None, ax=None):
    """Draw images side by side, in frames of the colour that their edges are not.

    Args:
        images: ``[N, 1 or 3, height, width]`` in [0, 1], cut off there, or in uint8 from 0 to 255:
            array, tensor, list, data set or ``DataLoader``.
        columns: images in a row, 1 or more; None: as many as make the grid square.
        title: text above the grid.
        ax: the ``Axes`` to draw on; None: those of a new figure.

    Raises:
        TypeError: if the images are not real numbers, or ``ax`` is no ``Axes``.
        ValueError: if there are no images, they are of another shape or not finite, or ``columns``
            is out of range.

    Warns:
        UserWarning: if values are far above 1.
    """
    images = as_images(images, channels=(1, 3)).cpu()
    if float(images.max()) > 10:
        warn(
            f"The images reach {float(images.max()):.3g}, and are cut off at 1: divide them by 255 "
            "if that is white."
        )
    images = images.clamp(0, 1)
    N, channels, height, width = images.shape
    if columns is None:
        columns = math.ceil(math.sqrt(N))
    columns = check_count("columns", columns, 1)
    rows = math.ceil(N / columns)
    # White between dark images, and black between bright ones: they would run together.
    edges = torch.cat([images[..., [0, -1], :].flatten(), images[..., [0, -1]].flatten()])
    frame, gap = float(edges.mean() < 0.5), max(1, round(min(height, width) / 16))
    cells = torch.ones(rows * columns, channels, height + gap, width + gap)
    cells[:N] = frame
    cells[:N, :, gap:, gap:] = images
    grid = cells.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    grid = torch.nn.functional.pad(grid, (0, 0, 0, gap, 0, gap), value=frame)
    with style_for(ax):
        ax = _axes(ax, columns, rows)
        pixels = grid.numpy().squeeze(2) if channels == 1 else grid.numpy()
        ax.imshow(pixels, "gray", vmin=0, vmax=1)
        ax.set_axis_off()
        if title:
            ax.set_title(title)
    return ax


def latent_map(metric: Metric, points, labels=None, resolution: int = 200, ax=None):
    r"""Draw the log volume :math:`\log\sqrt{\det G}` of a latent plane in greys, and points on it.

    Args:
        metric: of a plane (d = 2).
        points: ``[N, 2]``, such as the embeddings of a data set.
        labels: numbers or words ``[N]``, or one-hot rows, that colour the points. Up to 20 values
            are classes, each with a colour, a marker and a place in a legend; other numbers have a
            colour bar.
        resolution: pixels along a side, 2 or more.
        ax: the ``Axes`` to draw on; None: those of a new figure.

    Raises:
        TypeError: if the points are not real numbers, ``metric`` is no metric, or ``ax`` no
            ``Axes``.
        ValueError: if the points are not in a plane or not finite, there is not one label for each,
            there are more than 20 words, or ``resolution`` is out of range.
    """
    if not isinstance(metric, Metric):
        raise TypeError(f"metric must be a geometry.Metric, got a {type(metric).__name__}.")
    resolution = check_count("resolution", resolution, 2)
    points = as_points(points, "points", 2)
    if labels is not None:
        labels = as_labels(labels, "labels", len(points))
    low, high = points.amin(0), points.amax(0)
    margin = 0.08 * (high - low) + 1e-3
    low, high = (low - margin).tolist(), (high + margin).tolist()
    axes = [
        torch.linspace(*side, resolution, dtype=torch.float64)
        for side in zip(low, high, strict=True)
    ]
    grid = torch.cartesian_prod(*axes).to(like(metric, points))
    with torch.no_grad(), evaluation_mode(metric):
        volume = torch.cat([metric.log_volume(z) for z in grid.split(BATCH)])
    volume = volume.reshape(resolution, resolution).T.cpu().numpy()

    with style_for(ax):
        ax = _axes(ax, 10, 9)
        extent = (low[0], high[0], low[1], high[1])
        picture = ax.imshow(volume, volume_map(), origin="lower", extent=extent, aspect="auto")
        ax.figure.colorbar(picture, ax=ax, label="log volume", location="bottom", aspect=40)
        _scatter(ax, points.cpu().numpy(), labels)
        ax.set(xlim=extent[:2], ylim=extent[2:], xlabel="$z_1$", ylabel="$z_2$")
    return ax


def _scatter(ax, points: np.ndarray, labels: np.ndarray | None) -> None:
    """Points over a map, with a legend or a colour bar of their labels."""
    style = {"s": 14, "linewidths": 0.3, "edgecolors": "white"}
    if labels is None:
        ax.scatter(*points.T, color=COLOURS[0], **style)
        return
    values = np.unique(labels)
    if len(values) > MOST_CLASSES:
        if labels.dtype.kind == "U":
            raise ValueError(
                f"labels have {len(values)} values, and {MOST_CLASSES} classes can be told apart: "
                "join some of them, or pass numbers."
            )
        scatter = ax.scatter(*points.T, c=labels, cmap="viridis", **style)
        ax.figure.colorbar(scatter, ax=ax, label="label")
        return
    for k, value in enumerate(values):
        marker, colour = divmod(k, len(COLOURS))
        name = value if labels.dtype.kind == "U" else f"{value:g}"
        style |= {"color": COLOURS[colour], "marker": MARKERS[marker], "label": name}
        ax.scatter(*points[labels == value].T, **style)
    legend_beside(ax)


def draw_curves(ax, curves, label: str | None = None, **style):
    """Draw curves, or chains, over a latent map, and mark where each starts.

    Args:
        ax: the ``Axes`` of the map.
        curves: ``[B, T, 2]``, T points on each of B curves.
        label: what the legend calls them; None: no legend.
        style: of matplotlib's lines, such as ``color`` and ``linestyle``. They are black and thin.

    Raises:
        TypeError: if the curves are not real numbers, or ``ax`` is no ``Axes``.
        ValueError: if they are not in a plane, or not finite.
    """
    curves, ax = _numbers(curves, "curves"), _given_axes(ax, "ax")
    if curves.ndim != 3 or curves.shape[2] != 2:
        raise ValueError(f"Curves over a map must be [B, T, 2], got {list(curves.shape)}.")
    limits = ax.get_xlim(), ax.get_ylim()
    lines = ax.plot(*curves.transpose(2, 1, 0), **{"color": "black", "linewidth": 1, **style})
    ax.scatter(
        *curves[:, 0].T, s=16, color=lines[0].get_color(), edgecolors="white", linewidths=0.5,
        zorder=3,
    )  # fmt: skip
    ax.set(xlim=limits[0], ylim=limits[1])
    if label:
        lines[0].set_label(label)
        legend_beside(ax)
    return ax


def trajectory_error(truth, prediction, times, grid, axes=None):
    """Draw a trajectory in space and time: the truth, a prediction, and their difference.

    Profiles on a line are drawn over space and time, fields in a plane at some of the times.

    Args:
        truth, prediction: ``[T, n]``, T profiles of n points, or ``[T, height, width]``, T fields.
        times: ``[T]``.
        grid: ``[n]``; for fields the pair of ``[height]`` and ``[width]``.
        axes: three ``Axes`` to draw on, for fields ``[3, k]`` for k times; None: those of a new
            figure, for fields of five times from the first to the last.

    Returns:
        The ``Axes``, ``[3]``, for fields ``[3, k]``: truth, prediction and error.

    Raises:
        TypeError: if they are not real numbers, ``axes`` are not as many ``Axes``, or the grid of
            fields is no pair.
        ValueError: if the shapes do not fit, or numbers are not finite.
    """
    truth = _numbers(truth, "truth")
    if truth.ndim == 3:
        return _field_error(truth, prediction, times, grid, axes)
    truth, prediction, times, grid = _trajectories(truth, prediction, times, grid)
    with style_for(axes):
        if axes is None:
            pyplot = require("matplotlib.pyplot", "viz")
            axes = pyplot.subplots(1, 3, figsize=(11, 3), sharey=True)[1]
        if np.shape(axes) != (3,):
            raise TypeError(f"axes must be three matplotlib Axes, or None, got {axes!r}.")
        axes = [_given_axes(ax, "axes") for ax in axes]
        extent = (times[0], times[-1], grid[0], grid[-1])
        for ax, (title, values, limit) in zip(axes, _rows(truth, prediction), strict=True):
            picture = _signed_image(ax, values.T, extent, limit)
            ax.figure.colorbar(picture, ax=ax)
            ax.set(title=title, xlabel="t")
        axes[0].set_ylabel("x")
    return axes


def _field_error(truth, prediction, times, grid, axes):
    """Rows of truth, prediction and error, a column for each of some times."""
    if not isinstance(grid, (tuple, list)) or len(grid) != 2:
        raise TypeError(
            f"The grid of fields {list(truth.shape)} must be a pair, of their rows and of their "
            f"columns, got a {type(grid).__name__}."
        )
    prediction, times = _numbers(prediction, "prediction"), _numbers(times, "times")
    y, x = (_numbers(values, "grid") for values in grid)
    shape = (*times.shape, *y.shape, *x.shape)
    if len(shape) != 3 or truth.shape != shape or prediction.shape != shape:
        raise ValueError(
            f"truth and prediction must be [T, height, width] = {list(shape)}, by times and grid, "
            f"got {list(truth.shape)} and {list(prediction.shape)}."
        )
    with style_for(axes):
        if axes is None:
            pyplot, k = require("matplotlib.pyplot", "viz"), min(FIELD_TIMES, len(times))
            options = {"figsize": (2 * k + 1, 6), "sharex": True, "sharey": True, "squeeze": False}
            axes = pyplot.subplots(3, k, **options)[1]
        axes = np.asarray(axes)
        if axes.ndim != 2 or len(axes) != 3 or axes.shape[1] == 0:
            raise TypeError(f"axes for fields must be matplotlib Axes [3, k], or None, got {axes}.")
        for ax in axes.flat:
            _given_axes(ax, "axes")
        shown = np.linspace(0, len(times) - 1, axes.shape[1]).round().astype(int)
        extent = (x[0], x[-1], y[0], y[-1])
        for row, (title, values, limit) in zip(axes, _rows(truth, prediction), strict=True):
            for ax, i in zip(row, shown, strict=True):
                picture = _signed_image(ax, values[i], extent, limit)
            row[0].figure.colorbar(picture, ax=list(row))
            row[0].set_ylabel(f"{title}\ny")
        for ax, i in zip(axes[0], shown, strict=True):
            ax.set_title(f"t = {float(times[i]):.3g}")
        for ax in axes[-1]:
            ax.set_xlabel("x")
    return axes


def _rows(truth: np.ndarray, prediction: np.ndarray) -> list[tuple[str, np.ndarray, float]]:
    """What is drawn of a trajectory: its name, the values, and the largest that has a colour."""
    error, height = prediction - truth, float(abs(truth).max())
    return [
        ("truth", truth, height),
        ("prediction", prediction, height),
        ("error", error, float(abs(error).max())),
    ]


def _signed_image(ax, values: np.ndarray, extent: tuple[float, ...], limit: float):
    """Values from ``-limit`` to ``limit``, with white for 0."""
    limit = max(limit, 1e-12)
    options = {"origin": "lower", "extent": extent, "aspect": "auto", "cmap": "RdBu_r"}
    return ax.imshow(values, vmin=-limit, vmax=limit, **options)


def animate_trajectory(truth, prediction, times, grid, every: int = 1):
    """Animate a trajectory: the profiles of truth and prediction, and below them their difference.

    Args:
        truth, prediction: ``[T, n]``, T profiles of n points.
        times: ``[T]``.
        grid: ``[n]``.
        every: a frame for every so many times, 1 or more.

    Returns:
        A matplotlib ``FuncAnimation``; keep it, and save it with
        ``animation.save(path, writer="pillow")``.

    Raises:
        TypeError: if they are not real numbers.
        ValueError: if the shapes do not fit, numbers are not finite, or ``every`` is out of range.
    """
    every = check_count("every", every, 1)
    truth, prediction, times, grid = _trajectories(truth, prediction, times, grid)
    pyplot = require("matplotlib.pyplot", "viz")
    animation = require("matplotlib.animation", "viz")
    error = prediction - truth
    with style_for(None):
        figure, (above, below) = pyplot.subplots(2, 1, sharex=True)
        lines = [
            (above.plot(grid, truth[0], "k", label="truth")[0], truth),
            (above.plot(grid, prediction[0], "C1--", label="prediction")[0], prediction),
            (below.plot(grid, error[0], "C1")[0], error),
        ]
        height = 1.05 * float(max(abs(truth).max(), abs(prediction).max())) + 1e-12
        above.set(ylim=(-height, height))
        legend_beside(above)
        height = 1.05 * float(abs(error).max()) + 1e-12
        below.set(ylim=(-height, height), xlabel="x", ylabel="error")

    def draw(frame):
        for line, values in lines:
            line.set_ydata(values[frame])
        above.set_title(f"t = {float(times[frame]):.3g}")
        return [line for line, _ in lines]

    return animation.FuncAnimation(figure, draw, frames=range(0, len(times), every))


def manifold_over_time(points, times, ax=None):
    """Draw points of a moving manifold in the plane of their two greatest variances, coloured by
    time.

    Args:
        points: ``[T, B, m]``, B points at each of T times, m at least 2.
        times: ``[T]``.
        ax: the ``Axes`` to draw on; None: those of a new figure.

    Raises:
        TypeError: if they are not real numbers, or ``ax`` is no ``Axes``.
        ValueError: if the shapes do not fit, or numbers are not finite.
    """
    points, times = _numbers(points, "points"), _numbers(times, "times")
    if points.ndim != 3 or points.shape[2] < 2 or times.shape != points.shape[:1]:
        raise ValueError(
            f"points must be [T, B, m >= 2] with a time for each T, got {list(points.shape)} and "
            f"times {list(times.shape)}."
        )
    flat = points.reshape(-1, points.shape[2]) - points.mean((0, 1))
    plane = flat @ np.linalg.svd(flat, full_matrices=False).Vh[:2].T
    with style_for(ax):
        ax = _axes(ax, 9, 7)
        colours = times.repeat(points.shape[1])
        scatter = ax.scatter(*plane.T, c=colours, cmap="viridis", s=5, linewidths=0)
        ax.figure.colorbar(scatter, ax=ax, label="t")
        ax.set(xlabel="first principal direction", ylabel="second principal direction")
    return ax


def _trajectories(truth, prediction, times, grid):
    given = {"truth": truth, "prediction": prediction, "times": times, "grid": grid}
    truth, prediction, times, grid = (_numbers(values, name) for name, values in given.items())
    shape = (*times.shape, *grid.shape)
    if times.ndim != 1 or grid.ndim != 1 or truth.shape != shape or prediction.shape != shape:
        raise ValueError(
            f"truth and prediction must be [T, n] = {list(shape)}, by times and grid, got "
            f"{list(truth.shape)} and {list(prediction.shape)}."
        )
    return truth, prediction, times, grid


def _numbers(values, name: str) -> np.ndarray:
    """Finite floating-point numbers as an array, with a row or more."""
    values = floating(as_data(values, name))
    check_finite(values, name)
    return values.cpu().numpy()


def _axes(ax, columns: float, rows: float):
    """The ``Axes`` that were given, or those of a new figure of such a size."""
    if ax is not None:
        return _given_axes(ax, "ax")
    pyplot = require("matplotlib.pyplot", "viz")
    return pyplot.subplots(figsize=(0.7 * columns, 0.7 * rows))[1]


def _given_axes(ax, name: str):
    if not isinstance(ax, require("matplotlib.axes", "viz").Axes):
        raise TypeError(f"{name} must be matplotlib Axes, got {ax!r}: pyplot.subplots()[1] is one.")
    return ax
