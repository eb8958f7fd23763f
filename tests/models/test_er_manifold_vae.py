"""ERManifoldVAE: distributions on manifolds, embeddings, group actions, likelihoods, bad input."""

import copy
import math
import os
import subprocess
import sys
import warnings

import pytest
import torch
from pythae.data.datasets import DatasetOutput
from pythae.models import AutoModel
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import GenerationPipeline, TrainingPipeline
from pythae.samplers import GaussianMixtureSamplerConfig, NormalSamplerConfig
from pythae.trainers import BaseTrainerConfig
from scipy import integrate, special, stats
from torch import nn

from pythae_geometric import hub
from pythae_geometric.data.symmetric import random_network, rotated_digits
from pythae_geometric.geometry import Circle, Product, PullbackMetric, Sphere, Torus, jacobian
from pythae_geometric.models.er_manifold_vae import (
    BoundaryWarning,
    CollapsedPosteriorWarning,
    ERManifoldVAE,
    ERManifoldVAEConfig,
    PoorEmbeddingWarning,
    learned_embedding,
    likelihoods,
)
from pythae_geometric.models.er_manifold_vae.embedding_quality import embedding_quality
from pythae_geometric.models.er_manifold_vae.embeddings import ExactEmbedding
from pythae_geometric.models.er_manifold_vae.er_manifold_vae_config import manifold_from_name
from pythae_geometric.models.er_manifold_vae.learned_embedding import LearnedEmbedding
from pythae_geometric.models.er_manifold_vae.likelihoods import (
    BernoulliLikelihood,
    LearnedGaussianLikelihood,
)
from pythae_geometric.models.er_manifold_vae.posteriors import (
    BETA_PARAMETERS,
    POSTERIORS,
    BetaPosterior,
)
from pythae_geometric.samplers.metric_uniform_hmc import MetricUniformHMCSamplerConfig

VOLUMES = {
    "circle": 2 * math.pi,
    "sphere(2)": 4 * math.pi,
    "sphere(3)": 2 * math.pi**2,
    "torus(2)": (2 * math.pi) ** 2,
    "so3": 8 * math.pi**2 * 2**1.5,
    "sphere(2) x circle": 8 * math.pi**2,
}
EVERY = pytest.mark.parametrize("name", VOLUMES)
POSTERIOR = pytest.mark.parametrize("posterior", POSTERIORS)


def small(name="circle", input_dim=(6,), **fields):
    """A model with small networks in float64."""
    torch.manual_seed(0)
    config = ERManifoldVAEConfig(
        input_dim=input_dim, manifold=name, **{"hidden_dims": (16,), **fields}
    )
    return ERManifoldVAE(config).double()


def batch(n=32, dim=6, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return DatasetOutput(data=torch.randn(n, dim, dtype=dtype, generator=generator))


def posterior_of(kind, mean, std, count=1):
    """One-dimensional parameters, as often as wanted."""
    parameters = torch.tensor([mean, 2 * math.log(std)], dtype=torch.float64)
    return POSTERIORS[kind](*parameters[:, None, None].expand(2, count, 1))


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A learned circle, of a short training, and the folder where it is saved."""
    torch.manual_seed(0)
    config = ERManifoldVAEConfig(
        input_dim=(6,), embedding="learned", hidden_dims=(16,), embedding_epochs=3
    )
    model = ERManifoldVAE(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PoorEmbeddingWarning)
        model.fit_embedding()
    folder = tmp_path_factory.mktemp("learned")
    model.save(folder)
    return model, folder


@pytest.fixture
def short_epochs(monkeypatch):
    """An epoch of the training of an embedding is 5 steps, which teach it little."""
    monkeypatch.setattr(learned_embedding, "STEPS_PER_EPOCH", 5)


# Distributions


@EVERY
def test_the_prior_on_the_manifold_is_uniform(name):
    """Its density, with the metric determinant written out, is 1 / volume."""
    model = small(name)
    z = torch.randn(50, model.latent_dim, dtype=torch.float64)
    log_prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
    log_density = log_prior - PullbackMetric(model.embedding).log_volume(z)
    expected = torch.full_like(log_density, -math.log(VOLUMES[name]))
    torch.testing.assert_close(log_density, expected, rtol=0, atol=1e-8)
    model.manifold.check(model.sample_manifold(100))


@POSTERIOR
@pytest.mark.parametrize("name", ["circle", "sphere(2)", "so3"])
def test_kl_is_that_of_the_distributions_on_the_manifold(name, posterior):
    """Monte Carlo on the manifold, each density with the metric determinant of the embedding and
    the densities of scipy in the latent space."""
    model, count = small(name, posterior=posterior), 20_000
    n = model.latent_dim
    mean, std = torch.linspace(-0.7, 0.9, n).double(), torch.linspace(0.3, 0.6, n).double()
    parameters = [p.expand(count, n) for p in (mean, 2 * std.log())]
    q = POSTERIORS[posterior](*parameters)
    torch.manual_seed(1)
    z = q.rsample()
    log_volume = PullbackMetric(model.embedding).log_volume(z)
    if posterior == "normal":
        hidden = torch.as_tensor(stats.norm(mean, std).logpdf(z)).sum(1)
    else:
        a, b = (2 * stats.norm.cdf(sign * mean) / std.square().numpy() for sign in (1, -1))
        u = stats.norm.cdf(z)
        hidden = torch.as_tensor(stats.beta(a, b).logpdf(u) + stats.norm.logpdf(z)).sum(1)
    log_q = hidden - log_volume
    log_p = -math.log(
        VOLUMES[name]
    )  # of the uniform density, by its volume and not by the embedding
    ratio = log_q - log_p
    error = float(ratio.std()) / math.sqrt(count)
    assert float(q.kl()[0]) == pytest.approx(float(ratio.mean()), abs=5 * error)
    torch.testing.assert_close(q.log_ratio(z), ratio, rtol=0, atol=1e-6)


@POSTERIOR
def test_kl_with_a_learned_embedding_needs_no_determinants(learned, posterior):
    """They cancel whatever the embedding: both densities on the curve, from its Jacobian."""
    model, count = learned[0], 20_000
    q = posterior_of(posterior, 0.4, 0.5, count)
    torch.manual_seed(1)
    z = q.rsample()
    embedding = copy.deepcopy(model.embedding).double()
    speed = jacobian(embedding, z).flatten(1).norm(dim=1)
    log_p = torch.as_tensor(stats.norm.logpdf(z[:, 0])) - speed.log()
    log_q = q.log_ratio(z) + log_p
    # q is a density on the curve: the mean of p / q over it is the mass of p, which is 1.
    ratio = log_q - log_p
    assert float(q.kl()[0]) == pytest.approx(
        float(ratio.mean()), abs=5 * float(ratio.std()) / math.sqrt(count)
    )
    assert bool(torch.isfinite(log_q).all())


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.4, 0.5), (-1.5, 0.05), (2.5, 0.3)])
@POSTERIOR
def test_divergences_by_quadrature(posterior, mean, std):
    found = posterior_of(posterior, mean, std)
    if posterior == "normal":
        q = stats.norm(mean, std)
        expected, _ = integrate.quad(
            lambda z: q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z)),
            *(mean - 12 * std, mean + 12 * std),
        )
    else:
        a, b = (2 * stats.norm.cdf(sign * mean) / std**2 for sign in (1, -1))

        def integrand(z):  # over z, where no density is infinite
            ratio = (a - 1) * special.log_ndtr(z) + (b - 1) * special.log_ndtr(-z)
            ratio -= special.betaln(a, b)
            return math.exp(ratio + stats.norm.logpdf(z)) * ratio

        expected, _ = integrate.quad(integrand, -37, 37, points=[mean, 0], limit=500)
    assert float(found.kl()) == pytest.approx(expected, rel=1e-5, abs=1e-8)
    single = POSTERIORS[posterior](torch.tensor([[mean]]), torch.tensor([[2 * math.log(std)]]))
    assert float(single.kl()) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@POSTERIOR
def test_samples_follow_their_distribution(posterior):
    torch.manual_seed(0)
    z = posterior_of(posterior, 0.4, 0.5, 5000).rsample()[:, 0].numpy()
    if posterior == "normal":
        cdf = stats.norm(0.4, 0.5).cdf
    else:
        beta = stats.beta(*(8 * stats.norm.cdf(sign * 0.4) for sign in (1, -1)))

        def cdf(z):
            return beta.cdf(stats.norm.cdf(z))

    assert stats.kstest(z, cdf).statistic < stats.kstwo.ppf(1 - 1e-4, 5000)


def test_beta_gradients_equal_those_of_the_quantile_function():
    """A sample at the level of p has, in a, the slope of the quantile: the reparameterisation."""
    torch.manual_seed(0)
    mean = torch.full((50, 1), 0.3, dtype=torch.float64, requires_grad=True)
    q = BetaPosterior(mean, torch.full_like(mean, -1.0))
    z = q.rsample()
    gradient = torch.autograd.grad(z.sum(), mean)[0][:, 0].numpy()
    u = special.ndtr(z.detach().numpy()[:, 0])

    def quantile(m):
        a, b = (2 * math.e * special.ndtr(sign * m) for sign in (1, -1))
        return special.ndtri(stats.beta(a, b).ppf(level))

    a, b = (2 * math.e * special.ndtr(sign * 0.3) for sign in (1, -1))
    level = stats.beta(a, b).cdf(u)
    slope = (quantile(0.3 + 1e-5) - quantile(0.3 - 1e-5)) / 2e-5
    torch.testing.assert_close(gradient, slope, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mean", [-40.0, -8.0, 0.0, 8.0, 40.0])
@pytest.mark.parametrize("log_variance", [-60.0, -15.0, 0.0, 15.0, 60.0])
def test_beta_parameters_cannot_leave_their_range(mean, log_variance, dtype):
    m = torch.full((20, 2), mean, dtype=dtype, requires_grad=True)
    v = torch.full((20, 2), log_variance, dtype=dtype, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        q = BetaPosterior(m, v)
    low, high = BETA_PARAMETERS
    for parameter in (q.beta.concentration1, q.beta.concentration0):
        assert low * 0.99 <= float(parameter.detach().min())
        assert float(parameter.detach().max()) <= high * 1.08
    z = q.rsample()
    total = q.kl().sum() + z.sum() + q.log_ratio(z).sum()
    for gradient in torch.autograd.grad(total, (m, v)):
        assert bool(torch.isfinite(gradient).all())
    assert bool(torch.isfinite(total))


def test_beta_gradients_are_finite_where_torchs_are_not():
    """torch's derivative of a sample of Beta(66043, 0.7) is not a number for some, in float32:
    these become 0, and the others stay as they are."""
    q = BetaPosterior(torch.zeros(2000, 1), torch.zeros(2000, 1))
    parameters = [torch.full((2000, 1), p, requires_grad=True) for p in (66043.4531, 0.7043)]
    q.beta = torch.distributions.Beta(*parameters)
    torch.manual_seed(0)
    gradients = torch.autograd.grad(q.rsample().sum(), parameters)
    torch.manual_seed(0)
    u = q.beta.rsample()
    margin = 8 * torch.finfo(u.dtype).eps
    z = torch.special.ndtri(u.clamp(margin, 1 - margin))
    expected = torch.autograd.grad(z.sum(), parameters)
    broken = ~torch.isfinite(expected[0])
    assert bool(broken.any())  # or there is nothing to repair any more
    assert not bool(gradients[0][broken].any())
    assert torch.equal(gradients[0][~broken], expected[0][~broken])
    assert torch.equal(gradients[1], expected[1])


def test_beta_parameters_at_their_ends_warn():
    m = torch.zeros(10, 1)
    with pytest.warns(BoundaryWarning, match="100% of the Beta posteriors.*likelihood_std"):
        BetaPosterior(m, m - 60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BetaPosterior(m, m - 5)


# Embeddings


@EVERY
def test_exact_embeddings_have_an_inverse(name):
    model = small(name)
    z = 1.5 * torch.randn(50, model.latent_dim, dtype=torch.float64).clamp(-2, 2)
    torch.testing.assert_close(model.embedding.inverse(model.embedding(z)), z, atol=1e-6, rtol=0)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_latent_code_is_too_far_out(name, dtype):
    """Value and derivative where the distribution function has been rounded to 0 or 1."""
    model = small(name).to(dtype)
    z = torch.tensor([-50.0, -6.0, 6.0, 50.0], dtype=dtype).unsqueeze(1)
    z = z.expand(-1, model.latent_dim).clone().requires_grad_()
    y = model.embedding(z)
    model.manifold.check(y)
    assert bool(torch.isfinite(torch.autograd.grad(y.sum(), z)[0]).all())


def quality_of(embedding, dim=1, manifold=None, count=800):
    manifold = manifold or Circle()
    generator = torch.Generator().manual_seed(0)
    points = manifold.sample(2 * count, generator, dtype=torch.float64)
    return embedding_quality(embedding, dim, *points.chunk(2), manifold.project, generator)


class Map(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, z):
        return self.f(torch.special.ndtr(z))


@pytest.mark.parametrize("M", [Circle(), Sphere(2), Torus(2), Product(Sphere(2), Circle())])
def test_quality_of_exact_embeddings(M):
    quality = quality_of(ExactEmbedding(M.from_cube), M.dim, M)
    assert quality.distance < 1e-6 and quality.p_value > 1e-2 and not quality.faults
    assert quality.smallest_singular_value > 0.2 and quality.self_intersections == 0


def test_quality_sees_what_is_wrong():
    def turns(u):
        return Circle().immersion(2 * math.pi * u)

    assert not quality_of(Map(turns)).faults
    off = quality_of(Map(lambda u: 1.1 * turns(u)))
    assert off.distance == pytest.approx(0.1, abs=1e-6) and "off the manifold" in off.faults[0]
    uneven = quality_of(Map(lambda u: turns(u.square())))
    assert uneven.p_value < 0.01 and any("not spread" in fault for fault in uneven.faults)
    # u² has the derivative 2u: 0.1 at the lower end, 1 in the median.
    assert uneven.smallest_singular_value == pytest.approx(0.1, abs=0.02)
    collapsed = quality_of(Map(lambda u: turns(u - torch.sin(2 * math.pi * u) / (2 * math.pi))))
    assert any("collapses" in fault for fault in collapsed.faults)
    twice = quality_of(Map(lambda u: turns(2 * u)))
    # Points have a partner but those with u in [0.45, 0.55], whose partners are at the ends.
    assert (
        twice.self_intersections == pytest.approx(8 / 9, abs=0.03)
        and twice.distance < 1e-6
        and twice.p_value > 1e-2
    )
    assert any("meets itself" in fault for fault in twice.faults)


def test_energy_test_has_its_level():
    """Under equal distributions a permutation test at 10% rejects about that often."""
    from pythae_geometric.models.er_manifold_vae.embedding_quality import _energy_test

    generator = torch.Generator().manual_seed(0)
    p = torch.tensor(
        [
            _energy_test(*torch.randn(2, 40, 2, generator=generator), 99, generator)[1]
            for _ in range(200)
        ]
    )
    share = float((p <= 0.1).float().mean())
    assert abs(share - 0.1) < 4 * math.sqrt(0.09 / 200)


def test_a_learned_embedding_is_trained_once_and_frozen(tmp_path, short_epochs, monkeypatch):
    """By the first batch; the optimiser of the model does not touch it, nor does loading."""
    fits = []
    fit = LearnedEmbedding.fit

    def counted(self, *args):
        fits.append(args)
        fit(self, *args)

    monkeypatch.setattr(LearnedEmbedding, "fit", counted)
    torch.manual_seed(0)
    config = ERManifoldVAEConfig(
        input_dim=(6,), embedding="learned", hidden_dims=(16,), embedding_epochs=1
    )
    model = ERManifoldVAE(config)
    x = batch(dtype=torch.float32)
    with pytest.raises(RuntimeError, match="fit_embedding"):
        model.eval()(x)
    random_state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PoorEmbeddingWarning)
        model.fit_embedding()
    assert torch.equal(torch.get_rng_state(), random_state)
    other = ERManifoldVAE(copy.deepcopy(config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PoorEmbeddingWarning)
        folder = train(other, x.data, tmp_path, optimizer_cls="AdamW")
    assert len(fits) == 2
    loaded = AutoModel.load_from_folder(folder)
    assert not any(p.requires_grad for p in loaded.embedding.parameters())
    for name, value in model.embedding.state_dict().items():  # of the same seed, untouched
        assert torch.equal(loaded.embedding.state_dict()[name], value), name
    train(loaded, x.data, tmp_path)
    assert len(fits) == 2
    for name, value in model.embedding.state_dict().items():
        assert torch.equal(loaded.embedding.state_dict()[name], value), name


def few_epochs():
    torch.manual_seed(0)
    return ERManifoldVAE(
        ERManifoldVAEConfig(
            input_dim=(6,), embedding="learned", hidden_dims=(16,), embedding_epochs=1
        )
    )


def test_training_at_the_first_batch_is_said(short_epochs):
    model, x = few_epochs(), batch(dtype=torch.float32)
    with pytest.warns(UserWarning, match=r"trained now.*model\.fit_embedding\(\)"):
        model(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(x)


def test_a_process_of_several_trains_the_embedding_alone(short_epochs, monkeypatch):
    """What torchrun sets for the process is neither followed nor changed, nor is more left."""
    alone = few_epochs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PoorEmbeddingWarning)
        before = dict(os.environ)
        alone.fit_embedding()
        assert dict(os.environ) == before
        for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
            monkeypatch.setenv(name, value)
        before = dict(os.environ)
        model = few_epochs()
        model.fit_embedding()
    assert dict(os.environ) == before
    for name, value in alone.embedding.state_dict().items():
        assert torch.equal(model.embedding.state_dict()[name], value), name


PROCESS = """
import os, sys, warnings
import torch
from torch import distributed
from pythae_geometric import ERManifoldVAE, ERManifoldVAEConfig
from pythae_geometric.models.er_manifold_vae import learned_embedding

learned_embedding.STEPS_PER_EPOCH = 5
torch.set_num_threads(1)
warnings.simplefilter("ignore")
distributed.init_process_group("gloo")
rank = distributed.get_rank()
torch.manual_seed(rank)
config = ERManifoldVAEConfig(
    input_dim=(6,), embedding="learned", hidden_dims=(16,), embedding_epochs=1
)
model = ERManifoldVAE(config)
if rank == 1:
    model.fit_embedding = None  # only the first process may train
parallel = torch.nn.parallel.DistributedDataParallel(model)
environment = dict(os.environ)
parallel({"data": torch.randn(8, 6)}).loss.backward()
assert distributed.is_initialized() and dict(os.environ) == environment
torch.save(model.embedding.state_dict(), os.path.join(sys.argv[1], f"{rank}.pt"))
distributed.barrier()
os._exit(0)  # gloo's threads may abort an orderly end
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_of_two_processes_the_first_trains_the_embedding(tmp_path):
    """By its first batch, in the user's process group, which lives on."""
    (tmp_path / "process.py").write_text(PROCESS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", tmp_path / "process.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert bool(first["fitted"])
    for name, value in first.items():
        assert torch.equal(second[name], value), name


def test_a_learned_circle_is_near_the_circle(learned):
    """After a training of a few seconds; the numbers of a full one are in the examples."""
    quality = learned[0].embedding_quality()
    assert quality.distance < 0.3 and quality.self_intersections < 0.05
    # An uneven distribution on the circle, or a point, has a larger energy by far.
    assert quality.energy < 0.1


# Group actions


@EVERY
def test_the_group_encoder_moves_points_by_its_rotation(name):
    """Equivariance: what moves the embedded points moves their latent codes."""
    model = small(name, group_action=True)
    encoder, M, x = model.encoder, model.manifold, batch().data
    z = torch.randn(32, model.latent_dim, dtype=torch.float64).clamp(-2, 2)
    y = model.embedding(z)
    g = M.group_element_from_frame(encoder.frame(x))
    moved = encoder.move(x, y)
    M.check(moved)
    torch.testing.assert_close(moved, M.act(g, y))
    torch.testing.assert_close(M.act(g.mT, moved), y)  # the inverse element undoes it
    torch.testing.assert_close(M.act(M.compose(g, g), y), M.act(g, M.act(g, y)))
    torch.testing.assert_close(M.act(M.identity(dtype=y.dtype), y), y)
    hidden = model.embedding.inverse(moved)
    torch.testing.assert_close(model.embedding(hidden), moved, atol=1e-6, rtol=0)


def test_rotating_the_circle_shifts_its_coordinate():
    """Equivariance of the exact embedding: a turn by t is a shift of u by t / 2π, modulo 1."""
    M = Circle()
    u = torch.rand(50, 1, dtype=torch.float64)
    t = 6 * torch.rand(50, 1, dtype=torch.float64)
    turned = M.act(M.group_element(t), M.from_cube(u))
    shifted = M.from_cube((u + t / (2 * math.pi)).remainder(1.0))
    torch.testing.assert_close(turned, shifted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_outputs_are_the_same_latent_codes_for_every_user(posterior):
    """recon_x is the decoded z, and the encoder's embedding is where the data are."""
    model = small("sphere(2)", group_action=True, posterior=posterior).eval()
    x = batch()
    out = model(x)
    torch.testing.assert_close(
        model.decoder(out.z)["reconstruction"], out.recon_x, atol=1e-5, rtol=0
    )
    centre = model.embedding(model.encoder(x.data)["embedding"])
    torch.testing.assert_close(centre, model.manifold_points(x.data), atol=1e-6, rtol=0)
    plain = small("sphere(2)", posterior=posterior).eval()
    out = plain(x)
    torch.testing.assert_close(plain.decoder(out.z)["reconstruction"], out.recon_x)


# Likelihood


class Fixed(BaseEncoder):
    """A posterior with given parameters."""

    def __init__(self, mean, log_variance):
        super().__init__()
        self.parameters_ = nn.Parameter(torch.tensor([mean, log_variance], dtype=torch.float64))

    def forward(self, x):
        mean, log_variance = self.parameters_.expand(len(x), 2).split(1, dim=1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Linear(BaseDecoder):
    def __init__(self, matrix):
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor(matrix, dtype=torch.float64))

    def forward(self, y):
        return ModelOutput(reconstruction=y @ self.matrix)


MATRIX = [[1.0, 0.2, -0.5], [0.3, 0.8, 0.1]]
X = [0.7, 0.9, -0.3]


def known(posterior, group_action=False, mean=-0.4, log_variance=-1.0):
    torch.manual_seed(0)
    config = ERManifoldVAEConfig(
        input_dim=(3,),
        posterior=posterior,
        likelihood_std=0.4,
        group_action=group_action,
        hidden_dims=(4,),
    )
    return ERManifoldVAE(config, Fixed(mean, log_variance), Linear(MATRIX)).double()


def exact_log_likelihood():
    """A circle under a linear map: the mean of the likelihood over the angle, by quadrature."""
    t = torch.arange(10_000, dtype=torch.float64) * (2 * math.pi / 10_000)
    mean = torch.stack([t.cos(), t.sin()], 1) @ torch.tensor(MATRIX, dtype=torch.float64)
    density = stats.norm(mean, 0.4).logpdf(X).sum(1)
    return float(torch.as_tensor(density).logsumexp(0)) - math.log(10_000)


@pytest.mark.parametrize("group_action", [False, True])
@POSTERIOR
def test_importance_sampling_agrees_with_quadrature(posterior, group_action):
    model = known(posterior, group_action)
    x = torch.tensor([X], dtype=torch.float64)
    torch.manual_seed(0)
    estimates = torch.tensor([model.get_nll(x, n_samples=4000, batch_size=1500) for _ in range(8)])
    error = float(estimates.std()) / math.sqrt(8)
    assert error < 0.03
    assert float(estimates.mean()) == pytest.approx(exact_log_likelihood(), abs=6 * error)


@POSTERIOR
def test_bounds_grow_with_the_number_of_samples(posterior):
    model, exact = known(posterior), exact_log_likelihood()
    x = torch.tensor([X], dtype=torch.float64).expand(2000, 3)
    torch.manual_seed(0)
    with torch.no_grad():
        bounds = [-float(model.eval()({"data": x}).loss)]
    bounds += [model.get_nll(x, n_samples=S, batch_size=100_000) for S in (1, 4, 16, 64)]
    # ELBO and S = 1 are the same bound; the others grow, and none is above the likelihood.
    assert abs(bounds[0] - bounds[1]) < 0.35 * abs(bounds[1] - exact)
    assert bounds[1] < bounds[2] < bounds[3] < bounds[4] < exact + 0.02


@pytest.mark.parametrize("batch_size", [1, 7, 100_000])
def test_batches_give_one_estimate(batch_size):
    """With a posterior that has no width to speak of, every batching gives the same number."""
    model = known("normal", log_variance=-40.0)
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = [float(model.get_nll(x[i : i + 1])) for i in range(5)]
    got = model.get_nll(x, n_samples=3, batch_size=batch_size)
    # Weights of several samples differ by their noise: -½ε² has the deviation 0.7.
    assert got == pytest.approx(sum(values) / 5, abs=3)


def test_loss_is_the_negative_elbo_in_nats():
    model, x = small(likelihood_std=0.3), batch()
    torch.manual_seed(0)
    out = model(x)
    expected = -stats.norm(out.recon_x.detach().numpy(), 0.3).logpdf(x.data).sum(1).mean()
    assert out.recon_loss.item() == pytest.approx(expected)
    assert out.loss.item() == pytest.approx((out.recon_loss + out.reg_loss).item())


@pytest.mark.parametrize("momentum", [1.0, 0.1])
def test_the_learned_deviation_is_that_of_the_errors(momentum, monkeypatch):
    """Of unchanging errors the maximum likelihood estimate of scipy; of others, on the way."""
    monkeypatch.setattr(likelihoods, "MOMENTUM", momentum)
    likelihood = LearnedGaussianLikelihood().double()
    x = 0.3 * batch(200).data
    mean = torch.zeros_like(x)
    for _ in range(3):
        likelihood.log_prob(x, mean)
    _, std = stats.norm.fit(x, floc=0)
    assert likelihood.std == pytest.approx(std)
    density = stats.norm(0, std).logpdf(x).sum(1)
    likelihood.eval()
    torch.testing.assert_close(likelihood.log_prob(x, mean), torch.as_tensor(density))
    likelihood.log_prob(100 * x, mean)
    assert likelihood.std == pytest.approx(std)  # evaluation learns nothing
    likelihood.train().log_prob(100 * x, mean)
    weight = max(momentum, 1 / 4)  # the fourth batch
    expected = math.sqrt(std**2 * (1 - weight) + weight * (100 * std) ** 2)
    assert likelihood.std == pytest.approx(expected)


def test_errors_of_zero_leave_a_deviation():
    x = batch().data
    likelihood = LearnedGaussianLikelihood().double()
    value = likelihood.log_prob(x, x.clone().requires_grad_())
    assert bool(torch.isfinite(value).all())
    assert likelihood.std == pytest.approx(1e-3 * float(x.square().mean().sqrt()))


def test_gradients_of_two_batches_are_those_of_each():
    """The deviation is learned in place, between a forward pass and its backward pass."""
    x, y = batch(seed=0).data, batch(seed=1).data
    likelihood = LearnedGaussianLikelihood().double()
    mean = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    values, slopes = [], []
    for data in (x, y):
        values.append(likelihood.log_prob(data, mean).sum())
        slopes.append(data.sum(0) / float(likelihood.variance))
    gradient = torch.autograd.grad(sum(values), mean)[0]
    torch.testing.assert_close(gradient, sum(slopes))


def test_the_bernoulli_likelihood_is_that_of_scipy():
    likelihood = BernoulliLikelihood()
    generator = torch.Generator().manual_seed(0)
    mean = torch.rand(8, 1, 2, 3, dtype=torch.float64, generator=generator)
    x = torch.rand(8, 1, 2, 3, dtype=torch.float64, generator=generator).round()
    expected = stats.bernoulli(mean).logpmf(x).sum((1, 2, 3))
    torch.testing.assert_close(likelihood.log_prob(x, mean), torch.as_tensor(expected))
    with pytest.raises(ValueError, match=r"needs data in \[0, 1\], got 0 to 255: rescale"):
        likelihood.log_prob(255 * x, mean)
    with pytest.raises(ValueError, match=r"outputs of the decoder.*end it with a sigmoid"):
        likelihood.log_prob(x, mean - 1)


def test_models_of_the_bernoulli_likelihood(tmp_path):
    torch.manual_seed(0)
    config = ERManifoldVAEConfig(input_dim=(6,), likelihood="bernoulli", hidden_dims=(8,))
    x = batch(dtype=torch.float32).data.sigmoid()
    folder = train(ERManifoldVAE(config), x, tmp_path)
    loaded = AutoModel.load_from_folder(folder).eval()
    out = loaded({"data": x})
    expected = torch.nn.functional.binary_cross_entropy(out.recon_x, x, reduction="sum") / len(x)
    torch.testing.assert_close(out.recon_loss, expected)
    assert math.isfinite(loaded.get_nll(x, n_samples=5))


@pytest.mark.parametrize("fields", [{}, {"likelihood": "bernoulli"}], ids=["gaussian", "bernoulli"])
def test_the_default_learns_images(fields, digits, tmp_path):
    """The codes say more than a nat about the digits, and reconstructions leave less than three
    quarters of the variance of data that training has not seen."""
    torch.manual_seed(0)
    config = ERManifoldVAEConfig(input_dim=(1, 8, 8), manifold="sphere(2)", **fields)
    x, test = torch.as_tensor(digits[:1000]), torch.as_tensor(digits[1000:1300])
    batches = {"per_device_train_batch_size": 64}
    folder = train(ERManifoldVAE(config), x, tmp_path, epochs=20, **batches)
    out = AutoModel.load_from_folder(folder).eval()({"data": test})
    assert out.reg_loss.item() > 1
    error = (out.recon_x - test).square().sum() / (test - x.mean(0)).square().sum()
    assert error.item() < 0.75


def test_the_default_learns_a_turning_object(tmp_path):
    """With a group action: codes that go round, of no more than a few nats, and more than two
    thirds of the variance. (At the cut of the chart they have 15 nats and more.)"""
    x = rotated_digits(1000, generator=torch.Generator().manual_seed(0)).data
    torch.manual_seed(0)
    config = ERManifoldVAEConfig(input_dim=(1, 16, 16), manifold="circle", group_action=True)
    batches = {"per_device_train_batch_size": 64}
    folder = train(ERManifoldVAE(config), x, tmp_path, epochs=14, **batches)
    out = AutoModel.load_from_folder(folder).eval()({"data": x})
    assert 2 < out.reg_loss.item() < 7
    error = (out.recon_x - x).square().sum() / (x - x.mean(0)).square().sum()
    assert error.item() < 1 / 3


def test_a_collapsed_posterior_is_said_once(digits, tmp_path):
    """Of a deviation that is larger than that of the data by far."""
    torch.manual_seed(0)
    config = ERManifoldVAEConfig(
        input_dim=(1, 8, 8), manifold="sphere(2)", likelihood_std=3.0, hidden_dims=(16,)
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(ERManifoldVAE(config), digits[:100], tmp_path, epochs=13, learning_rate=0.03)
    found = [w for w in caught if w.category is CollapsedPosteriorWarning]
    assert len(found) == 1
    assert "likelihood_std=3 is large" in str(found[0].message)


def test_a_posterior_that_says_something_is_no_collapsed_one():
    model = small()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kl in [0.0] * 9 + [0.2] * 5:  # near the prior at first, as every model is
            model._collapse_watch.add(torch.tensor(kl))
            model.update()


# Training, files, samplers


def train(model, data, folder, epochs=2, eval_data=None, **fields):
    config = BaseTrainerConfig(
        **{
            "output_dir": str(folder),
            "num_epochs": epochs,
            "learning_rate": 1e-3,
            "per_device_train_batch_size": 16,
            "per_device_eval_batch_size": 16,
            "no_cuda": True,
            **fields,
        }
    )
    pipeline = TrainingPipeline(model=model, training_config=config)
    pipeline(train_data=data, eval_data=eval_data)
    return os.path.join(pipeline.trainer.training_dir, "final_model")


@pytest.mark.parametrize("group_action", [False, True])
@POSTERIOR
@EVERY
def test_every_manifold_trains_evaluates_and_loads(name, posterior, group_action, tmp_path):
    torch.manual_seed(0)
    config = ERManifoldVAEConfig(
        input_dim=(1, 2, 3),
        manifold=name,
        posterior=posterior,
        group_action=group_action,
        hidden_dims=(16,),
    )
    model = ERManifoldVAE(config)
    before = copy.deepcopy(model.state_dict())
    data = batch(48, dtype=torch.float32).data.view(-1, 1, 2, 3)
    folder = train(model, data, tmp_path, eval_data=data[:20])
    assert all(not torch.equal(v, before[k]) for k, v in model.state_dict().items())
    loaded = AutoModel.load_from_folder(folder).eval()
    assert type(loaded) is ERManifoldVAE and loaded.model_config == model.model_config
    predicted = loaded.predict(data[:5])
    assert predicted.recon_x.shape == (5, 1, 2, 3)
    assert predicted.embedding.shape == (5, model.latent_dim)
    assert loaded.decoder(100 * torch.randn(7, model.latent_dim))["reconstruction"].isfinite().all()
    for other in (loaded, copy.deepcopy(loaded)):
        torch.manual_seed(1)
        out = other({"data": data}, epoch=1, dataset_size=48, uses_ddp=False)
        assert bool(torch.isfinite(out.loss)) and out.z.shape == (48, model.latent_dim)


def test_a_learned_model_loads_with_its_embedding(learned, tmp_path):
    model, folder = learned
    for loaded in (AutoModel.load_from_folder(folder), ERManifoldVAE.load_from_folder(folder)):
        z = torch.randn(5, 1)
        assert torch.equal(loaded.embedding(z), model.embedding(z))
        assert loaded.embedding_quality() == model.embedding_quality()
    assert not any(name.endswith(".pkl") for name in os.listdir(folder))


class OwnEncoder(BaseEncoder):
    def __init__(self, dim):
        super().__init__()
        self.layer = nn.Linear(6, 2 * dim)

    def forward(self, x):
        mean, log_variance = self.layer(x).chunk(2, dim=1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class OwnDecoder(BaseDecoder):
    def __init__(self, dim):
        super().__init__()
        self.layer = nn.Linear(dim, 6)

    def forward(self, y):
        return ModelOutput(reconstruction=self.layer(y))


def test_custom_networks_with_a_group_action(tmp_path):
    torch.manual_seed(0)
    config = ERManifoldVAEConfig(
        input_dim=(6,), manifold="torus(2)", group_action=True, hidden_dims=(8,)
    )
    model = ERManifoldVAE(config, OwnEncoder(2), OwnDecoder(4))
    folder = train(model, batch(dtype=torch.float32).data, tmp_path)
    loaded = AutoModel.load_from_folder(folder).eval()
    again = tmp_path / "again"
    loaded.save(again)  # a loaded model is saved as it was
    third = AutoModel.load_from_folder(again).eval()
    assert not loaded.model_config.uses_default_decoder
    x = batch(dtype=torch.float32)
    values = []
    for m in (loaded, third):
        torch.manual_seed(0)
        values.append(m(x).recon_x)
    assert torch.equal(*values)


def ellipse(n, generator):
    t = 2 * math.pi * torch.rand(n, 1, generator=generator)
    return torch.cat([2 * t.cos(), t.sin(), 0 * t], dim=1)


class EllipseChart(nn.Module):
    def __init__(self):
        super().__init__()
        self.axes = nn.Parameter(torch.tensor([2.0, 1.0]))

    def forward(self, u):
        t = 2 * math.pi * u
        return torch.cat([self.axes[0] * t.cos(), self.axes[1] * t.sin(), 0 * t], dim=1)


def custom(embedding="learned", **fields):
    return ERManifoldVAEConfig(
        input_dim=(6,),
        manifold="custom",
        latent_dim=1,
        ambient_dim=3,
        embedding=embedding,
        hidden_dims=(8,),
        embedding_epochs=1,
        **fields,
    )


def test_a_custom_manifold_learned_from_samples(tmp_path, short_epochs):
    """What was learned is saved; the sampler is not needed again, nor pickled."""
    torch.manual_seed(0)
    model = ERManifoldVAE(custom(), sampler=ellipse)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PoorEmbeddingWarning)
        folder = train(model, batch(dtype=torch.float32).data, tmp_path)
    assert not any(name.endswith(".pkl") for name in os.listdir(folder))
    loaded = AutoModel.load_from_folder(folder)
    assert torch.equal(loaded.embedding(torch.ones(1, 1)), model.embedding(torch.ones(1, 1)))
    loaded(batch(dtype=torch.float32))
    with pytest.raises(ValueError, match="no sampler"):
        loaded.embedding_quality()


@pytest.mark.parametrize("chart", [EllipseChart(), lambda u: ellipse_at(u)], ids=["module", "def"])
def test_a_custom_exact_embedding(chart, tmp_path):
    model = ERManifoldVAE(custom("exact"), sampler=ellipse, exact_embedding=chart)
    quality = model.fit_embedding()
    assert quality.p_value > 0.01 and quality.distance < 0.02 and not quality.faults
    train(model, batch(dtype=torch.float32).data, tmp_path)
    folder = str(tmp_path / "saved")
    model.save(folder)
    loaded = AutoModel.load_from_folder(folder)
    z = torch.randn(5, 1)
    assert torch.equal(loaded.decoder(z)["reconstruction"], model.decoder(z)["reconstruction"])
    os.unlink(os.path.join(folder, "embedding.pkl"))
    with pytest.raises(FileNotFoundError, match=r"embedding\.pkl"):
        AutoModel.load_from_folder(folder)


def ellipse_at(u):
    t = 2 * math.pi * u
    return torch.cat([2 * t.cos(), t.sin(), 0 * t], dim=1)


@pytest.mark.parametrize(
    "config",
    [
        NormalSamplerConfig(),
        GaussianMixtureSamplerConfig(n_components=2),
        MetricUniformHMCSamplerConfig(num_centroids=10, mcmc_steps_nbr=3),
    ],
    ids=["normal", "mixture", "hmc"],
)
def test_samplers_generate_from_codes_of_a_group_action(config):
    torch.manual_seed(0)
    model = ERManifoldVAE(
        ERManifoldVAEConfig(
            input_dim=(6,), manifold="sphere(2)", group_action=True, hidden_dims=(8,)
        )
    )
    data = batch(64, dtype=torch.float32).data.clamp(0, 1)  # what pythae's mixture asks for
    samples = GenerationPipeline(model, config)(
        num_samples=12, return_gen=True, train_data=data, save_sampler_config=False
    )
    assert samples.shape == (12, 6) and bool(torch.isfinite(samples).all())


def test_a_circle_is_learned_from_data_on_one():
    """The toy task: the codes of a group-action encoder follow the angle all the way round,
    without a jump, and reconstruct the data."""
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(0, 2 * math.pi, 257)[:-1]
    circle = torch.stack([t.cos(), t.sin()], dim=1)
    data = random_network(2, generator=generator)(circle)
    torch.manual_seed(0)
    config = ERManifoldVAEConfig(
        input_dim=(100,), likelihood_std=0.05, group_action=True, hidden_dims=(100,)
    )
    model = ERManifoldVAE(config)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(250):
        optimiser.zero_grad()
        model({"data": data}).loss.backward()
        optimiser.step()
    codes = model.eval().manifold_points(data)
    angle = torch.atan2(codes[:, 1], codes[:, 0])
    change = (angle - angle.roll(1) + math.pi).remainder(2 * math.pi) - math.pi
    assert abs(float(change.sum())) == pytest.approx(2 * math.pi, abs=1e-4)  # once round
    assert float(change.abs().max()) < 0.25  # the mean is 0.025
    # Less than a tenth of the variance of the data is left.
    error = (model.predict(data).recon_x - data).square().sum()
    assert error.item() < 0.1 * float((data - data.mean(0)).square().sum())


def test_sharing_asks_for_a_pickle_only_where_there_is_one(learned, tmp_path, monkeypatch):
    folder = learned[1]
    monkeypatch.setattr(hub, "pull_folder", lambda path, files, **_: str(folder))
    loaded = ERManifoldVAE.load_from_hf_hub("me/circle")
    assert torch.equal(loaded.embedding(torch.ones(1, 1)), learned[0].embedding(torch.ones(1, 1)))
    assert "allow_pickle" not in loaded._card_code("me/circle")
    folder = tmp_path
    model = ERManifoldVAE(custom("exact"), exact_embedding=EllipseChart())
    model.save(folder)
    with pytest.raises(ValueError, match=r"embedding\.pkl.*allow_pickle=True"):
        ERManifoldVAE.load_from_hf_hub("me/ellipse")
    loaded = ERManifoldVAE.load_from_hf_hub("me/ellipse", allow_pickle=True)
    assert torch.equal(loaded.embedding(torch.ones(1, 1)), model.embedding(torch.ones(1, 1)))
    assert 'from_hf_hub("me/ellipse", allow_pickle=True)' in model._card_code("me/ellipse")


# Bad input


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"manifold": "klein bottle"}, "'klein bottle' is not known: it is \"circle\""),
        ({"manifold": "sphere(2)", "latent_dim": 1}, "latent_dim is 1, but 2.*cannot cover"),
        ({"manifold": "circle", "latent_dim": 2}, "latent_dim is 2, but 1"),
        ({"manifold": "so3", "ambient_dim": 3}, "ambient_dim is 3, but 9"),
        ({"manifold": "custom"}, "set latent_dim"),
        ({"manifold": "custom", "latent_dim": 3, "ambient_dim": 2}, "does not fit into 2"),
        (
            {"manifold": "custom", "latent_dim": 1, "ambient_dim": 2, "group_action": True},
            "symmetry group.*none is defined",
        ),
        ({"likelihood": "bernoulli", "likelihood_std": 0.1}, "belongs to likelihood='gaussian'"),
    ],
)
def test_configs_that_cannot_be(fields, match):
    with pytest.raises((ValueError, TypeError), match=match):
        ERManifoldVAEConfig(input_dim=(6,), **fields)


@pytest.mark.parametrize(
    ("sampler", "match"),
    [
        (lambda n, generator: torch.zeros(n, 2), r"must return a tensor \[16, 3\].*got \[16, 2\]"),
        (lambda n, generator: torch.zeros(3, n), r"got \[3, 16\]"),
        (lambda n, generator: [[0.0] * 3] * n, "got list"),
        (lambda n, generator: torch.full((n, 3), math.nan), "NaN or infinity"),
    ],
)
def test_samplers_that_cannot_be(sampler, match):
    with pytest.raises(ValueError, match=match):
        ERManifoldVAE(custom(), sampler=sampler)


def test_numbers_that_do_not_fit():
    model = small()
    for call in (model.sample_manifold, model.embedding_quality):
        for bad in (0, -1, 1.5, True, "many"):
            with pytest.raises(ValueError, match="must be a whole number of at least"):
                call(bad)


def test_functions_that_do_not_fit():
    with pytest.raises(ValueError, match="needs exact_embedding="):
        ERManifoldVAE(custom("exact"))
    with pytest.raises(ValueError, match=r"finite points \[B, 3\].*got \[3, 1\]"):
        ERManifoldVAE(custom("exact"), exact_embedding=lambda u: u)
    with pytest.raises(ValueError, match='embedding is "learned"'):
        ERManifoldVAE(custom(), sampler=ellipse, exact_embedding=ellipse_at)
    with pytest.raises(ValueError, match='belongs to manifold="custom"'):
        ERManifoldVAE(ERManifoldVAEConfig(input_dim=(6,)), sampler=ellipse)
    with pytest.raises(ValueError, match="no sampler"):
        ERManifoldVAE(custom())(batch(dtype=torch.float32))


class Returning(BaseDecoder):
    """A decoder that returns what a function makes of its values."""

    def __init__(self, returned):
        super().__init__()
        self.layer, self.returned = nn.Linear(2, 6), returned

    def forward(self, y):
        return self.returned(self.layer(y))


def test_decoders_that_leave_out_an_axis():
    """Reshaped, as by pythae's models; never a loss of [B, B, ...]."""
    config = ERManifoldVAEConfig(input_dim=(1, 6), likelihood_std=1.0)
    torch.manual_seed(0)
    model = ERManifoldVAE(config, decoder=Returning(lambda x: ModelOutput(reconstruction=x)))
    x = batch(dtype=torch.float32).data.unsqueeze(1)
    out = model({"data": x})
    assert out.recon_x.shape == x.shape
    expected = -stats.norm(out.recon_x.detach(), 1).logpdf(x).sum((1, 2)).mean()
    assert float(out.recon_loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert math.isfinite(model.get_nll(x))


@pytest.mark.parametrize(
    ("returned", "match"),
    [
        (lambda x: x, "must return a ModelOutput with reconstruction, got a Tensor"),
        (lambda x: (x, x), "must return a ModelOutput with reconstruction, got a tuple"),
        (lambda x: ModelOutput(recon=x), "reconstruction, got a ModelOutput with recon"),
        (lambda x: ModelOutput(reconstruction=x[:1]), r"shape \[32, 6\].*got \[1, 6\]"),
        (lambda x: ModelOutput(reconstruction=x[:, :5]), r"shape \[32, 6\].*got \[32, 5\]"),
    ],
)
def test_decoders_that_return_something_else(returned, match):
    config = ERManifoldVAEConfig(input_dim=(6,))
    with pytest.raises(ValueError, match="must take points of the manifold"):
        ERManifoldVAE(config, decoder=Returning(returned))
    model = ERManifoldVAE(config)
    model.decoder.network = Returning(returned)
    with pytest.raises((TypeError, ValueError), match=match):
        model(batch(dtype=torch.float32))


def test_networks_that_do_not_fit():
    config = ERManifoldVAEConfig(input_dim=(6,), manifold="torus(2)")
    with pytest.raises(ValueError, match=r"points of the manifold.*latent_dim=4"):
        ERManifoldVAE(config, decoder=OwnDecoder(2))
    with pytest.raises(ValueError, match=r"shape \[32, 2\].*got \[32, 3\]"):
        ERManifoldVAE(config, encoder=OwnEncoder(3))(batch(dtype=torch.float32))


def test_data_that_do_not_fit():
    model = small()
    with pytest.raises(ValueError, match=r"shape \[B, 6\].*got \[32, 5\]"):
        model(batch(dim=5))
    x = batch()
    x.data[3, 2] = math.nan
    for call in (model, lambda x: model.get_nll(x.data), lambda x: model.manifold_points(x.data)):
        with pytest.raises(ValueError, match="NaN or infinity"):
            call(x)
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(math.nan)
    with pytest.raises(ArithmeticError, match="training has diverged"):
        model(batch())


def test_names_of_manifolds():
    assert repr(manifold_from_name("Sphere(2) x circle")) == "Product(Sphere(2), Circle())"
    assert repr(manifold_from_name("torus(3)")) == "Torus(3)"
