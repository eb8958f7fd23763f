"""A training step of the R-VAE in its second phase, beside that of a plain VAE.

Three steps of Adam on a batch of 100, with the same encoder, decoder and precision network:

  vae      posterior and prior Gaussian
  ours     BrownianRVAE, with its share of solving the geodesics of the fan once an epoch (15 steps
           for the digits, 600 for images of 28 x 28)
  plain    the published second phase, written plainly: z from a flat Gaussian; two heat kernels,
           each with a natural cubic spline from the centre to every z, fitted by 5 steps of Adam on
           the energy of 16 points, and the Jacobians at both ends, carried through the layers

"excess" is by how much the squared distances to the prior's centre that a step uses exceed those of
converged geodesics (median over the batch), for the digits, where the networks are trained first;
the images of 28 x 28 are noise, and only cost counts.

    python examples/benchmarks/brownian_rvae_step.py [--quick]
"""

import math
import pathlib
import sys
import warnings

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from lib.costs import measure, shown
from lib.plain import natural_spline

from pythae_geometric import BrownianRVAE, BrownianRVAEConfig
from pythae_geometric.commands.arguments import parser
from pythae_geometric.commands.data import digits
from pythae_geometric.commands.tables import table
from pythae_geometric.geometry import ConvergenceWarning, squared_distance
from pythae_geometric.models.brownian_rvae.corrections import choose_rows
from pythae_geometric.models.brownian_rvae.stochastic_decoder import gaussian_log_prob

BATCH, POINTS, FREE, CURVE_STEPS = 100, 16, 8, 5
LOG_2PI = math.log(2 * math.pi)


def build(data, d):
    fields = {"input_dim": (1, 28, 28), "hidden_dims": (300, 300), "num_centers": 350}
    if data == "digits":
        fields = {"input_dim": (1, 8, 8), "hidden_dims": (128, 64), "num_centers": 64}
    return BrownianRVAE(BrownianRVAEConfig(latent_dim=d, warmup_epochs=1, **fields))


def images(data):
    if data == "digits":
        return digits()[0][:1500]
    return torch.rand(500, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def prepare(data, d, epochs):
    """A model at the beginning of its second phase."""
    torch.manual_seed(0)
    model, x = build(data, d), images(data)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(epochs):
        for batch in torch.randperm(len(x)).split(BATCH):
            if epoch == epochs - 1:
                model({"data": x[batch]}, epoch=1)  # collects the codes
            optimiser.zero_grad()
            model({"data": x[batch]}).loss.backward()
            optimiser.step()
    model.update()
    return model


class Plain:
    """The published second phase."""

    def __init__(self, model):
        self.model = model
        t = torch.linspace(0, 1, POINTS)[:, None]
        self.line = torch.cat([1 - t, t], dim=1)  # weights of the ends
        self.basis = natural_spline(FREE, POINTS)[:, 1:-1]  # the ends are at 0

    def f(self, z):
        return torch.cat([self.model.decoder(z).reconstruction.flatten(1), self.model.std(z)], 1)

    def log_volume(self, z):
        """The Jacobian of the mean is carried along, layer by layer, as the published code does."""
        h, J = z, torch.eye(z.shape[1]).expand(len(z), -1, -1)
        for layer in self.model.decoder.layers:
            if isinstance(layer, torch.nn.Linear):
                h, J = layer(h), layer.weight @ J
            else:  # softplus
                h, J = layer(h), h.sigmoid().unsqueeze(-1) * J
        x = h.sigmoid()
        J = torch.cat([(x * (1 - x)).unsqueeze(-1) * J, self.model.std.jacobian(z)], dim=1)
        return 0.5 * torch.linalg.slogdet(J.mT @ J)[1]

    def squared_distance(self, x, y):
        free = torch.zeros(len(x), FREE, x.shape[1], requires_grad=True)
        optimiser = torch.optim.Adam([free], lr=0.05)

        def energy(x, y, free):
            curve = self.line @ torch.stack([x, y], 1) + self.basis @ free
            image = self.f(curve.flatten(0, 1)).unflatten(0, curve.shape[:2])
            return 0.5 * image.diff(dim=1).square().sum((1, 2))

        for _ in range(CURVE_STEPS):
            (free.grad,) = torch.autograd.grad(energy(x.detach(), y.detach(), free).sum(), free)
            optimiser.step()
        return energy(x, y, free.detach())

    def kernel(self, z, center, time):
        volume = self.log_volume(z) - self.log_volume(center)
        square = self.squared_distance(center, z)
        return volume - 0.5 * z.shape[1] * (LOG_2PI + time.log()) - square / (2 * time)

    def loss(self, x):
        m, log_t = self.model._posterior(x)
        t, s = log_t.exp(), self.model.prior_log_time.exp()
        z = m + t.sqrt()[:, None] * torch.randn_like(m)
        posterior = self.kernel(z, m, t)
        prior = self.kernel(z, self.model.prior_center.expand_as(z), s)
        mean = self.model.decoder(z).reconstruction.flatten(1)
        likelihood = gaussian_log_prob(x.flatten(1), mean, self.model.std(z))
        return ((posterior - prior).abs() - likelihood).mean()


def vae_loss(model, x, log_variance):
    m, _ = model._posterior(x)
    log_v = log_variance(m)
    z = m + (0.5 * log_v).exp() * torch.randn_like(m)
    mean = model.decoder(z).reconstruction.flatten(1)
    kl = 0.5 * (m.square() + log_v.exp() - 1 - log_v).sum(1)
    return (kl - gaussian_log_prob(x.flatten(1), mean, model.std(z))).mean()


def step(method, data, d, state, batch=BATCH):
    """A step of a method, or the geodesics of the fan."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    torch.manual_seed(0)
    model, x = build(data, d), images(data)[:batch]
    model.load_state_dict(state)
    model.train()
    if method == "geodesics":
        return model.update
    model.decoder.requires_grad_(method == "vae")
    plain, log_variance = (
        Plain(model),
        torch.nn.Linear(d, d),
    )  # a head that a scalar time leaves out
    losses = {
        "vae": lambda: vae_loss(model, x, log_variance),
        "ours": lambda: model({"data": x}).loss,
        "plain": lambda: plain.loss(x),
    }
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-5)

    def run():
        loss = losses[method]()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return run


def excess(model, x):
    """By how much the squared distances of "ours" and of "plain" exceed the exact ones."""
    z = model._posterior(x)[0].detach()
    c = model.prior_center.detach().expand_as(z)
    exact = squared_distance(model.metric, z, c, steps=32, tolerance=1e-4)
    squares = {
        "ours": model._along_curves(z, choose_rows(z, False))[2],
        # With the right factor.
        "plain": 2 * (POINTS - 1) * Plain(model).squared_distance(c, z),
    }
    return {name: float((square / exact - 1).median().detach()) for name, square in squares.items()}


def main():
    quick = parser(__doc__).parse_args().quick
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    problems = [(data, d) for data in ("digits", "28 x 28") for d in (2, 5, 10)]
    problems, steps = (problems[:1], 3) if quick else (problems, 12)
    header = ["data", "d", "step", "ms", "times vae", "peak memory", "excess of l²"]
    print("\n".join(table(header, [])))
    for data, d in problems:
        model = prepare(data, d, 1 if quick or data != "digits" else 100)
        exceed = excess(model, images(data)[:BATCH]) if data == "digits" else {}
        costs = {}
        for method in ("vae", "geodesics", "ours", "plain"):
            arguments = method, data, d, model.state_dict()
            costs[method], memory, _ = measure(step, arguments, (*arguments, 2), steps)
            if method == "geodesics":
                continue
            if method == "ours":  # and the geodesics, once an epoch
                costs[method] += costs["geodesics"] / (15 if data == "digits" else 600)
            far = f"{exceed[method]:.3f}" if method in exceed else ""
            cells = [f"{1e3 * costs[method]:.1f}", f"{costs[method] / costs['vae']:.1f}"]
            print(table([data, str(d), method, *cells, shown(memory), far], [])[0], flush=True)


if __name__ == "__main__":
    main()
