"""Measures of representation on models with known answers."""

import math

import numpy as np
import pytest
import torch
from pythae import models
from pythae.models import AE, VAE, AEConfig, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn

from pythae_geometric.evaluation import (
    class_f1,
    negative_log_likelihood,
    reconstruction_error,
)

W = torch.tensor([[1.0, 0.5], [-0.3, 2.0], [0.2, 0.1]])


class ExactEncoder(BaseEncoder):
    """The posterior of x = W z + noise, but for a variance that is too large."""

    def __init__(self, widen):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        precision = torch.eye(2) + W.T @ W
        self.mean = torch.linalg.solve(precision, W.T)
        self.log_variance = -precision.diagonal().log() + math.log(widen)

    def forward(self, x):
        mu = self.dropout(x.flatten(1)) @ self.mean.T
        return ModelOutput(embedding=mu, log_covariance=self.log_variance.expand_as(mu))


class LinearDecoder(BaseDecoder):
    def forward(self, z):
        return ModelOutput(reconstruction=(z @ W.T).view(-1, 1, 1, 3))


def linear_vae(widen=1.5):
    config = VAEConfig(input_dim=(1, 1, 3), latent_dim=2, reconstruction_loss="mse")
    return VAE(config, ExactEncoder(widen), LinearDecoder())


def test_likelihood_of_a_linear_gaussian_model():
    x = torch.randn(20, 1, 1, 3, generator=torch.Generator().manual_seed(0))
    marginal = torch.distributions.MultivariateNormal(torch.zeros(3), torch.eye(3) + W @ W.T)
    expected = -float(marginal.log_prob(x.flatten(1)).mean())
    torch.manual_seed(0)
    model = linear_vae().train()
    found = [negative_log_likelihood(model, x, 2000) for _ in range(5)]
    assert model.training
    # The weights have a variance of order 1, so that the error of a mean of 20 x 2000 is 0.01.
    assert np.mean(found) == pytest.approx(expected, abs=0.01)
    assert np.std(found) < 0.02
    few = np.mean([negative_log_likelihood(model, x, 1) for _ in range(200)])
    assert few > expected + 0.02  # an upper bound: with one sample, the negative ELBO


def test_reconstruction_error_by_hand(digits):
    class Half(BaseDecoder):
        def forward(self, z):
            return ModelOutput(reconstruction=0.5 * torch.ones(len(z), 1, 8, 8))

    torch.manual_seed(0)
    model = AE(AEConfig(input_dim=(1, 8, 8), latent_dim=2), decoder=Half())
    x = torch.as_tensor(digits[:30])
    expected = float((x.double() - 0.5).square().mean())
    assert reconstruction_error(model, x, batch_size=7) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="images has no rows"):
        reconstruction_error(model, x[:0])


VARIETY = [
    "AE", "VAE", "BetaTCVAE", "CIWAE", "FactorVAE", "HVAE", "IWAE", "MIWAE", "PIWAE", "PoincareVAE",
    "RAE_GP", "RHVAE", "SVAE", "VAEGAN", "VAE_IAF", "VAE_LinNF", "VAMP", "VQVAE", "Adversarial_AE",
]  # fmt: skip


@pytest.mark.parametrize("name", VARIETY)
def test_reconstruction_error_of_pythaes_models(name, digits):
    """Of all images once: FactorVAE's forward pass gives those of a random half."""
    config = getattr(models, name + "Config", None) or getattr(models, name + "_Config")
    torch.manual_seed(0)
    model = getattr(models, name)(config(input_dim=(1, 8, 8), latent_dim=4))
    decode = model.decoder.forward
    model.decoder.forward = lambda *given: ModelOutput(
        reconstruction=0 * decode(*given)["reconstruction"] + 0.5
    )
    expected = float((torch.as_tensor(digits[:15]).double() - 0.5).square().mean())
    found = reconstruction_error(model, digits[:15], batch_size=7)
    assert found == pytest.approx(expected, rel=1e-5)


def test_models_without_likelihood_are_named():
    with pytest.raises(TypeError, match="AE has no get_nll"):
        negative_log_likelihood(AE(AEConfig(input_dim=(1, 2, 2), latent_dim=2)), torch.rand(2, 4))
    with pytest.raises(ValueError, match="num_samples must be a whole number of at least 1"):
        negative_log_likelihood(linear_vae(), torch.rand(2, 1, 1, 3), 0)


def test_f1_of_classes_that_are_apart_and_of_noise():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    codes = np.eye(3)[labels] * 10 + 0.1 * random.normal(size=(300, 3))
    scores = class_f1(codes[:200], labels[:200], codes[200:], labels[200:], seed=0, classifiers=2)
    assert scores.shape == (2, 3) and scores.min() == pytest.approx(1)
    noise = random.normal(size=(300, 3))
    scores = class_f1(noise[:200], labels[:200], noise[200:], labels[200:], seed=0, classifiers=2)
    assert scores.mean() < 0.6
    again = class_f1(noise[:200], labels[:200], noise[200:], labels[200:], seed=0, classifiers=2)
    np.testing.assert_array_equal(scores, again)
    # Classes by name, by one-hot rows, and in a tensor are the same.
    for same in (np.array(["a", "b", "c"])[labels], np.eye(3)[labels], torch.as_tensor(labels)):
        other = class_f1(noise[:200], same[:200], noise[200:], same[200:], seed=0, classifiers=2)
        np.testing.assert_array_equal(scores, other)
    for number in (0, -1, 1.5):
        with pytest.raises(ValueError, match="classifiers must be a whole number of at least 1"):
            class_f1(codes, labels, codes, labels, seed=0, classifiers=number)
    with pytest.raises(ValueError, match="two classes"):
        class_f1(codes, np.zeros(300), codes, labels, seed=0)
    with pytest.raises(
        ValueError, match="train_labels must hold one label for each of the 300 rows"
    ):
        class_f1(codes, labels[:3], codes, labels, seed=0)


class NoNumbers(BaseDecoder):
    def forward(self, z):
        return ModelOutput(reconstruction=torch.full((len(z), 1, 1, 3), torch.nan))


@pytest.mark.parametrize("measure", [reconstruction_error, negative_log_likelihood])
def test_a_model_that_has_diverged_is_named(measure):
    config = VAEConfig(input_dim=(1, 1, 3), latent_dim=2)
    model = VAE(config, ExactEncoder(1.0), NoNumbers())
    with pytest.raises(ArithmeticError, match="of VAE are not finite, though the images are"):
        measure(model, torch.zeros(4, 1, 1, 3))
