"""The metric tensor of a decoder: PullbackMetric against the plain ways to its Jacobian.

Decoder 256-256-784. The plain ways: one reverse pass for every output of every sample, all
reverse passes vectorised, and forward mode sample by sample, vectorised.

    python examples/benchmarks/metric_tensor.py [--quick]
"""

import pathlib
import sys

import torch
from torch.func import jacfwd, jacrev, vmap

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from curvature import decoder
from lib.costs import side_by_side

from pythae_geometric.commands.arguments import parser
from pythae_geometric.geometry import PullbackMetric


def gram(J):
    return J.mT @ J


METHODS = {
    "PullbackMetric": lambda f, z: PullbackMetric(f)(z),
    "vmap(jacfwd)": lambda f, z: gram(vmap(jacfwd(f))(z)),
    "vmap(jacrev)": lambda f, z: gram(vmap(jacrev(f))(z)),
    "reverse loop": lambda f, z: torch.stack(
        [gram(torch.autograd.functional.jacobian(f, point)) for point in z]
    ),
}


def tensor(method, d, batch):
    f = decoder(d).requires_grad_(False)
    z = torch.randn(batch, d, generator=torch.Generator().manual_seed(1))
    return lambda: METHODS[method](f, z)


def main():
    quick = parser(__doc__).parse_args().quick
    settings = [(2, 16)] if quick else [(2, 128), (8, 128), (16, 128)]
    repeats = zip(METHODS, (5, 5, 1, 1) if quick else (30, 30, 30, 3), strict=True)
    side_by_side(tensor, ["d", "batch"], settings, dict(repeats))


if __name__ == "__main__":
    main()
