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


@pytest.mark.parametrize(("count", "shown"), [(9, [0, 2, 4, 6, 8]), (3, [0, 1, 2])])
def test_fields_are_drawn_at_times_from_the_first_to_the_last(count, shown):
    times = torch.linspace(0, 1, count)
    truth, prediction = torch.randn(2, count, 6, 8, generator=torch.Generator().manual_seed(0))
    axes = trajectory_error(truth, prediction, times, (torch.linspace(-1, 1, 6), GRID))
    assert axes.shape == (3, len(shown))
    for row, values in zip(axes, (truth, prediction, prediction - truth), strict=True):
        for ax, i in zip(row, shown, strict=True):
            (picture,) = ax.get_images()
            torch.testing.assert_close(torch.as_tensor(picture.get_array()), values[i])
            assert picture.get_extent() == [0, 2, -1, 1] and picture.origin == "lower"
    assert [ax.get_title() for ax in axes[0]] == [f"t = {float(times[i]):.3g}" for i in shown]
    limits = [[ax.get_images()[0].get_clim() for ax in row] for row in axes]
    assert set(limits[0]) == set(limits[1]) != set(limits[2])
    assert all(len(set(row)) == 1 for row in limits)
    # On given axes, as many times as there are columns.
    _, given = pytest.importorskip("matplotlib.pyplot").subplots(3, 2)
    assert trajectory_error(truth, prediction, times, (GRID[:6], GRID), given) is given
    picture = given[0, 1].get_images()[0].get_array()
    torch.testing.assert_close(torch.as_tensor(picture), truth[-1])


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
    fields, plane = truth[:, None].expand(5, 6, 8), (GRID[:6], GRID)
    with pytest.raises(TypeError, match=r"grid of fields \[5, 6, 8\] must be a pair"):
        trajectory_error(fields, fields, TIMES, GRID)
    with pytest.raises(ValueError, match=r"must be \[T, height, width\] = \[5, 6, 8\]"):
        trajectory_error(fields, prediction, TIMES, plane)
    with pytest.raises(TypeError, match=r"axes for fields must be matplotlib Axes \[3, k\]"):
        trajectory_error(fields, fields, TIMES, plane, axes=[1, 2, 3])
    with pytest.raises(TypeError, match="axes must be matplotlib Axes"):
        trajectory_error(fields, fields, TIMES, plane, axes=[[1], [2], [3]])
    with pytest.raises(ValueError, match=r"must be \[T, n\] = \[5, 8\].*got \[5, 6, 8\]"):
        animate_trajectory(fields, fields, TIMES, GRID)
    with pytest.raises(ValueError, match="every must be a whole number of at least 1"):
        animate_trajectory(truth, prediction, TIMES, GRID, every=0)
    with pytest.raises(ValueError, match=r"points must be \[T, B, m >= 2\]"):
        manifold_over_time(torch.zeros(3, 10, 1), TIMES[:3])
