"""Killed processes, full disks, and files that are not what they should be."""

import json
import os
import pickle
import resource
import shutil
import signal

import numpy as np
import pytest
import torch
from cases import CASES, seeded, train
from processes import run
from pythae.models import AutoModel
from pythae.trainers import BaseTrainer

from pythae_geometric import MetricUniformHMCSampler, MetricUniformHMCSamplerConfig


def assert_killed(function, *arguments):
    """Run a function in a process of its own, which kills itself on the way."""
    exit_code, errors = run(function, *arguments)
    assert exit_code == -signal.SIGKILL, errors


def half_written(thing, path):
    """What is on disk when a process ends in the middle of ``torch.save``."""
    with open(path, "wb") as f:
        f.write(b"PK half of a file")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(params=[name for name in CASES if name != "VAE"])
def ours(request, run_of, tmp_path):
    """A model of ours, and a folder of its own that holds it."""
    case = CASES[request.param]
    folder = tmp_path / "model"
    shutil.copytree(run_of(case).final, folder)
    return case, folder


def load_and_change(folder):
    model = AutoModel.load_from_folder(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    return model


def dying_save(folder):
    model = load_and_change(folder)
    torch.save = half_written
    model.save(folder)


def test_killed_while_saving(ours, digits):
    """The folder holds the old model, whole."""
    _, folder = ours
    x = torch.as_tensor(digits[:5])
    before = seeded(AutoModel.load_from_folder(folder).eval(), {"data": x}).recon_x
    assert_killed(dying_save, folder)
    after = seeded(AutoModel.load_from_folder(folder).eval(), {"data": x}).recon_x
    assert torch.equal(before, after)


def dying_training(name, data, folder):
    case = CASES[name]
    save, saved = BaseTrainer.save_checkpoint, []

    def dying(self, *args, **kwargs):
        if len(saved) == case.epochs - 1:
            torch.save = half_written
        saved.append(save(self, *args, **kwargs))

    BaseTrainer.save_checkpoint = dying
    train(case.build(), data, folder, case.epochs, steps_saving=1)


@pytest.mark.parametrize("name", [name for name in CASES if name != "VAE"])
def test_killed_while_training_goes_on_from_the_last_checkpoint(name, digits, tmp_path):
    assert_killed(dying_training, name, digits[:100], tmp_path)
    (training,) = tmp_path.iterdir()
    checkpoints = sorted(training.iterdir())
    assert [c.name for c in checkpoints] == [
        f"checkpoint_epoch_{k + 1}" for k in range(CASES[name].epochs)
    ]
    # The last one was cut off: it is refused; the one before goes on.
    with pytest.raises((ValueError, FileNotFoundError)):
        AutoModel.load_from_folder(checkpoints[-1])
    model = AutoModel.load_from_folder(checkpoints[-2])
    assert torch.isfinite(seeded(model.eval(), {"data": torch.as_tensor(digits[:5])}).loss)


@pytest.fixture(params=["codes", "posteriors"])
def sampler(request, run_of, digits, tmp_path):
    """A fitted sampler in a folder, and its model in another."""
    vae = run_of(CASES["VAE"]).final
    model = AutoModel.load_from_folder(vae)
    config = MetricUniformHMCSamplerConfig(
        metric=request.param, num_centroids=10, mcmc_steps_nbr=2, n_lf=2, seed=0
    )
    fitted = MetricUniformHMCSampler(model, config)
    fitted.fit(digits[:100])
    fitted.save(tmp_path / "sampler")
    return model, vae, tmp_path / "sampler"


def dying_save_of_a_sampler(folder, vae):
    sampler = MetricUniformHMCSampler.load(folder, AutoModel.load_from_folder(vae))
    sampler.metric.centroids.add_(1.0)
    torch.save = half_written
    sampler.save(folder)


def dying_fit(folder, vae):
    sampler = MetricUniformHMCSampler.load(folder, AutoModel.load_from_folder(vae))
    sampler.model.encoder.forward = lambda x: os.kill(os.getpid(), signal.SIGKILL)
    sampler.fit(np.zeros((50, 1, 8, 8), dtype="float32"))


@pytest.mark.parametrize("dying", [dying_save_of_a_sampler, dying_fit])
def test_killed_while_saving_or_fitting_a_sampler(dying, sampler):
    """What was saved before is as it was."""
    model, vae, folder = sampler
    expected = MetricUniformHMCSampler.load(folder, model).sample(3)
    assert_killed(dying, folder, vae)
    assert torch.equal(MetricUniformHMCSampler.load(folder, model).sample(3), expected)


def save_on_a_full_disk(folder):
    model = load_and_change(folder)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # no file grows beyond 2,000 bytes
    with pytest.raises((OSError, RuntimeError)):
        model.save(folder)


def test_a_full_disk(ours, digits):
    """A write that fails half way leaves the old model."""
    _, folder = ours
    x = torch.as_tensor(digits[:5])
    before = seeded(AutoModel.load_from_folder(folder).eval(), {"data": x}).recon_x
    names = sorted(os.listdir(folder))
    exit_code, errors = run(save_on_a_full_disk, folder)
    assert exit_code == 0, errors
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


CHECKED = pytest.mark.parametrize("checked", [True, False])  # version 0.1.0 wrote no checksums


@CHECKED
@pytest.mark.parametrize(("name", "damage"), damages("model_config.json", "model.pt"))
def test_damaged_files_of_a_model(ours, name, damage, checked):
    case, folder = ours
    if not checked:
        (folder / "model_checksums.json").unlink()
    damage(folder / name)
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        case.model.load_from_folder(folder)
    message = str(refused.value)
    assert "\n" not in message and (name in message or str(folder) in message), message


@CHECKED
@pytest.mark.parametrize(("name", "damage"), damages("sampler_config.json", "sampler.pt"))
def test_damaged_files_of_a_sampler(sampler, name, damage, checked):
    model, _, folder = sampler
    if not checked:
        (folder / "sampler_checksums.json").unlink()
    damage(folder / name)
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        MetricUniformHMCSampler.load(folder, model)
    message = str(refused.value)
    assert "\n" not in message and (name in message or str(folder) in message), message


def test_a_malicious_pickle_is_not_opened(ours, sampler, tmp_path):
    case, folder = ours
    model, _, sampler_folder = sampler
    (folder / "model_checksums.json").unlink()  # a stranger's would be right
    (sampler_folder / "sampler_checksums.json").unlink()
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
    (folder / "model_checksums.json").unlink()
    with pytest.raises(ValueError, match=message):
        case.model.load_from_folder(folder)


def test_missing_fields_have_their_defaults(ours):
    case, folder = ours
    path = folder / "model_config.json"
    fields = json.loads(path.read_text())
    (folder / "model_checksums.json").unlink()
    for field in set(fields) - {"name", "input_dim", "latent_dim"} - set(case.fields):
        path.write_text(json.dumps({k: v for k, v in fields.items() if k != field}))
        assert type(case.model.load_from_folder(folder)) is case.model
