"""pythae's trackers show the parts of each loss, of every model and in every phase."""

import importlib
import logging
import os

import numpy as np
import pytest
import torch
from pythae.models import VAE, VAEConfig
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback

from pythae_geometric import (
    VAE_DLM,
    BrownianRVAE,
    BrownianRVAEConfig,
    ERManifoldVAE,
    ERManifoldVAEConfig,
    RicciAE,
    RicciAEConfig,
    VAE_DLM_Config,
)
from pythae_geometric.trackers import LossParts

SHAPE = {"input_dim": (1, 8, 8), "latent_dim": 2}
# Each model, and the weights of the parts in its loss.
MODELS = {
    "VAE": (lambda: VAE(VAEConfig(**SHAPE)), {"recon_loss": 1, "reg_loss": 1}),
    "BrownianRVAE": (
        lambda: BrownianRVAE(BrownianRVAEConfig(**SHAPE, warmup_epochs=2, num_centers=8)),
        {"recon_loss": 1, "reg_loss": 1},
    ),
    "ERManifoldVAE": (
        lambda: ERManifoldVAE(ERManifoldVAEConfig(input_dim=(1, 8, 8), manifold="sphere(2)")),
        {"recon_loss": 1, "reg_loss": 1},
    ),
    "RicciAE": (
        lambda: RicciAE(RicciAEConfig(**SHAPE, curvature_weight=0.5)),
        {"recon_loss": 1, "curvature_loss": 0.5},
    ),
    "VAE_DLM": (
        lambda: VAE_DLM(VAE_DLM_Config(**SHAPE)),
        {"recon_loss": 100, "reg_loss": 1e-4, "metric_loss": 1, "flow_loss": 1},
    ),
}


class Record(TrainingCallback):
    """Keeps what the callbacks are given to log."""

    def __init__(self):
        self.logs = []

    def on_log(self, training_config, logs, global_step, **kwargs):
        self.logs.append(dict(logs))


class TensorBoard(TrainingCallback):
    """As in the docstring of LossParts."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_begin(self, training_config, **kwargs):
        self.writer = torch.utils.tensorboard.SummaryWriter(self.folder)

    def on_log(self, training_config, logs, global_step, **kwargs):
        for name, value in logs.items():
            self.writer.add_scalar(name, value, global_step)

    def on_train_end(self, training_config, **kwargs):
        self.writer.close()


@pytest.fixture
def train(digits, tmp_path):
    def train(model, *callbacks, epochs=3, setup=()):
        torch.manual_seed(0)
        config = BaseTrainerConfig(
            output_dir=str(tmp_path / "training"), num_epochs=epochs, learning_rate=1e-4
        )
        for tracker in setup:
            tracker.setup(config, model.model_config)
        data, held_out = digits[:128], digits[128:192]
        TrainingPipeline(model, config)(data, held_out, callbacks=list(callbacks))

    return train


@pytest.mark.parametrize("name", MODELS)
def test_the_parts_add_up_to_the_loss(name, train):
    make, weights = MODELS[name]
    model, record = make(), Record()
    train(model, LossParts(), record)
    assert len(record.logs) == 3
    for log in record.logs:
        for stage in ("train", "eval"):
            total = sum(weight * log[f"{stage}_{part}"] for part, weight in weights.items())
            np.testing.assert_allclose(total, log[f"{stage}_epoch_loss"], rtol=1e-4)


def test_both_phases_of_brownian_rvae_are_shown(train):
    model, record = MODELS["BrownianRVAE"][0](), Record()
    train(model, LossParts(), record, epochs=4)
    # The trainer evaluates after update(), with which the second phase begins.
    assert [log["train_reg_loss"] != 0 for log in record.logs] == [False, False, True, True]
    assert [log["eval_reg_loss"] != 0 for log in record.logs] == [False, True, True, True]


def test_it_averages_each_part_over_its_own_batches(train):
    """A part that some batches lack is not diluted by them."""
    model = RicciAE(RicciAEConfig(**SHAPE, curvature_weight=0.5, curvature_every=2))
    parts, seen = LossParts(), []
    record = Record()

    def note(module, inputs, output):
        if module.training and "curvature_loss" in output:
            seen.append(float(output.curvature_loss.detach()))

    class Noted(TrainingCallback):
        def on_epoch_begin(self, training_config, **kwargs):
            seen.clear()

        def on_log(self, training_config, logs, **kwargs):
            assert len(seen) == 1  # of the two batches
            np.testing.assert_allclose(logs["train_curvature_loss"], np.mean(seen), rtol=1e-5)

    handle = model.register_forward_hook(note)
    train(model, parts, record, Noted())
    handle.remove()


def test_it_leaves_the_model_and_the_training_as_they_are(train):
    def trained(*callbacks):
        torch.manual_seed(0)
        model = MODELS["BrownianRVAE"][0]()
        train(model, *callbacks, epochs=4)
        return model

    plain, with_parts = trained(Record()), trained(LossParts())
    assert not with_parts._forward_hooks
    for name, value in plain.state_dict().items():
        assert torch.equal(value, with_parts.state_dict()[name]), name


def renamed(log):
    return {name.replace("_", "/", 1): value for name, value in log.items()}


def test_wandb(train, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from pythae.trainers.training_callbacks import WandbCallback

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    shown = []

    class Watched(WandbCallback):
        def setup(self, *args, **kwargs):
            super().setup(*args, **kwargs)
            log = wandb.log  # which init has just set

            def noted(values, *args, **kwargs):
                shown.append(values)
                log(values, *args, **kwargs)

            monkeypatch.setattr(wandb, "log", noted)

    record, model, tracker = Record(), MODELS["BrownianRVAE"][0](), Watched()
    train(model, LossParts(), record, tracker, epochs=4, setup=[tracker])
    assert [{**renamed(log), "train/global_step": i + 1} for i, log in enumerate(record.logs)] == (
        shown
    )
    assert "train/recon_loss" in shown[0] and "train/reg_loss" in shown[-1]
    written = [f for _, _, files in os.walk(tmp_path) for f in files if f.endswith(".wandb")]
    assert written


def test_mlflow(train, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    from pythae.trainers.training_callbacks import MLFlowCallback

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions ask for it
    monkeypatch.setattr(logging.root, "handlers", list(logging.root.handlers))
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    record, model, tracker = Record(), MODELS["BrownianRVAE"][0](), MLFlowCallback()
    train(model, LossParts(), record, tracker, epochs=4, setup=[tracker])
    (run,) = mlflow.search_runs(output_format="list")
    client = mlflow.MlflowClient()
    wanted = [renamed(log) for log in record.logs]
    for name in wanted[-1]:
        shown = {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)}
        assert shown == {i + 1: log[name] for i, log in enumerate(wanted) if name in log}


def test_tensorboard(train, tmp_path):
    pytest.importorskip("tensorboard")
    importlib.import_module("torch.utils.tensorboard")
    reader = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    record, model = Record(), MODELS["BrownianRVAE"][0]()
    train(model, LossParts(), record, TensorBoard(tmp_path / "events"), epochs=4)
    events = reader.EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    for name in record.logs[-1]:
        shown = {event.step: event.value for event in events.Scalars(name)}
        wanted = {i + 1: log[name] for i, log in enumerate(record.logs) if name in log}
        assert shown.keys() == wanted.keys()
        np.testing.assert_allclose(list(shown.values()), list(wanted.values()), rtol=1e-6)
