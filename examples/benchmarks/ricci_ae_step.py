"""A training step of RicciAE, against the plain autoencoder and nested Christoffel symbols.

Loss, gradient and Adam step with D = 784, networks 512-256, batch 128, and the default number of
points, 48; time (of the processor, one thread) and peak memory of all three in one run, each in a
process of its own. The nested implementation is the published
algorithm: the metric, its derivative, the Christoffel symbols, their derivative and the Riemann
tensor, each by automatic differentiation of the one before, vectorised over the points; its decoder
and its loss are those of RicciAE. At d = 8 it takes a smaller batch: see its memory.

    python examples/benchmarks/ricci_ae_step.py [--quick]
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable

import torch
from pythae.data.datasets import DatasetOutput
from torch.func import jacfwd, vmap

from pythae_geometric.models.ricci_ae import RicciAE, RicciAEConfig


def nested_christoffel(f: Callable, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scalar curvature and log volume, from three nested derivatives, as published."""

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
        g = metric(p)
        return (torch.linalg.inv(g) * ricci).sum(), 0.5 * torch.logdet(g)

    return vmap(curvature)(z)


def step(method: str, d: int, batch: int) -> Callable[[], float]:
    """A training step; it returns the loss of total squared curvature (plain: 0)."""
    torch.manual_seed(0)
    weight = 0.01 if method == "RicciAE" else 0.0
    config = RicciAEConfig(
        input_dim=(784,), latent_dim=d, curvature_weight=weight, points="encoded"
    )
    model = RicciAE(config).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.0)
    data = DatasetOutput(data=torch.randn(batch, 784, generator=torch.Generator().manual_seed(1)))

    def run():
        optimiser.zero_grad()
        out = model(data)
        loss, curvature_loss = out.loss, out.get("curvature_loss")
        if method == "nested":
            z = out.z[: config.num_points].detach()
            R, log_volume = nested_christoffel(lambda p: model.immersion(p[None])[0], z)
            V = (out.z.amax(0) - out.z.amin(0)).prod()
            curvature_loss = V * (R.square() * log_volume.exp()).mean()
            loss = loss + 0.01 * curvature_loss
        loss.backward()
        optimiser.step()
        return 0.0 if curvature_loss is None else float(curvature_loss.detach())

    return run


def measure(arguments: tuple, repeats: int) -> tuple[float, float, float]:
    """Least seconds, extra peak memory in MB and the loss, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (arguments, repeats))


def _measure(arguments, repeats):
    torch.set_num_threads(1)
    method, d, batch = arguments
    step(method, d, 2)()  # loads what torch loads on first use
    run = step(method, d, batch)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = run()
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds), peak, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small batches, few repetitions")
    quick = parser.parse_args().quick
    settings = [(2, 16, True)] if quick else [(2, 128, True), (4, 128, True), (8, 16, True)]
    if not quick:
        settings.append((8, 128, False))
    repeats = 1 if quick else 15
    print("One thread; least processor time of a step, and peak memory above that before.")
    print("| d | batch | plain AE | RicciAE | nested | RicciAE / AE | nested / RicciAE | losses |")
    print("|---|---|---|---|---|---|---|---|")
    for d, batch, with_nested in settings:
        plain = measure(("plain", d, batch), repeats)
        ours = measure(("RicciAE", d, batch), repeats)
        nested = measure(("nested", d, batch), max(1, repeats // 3)) if with_nested else None
        row = [f"{t * 1e3:.1f} ms, {memory:.0f} MB" for t, memory, _ in (plain, ours)]
        row += [f"{nested[0] * 1e3:.1f} ms, {nested[1]:.0f} MB" if nested else "-"]
        row += [f"{ours[0] / plain[0]:.1f}", f"{nested[0] / ours[0]:.1f}" if nested else "-"]
        row += [f"{ours[2]:.4g}" + (f", {nested[2]:.4g}" if nested else "")]
        print(f"| {d} | {batch} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
