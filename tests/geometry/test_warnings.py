"""Warnings point at the line that called the package, whatever lies between."""

import warnings

import pytest
import torch
from spaces import sphere_points, stereographic

from pythae_geometric.geometry import (
    ConvergenceWarning,
    PullbackMetric,
    geodesic,
    heat_kernel_log_prob,
    logarithm,
    potential_path,
    squared_distance,
)

METRIC = PullbackMetric(stereographic)


@pytest.mark.parametrize(
    "call",
    [
        lambda x, y: geodesic(stereographic, x, y, iterations=1),
        lambda x, y: geodesic(METRIC, x, y, iterations=1),
        lambda x, y: squared_distance(stereographic, x, y, iterations=1),
        lambda x, y: logarithm(stereographic, x, y, iterations=1),
        lambda x, y: heat_kernel_log_prob(stereographic, x, y, 1.0, iterations=1),
        lambda x, y: potential_path(stereographic, x, y, iterations=1),
    ],
    ids=["geodesic", "geodesic of a metric", "squared_distance", "logarithm", "heat kernel",
         "potential path"],
)  # fmt: skip
def test_the_caller_is_named(call):
    with pytest.warns(ConvergenceWarning) as record:
        call(*sphere_points(16))
    (warning,) = (w for w in record if w.category is ConvergenceWarning)
    assert (warning.filename, warning.lineno) == (__file__, call.__code__.co_firstlineno)


def test_each_calling_line_warns_once():
    """As with any warning, under Python's filter "default": the place is the caller's."""
    x, y = sphere_points(4)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("default")
        for _ in range(2):
            logarithm(stereographic, x, y, iterations=1)
        logarithm(stereographic, x, y, iterations=1)
    lines = [w.lineno for w in record if w.category is ConvergenceWarning]
    assert len(set(lines)) == len(lines) == 2


def test_points_at_the_line_inside_a_decorated_function():
    @torch.no_grad()
    def mine(x, y):
        return geodesic(stereographic, x, y, iterations=1)

    with pytest.warns(ConvergenceWarning) as record:
        mine(*sphere_points(4))
    (warning,) = (w for w in record if w.category is ConvergenceWarning)
    line = mine.__wrapped__.__code__.co_firstlineno + 2
    assert (warning.filename, warning.lineno) == (__file__, line)
