"""Files that are written whole or not at all, and results that are computed once."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch

from .._files import written_beside


@contextlib.contextmanager
def replaced(path: str) -> Iterator[str]:
    """A path beside ``path`` to write to, which takes its name when the block ends well. The folder
    is created if need be."""
    os.makedirs(os.path.dirname(path) or os.curdir, exist_ok=True)
    with written_beside(path) as beside:
        yield beside


def write_text(path: str, text: str) -> None:
    with replaced(path) as beside, open(beside, "w", encoding="utf-8") as file:
        file.write(text)


def write_json(path: str, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1))


def read_json(path: str, default: Any = None) -> Any:
    """The value in a file; ``default`` where there is no such file."""
    if not os.path.exists(path):
        return default
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def slug(*key: object) -> str:
    """A file name for the parts of a key."""
    return "-".join(str(part).replace(" ", "_").replace("/", "_") for part in key)


def row_path(folder: str, *key: object) -> str:
    """The file that keeps the row of results of a key."""
    return os.path.join(folder, "rows", f"{slug(*key)}.json")


def kept(path: str, compute: Callable[..., Any], *arguments: Any) -> Any:
    """What an earlier run kept in a file, or what ``compute(*arguments)`` gives now."""
    found = read_json(path)
    if found is None:
        found = compute(*arguments)
        write_json(path, found)
    return found


def kept_tensors(path: str, compute: Callable[[], Any]) -> Any:
    """The same of tensors."""
    if not os.path.exists(path):
        with replaced(path) as beside:
            torch.save(compute(), beside)
    return torch.load(path, weights_only=True)
