"""States that can be measured are reported, in all models, once, and not in a healthy run."""

import warnings

import pytest
import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from torch import nn

from pythae_geometric.models import (
    VAE_DLM,
    BrownianRVAE,
    BrownianRVAEConfig,
    CollapsedPosteriorWarning,
    ERManifoldVAE,
    ERManifoldVAEConfig,
    RicciAE,
    RicciAEConfig,
    VAE_DLM_Config,
)
from pythae_geometric.models.collapse import EPOCHS

D = 12
# Without the terms of the loss that are about curvature and the metric, which take long.
PLAIN = {"metric_weight": 0.0, "flow_weight": 0.0, "hidden_dim": 8, "num_layers": 1}


class Decoder(BaseDecoder):
    def __init__(self, inputs, output):
        super().__init__()
        self.layers, self.output = nn.Linear(inputs, D), output

    def forward(self, z):
        return ModelOutput(reconstruction=self.output(self.layers(z)))


def build(model, output=None):
    """A model of two latent dimensions, with a decoder of its own if its output is given."""
    torch.manual_seed(0)
    config, inputs = {
        BrownianRVAE: (BrownianRVAEConfig(hidden_dims=(8,), num_centers=4, latent_dim=2), 2),
        ERManifoldVAE: (ERManifoldVAEConfig(manifold="sphere(2)", hidden_dims=(8,)), 3),
        RicciAE: (RicciAEConfig(curvature_weight=0.0), 2),
        VAE_DLM: (VAE_DLM_Config(latent_dim=2, **PLAIN), 3),
    }[model]
    config.input_dim = (D,)
    return model(config, decoder=None if output is None else Decoder(inputs, output))


MODELS = pytest.mark.parametrize("model", [BrownianRVAE, ERManifoldVAE, RicciAE, VAE_DLM])
X = torch.rand(40, D, generator=torch.Generator().manual_seed(0))
STANDARDISED = (X - X.mean(0)) / X.std(0)


def epochs(model, x, count):
    """What pythae's trainer does of each epoch, but for the steps of the optimiser."""
    model.train()
    for _ in range(count):
        for batch in x.split(20):
            model({"data": batch})
        model.update()


# Data on another scale than the decoder's


@MODELS
def test_data_that_no_sigmoid_reaches_are_named_once(model):
    built = build(model, nn.Sigmoid())
    with pytest.warns(UserWarning, match="no reconstruction has left") as caught:
        epochs(built, STANDARDISED, 5)
    low, high = float(STANDARDISED.min()), float(STANDARDISED.max())
    assert len(caught) == 1
    assert f"from {low:.4g} to {high:.4g}" in str(caught[0].message)


@pytest.mark.parametrize("model", [BrownianRVAE, RicciAE])
def test_images_of_255_are_named(model):
    with pytest.warns(UserWarning, match="images of 0 to 255: divide by 255"):
        epochs(build(model, nn.Sigmoid()), 255 * X, 2)


@MODELS
@pytest.mark.parametrize(
    ("x", "output"),
    [(X, nn.Sigmoid()), (1.05 * X, nn.Sigmoid()), (STANDARDISED, nn.Identity()), (X, None)],
    ids=["in [0, 1]", "almost in [0, 1]", "standardised", "default"],
)
def test_data_that_the_decoder_reaches_are_not(model, x, output):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        epochs(build(model, output), x, 4)


def test_a_training_by_pythae_says_it_once(tmp_path):
    config = BaseTrainerConfig(str(tmp_path), num_epochs=4, learning_rate=1e-3, no_cuda=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TrainingPipeline(build(RicciAE, nn.Sigmoid()), config)(255 * X, 255 * X)
    assert len([w for w in caught if "no reconstruction has left" in str(w.message)]) == 1


# Numbers that are not finite


def poisoned(model, network):
    """The model, with NaN in all weights of a network."""
    with torch.no_grad():
        part = getattr(model, network)
        for parameter in getattr(part, "network", part).parameters():
            parameter.fill_(torch.nan)
    return model


@MODELS
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_the_network_that_gives_nan_is_named(model, network, training):
    built = poisoned(build(model, nn.Identity()).train(training), network)
    with pytest.raises(ArithmeticError, match=f"The {network}'s output is not finite"):
        built({"data": X})


def test_in_generation_too():
    model = poisoned(build(VAE_DLM), "decoder").eval()
    for call in (lambda: model.evolve(X, [0.0, 1.0]), lambda: model.get_nll(X)):
        with pytest.raises(ArithmeticError, match="The decoder's output is not finite"):
            call()
    model = poisoned(build(ERManifoldVAE), "encoder").eval()
    with pytest.raises(ArithmeticError, match="The encoder's output is not finite"):
        model.manifold_points(X)


def test_the_scale_of_the_data_comes_before_the_learning_rate():
    """Of weights that are finite: the variance of a posterior is not."""
    model = VAE_DLM(VAE_DLM_Config(input_dim=(D,), latent_dim=2, hidden_dim=8, num_layers=1))
    torch.manual_seed(0)
    with torch.no_grad():
        model.encoder.layers.last.weight.abs_().mul_(10)
    with pytest.raises(ArithmeticError, match="the data reach 255") as caught:
        model({"data": 255 * X.round()})
    assert "learning rate" not in str(caught.value)
    poisoned(model, "encoder")
    with pytest.raises(ArithmeticError, match="Lower the learning rate"):
        model({"data": X})


# A posterior that is the prior


class Posterior(BaseEncoder):
    """The same posterior for all data."""

    def __init__(self, mean, log_variance):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([mean, 0.0]))
        self.log_variance = nn.Parameter(torch.tensor([log_variance]))

    def forward(self, x):
        mean, log_variance = self.mean.expand(len(x), 2), self.log_variance.expand(len(x), 2)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Plane(BaseDecoder):
    """An isometry: the latent space is flat, and the divergence that of two Gaussians."""

    def __init__(self):
        super().__init__()
        self.register_buffer("basis", torch.linalg.qr(torch.randn(D, 2)).Q)

    def forward(self, z):
        return ModelOutput(reconstruction=z @ self.basis.T)


def brownian_rvae(mean):
    """In its second phase, in flat space: the divergence is mean² / 2."""
    torch.manual_seed(0)
    config = BrownianRVAEConfig(
        input_dim=(D,), latent_dim=2, num_centers=3, rbf_bandwidth=1e-12, warmup_epochs=1
    )
    model = BrownianRVAE(config, Posterior(mean, 0.0), Plane())
    model.epochs_done += 1
    with torch.no_grad():
        model.fan.anchors.normal_()
    return model


def vae_dlm(mean):
    torch.manual_seed(0)
    config = VAE_DLM_Config(input_dim=(D,), latent_dim=2, **PLAIN)
    return VAE_DLM(config, encoder=Posterior(mean, 0.0))


def er_manifold_vae(mean):
    torch.manual_seed(0)
    config = ERManifoldVAEConfig(input_dim=(D,), manifold="sphere(2)", posterior="normal")
    return ERManifoldVAE(config, encoder=Posterior(mean, 0.0))


BUILDERS = pytest.mark.parametrize("builder", [brownian_rvae, er_manifold_vae, vae_dlm])


@BUILDERS
def test_a_collapsed_posterior_is_said_once(builder):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        epochs(builder(0.0), X, 2 * EPOCHS)
    found = [w for w in caught if w.category is CollapsedPosteriorWarning]
    assert len(found) == 1


@BUILDERS
@pytest.mark.parametrize(("mean", "count"), [(0.0, EPOCHS - 1), (2.0, EPOCHS + 3)])
def test_neither_a_short_training_nor_two_nats_are_called_a_collapse(builder, mean, count):
    model = builder(mean)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapsedPosteriorWarning)
        epochs(model, X, count)
    with torch.no_grad():
        kl = float(model({"data": X.repeat(50, 1)}).reg_loss) / (2 if builder is vae_dlm else 1)
    assert abs(kl - mean**2 / 2) < 0.15


def test_what_to_do_is_said_by_the_model():
    with pytest.warns(CollapsedPosteriorWarning, match="Lower kl_weight"):
        epochs(vae_dlm(0.0), X, EPOCHS)


def test_epochs_without_a_batch_do_not_count():
    model = vae_dlm(0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2 * EPOCHS):
            model.update()
