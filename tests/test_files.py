"""Saves that are killed, that meet other saves, or are damaged afterwards."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
import zipfile

import pytest
import torch
from pythae.models import AutoModel
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseEncoder

from pythae_geometric import (
    VAE_DLM,
    BrownianRVAE,
    BrownianRVAEConfig,
    ERManifoldVAE,
    ERManifoldVAEConfig,
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
    RicciAE,
    RicciAEConfig,
    VAE_DLM_Config,
)
from pythae_geometric._files import load_tensors, read_together, saved_together

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the test forks processes")


class TaggedEncoder(BaseEncoder):
    """A custom network that says which save its pickle belongs to."""

    def __init__(self, tag):
        super().__init__()
        self.tag, self.layer = tag, torch.nn.Linear(6, 4)

    def forward(self, x):
        mean, log_variance = self.layer(x.flatten(1)).chunk(2, dim=1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


def brownian(v):
    config = BrownianRVAEConfig(
        input_dim=(6,), latent_dim=2, hidden_dims=(5,), num_centers=3, rbf_bandwidth=v
    )
    return BrownianRVAE(config), "rbf_bandwidth"


def custom(v):
    config = BrownianRVAEConfig(
        input_dim=(6,), latent_dim=2, hidden_dims=(5,), num_centers=3, rbf_bandwidth=v
    )
    return BrownianRVAE(config, encoder=TaggedEncoder(v)), "rbf_bandwidth"


def er(v):
    config = ERManifoldVAEConfig(input_dim=(6,), manifold="circle", hidden_dims=(5,))
    config.likelihood_std = v
    return ERManifoldVAE(config), "likelihood_std"


class TaggedChart(torch.nn.Module):
    """A custom embedding that says which save its pickle belongs to."""

    def __init__(self, tag):
        super().__init__()
        self.tag = tag

    def forward(self, u):
        angle = 2 * torch.pi * u
        return torch.cat([angle.cos(), angle.sin()], dim=1)


def embedded(v):
    config = ERManifoldVAEConfig(
        input_dim=(6,), manifold="custom", latent_dim=1, ambient_dim=2, hidden_dims=(5,),
        likelihood_std=v,
    )  # fmt: skip
    return ERManifoldVAE(config, exact_embedding=TaggedChart(v)), "likelihood_std"


def ricci(v):
    return RicciAE(RicciAEConfig(input_dim=(6,), tau=v)), "tau"


def dlm(v):
    config = VAE_DLM_Config(input_dim=(6,), latent_dim=2, hidden_dim=4, num_layers=1, alpha=v)
    return VAE_DLM(config), "alpha"


KINDS = [brownian, custom, er, embedded, ricci, dlm]


def made(kind, v):
    """A model that says in its config and in all its weights that it is number v."""
    model, _ = kind(v)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(v)
    return model


def number_of(kind, folder):
    """The number of a saved model, which config, weights and pickles must agree on."""
    model = AutoModel.load_from_folder(str(folder))
    config = getattr(model.model_config, kind(1.0)[1])
    found = {config, *(float(v) for p in model.parameters() for v in (p.min(), p.max()))}
    if isinstance(model.encoder, TaggedEncoder):
        found.add(model.encoder.tag)
    if kind is embedded:
        found.add(model.embedding.chart.tag)
    assert len(found) == 1, f"a mixture of two saves: {found}"
    return found.pop()


def child(work):
    """A process that works until it is killed."""
    pid = os.fork()
    if pid == 0:
        try:
            torch.set_num_threads(1)
            work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def killed_saves(kind, folder, count, seed):
    models = [made(kind, v) for v in (1.0, 2.0)]
    models[0].save(folder)

    def save_for_ever():
        while True:
            for model in reversed(models):
                model.save(folder)

    random_times = random.Random(seed)
    for _ in range(count):
        pid = child(save_for_ever)
        time.sleep(random_times.uniform(0.002, 0.08))
        kill(pid)
        assert number_of(kind, folder) in (1.0, 2.0)
    models[1].save(folder)
    assert number_of(kind, folder) == 2.0
    left = [name for name in os.listdir(folder) if name.startswith(".")]
    assert not left, "leftovers of killed saves go with the next"


@forks
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_save_is_whole_or_was_not(kind, tmp_path):
    killed_saves(kind, str(tmp_path), 4, seed=0)


@forks
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_300_killed_saves(kind, tmp_path):
    killed_saves(kind, str(tmp_path), 300, seed=1)


def killed_saves_of_a_sampler(model, data, folder, count):
    """Two samplers, of which config and state name the temperature."""
    samplers = []
    for v in (1.0, 2.0):
        config = MetricUniformHMCSamplerConfig(
            metric="posteriors", num_centroids=5, temperature=v, seed=0
        )
        samplers.append(MetricUniformHMCSampler(model, config))
        samplers[-1].fit(data)
    samplers[0].save(folder)

    def save_for_ever():
        while True:
            for sampler in reversed(samplers):
                sampler.save(folder)

    random_times = random.Random(2)
    for _ in range(count):
        pid = child(save_for_ever)
        time.sleep(random_times.uniform(0.002, 0.08))
        kill(pid)
        loaded = MetricUniformHMCSampler.load(folder, model)
        assert loaded.sampler_config.temperature == float(loaded.metric.temperature)


@forks
def test_a_killed_save_of_a_sampler_is_whole_or_was_not(trained, digits, tmp_path):
    killed_saves_of_a_sampler(trained, digits[:100], str(tmp_path), 4)


@forks
@pytest.mark.slow
def test_300_killed_saves_of_a_sampler(trained, digits, tmp_path):
    killed_saves_of_a_sampler(trained, digits[:100], str(tmp_path), 300)


def two_writers(kind, folder, seconds):
    models = [made(kind, v) for v in (1.0, 2.0)]
    models[0].save(folder)

    def saving(model):
        def save_for_ever():
            while True:
                model.save(folder)

        return save_for_ever

    writers, read, start = [child(saving(m)) for m in models], [], time.monotonic()
    try:
        while time.monotonic() - start < seconds:
            read.append(number_of(kind, folder))
        assert all(os.waitpid(pid, os.WNOHANG) == (0, 0) for pid in writers), "a writer failed"
    finally:
        for pid in writers:
            kill(pid)
    assert set(read) == {1.0, 2.0}
    assert number_of(kind, folder) in (1.0, 2.0)
    return len(read)


@forks
@pytest.mark.parametrize("kind", [brownian, custom])
def test_two_writers_and_a_reader(kind, tmp_path):
    two_writers(kind, str(tmp_path), seconds=1.0)


@forks
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_writers_and_a_reader_for_a_minute(kind, tmp_path):
    print(two_writers(kind, str(tmp_path), seconds=60.0), "reads")


def test_files_enter_the_folder_together(tmp_path):
    for text in ("first", "second"):
        with saved_together(tmp_path, "model") as folder:
            for name in ("a", "b"):
                with open(os.path.join(folder, name), "w") as file:
                    file.write(text)
    assert read_together(tmp_path, "model", ["a", "b", "c"]) == {"a": b"second", "b": b"second"}
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "model_checksums.json"]


def test_what_fails_while_it_is_written_leaves_the_save_before(tmp_path):
    with saved_together(tmp_path, "model") as folder, open(f"{folder}/a", "w") as file:
        file.write("first")
    with pytest.raises(RuntimeError, match="disk"), saved_together(tmp_path, "model") as folder:
        with open(os.path.join(folder, "a"), "w") as file:
            file.write("second")
        raise RuntimeError("disk")
    assert read_together(tmp_path, "model", ["a"]) == {"a": b"first"}
    assert sorted(os.listdir(tmp_path)) == ["a", "model_checksums.json"]


def test_a_save_is_found_before_its_files_are_in_their_places(tmp_path):
    """As after a kill at the worst moment: some files have moved, others have not."""
    made(brownian, 1.0).save(tmp_path)
    made(brownian, 2.0).save(tmp_path / "other")
    names = sorted(os.listdir(tmp_path / "other"))
    for moved in range(len(names)):
        folder = tmp_path / str(moved)
        folder.mkdir()
        for path in tmp_path.iterdir():
            if path.is_file():
                shutil.copy(path, folder)
        saved = folder / ".model-saved"
        shutil.copytree(tmp_path / "other", saved)
        for name in names[:moved]:
            os.replace(saved / name, folder / name)
        assert number_of(brownian, folder) == 2.0
        made(brownian, 3.0).save(folder)
        assert number_of(brownian, folder) == 3.0 and not saved.exists()


# Custom networks


MODULE = """
import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseEncoder

def half(x):
    return x.flatten(1).chunk(2, dim=1)

class Halving(BaseEncoder):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 4)

    def forward(self, x):
        mean, log_variance = half(self.layer(x))
        return ModelOutput(embedding=mean, log_covariance=log_variance)
"""
FIRST = """
import sys; sys.path.insert(0, sys.argv[1])
from away import Halving
from pythae_geometric import BrownianRVAE, BrownianRVAEConfig
config = BrownianRVAEConfig(input_dim=(6,), latent_dim=2, hidden_dims=(5,), num_centers=3)
BrownianRVAE(config, encoder=Halving()).save(sys.argv[2])
"""
AGAIN = """
import sys, torch
from pythae.models import AutoModel
import pythae_geometric
model = AutoModel.load_from_folder(sys.argv[1])
assert "away" not in sys.modules
with torch.no_grad():
    model.encoder.layer.weight.fill_(float(sys.argv[3]))
model.save(sys.argv[2])
"""


def test_a_loaded_custom_network_is_saved_again_where_its_module_is_not(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "away.py").write_text(MODULE)
    folders = [str(tmp_path / name) for name in ("code", "a", "b", "c")]
    steps = [(FIRST, *folders[:2]), (AGAIN, *folders[1:3], "3"), (AGAIN, *folders[2:], "4")]
    for code, *arguments in steps:
        command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    loaded = AutoModel.load_from_folder(folders[3])
    assert float(loaded.encoder.layer.weight.min()) == 4.0
    assert loaded.encoder(torch.zeros(2, 6)).embedding.shape == (2, 2)


# Damage


def with_a_bit_flipped(content, bit):
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def flipped_bits(model, folder, bits, with_checksums):
    """How many flips of a bit in model.pt were refused; those that load must load the same."""
    model.save(folder)
    path = os.path.join(folder, "model.pt")
    with open(path, "rb") as file:
        content = file.read()
    if not with_checksums:  # as version 0.1.0 saved
        os.unlink(os.path.join(folder, "model_checksums.json"))
    refused = 0
    for bit in bits(8 * len(content)):
        with open(path, "wb") as file:
            file.write(with_a_bit_flipped(content, bit))
        try:
            loaded = type(model).load_from_folder(folder)
        except ValueError as error:
            assert "model.pt" in str(error) or "weights" in str(error)
            refused += 1
        else:
            for name, value in model.state_dict().items():
                assert torch.equal(loaded.state_dict()[name], value), f"bit {bit}: {name}"
    return refused


@pytest.mark.parametrize("with_checksums", [True, False])
def test_flipped_bits(with_checksums, tmp_path):
    draw = random.Random(0)

    def some(number):
        return [draw.randrange(number) for _ in range(60)]

    refused = flipped_bits(made(brownian, 1.5), tmp_path, some, with_checksums)
    assert refused > 20  # the others fall into padding


@pytest.mark.slow
@pytest.mark.parametrize("with_checksums", [True, False])
def test_every_bit_flipped(with_checksums, tmp_path):
    refused = flipped_bits(made(brownian, 1.5), tmp_path, range, with_checksums)
    print(refused, "flips were refused; no other changed a value")


@pytest.mark.parametrize("file", ["model_config.json", "environment.json", "model.pt"])
def test_a_file_that_was_changed_is_named_with_the_remedy(file, tmp_path):
    made(ricci, 1.0).save(tmp_path)
    path = tmp_path / file
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match=rf"{file}' is damaged, or was changed.*delete model_che"):
        AutoModel.load_from_folder(str(tmp_path))
    (tmp_path / "model_checksums.json").unlink()
    if file != "model.pt":
        assert number_of(ricci, tmp_path) == 1.0


HOSTILE = {
    "a list": "[1, 2]",
    "null": "null",
    "a number": "1e400",
    "nothing": "",
    "nested": "[" * 100_000,
    "no name": '{"latent_dim": 2}',
    "a name that is a list": '{"name": ["RicciAEConfig"]}',
    "an unknown field": '{"name": "RicciAEConfig", "input_dim": [6], "curl": 1}',
    "a field of another type": '{"name": "RicciAEConfig", "input_dim": {"a": 1}}',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_configs(text, tmp_path):
    made(ricci, 1.0).save(tmp_path)
    (tmp_path / "model_checksums.json").unlink()
    (tmp_path / "model_config.json").write_text(text)
    for cls in (AutoModel, RicciAE):
        with pytest.raises(ValueError, match=r"model_config\.json"):
            cls.load_from_folder(str(tmp_path))


# Files that claim more than they hold


def saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def deflated(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
    return buffer.getvalue()


BOMBS = {
    "a stride of 0": saved({"codes": torch.zeros(1).expand(10**9)}),
    "compressed": deflated(saved({"codes": torch.zeros(10**6)})),
    "without memory": saved({"codes": torch.zeros(10**9, device="meta")}),
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
def test_bombs(content):
    assert len(content) < 10**5
    with pytest.raises(ValueError, match=r"'sampler\.pt'"):
        load_tensors(content, "sampler.pt")


@pytest.mark.parametrize(
    "kind, field",
    [
        (brownian, "num_centers"),
        (brownian, "latent_dim"),
        (dlm, "hidden_dim"),
        (ricci, "latent_dim"),
    ],
)
def test_a_config_that_asks_for_more_memory_than_the_weights_fill(kind, field, tmp_path):
    made(kind, 1.0).save(tmp_path)
    (tmp_path / "model_checksums.json").unlink()
    path = tmp_path / "model_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: 10**9}))
    with pytest.raises(ValueError, match=r"do not fit its model_config\.json"):
        AutoModel.load_from_folder(str(tmp_path))


def test_a_sampler_is_saved_like_a_model(trained, digits, tmp_path):
    config = MetricUniformHMCSamplerConfig(seed=0)
    sampler = MetricUniformHMCSampler(trained, config)
    sampler.fit(digits[:200])
    sampler.save(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [
        "sampler.pt", "sampler_checksums.json", "sampler_config.json",
    ]  # fmt: skip
    path = tmp_path / "sampler.pt"
    path.write_bytes(with_a_bit_flipped(path.read_bytes(), 5000))
    with pytest.raises(ValueError, match=r"sampler\.pt' is damaged"):
        MetricUniformHMCSampler.load(tmp_path, trained)
