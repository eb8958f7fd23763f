"""Networks that are not pythae's, in everything that takes a model."""

import pytest
import torch
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn

from pythae_geometric import (
    BrownianMotionSampler,
    BrownianMotionSamplerConfig,
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
    evaluation,
    interpolate,
)
from pythae_geometric.models.foreign import autoencoder_of

X = torch.randn(60, 1, 2, 3, generator=torch.Generator().manual_seed(0))


class Networks:
    """The same encoder and decoder in the forms of others and in pythae's."""

    def __init__(self):
        torch.manual_seed(0)
        self.mean = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
        self.decoder = nn.Sequential(
            nn.Linear(2, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 6)
        )

    def posterior(self, x):
        return self.mean(x), torch.full((len(x), 2), -1.0)

    def foreign(self, encoder=None):
        return autoencoder_of(encoder or self.posterior, self.decoder, (1, 2, 3), 2)

    def pythaes(self):
        class Encoder(BaseEncoder):
            def __init__(self, networks):
                super().__init__()
                self.mean = networks.mean

            def forward(self, x):
                mean = self.mean(x)
                return ModelOutput(embedding=mean, log_covariance=torch.full_like(mean, -1.0))

        class Decoder(BaseDecoder):
            def __init__(self, networks):
                super().__init__()
                self.layers = networks.decoder

            def forward(self, z):
                return ModelOutput(reconstruction=self.layers(z).view(-1, 1, 2, 3))

        return VAE(VAEConfig(input_dim=(1, 2, 3), latent_dim=2), Encoder(self), Decoder(self))


def hmc(model, **fields):
    config = MetricUniformHMCSamplerConfig(seed=0, num_centroids=10, **fields)
    sampler = MetricUniformHMCSampler(model, config)
    sampler.fit(X)
    return sampler.sample(4)


def motion(model):
    config = BrownianMotionSamplerConfig(metric="pullback", time=0.01, steps=3, seed=0)
    sampler = BrownianMotionSampler(model, config)
    sampler.fit(X)
    return sampler.sample(4)


USES = {
    "codes": hmc,
    "posteriors": lambda model: hmc(model, metric="posteriors", temperature=1.0),
    "motion": motion,
    "line": lambda model: interpolate(model, X[:2], X[2:4], "line").reconstructions,
    "geodesic": lambda model: interpolate(model, X[:2], X[2:4], steps=8).reconstructions,
}


@pytest.mark.filterwarnings("ignore:Of the", "ignore::RuntimeWarning")
@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_they_do_what_pythaes_do(use):
    networks = Networks()
    found, expected = use(networks.foreign()), use(networks.pythaes())
    assert found.shape[-3:] == (1, 2, 3)
    torch.testing.assert_close(found, expected)
    assert networks.decoder.training  # as it was


def test_an_encoder_of_codes_alone():
    networks = Networks()
    model = networks.foreign(networks.mean)
    torch.testing.assert_close(hmc(model), hmc(networks.pythaes()))
    with pytest.raises(TypeError, match="no log_covariance"):
        hmc(model, metric="posteriors")
    expected = X - networks.decoder.eval()(networks.mean(X)).view_as(X)
    found = evaluation.reconstruction_error(model, X)
    assert found == pytest.approx(float(expected.square().mean()), rel=1e-5)


def test_compiled_networks():
    networks = Networks()
    expected = [use(networks.foreign()) for use in (motion, USES["line"])]
    networks.decoder = torch.compile(networks.decoder, backend="eager")
    for use, value in zip((motion, USES["line"]), expected, strict=True):
        torch.testing.assert_close(use(networks.foreign()), value)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, nn.Linear(2, 6), (6,), 2), TypeError, "encoder must be a module or a function"),
        ((nn.Linear(6, 2), None, (6,), 2), TypeError, "decoder must be a module or a function"),
        ((nn.Linear(6, 2), nn.Linear(2, 6), (6,), 0), ValueError, "latent_dim must be"),
        ((nn.Linear(6, 2), nn.Linear(2, 6), (0,), 2), ValueError, "input_dim must be"),
        ((lambda x: "code", nn.Linear(2, 6), (6,), 2), TypeError, "encoder must return codes"),
        ((nn.Linear(6, 2), lambda z: (z, z), (6,), 2), TypeError, "decoder must return a tensor"),
        ((nn.Linear(6, 3), nn.Linear(2, 6), (6,), 2), ValueError, r"embedding of shape \[1, 2\]"),
    ],
)
def test_bad_networks(arguments, error, message):
    x = torch.zeros(1, 6)
    with pytest.raises(error, match=message):
        interpolate(autoencoder_of(*arguments), x, x, "line")
