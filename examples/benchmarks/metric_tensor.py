"""The metric tensor of a decoder: PullbackMetric against the plain ways to its Jacobian.

Decoder 256-256-784. The plain ways: one reverse pass for every output of every sample, all
reverse passes vectorised, and forward mode sample by sample, vectorised. Time is the processor's,
with one thread.

    python examples/benchmarks/metric_tensor.py [--quick]
"""

import pathlib
import sys

import torch
from torch.func import jacfwd, jacrev, vmap

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from curvature import decoder
from lib.arguments import parser
from lib.costs import measure, shown

from pythae_geometric.geometry import PullbackMetric


def gram(J):
    return J.mT @ J


def reverse_loop(f, z):
    """One reverse pass for every output of every sample."""
    return torch.stack([gram(torch.autograd.functional.jacobian(f, p)) for p in z])


METHODS = {
    "PullbackMetric": lambda f, z: PullbackMetric(f)(z),
    "vmap(jacfwd)": lambda f, z: gram(vmap(jacfwd(f))(z)),
    "vmap(jacrev)": lambda f, z: gram(vmap(jacrev(f))(z)),
    "reverse loop": reverse_loop,
}


def tensor(method, d, batch):
    f = decoder(d).requires_grad_(False)
    z = torch.randn(batch, d, generator=torch.Generator().manual_seed(1))
    return lambda: METHODS[method](f, z)


def main():
    p = parser(__doc__)
    p.add_argument("--quick", action="store_true", help="small dimensions, few repetitions")
    quick = p.parse_args().quick
    for d, batch in [(2, 16)] if quick else [(2, 128), (8, 128), (16, 128)]:
        print(f"d = {d}, batch {batch}")
        for method, repeats in zip(
            METHODS, (5, 5, 1, 1) if quick else (30, 30, 30, 3), strict=True
        ):
            t, memory, G = measure(tensor, (method, d, batch), (method, d, 1), repeats)
            if method == "PullbackMetric":
                reference, reference_time = G, t
            difference = float((G - reference).abs().max() / reference.abs().max())
            print(
                f"  {method:15s} {t * 1e3:10.2f} ms {shown(memory):>9}"
                f"{t / reference_time:9.1f}x   difference {difference:.0e}"
            )


if __name__ == "__main__":
    main()
