"""No chain that did nothing is passed off as a sample in silence; scales come from the data."""

import copy
import json
import math
import os
import warnings

import numpy as np
import pytest
import torch
from pythae.models import AE, VAE, AEConfig, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseEncoder
from scipy.stats import chi2
from torch import nn

from pythae_geometric import (
    BrownianRVAE,
    BrownianRVAEConfig,
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
    interpolate,
)
from pythae_geometric.models.foreign import autoencoder_of


class Known(BaseEncoder):
    """Data are the codes themselves; posteriors have one deviation."""

    def __init__(self, deviation=0.1):
        super().__init__()
        self.log_variance = 2 * np.log(deviation)

    def forward(self, x):
        return ModelOutput(embedding=x, log_covariance=torch.full_like(x, self.log_variance))


def model_of(d, deviation=0.1):
    torch.manual_seed(0)
    return VAE(VAEConfig(input_dim=(d,), latent_dim=d), encoder=Known(deviation))


def codes(number, d, seed=0):
    """A curved, clustered cloud with coordinates of different units."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(number, d, generator=generator)
    x[:, 0] = x[:, 0] + 0.3 * x[:, -1] ** 2
    x = x + 3 * torch.randint(0, 3, (number, 1), generator=generator)
    return x * torch.logspace(-2, 1, d)


def fitted(model, data, **fields):
    sampler = MetricUniformHMCSampler(model, MetricUniformHMCSamplerConfig(seed=0, **fields))
    sampler.fit(data)
    return sampler


# The default


@pytest.mark.parametrize("deviation", [1e-3, 0.03, 1.0])
@pytest.mark.parametrize("d", [1, 2, 16, 64])
def test_acceptance_without_a_parameter_to_set(d, deviation):
    data = codes(1500, d)
    sampler = fitted(model_of(d, deviation), data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        z = sampler.sample_latent(1000)
    found = sampler.diagnostics
    assert 0.6 < found.acceptance_rate < 0.98 and found.diverged == 0
    assert found.at_start < 0.05 * found.num_chains == 50
    known = {code.numpy().tobytes() for code in data}
    assert not any(code.numpy().tobytes() in known for code in z)


def test_the_few_chains_that_do_not_move_begin_again_elsewhere():
    """In 2 % of the data posteriors are a fiftieth of a step wide: no step from there is taken."""

    def encoder(x):
        is_narrow = x[:, :1] > 50
        return x, torch.where(is_narrow, 2 * math.log(1e-4), 2 * math.log(0.1)).expand(-1, 2)

    model = autoencoder_of(encoder, nn.Linear(2, 3), input_dim=(2,), latent_dim=2)
    data = torch.cat([codes(980, 2), 100 + 1e-5 * codes(20, 2, seed=1)])
    paper = {"metric": "posteriors", "num_centroids": 5, "temperature": 1.0}
    sampler = fitted(model, data, **paper)
    z, found = sampler.sample_latent(1000, batch_size=1000), sampler.diagnostics
    assert found.at_start == 0 and found.num_chains == 1000
    deviation = (1000 * 0.02 * 0.98) ** 0.5
    assert abs(found.restarted - 20) < 4.5 * deviation and found.restarted > 0
    known = {code.numpy().tobytes() for code in data}
    assert not any(code.numpy().tobytes() in known for code in z)
    sampler = fitted(model, data[-100:], **paper)  # now it is a fifth of them: said as well
    with pytest.warns(UserWarning, match="% accepted less than one step in 1,000"):
        sampler.sample_latent(200)
    assert sampler.diagnostics.restarted > 20


def test_two_clusters_whose_scales_differ_a_hundred_times():
    """One step size would be stuck in the one or crawl in the other; draws start in both."""
    wide = codes(800, 3)
    narrow = wide.mean(0) + 6 * wide.std(0) + 0.01 * codes(800, 3, seed=1)
    sampler = fitted(model_of(3), torch.cat([wide, narrow]))
    z = sampler.sample_latent(2000)
    inside = ((z - narrow.mean(0)) / wide.std(0)).norm(dim=1) < 0.5
    assert float(inside.float().mean()) == pytest.approx(0.5, abs=4.5 * (0.25 / 2000) ** 0.5)
    spread = z[inside].std(0) / narrow.std(0)
    assert bool(((spread > 0.8) & (spread < 1.4)).all())


def test_chains_keep_the_distribution_of_the_metric():
    """From fit to points: box probabilities against quadrature of the volume, for long chains."""
    sampler = fitted(model_of(2), codes(1000, 2), mcmc_steps_nbr=40)
    z = sampler.sample_latent(4000, batch_size=4000).double()
    metric = copy.deepcopy(sampler.metric).double()
    low, high = z.amin(0) - 3 * z.std(0), z.amax(0) + 3 * z.std(0)
    axes = [
        torch.linspace(float(a), float(b), 1001).double() for a, b in zip(low, high, strict=True)
    ]
    grid = torch.cartesian_prod(*axes)
    p = metric.log_volume(grid).exp()
    edges = [torch.quantile(z[:, i], torch.tensor([0.25, 0.5, 0.75]).double()) for i in (0, 1)]

    def cells(points):
        x, y = (torch.bucketize(points[:, i].contiguous(), edges[i]) for i in (0, 1))
        return 4 * x + y

    expected = torch.zeros(16).double().index_add(0, cells(grid), p / p.sum())
    observed = torch.bincount(cells(z), minlength=16) / len(z)
    statistic = float(((observed - expected) ** 2 / expected).sum() * len(z))
    # The edges are quantiles of the sample itself: fewer than 15 degrees of freedom, so this is
    # the stricter side only in the mean; 1e-4 leaves room.
    assert statistic < chi2(15).ppf(1 - 1e-4), (observed, expected)


def test_steps_set_by_the_user_are_kept():
    sampler = fitted(model_of(2), codes(300, 2), eps_lf=0.123, n_lf=2, mcmc_steps_nbr=3)
    sampler.sample_latent(10)
    assert sampler.diagnostics.step_size == 0.123 and sampler.diagnostics.chains.shape[0] == 3


def test_save_and_load_keep_the_step_size(tmp_path):
    model = model_of(2)
    sampler = fitted(model, codes(300, 2))
    sampler.save(tmp_path)
    loaded = MetricUniformHMCSampler.load(tmp_path, model)
    assert torch.equal(loaded.sample_latent(20), sampler.sample_latent(20))


@pytest.mark.parametrize(
    "data, message",
    [
        (torch.full((50, 2), 3.0), "have the same code"),
        (torch.zeros(1, 2), "have the same code"),
    ],
    ids=["constant", "one"],
)
def test_data_without_a_distribution(data, message):
    with pytest.raises(ValueError, match=message):
        fitted(model_of(2), data)


@pytest.mark.parametrize("data", [codes(60, 2).repeat(3, 1), codes(5, 16), codes(300, 128)])
def test_few_duplicated_and_wide_data(data):
    sampler = fitted(model_of(data.shape[1]), data)
    assert bool(torch.isfinite(sampler.sample(20)).all())


def test_a_collapsed_posterior_is_said():
    with pytest.warns(UserWarning, match="posterior of this model has collapsed") as caught:
        fitted(model_of(2, deviation=1e4), codes(300, 2))
    assert caught[0].filename == __file__


@pytest.mark.parametrize("metric", ["codes", "posteriors"])
def test_a_decoder_that_gives_nan_is_said_and_nothing_is_saved(metric, tmp_path):
    torch.manual_seed(0)
    model = VAE(VAEConfig(input_dim=(1, 8, 8), latent_dim=2))
    sampler = fitted(model, torch.rand(50, 1, 8, 8), metric=metric)
    with torch.no_grad():
        # Only away from 0, where the decoder is tried before any chain is run.
        first = model.decoder.layers[0][0]
        first.weight.mul_(1e30)
        first.bias.zero_()
        model.decoder.layers[-1][0].weight.mul_(1e30)
    with pytest.raises(ValueError, match=r"decoder of VAE gives NaN or infinity for . of 5"):
        sampler.sample(5, output_dir=str(tmp_path / "images"))
    assert not os.listdir(tmp_path / "images")


def test_a_decoder_that_gives_nan_on_the_way_is_said_by_interpolate():
    torch.manual_seed(0)
    model = VAE(VAEConfig(input_dim=(1, 8, 8), latent_dim=2))
    with torch.no_grad():
        model.decoder.layers[-1][0].weight.fill_(torch.nan)
    x = torch.rand(4, 1, 8, 8)
    with pytest.raises(ValueError, match="decoder of VAE gives NaN or infinity"):
        interpolate(model, x[:2], x[2:], "line")


@pytest.mark.parametrize("metric", ["codes", "posteriors"])
def test_data_of_another_scale_than_in_training_are_said(metric):
    torch.manual_seed(0)
    x = torch.rand(50, 1, 8, 8)
    model = autoencoder_of(
        lambda x: (4 * x.flatten(1)[:, :2] / x.max(), torch.full((len(x), 2), -2.0)),
        nn.Sequential(nn.Linear(2, 64), nn.Sigmoid()),
        input_dim=(1, 8, 8),
        latent_dim=2,
    )
    message = r"train_data reaches from 0\.\d+ to 25\d.* but this model reconstructs it in \[0, 1\]"
    with pytest.warns(UserWarning, match=message) as caught:
        fitted(model, 255 * x, metric=metric)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(model, x, metric=metric)


# The paper's metric


def test_the_papers_walk_is_half_a_unit_in_the_flat_part():
    """No gradient there: each coordinate moves by eps n_lf sqrt(steps) = 0.005 · 10 · 10 = 0.5."""
    data = 100.0 * torch.arange(50.0)[:, None] * torch.ones(1, 4)
    data = data + torch.arange(4.0)  # every centroid is far from every other
    sampler = fitted(
        model_of(4, deviation=1e-2), data, metric="posteriors", num_centroids=5, temperature=1e-3
    )
    with pytest.warns(UserWarning, match="ended in the flat part of the metric"):
        z = sampler.sample_latent(4000)
    moved = torch.stack([(z - x).norm(dim=1) for x in data]).amin(0)
    # |moved|² / 0.25 is chi-square with 4 degrees of freedom, apart from starts at centroids.
    away = moved[moved > 0.05]
    mean = float(away.square().mean())
    assert mean == pytest.approx(4 * 0.25, abs=4.5 * 0.25 * (8 / len(away)) ** 0.5)
    assert sampler.diagnostics.flat > 0.8 * 4000


def test_chains_that_stand_still_are_counted_and_said():
    """Steps a thousand times longer than the posteriors are wide: nothing is ever accepted."""
    data = codes(100, 3)
    sampler = fitted(
        model_of(3, deviation=1e-3), data, metric="posteriors", num_centroids=100,
        additive_volume=True, temperature=1.7, regularization=0.0, eps_lf=1.0, mcmc_steps_nbr=5,
    )  # fmt: skip
    with pytest.warns(
        UserWarning, match="100 % ended at the very point where they started, a training code"
    ) as w:
        z = sampler.sample_latent(200)
    assert w[0].filename == __file__ and "lower eps_lf" in str(w[0].message)
    found = sampler.diagnostics
    assert found.at_start == found.never_accepted == found.num_chains == 200
    assert set(map(tuple, z.tolist())) <= set(map(tuple, data.tolist()))
    with pytest.warns(UserWarning, match="100 % ended at the very point"):
        sampler.sample(3)


def test_divergent_chains_are_counted_and_said():
    sampler = fitted(
        model_of(2, deviation=0.01), codes(100, 2), metric="posteriors", num_centroids=100,
        regularization=0.0, temperature=1.0, eps_lf=5.0, mcmc_steps_nbr=3,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="diverged"):
        sampler.sample_latent(100)
    assert sampler.diagnostics.diverged > 50 <= sampler.diagnostics.divergences


def test_chains_that_are_fine_say_nothing():
    sampler = fitted(
        model_of(2, deviation=1.0), codes(100, 2), metric="posteriors", decay=0.1,
        num_centroids=20, mcmc_steps_nbr=10, adaptation_steps=20, eps_lf=0.1, regularization=1e-6,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler.sample_latent(100)


def test_the_time_of_a_brownian_rvae_is_no_variance():
    model = BrownianRVAE(BrownianRVAEConfig(input_dim=(1, 8, 8), latent_dim=2))
    config = MetricUniformHMCSamplerConfig(metric="posteriors")
    with pytest.raises(TypeError, match=r"logarithm of a time, not variances.*metric='codes'"):
        MetricUniformHMCSampler(model, config).fit(torch.rand(50, 1, 8, 8))


# Configs


@pytest.mark.parametrize(
    "fields",
    [
        {"regularization": 0.1},
        {"decay": 0.1},
        {"additive_volume": True},
        {"centroid_selection": "random"},
        {"adaptation_steps": 5},
    ],
)
def test_fields_of_the_papers_metric_need_it(fields):
    (name,) = fields
    with pytest.raises(ValueError, match=f"{name}=.* belongs to metric='posteriors'"):
        MetricUniformHMCSamplerConfig(**fields)
    assert MetricUniformHMCSamplerConfig(metric="posteriors", **fields).metric == "posteriors"


def test_configs_of_0_1_0_keep_the_papers_metric(tmp_path):
    old = {
        "name": "MetricUniformHMCSamplerConfig", "num_centroids": 100, "temperature": None,
        "centroid_selection": "kmedoids", "regularization": 0.01, "decay": 0.0,
        "additive_volume": False, "mcmc_steps_nbr": 100, "n_lf": 10, "eps_lf": 0.01,
        "adaptation_steps": 0, "target_acceptance": 0.8, "seed": None,
    }  # fmt: skip
    (tmp_path / "old.json").write_text(json.dumps(old))
    config = MetricUniformHMCSamplerConfig.from_json_file(str(tmp_path / "old.json"))
    assert config.metric == "posteriors" and config.eps_lf == 0.01
    config.save_json(str(tmp_path), "new")
    assert MetricUniformHMCSamplerConfig.from_json_file(str(tmp_path / "new.json")) == config


def test_an_autoencoder_has_no_posteriors():
    model = AE(AEConfig(input_dim=(1, 8, 8), latent_dim=2))
    with pytest.raises(TypeError, match="no log_covariance"):
        fitted(model, torch.rand(50, 1, 8, 8), metric="posteriors")
    assert fitted(model, torch.rand(50, 1, 8, 8)).sample(3).shape == (3, 1, 8, 8)
