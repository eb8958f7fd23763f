"""What the scripts share: data, networks, models by name, training, samplers by name."""

import contextlib
import dataclasses
import difflib
import glob
import json
import logging
import os
import resource
import time
import warnings
from typing import NamedTuple

import numpy as np
import pythae.models
import pythae.samplers
import pythae.trainers
import torch
from pythae.models import BaseAE
from pythae.models.nn.benchmarks import celeba, cifar, mnist
from pythae.pipelines import TrainingPipeline
from pythae.samplers import BaseSampler
from pythae.trainers.training_callbacks import TrainingCallback
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import pythae_geometric
import pythae_geometric.models
import pythae_geometric.samplers

FILES = ("mnist", "fashion_mnist", "cifar10", "celeba", "svhn")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Data(NamedTuple):
    """Images in [0, 1] of a data set in three parts, and their labels (None: it has none)."""

    train: torch.Tensor
    train_labels: torch.Tensor | None
    validation: torch.Tensor
    validation_labels: torch.Tensor | None
    test: torch.Tensor
    test_labels: torch.Tensor | None


def load_data(name, folder="data"):
    """The digits of scikit-learn, or the user's files in pythae's convention.

    The digits are split into 1,000, 397 and 400, with equal shares of each class. Of files, the
    last tenth of the training data is the validation part.
    """
    if name == "digits":
        digits = load_digits()
        images = torch.as_tensor(digits.images[:, None] / 16, dtype=torch.float32)
        labels = torch.as_tensor(digits.target)
        rest, test = train_test_split(
            np.arange(len(images)), test_size=400, stratify=labels, random_state=0
        )
        train, validation = train_test_split(
            rest, train_size=1000, stratify=labels[rest], random_state=0
        )
        parts = [(images[i], labels[i]) for i in (train, validation, test)]
    elif name in FILES:
        (images, labels), test = (_read(os.path.join(folder, name), s) for s in ("train", "eval"))
        if test[0].shape[1:] != images.shape[1:]:
            raise SystemExit("The images of train_data.npz and eval_data.npz differ in shape.")
        cut = len(images) - max(1, len(images) // 10)
        halves = [None, None] if labels is None else [labels[:cut], labels[cut:]]
        parts = [(images[:cut], halves[0]), (images[cut:], halves[1]), test]
    else:
        raise SystemExit(f"There is no data set {name!r}: take digits, {', '.join(FILES)}.")
    return Data(*(tensor for part in parts for tensor in part))


def _read(folder, part):
    path = os.path.join(folder, f"{part}_data.npz")
    how = (
        f"Put two files there, {os.path.join(folder, 'train_data.npz')} and eval_data.npz, each "
        "with an array 'data' [N, channels, height, width] of values from 0 to 255, and, for "
        "measures that need classes, an array 'labels' [N] of whole numbers from 0: "
        "np.savez_compressed(path, data=images, labels=classes)."
    )
    try:
        with np.load(path) as file:
            images = torch.as_tensor(file["data"], dtype=torch.float32) / 255
            labels = torch.as_tensor(file["labels"]).long() if "labels" in file else None
    except FileNotFoundError:
        raise SystemExit(f"There is no {path}. {how}") from None
    except (KeyError, ValueError, OSError) as error:
        raise SystemExit(f"{path} cannot be read ({error}). {how}") from None
    inside = images.dim() == 4 and len(images) > 1 and 0 <= images.min() and images.max() <= 1
    if not inside or images.max() < 0.5:
        raise SystemExit(f"{path} holds other data than images from 0 to 255. {how}")
    if labels is not None and len(labels) != len(images):
        raise SystemExit(f"{path} has {len(images)} images and {len(labels)} labels.")
    return images, labels


# By name


def find(name, kind=BaseAE):
    """A class of pythae's or ours, and its config class, by its name."""
    modules = (
        (pythae.models, pythae_geometric.models, pythae_geometric)
        if kind is BaseAE
        else (pythae.samplers, pythae_geometric.samplers, pythae_geometric)
    )
    for module in modules:
        cls = getattr(module, name, None)
        for config in (f"{name}Config", f"{name}_Config"):
            if isinstance(cls, type) and issubclass(cls, kind) and hasattr(module, config):
                if module not in (pythae.models, pythae.samplers):
                    pythae_geometric.register(cls, getattr(module, config))
                return cls, getattr(module, config)
    known = names(kind)
    near = difflib.get_close_matches(name, known, 1, 0.3)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise SystemExit(f"There is no {name!r}.{hint} There are {', '.join(known)}.")


def names(kind=BaseAE):
    """Names of the models, or samplers, of pythae and of this package."""
    modules = (
        (pythae.models, pythae_geometric.models)
        if kind is BaseAE
        else (pythae.samplers, pythae_geometric.samplers)
    )
    return sorted(
        name
        for module in modules
        for name, cls in vars(module).items()
        if isinstance(cls, type)
        and issubclass(cls, kind)
        and any(hasattr(module, name + end) for end in ("Config", "_Config"))
        and not name.startswith("Base")
    )


def make_config(name_or_file, kind=BaseAE, **fields):
    """A class, and its config: defaults with those ``fields`` that it has, or read from a JSON
    file."""
    if not name_or_file.endswith(".json"):
        cls, config = find(name_or_file, kind)
        known = {field.name for field in dataclasses.fields(config) if field.init}
        return cls, config(**{k: v for k, v in fields.items() if k in known})
    try:
        with open(name_or_file, encoding="utf-8") as file:
            name = json.load(file)["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(
            f"{name_or_file} cannot be read as a config of pythae, a JSON file with 'name' and "
            f'fields, such as {{"name": "VAEConfig", "latent_dim": 8}} ({error!r}).'
        ) from None
    cls, config = find(name.removesuffix("Config").removesuffix("_"), kind)
    config = config.from_json_file(name_or_file)
    if getattr(config, "input_dim", 0) is None:
        config.input_dim = fields["input_dim"]
    return cls, config


BENCHMARKS = {(1, 28, 28): mnist, (3, 32, 32): cifar, (3, 64, 64): celeba}


def make_model(cls, config, networks="default"):
    """A model with its default networks, or pythae's benchmark networks for images of its size."""
    if networks == "default":
        return cls(config)
    module = BENCHMARKS.get(tuple(config.input_dim))
    if module is None:
        sizes = ", ".join("x".join(map(str, size)) for size in BENCHMARKS)
        raise SystemExit(
            f"pythae has {networks} networks for images of {sizes}, not "
            f"{'x'.join(map(str, config.input_dim))}: take --networks default."
        )
    data_set = module.__name__.rpartition(".")[2].upper()
    layers = {"convnet": "Conv", "resnet": "ResNet"}[networks]
    with torch.no_grad():
        model = cls(config)
        output = model.encoder.eval()(torch.zeros(2, *config.input_dim))
    kind = "VAE" if "log_covariance" in output else "AE"
    kind = "SVAE" if "log_concentration" in output else kind
    encoder = getattr(module, f"Encoder_{layers}_{kind}_{data_set}")(config)
    return cls(config, encoder, getattr(module, f"Decoder_{layers}_AE_{data_set}")(config))


def make_sampler_config(name_or_file, **fields):
    """The config of a sampler, by the name of the sampler or in a JSON file."""
    if not name_or_file.endswith(".json") and not name_or_file.endswith("Sampler"):
        name_or_file += "Sampler"
    return make_config(name_or_file, BaseSampler, **fields)[1]


# Training


class _Restored(TrainingCallback):
    """Puts the state of the optimizer of a checkpoint back."""

    def __init__(self, pipeline, checkpoint):
        self.pipeline, self.checkpoint = pipeline, checkpoint

    def on_train_begin(self, training_config, **kwargs):
        trainer = self.pipeline.trainer  # which the pipeline keeps before training begins
        for path in glob.glob(os.path.join(self.checkpoint, "*optimizer.pt")):
            optimizer = getattr(trainer, os.path.basename(path)[:-3], None)
            if optimizer is not None:
                optimizer.load_state_dict(torch.load(path, map_location=trainer.device))


def train(model, data, output_dir, training_config=None, checkpoint=None, seed=0, **fields):
    """Train by pythae's pipeline, with the trainer that the model needs.

    Args:
        training_config: a JSON file; None: pythae's defaults with ``fields``.
        checkpoint: folder ``checkpoint_epoch_N`` to go on from, of which ``model`` was loaded.

    Returns:
        the folder of the trained model.
    """
    config = type(TrainingPipeline(model).training_config)
    if training_config is not None:
        config = getattr(pythae.trainers, _json(training_config).get("name", ""), config)
        config = config.from_json_file(training_config)
        config.output_dir = output_dir
    else:
        rate = fields.pop("learning_rate", 1e-3)
        rates = [f.name for f in dataclasses.fields(config) if f.name.endswith("learning_rate")]
        config = config(output_dir=output_dir, seed=seed, **fields)
        # The trainers of pythae that have two optimizers have rates of their own.
        for name in [r for r in rates if r != "learning_rate"] or rates:
            setattr(config, name, rate)
    if checkpoint is not None:
        done = int(os.path.basename(os.path.normpath(checkpoint)).rpartition("_")[2])
        if done >= config.num_epochs:
            raise SystemExit(f"{checkpoint} has all of its {config.num_epochs} epochs.")
        config.num_epochs -= done
    pipeline = TrainingPipeline(model, config)
    callbacks = None if checkpoint is None else [_Restored(pipeline, checkpoint)]
    pipeline(data.train, data.validation, callbacks=callbacks)
    return os.path.join(pipeline.trainer.training_dir, "final_model")


def _json(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path} cannot be read as JSON ({error}).") from None


def settle():
    """Silence what pythae prints for each step, and keep warnings that users can act on."""
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore", module="pythae")


# Time and memory


@contextlib.contextmanager
def measured():
    """Seconds (of wall time, and of the processor), and megabytes beyond those held before, of a
    block: a dictionary that is filled when the block ends. On CUDA the memory is the device's."""
    figures = {}
    before = _peak(reset=True)
    start, busy = time.perf_counter(), time.process_time()
    yield figures
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    figures["wall_seconds"] = time.perf_counter() - start
    figures["processor_seconds"] = time.process_time() - busy
    figures["megabytes"] = max(0.0, _peak() - before)


def _peak(reset=False):
    if DEVICE == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 1e6
    try:  # Linux: the mark of the highest memory can be put back to what is held now
        if reset:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["VmHWM"].split()[0]) / 1e3
    except (OSError, KeyError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
