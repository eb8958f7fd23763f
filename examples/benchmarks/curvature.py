"""Curvature as a training loss: the Gauss equation against nested Christoffel symbols.

Value and parameter gradient of the mean of R² for a decoder 256-256-784, time and peak memory of
both in one run. The plain implementation is the published algorithm: metric, its derivative, the
Christoffel symbols, their derivative, the Riemann tensor, each by automatic differentiation of
the one before, vectorised over the batch.

    python examples/benchmarks/curvature.py [--quick]
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.func import jacfwd, vmap

from pythae_geometric.geometry.curvature import scalar_curvature


def decoder(d: int, width: int = 256, outputs: int = 784) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(d, width),
        nn.SiLU(),
        nn.Linear(width, width),
        nn.SiLU(),
        nn.Linear(width, outputs),
    )


def nested_christoffel(f: nn.Module, z: torch.Tensor) -> torch.Tensor:
    """Scalar curvature from three nested derivatives, as published."""

    def metric(p):
        J = jacfwd(f)(p)
        return J.mT @ J

    def christoffel(p):
        dg = jacfwd(metric)(p)  # [l, j, k] = ∂_k g_lj
        lowered = 0.5 * (dg.transpose(1, 2) + dg - dg.permute(2, 0, 1))
        return torch.einsum("il,ljk->ijk", torch.linalg.inv(metric(p)), lowered)

    def curvature(p):
        gamma, d_gamma = christoffel(p), jacfwd(christoffel)(p)
        products = torch.einsum("ikm,mjl->ijkl", gamma, gamma)
        derivatives = torch.einsum("ijlk->ijkl", d_gamma)
        riemann = derivatives - derivatives.mT + products - products.mT
        ricci = torch.einsum("ijil->jl", riemann)
        return (torch.linalg.inv(metric(p)) * ricci).sum()

    return vmap(curvature)(z)


METHODS = {"Gauss equation": scalar_curvature, "nested Christoffel": nested_christoffel}


def step(method: str, d: int, batch: int) -> Callable[[], torch.Tensor]:
    """Value and parameter gradient of the loss; returns the curvatures."""
    f = decoder(d)
    z = torch.randn(batch, d, generator=torch.Generator().manual_seed(1))

    def run():
        f.zero_grad()
        R = METHODS[method](f, z)
        R.square().mean().backward()
        return R.detach()

    return run


def measure(make: Callable[..., Callable], arguments: tuple, repeats: int) -> tuple:
    """Least seconds, extra peak memory in MB and the result, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (make, arguments, repeats))


def _measure(make, arguments, repeats):
    torch.set_num_threads(1)
    make(*arguments[:-1], 1)()  # one sample: loads what torch loads on first use
    run = make(*arguments)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = run()
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds), peak, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small dimensions, few repetitions")
    quick = parser.parse_args().quick
    settings = [(2, 128), (8, 16)] if quick else [(2, 128), (4, 32), (8, 16), (16, 8)]
    print(" d  batch   Gauss equation      nested Christoffel   ratio   largest difference")
    for d, batch in settings:
        t, memory, R = measure(step, ("Gauss equation", d, batch), 3 if quick else 15)
        t_plain, memory_plain, R_plain = measure(
            step, ("nested Christoffel", d, batch), 1 if quick else 5
        )
        difference = ((R - R_plain).abs().max() / R.abs().max()).item()
        print(
            f"{d:2d} {batch:5d} {t * 1e3:9.1f} ms {memory:6.0f} MB"
            f"{t_plain * 1e3:11.1f} ms {memory_plain:6.0f} MB"
            f"{t_plain / t:7.1f}x   {difference:.0e} of the largest R"
        )


if __name__ == "__main__":
    main()
