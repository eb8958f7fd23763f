"""The metric tensor of a decoder: PullbackMetric against the plain ways to its Jacobian.

Decoder 256-256-784. The plain ways: one reverse pass for every output of every sample, all
reverse passes vectorised, and forward mode sample by sample, vectorised.

    python examples/benchmarks/metric_tensor.py [--quick]
"""

import argparse
from collections.abc import Callable

import torch
from curvature import decoder, measure
from torch import nn
from torch.func import jacfwd, jacrev, vmap

from pythae_geometric.geometry.pullback import PullbackMetric


def reverse_loop(f: nn.Module, z: torch.Tensor) -> torch.Tensor:
    """One reverse pass for every output of every sample."""
    J = [torch.autograd.functional.jacobian(f, p) for p in z]
    return torch.stack([j.mT @ j for j in J])


def reverse_vmap(f: nn.Module, z: torch.Tensor) -> torch.Tensor:
    J = vmap(jacrev(f))(z)
    return J.mT @ J


def forward_vmap(f: nn.Module, z: torch.Tensor) -> torch.Tensor:
    J = vmap(jacfwd(f))(z)
    return J.mT @ J


METHODS = {
    "PullbackMetric": lambda f, z: PullbackMetric(f)(z),
    "vmap(jacfwd)": forward_vmap,
    "vmap(jacrev)": reverse_vmap,
    "reverse loop": reverse_loop,
}


def tensor(method: str, d: int, batch: int) -> Callable[[], torch.Tensor]:
    f = decoder(d).requires_grad_(False)
    z = torch.randn(batch, d, generator=torch.Generator().manual_seed(1))
    return lambda: METHODS[method](f, z)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small dimensions, few repetitions")
    quick = parser.parse_args().quick
    for d, batch in [(2, 16)] if quick else [(2, 128), (8, 128), (16, 128)]:
        print(f"d = {d}, batch {batch}")
        reference = reference_time = None
        for method in METHODS:
            repeats = (1 if quick else 3) if method.startswith("rev") else (5 if quick else 30)
            t, memory, G = measure(tensor, (method, d, batch), repeats)
            if reference is None:
                reference, reference_time = G, t
            difference = ((G - reference).abs().max() / reference.abs().max()).item()
            print(
                f"  {method:15s} {t * 1e3:10.2f} ms {memory:6.0f} MB"
                f"{t / reference_time:9.1f}x   difference {difference:.0e}"
            )


if __name__ == "__main__":
    main()
