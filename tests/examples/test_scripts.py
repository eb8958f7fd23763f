"""Every example runs, in its small form."""

import pathlib
import re

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "examples" / "benchmarks"


def test_quickstart(run, tmp_path):
    out = run("quickstart.py", "--output-dir", tmp_path)
    assert "HMCDiagnostics(acceptance_rate=" in out
    for picture in ("generated.png", "latent_map.png", "reloaded.png"):
        assert (tmp_path / picture).stat().st_size > 10_000


def test_interpolation(run, tmp_path):
    out = run("interpolation.py", "--output-dir", tmp_path)
    assert out.count("potential along the way from") == 3
    assert out.count("length of the decoded curve from") == 3
    for picture in ("potential.png", "geodesics.png"):
        assert (tmp_path / picture).stat().st_size > 10_000


@pytest.mark.parametrize("script", sorted(p.name for p in BENCHMARKS.glob("*.py")), ids=str)
def test_benchmark(script, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # one of them writes its report
    out = run(f"benchmarks/{script}")
    assert len(re.findall(r"\d+\.\d", out)) >= 2, out  # ratios
