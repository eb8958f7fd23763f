"""What the configs of this package add to pythae's."""

import dataclasses
import functools
import json
import os
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from typing_extensions import Self, dataclass_transform

from ._files import written_beside
from .geometry._warnings import warn

_strict = dataclass(config=ConfigDict(extra="forbid"))

Config = TypeVar("Config", bound="StrictConfig")

if TYPE_CHECKING:  # what it is mixed into
    from pythae.config import BaseConfig as Mixed
else:
    Mixed = object


@dataclass_transform()
def config_dataclass(cls: type[Config]) -> type[Config]:
    """Decorator of every config: pythae's pydantic dataclasses silently drop a misspelt field.

    Names that fields had in version 0.1.0 are taken with a warning.
    """
    made: Any = _strict(cls)
    built = made.__init__

    @functools.wraps(built)
    def __init__(self, *args, **fields):
        for former in made.former_names.keys() & fields.keys():
            name = made.former_names[former]
            warn(f"{former} of {made.__name__} is now called {name}.", FutureWarning)
            fields[name] = fields.pop(former)
        built(self, *args, **fields)

    if made.former_names:
        made.__init__ = __init__
    return made


class StrictConfig(Mixed):
    """Mixin of config classes: unknown fields are named, files are written whole."""

    # Fields under the names that version 0.1.0 gave them: configs that it saved load.
    former_names: ClassVar[dict[str, str]] = {}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any]) -> Self:
        """Build the config from its fields, also by names that they had in version 0.1.0.

        Raises:
            TypeError: if it is no dictionary.
            ValueError: for a field that it does not have, or a value out of its range.
        """
        if not isinstance(config_dict, dict):
            raise TypeError(
                f"A {cls.__name__} is built from a dictionary of its fields, got a "
                f"{type(config_dict).__name__}."
            )
        config_dict = {cls.former_names.get(k, k): v for k, v in config_dict.items()}
        known = [field.name for field in dataclasses.fields(cast(Any, cls)) if field.init]
        unknown = sorted(set(config_dict) - set(known))
        if unknown:
            raise ValueError(
                f"{cls.__name__} has no field {', '.join(map(repr, unknown))}: remove it, or use "
                "the version of pythae-geometric that wrote this config. Its fields are "
                f"{', '.join(known)}."
            )
        return super().from_dict(config_dict)

    @classmethod
    def from_json_file(cls, json_path: str | os.PathLike) -> Self:
        """Build the config from a file written by :meth:`save_json`.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not the JSON of this config.
        """
        fields = read_config(json_path)
        if fields["name"] != cls.__name__:
            raise ValueError(
                f"{os.fspath(json_path)!r} holds a {fields['name']}, not a {cls.__name__}: load it "
                "with the class that wrote it."
            )
        return built_config(cls, fields, json_path)

    def save_json(self, dir_path: str | os.PathLike, filename: str) -> None:
        """Write ``filename.json`` in ``dir_path``, whole or not at all."""
        with written_beside(os.path.join(dir_path, f"{filename}.json")) as path:
            with open(path, "w", encoding="utf-8") as f:
                f.write(self.to_json_string())


def read_config(json_path: str | os.PathLike) -> dict[str, Any]:
    """The fields of a config that pythae wrote, and its class under ``name``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no config.
    """
    try:
        # Not the path itself: a whole number would be taken for an open file, and closed.
        with open(os.fspath(json_path), "rb") as f:
            return parse_config(f.read(), json_path)
    except FileNotFoundError:
        return parse_config(None, json_path)


def parse_config(content: bytes | None, json_path: str | os.PathLike) -> dict[str, Any]:
    """As :func:`read_config`, of the content of a file; None: there is no file."""
    if content is None:
        raise FileNotFoundError(
            f"There is no config file {os.fspath(json_path)!r}: is it the folder that was saved to?"
        )
    try:
        fields = json.loads(content)
        if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
            raise ValueError("it has no name of a class")
    except (ValueError, RecursionError) as error:  # what json and a wrong encoding raise, too
        raise ValueError(
            f"{os.fspath(json_path)!r} is not a config written by pythae "
            f"({str(error)[:200]}): load a copy, or save again."
        ) from error
    return fields


def built_config(cls: type[Any], fields: dict[str, Any], json_path: str | os.PathLike) -> Any:
    """The config of class ``cls`` that a file describes.

    Raises:
        ValueError: naming the file, if its fields do not make one.
    """
    fields = {name: value for name, value in fields.items() if name != "name"}
    try:
        return cls.from_dict(fields)
    except (ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{os.fspath(json_path)!r} does not describe a {cls.__name__}: {reason[:600]}"
        ) from error


def check_range(
    config: object,
    field: str,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Raise a ValueError unless the number in ``field`` is finite and within the bounds."""
    value = getattr(config, field)
    bounds = []
    if least is not None:
        bounds.append((f"at least {least}", value >= least))
    if above is not None:
        bounds.append((f"greater than {above}", value > above))
    if below is not None:
        bounds.append((f"less than {below}", value < below))
    # Comparisons with NaN are all false; infinity fails only where it is bounded, so it is named.
    if not all(holds for _, holds in bounds) or value in (float("inf"), float("-inf")):
        wanted = " and ".join(text for text, _ in bounds)
        raise ValueError(f"{field} must be finite and {wanted}, got {value!r}.")
