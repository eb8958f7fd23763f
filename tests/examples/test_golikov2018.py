"""The reproduction of Golikov and Kretov, in its small form."""

import json
import math


def test_tables_and_pictures(run, tmp_path):
    run("reproduce/golikov2018.py", "--output-dir", tmp_path)
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
