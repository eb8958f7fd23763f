"""What a model keeps of the data: reconstructions, likelihood, classes."""

import contextlib
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from pythae.data.datasets import DatasetOutput
from pythae.models import BaseAE
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import f1_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ._checks import as_clouds


@contextlib.contextmanager
def _evaluated(model: BaseAE) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad():  # which RHVAE, RAE_GP and others take in evaluation too
            yield
    finally:
        model.train(was_training)


def reconstruction_error(model: BaseAE, images: torch.Tensor, batch_size: int = 500) -> float:
    """Mean squared error of a model's reconstructions, per entry of the data.

    Args:
        model: any pythae model; used in evaluation mode. A variational one reconstructs from a
            sample of its posterior.
        images: ``[N, *input_dim]``.
        batch_size: how many at a time.

    Raises:
        ValueError: if there are no images.
    """
    if len(images) == 0:
        raise ValueError("There are no images to reconstruct.")
    total = 0.0
    with _evaluated(model):
        for x in images.split(batch_size):
            recon_x = model(DatasetOutput(data=x)).recon_x.detach()
            total += float((recon_x.reshape(x.shape) - x).square().sum())
    return total / images.numel()


def negative_log_likelihood(model: BaseAE, images: torch.Tensor, num_samples: int = 200) -> float:
    r"""Importance-weighted estimate of the mean of :math:`-\log p(x)`, in nats.

    .. math::
        -\log \frac{1}{L} \sum_{l=1}^L \frac{p(x | z_l)\, p(z_l)}{q(z_l | x)}, \qquad z_l \sim q

    by the model's own ``get_nll``, whose value is that of *plus* log p(x) in pythae. It is an upper
    bound in expectation. Only models of one likelihood compare: that of "bce" is not normalised
    for data that are not binary.

    Args:
        model: a pythae model with ``get_nll``; used in evaluation mode.
        images: ``[N, *input_dim]``.
        num_samples: L.

    Raises:
        TypeError: if the model has no likelihood.
        ValueError: if there are no images, or num_samples is less than 1.
    """
    if not hasattr(model, "get_nll"):
        raise TypeError(f"{model.model_name} has no get_nll: it has no likelihood to estimate.")
    if len(images) == 0 or num_samples < 1:
        raise ValueError(
            f"It takes 1 image and 1 sample at least, got {len(images)} and {num_samples}."
        )
    with _evaluated(model):
        # pythae draws whole batches: with n_samples < batch_size it would draw batch_size.
        return -float(model.get_nll(images, n_samples=num_samples, batch_size=num_samples))


def class_f1(
    train_codes, train_labels, codes, labels, seed: int, classifiers: int = 5
) -> np.ndarray:
    """F1 of each class, from small networks that read the class off the codes.

    The protocol of Kalatzis et al. (ICML 2020): networks of one layer of 20 ReLU units on
    standardised codes.

    Args:
        train_codes: ``[N, d]``.
        train_labels: ``[N]``, of two classes or more.
        codes: ``[M, d]`` held out.
        labels: ``[M]``.
        seed: of the first classifier; the others take the seeds that follow.
        classifiers: how many are trained.

    Returns:
        ``[classifiers, classes]``, the classes being those of ``train_labels`` in order.

    Raises:
        ValueError: if there is only one class, or codes are not finite, or dimensions differ.
    """
    train_codes, codes = (
        c.cpu().numpy() for c in as_clouds(1, train_codes=train_codes, codes=codes)
    )
    train_labels, labels = np.asarray(train_labels), np.asarray(labels)
    if len(train_labels) != len(train_codes) or len(labels) != len(codes):
        raise ValueError("There must be one label a code, in training and held-out data.")
    classes = np.unique(train_labels)
    if len(classes) < 2:
        raise ValueError(f"There must be two classes at least, got {classes.tolist()}.")
    scores = []
    for run in range(seed, seed + classifiers):
        mlp = MLPClassifier((20,), "relu", max_iter=200, random_state=run)
        with warnings.catch_warnings():
            # 200 passes are the protocol, converged or not.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier = make_pipeline(StandardScaler(), mlp).fit(train_codes, train_labels)
        predicted = classifier.predict(codes)
        scores.append(f1_score(labels, predicted, labels=classes, average=None, zero_division=0))
    return np.array(scores)
