"""Every example runs, in its small form."""

import pathlib
import re
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
pytest.importorskip("matplotlib")


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, "--quick", *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quickstart(tmp_path):
    out = run("quickstart.py", "--output-dir", tmp_path)
    assert "HMCDiagnostics(acceptance_rate=" in out
    for picture in ("generated.png", "latent_map.png", "reloaded.png"):
        assert (tmp_path / picture).stat().st_size > 10_000


def test_interpolation(tmp_path):
    out = run("interpolation.py", "--output-dir", tmp_path)
    assert out.count("potential along the way from") == 3
    for picture in ("potential.png", "geodesics.png"):
        assert (tmp_path / picture).stat().st_size > 10_000


@pytest.mark.parametrize(
    "script", sorted(p.name for p in (EXAMPLES / "benchmarks").glob("*.py")), ids=str
)
def test_benchmark(script):
    out = run(f"benchmarks/{script}")
    assert len(re.findall(r"\d+\.\d", out)) >= 2, out  # ratios
