"""A training step of RicciAE, against the plain autoencoder and nested Christoffel symbols.

Loss, gradient and Adam step with D = 784, networks 512-256, batch 128, and the default number of
points, 48; time (of the processor, one thread) and peak memory of all three in one run, each in a
process of its own. The nested implementation is the published algorithm: the metric, its
derivative, the Christoffel symbols, their derivative and the Riemann tensor, each by automatic
differentiation of the one before, vectorised over the points; its decoder and its loss are those of
RicciAE. At d = 8 it takes a smaller batch: see its memory.

    python examples/benchmarks/ricci_ae_step.py [--quick]
"""

import pathlib
import sys

import torch
from pythae.data.datasets import DatasetOutput

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from lib.arguments import parser
from lib.costs import measure, shown
from lib.plain import nested_christoffel
from lib.tables import table

from pythae_geometric import RicciAE, RicciAEConfig


def step(method, d, batch):
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


def main():
    p = parser(__doc__)
    p.add_argument("--quick", action="store_true", help="small batches, few repetitions")
    quick = p.parse_args().quick
    settings = [(2, 128, True), (4, 128, True), (8, 16, True), (8, 128, False)]
    settings, repeats = ([(2, 16, True)], 1) if quick else (settings, 15)
    header = ["d", "batch", "plain AE", "RicciAE", "nested", "RicciAE / AE", "nested / RicciAE"]
    rows = []
    for d, batch, with_nested in settings:
        plain, ours, nested = (
            measure(step, (method, d, batch), (method, d, 2), count)
            if method != "nested" or with_nested
            else None
            for method, count in (
                ("plain", repeats),
                ("RicciAE", repeats),
                ("nested", max(1, repeats // 3)),
            )
        )
        row = [f"{t * 1e3:.1f} ms, {shown(memory)}" for t, memory, _ in (plain, ours)]
        row += [f"{nested[0] * 1e3:.1f} ms, {shown(nested[1])}" if nested else "-"]
        row += [f"{ours[0] / plain[0]:.1f}", f"{nested[0] / ours[0]:.1f}" if nested else "-"]
        row += [f"{ours[2]:.4g}" + (f", {nested[2]:.4g}" if nested else "")]
        rows.append([str(d), str(batch), *row])
    print("One thread; least processor time of a step, and peak memory above that before.")
    print("\n".join(table([*header, "losses"], rows)))


if __name__ == "__main__":
    main()
