"""A training step of VAE-DLM, against the published algorithm and the plain encode-decode step.

Loss, gradient and Adam step for the Burgers equation: 201 points, d = 6, networks of width 400.
The published algorithm takes the derivatives by reverse mode, one pass for each row of the Jacobian
and one for each entry of the metric, for the whole batch; its networks and its loss are those of
VAE_DLM, which takes the terms of the metric from a random half: so their losses differ. The plain
step is that of the "extended" VAE, the same networks without geometry.

    python examples/benchmarks/vae_dlm_step.py [--quick]
"""

import pathlib
import sys

import torch
from pythae.data.datasets import DatasetOutput

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from lib.costs import side_by_side

from pythae_geometric import VAE_DLM, VAE_DLM_Config
from pythae_geometric.commands.arguments import parser

STATES = 201


def published_loss(model, data):
    """The loss, with one reverse pass for each row of J and each entry of the metric."""
    config = model.model_config
    mean, log_variance = model.posterior(data.data)
    u = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    t = data.time.unsqueeze(1).requires_grad_()

    z = model.decoder.manifold_map(u, t)
    rows = [torch.autograd.grad(z[:, i].sum(), u, create_graph=True)[0] for i in range(z.shape[1])]
    J = torch.stack(rows, dim=1)

    g = model.metric_network(u, t)
    d = g.shape[1]
    entries = [
        torch.autograd.grad(g[:, i, j].sum(), t, create_graph=True)[0]
        for i in range(d)
        for j in range(d)
    ]
    dg = torch.cat(entries, dim=1).unflatten(1, (d, d))

    Lambda = model.flow_operator(u, t)
    sines = u.sin().square()
    factors = [torch.ones_like(u[:, 0])]
    for i in range(d - 1):
        factors.append(factors[-1] * sines[:, i])
    Sigma = config.steady_scale * torch.diag_embed(torch.stack(factors, dim=1))

    x = model.decoder.network(z)["reconstruction"]
    divergence = (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
    return (
        config.recon_weight * ((x - data.target) ** 2).mean()
        + config.kl_weight * divergence
        + config.metric_weight * ((g - J.transpose(1, 2) @ J) ** 2).mean()
        + config.flow_weight * ((dg + Lambda @ g + config.alpha * (g - Sigma)) ** 2).mean()
    )


def step(method, width, batch):
    """A training step; it returns the loss (plain: None, it has another)."""
    torch.manual_seed(0)
    weights = {"metric_weight": 0.0, "flow_weight": 0.0} if method == "plain" else {}
    config = VAE_DLM_Config(input_dim=(STATES,), latent_dim=6, hidden_dim=width, **weights)
    model = VAE_DLM(config).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.0)
    generator = torch.Generator().manual_seed(1)
    data = DatasetOutput(
        data=torch.randn(batch, STATES, generator=generator),
        time=torch.rand(batch, generator=generator),
        target=torch.randn(batch, STATES, generator=generator),
    )

    def run():
        torch.manual_seed(2)
        optimiser.zero_grad()
        loss = published_loss(model, data) if method == "published" else model(data).loss
        loss.backward()
        if method == "published":
            torch.nn.utils.clip_grad_value_(model.parameters(), 1.0)
        optimiser.step()
        return None if method == "plain" else float(loss.detach())

    return run


def main():
    quick = parser(__doc__).parse_args().quick
    settings, repeats = ([(50, 50)], 1) if quick else ([(400, 125), (400, 1000)], 8)
    methods = {"VAE_DLM": repeats, "plain": repeats, "published": max(1, repeats // 2)}
    side_by_side(step, ["width", "batch"], settings, methods)


if __name__ == "__main__":
    main()
