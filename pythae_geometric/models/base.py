"""What the models of this package share: files written whole, clear errors, the Hub."""

import os
import tempfile
from typing import ClassVar

import torch
from pythae.models import BaseAE, BaseAEConfig

from .._files import ensure_writable, load_tensors
from ..config import read_config
from ..hub import HubModel


class GeometricModel(HubModel, BaseAE):
    """Base of the models of this package: pythae's ``BaseAE``, with safer files.

    A subclass derives from it first, and from a pythae model after if it extends one:
    ``class RicciAE(GeometricModel, AE)``, and names its ``config_class``.
    """

    config_class: ClassVar[type[BaseAEConfig]] = BaseAEConfig

    def save(self, dir_path: str | os.PathLike) -> None:
        """Save as pythae does, each file whole or not at all.

        Raises:
            OSError: if the folder cannot be written.
        """
        ensure_writable(dir_path, "dir_path")
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=dir_path) as beside:
            super().save(beside)
            for name in sorted(os.listdir(beside)):
                os.replace(os.path.join(beside, name), os.path.join(dir_path, name))

    @classmethod
    def load_from_folder(cls, dir_path: str | os.PathLike):
        """Load a model that :meth:`save` wrote. Networks of the user's own are unpickled, which can
        run any code: load only folders that you trust.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if one is damaged, or belongs to another model.
        """
        if not os.path.isdir(dir_path):
            raise FileNotFoundError(f"There is no folder {os.fspath(dir_path)!r} to load from.")
        try:
            return super().load_from_folder(dir_path)
        except RuntimeError as error:  # what load_state_dict raises
            reason = " ".join(str(error).split())
            raise ValueError(
                f"The weights in {os.fspath(dir_path)!r} do not fit its model_config.json: "
                f"{reason[:300]}"
            ) from error

    @classmethod
    def _load_model_config_from_folder(cls, dir_path):
        path = os.path.join(dir_path, "model_config.json")
        name = read_config(path)["name"]
        try:
            config = super()._load_model_config_from_folder(dir_path)
        except NameError:
            config = None
        if not isinstance(config, cls.config_class):
            raise ValueError(
                f"{path!r} holds a {name}, not a {cls.config_class.__name__}: load it with the "
                "class that wrote it."
            )
        return config

    @classmethod
    def _load_model_weights_from_folder(cls, dir_path):
        path = os.path.join(dir_path, "model.pt")
        return load_tensors(path, within="model_state_dict")


def check_finite(x: torch.Tensor, name: str) -> None:
    """Raise a ValueError unless every number in ``x`` is finite."""
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name} contains NaN or infinity: remove those rows, or rescale it.")
