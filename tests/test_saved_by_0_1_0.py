"""Models and samplers that version 0.1.0 saved load, and give the numbers that they gave.

``saved_by_0_1_0/make.py`` made them. The bounds are those of float32, in which another machine, or
another version of torch, sums in another order.
"""

import json
import os
import pathlib
import shutil
import tempfile

import pytest
import torch
from pythae.models import AutoModel

from pythae_geometric import (
    BrownianMotionSampler,
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
    RicciAEConfig,
)
from pythae_geometric.geometry import PosteriorMetric

FOLDER = pathlib.Path(__file__).parent / "saved_by_0_1_0"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
BOUNDS = {"rtol": 1e-4, "atol": 1e-5}


def load(name):
    """The model of a folder, in which ``make.py`` let large matrices share their numbers."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(FOLDER / name, folder, dirs_exist_ok=True)
        weights = torch.load(FOLDER / name / "model.pt", weights_only=True)["model_state_dict"]
        whole = {key: value.contiguous() for key, value in weights.items()}
        torch.save({"model_state_dict": whole}, os.path.join(folder, "model.pt"))
        return AutoModel.load_from_folder(folder).eval()


def load_sampler(folder, name):
    cls = MetricUniformHMCSampler if name.startswith("hmc") else BrownianMotionSampler
    return cls.load(folder, load(EXPECTED["samplers"][name]["model"]))


@pytest.mark.parametrize("name", EXPECTED["models"])
def test_models(name, digits):
    model = load(name)
    assert type(model).__name__ == name
    x = torch.as_tensor(digits[:5, :, ::2, ::2])
    torch.manual_seed(0)
    with torch.no_grad():
        output = model({"data": x})
        output["embedding"] = model.encoder(x).embedding
    output["recon_x"] = output.recon_x.flatten(1)[:, :8]
    for key, value in EXPECTED["models"][name].items():
        torch.testing.assert_close(output[key], torch.tensor(value), **BOUNDS, msg=key)


@pytest.mark.parametrize("name", EXPECTED["samplers"])
def test_samplers(name):
    sampler = load_sampler(FOLDER / name, name)
    z = sampler.sample_latent(4)
    torch.testing.assert_close(z, torch.tensor(EXPECTED["samplers"][name]["z"]), **BOUNDS)
    # Motions whose steps were too long for the metric differ from those of 0.1.0; these are not.
    assert getattr(sampler.diagnostics, "shortened", 0) == 0
    assert sampler.sample(2).shape == (2, 1, 4, 4)


@pytest.mark.parametrize("name", [name for name in EXPECTED["samplers"] if name.startswith("hmc")])
def test_uniform_samplers_are_the_papers(name, tmp_path):
    """The default is another today, but the files name every number of theirs."""
    sampler = load_sampler(FOLDER / name, name)
    assert isinstance(sampler.metric, PosteriorMetric)
    written = json.loads((FOLDER / name / "sampler_config.json").read_text(encoding="utf-8"))
    read = sampler.sampler_config.to_dict()
    assert "metric" not in written and read.pop("metric") == "posteriors"
    assert read.pop("several_processes") is False
    written["adaptation_steps"] = written.pop("warmup_steps")  # its name since
    assert read == written

    # Saved again, they are files of today.
    sampler.save(tmp_path)
    again = load_sampler(tmp_path, name)
    assert again.sampler_config == sampler.sampler_config
    assert torch.equal(again.sample_latent(4), load_sampler(FOLDER / name, name).sample_latent(4))


def test_a_step_size_that_was_to_be_adapted_is(tmp_path):
    shutil.copytree(FOLDER / "hmc", tmp_path / "sampler")
    path = tmp_path / "sampler" / "sampler_config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**fields, "warmup_steps": 30, "eps_lf": 1e-6}), encoding="utf-8")
    sampler = load_sampler(tmp_path / "sampler", "hmc")
    sampler.sample_latent(200)
    assert sampler.diagnostics.step_size > 1e-4
    assert 0.4 < sampler.diagnostics.acceptance_rate < 0.99


@pytest.mark.parametrize("name", [n for n in EXPECTED["samplers"] if n.startswith("motion")])
def test_motions_saved_again(name, tmp_path):
    sampler = load_sampler(FOLDER / name, name)
    sampler.save(tmp_path)
    again = load_sampler(tmp_path, name)
    assert again.time == sampler.time
    assert torch.equal(again.sample_latent(4), sampler.sample_latent(4))


def test_a_motion_without_a_time_is_refused(tmp_path):
    """0.1.0 kept the time in the config, and the config of another metric must have one."""
    shutil.copytree(FOLDER / "motion_pullback", tmp_path / "sampler")
    path = tmp_path / "sampler" / "sampler_config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**fields, "time": None}), encoding="utf-8")
    with pytest.raises(ValueError, match="no time"):
        BrownianMotionSampler.load(os.fspath(tmp_path / "sampler"), load("VAE"))


@pytest.mark.parametrize(
    "config, former, name, value",
    [
        (RicciAEConfig, "lambda_recon", "recon_weight", 2.0),
        (RicciAEConfig, "lambda_curv", "curvature_weight", 0.5),
        (MetricUniformHMCSamplerConfig, "warmup_steps", "adaptation_steps", 0),
    ],
)
def test_former_names_of_fields_are_taken_with_a_warning(config, former, name, value):
    with pytest.warns(FutureWarning, match=f"{former} .* is now called {name}") as record:
        built = config(**{former: value})
    assert record[0].filename == __file__
    assert getattr(built, name) == value and built == config(**{name: value})
