"""A training step of RicciAE, against the plain autoencoder and nested Christoffel symbols.

Loss, gradient and Adam step with D = 784, networks 512-256, batch 128, and the default number of
points, 48. The nested implementation is the published algorithm: the metric, its derivative, the
Christoffel symbols, their derivative and the Riemann tensor, each by automatic differentiation of
the one before, vectorised over the points; its decoder and its loss are those of RicciAE. At d = 8
it takes a smaller batch: see its memory. The difference is that of the curvature losses. In many
latent dimensions the curvature is also estimated, by four random tangents.

    python examples/benchmarks/ricci_ae_step.py [--quick]
"""

import pathlib
import sys

import torch
from pythae.data.datasets import DatasetOutput

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from lib.costs import side_by_side
from lib.plain import nested_christoffel

from pythae_geometric import RicciAE, RicciAEConfig
from pythae_geometric.commands.arguments import parser

TANGENTS = "RicciAE, num_tangents=4"


def step(method, d, batch):
    """A training step; it returns the loss of total squared curvature (plain: None)."""
    torch.manual_seed(0)
    config = RicciAEConfig(
        input_dim=(784,),
        latent_dim=d,
        curvature_weight=0.01 if method.startswith("RicciAE") else 0.0,
        points="encoded",
        num_tangents=4 if method == TANGENTS else None,
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
        is_random = curvature_loss is None or method == TANGENTS
        return None if is_random else float(curvature_loss.detach())

    return run


def main():
    quick = parser(__doc__).parse_args().quick
    settings, repeats = ([(2, 16)], 1) if quick else ([(2, 128), (4, 128), (8, 16)], 15)
    methods = {"RicciAE": repeats, "plain AE": repeats, "nested": max(1, repeats // 3)}
    side_by_side(step, ["d", "batch"], settings, methods)
    if not quick:
        print()
        methods = dict.fromkeys(("RicciAE", TANGENTS, "plain AE"), 5)
        side_by_side(step, ["d", "batch"], [(8, 128), (32, 128)], methods)


if __name__ == "__main__":
    main()
