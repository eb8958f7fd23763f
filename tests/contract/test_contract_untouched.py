"""pythae with this package imported is pythae."""

import json
import pathlib
import subprocess
import sys

import pythae.samplers

PROGRAM = pathlib.Path(__file__).parent / "untouched.py"


def test_every_model_and_sampler_of_pythae_gives_the_same_numbers():
    """Built, trained a step, saved, loaded and sampled, in two processes with one seed: every bit
    of weights, embeddings, outputs and samples."""
    running = [
        subprocess.Popen([sys.executable, PROGRAM, how], stdout=subprocess.PIPE, text=True)
        for how in ("with", "without")
    ]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    given, expected = map(json.loads, outputs)
    assert given == expected
    samplers = expected.pop("samplers")
    assert {name: r["error"] for name, r in expected.items() if "error" in r} == {}
    assert len(expected) >= 25
    recorded = {key for result in expected.values() for key in result}
    assert set(samplers) <= recorded
    ours = {f"{name}Config" for name in samplers}
    assert ours == {n for n in dir(pythae.samplers) if n.endswith("SamplerConfig")} - {
        "BaseSamplerConfig"
    }
