"""The one place that touches pythae's dispatch.

pythae finds classes by name in four closed chains: ``AutoConfig.from_json_file``,
``AutoModel.load_from_folder``, ``AutoModel.load_from_hf_hub`` and ``GenerationPipeline.__init__``.
:func:`register` adds names to a table that these four consult; a name that is not in the table goes
to pythae's own code, untouched.
"""

import functools
import os
from typing import Any

import pythae.models
import pythae.models.normalizing_flows
import pythae.samplers
from pythae.config import BaseConfig
from pythae.models import AutoModel, BaseAE
from pythae.models.auto_model import AutoConfig
from pythae.pipelines import GenerationPipeline
from pythae.samplers import BaseSampler

from ._extras import require
from ._files import read_latest
from .config import parse_config, read_config

_classes: dict[str, type[Any]] = {}  # config name -> model or sampler
_configs: dict[str, type[Any]] = {}  # config name -> config

_PYTHAE_NAMES = frozenset(
    name
    for module in (pythae.models, pythae.models.normalizing_flows, pythae.samplers)
    for name in dir(module)
)


def register(cls: type, config: type) -> None:
    """Teach pythae a model or a sampler of one's own.

    Afterwards ``AutoModel.load_from_folder``, ``AutoModel.load_from_hf_hub`` and
    ``AutoConfig.from_json_file`` (models), or ``GenerationPipeline`` (samplers) know the class by
    the name of its config. Registering the same class twice changes nothing. Registration lasts as
    long as the process, so it belongs in the module that defines the class.

    Args:
        cls: a subclass of pythae's ``BaseAE`` or ``BaseSampler``.
        config: its config class, a pydantic dataclass on pythae's ``BaseAEConfig`` or
            ``BaseSamplerConfig``.

    Raises:
        TypeError: if ``cls`` or ``config`` is not of such a class.
        ValueError: if the config's name belongs to pythae, or to another registered class.

    Example:
        >>> from pydantic.dataclasses import dataclass
        >>> from pythae.models import VAE, VAEConfig
        >>> from pythae_geometric import register
        >>> @dataclass
        ... class WarmVAEConfig(VAEConfig):
        ...     heat: float = 1.0
        >>> class WarmVAE(VAE):
        ...     def __init__(self, model_config, encoder=None, decoder=None):
        ...         super().__init__(model_config, encoder, decoder)
        ...         self.model_name = "WarmVAE"
        >>> register(WarmVAE, WarmVAEConfig)
        >>> # AutoModel.load_from_folder(...) now gives back a WarmVAE
    """
    if not (isinstance(cls, type) and issubclass(cls, (BaseAE, BaseSampler))):
        raise TypeError(
            f"register takes a subclass of pythae's BaseAE or BaseSampler, got {cls!r}."
        )
    if not (isinstance(config, type) and issubclass(config, BaseConfig)):
        raise TypeError(
            f"The config of {cls.__name__} must be a pydantic dataclass on pythae's BaseAEConfig "
            f"or BaseSamplerConfig, got {config!r}."
        )
    name = config.__name__
    if name in _PYTHAE_NAMES:
        raise ValueError(f"{name} is pythae's own name: give the config another one.")
    known = _classes.get(name)
    # A class that is defined again (a notebook cell, a reloaded module) replaces itself.
    if known is not None and _qualified(known) != _qualified(cls):
        raise ValueError(
            f"{name} is registered already, for {_qualified(known)}: give the config another name."
        )
    _classes[name] = cls
    _configs[name] = config


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def registered_class(name: str) -> type[Any] | None:
    """The model or sampler whose config has this name, if it is registered."""
    return _classes.get(name)


def registered_config(name: str) -> type[Any] | None:
    """The config of this name, if it is registered."""
    return _configs.get(name)


def _patch_pythae() -> None:
    if hasattr(AutoModel, "_pythae_geometric"):
        return
    config_from_json = AutoConfig.from_json_file.__func__
    model_from_folder = AutoModel.load_from_folder.__func__
    model_from_hub = AutoModel.load_from_hf_hub.__func__
    pipeline_init = GenerationPipeline.__init__

    @functools.wraps(config_from_json)
    def from_json_file(cls, json_path):
        config = _configs.get(read_config(json_path)["name"])
        return config.from_json_file(json_path) if config else config_from_json(cls, json_path)

    @functools.wraps(model_from_folder)
    def load_from_folder(cls, dir_path):
        name = "model_config.json"
        content = read_latest(dir_path, "model", name)
        model = _classes.get(parse_config(content, os.path.join(dir_path, name))["name"])
        return model.load_from_folder(dir_path) if model else model_from_folder(cls, dir_path)

    @functools.wraps(model_from_hub)
    def load_from_hf_hub(cls, hf_hub_path, allow_pickle=False, **kwargs):
        hub = require("huggingface_hub", "hub")
        path = hub.hf_hub_download(repo_id=hf_hub_path, filename="model_config.json", **kwargs)
        model = _classes.get(read_config(path)["name"])
        if model is None:
            return model_from_hub(cls, hf_hub_path, allow_pickle=allow_pickle)
        return model.load_from_hf_hub(hf_hub_path, allow_pickle=allow_pickle, **kwargs)

    @functools.wraps(pipeline_init)
    def __init__(self, model, sampler_config=None):
        sampler = _classes.get(getattr(sampler_config, "name", ""))
        if sampler is None:
            pipeline_init(self, model, sampler_config)
        else:
            self.sampler = sampler(model=model, sampler_config=sampler_config)

    AutoConfig.from_json_file = classmethod(from_json_file)
    AutoModel.load_from_folder = classmethod(load_from_folder)
    AutoModel.load_from_hf_hub = classmethod(load_from_hf_hub)
    GenerationPipeline.__init__ = __init__
    AutoModel._pythae_geometric = True


_patch_pythae()
