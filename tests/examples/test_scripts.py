"""Every example runs, in its small form."""

import importlib
import json
import pathlib
import re
import types

import pytest
import torch

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


@pytest.mark.parametrize(
    "arguments, message",
    [(["--data", "svhn"], "train_data.npz"), (["--models", "VEA"], "There is no 'VEA'")],
    ids=["data", "model"],
)
def test_mistakes_are_named_in_one_sentence(arguments, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message) as raised:
        run("benchmark.py", *arguments)
    assert "\n" not in str(raised.value)


def test_benchmark_goes_on_where_it_was(run, tmp_path):
    arguments = ("benchmark.py", "--output-dir", tmp_path, "--models")
    run(*arguments, "RicciAE", "--samplers-on", "RicciAE")
    rows = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()}
    results = json.loads((tmp_path / "benchmark_digits.json").read_text())
    samplers = [row["sampler"] for row in results["samplers"]]
    assert samplers[:4] == ["(training images)", "(reconstructions)", "Normal", "GaussianMixture"]
    assert samplers[4] == "MetricUniformHMC"
    # Training images are copies; what was just trained for two epochs is not.
    nearest = [row["test"]["nearest"] for row in results["samplers"][:4]]
    assert nearest[0] == 0 and min(nearest[1:]) > 0.5
    assert [row["test"]["copies"] for row in results["samplers"][:3]] == [1, 0, 0]
    for name in ("samplers", "models"):
        assert (tmp_path / f"benchmark_digits_{name}.png").stat().st_size > 5000
    # The best sampler is chosen on the validation images.
    valid = {row["sampler"]: row["validation"]["frechet"] for row in results["samplers"][2:]
             if "error" not in row}  # fmt: skip
    table = (tmp_path / "benchmark_digits.md").read_text()
    assert "\n| (training images) † | " in table and "± 0.00" not in table
    assert f"\n| RicciAE | {min(valid, key=valid.get)} | " in table

    run(*arguments, "AE", "--samplers-on", "RicciAE")
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()}
    assert rows.items() < again.items()
    assert "\n| AE | " in (tmp_path / "benchmark_digits.md").read_text()


@pytest.fixture
def benchmark(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.syspath_prepend(BENCHMARKS.parent)
    return importlib.import_module("benchmark")


def test_samples_are_in_no_order(benchmark, monkeypatch):
    """Mixtures give theirs by component, and the two halves are measured apart."""
    ordered = torch.arange(200)

    class Pipeline(types.SimpleNamespace):
        def __call__(self, **_):
            return ordered

    monkeypatch.setattr(benchmark, "GenerationPipeline", lambda *_: Pipeline(sampler=None))
    data = types.SimpleNamespace(train=None, validation=None)
    images, _ = benchmark.generate(None, None, 200, data, "", types.SimpleNamespace(flow_epochs=1))
    assert torch.equal(images.sort().values, ordered)
    # Hypergeometric, of standard deviation 3.5.
    assert abs(int((images[:100] < 100).sum()) - 50) < 15


def test_samplers_that_copy_are_not_chosen(benchmark):
    def row(frechet, copies, at_start=0):
        measures = {"frechet": frechet, "copies": copies}
        chains = {"at_start": at_start, "number": 100}
        return [{"validation": measures, "test": measures, "diagnostics": chains}]

    samplers = {"(training images)": row(0, 1), "copies": row(1, 0.06), "stays": row(2, 0, 6)}
    samplers |= {"fails": [{"error": "flat"}], "moves": row(3, 0.04, 4), "prior": row(4, 0)}
    assert benchmark.best_samplers({"VAE": samplers}) == {"VAE": "moves"}
