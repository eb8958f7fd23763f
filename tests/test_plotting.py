import itertools
import sys

import numpy as np
import pytest
import torch

from pythae_geometric import plotting
from pythae_geometric.geometry import PosteriorMetric, PullbackMetric
from pythae_geometric.plotting_style import COLOURS

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    pytest.importorskip("matplotlib.pyplot").close("all")


METRIC = PosteriorMetric(torch.tensor([[0.0, 0.0], [1.0, 2.0]]), torch.ones(2, 2), 1.0)


def grid_of(images, **arguments):
    return np.asarray(plotting.image_grid(images, **arguments).images[0].get_array())


def test_image_grid_puts_every_image_in_its_cell():
    images = 0.4 * torch.arange(5.0)[:, None, None, None].expand(5, 1, 3, 4) / 4
    pixels = grid_of(images, columns=3)
    assert pixels.shape == (2 * 4 + 1, 3 * 5 + 1)
    inside = np.zeros(pixels.shape, bool)
    for i in range(5):
        row, column = divmod(i, 3)
        cell = slice(row * 4 + 1, row * 4 + 4), slice(column * 5 + 1, column * 5 + 5)
        np.testing.assert_allclose(pixels[cell], 0.1 * i)
        inside[cell] = True
    np.testing.assert_allclose(pixels[~inside], 1.0)  # frames, and the cell that is left


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_do_not_run_together(channels, value):
    """Nor do large ones in a small picture: the frame grows with them."""
    for size, frame in ((8, 1), (64, 4)):
        pixels = grid_of(torch.full((4, channels, size, size), value))
        length = 2 * size + 3 * frame
        assert pixels.shape == ((length, length, 3) if channels == 3 else (length, length))
        other = pixels.reshape(length, length, -1)[..., 0] != value
        assert other.all(1).sum() == other.all(0).sum() == 3 * frame


def test_images_of_bytes_are_drawn_as_they_are():
    images = np.linspace(0, 1, 9 * 16).reshape(9, 1, 4, 4)
    bytes_ = np.round(255 * images).astype(np.uint8)
    np.testing.assert_allclose(grid_of(bytes_), grid_of(images), atol=0.51 / 255)
    with pytest.warns(UserWarning, match="The images reach 255, and are cut off at 1"):
        grid_of(255 * images)


def test_latent_map_shows_the_volume_where_it_is():
    points = torch.tensor([[-1.0, -2.0], [3.0, 4.0]])
    ax = plotting.latent_map(METRIC, points, labels=[0, 1])
    picture = ax.images[0]
    left, right, bottom, top = picture.get_extent()
    volume = picture.get_array()
    n = len(volume)
    for row, column in ((0, 0), (10, 150), (n - 1, 30)):
        z = [
            left + column / (n - 1) * (right - left),
            bottom + row / (n - 1) * (top - bottom),
        ]
        expected = METRIC.log_volume(torch.tensor([z]))
        assert float(volume[row, column]) == pytest.approx(float(expected), abs=1e-4)


def test_a_function_in_float64_is_drawn_for_points_in_float64():
    A = torch.tensor([[1.0, 2.0], [0.0, 3.0], [1.0, 0.0]], dtype=torch.float64)
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    ax = plotting.latent_map(PullbackMetric(lambda z: z @ A.T), points, resolution=5)
    expected = 0.5 * float(torch.linalg.det(A.T @ A).log())
    np.testing.assert_allclose(ax.images[0].get_array(), expected)
    # A module decides by itself.
    layer = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).double()
    plotting.latent_map(PullbackMetric(layer), points.float(), resolution=5)
    assert layer.training


LABELS = {
    "classes": (np.arange(200) % 10, 10),
    "numbers with gaps": (7 * (np.arange(200) % 3), 3),
    "one-hot": (np.eye(4)[np.arange(200) % 4], 4),
    "words": (np.array(["cat", "dog"])[np.arange(200) % 2], 2),
    "tensor": (torch.arange(200) % 2 == 0, 2),
    "as many as there can be": (np.arange(200) % 20, 20),
}


def looks_of(scatters):
    """The colour and the shape of the markers of each."""
    return [(tuple(s.get_facecolor()[0]), s.get_paths()[0].vertices.tobytes()) for s in scatters]


@pytest.mark.parametrize("labels, number", LABELS.values(), ids=LABELS.keys())
def test_classes_have_a_legend(labels, number):
    points = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    ax = plotting.latent_map(METRIC, points, labels, resolution=5)
    legend = ax.get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == number == len(set(names))
    # Each class has looks of its own, the same over the map and in the legend.
    assert len(set(looks_of(ax.collections))) == number
    assert looks_of(legend.legend_handles) == looks_of(ax.collections)
    drawn = [len(scatter.get_offsets()) for scatter in ax.collections]
    assert sorted(drawn) == sorted(np.bincount(np.arange(200) % number))
    assert len(ax.figure.axes) == 2  # the map and the bar of its volume


def test_points_are_drawn_as_their_class():
    points = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    words = np.array(["cat", "dog", "eel"])[np.arange(200) % 3]
    ax = plotting.latent_map(METRIC, points, words, resolution=5)
    for scatter in ax.collections:
        expected = points[torch.as_tensor(words == scatter.get_label())]
        np.testing.assert_allclose(scatter.get_offsets(), expected)


@pytest.mark.parametrize("labels", [None, np.arange(200) % 20, np.linspace(0, 1, 200)])
def test_nothing_covers_the_map(labels):
    """Legends and bars stand beside it, and within the figure."""
    points = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    ax = plotting.latent_map(METRIC, points, labels, resolution=5)
    plotting.draw_curves(ax, torch.rand(3, 5, 2), label="A curve with a long name")
    ax.figure.canvas.draw()
    map_, figure = ax.get_window_extent(), ax.figure.bbox
    others = [bar.get_tightbbox() for bar in ax.figure.axes if bar is not ax]
    for box in (ax.get_legend().get_window_extent(), *others):
        assert not map_.overlaps(box)
        assert figure.x0 <= box.x0 and box.x1 <= figure.x1
        assert figure.y0 <= box.y0 and box.y1 <= figure.y1


# What a colour is to people without one kind of cones (linear RGB; Machado, Oliveira, Fernandes,
# A physiologically-based model for simulation of color vision deficiency, IEEE TVCG 15, 2009).
SEEN_WITHOUT = {
    "long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
             [-0.003882, -0.048116, 1.051998]],
    "middle": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
}  # fmt: skip


def lab(colour):
    """CIELAB of a colour in linear RGB, white D65."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.array(to_xyz) @ np.clip(colour, 0, 1) / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def nearest(colours, cones):
    """How far the two colours that look most alike are apart."""
    rgb = np.array([matplotlib.colors.to_rgb(colour) for colour in colours])
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    seen = [lab(np.array(SEEN_WITHOUT[cones]) @ colour) for colour in linear]
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize("cones", SEEN_WITHOUT)
def test_colours_can_be_told_apart(cones):
    """A difference of 2.3 is just noticeable (Mahy et al., 1994): these are five times that."""
    assert nearest(COLOURS, cones) > 5 * 2.3
    if cones != "none":  # the test sees that matplotlib's own are not
        assert nearest([f"C{i}" for i in range(10)], cones) < 5 * 2.3


def test_the_style_is_that_of_new_figures_alone():
    """Global settings stay as they are, and given axes keep the caller's."""
    points, pyplot = torch.rand(5, 2), pytest.importorskip("matplotlib.pyplot")
    with pyplot.rc_context({"axes.titlesize": 31, "axes.spines.top": True}):
        before = dict(matplotlib.rcParams)
        given = pyplot.subplots()[1]
        plotting.image_grid(torch.rand(4, 1, 8, 8), title="a", ax=given)
        new = plotting.image_grid(torch.rand(4, 1, 8, 8), title="a")
        map_ = plotting.latent_map(METRIC, points, [0, 1, 2, 0, 1], resolution=5)
        plotting.draw_curves(map_, torch.rand(2, 3, 2), label="curves")
        assert dict(matplotlib.rcParams) == before
    assert given.title.get_fontsize() == 31
    assert new.title.get_fontsize() == plotting.STYLE["axes.titlesize"]
    assert given.spines["top"].get_visible() and not map_.spines["top"].get_visible()
    with pyplot.rc_context(plotting.STYLE):
        (line,) = pyplot.subplots()[1].plot([0, 1])
    assert line.get_color() == COLOURS[0]


def test_continuous_labels_have_a_colour_bar():
    points = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.linspace(-1, 1, 200)
    ax = plotting.latent_map(METRIC, points, labels, resolution=5)
    assert ax.get_legend() is None and len(ax.figure.axes) == 3
    np.testing.assert_allclose(ax.collections[0].get_array(), labels)
    with pytest.raises(ValueError, match="labels have 200 values, and 20 classes"):
        plotting.latent_map(METRIC, points, [f"number {i}" for i in range(200)], resolution=5)
    with pytest.raises(ValueError, match="labels must hold one label for each of the 200 rows"):
        plotting.latent_map(METRIC, points, labels[:3], resolution=5)


def test_curves_over_a_map():
    ax = plotting.latent_map(METRIC, torch.tensor([[-1.0, -2.0], [3.0, 4.0]]), labels=[0, 1])
    limits = ax.get_xlim()
    curves = 10 * torch.rand(3, 5, 2)
    plotting.draw_curves(ax, curves, label="chains", linestyle="--")
    plotting.draw_curves(ax, curves, label="others", color="red")
    assert len(ax.lines) == 6 and ax.get_xlim() == limits
    np.testing.assert_allclose(ax.lines[2].get_xydata(), curves[2])
    assert [text.get_text() for text in ax.get_legend().get_texts()][-2:] == ["chains", "others"]
    with pytest.raises(ValueError, match=r"must be \[B, T, 2\], got \[3, 5, 3\]"):
        plotting.draw_curves(ax, torch.zeros(3, 5, 3))


@pytest.mark.parametrize("images", [torch.zeros(0, 1, 8, 8), torch.zeros(8, 8), np.zeros((2, 64))])
def test_bad_images(images):
    with pytest.raises(ValueError, match=r"images (must have shape|has no rows)"):
        plotting.image_grid(images)


@pytest.mark.parametrize("points", [torch.zeros(4, 3), torch.zeros(0, 2), torch.zeros(2)])
def test_bad_points(points):
    with pytest.raises(ValueError, match=r"points (must be \[N >= 1, 2\]|has no rows)"):
        plotting.latent_map(METRIC, points)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plotting.image_grid(torch.zeros(2, 1, 4, 4), 0), ValueError, "columns must be"),
        (lambda: plotting.image_grid(torch.zeros(2, 1, 4, 4), 1.5), ValueError, "columns must be"),
        (lambda: plotting.latent_map(METRIC, torch.ones(2, 2), resolution=1), ValueError, "resol"),
        (lambda: plotting.latent_map(torch.square, torch.ones(2, 2)), TypeError, "metric must be"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "pythae-geometric\[viz\]"'):
        plotting.image_grid(torch.rand(1, 1, 8, 8))
