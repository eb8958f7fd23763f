import pytest
import torch
from torch import nn

from pythae_geometric.geometry import forward_laplacian as module
from pythae_geometric.geometry import second_directional_derivative
from pythae_geometric.geometry.forward_laplacian import sum_of_second_derivatives


class Branches(nn.Module):
    """What a module may ask of its input, and do with several at once."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, z):
        assert z.shape == (len(z), 3) and z.dim() == 2 and z.is_floating_point()
        h = self.layer(z).view(z.size(0), 2, 2)
        first, second = h.chunk(2, dim=1)
        h = torch.where(first > 0, first.exp(), second * first).flatten(1)
        return {"out": torch.cat([h, z[:, :1] / (1 + z[:, 1:] ** 2)], dim=1)}["out"]


MAPS = {
    "perceptron": nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6), nn.Sigmoid()),
    "in place": nn.Sequential(nn.Linear(3, 8), nn.ELU(inplace=True), nn.Linear(8, 6)),
    "norms": nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.SiLU(), nn.Linear(8, 6)),
    "convolutions": nn.Sequential(
        nn.Linear(3, 16), nn.Unflatten(1, (4, 2, 2)), nn.ConvTranspose2d(4, 3, 3),
        nn.BatchNorm2d(3), nn.GELU(), nn.Conv2d(3, 2, 2),
    ),
    "branches": Branches(),
    "products": lambda z: torch.einsum("bi,bj->bij", z, z.sin()) / z.norm(dim=1)[:, None, None],
    "softmax": lambda z: z.softmax(1).log() * z @ torch.ones(3, 2).to(z),
    "parts": lambda z: torch.stack([p.exp() * 2 for p in z.split(1, 1)], 1),
}  # fmt: skip


@pytest.fixture(params=MAPS)
def f(request):
    f = MAPS[request.param]
    return f.double().eval() if isinstance(f, nn.Module) else f


def test_it_is_the_sum_of_second_directional_derivatives(f):
    torch.manual_seed(0)
    z = torch.randn(5, 3, dtype=torch.float64)
    frame = torch.randn(2, 5, 3, dtype=torch.float64)
    expected = sum(second_directional_derivative(f, z, e)[2] for e in frame)
    torch.testing.assert_close(sum_of_second_derivatives(f, z, frame), expected)


def test_known_sums():
    z = torch.randn(4, 3, dtype=torch.float64)
    frame = torch.eye(3, dtype=torch.float64)[:, None].expand(3, 4, 3)
    square = sum_of_second_derivatives(lambda y: y.square().sum(1, keepdim=True), z, frame)
    assert torch.allclose(square, torch.full_like(square, 6.0))
    harmonic = sum_of_second_derivatives(lambda y: y[:, :1].exp() * y[:, 1:2].sin(), z, frame)
    assert float(harmonic.abs().max()) < 1e-12
    radial = sum_of_second_derivatives(lambda y: y.norm(dim=1, keepdim=True), z, frame)
    assert torch.allclose(radial, 2 / z.norm(dim=1, keepdim=True))


def test_it_carries_the_sum_and_not_each_direction():
    """A decoder is evaluated by layers, never differentiated twice as a whole."""
    f, calls = MAPS["convolutions"].double().eval(), []
    f.register_forward_hook(lambda *_: calls.append(1))
    z = torch.randn(5, 3, dtype=torch.float64)
    sum_of_second_derivatives(f, z, torch.randn(2, 5, 3, dtype=torch.float64))
    assert len(calls) == 1


def test_a_map_that_cannot_be_carried_is_done_by_direction():
    def f(z):
        if type(z) is module._Carried:
            raise TypeError("of a tensor of its own kind")
        return z**3

    z = torch.randn(5, 3, dtype=torch.float64)
    frame = torch.eye(3, dtype=torch.float64)[:, None].expand(3, 5, 3)
    assert torch.allclose(sum_of_second_derivatives(f, z, frame), 6 * z)


def test_errors_are_those_of_derivatives():
    z = torch.randn(5, 3)
    with pytest.raises(NotImplementedError, match="cannot differentiate"):
        sum_of_second_derivatives(lambda y: torch.as_tensor(y.detach().numpy() ** 2), z, z[None])
    with pytest.raises(ValueError, match="random"):
        sum_of_second_derivatives(lambda y: y + torch.randn_like(y), z, z[None])
