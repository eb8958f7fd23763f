"""The reproduction of Golikov and Kretov, in its small form."""

import json
import math
import pathlib
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def test_tables_and_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    script = EXAMPLES / "reproduce" / "golikov2018.py"
    done = subprocess.run(
        [sys.executable, script, "--quick", "--output-dir", tmp_path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "golikov2018.json").read_text())
    measures = ("elbo", "iwae", "kl")
    assert all(math.isfinite(run[key]) for run in results["runs"] for key in measures)
    assert {run["row"] for run in results["digits"]} == {
        "VAE, d = n",
        "exact",
        "exact, group action",
        "VAE, d = m",
    }
    assert set(results["embeddings"]) == {"circle", "sphere(2)", "torus(2)"}
    text = (tmp_path / "golikov2018.md").read_text()
    assert text.count("## Table ") == 4 and "nan" not in text
    for name in ("circle", "turn"):
        assert (tmp_path / f"golikov2018_{name}.png").stat().st_size > 10_000
