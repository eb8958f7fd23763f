"""The command-line scripts: what they do, and what they say to a newcomer."""

import importlib
import json
import logging
import pathlib
import runpy
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from pythae.samplers import BaseSampler

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
pytest.importorskip("matplotlib")


def run(script, *arguments):
    """Run a script in this process, where torch is imported already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TQDM_DISABLE", "1")
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        patch.syspath_prepend(str(EXAMPLES))
        try:
            runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        finally:
            logging.disable(logging.NOTSET)


def error_of(capsys, script, *arguments):
    """The one sentence with which a script ends, be it the parser's or its own."""
    with pytest.raises(SystemExit) as raised:
        run(script, *arguments)
    printed = capsys.readouterr().err
    return printed.splitlines()[-1] if raised.value.code == 2 else str(raised.value)


def last_line(capsys):
    return capsys.readouterr().out.splitlines()[-1]


def test_train_resume_and_generate(tmp_path, capsys):
    run("train.py", "--quick", "--model", "VAE", "--latent-dim", 2, "--save-every", 1,
        "--output-dir", tmp_path)  # fmt: skip
    folder = pathlib.Path(last_line(capsys))
    checkpoint = folder.parent / "checkpoint_epoch_1"
    run("train.py", "--quick", "--resume", checkpoint, "--save-every", 1,
        "--output-dir", tmp_path / "more")  # fmt: skip
    resumed = pathlib.Path(last_line(capsys))
    assert json.loads((resumed / "training_config.json").read_text())["num_epochs"] == 1
    # Adam's state came along: its count of steps goes on from that of the checkpoint.
    steps = [
        next(iter(torch.load(path / "optimizer.pt")["state"].values()))["step"]
        for path in (checkpoint, resumed.parent / "checkpoint_epoch_1")
    ]
    assert steps == [2, 4]
    error = error_of(
        capsys, "train.py", "--quick", "--resume", folder.parent / "checkpoint_epoch_2"
    )
    assert "has all of its 2 epochs" in error

    for sampler in ("MetricUniformHMC", "MAF"):
        out = tmp_path / sampler
        run("generate.py", "--quick", "--model-folder", folder, "--sampler", sampler,
            "--output-dir", out)  # fmt: skip
        assert last_line(capsys).startswith("16 images in")
        assert len(list(out.glob("0*.png"))) == 16
        assert (out / "grid.png").stat().st_size > 1000


def test_configs_are_read_from_files(tmp_path, capsys):
    (tmp_path / "model.json").write_text('{"name": "RicciAEConfig", "latent_dim": 3}')
    (tmp_path / "training.json").write_text(
        '{"name": "BaseTrainerConfig", "num_epochs": 1, "per_device_train_batch_size": 100}'
    )
    run("train.py", "--quick", "--model", tmp_path / "model.json", "--training-config",
        tmp_path / "training.json", "--output-dir", tmp_path)  # fmt: skip
    folder = pathlib.Path(last_line(capsys))
    assert json.loads((folder / "model_config.json").read_text())["latent_dim"] == 3
    assert json.loads((folder / "training_config.json").read_text())["num_epochs"] == 1

    def generate(**fields):
        config = {"name": "MetricUniformHMCSamplerConfig", **fields}
        (tmp_path / "sampler.json").write_text(json.dumps(config))
        return ("generate.py", "--quick", "--model-folder", folder, "--sampler",
                tmp_path / "sampler.json", "--output-dir", tmp_path / "generated")  # fmt: skip

    run(*generate(num_centroids=5))
    assert last_line(capsys).startswith("16 images in")
    assert "has no field 'colour'" in error_of(capsys, *generate(colour="green"))
    error = error_of(capsys, *generate(decay=1.0))
    assert "decay=1.0 belongs to metric='posteriors'" in error and "\n" not in error


@pytest.fixture
def faces(tmp_path):
    """A folder of data sets with one of the user's own, by the name of my_faces."""
    random = np.random.default_rng(0)
    (tmp_path / "my_faces").mkdir()
    for part, count in (("train", 60), ("eval", 20)):
        images = random.integers(0, 256, (count, 1, 28, 28), dtype=np.uint8)
        np.savez_compressed(tmp_path / "my_faces" / f"{part}_data.npz", data=images)
    return tmp_path


@pytest.mark.parametrize("model, networks", [("AE", "convnet"), ("VAE", "resnet")])
def test_data_of_the_users_own_and_benchmark_networks(model, networks, faces, capsys):
    run("train.py", "--quick", "--data", "my_faces", "--data-dir", faces, "--networks", networks,
        "--model", model, "--output-dir", faces / "out")  # fmt: skip
    out = capsys.readouterr().out
    assert "54 images [1, 28, 28]" in out  # the last tenth is for validation
    assert (pathlib.Path(out.splitlines()[-1]) / "encoder.pkl").exists()


def library(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        return importlib.import_module(f"lib.{name}")


@pytest.mark.parametrize("model", sorted(library("models").classes()))
def test_every_model_by_name(model, tmp_path, capsys):
    run("train.py", "--quick", "--model", model, "--output-dir", tmp_path)
    folder = pathlib.Path(last_line(capsys))
    config = json.loads((folder / "model_config.json").read_text())
    assert config["latent_dim"] == 8 and config["name"].startswith(model)
    assert json.loads((folder / "training_config.json").read_text())["num_epochs"] == 2


MODEL_OF = {"VAMP": "VAMP", "RHVAE": "RHVAE", "HypersphereUniform": "SVAE"}
MODEL_OF |= {"PoincareDisk": "PoincareVAE", "PixelCNN": "VQVAE"}
SAMPLERS = sorted(name.removesuffix("Sampler") for name in library("models").classes(BaseSampler))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_by_name(sampler, tmp_path, capsys):
    run("train.py", "--quick", "--model", MODEL_OF.get(sampler, "VAE"), "--latent-dim", 2,
        "--output-dir", tmp_path)  # fmt: skip
    folder = last_line(capsys)
    run("generate.py", "--quick", "--model-folder", folder, "--sampler", sampler,
        "--output-dir", tmp_path / "images")  # fmt: skip
    assert last_line(capsys).startswith("16 images in")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train.py", "--data", "mnist"], "train_data.npz"),
        (["train.py", "--data", "mnist"], "np.savez_compressed(path, data=images"),
        (["train.py", "--data", "imagenet"], "take --data digits, which is built in"),
        (["train.py", "--model", "BrownianVAE"], "Did you mean BrownianRVAE?"),
        (["train.py", "--networks", "convnet"], "take --networks default"),
        (["train.py", "--model", "missing.json"], "missing.json cannot be read"),
        (["train.py", "--training-config", "missing.json"], "missing.json cannot be read"),
        (["train.py", "--resume", "nowhere"], "checkpoint_epoch_N"),
        (["train.py", "--epochs", "0"], "--epochs: '0' is not a whole number of at least 1"),
        (["train.py", "--latent-dim", "-3"], "--latent-dim: '-3' is not a whole number"),
        (["train.py", "--save-every", "0"], "--save-every: '0' is not a whole number"),
        (["train.py", "--learning-rate", "nan"], "'nan' is not a number above 0"),
        (["train.py", "--model", "ERManifoldVAE", "--manifold", "circel"], "'circel' is not known"),
        (["generate.py", "--model-folder", "nowhere"], "the folder that train.py printed"),
        (["generate.py", "--model-folder", "nowhere", "--num-samples", "0"], "'0' is not a whole"),
        (["benchmark.py", "--data", "svhn"], "train_data.npz"),
        (["benchmark.py", "--models", "VEA"], "There is no 'VEA'"),
    ],
    ids=lambda v: v if isinstance(v, str) else " ".join(v),
)
def test_mistakes_are_named_in_one_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    error = error_of(capsys, *arguments)
    assert message in error and "\n" not in error


def test_unknown_fields_of_a_training_config_are_named(tmp_path, capsys):
    (tmp_path / "training.json").write_text('{"name": "BaseTrainerConfig", "num_epoch": 1}')
    arguments = "train.py", "--quick", "--training-config", tmp_path / "training.json"
    error = error_of(capsys, *arguments)
    assert "BaseTrainerConfig has no field 'num_epoch': did you mean 'num_epochs'?" in error


def test_scripts_need_no_resource_module():
    """Windows has none."""
    code = f"""
import contextlib, runpy, sys
sys.modules["resource"] = None
sys.path.insert(0, {str(EXAMPLES)!r})
for script in "train.py", "generate.py", "benchmark.py":
    sys.argv = [script, "--help"]
    with contextlib.suppress(SystemExit):
        runpy.run_path({str(EXAMPLES)!r} + "/" + script, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("usage:") == 3, done.stderr


def test_benchmark_goes_on_where_it_was(tmp_path, capsys):
    arguments = ("benchmark.py", "--quick", "--output-dir", tmp_path, "--models")
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


def test_samples_are_in_no_order(monkeypatch):
    """Mixtures give theirs by component, and the two halves are measured apart."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    benchmark = importlib.import_module("benchmark")
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


def test_samplers_that_copy_are_not_chosen(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    benchmark = importlib.import_module("benchmark")

    def row(frechet, copies, at_start=0):
        measures = {"frechet": frechet, "copies": copies}
        chains = {"at_start": at_start, "number": 100}
        return [{"validation": measures, "test": measures, "diagnostics": chains}]

    samplers = {"(training images)": row(0, 1), "copies": row(1, 0.06), "stays": row(2, 0, 6)}
    samplers |= {"fails": [{"error": "flat"}], "moves": row(3, 0.04, 4), "prior": row(4, 0)}
    assert benchmark.best_samplers({"VAE": samplers}) == {"VAE": "moves"}
