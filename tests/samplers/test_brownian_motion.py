"""The Brownian motion sampler: its law, its metrics, pythae's pipeline, files, bad input."""

import math

import pytest
import torch
from pythae.models import AE, VAE, VAE_IAF, AEConfig, VAE_IAF_Config, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder
from pythae.pipelines import GenerationPipeline

import pythae_geometric
from pythae_geometric.geometry import PosteriorMetric
from pythae_geometric.models.brownian_rvae import BrownianRVAE, BrownianRVAEConfig
from pythae_geometric.samplers.brownian_motion import (
    BrownianMotionSampler,
    BrownianMotionSamplerConfig,
)
from pythae_geometric.samplers.posteriors import to_decoder_space

pythae_geometric.register(BrownianRVAE, BrownianRVAEConfig)
pythae_geometric.register(BrownianMotionSampler, BrownianMotionSamplerConfig)


@pytest.fixture(scope="module")
def rvae(digits):
    """A BrownianRVAE whose phases have been gone through without a trainer."""
    torch.manual_seed(0)
    model = BrownianRVAE(
        BrownianRVAEConfig(
            input_dim=(1, 8, 8),
            latent_dim=2,
            hidden_dims=(32, 16),
            num_centers=10,
            warmup_epochs=20,
        )
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    x = torch.as_tensor(digits[:300])
    for epoch in range(20):
        for batch in torch.randperm(300).split(50):
            loss = model({"data": x[batch]}, epoch=epoch + 1).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        model.update()
    return model.eval()


class Sphere(BaseDecoder):
    """The unit sphere in longitude and latitude."""

    def forward(self, z):
        a, b = z[:, 0], z[:, 1]
        x = torch.stack([b.cos() * a.cos(), b.cos() * a.sin(), b.sin()], 1)
        return ModelOutput(reconstruction=x)


def sphere_model():
    return AE(AEConfig(input_dim=(3,), latent_dim=2), decoder=Sphere())


@pytest.mark.parametrize("drift", [True, False])
def test_on_the_sphere_the_motion_has_the_law_of_the_heat_equation(drift):
    """E x_t = exp(-t) x_0; without drift the latitude is a plain Brownian motion of the line, and
    E sin is multiplied by exp(-t / 2)."""
    start = torch.tensor([[0.0, 0.6]])
    n, t, steps = 4000, 0.3, 150
    config = BrownianMotionSamplerConfig(
        metric="pullback", time=t, steps=steps, drift=drift, seed=0
    )
    sampler = BrownianMotionSampler(sphere_model(), config)
    sampler.fit(start=start)
    height = sampler.sample(n, batch_size=n)[:, 2]
    expected = math.exp(-t if drift else -t / 2) * math.sin(0.6)
    # Euler's bias is of order time / steps.
    assert abs(float(height.mean()) - expected) < 4 * float(height.std()) / n**0.5 + t / steps


def test_the_pipeline_samples_the_prior_of_a_brownian_rvae(rvae):
    pipeline = GenerationPipeline(rvae, BrownianMotionSamplerConfig(steps=20, seed=0))
    x = pipeline(num_samples=7, batch_size=4)
    assert x.shape == (7, 1, 8, 8) and bool(torch.isfinite(x).all())
    paths = pipeline.sampler.trajectories(5)
    assert paths.shape == (21, 5, 2)
    assert torch.equal(paths[0], rvae.prior_center.expand(5, 2))


def test_a_short_motion_has_the_law_of_the_posteriors_kernel(rvae):
    """Of covariance time times the inverse metric at the start."""
    t, n = 1e-4, 4000
    config = BrownianMotionSamplerConfig(time=t, steps=2, seed=0)
    sampler = BrownianMotionSampler(rvae, config)
    sampler.fit()
    z = sampler.sample_latent(n, batch_size=n) - rvae.prior_center
    L = rvae.metric.cholesky(rvae.prior_center[None])[0]
    white = z @ L / t**0.5
    assert torch.allclose(white.T @ white / n, torch.eye(2), atol=5 * (2 / n) ** 0.5)


@pytest.mark.parametrize("metric", ["pullback", "posterior"])
def test_any_model_of_pythae(metric, trained, digits):
    config = BrownianMotionSamplerConfig(metric=metric, time=0.5, steps=10, seed=0)
    pipeline = GenerationPipeline(trained, config)
    x = pipeline(num_samples=6, train_data=digits[:200])
    assert x.shape == (6, 1, 8, 8) and bool(torch.isfinite(x).all())
    starts = pipeline.sampler.trajectories(4)[0]
    with torch.no_grad():
        means = trained.encoder(torch.as_tensor(digits[:200])).embedding
    assert float(torch.cdist(starts, means).amin(1).max()) < 1e-3
    assert isinstance(pipeline.sampler.metric, PosteriorMetric) == (metric == "posterior")


@pytest.mark.parametrize("metric", ["pullback", "posterior"])
def test_points_come_to_the_space_of_the_decoder_behind_a_flow(metric, digits):
    """After no time at all, samples are the starting points, carried through the flow."""
    torch.manual_seed(0)
    model = VAE_IAF(VAE_IAF_Config(input_dim=(1, 8, 8), latent_dim=2)).eval()
    config = BrownianMotionSamplerConfig(metric=metric, time=1e-12, steps=1, seed=0)
    sampler = BrownianMotionSampler(model, config)
    sampler.fit(digits[:150])
    z = sampler.sample_latent(20)
    with torch.no_grad():
        means = model.encoder(torch.as_tensor(digits[:150])).embedding
        after = to_decoder_space(model, means)
    assert float(torch.cdist(z, after).amin(1).max()) < 1e-3
    assert float((after - means).norm(dim=1).min()) > 1e-3  # the flow does something


def test_given_points_are_where_it_starts(rvae):
    start = torch.tensor([[0.5, 0.0], [-0.5, 1.0]])
    sampler = BrownianMotionSampler(rvae, BrownianMotionSamplerConfig(steps=3, seed=0))
    sampler.fit(start=start)
    first = sampler.trajectories(40)[0]
    assert {tuple(z) for z in first.tolist()} == {tuple(z) for z in start.tolist()}


def test_the_seed_decides(rvae):
    def draw(seed):
        sampler = BrownianMotionSampler(rvae, BrownianMotionSamplerConfig(steps=5, seed=seed))
        sampler.fit()
        return sampler.sample_latent(4)

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("metric", ["model", "pullback", "posterior"])
def test_save_and_load(metric, rvae, digits, tmp_path):
    time = None if metric == "model" else 0.3
    config = BrownianMotionSamplerConfig(metric=metric, time=time, steps=5, seed=3)
    sampler = BrownianMotionSampler(rvae, config)
    sampler.fit(digits[:150])
    expected = sampler.sample(4)
    sampler.save(tmp_path)
    loaded = BrownianMotionSampler.load(tmp_path, rvae)
    assert torch.equal(loaded.sample(4), expected)


# Bad input


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"time": 0.0}, "time must be finite and greater than 0"),
        ({"time": float("inf")}, "time must be"),
        ({"steps": 0}, "steps must be finite and at least 1"),
        ({"metric": "pullback"}, "time is not set, and for metric='pullback'"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_bad_configs(fields, message):
    with pytest.raises(ValueError, match=message):
        BrownianMotionSamplerConfig(**fields)


def test_other_models_have_no_metric_of_their_own(trained):
    with pytest.raises(TypeError, match="A VAE has no metric of its own"):
        BrownianMotionSampler(trained)


def test_a_model_in_its_first_phase():
    model = BrownianRVAE(BrownianRVAEConfig(input_dim=(4,), latent_dim=2))
    sampler = BrownianMotionSampler(model)
    with pytest.raises(RuntimeError, match="first phase of its training"):
        sampler.fit()


def test_data_are_needed_without_points():
    model = VAE(VAEConfig(input_dim=(3,), latent_dim=2))
    sampler = BrownianMotionSampler(model, BrownianMotionSamplerConfig(metric="pullback", time=1.0))
    with pytest.raises(ValueError, match="train_data"):
        sampler.fit()


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (torch.zeros(2, 3), r"\[M >= 1, 2\], got \[2, 3\]"),
        (torch.zeros(0, 2), r"got \[0, 2\]"),
        (torch.full((1, 2), math.nan), "NaN or infinity"),
    ],
)
def test_bad_points(start, message, rvae):
    with pytest.raises(ValueError, match=message):
        BrownianMotionSampler(rvae).fit(start=start)


def test_not_fitted_and_bad_numbers(rvae):
    sampler = BrownianMotionSampler(rvae)
    for call in (sampler.sample, sampler.trajectories):
        with pytest.raises(RuntimeError, match="not fitted"):
            call(1)
    sampler.fit()
    with pytest.raises(ValueError, match="num_samples must be a whole number of at least 1"):
        sampler.trajectories(0)


def test_a_sampler_of_another_latent_dimension(rvae, tmp_path):
    sampler = BrownianMotionSampler(rvae)
    sampler.fit()
    sampler.save(tmp_path)
    other = AE(AEConfig(input_dim=(3,), latent_dim=5))
    config = BrownianMotionSamplerConfig(metric="pullback", time=1.0)
    config.save_json(tmp_path, "sampler_config")
    with pytest.raises(ValueError, match=r"shape \[1, 2\], but the latent dimension .* is 5"):
        BrownianMotionSampler.load(tmp_path, other)
