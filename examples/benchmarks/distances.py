"""A batch of squared geodesic distances with gradients, three ways.

The decoder is a random network (d -> 256 -> 256 -> 784, tanh) whose geodesics are visibly curved.
Value and gradient, in the end points and in all parameters, of 100 squared distances, by

  ours       squared_distance: all curves at once, quadratic pieces, preconditioned L-BFGS
  loop       the same, one pair after another
  adam       the published way: natural cubic splines, Adam through the network on the energy of 32
             pieces, all curves at once (kinder than a loop), with the best of four learning rates

"adam" stops as soon as the root mean square relative error, against curves of 64 steps, is that of
"ours" or 2e-3, whichever is larger; the time of the checks is not counted.

    python examples/benchmarks/distances.py [--quick]
"""

import itertools
import pathlib
import sys
import warnings

import torch
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from lib.costs import measure, shown
from lib.plain import natural_spline

from pythae_geometric.commands.arguments import parser
from pythae_geometric.commands.tables import table
from pythae_geometric.geometry import ConvergenceWarning, squared_distance

STEPS = 12
TARGET = 2e-3


def problem(d, pairs):
    generator = torch.Generator().manual_seed(d)
    layers = []
    for inputs, outputs in itertools.pairwise((d, 256, 256, 784)):
        layer = nn.Linear(inputs, outputs)
        with torch.no_grad():
            layer.weight.normal_(std=1.5 / inputs**0.5, generator=generator)
            layer.bias.normal_(std=0.5, generator=generator)
        layers += [layer, nn.Tanh()]
    decoder = nn.Sequential(*layers[:-1], nn.Sigmoid())
    x, y = 1.5 * torch.randn(2, pairs, d, generator=generator)
    return decoder, x.requires_grad_(), y.requires_grad_()


class Adam:
    """Curves as in the published codes, for any number of iterations."""

    def __init__(self, decoder, x, y, free=8, points=32, rate=0.05):
        self.decoder, self.x, self.y, self.points = decoder, x, y, points
        self.basis = natural_spline(free, points + 1)
        t = torch.linspace(0, 1, free + 2)[1:-1, None]
        self.free = (x[:, None] + t * (y - x)[:, None]).detach().requires_grad_()
        self.optimiser = torch.optim.Adam([self.free], lr=rate)

    def energy(self, free, x, y):
        curve = self.basis @ torch.cat([x[:, None], free, y[:, None]], 1)
        image = self.decoder(curve.flatten(0, 1)).unflatten(0, curve.shape[:2])
        return 0.5 * self.points * image.diff(dim=1).square().sum((1, 2))

    def iterate(self, iterations):
        x, y = self.x.detach(), self.y.detach()
        for _ in range(iterations):
            self.optimiser.zero_grad()
            self.energy(self.free, x, y).sum().backward()
            self.optimiser.step()

    def squared_distance(self):
        return 2 * self.energy(self.free.detach(), self.x, self.y)


def distances(method, d, iterations, pairs):
    """What gives the squared distances of a method, with their gradients."""
    decoder, x, y = problem(d, pairs)

    def run():
        if method == "ours":
            square = squared_distance(decoder, x, y, steps=STEPS)
        elif method == "loop":
            rows = zip(x.split(1), y.split(1), strict=True)
            square = torch.cat([squared_distance(decoder, a, b, steps=STEPS) for a, b in rows])
        else:
            curves = Adam(decoder, x, y)
            curves.iterate(iterations)
            decoder.zero_grad()
            square = curves.squared_distance()
        square.sum().backward()
        return square.detach()

    return run


def error(square, reference):
    return float(((square / reference - 1) ** 2).mean().sqrt())


def iterations_needed(d, pairs, reference, target, limit):
    curves = Adam(*problem(d, pairs))
    for iterations in range(5, limit + 1, 5):
        curves.iterate(5)
        with torch.no_grad():
            if error(curves.squared_distance(), reference) <= target:
                return iterations
    return limit


def main():
    quick = parser(__doc__).parse_args().quick
    warnings.simplefilter("ignore", ConvergenceWarning)
    torch.set_num_threads(1)
    pairs, limit, repeats = (5, 100, 1) if quick else (100, 200, 3)
    print("One thread; least processor time, and peak memory above that before.\n")
    print("\n".join(table(["d", "method", "s", "times ours", "peak memory", "error"], [])))
    for d in (2,) if quick else (2, 8):
        decoder, x, y = problem(d, pairs)
        with torch.no_grad():
            reference = squared_distance(decoder, x, y, steps=64, tolerance=1e-4)
            target = max(error(squared_distance(decoder, x, y, steps=STEPS), reference), TARGET)
        needed = iterations_needed(d, pairs, reference, target, limit)
        methods, fastest = {"ours": (0, repeats), "loop": (0, repeats), "adam": (needed, 1)}, None
        for method, (iterations, count) in methods.items():
            arguments = method, d, iterations
            seconds, memory, square = measure(
                distances, (*arguments, pairs), (method, d, 1, 2), count
            )
            fastest = fastest or seconds
            name = f"adam x {needed}" if method == "adam" else method
            cells = [str(d), name, f"{seconds:.3f}", f"{seconds / fastest:.1f}", shown(memory)]
            print(table([*cells, f"{error(square, reference):.1e}"], [])[0], flush=True)
    print(f"\nAdam stops at {limit} iterations: if its error is larger, its time is a lower bound.")


if __name__ == "__main__":
    main()
