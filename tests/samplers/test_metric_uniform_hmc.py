"""The path of a user: any VAE of pythae, its generation pipeline, images, files, errors."""

import copy
import os
import pathlib
import re
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import torch
from imageio.v2 import imread
from pythae import models as pythae_models
from pythae.data.datasets import BaseDataset, DatasetOutput
from pythae.models import AutoModel
from pythae.pipelines import GenerationPipeline
from pythae.samplers import NormalSamplerConfig
from scipy.stats import chi2, kstest, kstwo, norm

from pythae_geometric import MetricUniformHMCSampler, MetricUniformHMCSamplerConfig
from pythae_geometric.samplers.centroids import (
    largest_nearest_distance,
    select_centroids,
)


def quick(**fields):
    """A config of the paper's metric whose chains cost little."""
    return MetricUniformHMCSamplerConfig(
        **{
            "metric": "posteriors",
            "num_centroids": 20,
            "mcmc_steps_nbr": 3,
            "n_lf": 2,
            "seed": 0,
            **fields,
        }
    )


def default(**fields):
    """The default config with a seed."""
    return MetricUniformHMCSamplerConfig(**{"seed": 0, **fields})


@pytest.fixture(scope="module")
def fitted(trained, digits):
    sampler = MetricUniformHMCSampler(trained, quick())
    sampler.fit(digits[:500])
    return sampler


# pythae's models


INPUT = dict(input_dim=(1, 8, 8), latent_dim=4)
VARIATIONAL = [
    "VAE", "BetaVAE", "BetaTCVAE", "CIWAE", "DisentangledBetaVAE", "FactorVAE", "HVAE",
    "INFOVAE_MMD", "IWAE", "MIWAE", "MSSSIM_VAE", "PIWAE", "PoincareVAE", "RHVAE", "VAEGAN",
    "VAE_IAF", "VAE_LinNF", "VAMP", "Adversarial_AE",
]  # fmt: skip
NOT_VARIATIONAL = ["AE", "RAE_GP", "RAE_L2", "WAE_MMD", "SVAE", "VQVAE"]


def build(name, **fields):
    config = getattr(pythae_models, name + "Config", None)
    config = config or getattr(pythae_models, name + "_Config")
    torch.manual_seed(0)
    return getattr(pythae_models, name)(config(**{**INPUT, **fields}))


def test_every_model_of_pythae_is_in_one_of_the_lists():
    named = {
        name
        for name, cls in vars(pythae_models).items()
        if isinstance(cls, type) and issubclass(cls, pythae_models.BaseAE)
    }
    assert named == {*VARIATIONAL, *NOT_VARIATIONAL, "BaseAE"}


@pytest.mark.filterwarnings("ignore:Of the", "ignore:The posterior of this model has collapsed")
@pytest.mark.parametrize("config", [quick, default])
@pytest.mark.parametrize("name", VARIATIONAL)
def test_every_variational_model_of_pythae(name, config, digits):
    model = build(name)
    pipeline = GenerationPipeline(model, config())
    x = pipeline(num_samples=7, batch_size=4, train_data=digits[:100])
    assert x.shape == (7, 1, 8, 8) and torch.isfinite(x).all()


@pytest.mark.parametrize("name", NOT_VARIATIONAL)
def test_other_models_are_refused_with_the_reason(name, digits):
    sampler = MetricUniformHMCSampler(build(name), quick())
    with pytest.raises(TypeError, match="no log_covariance"):
        sampler.fit(digits[:100])


@pytest.mark.parametrize("name", ["AE", "RAE_GP", "RAE_L2", "WAE_MMD", "SVAE"])
def test_the_metric_of_the_codes_needs_no_variances(name, digits):
    sampler = MetricUniformHMCSampler(build(name), default())
    sampler.fit(digits[:100])
    assert sampler.sample(5).shape == (5, 1, 8, 8)
    if name == "SVAE":  # whose codes lie on the sphere
        torch.testing.assert_close(sampler.sample_latent(5).norm(dim=1), torch.ones(5))


def test_quantised_codes_are_refused(digits):
    with pytest.raises(TypeError, match="quantised"):
        MetricUniformHMCSampler(build("VQVAE"), default()).fit(digits[:100])


def test_poincare_samples_stay_in_the_ball(digits):
    model = build("PoincareVAE", curvature=4.0)
    # Means of norm 3 and more: the encoder of pythae does not know of the ball of radius 1/2.
    with torch.no_grad():
        model.encoder.embedding.bias += 3.0
    sampler = MetricUniformHMCSampler(model, quick())
    sampler.fit(digits[:100])
    radius = sampler.sample_latent(20).norm(dim=-1)
    assert float(radius.max()) < 0.5 and float(radius.min()) > 0.49


@pytest.mark.parametrize("name", ["VAE_LinNF", "VAE_IAF"])
def test_samples_are_carried_through_a_flow_after_the_posterior(name, digits):
    """The decoder is trained on points after the flow: a mean must land where the model puts it."""
    model = build(name).eval()
    sampler = MetricUniformHMCSampler(model, quick(mcmc_steps_nbr=1, n_lf=1, eps_lf=1e-6))
    sampler.fit(digits[:100])
    z = sampler.sample_latent(50)

    x = torch.as_tensor(digits[:100])
    model.encoder.forward = _without_variance(model.encoder.forward)
    with torch.no_grad():
        after_flow = model({"data": x}).z
        before_flow = model.encoder(x).embedding
    assert float(distances(z, after_flow).amin(-1).max()) < 1e-4
    assert float(distances(z, before_flow).amin(-1).max()) > 1e-3  # the flow does something


def distances(x, y):
    return (x[:, None] - y).norm(dim=-1)


def _without_variance(forward):
    def mean_only(x):
        output = forward(x)
        output["log_covariance"] = torch.full_like(output.log_covariance, -100.0)
        return output

    return mean_only


def test_own_networks_and_float64(digits):
    torch.manual_seed(0)
    model = build("VAE").double()
    sampler = MetricUniformHMCSampler(model, quick())
    sampler.fit(digits[:100])
    assert sampler.sample(3).dtype == sampler.sample_latent(3).dtype == torch.float64


# Fitting


def test_metric_is_made_of_posteriors_at_medoids(fitted, trained, digits):
    with torch.no_grad():
        encoded = trained.encoder(torch.as_tensor(digits[:500]))
    distance = distances(fitted.metric.centroids, encoded.embedding)
    index = distance.argmin(-1)
    assert float(distance.amin(-1).max()) < 1e-5 and len(index.unique()) == 20
    torch.testing.assert_close(
        fitted.metric.precisions, torch.exp(-encoded.log_covariance[index]), rtol=1e-4, atol=0
    )
    c = fitted.metric.centroids.double()
    rho = max(min(float((a - b).norm()) for b in c[torch.arange(20) != i]) for i, a in enumerate(c))
    assert float(fitted.metric.temperature) == pytest.approx(rho, rel=1e-5)
    assert float(fitted.metric.regularization) == pytest.approx(0.01)


def test_temperature_of_a_grid_is_its_spacing():
    grid = torch.cartesian_prod(torch.arange(40.0), torch.arange(40.0))  # more than one block
    outlier = torch.tensor([[100.0, 39.0]])
    assert largest_nearest_distance(grid) == pytest.approx(1.0, rel=1e-3)
    assert largest_nearest_distance(torch.cat([grid, outlier])) == pytest.approx(61.0, rel=1e-3)


def test_medoids_find_separated_clusters():
    """Ten tight clusters: k-medoids takes one point of each, random choice does not."""
    centres = 10 * torch.randn(10, 5, generator=torch.Generator().manual_seed(0))
    points = centres.repeat(30, 1) + 0.01 * torch.randn(
        300, 5, generator=torch.Generator().manual_seed(1)
    )
    label = torch.arange(300) % 10
    assert len(label[select_centroids(points, 10, "kmedoids", seed=0)].unique()) == 10
    assert len(label[select_centroids(points, 10, "random", seed=0)].unique()) < 10
    assert len(select_centroids(points, 10, "random", seed=0).unique()) == 10


@pytest.mark.sklearn_extra
def test_sklearn_extra_selects_medoids(trained, digits):
    pytest.importorskip("sklearn_extra.cluster", exc_type=ImportError)
    from sklearn_extra.cluster import KMedoids

    sampler = MetricUniformHMCSampler(trained, quick(centroid_selection="sklearn-extra"))
    sampler.fit(digits[:300])
    with torch.no_grad():
        means = trained.encoder(torch.as_tensor(digits[:300])).embedding.numpy()
    expected = KMedoids(n_clusters=20, random_state=0).fit(means).cluster_centers_
    np.testing.assert_allclose(sampler.metric.centroids, expected, rtol=1e-6)
    assert sampler.sample(3).shape == (3, 1, 8, 8)


def test_sklearn_extra_missing_names_the_extra(trained, digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn_extra.cluster", None)
    sampler = MetricUniformHMCSampler(trained, quick(centroid_selection="sklearn-extra"))
    with pytest.raises(ImportError, match=r'pip install "pythae-geometric\[sklearn-extra\]"'):
        sampler.fit(digits[:100])


def test_data_may_be_arrays_tensors_datasets_or_integers(fitted, trained, digits):
    data = torch.as_tensor(digits[:500])
    for same in (data, BaseDataset(data, torch.ones(500)), digits[:500].astype(np.float64)):
        sampler = MetricUniformHMCSampler(trained, quick())
        sampler.fit(same, batch_size=77)
        torch.testing.assert_close(sampler.metric.centroids, fitted.metric.centroids)
    integers = MetricUniformHMCSampler(trained, quick())
    integers.fit((digits[:100] > 0.5).astype(np.uint8))
    assert integers.is_fitted


def test_all_codes_are_starting_points(trained, digits):
    sampler = MetricUniformHMCSampler(trained, quick())
    sampler.fit(np.tile(digits, (4, 1, 1, 1)))  # 7188 points
    assert len(sampler._starts) == 7188 and len(sampler.metric.centroids) == 20


def test_all_means_as_centroids_need_no_matrix_of_distances(trained, digits):
    data = np.tile(digits, (12, 1, 1, 1))  # 21,564 points: their distances are 1.9 GB
    for method in ("random", "kmedoids"):
        config = quick(num_centroids=len(data), centroid_selection=method, temperature=1.0)
        sampler = MetricUniformHMCSampler(trained, config)
        sampler.fit(data)
        assert len(sampler.metric.centroids) == len(sampler._starts) == len(data)
    config = quick(num_centroids=len(data) - 1, temperature=1.0)
    with pytest.raises(ValueError, match=r"at most 5000, or centroid_selection='random'"):
        MetricUniformHMCSampler(trained, config).fit(data)


FIT_A_MILLION = """
    import resource
    import torch
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseEncoder
    import pythae_geometric

    class Halves(BaseEncoder):
        def forward(self, x):
            return ModelOutput(embedding=x[:, :32], log_covariance=0.1 * x[:, :32] - 3)

    model = VAE(VAEConfig(input_dim=(32,), latent_dim=32), encoder=Halves())
    data = torch.randn(1_000_000, 32)
    sampler = pythae_geometric.MetricUniformHMCSampler(model)
    sampler.fit(data)
    assert sampler.sample_latent(10).shape == (10, 32)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def run_python(code, *arguments):
    code = textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_a_million_embeddings_fit_in_3_gigabytes():
    assert int(run_python(FIT_A_MILLION)) < 3e9


# Sampling


def test_chains_sample_the_uniform_distribution_of_the_fitted_metric(trained, digits):
    """From fit to points: 2-d box probabilities against quadrature, in a proper setting."""
    config = MetricUniformHMCSamplerConfig(
        metric="posteriors", num_centroids=10, decay=0.3, regularization=0.1, mcmc_steps_nbr=80,
        adaptation_steps=30, eps_lf=0.1, seed=3,
    )  # fmt: skip
    sampler = MetricUniformHMCSampler(trained, config)
    sampler.fit(digits[:500])
    z = sampler.sample_latent(4000, batch_size=4000).double()
    metric = copy.deepcopy(sampler.metric).double()
    axis = torch.linspace(-15, 15, 1501, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    p = metric.log_volume(grid).exp()
    p /= p.sum()

    def cells(points):
        edges = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
        x, y = (torch.bucketize(points[:, i].contiguous(), edges) for i in (0, 1))
        return 4 * x + y

    expected = torch.zeros(16, dtype=torch.float64).index_add(0, cells(grid), p)
    observed = torch.bincount(cells(z), minlength=16) / len(z)
    statistic = float(((observed - expected) ** 2 / expected).sum() * len(z))
    assert statistic < chi2(15).ppf(1 - 1e-4), (observed, expected)


def test_additive_volumes_sample_the_mixture_of_the_widened_posteriors(digits):
    """Equal posteriors N(mu_i, s² I) at every point and lambda = 0: the uniform distribution is the
    mixture of N(mu_i, width² s² I). One-dimensional marginals against it, by Kolmogorov and
    Smirnov."""
    model, data, width = build("VAE", latent_dim=6), digits[:100], 1.5
    with torch.no_grad():
        means = model.encoder(torch.as_tensor(data)).embedding
        s = means.std(0).mean() / 2  # posteriors that overlap, but do not coincide
        model.encoder.log_var.weight.zero_()
        model.encoder.log_var.bias.fill_(2 * s.log())

    def statistic(additive):
        sampler = MetricUniformHMCSampler(
            model,
            quick(
                num_centroids=len(data),
                centroid_selection="random",
                temperature=width * 6**0.5,
                regularization=0.0,
                additive_volume=additive,
                mcmc_steps_nbr=30,
                n_lf=8,
                eps_lf=float(0.2 * width * s),
            ),
        )
        sampler.fit(data)
        z = sampler.sample_latent(3000, batch_size=3000).double().numpy()
        components = [norm(mu, float(width * s)) for mu in means.double().numpy().T[:, :, None]]
        return [
            kstest(z[:, i], lambda x, c=c: c.cdf(x).mean(0)).statistic
            for i, c in enumerate(components)
        ]

    bound = kstwo(3000).isf(1e-5 / 6)
    assert max(statistic(additive=True)) < bound
    assert max(statistic(additive=False)) > bound  # that of the paper's metric is another


@pytest.mark.parametrize("number, batch_size", [(0, 5), (1, 500), (5, 5), (7, 3)])
def test_numbers_that_do_and_do_not_divide(fitted, number, batch_size):
    assert fitted.sample(number, batch_size).shape == (number, 1, 8, 8)
    assert fitted.sample_latent(number, batch_size).shape == (number, 2)


def test_a_seed_makes_runs_agree(fitted, trained, digits):
    samples = []
    for seed in (0, 0, 1):
        sampler = MetricUniformHMCSampler(trained, quick(seed=seed))
        sampler.fit(digits[:500])
        samples.append(sampler.sample(5))
    assert torch.equal(samples[0], samples[1]) and not torch.equal(samples[0], samples[2])
    assert not torch.equal(sampler.sample(5), samples[2])  # the stream goes on

    without = MetricUniformHMCSampler(trained, quick(seed=None))
    repeats = []
    for _ in range(2):
        torch.manual_seed(5)
        without.fit(digits[:500])
        repeats.append(without.sample(5))
    assert torch.equal(*repeats)


def test_images_and_sampler_are_written(trained, digits, tmp_path):
    out = tmp_path / "new" / "folder"
    pipeline = GenerationPipeline(trained, quick())
    nothing = pipeline(
        num_samples=5, batch_size=2, output_dir=str(out), return_gen=False,
        save_sampler_config=True, train_data=digits[:100],
    )  # fmt: skip
    assert nothing is None
    assert sorted(os.listdir(out)) == [
        *(f"{i:08d}.png" for i in range(5)), "sampler.pt", "sampler_checksums.json",
        "sampler_config.json",
    ]  # fmt: skip
    x = MetricUniformHMCSampler.load(out, trained).sample(5, 2)
    for i, image in enumerate(x):
        expected = (255 * image.permute(1, 2, 0).numpy()).astype("uint8").repeat(3, -1)
        np.testing.assert_array_equal(imread(out / f"{i:08d}.png"), expected)


def test_images_of_a_longer_run_are_not_taken_for_new_ones(fitted, tmp_path):
    fitted.sample(5, output_dir=str(tmp_path))
    (tmp_path / "portrait.png").write_text("of the user's own")
    first = (tmp_path / "00000004.png").read_bytes()
    with pytest.raises(ValueError, match=r"holds 2 images from 00000003.png on, of a longer run"):
        fitted.sample(3, output_dir=str(tmp_path))
    assert (tmp_path / "00000004.png").read_bytes() == first
    fitted.sample(6, output_dir=str(tmp_path))
    assert len(os.listdir(tmp_path)) == 7
    assert (tmp_path / "00000004.png").read_bytes() != first


def test_diagnostics(trained, digits):
    config = quick(
        mcmc_steps_nbr=20, n_lf=5, adaptation_steps=40, eps_lf=1e-3, target_acceptance=0.9
    )
    sampler = MetricUniformHMCSampler(trained, config)
    sampler.fit(digits[:500])
    with pytest.raises(RuntimeError, match="no diagnostics yet"):
        sampler.diagnostics  # noqa: B018
    sampler.sample(150, batch_size=100)
    d = sampler.diagnostics
    assert d.acceptance_rate == pytest.approx(0.9, abs=0.08) and d.divergences == 0
    assert d.step_size > 1e-2 and d.chains.shape == (20, 64, 2)


def test_ess_and_r_hat_know_mixed_chains_from_stuck_ones(fitted):
    pytest.importorskip("arviz")
    from pythae_geometric.samplers.metric_uniform_hmc.diagnostics import HMCDiagnostics

    mixed = torch.randn(100, 50, 2, generator=torch.Generator().manual_seed(0))
    d = HMCDiagnostics(1.0, 0, 0.1, mixed)
    assert (d.r_hat < 1.01).all()
    # 5,000 independent draws: the effective size is theirs, give or take its own error.
    np.testing.assert_allclose(d.ess, 5000, rtol=0.15)
    stuck = HMCDiagnostics(1.0, 0, 0.1, 0.1 * mixed + torch.randn(1, 50, 2))
    assert (stuck.r_hat > 2).all() and (stuck.ess < 200).all()
    with pytest.raises(ValueError, match="at least 4 steps of 2 chains, here are 3 of 1"):
        HMCDiagnostics(1.0, 0, 0.1, mixed[:3, :1]).ess  # noqa: B018


# Saving


def test_save_and_load(fitted, trained, digits, tmp_path):
    fitted.save(tmp_path)
    sampler = MetricUniformHMCSampler(trained, quick())
    sampler.fit(digits[:500])
    loaded = MetricUniformHMCSampler.load(tmp_path, trained)
    assert torch.equal(loaded.sample(6), sampler.sample(6))
    assert loaded.sampler_config == sampler.sampler_config


def test_a_process_that_never_saw_the_data_samples_at_once(fitted, trained, tmp_path):
    trained.save(tmp_path / "model")
    fitted.save(tmp_path / "sampler")
    code = """
        import sys, torch
        import pythae_geometric
        from pythae.models import AutoModel
        model = AutoModel.load_from_folder(sys.argv[1])
        sampler = pythae_geometric.MetricUniformHMCSampler.load(sys.argv[2], model)
        torch.save(sampler.sample(6), sys.argv[3])
    """
    run_python(code, tmp_path / "model", tmp_path / "sampler", tmp_path / "x.pt")
    here = MetricUniformHMCSampler.load(
        tmp_path / "sampler", AutoModel.load_from_folder(str(tmp_path / "model"))
    )
    assert torch.equal(torch.load(tmp_path / "x.pt"), here.sample(6))


def test_nothing_half_written_when_saving_fails(fitted, tmp_path, monkeypatch):
    fitted.save(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail(state, path):
        pathlib.Path(path).write_bytes(b"half a f")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        fitted.save(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_sampler_of_another_model_says_so(trained, digits, tmp_path):
    """Of the same latent dimension: other weights draw what does not belong to the data."""
    sampler = MetricUniformHMCSampler(trained, quick())
    sampler.fit(digits[:100])
    sampler.save(tmp_path)
    other = copy.deepcopy(trained)
    with torch.no_grad():
        other.decoder.layers[0][0].bias[0] += 1e-3
    with pytest.warns(UserWarning, match=r"fitted to a model of other weights than this VAE"):
        loaded = MetricUniformHMCSampler.load(tmp_path, other)
    loaded.save(tmp_path / "again")  # it stays the sampler of the first model
    with pytest.warns(UserWarning, match="other weights"):
        MetricUniformHMCSampler.load(tmp_path / "again", other)
    loaded.fit(digits[:100])
    loaded.save(tmp_path / "again")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MetricUniformHMCSampler.load(tmp_path / "again", other)
        # The same weights, wherever and in whatever type.
        MetricUniformHMCSampler.load(tmp_path, copy.deepcopy(trained).double())


@pytest.mark.parametrize("metric", ["codes", "posteriors"])
@pytest.mark.parametrize("temperature", [1e-320, 1e-30, 1e30])
def test_temperatures_that_float32_does_not_hold(metric, temperature, trained, digits):
    config = default(metric=metric, temperature=temperature, num_centroids=10)
    with pytest.raises(ValueError, match=r"temperature.*\.$"):
        MetricUniformHMCSampler(trained, config).fit(digits[:100])


# Bad input


def test_unfitted_sampler(trained, tmp_path):
    sampler = MetricUniformHMCSampler(trained, quick())
    for call in (sampler.sample, sampler.sample_latent, lambda: sampler.save(tmp_path)):
        with pytest.raises(RuntimeError, match=r"is not fitted: call fit\(train_data\) first"):
            call()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="fit needs train_data"):
        GenerationPipeline(trained, quick())(num_samples=3)


class Keyless(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return DatasetOutput(image=torch.zeros(1, 8, 8))


BAD_DATA = {
    "none": (lambda x: None, ValueError, "fit needs train_data"),
    "ragged list": (lambda x: [[1.0], [1.0, 2.0]], TypeError, "must hold real numbers"),
    "words": (lambda x: np.array(["a", "b"]), TypeError, "must hold real numbers.*an array of <U1"),
    "complex": (lambda x: x.astype(complex), TypeError, "must hold real numbers"),
    "complex tensor": (lambda x: torch.tensor(x) + 1j, TypeError, "must hold real numbers"),
    "scalar": (lambda x: np.array(1.0), ValueError, "has no rows"),
    "empty": (lambda x: x[:0], ValueError, "train_data has no rows: at least one"),
    "empty dataset": (
        lambda x: BaseDataset(torch.zeros(0, 1, 8, 8), torch.zeros(0)), ValueError, "has no rows"),
    "keyless dataset": (lambda x: Keyless(), ValueError, "must have 'data', got image: rename"),
    "flat": (lambda x: x.reshape(len(x), 64), ValueError, r"must have shape \[B, 1, 8, 8\]"),
    "one image": (lambda x: x[0], ValueError, r"must have shape \[B, 1, 8, 8\]"),
    "nan": (
        lambda x: np.where(np.arange(50)[:, None, None, None] == 7, np.nan, x),
        ValueError, r"train_data\[0:50\] contains NaN or infinity"),
    "infinite": (lambda x: x / 0.0 + 1, ValueError, "contains NaN or infinity"),
    "few": (lambda x: x[:5], ValueError, "num_centroids is 20, but there are only 5 training"),
    "duplicates": (lambda x: np.repeat(x[:1], 50, 0), ValueError, "temperature is 0: the model"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("spoil, error, message", BAD_DATA.values(), ids=BAD_DATA.keys())
def test_bad_data(trained, digits, spoil, error, message):
    sampler = MetricUniformHMCSampler(trained, quick())
    with pytest.raises(error, match=message):
        sampler.fit(spoil(digits[:50]))
    assert not sampler.is_fitted


def test_a_failed_fit_keeps_the_old_one(trained, digits):
    sampler = MetricUniformHMCSampler(trained, quick())
    sampler.fit(digits[:100])
    with pytest.raises(ValueError):
        sampler.fit(digits[:5])
    assert sampler.sample(2).shape == (2, 1, 8, 8)


def test_single_centroid_needs_a_temperature(trained, digits):
    with pytest.raises(ValueError, match=r"single centroid .* set temperature"):
        MetricUniformHMCSampler(trained, quick(num_centroids=1)).fit(digits[:50])
    sampler = MetricUniformHMCSampler(trained, quick(num_centroids=1, temperature=1.0))
    sampler.fit(digits[:50])
    assert sampler.sample(2).shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    "bias, message",
    [
        (-200.0, "have collapsed or exploded"),
        (200.0, "have collapsed or exploded"),
        (float("nan"), "its training has diverged"),
    ],
)
def test_spoilt_variances(trained, digits, bias, message):
    model = copy.deepcopy(trained)
    with torch.no_grad():
        model.encoder.log_var.bias += bias
    with pytest.raises(ValueError, match=message):
        MetricUniformHMCSampler(model, quick()).fit(digits[:50])


def test_encoder_of_a_wrong_width(trained, digits):
    model = copy.deepcopy(trained)
    model.latent_dim = 3
    with pytest.raises(ValueError, match=r"an embedding of shape \[50, 3\], got \[50, 2\]"):
        MetricUniformHMCSampler(model, quick()).fit(digits[:50])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(num_samples=-1), "num_samples must be a whole number of at least 0"),
        (dict(num_samples=2.5), "num_samples must be a whole number"),
        (dict(batch_size=0), "batch_size must be a whole number of at least 1"),
        (dict(save_sampler_config=True), "needs output_dir"),
    ],
)
def test_bad_arguments_of_sample(fitted, arguments, message):
    with pytest.raises(ValueError, match=message):
        fitted.sample(**arguments)


def test_output_dir_that_cannot_be_written(fitted, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=r"output_dir .* cannot be written"):
            fitted.sample(2, output_dir=str(path))
        with pytest.raises(OSError, match=r"dir_path .* cannot be written"):
            fitted.save(path)
    assert os.listdir(tmp_path) == ["file"]


def test_images_of_data_that_are_none(digits, tmp_path):
    model = build("VAE", input_dim=(64,))
    sampler = MetricUniformHMCSampler(model, quick())
    sampler.fit(digits[:50].reshape(50, 64))
    with pytest.raises(ValueError, match=r"output_dir saves images, .* decodes to \[64\]"):
        sampler.sample(2, output_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())


def spoil_cut(folder):
    path = folder / "sampler.pt"
    path.write_bytes(path.read_bytes()[:200])


def spoil_pickle(folder):
    torch.save({"centroids": pathlib.Path()}, folder / "sampler.pt")


def spoil_other_tensors(folder):
    torch.save({"weights": torch.zeros(3)}, folder / "sampler.pt")


def spoil_list(folder):
    torch.save([torch.zeros(3)], folder / "sampler.pt")


def spoil_value(folder):
    state = torch.load(folder / "sampler.pt")
    torch.save({**state, "precisions": -state["precisions"]}, folder / "sampler.pt")


def spoil_starts(folder, starts):
    state = torch.load(folder / "sampler.pt")
    torch.save({**state, "starts": starts}, folder / "sampler.pt")


def spoil_config(folder):
    (folder / "sampler_config.json").write_text("{")


def spoil_field(folder):
    path = folder / "sampler_config.json"
    path.write_text(path.read_text().replace('"n_lf"', '"leapfrogs"'))


def spoil_number(folder):
    path = folder / "sampler_config.json"
    path.write_text(path.read_text().replace('"num_centroids": 20', '"num_centroids": 19'))


def spoil_name(folder):
    (folder / "sampler_config.json").write_text('{"name": "NormalSamplerConfig"}')


def spoil_nameless(folder):
    (folder / "sampler_config.json").write_text('{"n_lf": 3}')


SPOILT = {
    "no files": (lambda f: [p.unlink() for p in f.iterdir()], FileNotFoundError, "no config file"),
    "no state": (lambda f: (f / "sampler.pt").unlink(), FileNotFoundError, "There is no file"),
    "cut": (spoil_cut, ValueError, "damaged or is not a file of tensors"),
    "empty": (lambda f: (f / "sampler.pt").write_bytes(b""), ValueError, "damaged"),
    "text": (lambda f: (f / "sampler.pt").write_text("hello"), ValueError, "damaged"),
    "pickle": (spoil_pickle, ValueError, "damaged or is not a file of tensors"),
    "list": (spoil_list, ValueError, "does not hold a dictionary of tensors"),
    "other tensors": (spoil_other_tensors, ValueError, "does not fit a MetricUniformHMCSampler"),
    "value": (spoil_value, ValueError, "does not fit .*must be positive"),
    "starts": (
        lambda f: spoil_starts(f, torch.zeros(3, 7)), ValueError,
        r"starts must have shape \[1 or more, 2\] for this model, got \[3, 7\]"),
    "no starts": (
        lambda f: spoil_starts(f, torch.zeros(0, 2)), ValueError, r"\[1 or more, 2\].*\[0, 2\]"),
    "NaN": (
        lambda f: spoil_starts(f, torch.full((3, 2), float("nan"))), ValueError,
        "starts must hold finite numbers"),
    "integers": (
        lambda f: spoil_starts(f, torch.zeros(3, 2, dtype=torch.long)), ValueError,
        "starts must hold finite numbers"),
    "centroids": (spoil_number, ValueError, "has 20 centroids, but num_centroids .* is 19"),
    "config": (spoil_config, ValueError, "is not a config written by pythae"),
    "field": (
        spoil_field,
        ValueError,
        "has no field 'leapfrogs'.* Its fields are metric, num_centroids",
    ),
    "name": (spoil_name, ValueError, "holds a NormalSamplerConfig"),
    "nameless": (spoil_nameless, ValueError, "is not a config written by pythae"),
}  # fmt: skip


@pytest.mark.parametrize("spoil, error, message", SPOILT.values(), ids=SPOILT.keys())
def test_missing_damaged_and_foreign_files(fitted, trained, tmp_path, spoil, error, message):
    fitted.save(tmp_path)
    spoil(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        MetricUniformHMCSampler.load(tmp_path, trained)
    # The checksums tell that something was changed; without them, it shows by itself.
    assert re.search(r"was changed after it was saved|There is no", str(refused.value))
    (tmp_path / "sampler_checksums.json").unlink(missing_ok=True)
    with pytest.raises(error, match=message):
        MetricUniformHMCSampler.load(tmp_path, trained)


def test_sampler_of_another_latent_dimension(fitted, tmp_path):
    fitted.save(tmp_path)
    with pytest.raises(ValueError, match=r"starts must have shape \[1 or more, 4\].*\[500, 2\]"):
        MetricUniformHMCSampler.load(tmp_path, build("VAE"))


BAD_CONFIG = {
    "num_centroids": 0,
    "centroid_selection": "kmeans",
    "temperature": 0.0,
    "regularization": -1.0,
    "decay": float("inf"),
    "mcmc_steps_nbr": 0,
    "n_lf": 0,
    "eps_lf": float("nan"),
    "adaptation_steps": -1,
    "target_acceptance": 1.0,
    "seed": -1,
    "n_leapfrog": 3,
    "additive_volume": "often",
}


@pytest.mark.parametrize("field, value", BAD_CONFIG.items())
def test_bad_config(field, value):
    with pytest.raises(ValueError, match=field):
        MetricUniformHMCSamplerConfig(**{field: value})


def test_wrong_kind_of_model_or_config(trained):
    with pytest.raises(TypeError, match="model must be a pythae model, got Linear"):
        MetricUniformHMCSampler(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match="takes a MetricUniformHMCSamplerConfig, got NormalSampler"):
        MetricUniformHMCSampler(trained, NormalSamplerConfig())
