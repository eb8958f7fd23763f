"""Measures of generated images against real ones."""

from collections.abc import Callable

import torch
from pythae.models import BaseAE

from ..evaluation import density_and_coverage, frechet_distance, nearest_distances
from ..models.decoder_map import DecoderMap
from .data import Data
from .models import DEVICE

# A copy is nearer to a training image, or its reconstruction, than this times a new image.
COPY = 0.1


@torch.no_grad()
def reconstructions(model: BaseAE, images: torch.Tensor) -> torch.Tensor:
    """The decoded codes of images."""
    decode = DecoderMap(model)
    codes = [model.encoder(batch.to(DEVICE)).embedding for batch in images.split(500)]
    return torch.cat([decode(z).cpu() for z in codes]).reshape(images.shape).clamp(0, 1)


class Newness:
    """How far generated images are from what a model could copy: the training images, and its
    reconstructions of them."""

    def __init__(self, data: Data, model: BaseAE):
        decoded = [reconstructions(model, images) for images in (data.train, data.test)]
        # What a sample could copy, and how far from it new images are.
        self.known = [
            (old, nearest_distances(new, old)[0].median())
            for old, new in ((data.train, data.test), decoded)
        ]

    def __call__(self, images: torch.Tensor) -> dict[str, float]:
        """The median distance ``nearest`` to a training image, where test images are at 1, and the
        share of ``copies``."""
        apart = [nearest_distances(images, old)[0] / new for old, new in self.known]
        return {
            "nearest": float(apart[0].median()),
            "copies": float((torch.minimum(*apart) < COPY).double().mean()),
        }


class Judge:
    """The measures of images against the test images.

    Args:
        data: the data.
        features: a function from images ``[N, *input_dim]`` to features ``[N, p]``.
        model: the model that generates.
    """

    def __init__(self, data: Data, features: Callable[[torch.Tensor], torch.Tensor], model: BaseAE):
        self.shape, self.features = data.test.shape[1:], features
        self.real, self.newness = features(data.test), Newness(data, model)

    def measure(self, images: torch.Tensor) -> dict[str, float]:
        images = images.detach().cpu().reshape(-1, *self.shape).clamp(0, 1)
        found = self.features(images)
        return {
            "frechet": frechet_distance(self.real, found),
            "coverage": density_and_coverage(self.real, found).coverage,
            **self.newness(images),
        }
