"""Measures of what a generative model generates, reconstructs and represents.

Measures of generation compare two clouds of features ``[N, p]``: those of
:func:`train_feature_network`, those of :func:`inception_features`, or any others.
"""

from .features import FeatureNetwork, inception_features, train_feature_network
from .frechet import FrechetStatistics, frechet_distance
from .nearest import nearest_distances
from .neighbourhoods import DensityCoverage, density_and_coverage
from .precision_recall import PRDScores, prd_curve, prd_curve_of_histograms, prd_scores
from .representation import class_f1, negative_log_likelihood, reconstruction_error

__all__ = [
    "DensityCoverage",
    "FeatureNetwork",
    "FrechetStatistics",
    "PRDScores",
    "class_f1",
    "density_and_coverage",
    "frechet_distance",
    "inception_features",
    "nearest_distances",
    "negative_log_likelihood",
    "prd_curve",
    "prd_curve_of_histograms",
    "prd_scores",
    "reconstruction_error",
    "train_feature_network",
]
