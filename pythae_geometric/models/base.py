"""What the models of this package share: their files and the Hub."""

import inspect
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import cloudpickle
import torch
from pythae.models import BaseAE, BaseAEConfig
from pythae.models.base.base_config import EnvironmentConfig
from pythae.models.base.base_utils import CPU_Unpickler
from pythae.models.nn import BaseDecoder, BaseEncoder
from typing_extensions import Self

from .. import hub
from .._checks import check_flag
from .._files import load_tensors, read_together, saved_together
from ..config import built_config, parse_config
from ..registry import registered_config
from .collapse import CollapseWatch
from .scale import ScaleWatch


class GeometricModel(hub.Shareable, BaseAE):
    """Base of the models of this package: pythae's ``BaseAE``, with safe files and a kinder Hub.

    A save takes effect at one instant, and loading checks that its files belong together and are
    undamaged. On the Hub the namespace of a repo is kept, and a model that needs pickles raises
    where they are not allowed instead of loading as ``None``. A subclass derives from it first, and
    from a pythae model after if it extends one: ``class RicciAE(GeometricModel, AE)``, and names
    its ``config_class``.

    What a user gives and no config can describe (networks) is pickled: a subclass whose network
    stands behind a map of its own says by :meth:`_custom_part` what the user gave, and one that
    takes more than an encoder and a decoder adds to ``pickles`` and :meth:`_is_custom`.
    """

    config_class: ClassVar[type[BaseAEConfig]] = BaseAEConfig
    #: Keywords of ``__init__`` that may be pickled, and their files.
    pickles: ClassVar[dict[str, str]] = {"encoder": "encoder.pkl", "decoder": "decoder.pkl"}

    def __init__(
        self,
        model_config: BaseAEConfig,
        encoder: BaseEncoder | None = None,
        decoder: BaseDecoder | None = None,
    ):
        super().__init__(model_config, encoder, decoder)
        self._scale_watch, self._collapse_watch = ScaleWatch(), CollapseWatch()

    def _watch(
        self, x: torch.Tensor, recon_x: torch.Tensor, kl: torch.Tensor | None = None
    ) -> None:
        """Note, of a batch in training, what :meth:`update` warns of.

        Args:
            x, recon_x: the data and their reconstructions, ``[B, *input_dim]``.
            kl: the mean divergence of the posteriors from the prior, ``[]``; None: there is none.
        """
        if self.training:
            self._scale_watch.add(x, recon_x)
            if kl is not None:
                self._collapse_watch.add(kl)

    def update(self) -> None:
        """Count an epoch; pythae's trainer calls this after each.

        Warns:
            CollapsedPosteriorWarning: once, if the posterior has collapsed.
            UserWarning: once, if the data are on a scale that the decoder cannot reach.
        """
        self._scale_watch.end_epoch()
        self._collapse_watch.end_epoch(self._remedy_for_collapse())

    def _remedy_for_collapse(self) -> str:
        return "Train for more epochs or with a larger learning rate."

    def _set_networks(
        self, encoder: BaseEncoder | None, decoder: BaseDecoder | None, in_place: BaseEncoder
    ) -> None:
        """Set the encoder, and note in the config which networks are the user's.

        Args:
            encoder, decoder: what the user gave.
            in_place: the encoder of the model.
        """
        self.set_encoder(in_place)
        self.model_config.uses_default_encoder = encoder is None
        self.model_config.uses_default_decoder = decoder is None

    def _custom_part(self, name: str) -> Any:
        """What the user gave as the keyword ``name``, a key of ``pickles``."""
        return getattr(self, name)

    @classmethod
    def _is_custom(cls, config: BaseAEConfig, name: str) -> bool:
        """Whether a model of this config was given its own ``name``, a key of ``pickles``."""
        return not getattr(config, f"uses_default_{name}")

    @classmethod
    def _upgraded(cls, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A state that version 0.1.0 saved, under today's names."""
        return state

    # Files

    def save(self, dir_path: str | os.PathLike) -> None:
        """Save as pythae does, the files of a save together or not at all.

        Raises:
            OSError: if the folder cannot be written.
        """
        config = self.model_config
        with saved_together(dir_path, "model") as folder:
            python = f"{sys.version_info[0]}.{sys.version_info[1]}"
            EnvironmentConfig(python_version=python).save_json(folder, "environment")
            config.save_json(folder, "model_config")
            for name, file in self.pickles.items():
                if self._is_custom(config, name):
                    with open(os.path.join(folder, file), "wb") as f:
                        f.write(_pickled(self._custom_part(name)))
            weights = {"model_state_dict": self.state_dict()}
            torch.save(weights, os.path.join(folder, "model.pt"))

    @classmethod
    def load_from_folder(cls, dir_path: str | os.PathLike) -> Self:
        """Load a model that :meth:`save` wrote. Custom networks are unpickled, which can run any
        code: load only folders that you trust.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if one is damaged, or belongs to another model.
        """
        return cls._from_folder(dir_path, allow_pickle=True)

    @classmethod
    def _from_folder(
        cls, folder: str | os.PathLike, allow_pickle: bool, source: str = "", loader: str = ""
    ) -> Self:
        """Load; what the files hold decides nothing about pickles but whether they are needed."""
        pickles = cls.pickles.values() if allow_pickle else ()
        names = ("model_config.json", "environment.json", "model.pt", *pickles)
        files = read_together(folder, "model", names)
        config = cls._config_of(files, os.path.join(folder, "model_config.json"))
        needed = {name: file for name, file in cls.pickles.items() if cls._is_custom(config, name)}
        if needed and not allow_pickle:
            raise ValueError(hub.refusal(source, needed.values(), loader))
        path = os.path.join(folder, "model.pt")
        state = load_tensors(files.get("model.pt"), path, within="model_state_dict")
        state = cls._upgraded(state)
        if needed:
            cls._check_python_version_from_folder(folder)  # pythae's; it warns
        else:
            cls._check_shapes(config, state, folder)
        given = {
            name: _unpickled(files.get(file), os.path.join(folder, file))
            for name, file in needed.items()
        }
        model = cls(config, **given)
        with _misfit(folder):
            model.load_state_dict(state)
        return model

    @classmethod
    def _config_of(cls, files: dict[str, bytes], path: str) -> BaseAEConfig:
        fields = parse_config(files.get("model_config.json"), path)
        name = fields["name"]
        known = cls.config_class if cls.config_class.__name__ == name else registered_config(name)
        if known is None or not issubclass(known, cls.config_class):
            raise ValueError(
                f"{path!r} holds a {name}, not a {cls.config_class.__name__}: load it with the "
                "class that wrote it."
            )
        return built_config(known, fields, path)

    @classmethod
    def _check_shapes(cls, config: BaseAEConfig, state: dict[str, torch.Tensor], folder) -> None:
        """Compare a config with its weights before it takes the memory that it asks for."""
        with torch.device("meta"):
            wanted = cls(type(config).from_dict(_fields(config))).state_dict()
        wrong = [
            f"{name} is {list(state[name].shape)} and not {list(value.shape)}"
            if name in state
            else f"{name} is missing"
            for name, value in wanted.items()
            if name not in state or state[name].shape != value.shape
        ]
        if wrong:
            raise ValueError(
                f"The weights in {os.fspath(folder)!r} do not fit its model_config.json: "
                f"{'; '.join(wrong[:3])}."
            )

    # The Hub

    def _save_for_hub(self, folder: str) -> None:
        self.save(folder)

    def _card(self):
        return self.model_name, self._card_code

    def _card_code(self, repo_id: str) -> str:
        call = hub.loading_call("AutoModel.load_from_hf_hub", self, repo_id)
        return f"import pythae_geometric\nfrom pythae.models import AutoModel\n\nmodel = {call}"

    def needs_pickle(self) -> bool:
        """Whether loading this model from its files takes unpickling."""
        return any(self._is_custom(self.model_config, name) for name in self.pickles)

    @classmethod
    def load_from_hf_hub(
        cls,
        hf_hub_path: str,
        allow_pickle: bool = False,
        revision: str | None = None,
        token: str | None = None,
    ) -> Self:
        """Load a model that :meth:`push_to_hf_hub` saved.

        Args:
            hf_hub_path: the repo, ``"namespace/name"``.
            allow_pickle: also load what is stored as pickles: custom networks. Unpickling can run
                any code: allow it only for authors you trust.
            revision: a branch, tag or commit; None: the latest.
            token: of the Hub; None: that of ``hf auth login``.

        Raises:
            ImportError: if huggingface_hub is not installed.
            TypeError: if ``allow_pickle`` is not True or False.
            ValueError: if there are pickles and ``allow_pickle`` is False; if a file is damaged.
        """
        check_flag("allow_pickle", allow_pickle)  # any text would count as a permission
        pickles = cls.pickles.values() if allow_pickle else ()
        folder = hub.pull_folder(
            hf_hub_path, [*hub.MODEL_FILES, *pickles], revision=revision, token=token
        )
        return cls._from_folder(
            folder, allow_pickle, hf_hub_path, f"{cls.__name__}.load_from_hf_hub"
        )


def _fields(config: BaseAEConfig) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name != "name"}


def _pickled(part: Any) -> bytes:
    """A pickle that brings the code of the part's module with it, as pythae's do."""
    module = inspect.getmodule(part if inspect.isroutine(part) else type(part))
    # Builtins have no code to bring; a module that is not imported, cloudpickle brings by itself.
    by_value = (
        module is not None
        and not inspect.isbuiltin(part)
        and module.__name__ not in cloudpickle.list_registry_pickle_by_value()
    )
    if not by_value:
        return cloudpickle.dumps(part)
    cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(part)
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _unpickled(content: bytes | None, path: str) -> Any:
    if content is None:
        raise FileNotFoundError(f"There is no file {path!r}: is the folder complete?")
    try:
        return CPU_Unpickler(io.BytesIO(content)).load()
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(
            f"{path!r} cannot be unpickled ({type(error).__name__}: {str(error)[:200]}): it is "
            "damaged, or was saved under another version of Python or of a package that it uses."
        ) from error


@contextmanager
def _misfit(folder) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what load_state_dict raises
        reason = " ".join(str(error).split())
        raise ValueError(
            f"The weights in {os.fspath(folder)!r} do not fit its model_config.json: {reason[:300]}"
        ) from error
