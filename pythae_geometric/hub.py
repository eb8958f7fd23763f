"""Sharing models and samplers on the Hugging Face Hub."""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable

import torch
from pythae.models import AutoModel, BaseAE

from . import registry
from ._checks import check_flag
from ._extras import require
from ._files import load_tensors
from .config import read_config

logger = logging.getLogger(__name__)

#: The files of a model that hold data alone.
MODEL_FILES = ("model_config.json", "environment.json", "model.pt", "model_checksums.json")

_CARD = """---
language: en
tags:
- pythae
- pythae-geometric
library_name: pythae-geometric
---

# {title}

Made with [pythae](https://pypi.org/project/pythae/) and
[pythae-geometric](https://pypi.org/project/pythae-geometric/):
`pip install "pythae-geometric[hub]"`

```python
{code}
```
"""

_PICKLE_NOTE = "# runs code of the author's: only if you trust them"


class Shareable:
    """Mixin of what can be pushed to the Hub: it defines ``_save_for_hub`` and ``_card``."""

    def _save_for_hub(self, folder: str) -> None:
        """Save everything that loading takes."""
        raise NotImplementedError

    def _card(self) -> tuple[str, Callable[[str], str]]:
        """Title and code of the model card, see :func:`push_folder`."""
        raise NotImplementedError

    def push_to_hf_hub(
        self,
        hf_hub_path: str,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str | None = None,
    ) -> None:
        """Save to the repo ``"namespace/name"`` of the Hugging Face Hub, creating it where it does
        not exist; a sampler together with its model.

        Args:
            hf_hub_path: the repo; without a namespace, the user's own.
            private: whether a repo that is created is private; None: the namespace's default.
            token: of the Hub; None: that of ``hf auth login``.
            commit_message: None: one that names what is pushed.

        Raises:
            ImportError: if huggingface_hub is not installed.
            RuntimeError: if it is a sampler that is not fitted.
        """
        require("huggingface_hub", "hub")
        title, code = self._card()
        with tempfile.TemporaryDirectory() as folder:
            self._save_for_hub(folder)
            push_folder(folder, hf_hub_path, title, code, private, token, commit_message)


def push_folder(
    folder: str | os.PathLike,
    hf_hub_path: str,
    title: str,
    code: Callable[[str], str],
    private: bool | None = None,
    token: str | None = None,
    commit_message: str | None = None,
) -> None:
    """Upload a folder as one commit, creating the repo where it does not exist.

    A repo that has no model card gets one; a card that is there stays as it is.

    Args:
        folder: what to upload.
        hf_hub_path: ``"namespace/name"``, or ``"name"`` for the user's own namespace.
        title: heading of the card.
        code: from the repo's full name, Python that loads what was pushed, for the card.
        private: whether a repo that is created is private; None: the namespace's default.
        token: of the Hub; None: that of ``hf auth login``.
        commit_message: None: one with the title.
    """
    api = require("huggingface_hub", "hub").HfApi()
    repo = api.create_repo(repo_id=hf_hub_path, private=private, exist_ok=True, token=token)
    repo_id = repo.repo_id
    if not api.file_exists(repo_id, "README.md", token=token):
        with open(os.path.join(folder, "README.md"), "w", encoding="utf-8") as f:
            f.write(_CARD.format(title=title, code=code(repo_id)))
    commit_message = commit_message or f"Upload {title}"
    api.upload_folder(
        folder_path=folder, repo_id=repo_id, commit_message=commit_message, token=token
    )
    logger.info("Uploaded %s to %s.", title, repo_id)


def pull_folder(
    hf_hub_path: str, files: list[str], revision: str | None = None, token: str | None = None
) -> str:
    """Download the files of a repo that match ``files`` (names or patterns); their folder.

    The folder is that of the Hub's cache, and may hold more: files that others have downloaded.
    """
    hub = require("huggingface_hub", "hub")
    return hub.snapshot_download(
        repo_id=hf_hub_path, allow_patterns=files, revision=revision, token=token
    )


def pull_model(
    hf_hub_path: str,
    allow_pickle: bool,
    loader: str,
    revision: str | None = None,
    token: str | None = None,
) -> BaseAE:
    """Load a model of any class, this package's, pythae's or a registered one, from the Hub.

    Raises:
        ValueError: if the model needs pickles and they are not allowed, or the repo has no model.
    """
    check_flag("allow_pickle", allow_pickle)  # any text would count as a permission
    files = [*MODEL_FILES, "*.pkl"] if allow_pickle else [*MODEL_FILES]
    folder = pull_folder(hf_hub_path, files, revision, token)
    try:
        name = read_config(os.path.join(folder, "model_config.json"))["name"]
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{hf_hub_path} has no readable model_config.json: no pythae model was pushed there."
        ) from error
    cls = registry.registered_class(name)
    if cls is not None and hasattr(cls, "_from_folder"):
        return cls._from_folder(folder, allow_pickle, hf_hub_path, loader)
    with tempfile.TemporaryDirectory() as allowed:
        return _loaded_by_pythae(folder, allowed, allow_pickle, hf_hub_path, loader)


def _loaded_by_pythae(
    folder: str, allowed: str, allow_pickle: bool, hf_hub_path: str, loader: str
) -> BaseAE:
    """Load by pythae, from a folder of files that were read and written again.

    pythae reads weights by ``torch.load``, which before torch 2.6 unpickles anything, and looks for
    pickles by names of its own. What it finds here is tensors and JSON, and pickles if allowed.
    """
    for name in ("model_config.json", "environment.json"):
        if os.path.isfile(path := os.path.join(folder, name)):
            with open(os.path.join(allowed, name), "w", encoding="utf-8") as f:
                json.dump(read_config(path), f)
    with open(os.path.join(folder, "model.pt"), "rb") as f:
        content = f.read()
    state = load_tensors(content, os.path.join(folder, "model.pt"), within="model_state_dict")
    torch.save({"model_state_dict": state}, os.path.join(allowed, "model.pt"))
    config = registry.AutoConfig.from_json_file(os.path.join(allowed, "model_config.json"))
    needed = [
        f"{field.removeprefix('uses_default_')}.pkl"
        for field, value in config.to_dict().items()
        if field.startswith("uses_default_") and not value
    ]
    if needed and not allow_pickle:
        raise ValueError(refusal(hf_hub_path, needed, loader))
    for name in needed:
        with open(os.path.join(folder, name), "rb") as source:
            content = source.read()
        with open(os.path.join(allowed, name), "wb") as f:
            f.write(content)
    return AutoModel.load_from_folder(allowed)


def refusal(hf_hub_path: str, pickles: Iterable[str], loader: str) -> str:
    """The message for a model whose pickles are not allowed."""
    return (
        f"{hf_hub_path} keeps its networks in {' and '.join(pickles)}, and unpickling can run "
        f"any code: if you trust its author, call {loader} with allow_pickle=True."
    )


def loading_call(loader: str, model: BaseAE, repo_id: str) -> str:
    """Python that loads from the Hub, by ``loader``, what was pushed with ``model``."""
    config = model.model_config
    if hasattr(model, "needs_pickle"):
        pickled = model.needs_pickle()
    else:
        pickled = any(
            name.startswith("uses_default_") and not value
            for name, value in config.to_dict().items()
        )
    if not pickled:
        return f'{loader}("{repo_id}")'
    return f'{loader}("{repo_id}", allow_pickle=True)  {_PICKLE_NOTE}'
