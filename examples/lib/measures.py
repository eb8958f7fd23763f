"""Measures of generated images against real ones."""

from pythae_geometric.commands.measures import Newness
from pythae_geometric.evaluation import (
    density_and_coverage,
    frechet_distance,
    inception_features,
    prd_scores,
)

from .costs import DEVICE


def feature_measures(real, fake, clusterings=10):
    """Measures of features ``[N, D]`` of generated images against those of real ones. Most of the
    time goes into the ``clusterings`` of recall and precision."""
    recall, precision = prd_scores(real, fake, seed=0, repeats=clusterings)
    density, coverage = density_and_coverage(real, fake)
    return {
        "frechet": frechet_distance(real, fake),
        "recall": recall,
        "precision": precision,
        "density": density,
        "coverage": coverage,
    }


class Judge:
    """The measures of generated images against the validation, and against the test images."""

    def __init__(self, data, network, model, clusterings):
        self.data, self.network, self.clusterings = data, network, clusterings
        self.real = {part: self.features(getattr(data, part)) for part in ("validation", "test")}
        self.newness = Newness(data, model)

    def features(self, images):
        if self.network is None:
            return inception_features(images.to(DEVICE)).cpu()
        return self.network(images)

    def measure(self, images):
        """The first half is measured on the validation images, the other on the test images."""
        images = images.detach().cpu().reshape(-1, *self.data.test.shape[1:]).clamp(0, 1)
        halves = zip(("validation", "test"), images.split(-(-len(images) // 2)), strict=True)
        return {part: self._one(part, half) for part, half in halves}

    def _one(self, part, images):
        found = feature_measures(self.real[part], self.features(images), self.clusterings)
        return found | self.newness(images)
