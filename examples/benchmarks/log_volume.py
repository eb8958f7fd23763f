"""Value and gradient of the log volume of PosteriorMetric, against other ways to compute it.

- ``dense``: the published algorithm, ``[B, K, d, d]`` tensors and a gradient written out with them
  (with the right gradient).
- ``broadcast``: what a good PyTorch user would write, ``[B, K, d]`` tensors and autograd.
- ``half broadcast``: the same with the sum over centroids as a matrix product.
- ``floor``: five matrix products of the sizes that any way by matrix products takes, alone.

    python examples/benchmarks/log_volume.py [--quick] [--threads N] [--device cuda]

Times in microseconds, timed in turn, and peak memory above the inputs. All are checked against each
other first.
"""

import itertools
import pathlib
import sys
from functools import partial

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from lib.arguments import timing_arguments
from lib.costs import in_turn

from pythae_geometric.commands.tables import table
from pythae_geometric.geometry import PosteriorMetric

ROUNDS = 10


def dense(metric, z):
    """The published algorithm: the metric tensor and its derivative from dense tensors."""
    c, P = metric.centroids, torch.diag_embed(metric.precisions)
    difference = (z.unsqueeze(1) - c).unsqueeze(-1)
    distance = (difference.mT @ P @ difference).squeeze((-1, -2))
    w = torch.exp(-distance / metric.temperature**2)
    weighted = w[..., None, None] * P
    G = weighted.sum(1) + metric.regularization * torch.eye(z.shape[1], device=z.device)
    G_inv = torch.linalg.inv(G)
    # ½ tr(G⁻¹ ∂G), with ∂G = Σ_k P_k ∂w_k and ∂w_k = -2 w_k P_k (z - c_k) / ρ²
    trace = (G_inv.unsqueeze(1) @ weighted).diagonal(dim1=-2, dim2=-1).sum(-1)
    grad = -(trace[..., None, None] * (P @ difference)).sum(1) / metric.temperature**2
    return 0.5 * torch.logdet(G), grad.squeeze(-1)


def broadcast(metric, z):
    """Tensors broadcast to [B, K, d], and autograd."""
    return by_autograd(metric, z, lambda w, P: (w.unsqueeze(-1) * P).sum(1))


def half_broadcast(metric, z):
    """Differences broadcast to [B, K, d], a matrix product, and autograd."""
    return by_autograd(metric, z, torch.matmul)


def by_autograd(metric, z, weighted_sum):
    z = z.detach().requires_grad_()
    difference = z.unsqueeze(1) - metric.centroids
    distance = (difference.square() * metric.precisions).sum(-1)
    w = torch.exp(-distance / metric.temperature**2)
    g = weighted_sum(w, metric.precisions) + metric.regularization
    log_volume = 0.5 * g.log().sum(-1)
    (grad,) = torch.autograd.grad(log_volume.sum(), z)
    return log_volume.detach(), grad


def ours(metric, z):
    return metric.log_volume_and_grad(z)


def make_floor(metric, B):
    """The products alone: two for the distances, one for the metric, two for the gradient."""
    P = metric.precisions
    K, d = P.shape
    like = {"dtype": P.dtype, "device": P.device}
    z, w = torch.rand(B, d, **like), torch.rand(B, K, **like)
    P_t, both = P.mT.contiguous(), torch.cat([P, P * metric.centroids], -1)

    def floor(metric, _):
        return z @ P_t, z @ P_t, w @ P, z @ P_t, w @ both

    return floor


def problem(d, K, B, device):
    generator = torch.Generator().manual_seed(0)
    centroids = torch.randn(K, d, generator=generator)
    # Variances from 0.05 to 1, as of a trained VAE; the temperature is the paper's.
    precisions = torch.exp(3 * torch.rand(K, d, generator=generator))
    distance = torch.cdist(centroids, centroids).fill_diagonal_(torch.inf)
    metric = PosteriorMetric(centroids, precisions, float(distance.amin(-1).max()))
    z = centroids[torch.randint(K, (B,), generator=generator)]
    z = z + 0.5 * torch.randn(B, d, generator=generator)
    return metric.to(device), z.to(device)


def peak_memory(call, device):
    """Largest sum of live allocations during a call, in MB."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with torch.profiler.profile(profile_memory=True) as profiler:
        call()
    events = profiler.profiler.kineto_results.events()
    live = itertools.accumulate(event.nbytes() for event in events if event.name() == "[memory]")
    return max(live, default=0) / 1e6


def agree(metric, z):
    value, grad = ours(metric, z)
    for other in (dense, broadcast):
        other_value, other_grad = other(metric, z)
        torch.testing.assert_close(value, other_value, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(grad, other_grad, rtol=1e-3, atol=1e-2)


COLUMNS = (
    "d", "K", "B", "ours", "floor", "ours / floor", "half broadcast / ours", "broadcast / ours",
    "dense / ours", "MB ours", "MB broadcast", "MB dense",
)  # fmt: skip


def row(d, K, B, device, seconds):
    metric, z = problem(d, K, B, device)
    ways = {"ours": ours, "floor": make_floor(metric, B)}
    ways |= {"half": half_broadcast, "broadcast": broadcast}
    if B * K * d * d < 250_000_000:  # dense tensors of more than 1 GB are left out
        agree(metric, z)
        ways["dense"] = dense
    calls = {name: partial(way, metric, z) for name, way in ways.items()}
    t = {name: 1e6 * t for name, t in in_turn(calls, ROUNDS, seconds / ROUNDS).items()}
    cells = [str(d), str(K), str(B), f"{t['ours']:.0f}", f"{t['floor']:.0f}"]
    cells.append(f"{t['ours'] / t['floor']:.1f}")
    others = ("half", "broadcast", "dense")
    cells += [f"{t[name] / t['ours']:.1f}" if name in t else "-" for name in others]
    shown = [calls.get(name) for name in ("ours", "broadcast", "dense")]
    return cells + ["-" if call is None else f"{peak_memory(call, device):.3g}" for call in shown]


def main():
    args = timing_arguments(__doc__)
    sizes, seconds = [(16, 100, 500)], 2.0
    sizes += [(d, 100, 500) for d in (2, 4, 8, 32, 64, 128)]
    sizes += [(16, K, 500) for K in (10, 30, 300, 1000)]
    sizes += [(16, 100, B) for B in (50, 5000)]
    if args.quick:
        sizes, seconds = [(2, 10, 50), (4, 20, 50)], 0.02
    print("\n".join(table(COLUMNS, [row(*size, args.device, seconds) for size in sizes])))


if __name__ == "__main__":
    main()
