"""What a leapfrog step costs in a metric that follows the shape of the data; a whole generation.

    python examples/benchmarks/mixture_metric.py [--quick] [--threads N] [--device cuda]

Microseconds of one value and gradient of the log volume, the cost of a leapfrog step, for
``PosteriorMetric`` with diagonal and with full precisions and for ``MixtureMetric``, timed in turn.
Then seconds of fitting the default ``MetricUniformHMCSampler`` to 50,000 codes in 16 dimensions and
of drawing 10,000 samples, and the peak memory of the whole process.
"""

import pathlib
import sys
import time
from functools import partial

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from lib.arguments import timing_arguments
from lib.costs import in_turn, peak, shown
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder

from pythae_geometric import MetricUniformHMCSampler, MetricUniformHMCSamplerConfig
from pythae_geometric.commands.tables import table
from pythae_geometric.geometry import MixtureMetric, PosteriorMetric

BATCH = 500


def metrics(K, d, device):
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(K, d, generator=generator)
    A = torch.randn(K, d, d, generator=generator)
    S = 0.1 * (A @ A.mT / d + torch.eye(d))
    diagonal = S.diagonal(dim1=1, dim2=2).reciprocal()
    made = {
        "PosteriorMetric, diagonal": PosteriorMetric(c, diagonal, d**0.5),
        "PosteriorMetric, full, additive volume": PosteriorMetric(
            c, torch.linalg.inv(S), d**0.5, additive_volume=True
        ),
        "MixtureMetric": MixtureMetric(torch.ones(K), c, S),
    }
    return {name: metric.to(device) for name, metric in made.items()}, c[:BATCH].to(device)


class Codes(BaseEncoder):
    """Data are their own codes."""

    def forward(self, x):
        return ModelOutput(embedding=x, log_covariance=torch.full_like(x, -6.0))


class Same(BaseDecoder):
    def forward(self, z):
        return ModelOutput(reconstruction=z)


def cloud(number, d):
    """Codes as those of ten classes of images: curved, clustered, of unequal widths."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 10, (number,), generator=generator)
    centre = 1.5 * torch.randn(10, d, generator=generator)
    maps = torch.randn(10, d, d, generator=generator) / d**0.5
    x = torch.randn(number, d, generator=generator)
    return centre[label] + torch.einsum("nij,nj->ni", maps[label], x + 0.3 * x.roll(1, 1) ** 2)


def main():
    args = timing_arguments(__doc__)
    sizes, rounds, number, samples = [(100, 16), (2000, 16), (2000, 64)], 15, 50_000, 10_000
    if args.quick:
        sizes, rounds, number, samples = [(50, 4)], 2, 500, 100

    print(f"batch {BATCH}, microseconds (ratio to diagonal precisions)\n")
    rows = []
    for K, d in sizes:
        made, z = metrics(K, d, args.device)
        calls = {name: partial(metric.log_volume_and_grad, z) for name, metric in made.items()}
        found = [1e6 * t for t in in_turn(calls, rounds).values()]
        rows.append([str(K), str(d), *(f"{t:.0f} ({t / found[0]:.1f})" for t in found)])
    print("\n".join(table(["K", "d", *made], rows)) + "\n")

    model, data = VAE(VAEConfig(input_dim=(16,), latent_dim=16), Codes(), Same()), cloud(number, 16)
    sampler = MetricUniformHMCSampler(model, MetricUniformHMCSamplerConfig(seed=0))
    start = time.perf_counter()
    sampler.fit(data)
    fitted = time.perf_counter()
    sampler.sample_latent(samples)
    done = time.perf_counter()
    header = ["codes", "d", "components", "fit, s", f"{samples} samples, s", "acceptance", "peak"]
    cells = [str(number), "16", str(len(sampler.metric.centroids)), f"{fitted - start:.1f}"]
    cells += [f"{done - fitted:.1f}", f"{sampler.diagnostics.acceptance_rate:.2f}", shown(peak())]
    print("\n".join(table(header, [cells])))


if __name__ == "__main__":
    main()
