"""Networks whose features the measures of generation compare."""

import math

import torch
from torch import nn

from .._checks import check_count
from .._extras import require
from .._inputs import as_images, as_labels, as_shape

EPOCHS = 60
BATCH_SIZE = 100


class FeatureNetwork(nn.Module):
    """A small classifier of images, with its penultimate layer as features.

    Two hidden layers for images below 16 x 16, two convolutions and a hidden layer for others.

    Args:
        input_dim: shape of an image (channels, height, width).
        num_classes: number of classes, at least 2.

    Raises:
        TypeError: if ``input_dim`` is no tuple.
        ValueError: if a number is out of range.
    """

    def __init__(self, input_dim: tuple[int, ...], num_classes: int):
        super().__init__()
        self.input_dim = as_shape(input_dim, "input_dim")
        num_classes = check_count("num_classes", num_classes, 2)
        channels, *sides = self.input_dim
        if len(sides) == 2 and min(sides) >= 16:
            body = nn.Sequential(
                nn.Conv2d(channels, 32, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(32, 64, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(7),
                nn.Flatten(),
                nn.Linear(64 * 49, 64),
                nn.ReLU(),
            )
            width = 64
        else:
            size = math.prod(self.input_dim)
            body = nn.Sequential(
                nn.Flatten(), nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, 32), nn.ReLU()
            )
            width = 32
        self.body = body
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, num_classes]``."""
        return self.head(self.body(x))

    @torch.no_grad()
    def features(self, images: object, batch_size: int = 1000) -> torch.Tensor:
        """Features ``[N, p]`` of images.

        Args:
            images: ``[N, *input_dim]`` in [0, 1], or in uint8 from 0 to 255.
            batch_size: how many at a time, 1 or more.

        Raises:
            TypeError: if the images are not real numbers.
            ValueError: if they are of another shape or not finite, or a number is out of range.
        """
        batch_size = check_count("batch_size", batch_size, 1)
        images, where = as_images(images), self.head.weight
        if tuple(images.shape[1:]) != self.input_dim:
            raise ValueError(
                f"images must have shape [N, {', '.join(map(str, self.input_dim))}], of which the "
                f"network was made, got {list(images.shape)}."
            )
        return torch.cat([self.body(batch.to(where)) for batch in images.split(batch_size)])


def train_feature_network(
    images: object, labels: object, seed: int, epochs: int = EPOCHS
) -> FeatureNetwork:
    """Train a classifier on labelled images, to compare generated ones in its features.

    Scores are comparable only within one feature network, and never with FID.

    Args:
        images: ``[N, channels, height, width]`` in [0, 1], or in uint8 from 0 to 255.
        labels: whole numbers from 0, ``[N]``, or one-hot rows ``[N, classes]``.
        seed: of the weights and the order of the data, 0 or more. torch's global state is left as
            it was.
        epochs: number of passes over the data (Adam, batches of 100), 1 or more.

    Returns:
        the network, in evaluation mode, on the device of the images.

    Raises:
        TypeError: if the images or the labels are not numbers.
        ValueError: if there are no images, their numbers differ, labels are of one class or not
            whole numbers, images are not finite, or a number is out of range.
    """
    seed, epochs = check_count("seed", seed, 0), check_count("epochs", epochs, 1)
    images = as_images(images)
    labels = as_labels(labels, "labels", len(images))
    if labels.dtype.kind not in "iub" or labels.min() < 0 or labels.max() < 1:
        raise ValueError("labels must be whole numbers from 0, of two classes or more.")
    labels = torch.from_numpy(labels.astype("int64")).to(images.device)
    cuda = [images.device] if images.is_cuda else []
    with torch.random.fork_rng(cuda), torch.enable_grad():
        torch.manual_seed(seed)
        network = FeatureNetwork(tuple(images.shape[1:]), int(labels.max()) + 1)
        network = network.to(images)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-4)
        for _ in range(epochs):
            for batch in torch.randperm(len(images)).split(BATCH_SIZE):
                batch = batch.to(images.device)
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
                optimizer.step()
    return network.eval().requires_grad_(False)


@torch.no_grad()
def inception_features(images: object, batch_size: int = 100) -> torch.Tensor:
    """The 2048 features of Inception v3 with which the FID is computed.

    Needs the extra ``fidelity``; torch-fidelity downloads the weights when it is first used.

    Args:
        images: ``[N, 1 or 3, height, width]`` in [0, 1], or in uint8 from 0 to 255; grey ones are
            repeated over channels.
        batch_size: images at a time, 1 or more.

    Returns:
        features ``[N, 2048]``.

    Raises:
        ImportError: if torch-fidelity is not installed.
        TypeError: if the images are not real numbers.
        ValueError: if the images are of another shape, or a number is out of range.
    """
    batch_size = check_count("batch_size", batch_size, 1)
    images = as_images(images, channels=(1, 3))
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError("images must be in [0, 1].")
    extractor = require("torch_fidelity.feature_extractor_inceptionv3", "fidelity")
    network = extractor.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    network = network.to(images.device)
    features = []
    for batch in images.split(batch_size):
        batch = (batch * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
        features.append(network(batch)[0])
    return torch.cat(features)
