"""Pictures: grids of images, latent maps, trajectories. Needs the extra ``viz`` (matplotlib).

Every function draws on the ``Axes`` it is given, or on a new figure, and returns the ``Axes``; save
with ``ax.figure.savefig(path)``.
"""

import math

import torch

from ._extras import require
from .geometry import Metric


def image_grid(images, columns: int | None = None, title: str | None = None, ax=None):
    """Draw images side by side.

    Args:
        images: ``[N, 1 or 3, height, width]``, in [0, 1].
        columns: images in a row; None: as many as make the grid square.
        title: text above the grid.
        ax: the ``Axes`` to draw on; None: those of a new figure.

    Raises:
        ValueError: if there are no images, or they are of another shape.
    """
    images = torch.as_tensor(images).detach().cpu()
    if images.dim() != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(
            f"images must have shape [N >= 1, 1 or 3, height, width], got {list(images.shape)}."
        )
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    # A white frame one pixel wide parts the images, and fills the cells that are left.
    cells = torch.ones(rows * columns, images.shape[1], images.shape[2] + 1, images.shape[3] + 1)
    cells[: len(images), :, :-1, :-1] = images.clamp(0, 1)
    grid = cells.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    ax = ax or _new_axes(columns, rows)
    ax.imshow(grid[:-1, :-1].numpy().squeeze(), cmap="gray", vmin=0, vmax=1)
    ax.set_axis_off()
    if title:
        ax.set_title(title)
    return ax


def latent_map(
    metric: Metric,
    points: torch.Tensor,
    labels=None,
    resolution: int = 200,
    ax=None,
):
    r"""Draw a latent plane coloured by its log volume :math:`\log\sqrt{\det G}`, with points on it.

    Args:
        metric: of a plane (d = 2).
        points: ``[N, 2]``, such as the embeddings of a data set.
        labels: numbers ``[N]`` that colour the points.
        resolution: pixels along a side.
        ax: the ``Axes`` to draw on; None: those of a new figure.

    Raises:
        ValueError: if the points are not in a plane.
    """
    points = torch.as_tensor(points).detach().cpu()
    if points.dim() != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ValueError(
            f"A latent map is of a plane: points must be [N >= 1, 2], got {list(points.shape)}. "
            "Train a model with latent_dim=2, or project."
        )
    low, high = points.amin(0), points.amax(0)
    margin = 0.08 * (high - low) + 1e-3
    low, high = low - margin, high + margin
    axes = [torch.linspace(float(a), float(b), resolution) for a, b in zip(low, high, strict=True)]
    where = next(metric.buffers(), None)
    where = next(metric.parameters(), points) if where is None else where
    with torch.no_grad():
        volume = metric.log_volume(torch.cartesian_prod(*axes).to(where))
    volume = volume.reshape(resolution, resolution).T.cpu().numpy()

    ax = ax or _new_axes(10, 8)
    extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    picture = ax.imshow(volume, origin="lower", extent=extent, cmap="magma", aspect="auto")
    ax.figure.colorbar(picture, ax=ax, label="log volume")
    colours = {"color": "white"} if labels is None else {"c": labels, "cmap": "tab10"}
    scatter = ax.scatter(*points.T.numpy(), s=6, linewidths=0, **colours)
    if labels is not None:
        ax.legend(*scatter.legend_elements(num=None), title="Label", loc="upper left", fontsize=8)
    ax.set(xlim=extent[:2], ylim=extent[2:], xlabel="$z_1$", ylabel="$z_2$")
    return ax


def draw_curves(ax, curves: torch.Tensor, label: str | None = None, **style):
    """Draw curves, or chains, over a latent map, and mark where each starts.

    Args:
        ax: the ``Axes`` of the map.
        curves: ``[B, T, 2]``, T points on each of B curves.
        label: what the legend calls them; None: no legend.
        style: of matplotlib's lines, such as ``color`` and ``linestyle``.

    Raises:
        ValueError: if the curves are not in a plane.
    """
    curves = torch.as_tensor(curves).detach().cpu().numpy()
    if curves.ndim != 3 or curves.shape[2] != 2:
        raise ValueError(f"Curves over a map must be [B, T, 2], got {list(curves.shape)}.")
    limits = ax.get_xlim(), ax.get_ylim()
    lines = ax.plot(*curves.transpose(2, 1, 0), **{"color": "cyan", "linewidth": 1, **style})
    ax.scatter(
        *curves[:, 0].T, s=14, color=lines[0].get_color(), edgecolors="black", linewidths=0.5,
        zorder=3,
    )  # fmt: skip
    ax.set(xlim=limits[0], ylim=limits[1])
    if label:
        lines[0].set_label(label)
        old = ax.get_legend()
        # A map keeps one legend: the labels of its points, then its curves.
        handles = [*(old.legend_handles if old else []), lines[0]]
        names = [*(text.get_text() for text in (old.get_texts() if old else [])), label]
        ax.legend(handles, names, loc="upper left", fontsize=8)
    return ax


def trajectory_error(truth, prediction, times, grid, axes=None):
    """Draw a trajectory in space and time: the truth, a prediction, and their difference.

    Args:
        truth, prediction: ``[T, n]``, T profiles of n points.
        times: ``[T]``.
        grid: ``[n]``.
        axes: three ``Axes`` to draw on; None: those of a new figure.

    Returns:
        The three ``Axes``.

    Raises:
        ValueError: if the shapes do not fit.
    """
    truth, prediction, times, grid = _trajectories(truth, prediction, times, grid)
    if axes is None:
        pyplot = require("matplotlib.pyplot", "viz")
        axes = pyplot.subplots(1, 3, figsize=(11, 3), sharey=True, layout="constrained")[1]
    error = prediction - truth
    height, extent = abs(truth).max(), (times[0], times[-1], grid[0], grid[-1])
    for ax, values, title, limit in (
        (axes[0], truth, "truth", height),
        (axes[1], prediction, "prediction", height),
        (axes[2], error, "error", abs(error).max()),
    ):
        limit = max(float(limit), 1e-12)
        picture = ax.imshow(
            values.T, origin="lower", extent=extent, aspect="auto", cmap="RdBu_r", vmin=-limit,
            vmax=limit,
        )  # fmt: skip
        ax.figure.colorbar(picture, ax=ax)
        ax.set(title=title, xlabel="t")
    axes[0].set_ylabel("x")
    return axes


def animate_trajectory(truth, prediction, times, grid, every: int = 1):
    """Animate a trajectory: the profiles of truth and prediction, and below them their difference.

    Args:
        truth, prediction: ``[T, n]``, T profiles of n points.
        times: ``[T]``.
        grid: ``[n]``.
        every: a frame for every so many times.

    Returns:
        A matplotlib ``FuncAnimation``; keep it, and save it with
        ``animation.save(path, writer="pillow")``.

    Raises:
        ValueError: if the shapes do not fit, or ``every`` is less than 1.
    """
    truth, prediction, times, grid = _trajectories(truth, prediction, times, grid)
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}.")
    pyplot = require("matplotlib.pyplot", "viz")
    animation = require("matplotlib.animation", "viz")
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, layout="constrained")
    error = prediction - truth
    lines = [
        (above.plot(grid, truth[0], "k", label="truth")[0], truth),
        (above.plot(grid, prediction[0], "C1--", label="prediction")[0], prediction),
        (below.plot(grid, error[0], "C3")[0], error),
    ]
    height = 1.05 * float(max(abs(truth).max(), abs(prediction).max())) + 1e-12
    above.set(ylim=(-height, height))
    above.legend(loc="upper right")
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
        ValueError: if the shapes do not fit.
    """
    points = torch.as_tensor(points).detach().cpu()
    times = torch.as_tensor(times).detach().cpu()
    if points.ndim != 3 or points.shape[2] < 2 or len(times) != len(points) or len(points) == 0:
        raise ValueError(
            f"points must be [T, B, m >= 2] with a time for each T, got {list(points.shape)} and "
            f"{len(times)} times."
        )
    flat = points.flatten(0, 1)
    axes = torch.linalg.svd(flat - flat.mean(0), full_matrices=False).Vh[:2]
    plane = (flat - flat.mean(0)) @ axes.T
    ax = ax or _new_axes(9, 7)
    colours = times.repeat_interleave(points.shape[1])
    scatter = ax.scatter(*plane.T.numpy(), c=colours.numpy(), cmap="viridis", s=5, linewidths=0)
    ax.figure.colorbar(scatter, ax=ax, label="t")
    ax.set(xlabel="first principal direction", ylabel="second")
    return ax


def _trajectories(truth, prediction, times, grid):
    arrays = [torch.as_tensor(v).detach().cpu().numpy() for v in (truth, prediction, times, grid)]
    shape = (len(arrays[2]), len(arrays[3]))
    if shape[0] == 0 or arrays[0].shape != shape or arrays[1].shape != shape:
        raise ValueError(
            f"truth and prediction must be [T, n] = {list(shape)}, by times and grid, got "
            f"{list(arrays[0].shape)} and {list(arrays[1].shape)}."
        )
    return arrays


def _new_axes(columns: float, rows: float):
    pyplot = require("matplotlib.pyplot", "viz")
    return pyplot.subplots(figsize=(0.7 * columns, 0.7 * rows), layout="constrained")[1]
