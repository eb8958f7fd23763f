"""Sharing models and samplers on the Hugging Face Hub."""

import json
import logging
import os
import tempfile
from collections.abc import Callable

from ._extras import require

logger = logging.getLogger(__name__)

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


def push_folder(
    folder: str | os.PathLike, hf_hub_path: str, title: str, code: Callable[[str], str]
) -> None:
    """Upload a folder and a model card as one commit, creating the repo where it does not exist.

    Args:
        folder: what to upload.
        hf_hub_path: ``"namespace/name"``, or ``"name"`` for the user's own namespace.
        title: heading of the card.
        code: from the repo's full name, Python that loads what was pushed, for the card.
    """
    api = require("huggingface_hub", "hub").HfApi()
    repo_id = api.create_repo(repo_id=hf_hub_path, exist_ok=True).repo_id
    with open(os.path.join(folder, "README.md"), "w", encoding="utf-8") as f:
        f.write(_CARD.format(title=title, code=code(repo_id)))
    api.upload_folder(folder_path=folder, repo_id=repo_id, commit_message=f"Upload {title}")
    logger.info("Uploaded %s to %s.", title, repo_id)


def pull_folder(hf_hub_path: str, files: list[str]) -> str:
    """Download the files of a repo that match ``files`` (names or patterns); their folder."""
    hub = require("huggingface_hub", "hub")
    return hub.snapshot_download(repo_id=hf_hub_path, allow_patterns=files)


def pull_model_folder(hf_hub_path: str, allow_pickle: bool, loader: str) -> str:
    """Download a saved model; its pickled networks only where they are needed and allowed.

    Raises:
        ValueError: if the model needs pickles and they are not allowed, or the repo has no model.
    """
    folder = pull_folder(hf_hub_path, ["model_config.json", "environment.json", "model.pt"])
    try:
        with open(os.path.join(folder, "model_config.json"), encoding="utf-8") as f:
            config = json.load(f)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{hf_hub_path} has no readable model_config.json: no pythae model was pushed there."
        ) from error
    pickles = [
        f"{network}.pkl"
        for network in ("encoder", "decoder")
        if not config.get(f"uses_default_{network}", True)
    ]
    if pickles and not allow_pickle:
        raise ValueError(
            f"{hf_hub_path} keeps its networks in {' and '.join(pickles)}, and unpickling can run "
            f"any code: if you trust its author, call {loader} with allow_pickle=True."
        )
    if pickles:
        pull_folder(hf_hub_path, pickles)
    return folder


def loading_call(loader: str, model, repo_id: str) -> str:
    """Python that loads from the Hub, by ``loader``, what was pushed with ``model``."""
    config = model.model_config
    if config.uses_default_encoder and config.uses_default_decoder:
        return f'{loader}("{repo_id}")'
    return f'{loader}("{repo_id}", allow_pickle=True)  {_PICKLE_NOTE}'


class HubModel:
    """Mixin of pythae models: the Hub as pythae's users know it, without its pitfalls.

    The namespace of the repo is kept, the model card names this package and its code runs as
    copied, and a model whose networks are pickled raises instead of loading as ``None``.
    Put it before pythae's base class: ``class MyVAE(HubModel, VAE)``.
    """

    def push_to_hf_hub(self, hf_hub_path: str) -> None:
        """Save the model to the repo ``"namespace/name"``, creating it where it does not exist.

        Raises:
            ImportError: if huggingface_hub is not installed.
        """
        require("huggingface_hub", "hub")
        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            push_folder(folder, hf_hub_path, self.model_name, self._card_code)

    def _card_code(self, repo_id: str) -> str:
        return (
            "import pythae_geometric\nfrom pythae.models import AutoModel\n\n"
            f"model = {loading_call('AutoModel.load_from_hf_hub', self, repo_id)}"
        )

    @classmethod
    def load_from_hf_hub(cls, hf_hub_path: str, allow_pickle: bool = False):
        """Load a model that :meth:`push_to_hf_hub` saved.

        Args:
            hf_hub_path: the repo, ``"namespace/name"``.
            allow_pickle: also load networks that are stored as pickles. Unpickling can run any
                code: allow it only for authors you trust.

        Raises:
            ImportError: if huggingface_hub is not installed.
            ValueError: if the networks are pickled and ``allow_pickle`` is False.
        """
        loader = f"{cls.__name__}.load_from_hf_hub"
        return cls.load_from_folder(pull_model_folder(hf_hub_path, allow_pickle, loader))
