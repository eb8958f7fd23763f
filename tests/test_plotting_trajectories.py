"""Pictures of trajectories: what they show, and what they refuse."""

import pytest
import torch

from pythae_geometric.plotting import animate_trajectory, manifold_over_time, trajectory_error

pytest.importorskip("matplotlib").use("Agg")

TIMES, GRID = torch.linspace(0, 1, 5), torch.linspace(0, 2, 8)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    pytest.importorskip("matplotlib.pyplot").close("all")


def trajectories():
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


def test_truth_prediction_and_error_are_drawn_over_time_and_space():
    truth, prediction = trajectories()
    axes = trajectory_error(truth, prediction, TIMES, GRID)
    expected = truth, prediction, prediction - truth
    for ax, values in zip(axes, expected, strict=True):
        (picture,) = ax.get_images()
        torch.testing.assert_close(torch.as_tensor(picture.get_array()), values.T)
        assert picture.get_extent() == [0, 1, 0, 2]
    assert axes[0].get_images()[0].get_clim() == axes[1].get_images()[0].get_clim()


def test_every_frame_of_the_animation_is_one_time(tmp_path):
    truth, prediction = trajectories()
    animation = animate_trajectory(truth, prediction, TIMES, GRID, every=2)
    assert list(animation.new_frame_seq()) == [0, 2, 4]
    above, below = animation._fig.axes
    animation._func(2)
    shown = [torch.as_tensor(line.get_ydata()) for line in (*above.lines, *below.lines)]
    for line, values in zip(shown, (truth, prediction, prediction - truth), strict=True):
        torch.testing.assert_close(line, values[2])
    assert above.get_title() == "t = 0.5"
    animation.save(tmp_path / "a.gif", writer="pillow", dpi=20)
    assert (tmp_path / "a.gif").stat().st_size > 1000


def test_the_manifold_is_drawn_in_its_principal_plane():
    """Points of a plane in space keep their distances."""
    points = torch.zeros(3, 10, 4)
    points[..., 1:3] = torch.randn(3, 10, 2, generator=torch.Generator().manual_seed(1))
    ax = manifold_over_time(points, TIMES[:3])
    (scatter,) = ax.collections
    drawn = torch.as_tensor(scatter.get_offsets().data)
    flat = points.flatten(0, 1)
    distances = [(x[:, None] - x).norm(dim=2).double() for x in (drawn, flat)]
    torch.testing.assert_close(*distances, rtol=1e-4, atol=1e-5)
    colours = torch.as_tensor(scatter.get_array()).double()
    torch.testing.assert_close(colours, TIMES[:3].repeat_interleave(10).double())


def test_bad_input():
    truth, prediction = trajectories()
    with pytest.raises(ValueError, match=r"must be \[T, n\] = \[5, 8\]"):
        trajectory_error(truth[:4], prediction, TIMES, GRID)
    with pytest.raises(ValueError, match=r"must be \[T, n\] = \[5, 7\]"):
        animate_trajectory(truth, prediction, TIMES, GRID[:7])
    with pytest.raises(ValueError, match="every must be a whole number of at least 1"):
        animate_trajectory(truth, prediction, TIMES, GRID, every=0)
    with pytest.raises(ValueError, match=r"points must be \[T, B, m >= 2\]"):
        manifold_over_time(torch.zeros(3, 10, 1), TIMES[:3])
