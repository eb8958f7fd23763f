"""Files that are written whole or not at all, and results that are computed once."""

import contextlib
import json
import os

import torch


@contextlib.contextmanager
def replaced(path):
    """A path beside ``path`` to write to, which takes its name when the block ends well."""
    folder, name = os.path.split(path)
    os.makedirs(folder or os.curdir, exist_ok=True)
    # The ending stays: writers of pictures choose the format by it.
    beside = os.path.join(folder, f".{os.getpid()}-{name}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(beside)


def write_text(path, text):
    with replaced(path) as beside, open(beside, "w", encoding="utf-8") as file:
        file.write(text)


def write_json(path, value):
    write_text(path, json.dumps(value, indent=1))


def read_json(path, default=None):
    """The value in a file; ``default`` where there is no such file."""
    if not os.path.exists(path):
        return default
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def slug(*key):
    """A file name for the parts of a key."""
    return "-".join(str(part).replace(" ", "_").replace("/", "_") for part in key)


def row_path(folder, *key):
    """The file that keeps the row of results of a key."""
    return os.path.join(folder, "rows", f"{slug(*key)}.json")


def kept(path, compute, *arguments):
    """What an earlier run kept in a file, or what ``compute(*arguments)`` gives now."""
    found = read_json(path)
    if found is None:
        found = compute(*arguments)
        write_json(path, found)
    return found


def kept_tensors(path, compute):
    """The same of tensors."""
    if not os.path.exists(path):
        with replaced(path) as beside:
            torch.save(compute(), beside)
    return torch.load(path, weights_only=True)
