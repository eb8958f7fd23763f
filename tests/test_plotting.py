import sys

import numpy as np
import pytest
import torch

from pythae_geometric import plotting
from pythae_geometric.geometry import PosteriorMetric

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

METRIC = PosteriorMetric(torch.tensor([[0.0, 0.0], [1.0, 2.0]]), torch.ones(2, 2), 1.0)


def test_image_grid_puts_every_image_in_its_cell():
    images = torch.arange(5.0)[:, None, None, None].expand(5, 1, 3, 4) / 4
    pixels = plotting.image_grid(images, columns=3).images[0].get_array()
    assert pixels.shape == (2 * 4 - 1, 3 * 5 - 1)
    for i in range(5):
        row, column = divmod(i, 3)
        cell = pixels[row * 4 : row * 4 + 3, column * 5 : column * 5 + 4]
        np.testing.assert_allclose(cell, i / 4)
    np.testing.assert_allclose(pixels[4:, 10:], 1.0)  # the cell that is left is white


def test_image_grid_of_colours():
    pixels = plotting.image_grid(torch.rand(4, 3, 8, 8)).images[0].get_array()
    assert pixels.shape == (17, 17, 3)


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
    with pytest.raises(ValueError, match="images must have shape"):
        plotting.image_grid(images)


@pytest.mark.parametrize("points", [torch.zeros(4, 3), torch.zeros(0, 2), torch.zeros(2)])
def test_bad_points(points):
    with pytest.raises(ValueError, match=r"points must be \[N >= 1, 2\]"):
        plotting.latent_map(METRIC, points)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "pythae-geometric\[viz\]"'):
        plotting.image_grid(torch.rand(1, 1, 8, 8))
