"""What a model keeps of the data: reconstructions, likelihood, classes."""

import math
import warnings

import numpy as np
import torch
from pythae.models import BaseAE
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import f1_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .._checks import check_count
from .._inputs import as_labels, as_model
from ..geometry import evaluation_mode
from ..models.checks import data_for
from ._checks import as_clouds


def reconstruction_error(model: BaseAE, images: object, batch_size: int = 500) -> float:
    """Mean squared error of a model's reconstructions, per entry of the data.

    Args:
        model: any pythae model; used in evaluation mode. A variational one reconstructs from a
            sample of its posterior.
        images: ``[N, *input_dim]``, on the scale that the model was trained on: array, tensor,
            list, data frame, data set or ``DataLoader``.
        batch_size: how many at a time, 1 or more.

    Raises:
        TypeError: if the images are not real numbers, or the model is not pythae's.
        ValueError: if the images are of another shape or not finite, or ``batch_size`` is out of
            range.
        ArithmeticError: if the reconstructions are not finite.
    """
    batch_size = check_count("batch_size", batch_size, 1)
    model = as_model(model)
    images, total = data_for(model, images, "images"), 0.0
    # RHVAE, RAE_GP and others take gradients in evaluation too.
    with evaluation_mode(model), torch.enable_grad():
        # Of equal sizes: some models do not take a batch of one, which a rest may be.
        for x in images.tensor_split(math.ceil(len(images) / batch_size)):
            recon_x = model.reconstruct(x).detach()
            total += float((recon_x.reshape(x.shape) - x).square().sum())
    _check_finite(total, model, "reconstructions")
    return total / images.numel()


def negative_log_likelihood(model: BaseAE, images: object, num_samples: int = 200) -> float:
    r"""Importance-weighted estimate of the mean of :math:`-\log p(x)`, in nats.

    .. math::
        -\log \frac{1}{L} \sum_{l=1}^L \frac{p(x | z_l)\, p(z_l)}{q(z_l | x)}, \qquad z_l \sim q

    by the model's own ``get_nll``, whose value is that of *plus* log p(x) in pythae. It is an upper
    bound in expectation. Only models of one likelihood compare: that of "bce" is not normalised
    for data that are not binary.

    Args:
        model: a pythae model with ``get_nll``; used in evaluation mode.
        images: ``[N, *input_dim]``, on the scale that the model was trained on: array, tensor,
            list, data frame, data set or ``DataLoader``.
        num_samples: L, 1 or more.

    Raises:
        TypeError: if the model has no likelihood or is not pythae's, or the images are not real
            numbers.
        ValueError: if the images are of another shape or not finite, or ``num_samples`` is out of
            range.
        ArithmeticError: if the likelihood is not finite.
    """
    num_samples = check_count("num_samples", num_samples, 1)
    model = as_model(model)
    if not hasattr(model, "get_nll"):
        raise TypeError(f"{model.model_name} has no get_nll: it has no likelihood to estimate.")
    images = data_for(model, images, "images")
    with evaluation_mode(model), torch.enable_grad():
        # pythae draws whole batches: with n_samples < batch_size it would draw batch_size.
        log_likelihood = model.get_nll(images, n_samples=num_samples, batch_size=num_samples)
    _check_finite(float(log_likelihood), model, "likelihoods")
    return -float(log_likelihood)


def _check_finite(value: float, model: BaseAE, what: str) -> None:
    if not math.isfinite(value):
        raise ArithmeticError(
            f"The {what} of {model.model_name} are not finite, though the images are: its training "
            "has diverged, or the images are not on the scale that it was trained on."
        )


def class_f1(
    train_codes: object,
    train_labels: object,
    codes: object,
    labels: object,
    seed: int,
    classifiers: int = 5,
) -> np.ndarray:
    """F1 of each class, from small networks that read the class off the codes.

    The protocol of Kalatzis et al. (ICML 2020): networks of one layer of 20 ReLU units on
    standardised codes.

    Args:
        train_codes: ``[N, d]``.
        train_labels: numbers or words ``[N]``, or one-hot rows, of two classes or more.
        codes: ``[M, d]`` held out.
        labels: ``[M]``, likewise.
        seed: of the first classifier, 0 or more; the others take the seeds that follow.
        classifiers: how many are trained, 1 or more.

    Returns:
        ``[classifiers, classes]``, the classes being those of ``train_labels`` in order.

    Raises:
        TypeError: if the codes are not real numbers, or the labels are neither numbers nor words.
        ValueError: if there is only one class, codes are not finite, dimensions differ, there is
            not one label for each code, or a number is out of range.
    """
    seed = check_count("seed", seed, 0)
    classifiers = check_count("classifiers", classifiers, 1)
    train_codes, codes = (
        c.cpu().numpy() for c in as_clouds(1, train_codes=train_codes, codes=codes)
    )
    train_labels = as_labels(train_labels, "train_labels", len(train_codes))
    labels = as_labels(labels, "labels", len(codes))
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
