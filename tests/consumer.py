"""A program of a user, for the type checker: calls as the docstrings promise them.

It is checked (mypy), not run.
"""

import numpy as np
import torch
from pythae.models import VAE, VAEConfig
from torch import nn

from pythae_geometric import (
    VAE_DLM,
    BrownianMotionSampler,
    BrownianMotionSamplerConfig,
    BrownianRVAE,
    BrownianRVAEConfig,
    ERManifoldVAE,
    ERManifoldVAEConfig,
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
    RicciAE,
    RicciAEConfig,
    VAE_DLM_Config,
    interpolate,
    register,
)
from pythae_geometric.evaluation import density_and_coverage, frechet_distance, prd_scores
from pythae_geometric.geometry import (
    Metric,
    MixtureMetric,
    PosteriorMetric,
    PullbackMetric,
    Sphere,
    StochasticPullbackMetric,
    brownian_motion,
    exponential_map,
    geodesic,
    hmc,
    jacobian,
    logarithm,
    scalar_curvature,
    squared_distance,
)
from pythae_geometric.trackers import LossParts


class Hyperbolic(Metric):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.diag_embed(z[:, 1:].expand(-1, 2) ** -2)


def square(z: torch.Tensor) -> torch.Tensor:
    return z * z


def moments(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return z, z.exp()


def metrics(z: torch.Tensor) -> list[torch.Tensor]:
    decoder = nn.Linear(2, 5)
    several: list[Metric] = [
        PosteriorMetric(torch.randn(9, 2), torch.ones(9, 2), temperature=1.0),
        MixtureMetric(torch.ones(3), torch.randn(3, 2), torch.eye(2).expand(3, 2, 2)),
        PullbackMetric(decoder),
        PullbackMetric(square),
        StochasticPullbackMetric(moments),
        Hyperbolic(),
    ]
    value, gradient = several[0].log_volume_and_grad(z)
    return [metric(z) for metric in several] + [value, gradient, several[1].christoffel(z)]


def curves(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    curve = geodesic(square, x, y)
    between: torch.Tensor = curve(torch.linspace(0, 1, 5))
    end: torch.Tensor = exponential_map(Hyperbolic(), x, logarithm(Hyperbolic(), x, y))
    return between.mean() + curve.length.sum() + squared_distance(square, x, y).sum() + end.sum()


def chains(metric: PosteriorMetric) -> tuple[torch.Tensor, torch.Tensor]:
    result = hmc(metric.log_volume_and_grad, metric.centroids, steps=10, step_size=0.1)
    path: torch.Tensor = brownian_motion(metric, metric.centroids, time=1.0, steps=10)
    return result.samples, path


def curvature(z: torch.Tensor) -> torch.Tensor:
    points: torch.Tensor = Sphere(2).sample(100)
    return scalar_curvature(square, z) + jacobian(square, z).sum() + points.sum()


def models() -> tuple[int, float | None, torch.Tensor]:
    brownian = BrownianRVAE(BrownianRVAEConfig(input_dim=(1, 8, 8), latent_dim=2, num_centers=50))
    embedded = ERManifoldVAE(ERManifoldVAEConfig(input_dim=(1, 8, 8), manifold="sphere(2)"))
    moving = VAE_DLM(VAE_DLM_Config(input_dim=(201,), latent_dim=6))
    ricci: RicciAE = RicciAE.load_from_folder("my_model")
    centers: int = brownian.model_config.num_centers
    weight: float | None = RicciAEConfig(input_dim=(3,), latent_dim=2).curvature_weight
    moving.evolve(np.zeros((1, 201)), [0.0, 1.0])
    return centers, weight, embedded.sample_manifold(5) + ricci.curvature(torch.zeros(5, 2))


def samplers(model: VAE, data: np.ndarray) -> torch.Tensor | None:
    sampler = MetricUniformHMCSampler(model, MetricUniformHMCSamplerConfig(seed=0))
    sampler.save("my_sampler")
    motion = BrownianMotionSampler(model, BrownianMotionSamplerConfig(metric="pullback"))
    strips: torch.Tensor = interpolate(model, data[:3], data[3:6]).reconstructions
    return motion.sample(num_samples=len(strips))


def measures(a: np.ndarray, b: torch.Tensor) -> float:
    coverage: float = density_and_coverage(a, b).coverage
    return frechet_distance(a, b) + coverage + prd_scores(a, b, seed=0).recall


register(VAE, VAEConfig)
callbacks = [LossParts()]
