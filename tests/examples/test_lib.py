"""What the scripts share."""

import json
import math
import multiprocessing
import pathlib
import time

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline


def test_tables(lib):
    tables = lib("tables")
    assert tables.table(["a", "b"], [["1", "2"]]) == ["| a | b |", "|---|---|", "| 1 | 2 |"]
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
    assert tables.publish(str(tmp_path / "out"), "one", text, [1]) == text
    assert (tmp_path / "out" / "one.md").read_text(encoding="utf-8") == text
    assert json.loads((tmp_path / "out" / "one.json").read_text()) == [1]


def test_a_file_is_replaced_whole_or_not_at_all(lib, tmp_path):
    files, path = lib("files"), tmp_path / "folder" / "row.json"
    files.write_json(str(path), [1])
    with pytest.raises(KeyError), files.replaced(str(path)) as beside:
        pathlib.Path(beside).write_text("half of a")
        raise KeyError
    assert json.loads(path.read_text()) == [1]
    assert list(path.parent.iterdir()) == [path]


def test_rows_are_computed_once(lib, tmp_path):
    files = lib("files")
    path = files.row_path(str(tmp_path), "VAE", "N(0, I)", 0)
    assert path == str(tmp_path / "rows" / "VAE-N(0,_I)-0.json")
    calls = []
    for _ in range(2):
        assert files.kept(path, lambda x: calls.append(x) or {"x": x}, 3) == {"x": 3}
    assert calls == [3]


def test_tensors_are_computed_once(lib, tmp_path):
    calls, path = [], str(tmp_path / "folder" / "tensor.pt")
    for _ in range(2):
        found = lib("files").kept_tensors(path, lambda: calls.append(1) or torch.arange(3))
        assert torch.equal(found, torch.arange(3))
    assert calls == [1]


def test_first_images_of_each_part(lib):
    data = lib("data").load_data("digits").first(30, 20)
    assert [len(part) for part in data] == [30, 30, 20, 20, 400, 400]


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
