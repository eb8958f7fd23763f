"""Every example runs, in its small form."""

import pathlib
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


@pytest.mark.parametrize(
    "script", sorted(p.name for p in (EXAMPLES / "benchmarks").glob("*.py")), ids=str
)
def test_benchmark(script):
    assert run(f"benchmarks/{script}").count("| ") > 3  # a table
