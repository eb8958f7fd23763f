"""The Brownian motion sampler: its distribution and time, its metrics, files, bad input."""

import math
import warnings

import pytest
import torch
from pythae.models import AE, RHVAE, VAE, VAE_IAF, AEConfig, RHVAEConfig, VAE_IAF_Config, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import GenerationPipeline, TrainingPipeline
from pythae.trainers import BaseTrainerConfig

from pythae_geometric.geometry import (
    DegenerateMetricError,
    MixtureMetric,
    PosteriorMetric,
    PullbackMetric,
)
from pythae_geometric.models.brownian_rvae import BrownianRVAE, BrownianRVAEConfig
from pythae_geometric.models.decoder_map import decoder_space
from pythae_geometric.models.ricci_ae import RicciAE, RicciAEConfig
from pythae_geometric.models.vae_dlm import VAE_DLM, VAE_DLM_Config
from pythae_geometric.samplers.brownian_motion import (
    BrownianMotionDiagnostics,
    BrownianMotionSampler,
    BrownianMotionSamplerConfig,
)
from pythae_geometric.samplers.brownian_motion.default_time import default_time


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
def test_on_the_sphere_the_motion_follows_the_heat_equation(drift):
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


def test_a_short_motion_is_normal(rvae):
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
        after = decoder_space(model)(means)
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
@pytest.mark.parametrize("version", ["0.1.0", "today's"])
def test_save_and_load(version, metric, rvae, trained, digits, tmp_path):
    model = trained if metric == "posterior" else rvae
    time = None if metric == "model" else 0.3
    config = BrownianMotionSamplerConfig(metric=metric, time=time, steps=5, seed=3)
    sampler = BrownianMotionSampler(model, config)
    sampler.fit(digits[:150])
    expected = sampler.sample(4)
    sampler.save(tmp_path)
    if version == "0.1.0":  # which saved no time, no fingerprint of the model and no checksums
        state = torch.load(tmp_path / "sampler.pt", weights_only=True)
        del state["time"], state["fingerprint"]
        torch.save(state, tmp_path / "sampler.pt")
        (tmp_path / "sampler_checksums.json").unlink()
    loaded = BrownianMotionSampler.load(tmp_path, model)
    assert torch.equal(loaded.sample(4), expected)


def test_the_time_of_a_brownian_rvae_is_no_variance(rvae, digits):
    config = BrownianMotionSamplerConfig(metric="posterior", time=0.1)
    with pytest.raises(TypeError, match="logarithm of a time, not variances"):
        BrownianMotionSampler(rvae, config).fit(digits[:50])


# The time that the data choose


class Same(BaseEncoder):
    def forward(self, x):
        return ModelOutput(embedding=x, log_covariance=torch.zeros_like(x))


class Stretched(BaseDecoder):
    """z -> (2 z_1, 3 z_2, 0)."""

    def forward(self, z):
        return ModelOutput(reconstruction=torch.stack([2 * z[:, 0], 3 * z[:, 1], 0 * z[:, 0]], 1))


class HalfFlat(BaseDecoder):
    """The plane, whose half z_2 <= 0 is collapsed to a line."""

    def forward(self, z):
        return ModelOutput(reconstruction=torch.stack([z[:, 0], z[:, 1].clamp(min=0)], 1))


class Flat(BaseDecoder):
    def forward(self, z):
        return ModelOutput(reconstruction=0 * z)


def plane(decoder):
    config = VAEConfig(input_dim=(2,), latent_dim=2)
    return VAE(config, encoder=Same(), decoder=decoder)


def fitted(decoder, data, eval_data=None, metric="pullback", start=None, **fields):
    config = BrownianMotionSamplerConfig(**{"metric": metric, "steps": 10, "seed": 0, **fields})
    sampler = BrownianMotionSampler(plane(decoder), config)
    sampler.fit(data, eval_data, start=start)
    return sampler


CORNERS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0], [9.0, 9.0], [9.0, 10.0]])


def test_the_time_is_the_median_squared_distance_by_the_dimension():
    # To the nearest other: squares 4, 4, 2 * 2 squared times 9 / 4 = 36, 9, 9.
    assert fitted(Stretched(), CORNERS).time == pytest.approx(9 / 2)
    # Of three held-out data: 0.5 along z_1 from (0, 0), 1 along z_2 from (1, 2), 0 from (9, 9).
    held_out = torch.tensor([[-0.5, 0.0], [1.0, 3.0], [9.0, 9.0]])
    assert fitted(Stretched(), CORNERS, held_out).time == pytest.approx((2 * 0.5) ** 2 / 2)
    # Starting points do not matter for it.
    sampler = fitted(Stretched(), CORNERS, start=torch.zeros(1, 2))
    assert sampler.time == pytest.approx(9 / 2)
    assert torch.equal(sampler.trajectories(3)[0], torch.zeros(3, 2))
    assert fitted(Stretched(), CORNERS, time=0.3).time == 0.3


def test_a_motion_of_that_time_goes_as_far_as_new_data():
    """E |f(z_t) - f(z_0)|² = d t."""
    sampler = fitted(Stretched(), CORNERS)
    paths = sampler.trajectories(4000)
    square = ((paths[-1] - paths[0]) * torch.tensor([2.0, 3.0])).square().sum(1)
    assert abs(float(square.mean()) - 9) < 4 * float(square.std()) / 4000**0.5


def test_along_a_curved_line_the_length_is_that_of_the_metric():
    """z -> z² on [1, 2] has length 3; at the speed of z its square is 28 / 3, not 9."""
    codes = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    time = default_time(PullbackMetric(torch.square), codes)
    assert time == pytest.approx(28 / 3, rel=1e-2)


def test_many_data_are_compared_in_blocks(monkeypatch):
    codes = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    metric = PullbackMetric(lambda z: z)
    draw = torch.Generator().manual_seed(1)
    time = default_time(metric, codes, generator=draw)
    nearest = torch.cdist(codes, codes).fill_diagonal_(torch.inf).amin(1).square()
    # The standard error of the median of 1,000 of these skewed numbers is about 5 %.
    assert time == pytest.approx(float(nearest.median()) / 2, rel=0.2)
    module = "pythae_geometric.samplers.brownian_motion.default_time"
    monkeypatch.setattr(f"{module}.BLOCK", 10_000)
    monkeypatch.setattr(f"{module}.MAX_POINTS", 3000)
    assert default_time(metric, codes) == pytest.approx(float(nearest.median()) / 2, rel=1e-3)


def test_the_time_of_the_metric_of_posteriors(trained, digits):
    config = BrownianMotionSamplerConfig(metric="posterior", steps=5, seed=0)
    sampler = BrownianMotionSampler(trained, config)
    sampler.fit(digits[:300], digits[300:400])
    codes, held_out = (
        trained.encoder(torch.as_tensor(x)).embedding.detach()
        for x in (digits[:300], digits[300:400])
    )
    nearest = codes[torch.cdist(held_out, codes).argmin(1)]
    delta = nearest - held_out
    square = sampler.metric.inner((held_out + nearest) / 2, delta, delta)
    assert sampler.time == pytest.approx(float(square.median()) / 2, rel=0.2)
    assert sampler.sample(5).shape == (5, 1, 8, 8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(1, 2), "A single training datum .* set time"),
        (torch.zeros(5, 2), "At least half of the data .* set time"),
        (None, "set time in the config.* or pass train_data"),
    ],
)
def test_data_that_choose_no_time(data, message):
    start = torch.zeros(1, 2) if data is None else None
    with pytest.raises(ValueError, match=message):
        fitted(Stretched(), data, start=start)


@pytest.mark.parametrize("metric", ["pullback", "posterior"])
def test_a_chosen_time_is_saved(metric, trained, digits, tmp_path):
    config = BrownianMotionSamplerConfig(metric=metric, steps=5, seed=3)
    sampler = BrownianMotionSampler(trained, config)
    sampler.fit(digits[:150])
    expected = sampler.sample(4)
    sampler.save(tmp_path)
    loaded = BrownianMotionSampler.load(tmp_path, trained)
    assert loaded.time == sampler.time and torch.equal(loaded.sample(4), expected)


# Motions that tend to the distribution of the codes


class Steep(BaseDecoder):
    """(z_1, z_2) -> (z_1, z_2 exp(z_2² / 2), 0): the volume grows fast away from z_2 = 0."""

    def forward(self, z):
        a, b = z.unbind(1)
        return ModelOutput(reconstruction=torch.stack([a, b * (b.square() / 2).exp(), 0 * a], 1))


def normal_codes(n, sd, seed=1):
    return sd * torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


def test_a_long_motion_comes_to_the_distribution_of_the_codes():
    """The moments of codes that are normal, in a metric whose volume is another one, from a point
    that is none of them."""
    codes, n = normal_codes(3000, torch.tensor([0.5, 0.3])), 2000
    sampler = fitted(
        Steep(), codes, start=torch.tensor([[1.0, 0.0]]), time=2.0, steps=100, stationary="codes"
    )
    z = sampler.sample_latent(n, batch_size=n)
    h, v = 0.02, codes.var(0)
    # The error of the fit, that of the sample, and Euler's: h / (4 v) of the variance.
    error = 4.5 * (2 / 3000 + 2 / n) ** 0.5 + 2 * h / (4 * v)
    assert bool(((z.var(0) / v - 1).abs() < error).all())
    error = 4.5 * v.sqrt() * (1 / 3000 + 1 / n) ** 0.5
    # What is left of the start is exp(-time / (2 v)), 0.018.
    assert bool(((z.mean(0) - codes.mean(0)).abs() < error + 0.02).all())
    found = sampler.diagnostics
    assert abs(found.excess_log_density) < 4.5 / n**0.5 + float((h / (4 * v)).sum())
    # A shorter one has not arrived, and says so.
    sampler.time = 0.02
    sampler.sample_latent(100)
    assert sampler.diagnostics.excess_log_density < -0.5


def test_to_the_volume_a_motion_leaves_the_codes_and_to_them_it_does_not(trained, digits):
    """The share of samples as near to a code as 98 of 100 codes are to another one, after motions
    from codes for 25 to 10,000 times the time that goes as far as new data."""
    x = digits[:1000]
    with torch.no_grad():
        codes = trained.encoder(torch.as_tensor(x)).embedding
    near = torch.cdist(codes, codes).fill_diagonal_(torch.inf).amin(1).quantile(0.98)
    unit = default_time(PullbackMetric(lambda z: trained.decoder(z).reconstruction), codes)
    shares = {"volume": [], "codes": []}
    for stationary, found in shares.items():
        for times in (25, 2500, 10_000):
            config = BrownianMotionSamplerConfig(
                metric="pullback", time=times * unit, steps=50, seed=0, stationary=stationary
            )
            sampler = BrownianMotionSampler(trained, config)
            sampler.fit(x)
            z = sampler.sample_latent(300)
            found.append(float((torch.cdist(z, codes).amin(1) <= near).float().mean()))
    assert shares["volume"][0] > 0.9 and shares["volume"][2] < 0.4, shares
    assert min(shares["codes"]) > 0.85, shares


@pytest.mark.parametrize("metric", ["model", "pullback", "posterior"])
def test_the_distribution_of_the_codes_is_fitted_saved_and_loaded(
    metric, rvae, trained, digits, tmp_path
):
    model = rvae if metric == "model" else trained
    fields = {"metric": metric, "time": 1e-5, "steps": 5, "seed": 3}
    config = BrownianMotionSamplerConfig(**fields, stationary="codes")
    sampler = BrownianMotionSampler(model, config)
    sampler.fit(digits[:150])
    with torch.no_grad():
        codes = model.encoder(torch.as_tensor(digits[:150])).embedding
    assert isinstance(sampler.mixture, MixtureMetric)
    drawn = sampler.mixture.sample(20_000, torch.Generator().manual_seed(0))
    sd = codes.std(0)
    # The mean of the mixture is that of the codes that were not held out, nine in ten.
    assert bool(((drawn.mean(0) - codes.mean(0)).abs() < 4.5 * sd * (0.1 / 150) ** 0.5).all())
    expected = sampler.sample(4)
    sampler.save(tmp_path)
    loaded = BrownianMotionSampler.load(tmp_path, model)
    assert torch.equal(loaded.sample(4), expected)
    assert loaded.diagnostics == sampler.diagnostics
    plain = BrownianMotionSampler(model, BrownianMotionSamplerConfig(**fields))
    plain.fit(digits[:150])
    assert plain.mixture is None
    assert not torch.equal(plain.sample(4), expected)
    assert plain.diagnostics.excess_log_density is None


def test_the_seed_decides_about_the_mixture_too(trained, digits):
    def draw(seed):
        config = BrownianMotionSamplerConfig(
            metric="pullback", time=1e-5, steps=5, seed=seed, stationary="codes"
        )
        sampler = BrownianMotionSampler(trained, config)
        sampler.fit(digits[:100])
        return sampler.sample_latent(4)

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize(
    ("drop", "message"),
    [(None, "must hold centroids, covariances, weights, got nothing"),
     ("mixture.weights", "must hold centroids, covariances, weights, got centroids, covariances")],
)  # fmt: skip
def test_a_file_without_the_mixture(drop, message, tmp_path):
    sampler = fitted(Stretched(), normal_codes(50, 1.0), time=0.1, stationary="codes")
    sampler.save(tmp_path)
    state = torch.load(tmp_path / "sampler.pt", weights_only=True)
    names = [drop] if drop else [name for name in state if name.startswith("mixture.")]
    for name in names:
        del state[name]
    torch.save(state, tmp_path / "sampler.pt")
    (tmp_path / "sampler_checksums.json").unlink()
    with pytest.raises(ValueError, match=f"does not fit a BrownianMotionSampler: it {message}"):
        BrownianMotionSampler.load(tmp_path, sampler.model)


def test_the_distribution_of_the_codes_needs_data(rvae):
    sampler = BrownianMotionSampler(rvae, BrownianMotionSamplerConfig(stationary="codes"))
    with pytest.raises(ValueError, match='stationary="codes" needs train_data'):
        sampler.fit()


# Models with a metric of their own


def test_a_model_with_a_metric_but_no_prior(digits):
    torch.manual_seed(0)
    model = RicciAE(RicciAEConfig(input_dim=(1, 8, 8), latent_dim=2))
    pipeline = GenerationPipeline(model, BrownianMotionSamplerConfig(steps=10, seed=0))
    x = pipeline(num_samples=6, train_data=digits[:100])
    assert x.shape == (6, 1, 8, 8) and bool(torch.isfinite(x).all())
    sampler = pipeline.sampler
    codes = model.encoder(torch.as_tensor(digits[:100])).embedding.detach()
    assert float(torch.cdist(sampler.trajectories(4)[0], codes).amin(1).max()) < 1e-4
    assert sampler.time == pytest.approx(default_time(model.metric, codes), rel=1e-3)
    z = codes[:3]
    torch.testing.assert_close(sampler.metric(z), model.metric(z))


def test_something_else_of_this_name_is_no_metric():
    model = RHVAE(RHVAEConfig(input_dim=(4,), latent_dim=2))
    assert model.metric is not None
    with pytest.raises(TypeError, match="A RHVAE has no metric of its own"):
        BrownianMotionSampler(model)


# Decoders with flat spots


def test_vae_dlm_after_four_epochs_generates(digits, tmp_path):
    torch.manual_seed(0)
    model = VAE_DLM(VAE_DLM_Config(input_dim=(1, 8, 8), latent_dim=4, hidden_dim=32))
    config = BaseTrainerConfig(
        output_dir=str(tmp_path), num_epochs=4, per_device_train_batch_size=100, no_cuda=True
    )
    TrainingPipeline(model, config)(digits[:1000])
    pipeline = GenerationPipeline(
        model, BrownianMotionSamplerConfig(metric="pullback", steps=20, seed=0)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        x = pipeline(num_samples=50, train_data=digits[:1000], eval_data=digits[1000:1200])
    assert x.shape == (50, 1, 8, 8) and bool(torch.isfinite(x).all())
    found = pipeline.sampler.diagnostics
    assert found.paths == 50 and found.stopped < 10 and found.time == pipeline.sampler.time


def test_paths_that_meet_a_flat_spot_are_counted():
    start = torch.tensor([[0.0, 5.0], [0.0, -1.0]])
    sampler = fitted(HalfFlat(), None, start=start, time=0.1)
    with pytest.warns(UserWarning, match=r"of 300 paths .* set a shorter time") as warned:
        z = sampler.sample_latent(300, batch_size=100)
    told = [str(w.message) for w in warned if "paths" in str(w.message)]
    assert len(told) == 1  # not one a batch
    stayed = (z == start[1]).all(1)
    number = int(stayed.sum())
    assert 100 < number < 200
    assert f"{number} of 300 paths ({number / 300:.1%})" in told[0]
    assert sampler.diagnostics == BrownianMotionDiagnostics(0.1, 300, number, 0)
    # The others are a plain Brownian motion.
    moved = z[~stayed] - start[0]
    n = len(moved)
    assert float((moved.T @ moved / n - 0.1 * torch.eye(2)).abs().max()) < 0.45 * (2 / n) ** 0.5

    with pytest.warns(UserWarning, match="of 50 paths"):
        paths = sampler.trajectories(50)
    still = (paths == paths[0]).all(-1).all(0)
    assert sampler.diagnostics.stopped == int(still.sum()) > 0


def test_no_warning_where_no_path_stops():
    sampler = fitted(Stretched(), CORNERS)
    with pytest.raises(RuntimeError, match="no diagnostics yet"):
        sampler.diagnostics  # noqa: B018
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sampler.sample(20)
    assert sampler.diagnostics == BrownianMotionDiagnostics(sampler.time, 20, 0, 0)


def test_a_decoder_that_is_flat_everywhere():
    sampler = fitted(Flat(), None, start=CORNERS, time=0.1)
    for call in (sampler.sample, sampler.trajectories):
        with pytest.raises(DegenerateMetricError, match="for all 6 paths: the decoder is flat"):
            call(6)
    with pytest.raises(ValueError, match=r"distance 0 .* set time"):
        fitted(Flat(), CORNERS)


# Bad input


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"time": 0.0}, "time must be finite and greater than 0"),
        ({"time": float("inf")}, "time must be"),
        ({"steps": 0}, "steps must be finite and at least 1"),
        ({"seed": -1}, "seed must be"),
        ({"stationary": "data"}, "Input should be 'volume' or 'codes'"),
        ({"stationary": "codes", "drift": False}, "so it needs drift=True"),
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
        (torch.zeros(2, 3), r"\[N >= 1, 2\], got \[2, 3\]"),
        (torch.zeros(0, 2), "start has no rows"),
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
    with pytest.raises(AttributeError, match=r"not fitted: call fit.* Then it has a time\."):
        _ = sampler.time
    assert not hasattr(sampler, "unknown")
    sampler.fit()
    assert sampler.time > 0
    with pytest.raises(ValueError, match="num_samples must be a whole number of at least 1"):
        sampler.trajectories(0)


def test_a_sampler_of_another_latent_dimension(rvae, tmp_path):
    sampler = BrownianMotionSampler(rvae)
    sampler.fit()
    sampler.save(tmp_path)
    other = AE(AEConfig(input_dim=(3,), latent_dim=5))
    config = BrownianMotionSamplerConfig(metric="pullback", time=1.0)
    config.save_json(tmp_path, "sampler_config")
    (tmp_path / "sampler_checksums.json").unlink()
    with pytest.raises(ValueError, match=r"start must have shape \[1 or more, 5\].*got \[1, 2\]"):
        BrownianMotionSampler.load(tmp_path, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": torch.full((3, 2), math.nan)}, "start must hold finite numbers"),
        ({"start": torch.zeros(0, 2)}, r"start must have shape \[1 or more, 2\]"),
        ({"time": torch.tensor(-1.0)}, "time must be positive"),
        ({"time": torch.tensor([1.0, 2.0])}, r"time must have shape \[\]"),
        ({"centroids": torch.zeros(2, 5)}, "precisions must have shape"),
        ({"colour": torch.zeros(2)}, "must hold additive_volume, centroids"),
    ],
)
def test_states_that_do_not_fit(change, message, trained, digits, tmp_path):
    config = BrownianMotionSamplerConfig(metric="posterior", steps=2, seed=0)
    sampler = BrownianMotionSampler(trained, config)
    sampler.fit(digits[:50])
    sampler.save(tmp_path)
    state = torch.load(tmp_path / "sampler.pt", weights_only=True)
    torch.save({**state, **change}, tmp_path / "sampler.pt")
    (tmp_path / "sampler_checksums.json").unlink()
    with pytest.raises(ValueError, match=f"does not fit a BrownianMotionSampler: .*{message}"):
        BrownianMotionSampler.load(tmp_path, trained)


def test_held_out_data_are_named(trained, digits):
    config = BrownianMotionSamplerConfig(metric="pullback")
    with pytest.raises(ValueError, match=r"eval_data\[0:5\] must have shape"):
        BrownianMotionSampler(trained, config).fit(digits[:50], digits[:5, 0])
