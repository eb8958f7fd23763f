"""The reproduction script of additive volumes runs, and goes on from where it was."""

import json
import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "reproduce" / "seed_002_better.py"
SAMPLERS = 10
REFERENCES = 4


def run(folder):
    command = [sys.executable, SCRIPT, "--quick", "--output-dir", folder]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_script_runs_and_resumes(tmp_path):
    first = run(tmp_path)
    results = json.loads((tmp_path / "seed_002_better.json").read_text())
    (one,) = results["runs"]
    rows = {row["sampler"]: row for row in one["rows"]}
    assert len(rows) == len(one["rows"]) == SAMPLERS + REFERENCES
    for row in rows.values():
        assert row["fd"] >= 0 and 0 <= row["coverage"] <= 1 and row["nn10"] <= row["nn50"]
    # Images of the data's own law, against images of the model after three epochs.
    data = rows.pop("validation images")
    assert data["fd"] < min(row["fd"] for row in rows.values())
    assert data["coverage"] > max(row["coverage"] for row in rows.values())
    text = (tmp_path / "seed_002_better.md").read_text()
    assert "## d = 4" in text and all(name in text for name in rows)

    again = run(tmp_path)
    assert "trained" in first and "trained" not in again
    assert json.loads((tmp_path / "seed_002_better.json").read_text()) == results
    assert (tmp_path / "seed_002_better.md").read_text() == text
