"""Networks that are not pythae's, in everything that takes a model."""

import pytest
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAE_LinNF, VAE_LinNF_Config, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pythae_geometric import (
    BrownianMotionSampler,
    BrownianMotionSamplerConfig,
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
    evaluation,
    interpolate,
)
from pythae_geometric.geometry import PullbackMetric
from pythae_geometric.models.foreign import (
    autoencoder_of,
    conditional_autoencoder_of,
    given,
)

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


class Conditional(nn.Module):
    """Classes of the plane, each in a place of its own: x = z + centre of the class."""

    def __init__(self, sign):
        super().__init__()
        self.sign = sign
        self.register_buffer("centres", torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 30.0]]))

    def forward(self, x, label):
        return x + self.sign * self.centres[label.long()]  # pythae makes them float


def unfitted(model):
    return MetricUniformHMCSampler(model, MetricUniformHMCSamplerConfig(seed=0, num_centroids=10))


def planes():
    """Data of three classes, their labels, and the model that knows where they are."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (300,), generator=generator)
    z = (64 * torch.randn(300, 2, generator=generator)).round() / 64  # with exact sums
    model = conditional_autoencoder_of(Conditional(-1), Conditional(1), (2,), 2)
    return z, Conditional(1)(z, y), y, model


class TestLabels:
    def test_are_passed_through_fit_and_sample(self):
        z, x, y, model = planes()
        sampler = unfitted(model)
        sampler.fit(x, labels=y)
        same = unfitted(autoencoder_of(lambda x: x, lambda z: z, (2,), 2))
        same.fit(z)  # the codes: what is left of the data without their classes
        labels = torch.arange(90) % 3
        centres = Conditional(1).centres
        drawn = same.sample(90, batch_size=25)
        got = sampler.sample(90, batch_size=25, labels=labels.numpy())
        torch.testing.assert_close(got, drawn + centres[labels])
        one = sampler.sample(5, labels=2)
        assert bool(((one - centres[2]).abs() < 6).all())
        assert sampler.sample(0, labels=y[:0]).shape == (0, 2)

    def test_are_vectors_as_well(self):
        z, x, y, _ = planes()
        centres = Conditional(1).centres
        model = conditional_autoencoder_of(
            lambda x, c: x - c, lambda z, c: z + c, input_dim=(2,), latent_dim=2
        )
        sampler = unfitted(model)
        sampler.fit(x, labels=centres[y].double())
        got = sampler.sample(4, labels=centres[[1, 1, 2, 2]].tolist())
        assert bool(((got - centres[[1, 1, 2, 2]]).abs() < 6).all())
        given = model.given([0.0, 30.0])
        torch.testing.assert_close(given.decoder(z)["reconstruction"], z + centres[2])

    def test_choose_the_geometry_of_interpolation(self):
        class Curved(nn.Module):  # the plane for label 0, a cylinder's part over it for 1
            def forward(self, z, label):
                bent = torch.stack([z[:, 0].cos(), z[:, 0].sin(), z[:, 1]], 1)
                flat = torch.stack([z[:, 0], torch.zeros_like(z[:, 0]), z[:, 1]], 1)
                return torch.where(label.unsqueeze(1) == 1, bent, flat)

        def encoder(x, label):
            bent = torch.stack([torch.atan2(x[:, 1], x[:, 0]), x[:, 2]], 1)
            return torch.where(label.unsqueeze(1) == 1, bent, x[:, [0, 2]])

        model = conditional_autoencoder_of(encoder, Curved(), (3,), 2)
        labels = torch.tensor([1, 0, 1])
        z = torch.tensor([[0.2, 0.0], [0.3, 1.0], [-1.0, 0.5]])
        w = torch.tensor([[1.2, 1.0], [1.3, -1.0], [1.0, 0.5]])
        x, y = (model.decoder(p, labels)["reconstruction"] for p in (z, w))
        found = interpolate(model, x, y, "geodesic", granularity=5, labels=labels)
        # Both are flat, so that geodesics are straight in these coordinates.
        line = z[:, None] + torch.linspace(0, 1, 5)[:, None] * (w - z)[:, None]
        torch.testing.assert_close(found.latent, line, atol=5e-3, rtol=0)
        onto = model.decoder(line.flatten(0, 1), labels.repeat_interleave(5))["reconstruction"]
        torch.testing.assert_close(found.reconstructions.flatten(0, 1), onto, atol=1e-2, rtol=0)
        assert bool(found.converged.all())

    def test_of_one_make_a_model_for_what_takes_none(self):
        _, x, y, model = planes()
        given = model.given(1)
        sampler = BrownianMotionSampler(
            given, BrownianMotionSamplerConfig(metric="pullback", time=0.1, seed=0, steps=5)
        )
        sampler.fit(x[y == 1])
        assert bool(((sampler.sample(20) - Conditional(1).centres[1]).abs() < 8).all())
        metric = PullbackMetric(given.decoder)
        torch.testing.assert_close(metric(torch.randn(3, 2)), torch.eye(2).expand(3, 2, 2))

    def test_reach_the_posterior_metric(self):
        _, x, y, _ = planes()
        encode, decode = Conditional(-1), Conditional(1)
        model = conditional_autoencoder_of(
            lambda x, label: (encode(x, label), torch.full_like(x, -1.0)), decode, (2,), 2
        )
        config = BrownianMotionSamplerConfig(metric="posterior", time=0.1, seed=0, steps=5)
        sampler = BrownianMotionSampler(model, config)
        sampler.fit(x, labels=y)
        assert bool(((sampler.sample(9, labels=1) - decode.centres[1]).abs() < 8).all())

    def test_come_with_data_sets(self):
        _, x, y, model = planes()
        draws = []
        for data, labels in (
            (x, y),
            (BaseDataset(x, y), None),
            (TensorDataset(x, y), None),
            (DataLoader(TensorDataset(x, y), batch_size=70), None),
            ({"data": x, "labels": y}, None),
            (list(zip(x, y, strict=True)), None),
        ):
            if isinstance(data, list):  # a list is an array: a stream of pairs is not
                data = (pair for pair in data)
            sampler = unfitted(model)
            sampler.fit(data, labels=labels)
            draws.append(sampler.sample(10, labels=1))
        for draw in draws[1:]:
            assert torch.equal(draw, draws[0])

    def test_of_a_pythae_model_whose_networks_take_them(self):
        class Encoder(BaseEncoder):
            def forward(self, x, y):
                return ModelOutput(
                    embedding=Conditional(-1)(x, y), log_covariance=torch.full_like(x, -1.0)
                )

        class Decoder(BaseDecoder):
            def forward(self, z, y):
                return ModelOutput(reconstruction=Conditional(1)(z, y))

        z, x, y, other = planes()
        model = VAE(VAEConfig(input_dim=(2,), latent_dim=2), encoder=Encoder(), decoder=Decoder())
        draws = []
        for each in (model, other):
            sampler = unfitted(each)
            sampler.fit(BaseDataset(x, y))
            draws.append(sampler.sample(10, labels=2))
        assert torch.equal(*draws)
        strips = interpolate(model, x[:4], x[4:8], "line", labels=y[:4])
        assert torch.equal(strips.latent[:, 0], z[:4])
        torch.testing.assert_close(
            given(model, 1).decoder(z)["reconstruction"], z + Conditional(1).centres[1]
        )
        with pytest.raises(TypeError, match="take labels: pass labels"):
            interpolate(model, x[:4], x[4:8])

    def test_of_one_label_the_flows_after_the_posterior_are_part_of_the_decoder(self):
        class Decoder(BaseDecoder):
            def forward(self, z, y):
                return ModelOutput(reconstruction=Conditional(1)(z, y))

        torch.manual_seed(0)
        config = VAE_LinNF_Config(input_dim=(2,), latent_dim=2)
        model = VAE_LinNF(config, decoder=Decoder()).eval()
        codes = z = planes()[0]
        with torch.no_grad():
            for flow in model.net:
                z = flow(z).out
            found = given(model, 1).decoder(codes)["reconstruction"]
        assert float((z - codes).abs().max()) > 0.1
        torch.testing.assert_close(found, z + Conditional(1).centres[1])

    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda m, s, x, y: s.fit(x), TypeError, "train_data has none: pass labels"),
            (lambda m, s, x, y: s.fit(BaseDataset(x[:0], y[:0])), ValueError, "has no rows"),
            (
                lambda m, s, x, y: s.fit({"data": x, "labels": y[:-1]}),
                ValueError,
                "one label for each row",
            ),
            (lambda m, s, x, y: s.fit(x, labels=y[:-1]), ValueError, "there are 299 labels"),
            (lambda m, s, x, y: s.fit(x[:-1], labels=y), ValueError, "299 rows"),
            (lambda m, s, x, y: s.fit(x, labels=3), ValueError, "one for each row"),
            (lambda m, s, x, y: s.fit(x, labels=["a"] * 300), TypeError, "labels must hold real"),
            (lambda m, s, x, y: s.sample(2), TypeError, "take labels: pass labels"),
            (lambda m, s, x, y: s.sample(2, labels=y[:3]), ValueError, "labels must be 2"),
            (lambda m, s, x, y: interpolate(m, x[:2], x[2:4]), TypeError, "take labels"),
            (
                lambda m, s, x, y: interpolate(m, x[:2], x[2:4], labels=y[:3]),
                ValueError,
                "labels must be 2",
            ),
            (
                lambda m, s, x, y: BrownianMotionSampler(
                    m, BrownianMotionSamplerConfig(metric="pullback")
                ),
                TypeError,
                r"given\(model, label\)",
            ),
            (
                lambda m, s, x, y: interpolate(m.given(0), x[:2], x[2:4], labels=y[:2]),
                TypeError,
                "take no labels",
            ),
            (
                lambda m, s, x, y: unfitted(m.given(0)).fit(x, labels=y),
                TypeError,
                "take no labels",
            ),
        ],
    )
    def test_that_do_not_fit(self, call, error, message):
        _, x, y, model = planes()
        sampler = unfitted(model)
        sampler.fit(x, labels=y)
        with pytest.raises(error, match=message):
            call(model, sampler, x, y)
