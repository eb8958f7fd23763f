"""Interpolation for pythae models: ends, strips, and curves that are what they claim to be."""

import pytest
import torch
from pythae.models import AE, VAE, AEConfig, VAE_LinNF, VAE_LinNF_Config, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder

from pythae_geometric import MetricUniformHMCSampler, MetricUniformHMCSamplerConfig, interpolate
from pythae_geometric.geometry import PosteriorMetric


@pytest.fixture(scope="module")
def pairs(digits):
    return torch.as_tensor(digits[:3]), torch.as_tensor(digits[10:13])


@pytest.mark.parametrize(
    ("path", "metric"),
    [("line", None), ("geodesic", None), ("potential", "posteriors"), ("potential", "codes")],
)
def test_strips_run_from_one_point_to_the_other(trained, digits, pairs, path, metric):
    config = MetricUniformHMCSamplerConfig(metric=metric or "posteriors", num_centroids=20)
    sampler = MetricUniformHMCSampler(trained, config)
    sampler.fit(digits[:500])
    strip = interpolate(trained, *pairs, path, sampler.metric, granularity=7)
    assert strip.reconstructions.shape == (3, 7, 1, 8, 8)
    assert strip.latent.shape == (3, 7, 2) and strip.converged.shape == (3,)
    for end, x in zip((0, -1), pairs, strict=True):
        with torch.no_grad():
            z = trained.encoder(x).embedding
            torch.testing.assert_close(strip.latent[:, end], z)
            decoded = trained.decoder(z)["reconstruction"]
            torch.testing.assert_close(strip.reconstructions[:, end], decoded)


def test_the_line_is_pythaes_own(digits, pairs):
    torch.manual_seed(0)
    model = AE(AEConfig(input_dim=(1, 8, 8), latent_dim=3)).eval()
    ours = interpolate(model, *pairs, "line", granularity=5).reconstructions
    torch.testing.assert_close(ours, model.interpolate(*pairs, granularity=5))


class Plane(BaseEncoder):
    def forward(self, x):
        return ModelOutput(embedding=x, log_covariance=torch.zeros_like(x))


class Polar(BaseDecoder):
    def forward(self, z):
        r, angle = z[:, :1], z[:, 1:]
        return ModelOutput(reconstruction=torch.cat([r * angle.cos(), r * angle.sin()], 1))


def test_geodesics_of_a_flat_decoder_decode_to_straight_lines():
    config = VAEConfig(input_dim=(2,), latent_dim=2)
    model = VAE(config, encoder=Plane(), decoder=Polar())
    start, end = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.5]])
    x = interpolate(model, start, end, granularity=5).reconstructions[0]
    t = torch.linspace(0, 1, 5)[:, None]
    expected = torch.lerp(Polar()(start).reconstruction, Polar()(end).reconstruction, t)
    # An energy 1e-4 above the least bends a curve of length 1.4 by up to 0.01.
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-2)


def test_potential_paths_go_round_a_hole():
    """Centroids on half a circle: the straight line crosses the empty middle, the path does not."""
    config = VAEConfig(input_dim=(2,), latent_dim=2)
    model = VAE(config, encoder=Plane(), decoder=Polar())
    angle = torch.linspace(0, torch.pi, 25)
    arc = torch.stack([angle.cos(), angle.sin()], 1)
    metric = PosteriorMetric(arc, torch.full((25, 2), 5.0), 0.7, regularization=1e-3)
    strip = interpolate(model, arc[:1], arc[-1:], "potential", metric, granularity=41)
    assert bool(strip.converged.all())
    radius = strip.latent[0].norm(dim=1)
    assert 0.7 < float(radius.min()) and float(radius.max()) < 1.3
    assert float(strip.latent[0, :, 1].max()) > 0.7  # over the top


def test_flows_after_the_posterior_are_part_of_the_decoder(pairs):
    torch.manual_seed(0)
    model = VAE_LinNF(VAE_LinNF_Config(input_dim=(1, 8, 8), latent_dim=2)).eval()
    strip = interpolate(model, *pairs, granularity=3)
    with torch.no_grad():
        z = model.encoder(pairs[0]).embedding
        for flow in model.net:
            z = flow(z).out
        expected = model.decoder(z)["reconstruction"]
    torch.testing.assert_close(strip.reconstructions[:, 0], expected)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(path="shortest"), "path must be 'line', 'geodesic' or 'potential', got 'shortest'"),
        (dict(granularity=1), "granularity must be a whole number of at least 2"),
        (dict(ending_inputs=torch.zeros(2, 1, 8, 8)), r"must have one shape \[B >= 1"),
        (dict(steps=7), "steps must be an even number"),
        (dict(iterations=0), "iterations must be"),
        (dict(starting_inputs=torch.full((3, 1, 8, 8), torch.nan)), "starting_inputs contains NaN"),
        (dict(ending_inputs=torch.full((3, 1, 8, 8), torch.nan)), "ending_inputs contains NaN"),
    ],
)
def test_bad_arguments(trained, pairs, change, message):
    arguments = {"starting_inputs": pairs[0], "ending_inputs": pairs[1], **change}
    with pytest.raises(ValueError, match=message):
        interpolate(trained, **arguments)
