"""The cross entropy as reconstruction error of RicciAE and VAE_DLM: against closed forms."""

import math

import numpy as np
import pytest
import torch
from pythae.models import AutoModel
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn
from torch.distributions import Bernoulli

from pythae_geometric.evaluation import negative_log_likelihood
from pythae_geometric.models import VAE_DLM, RicciAE, RicciAEConfig, VAE_DLM_Config

D = 6
GREY = torch.rand(50, D, generator=torch.Generator().manual_seed(0))
BINARY = GREY.round()
PLAIN = {
    "metric_weight": 0.0,
    "flow_weight": 0.0,
    "manifold_map": False,
    "hidden_dim": 8,
    "num_layers": 1,
}


def cross_entropy(x, p):
    """Of each sample, in float64, written out."""
    x, p = x.double(), p.double()
    return -(x * p.log() + (1 - x) * (1 - p).log()).sum(1)


def ricci_ae(**fields):
    torch.manual_seed(0)
    return RicciAE(RicciAEConfig(input_dim=(D,), reconstruction_loss="bce", **fields))


def vae_dlm(encoder=None, decoder=None, **fields):
    torch.manual_seed(0)
    fields = {"input_dim": (D,), "latent_dim": 2, "reconstruction_loss": "bce", **PLAIN, **fields}
    return VAE_DLM(VAE_DLM_Config(**fields), encoder, decoder)


@pytest.mark.parametrize("x", [GREY, BINARY], ids=["grey", "binary"])
def test_the_error_of_ricci_ae_is_the_cross_entropy_of_a_sample(x):
    model = ricci_ae(curvature_weight=0.0, recon_weight=3.0)
    with torch.no_grad():
        output = model({"data": x})
    assert 0 < output.recon_x.min() and output.recon_x.max() < 1
    expected = cross_entropy(x, output.recon_x).mean()
    torch.testing.assert_close(output.recon_loss.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(output.loss.double(), 3 * expected, rtol=1e-6, atol=0)


def test_ricci_ae_trains_on_it_with_the_curvature():
    model = ricci_ae(num_points=8)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(120):
        output = model({"data": BINARY})
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.recon_loss.item())
    assert bool(torch.isfinite(output.curvature_loss))
    assert losses[-1] < 0.7 * losses[0]


def test_the_loss_of_vae_dlm_is_the_evidence_lower_bound():
    """Where recon_weight is 2 D kl_weight, times -2 kl_weight."""
    kl_weight = 0.05
    model = vae_dlm(kl_weight=kl_weight, recon_weight=2 * D * kl_weight)
    with torch.no_grad():
        output = model({"data": BINARY})
        mean, log_variance = (part.double() for part in model.posterior(BINARY))
    log_prob = Bernoulli(output.recon_x.double()).log_prob(BINARY.double()).sum(1)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_variance).exp()),
        torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean)),
    ).sum(1)
    expected = -2 * kl_weight * (log_prob - kl).mean()
    torch.testing.assert_close(output.loss.double(), expected, rtol=1e-5, atol=0)
    error = cross_entropy(BINARY, output.recon_x).mean() / D
    torch.testing.assert_close(output.recon_loss.double(), error, rtol=1e-6, atol=0)


class Wide(BaseEncoder):
    """A posterior N(0.3, 1.44) for all data, wide enough to sample from the true ones."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        mean = self.mean.expand(len(x), 1)
        return ModelOutput(embedding=mean, log_covariance=torch.full_like(mean, math.log(1.44)))


class Logistic(BaseDecoder):
    """The probabilities 1 / (1 + exp(-a u - b)), whatever the time."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.linspace(-1, 1.5, D))
        self.b = nn.Parameter(torch.linspace(0.5, -0.5, D))

    def forward(self, z):
        return ModelOutput(reconstruction=torch.sigmoid(z[:, :1] * self.a + self.b))


@pytest.mark.parametrize("kl_weight", [0.0, 0.3])
@pytest.mark.parametrize("x", [GREY[:4], BINARY[:4]], ids=["grey", "binary"])
def test_the_likelihood_is_that_of_a_quadrature(x, kl_weight):
    """Gauss and Hermite's, of 80 nodes; the weights of the loss are not in it."""
    model = vae_dlm(Wide(), Logistic(), latent_dim=1, kl_weight=kl_weight).eval()
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    nodes, weights = torch.from_numpy(nodes), torch.from_numpy(weights / math.sqrt(2 * math.pi))
    a, b = model.decoder.network.a.double(), model.decoder.network.b.double()
    p = torch.sigmoid(nodes[:, None] * a + b)
    log_p_x = torch.stack([-cross_entropy(row.expand_as(p), p) for row in x])
    expected = float((log_p_x + weights.log()).logsumexp(1).mean())
    torch.manual_seed(0)
    # The weights are within a factor of a few: the error of 40,000 is some thousandths.
    assert abs(model.get_nll(x, n_samples=40_000, batch_size=20_000) - expected) < 0.02
    assert abs(-negative_log_likelihood(model, x, num_samples=40_000) - expected) < 0.02


@pytest.mark.parametrize("build", [ricci_ae, vae_dlm])
@pytest.mark.parametrize("x", [GREY * 3, GREY - 0.5], ids=["large", "negative"])
def test_data_outside_of_the_unit_interval_are_refused(build, x):
    with pytest.raises(ValueError, match=r'data in \[0, 1\].*reconstruction_loss="mse"'):
        build()({"data": x})
    with pytest.raises((ValueError, ArithmeticError), match="255"):
        build()({"data": 255 * BINARY})  # it may be a posterior's variance that is not finite


class Linear(BaseDecoder):
    def __init__(self, inputs):
        super().__init__()
        self.layers = nn.Linear(inputs, D)

    def forward(self, z):
        return ModelOutput(reconstruction=self.layers(z))


def test_a_decoder_without_a_sigmoid_is_refused():
    torch.manual_seed(0)
    config = RicciAEConfig(input_dim=(D,), reconstruction_loss="bce")
    for model in (RicciAE(config, decoder=Linear(2)), vae_dlm(decoder=Linear(3))):
        with pytest.raises(ValueError, match=r"outputs of the decoder in \[0, 1\].*a sigmoid"):
            model({"data": GREY})


@pytest.mark.parametrize("build", [ricci_ae, vae_dlm])
def test_it_trains_under_autocast(build):
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        output = build()({"data": GREY})
    error = cross_entropy(GREY, output.recon_x.float()).mean() / (D if build is vae_dlm else 1)
    torch.testing.assert_close(output.recon_loss.double(), error, rtol=1e-5, atol=0)


@pytest.mark.parametrize("build", [ricci_ae, vae_dlm])
def test_it_is_saved_with_the_model(build, tmp_path):
    model = build().eval()
    model.save(tmp_path)
    loaded = AutoModel.load_from_folder(tmp_path).eval()
    assert loaded.model_config.reconstruction_loss == "bce"
    for other in (model, loaded):
        torch.manual_seed(0)
        other.output = other({"data": GREY}).loss
    assert torch.equal(model.output, loaded.output)


@pytest.mark.parametrize("config", [RicciAEConfig, VAE_DLM_Config])
def test_a_config_without_it_is_of_squared_errors(config):
    """As version 0.1.0 wrote them, which had no such field."""
    fields = {k: v for k, v in config(input_dim=(D,)).to_dict().items() if k != "name"}
    del fields["reconstruction_loss"]
    assert config.from_dict(fields).reconstruction_loss == "mse"
