"""Models and samplers of pythae and of this package by name, and their configs."""

import dataclasses
import difflib
import json
import os
from typing import Any

import pythae.models
import pythae.samplers
import torch
from pythae.models import AutoModel, BaseAE
from pythae.models.nn.benchmarks import celeba, cifar, mnist
from pythae.samplers import BaseSampler

import pythae_geometric.models
import pythae_geometric.samplers

from .data import Data

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MODULES = {
    BaseAE: (pythae.models, pythae_geometric.models),
    BaseSampler: (pythae.samplers, pythae_geometric.samplers),
}
# pythae's networks for images of these sizes.
BENCHMARKS = {(1, 28, 28): mnist, (3, 32, 32): cifar, (3, 64, 64): celeba}


def classes(kind: type = BaseAE) -> dict[str, tuple[type[Any], type[Any]]]:
    """All models, or samplers: ``{name: (class, config class)}``."""
    found = {}
    for module in MODULES[kind]:
        for name, cls in sorted(vars(module).items()):
            config = getattr(module, f"{name}Config", getattr(module, f"{name}_Config", None))
            if config and issubclass(cls, kind) and not name.startswith("Base"):
                found[name] = cls, config
    return found


def sampler_names() -> str:
    """The names of all samplers, as ``--sampler`` takes them."""
    return ", ".join(sorted(name.removesuffix("Sampler") for name in classes(BaseSampler)))


def find(name: str, kind: type = BaseAE) -> tuple[type[Any], type[Any]]:
    """A class of pythae's or ours, and its config class, by its name."""
    known = classes(kind)
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 1, 0.3)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise SystemExit(f"There is no {name!r}.{hint} There are {', '.join(sorted(known))}.")


def read_config(cls: type[Any], path: str) -> Any:
    """A config of the class ``cls``, from a JSON file as pythae writes them."""
    given = read_object(path)
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    for name in given:
        if name not in (*known, "name"):
            near = difflib.get_close_matches(name, known, 1)
            hint = f": did you mean {near[0]!r}?" if near else f": it has {', '.join(known)}."
            raise SystemExit(f"{path}: {cls.__name__} has no field {name!r}{hint}")
    return made(cls, path, **{key: value for key, value in given.items() if key != "name"})


def read_object(path: str) -> dict[str, Any]:
    """The object in a JSON file of a config."""
    try:
        with open(path, encoding="utf-8") as file:
            given = json.load(file)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path} cannot be read as JSON ({error}).") from None
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise SystemExit(
            f"{path} cannot be read as a config of pythae's, an object with the name of its class "
            'and fields, such as {"name": "VAEConfig", "latent_dim": 8}.'
        )
    return given


def made(cls: type[Any], origin: str, **fields: Any) -> Any:
    """A config, or one sentence about what is wrong with its fields."""
    try:
        return cls(**fields)
    except (ValueError, TypeError, AttributeError, AssertionError) as error:
        found: Any = [{"loc": (), "msg": str(error)}]
        if hasattr(error, "errors"):  # pydantic's
            found = error.errors()
        reasons = [": ".join([*map(str, e["loc"]), e["msg"].removeprefix("Value error, ")])
                   for e in found]  # fmt: skip
        raise SystemExit(f"{origin}: {' '.join('; '.join(reasons).split())}") from None


def make_config(name_or_file: str, kind: type = BaseAE, **fields: Any) -> tuple[type[Any], Any]:
    """A class, and its config: defaults with those ``fields`` that it has, or read from a JSON
    file."""
    if name_or_file.endswith(".json"):
        name = read_object(name_or_file)["name"]
        cls, config_class = find(name.removesuffix("Config").removesuffix("_"), kind)
        config = read_config(config_class, name_or_file)
        if getattr(config, "input_dim", 0) is None:
            config.input_dim = fields["input_dim"]
        return cls, config
    cls, config_class = find(name_or_file, kind)
    known = {field.name for field in dataclasses.fields(config_class) if field.init}
    if "manifold" in known:  # which has a dimension of its own
        fields.pop("latent_dim", None)
    if name_or_file == "HVAE":  # whose cross entropy is of binary images only
        fields.pop("reconstruction_loss", None)
    return cls, made(config_class, name_or_file, **{k: v for k, v in fields.items() if k in known})


def image_fields(
    images: torch.Tensor, latent_dim: int, epochs: int, manifold: str | None = None
) -> dict[str, Any]:
    """What the config of any model should know of its training on ``images`` in [0, 1].

    The error is the cross entropy: with pythae's default, half the squared error, the divergence
    outweighs the error of small images, and VAEs of the digits collapse. A model whose latent codes
    lie on a ``manifold`` gets a torus of ``latent_dim`` dimensions.
    """
    return {
        "input_dim": tuple(images.shape[1:]),
        "latent_dim": latent_dim,
        "reconstruction_loss": "bce",
        "manifold": manifold or f"torus({latent_dim})",
        "warmup_epochs": max(1, epochs // 2),
        "num_centers": min(350, max(1, len(images) // 4)),
    }


def make_model(cls: type[Any], config: Any, networks: str = "default") -> BaseAE:
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
        output = cls(config).encoder.eval()(torch.zeros(2, *config.input_dim))
    kind = "VAE" if "log_covariance" in output else "AE"
    kind = "SVAE" if "log_concentration" in output else kind
    encoder = getattr(module, f"Encoder_{layers}_{kind}_{data_set}")(config)
    return cls(config, encoder, getattr(module, f"Decoder_{layers}_AE_{data_set}")(config))


def load_model(folder: str, data: Data, name: str) -> BaseAE:
    """The trained model in a folder, in evaluation mode, if it is one of the data of this name."""
    if not os.path.exists(os.path.join(folder, "model_config.json")):
        raise SystemExit(
            f"{folder} holds no model: give the folder that the training printed, which ends in "
            "final_model."
        )
    model = AutoModel.load_from_folder(folder).eval()
    expected = tuple(model.model_config.input_dim)
    if tuple(data.train.shape[1:]) != expected:
        raise SystemExit(
            f"The model in {folder} is of data {list(expected)}, but {name} is "
            f"{list(data.train.shape[1:])}: name the data that it was trained on with --data."
        )
    return model


def make_sampler_config(name_or_file: str, model: BaseAE, **fields: Any) -> Any:
    """The config of a sampler of ``model``, by the name of the sampler or in a JSON file."""
    if not name_or_file.endswith(".json") and not name_or_file.endswith("Sampler"):
        name_or_file += "Sampler"
    if name_or_file == "BrownianMotionSampler" and not hasattr(type(model), "metric"):
        fields["metric"] = "pullback"  # where the model has none of its own
    return make_config(name_or_file, BaseSampler, **fields)[1]
