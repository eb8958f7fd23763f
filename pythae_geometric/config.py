"""What the configs of this package add to pythae's."""

import dataclasses
import json
import os
from typing import Any, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from ._files import written_beside

#: Decorator of every config: pythae's pydantic dataclasses silently drop a misspelt field.
config_dataclass = dataclass(config=ConfigDict(extra="forbid"))


class StrictConfig:
    """Mixin of config classes: unknown fields are named, files are written whole."""

    # Fields under the names that version 0.1.0 gave them: configs that it saved load.
    former_names: ClassVar[dict[str, str]] = {}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any]):
        """Build the config from its fields, also by names that they had in version 0.1.0.

        Raises:
            ValueError: for a field that it does not have, or a value out of its range.
        """
        config_dict = {cls.former_names.get(k, k): v for k, v in config_dict.items()}
        known = [field.name for field in dataclasses.fields(cls) if field.init]
        unknown = sorted(set(config_dict) - set(known))
        if unknown:
            raise ValueError(
                f"{cls.__name__} has no field {', '.join(map(repr, unknown))}: remove it, or use "
                "the version of pythae-geometric that wrote this config. Its fields are "
                f"{', '.join(known)}."
            )
        return super().from_dict(config_dict)

    @classmethod
    def from_json_file(cls, json_path: str | os.PathLike):
        """Build the config from a file written by :meth:`save_json`.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not the JSON of this config.
        """
        fields = read_config(json_path)
        name = fields.pop("name")
        if name != cls.__name__:
            raise ValueError(
                f"{os.fspath(json_path)!r} holds a {name}, not a {cls.__name__}: load it with the "
                "class that wrote it."
            )
        return cls.from_dict(fields)

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
        with open(json_path, encoding="utf-8") as f:
            fields = json.load(f)
        if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
            raise ValueError("it has no name of a class")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"There is no config file {os.fspath(json_path)!r}: is it the folder that was saved to?"
        ) from None
    except ValueError as error:  # what json and a wrong encoding raise, too
        raise ValueError(
            f"{os.fspath(json_path)!r} is not a config written by pythae ({error})."
        ) from error
    return fields


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
