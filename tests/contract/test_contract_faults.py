"""Killed processes, full disks, and files that are not what they should be."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from cases import CASES, run_of, seeded
from pythae.models import AutoModel

from pythae_geometric import MetricUniformHMCSampler, MetricUniformHMCSamplerConfig

DYING = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import torch
import pythae_geometric
from pythae.models import AutoModel
from cases import CASES, train

def half_written(thing, path):
    # What is on disk when the process ends in the middle of a write.
    with open(path, "wb") as f:
        f.write(b"PK half of a file")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def die(program, tmp_path, *arguments):
    """Run a program that is killed on its way."""
    tests = os.path.dirname(os.path.abspath(__file__))
    code = DYING.format(tests=tests) + program
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture(params=[name for name in CASES if name != "VAE"])
def ours(request, digits, tmp_path_factory, tmp_path):
    """A model of ours, and a folder of its own that holds it."""
    case = CASES[request.param]
    folder = tmp_path / "model"
    shutil.copytree(run_of(case, False, digits, tmp_path_factory).final, folder)
    return case, folder


def test_killed_while_saving(ours, digits, tmp_path):
    """The folder holds the old model, whole; or what is in it is no model and says so."""
    _, folder = ours
    x = torch.as_tensor(digits[:5])
    before = seeded(AutoModel.load_from_folder(folder).eval(), {"data": x}).recon_x
    program = """
model = AutoModel.load_from_folder(sys.argv[1])
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(1.0)
torch.save = half_written
model.save(sys.argv[1])
"""
    die(program, tmp_path, folder)
    after = seeded(AutoModel.load_from_folder(folder).eval(), {"data": x}).recon_x
    assert torch.equal(before, after)


def test_killed_while_training_goes_on_from_the_last_checkpoint(ours, digits, tmp_path):
    case, _ = ours
    program = """
import numpy as np
from pythae.trainers import BaseTrainer
case = CASES[sys.argv[1]]
torch.manual_seed(0)
save, saved = BaseTrainer.save_checkpoint, []
def dying(self, *args, **kwargs):
    if len(saved) == case.epochs - 1:
        torch.save = half_written
    saved.append(save(self, *args, **kwargs))
BaseTrainer.save_checkpoint = dying
train(case.build(), np.load(sys.argv[2]), sys.argv[3], case.epochs, steps_saving=1)
"""
    np.save(tmp_path / "digits.npy", digits[:150])
    die(program, tmp_path, case.model.__name__, tmp_path / "digits.npy", tmp_path / "out")
    (training,) = (tmp_path / "out").iterdir()
    checkpoints = sorted(training.iterdir())
    assert [c.name for c in checkpoints] == [
        f"checkpoint_epoch_{k + 1}" for k in range(case.epochs)
    ]
    # The last one was cut off: it is refused; the one before goes on.
    with pytest.raises((ValueError, FileNotFoundError)):
        AutoModel.load_from_folder(checkpoints[-1])
    model = AutoModel.load_from_folder(checkpoints[-2])
    assert torch.isfinite(seeded(model.eval(), {"data": torch.as_tensor(digits[:5])}).loss)


@pytest.fixture(params=["codes", "posteriors"])
def sampler(request, digits, tmp_path_factory, tmp_path):
    """A fitted sampler in a folder, and its model."""
    model = AutoModel.load_from_folder(run_of(CASES["VAE"], False, digits, tmp_path_factory).final)
    config = MetricUniformHMCSamplerConfig(
        metric=request.param, num_centroids=10, mcmc_steps_nbr=2, n_lf=2, seed=0
    )
    fitted = MetricUniformHMCSampler(model, config)
    fitted.fit(digits[:100])
    fitted.save(tmp_path / "sampler")
    model.save(tmp_path / "vae")
    return fitted, tmp_path / "sampler", model


def test_killed_while_saving_a_sampler(sampler, tmp_path):
    _, folder, model = sampler
    expected = MetricUniformHMCSampler.load(folder, model).sample(3)
    program = """
from pythae_geometric import MetricUniformHMCSampler
sampler = MetricUniformHMCSampler.load(sys.argv[1], AutoModel.load_from_folder(sys.argv[2]))
sampler.metric.centroids.add_(1.0)
torch.save = half_written
sampler.save(sys.argv[1])
"""
    die(program, tmp_path, folder, tmp_path / "vae")
    assert torch.equal(MetricUniformHMCSampler.load(folder, model).sample(3), expected)


def test_killed_while_fitting(sampler, digits, tmp_path):
    """What was saved before is as it was."""
    _, folder, model = sampler
    expected = MetricUniformHMCSampler.load(folder, model).sample(3)
    program = """
import numpy as np
from pythae_geometric import MetricUniformHMCSampler
sampler = MetricUniformHMCSampler.load(sys.argv[1], AutoModel.load_from_folder(sys.argv[2]))
encoder = sampler.model.encoder.forward
def dying(x):
    os.kill(os.getpid(), signal.SIGKILL)
sampler.model.encoder.forward = dying
sampler.fit(np.zeros((50, 1, 8, 8), dtype="float32"))
"""
    die(program, tmp_path, folder, tmp_path / "vae")
    assert torch.equal(MetricUniformHMCSampler.load(folder, model).sample(3), expected)


FULL = """
import resource, signal, sys
sys.path.insert(0, {tests!r})
import torch
import pythae_geometric
from pythae.models import AutoModel
model = AutoModel.load_from_folder(sys.argv[1])
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(1.0)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # no file may grow beyond 2,000 bytes
try:
    model.save(sys.argv[1])
except (OSError, RuntimeError) as error:
    print("refused:", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are of Unix")
def test_a_full_disk(ours, digits, tmp_path):
    """A write that fails half way leaves the old model."""
    _, folder = ours
    x = torch.as_tensor(digits[:5])
    before = seeded(AutoModel.load_from_folder(folder).eval(), {"data": x}).recon_x
    names = sorted(os.listdir(folder))
    tests = os.path.dirname(os.path.abspath(__file__))
    command = [sys.executable, "-c", FULL.format(tests=tests), folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "refused:" in done.stdout, done.stderr
    assert sorted(os.listdir(folder)) == names  # and nothing half-written beside it
    after = seeded(AutoModel.load_from_folder(folder).eval(), {"data": x}).recon_x
    assert torch.equal(before, after)


# Files that are not what they should be


class Payload:
    """A pickle that would run a command."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


def truncated(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def emptied(path):
    path.write_bytes(b"")


def noise(path):
    path.write_bytes(bytes(range(256)) * 10)


def missing(path):
    path.unlink()


def other_json(path):
    path.write_text(json.dumps({"colour": "green"}))


def a_list(path):
    path.write_text("[1, 2, 3]")


def other_tensors(path):
    torch.save({"model_state_dict": {"weight": torch.zeros(2)}, "weight": torch.zeros(2)}, path)


def a_tensor(path):
    torch.save(torch.zeros(3), path)


DAMAGE = {
    "json": [truncated, emptied, noise, missing, other_json, a_list],
    "pt": [truncated, emptied, noise, missing, other_tensors, a_tensor],
}


def damages(*names):
    return [(name, damage) for name in names for damage in DAMAGE[name.split(".")[1]]]


@pytest.mark.parametrize(("name", "damage"), damages("model_config.json", "model.pt"))
def test_damaged_files_of_a_model(ours, name, damage):
    case, folder = ours
    damage(folder / name)
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        case.model.load_from_folder(folder)
    message = str(refused.value)
    assert "\n" not in message and (name in message or str(folder) in message), message


@pytest.mark.parametrize(("name", "damage"), damages("sampler_config.json", "sampler.pt"))
def test_damaged_files_of_a_sampler(sampler, name, damage):
    _, folder, model = sampler
    damage(folder / name)
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        MetricUniformHMCSampler.load(folder, model)
    message = str(refused.value)
    assert "\n" not in message and (name in message or str(folder) in message), message


def test_a_malicious_pickle_is_not_opened(ours, sampler, tmp_path):
    case, folder = ours
    _, sampler_folder, model = sampler
    for path, load in (
        (folder / "model.pt", lambda: case.model.load_from_folder(folder)),
        (
            sampler_folder / "sampler.pt",
            lambda: MetricUniformHMCSampler.load(sampler_folder, model),
        ),
    ):
        path.write_bytes(pickle.dumps(Payload(tmp_path / "harm")))
        with pytest.raises(ValueError, match=path.name):
            load()
        torch.save({"model_state_dict": Payload(tmp_path / "harm")}, path)
        with pytest.raises(ValueError, match=path.name):
            load()
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_dims": 3}, "latent_dims"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"latent_dim": "many"}, "latent_dim"),
        ({"name": "VAEConfig"}, "VAEConfig"),
    ],
    ids=["unknown field", "out of range", "not a number", "another class"],
)
def test_configs_of_other_versions(ours, change, message):
    case, folder = ours
    path = folder / "model_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        case.model.load_from_folder(folder)


def test_missing_fields_have_their_defaults(ours):
    case, folder = ours
    path = folder / "model_config.json"
    fields = json.loads(path.read_text())
    for field in set(fields) - {"name", "input_dim", "latent_dim"} - set(case.fields):
        path.write_text(json.dumps({k: v for k, v in fields.items() if k != field}))
        assert type(case.model.load_from_folder(folder)) is case.model
