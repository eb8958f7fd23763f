"""A batch of squared geodesic distances with gradients, three ways.

The decoder is a random network (d -> 256 -> 256 -> 784, tanh) whose geodesics are visibly curved.
Value and gradient, in the end points and in all parameters, of 100 squared distances, by

  ours       squared_distance: all curves at once, quadratic pieces, preconditioned L-BFGS
  loop       the same, one pair after another
  adam       the published way: natural cubic splines through free nodes, Adam through the network
             on the energy ½ N Σ |f(γ_i+1) - f(γ_i)|², all curves at once (kinder than a loop)

"adam" stops as soon as the root mean square relative error, against curves of 64 steps, is that of
"ours" or 2e-3, whichever is larger (the discretisation with 32 points has about 1e-3); the time of
the checks is not counted, and the best of four learning rates was chosen by hand. Each method runs
in a process of its own, so that its peak memory is its own (Linux).

    python examples/benchmarks/distances.py [--quick]
"""

import itertools
import pathlib
import sys
import time
import warnings

import torch
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from lib.arguments import parser
from lib.costs import alone, shown
from lib.plain import natural_spline

from pythae_geometric.geometry import ConvergenceWarning, squared_distance

STEPS = 12
TARGET = 2e-3


def problem(d, pairs):
    generator = torch.Generator().manual_seed(d)
    widths = (d, 256, 256, 784)
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
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


def run(method, d, pairs, iterations):
    """The seconds and the squared distances of a method."""
    decoder, x, y = problem(d, pairs)

    def once():
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

    times = []
    for _ in range(1 if method == "adam" else 3):
        start = time.perf_counter()
        square = once()
        times.append(time.perf_counter() - start)
    return min(times), square


def error(square, reference):
    return float(((square / reference - 1) ** 2).mean().sqrt())


def iterations_needed(d, pairs, reference, target, limit):
    curves, iterations, reached = Adam(*problem(d, pairs)), 0, float("inf")
    while reached > target and iterations < limit:
        curves.iterate(5)
        iterations += 5
        with torch.no_grad():
            reached = error(curves.squared_distance(), reference)
    return iterations, reached


def main():
    p = parser(__doc__)
    p.add_argument("--quick", action="store_true", help="5 pairs, d = 2, at most 100 iterations")
    quick = p.parse_args().quick
    warnings.simplefilter("ignore", ConvergenceWarning)
    torch.set_num_threads(1)
    pairs, limit = (5, 100) if quick else (100, 200)
    print(f"{pairs} pairs, one thread; memory beyond that of an idle process")
    for d in (2,) if quick else (2, 8):
        decoder, x, y = problem(d, pairs)
        with torch.no_grad():
            reference = squared_distance(decoder, x, y, steps=64, tolerance=1e-4)
        results = {method: alone(run, method, d, pairs, 0) for method in ("ours", "loop")}
        (fastest, square), _ = results["ours"]
        target = max(error(square, reference), TARGET)
        needed, reached = iterations_needed(d, pairs, reference, target, limit)
        results[f"adam x {needed}"] = alone(run, "adam", d, pairs, needed)
        for name, ((seconds, square), memory) in results.items():
            print(
                f"d = {d}  {name:10s} {seconds:7.3f} s  ratio {seconds / fastest:5.1f}  "
                f"peak {shown(memory):>8}  error {error(square, reference):.1e}",
                flush=True,
            )
        if reached > target:
            print(
                f"       adam stopped at the limit, error {reached:.1e}: its ratio is a lower bound"
            )


if __name__ == "__main__":
    main()
