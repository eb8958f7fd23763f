"""What the scripts share."""

import math
import multiprocessing
import pathlib
import runpy
import sys
import time

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def test_spreads(lib):
    tables = lib("tables")
    assert tables.spread([1.0, 3.0, None]) == f"2.00 ± {math.sqrt(2):.2f}"
    assert tables.spread([1.0, 3.0], of_mean=True) == "2.00 ± 1.00"
    assert tables.spread([1.0], 1) == "1.0 ± —" and tables.spread([None]) == "—"
    assert tables.spreads([{"a": 1.0}, {"a": 3.0, "b": 1.0}], "ab", 1) == ["2.0 ± 1.4", "1.0 ± —"]
    rows = [{"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2}]
    assert tables.grouped(rows, "a") == {(1,): [rows[0], rows[2]], (2,): [rows[1]]}


def test_pages(lib, tmp_path, monkeypatch):
    tables = lib("tables")
    monkeypatch.setattr(tables, "PAGES", tmp_path)
    (tmp_path / "one.md").write_text("# Of\n\nTwo\nlines, {x:.1f}.\n\n{rows}\n", encoding="utf-8")
    text = tables.page("one", x=0.25, rows=["| a |", "|---|"])
    assert text == "# Of\n\nTwo lines, 0.2.\n\n| a |\n|---|\n"


def test_costs(lib):
    costs = lib("costs")
    before = costs.peak()
    if before is None:
        pytest.skip("memory is not known here")
    with costs.measured() as figures:
        torch.ones(20_000_000).sum()  # 80 MB
    assert 60 < figures["megabytes"] < 200 and figures["processor_seconds"] > 0
    seconds = costs.in_turn({"short": lambda: None, "long": lambda: time.sleep(0.02)}, 3)
    assert seconds["short"] < 0.02 <= seconds["long"]


def test_costs_need_no_resource_module(monkeypatch):
    """Windows has none."""
    monkeypatch.setitem(sys.modules, "resource", None)
    costs = runpy.run_path(str(EXAMPLES / "lib" / "costs.py"))
    assert costs["resource"] is None
    with costs["measured"]() as figures:
        pass
    assert figures["wall_seconds"] >= 0


def test_many_calls_of_a_fast_function_are_timed_together(lib):
    calls = []
    lib("costs").in_turn({"fast": lambda: calls.append(1)}, 3, seconds=0.01)
    assert len(calls) > 100


def powers(method, d, batch):
    values = torch.ones(batch) * d
    return lambda: values**2 if method == "square" else values * values * 1.5


def test_costs_in_processes_of_their_own(lib, capsys):
    costs = lib("costs")
    costs.side_by_side(powers, ["d", "batch"], [(3, 4)], {"square": 2, "wrong": 1})
    ours, wrong = capsys.readouterr().out.splitlines()[-2:]
    assert ours.startswith("| 3 | 4 | square |") and ours.endswith("| 0e+00 |")
    assert wrong.startswith("| 3 | 4 | wrong |") and wrong.endswith("| 5e-01 |")
    assert costs.alone(torch.get_num_threads) == 1
    with pytest.raises(multiprocessing.TimeoutError):
        costs.alone(time.sleep, 60, limit=0.5)


def test_nested_christoffel_on_a_sphere(lib):
    def sphere(u):  # of radius 3
        a, b = u
        return 3 * torch.stack([a.sin() * b.cos(), a.sin() * b.sin(), a.cos()])

    u = torch.tensor([[0.5, 0.1], [1.2, -2.0]], dtype=torch.float64)
    R, log_volume = lib("plain").nested_christoffel(sphere, u)
    torch.testing.assert_close(R, torch.full_like(R, 2 / 9))
    torch.testing.assert_close(log_volume, (9 * u[:, 0].sin()).log())


def test_natural_spline_is_scipys(lib):
    values = np.random.default_rng(0).normal(size=7)
    spline = CubicSpline(np.linspace(0, 1, 7), values, bc_type="natural")
    found = lib("plain").natural_spline(5, 21).double() @ torch.from_numpy(values)
    np.testing.assert_allclose(found, spline(np.linspace(0, 1, 21)), atol=1e-6)
