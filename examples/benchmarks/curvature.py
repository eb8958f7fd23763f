"""Curvature as a training loss: the Gauss equation against nested Christoffel symbols.

Value and parameter gradient of the mean of R² for a decoder 256-256-784. The plain implementation
is the published algorithm: metric, its derivative, the Christoffel symbols, their derivative, the
Riemann tensor, each by automatic differentiation of the one before, vectorised over the batch.

    python examples/benchmarks/curvature.py [--quick]
"""

import pathlib
import sys

import torch
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from lib.costs import side_by_side
from lib.plain import nested_christoffel

from pythae_geometric.commands.arguments import parser
from pythae_geometric.geometry import scalar_curvature

METHODS = {
    "Gauss equation": scalar_curvature,
    "nested Christoffel": lambda f, z: nested_christoffel(f, z)[0],
}


def decoder(d, width=256, outputs=784):
    torch.manual_seed(0)
    layers = nn.Linear(d, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
    return nn.Sequential(*layers, nn.Linear(width, outputs))


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
    quick = parser(__doc__).parse_args().quick
    settings = [(2, 128), (8, 16)] if quick else [(2, 128), (4, 32), (8, 16), (16, 8)]
    repeats = zip(METHODS, (3, 1) if quick else (15, 5), strict=True)
    side_by_side(step, ["d", "batch"], settings, dict(repeats))


if __name__ == "__main__":
    main()
