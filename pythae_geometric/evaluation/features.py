"""Networks whose features the measures of generation compare."""

import torch
from torch import nn

from .._extras import require

EPOCHS = 60
BATCH_SIZE = 100


class FeatureNetwork(nn.Module):
    """A small classifier of images, with its penultimate layer as features.

    Two hidden layers for images below 16 x 16, two convolutions and a hidden layer for others.

    Args:
        input_dim: shape of an image (channels, height, width).
        num_classes: number of classes, at least 2.
    """

    def __init__(self, input_dim: tuple[int, ...], num_classes: int):
        super().__init__()
        channels, *sides = input_dim
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
            size = int(torch.Size(input_dim).numel())
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
    def features(self, images: torch.Tensor, batch_size: int = 1000) -> torch.Tensor:
        """Features ``[N, p]`` of images ``[N, *input_dim]``."""
        where = self.head.weight
        return torch.cat([self.body(batch.to(where)) for batch in images.split(batch_size)])


def train_feature_network(
    images: torch.Tensor, labels: torch.Tensor, seed: int, epochs: int = EPOCHS
) -> FeatureNetwork:
    """Train a classifier on labelled images, to compare generated ones in its features.

    Every figure in such features belongs to the network: compare only figures from one and the
    same, and none with an FID.

    Args:
        images: ``[N, channels, height, width]`` in [0, 1].
        labels: whole numbers from 0, ``[N]``.
        seed: of the weights and the order of the data. torch's global state is left as it was.
        epochs: number of passes over the data (Adam, batches of 100).

    Returns:
        the network, in evaluation mode, on the device of the images.

    Raises:
        ValueError: if there are no images, numbers differ, labels are of one class or not whole
            numbers, or images are not finite.
    """
    images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    if images.dim() != 4 or len(images) == 0 or labels.shape != images.shape[:1]:
        raise ValueError(
            "images must be [N >= 1, channels, height, width] and labels [N], got "
            f"{list(images.shape)} and {list(labels.shape)}."
        )
    if labels.is_floating_point() or int(labels.min()) < 0 or int(labels.max()) < 1:
        raise ValueError("labels must be whole numbers from 0, of two classes or more.")
    if not bool(torch.isfinite(images).all()):
        raise ValueError("images hold NaN or infinity: look at the data.")
    labels = labels.to(images.device).long()
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
def inception_features(images: torch.Tensor, batch_size: int = 100) -> torch.Tensor:
    """The 2048 features of Inception v3 with which the FID is computed.

    Needs the extra ``fidelity``; torch-fidelity downloads the weights when it is first used.

    Args:
        images: ``[N, 1 or 3, height, width]`` in [0, 1]; grey ones are repeated over channels.
        batch_size: images at a time.

    Returns:
        features ``[N, 2048]``.

    Raises:
        ImportError: if torch-fidelity is not installed.
        ValueError: if the images are of another shape, or out of range.
    """
    if images.dim() != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(
            f"images must be [N >= 1, 1 or 3, height, width], got {list(images.shape)}."
        )
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
