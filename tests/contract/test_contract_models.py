"""What a user may rely on in every model. It is pythae's contract: pythae's VAE keeps it too."""

import copy
import importlib
import json
import math
import os
import pickle
import subprocess
import sys
import warnings

import pytest
import torch
from cases import CASES, seeded, train, train_through_all_phases
from pythae.models import AutoModel, BaseAE
from pythae.models.base.base_utils import ModelOutput
from pythae.trainers.training_callbacks import TrainingCallback

import pythae_geometric
from pythae_geometric.models.brownian_rvae import brownian_rvae_model


@pytest.fixture(scope="module")
def x(digits):
    return torch.as_tensor(digits[1000:1012])


@pytest.fixture
def trained_model(run):
    """The trained model, loaded; for a model in phases it is in the last."""
    return AutoModel.load_from_folder(run.final).eval()


def assert_output(output, x, latent_dim):
    assert isinstance(output, ModelOutput)
    assert output.loss.shape == () and bool(torch.isfinite(output.loss))
    assert output.recon_x.shape == x.shape
    assert output.z.shape == (len(x), latent_dim)


# Calls


@pytest.mark.parametrize("own_networks", [False, True], ids=["default", "own"])
def test_built_and_called_as_pythae_does(case, own_networks, x):
    model = case.build(own_networks)
    assert model.model_name == case.model.__name__
    assert model.model_config.uses_default_encoder == (not own_networks)
    assert model.model_config.uses_default_decoder == (not own_networks)
    assert_output(model({"data": x}), x, 3)
    assert_output(model({"data": x, "labels": torch.zeros(len(x))}), x, 3)
    assert_output(model({"data": x}, epoch=1, dataset_size=200, uses_ddp=False), x, 3)
    with torch.no_grad():
        assert_output(model.eval()({"data": x}, epoch=1, dataset_size=200, uses_ddp=False), x, 3)


def test_what_users_call_on_a_trained_model(case, trained_model, x):
    predicted = trained_model.predict(x)
    assert predicted.recon_x.shape == x.shape and predicted.embedding.shape == (len(x), 3)
    assert trained_model.reconstruct(x).shape == x.shape
    assert trained_model.embed(x).shape == (len(x), 3)
    assert trained_model.interpolate(x[:4], x[4:8], granularity=5).shape == (4, 5, 1, 8, 8)
    decoded = trained_model.decoder(torch.randn(7, 3))["reconstruction"]
    assert decoded.shape == (7, 1, 8, 8) and bool(torch.isfinite(decoded).all())
    assert_output(trained_model({"data": x[:1]}), x[:1], 3)  # a batch of one
    if case.likelihood:
        value = seeded(trained_model.get_nll, x[:3], n_samples=4, batch_size=4)
        assert isinstance(value, float) and math.isfinite(value)
    else:
        assert not hasattr(trained_model, "get_nll")


# Training


def test_every_trainable_parameter_learns_in_one_of_the_phases(case, run, x):
    """A gradient that is not zero in at least one phase, and none that is not finite."""
    learned, names = set(), set()
    for begin in case.phases:
        # A checkpoint in which the phase has begun; the trainer keeps the best model, so the one
        # of the last epoch may be older, but never of an older phase.
        model = AutoModel.load_from_folder(run.checkpoint(begin + 1)).train()
        model({"data": x}, epoch=begin + 1, dataset_size=150, uses_ddp=False).loss.backward()
        for name, parameter in model.named_parameters():
            names.add(name)
            if parameter.grad is not None:
                assert bool(torch.isfinite(parameter.grad).all()), name
                if bool(parameter.grad.any()):
                    learned.add(name)
        # What the user, or the model, froze for good has no gradient in any phase.
        frozen = {n for n, p in model.named_parameters() if not p.requires_grad} - learned
    assert names - learned <= frozen, f"never trained: {sorted(names - learned - frozen)}"


class Recorder(TrainingCallback):
    """Everything that a callback hears."""

    def __init__(self):
        self.events, self.losses, self.predictions = [], [], []

    def on_train_begin(self, training_config, **kwargs):
        self.events.append("train begins")

    def on_epoch_begin(self, training_config, **kwargs):
        self.events.append("epoch begins")

    def on_epoch_end(self, training_config, **kwargs):
        self.events.append("epoch ends")

    def on_log(self, training_config, logs, **kwargs):
        self.losses.append(logs["train_epoch_loss"])

    def on_prediction_step(self, training_config, **kwargs):
        self.predictions.append(kwargs)

    def on_save(self, training_config, **kwargs):
        self.events.append("saved")

    def on_train_end(self, training_config, **kwargs):
        self.events.append("train ends")


def test_training_lowers_the_loss_and_tells_the_callbacks(case, digits, tmp_path):
    """With what pythae's trainer offers beside Adam: another optimiser, a scheduler that is told
    the loss, a process that loads the data. Evaluation needs no gradients: where a model fails
    without them, the trainer tries again with them, silently and at twice the cost."""
    torch.manual_seed(0)
    model, evaluations = case.build(), []

    def count_evaluations(model, arguments, keywords):
        if not model.training and "epoch" in keywords:
            evaluations.append((torch.is_grad_enabled(), len(arguments[0]["data"])))

    model.register_forward_pre_hook(count_evaluations, with_kwargs=True)
    recorder, epochs = Recorder(), case.phases[-1] + 10
    others = {
        "optimizer_cls": "AdamW",
        "optimizer_params": {"weight_decay": 0.01},
        "scheduler_cls": "ReduceLROnPlateau",
        "scheduler_params": {"patience": 1},
        "train_dataloader_num_workers": 1,
    }
    train(
        model,
        digits[:150],
        tmp_path,
        epochs,
        digits[150:220],
        [recorder],
        steps_predict=1,
        **others,
    )
    assert recorder.losses[-1] < recorder.losses[case.phases[-1]]
    middle = ["epoch begins", "epoch ends"] * epochs
    assert recorder.events == ["train begins", *middle, "saved", "train ends"]
    assert evaluations == [(False, 50), (False, 20)] * epochs
    assert len(recorder.predictions) == epochs
    for prediction in recorder.predictions:
        assert prediction["reconstructions"].shape == (10, 1, 8, 8)
        assert prediction["generations"].shape == (10, 1, 8, 8)


def test_training_goes_on_from_a_checkpoint_of_each_phase(case, run, digits, x, tmp_path):
    for begin in case.phases:
        model = AutoModel.load_from_folder(run.checkpoint(begin + 1))
        before = copy.deepcopy(model.state_dict())
        trainer = train(model, digits[:100], tmp_path / str(begin), case.epochs)
        resumed = AutoModel.load_from_folder(os.path.join(trainer.training_dir, "final_model"))
        assert type(resumed) is case.model
        after = resumed.state_dict()
        assert any(not torch.equal(value, after[name]) for name, value in before.items())
        assert bool(torch.isfinite(seeded(resumed.eval(), {"data": x}).loss))


def test_a_seed_gives_the_same_run_twice(case, run_of, digits, tmp_path):
    """Trained again, perhaps in another process."""
    again = train_through_all_phases(case, False, digits, tmp_path)
    first, second = (
        AutoModel.load_from_folder(folder).state_dict()
        for folder in (run_of(case).final, os.path.join(again, "final_model"))
    )
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


# Files and copies


def test_saved_loaded_copied_and_pickled_models_give_equal_values(case, run, x, tmp_path):
    model = AutoModel.load_from_folder(run.final).eval()
    assert type(model) is case.model
    model.save(tmp_path)
    # Custom networks that another process saved have classes of no module: pickle wants one.
    built = case.build(run.own_networks)
    built.load_state_dict(model.state_dict())
    others = {
        "loaded by its class": case.model.load_from_folder(tmp_path).eval(),
        "loaded by AutoModel": AutoModel.load_from_folder(tmp_path).eval(),
        "copied": copy.deepcopy(model),
        "pickled": pickle.loads(pickle.dumps(built.eval())),
    }
    expected = seeded(model, {"data": x})
    for name, other in others.items():
        output = seeded(other, {"data": x})
        assert output.keys() == expected.keys()
        for key, value in expected.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(output[key], value), (name, key)


READER = """
import sys
import torch
import pythae_geometric
from pythae.models import AutoModel
x = torch.load("x.pt", weights_only=True)
for i, folder in enumerate(sys.argv[1:]):
    model = AutoModel.load_from_folder(folder).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        output = model({"data": x})
    torch.save({k: output[k] for k in ("loss", "recon_x", "z")}, f"{i}.pt")
"""


def test_a_fresh_process_loads_the_same_models(run_of, x, tmp_path):
    """All of them in one, where the modules of the custom networks are not."""
    torch.save(x, tmp_path / "x.pt")
    runs = [run_of(case, own) for case in CASES.values() for own in (False, True)]
    command = [sys.executable, "-c", READER, *(str(run.final) for run in runs)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for i, run in enumerate(runs):
        expected = seeded(AutoModel.load_from_folder(run.final).eval(), {"data": x})
        for key, value in torch.load(tmp_path / f"{i}.pt", weights_only=True).items():
            close = torch.allclose(value, expected[key], rtol=1e-5, atol=1e-6)
            assert close, (run.folder.name, key)


def test_the_config_is_on_disk_whole(case, run):
    with open(os.path.join(run.final, "model_config.json"), encoding="utf-8") as f:
        fields = json.load(f)
    assert fields["name"] == case.config.__name__
    config = case.config.from_json_file(os.path.join(run.final, "model_config.json"))
    assert json.loads(config.to_json_string()) == fields
    with open(os.path.join(run.final, "environment.json"), encoding="utf-8") as f:
        assert json.load(f)["name"] == "EnvironmentConfig"


# Numbers and networks of other kinds


def test_double_precision(case, run, x):
    model = AutoModel.load_from_folder(run.final).double().train()
    output = model({"data": x.double()}, epoch=case.epochs, dataset_size=150, uses_ddp=False)
    assert output.loss.dtype == output.recon_x.dtype == output.z.dtype == torch.float64
    output.loss.backward()
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.dtype == torch.float64


@pytest.mark.filterwarnings("ignore:.*ReLU:UserWarning")
@pytest.mark.parametrize(
    ("data", "shape", "kind"),
    [
        ("mnist", (1, 28, 28), "Conv"),
        ("mnist", (1, 28, 28), "ResNet"),
        pytest.param("cifar", (3, 32, 32), "Conv", marks=pytest.mark.slow),
        ("cifar", (3, 32, 32), "ResNet"),
        pytest.param("celeba", (3, 64, 64), "Conv", marks=pytest.mark.slow),
        ("celeba", (3, 64, 64), "ResNet"),
    ],
    ids=lambda value: str(value),
)
def test_benchmark_networks_of_pythae(case, data, shape, kind, tmp_path, monkeypatch):
    """One epoch of each phase on 4 images."""
    monkeypatch.setattr(brownian_rvae_model, "FIRST_ITERATIONS", 2)
    networks = importlib.import_module(f"pythae.models.nn.benchmarks.{data}")
    torch.manual_seed(0)
    fields = {"input_dim": shape, "latent_dim": 2}
    small = {"num_centers": 4, "warmup_epochs": 1, "num_points": 2}
    known = case.config.__dataclass_fields__
    fields |= {field: value for field, value in small.items() if field in known}
    config = case.build_config(**fields)
    encoder = getattr(networks, f"Encoder_{kind}_{case.encoder}_{data.upper()}")(config)
    decoder = getattr(networks, f"Decoder_{kind}_AE_{data.upper()}")(case.decoder_config(config))
    model = case.model(config, encoder=encoder, decoder=decoder)
    images = torch.rand(4, *shape)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    for epoch in range(1, len(case.phases) + 1):
        model.train()
        output = model({"data": images}, epoch=epoch, dataset_size=4, uses_ddp=False)
        assert_output(output, images, 2)
        optimiser.zero_grad()
        output.loss.backward()
        optimiser.step()
        model.update()
    model.eval()
    assert_output(seeded(model, {"data": images}), images, 2)
    if kind == "Conv" and data == "mnist":
        model.save(tmp_path)
        loaded = AutoModel.load_from_folder(tmp_path).eval()
        for key in ("recon_x", "z"):
            expected, got = (seeded(m, {"data": images})[key] for m in (model, loaded))
            assert torch.equal(expected, got)


def test_compiled_decoders(case, run):
    """What generates is compiled as it is. (The ``eager`` backend: what is tested is that the
    model's code can be captured, not the compiler.)"""
    model = AutoModel.load_from_folder(run.final).eval()
    z = torch.randn(4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(lambda z: model.decoder(z)["reconstruction"], backend="eager")
        got = seeded(compiled, z)
    assert torch.equal(got, seeded(lambda: model.decoder(z)["reconstruction"]))


def test_every_model_of_the_package_is_in_the_list():
    ours = {c.__name__ for c in vars(pythae_geometric).values() if is_model(c)}
    assert ours == {c.model.__name__ for c in CASES.values()} - {"VAE"}


def is_model(value):
    return isinstance(value, type) and issubclass(value, BaseAE)
