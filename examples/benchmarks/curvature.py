"""Curvature as a training loss: the Gauss equation against nested Christoffel symbols.

Value and parameter gradient of the mean of R² for a decoder 256-256-784, time (of the processor,
one thread) and peak memory of both in one run, each in a process of its own. The plain
implementation is the published algorithm: metric, its derivative, the Christoffel symbols, their
derivative, the Riemann tensor, each by automatic differentiation of the one before, vectorised over
the batch.

    python examples/benchmarks/curvature.py [--quick]
"""

import pathlib
import sys

import torch
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from lib.arguments import parser
from lib.costs import measure, shown
from lib.plain import nested_christoffel

from pythae_geometric.geometry import scalar_curvature


def decoder(d, width=256, outputs=784):
    torch.manual_seed(0)
    layers = nn.Linear(d, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
    return nn.Sequential(*layers, nn.Linear(width, outputs))


METHODS = {
    "Gauss equation": scalar_curvature,
    "nested Christoffel": lambda f, z: nested_christoffel(f, z)[0],
}


def step(method, d, batch):
    """Value and parameter gradient of the loss; returns the curvatures."""
    f = decoder(d)
    z = torch.randn(batch, d, generator=torch.Generator().manual_seed(1))

    def run():
        f.zero_grad()
        R = METHODS[method](f, z)
        R.square().mean().backward()
        return R.detach()

    return run


def main():
    p = parser(__doc__)
    p.add_argument("--quick", action="store_true", help="small dimensions, few repetitions")
    quick = p.parse_args().quick
    settings = [(2, 128), (8, 16)] if quick else [(2, 128), (4, 32), (8, 16), (16, 8)]
    print(" d  batch   Gauss equation      nested Christoffel   ratio   largest difference")
    for d, batch in settings:
        results = []
        for method, repeats in zip(METHODS, (3, 1) if quick else (15, 5), strict=True):
            results.append(measure(step, (method, d, batch), (method, d, 1), repeats))
        (t, memory, R), (t_plain, memory_plain, R_plain) = results
        difference = float((R - R_plain).abs().max() / R.abs().max())
        print(
            f"{d:2d} {batch:5d} {t * 1e3:9.1f} ms {shown(memory):>9}"
            f"{t_plain * 1e3:11.1f} ms {shown(memory_plain):>9}"
            f"{t_plain / t:7.1f}x   {difference:.0e} of the largest R"
        )


if __name__ == "__main__":
    main()
