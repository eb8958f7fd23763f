"""Images by the name of their data set."""

import os
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HELP = (
    "digits (built in), or any NAME of yours, such as mnist or my_faces: read from "
    "DATA_DIR/NAME/train_data.npz and eval_data.npz, key 'data', values 0-255, "
    "[N, channels, height, width], as for pythae's own scripts"
)


class Data(NamedTuple):
    """Images in [0, 1] of a data set in three parts, and their labels (None: it has none)."""

    train: torch.Tensor
    train_labels: torch.Tensor | None
    validation: torch.Tensor
    validation_labels: torch.Tensor | None
    test: torch.Tensor
    test_labels: torch.Tensor | None

    def first(self, train: int, validation: int, test: int | None = None) -> "Data":
        """The first images of each part; of the test images all by default."""
        counts = (train, train, validation, validation, test, test)
        pairs = zip(self, counts, strict=True)
        parts: Any = (None if part is None else part[:count] for part, count in pairs)
        return Data(*parts)


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The 1,797 images of 8 x 8 pixels of scikit-learn ``[N, 1, 8, 8]`` in [0, 1], and labels."""
    found = load_digits()
    images = torch.as_tensor(found.images[:, None] / 16, dtype=torch.float32)
    return images, torch.as_tensor(found.target)


def load_data(name: str, folder: str = "data") -> Data:
    """The digits of scikit-learn, or the user's files in pythae's convention.

    The digits are split into 1,000, 397 and 400, with equal shares of each class. Of files, the
    last tenth of the training data is the validation part.
    """
    if name == "digits":
        images, labels = digits()
        rest, test = train_test_split(
            np.arange(len(images)), test_size=400, stratify=labels, random_state=0
        )
        train, validation = train_test_split(
            rest, train_size=1000, stratify=labels[rest], random_state=0
        )
        return Data(*(part[i] for i in (train, validation, test) for part in (images, labels)))
    images, found = read_images(os.path.join(folder, name), "train")
    test, test_labels = read_images(os.path.join(folder, name), "eval")
    if test.shape[1:] != images.shape[1:]:
        raise SystemExit(
            f"The images of train_data.npz are {list(images.shape[1:])} and those of eval_data.npz "
            f"{list(test.shape[1:])}: make both of one shape."
        )
    cut = len(images) - max(1, len(images) // 10)
    kept, held = (None, None) if found is None else (found[:cut], found[cut:])
    return Data(images[:cut], kept, images[cut:], held, test, test_labels)


def read_images(folder: str, part: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The images ``[N, channels, height, width]`` in [0, 1] of ``part``, "train" or "eval", and
    their labels (None: the file has none)."""
    path = os.path.join(folder, f"{part}_data.npz")
    how = (
        f"put two files there, {os.path.join(folder, 'train_data.npz')} and eval_data.npz, each "
        "with an array 'data' [N, channels, height, width] of values from 0 to 255, and, for "
        "measures that need classes, an array 'labels' [N] of whole numbers from 0: "
        "np.savez_compressed(path, data=images, labels=classes)."
    )
    try:
        with np.load(path) as file:
            images = torch.as_tensor(file["data"], dtype=torch.float32) / 255
            labels = torch.as_tensor(file["labels"]).long() if "labels" in file else None
    except FileNotFoundError:
        raise SystemExit(
            f"There is no {path}: take --data digits, which is built in, or {how}"
        ) from None
    except (KeyError, ValueError, OSError) as error:
        raise SystemExit(f"{path} cannot be read ({error}): {how}") from None
    inside = images.dim() == 4 and len(images) > 1 and 0 <= images.min() and images.max() <= 1
    if not inside or images.max() < 0.5:
        raise SystemExit(f"{path} holds other data than images from 0 to 255: {how}")
    if labels is not None and len(labels) != len(images):
        raise SystemExit(f"{path} has {len(images)} images and {len(labels)} labels: {how}")
    return images, labels
