"""How fitting and sampling by MetricUniformHMCSampler grow with the numbers of points and samples.

    python examples/benchmarks/sampler_scale.py [--quick]

Prints two Markdown tables: seconds and peak memory of ``fit`` on up to a million synthetic
embeddings of dimension 32, and of ``sample_latent``. Each size runs in a process of its own, so
that the peak is its own; memory is that of the whole process, with torch and the data.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseEncoder

from pythae_geometric import MetricUniformHMCSampler

DIM = 32


class Embeddings(BaseEncoder):
    """The data are the embeddings."""

    def forward(self, x):
        return ModelOutput(embedding=x, log_covariance=0.3 * x.flip(-1) - 2)


def one(points, samples):
    """Seconds of fit and of sample_latent, and peak memory, for one size."""
    torch.manual_seed(0)
    model = VAE(VAEConfig(input_dim=(DIM,), latent_dim=DIM), encoder=Embeddings())
    sampler = MetricUniformHMCSampler(model)
    data = torch.randn(points, DIM)
    start = time.perf_counter()
    sampler.fit(data)
    fitted = time.perf_counter()
    sampler.sample_latent(samples)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(fitted - start, done - fitted, peak)


def run(points, samples):
    command = [sys.executable, __file__, "--one", str(points), str(samples)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return map(float, out.split())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small numbers")
    parser.add_argument("--one", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return one(*args.one)
    points = [1000, 3000] if args.quick else [10_000, 100_000, 1_000_000]
    samples = [100, 300] if args.quick else [1000, 10_000, 100_000]
    print("| Points | fit, s | peak memory, GB |\n| --: | --: | --: |")
    for n in points:
        fit, _, peak = run(n, 1)
        print(f"| {n} | {fit:.2f} | {peak:.2f} |", flush=True)
    print("\n| Samples | sample_latent, s | peak memory, GB |\n| --: | --: | --: |")
    seconds = []
    for n in samples:
        _, drawn, peak = run(1000, n)
        seconds.append(drawn)
        print(f"| {n} | {drawn:.2f} | {peak:.2f} |", flush=True)
    exponent = np.polyfit(np.log(samples), np.log(seconds), 1)[0]
    print(f"\nSeconds grow as the number of samples to the power {exponent:.2f}.")
    return None


if __name__ == "__main__":
    main()
