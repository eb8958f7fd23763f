"""Data with a known symmetry: the toy network, and turned digits."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from sklearn.datasets import load_digits

from pythae_geometric.data.symmetric import (
    random_network,
    rotate,
    rotated_digits,
    symmetric_data,
)
from pythae_geometric.geometry import Circle, Product, SpecialOrthogonal3, Sphere, Torus


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_network_is_xavier_uniform():
    network = random_network(2, 60, 200, generator())
    for layer, fans in zip(network[::2], (2 + 200, 200 + 60), strict=True):
        bound = math.sqrt(6 / fans)
        weights = layer.weight.flatten().numpy()
        assert abs(weights).max() <= bound
        statistic = stats.kstest(weights, stats.uniform(-bound, 2 * bound).cdf).statistic
        assert statistic < stats.kstwo.ppf(1 - 1e-4, len(weights))
        assert not layer.bias.any()
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    "M", [Circle(), Sphere(2), Torus(2), SpecialOrthogonal3(), Product(Sphere(2), Circle())]
)
def test_data_are_the_networks_values_on_the_manifold(M):
    network = random_network(M.ambient_dim, 30, generator=generator())
    data, points = symmetric_data(M, 50, network, generator(1))
    M.check(points)
    W, V = (layer.weight.numpy() for layer in network[::2])
    expected = np.maximum(points.numpy() @ W.T, 0) @ V.T
    np.testing.assert_allclose(data.numpy(), expected, atol=1e-5)
    again = symmetric_data(M, 50, network, generator(1))
    assert torch.equal(again.data, data)


def test_quarter_turns_are_those_of_numpy():
    """On a frame of the image's own scale: every second pixel is a corner of four."""
    image = torch.rand(1, 1, 8, 8, generator=generator())
    straight = rotate(image, torch.zeros(1), 24)[0, 0].numpy()
    for k in (1, 2, 3):
        turned = rotate(image, torch.tensor([k * math.pi / 2]), 24)[0, 0].numpy()
        np.testing.assert_allclose(turned, np.rot90(straight, k), atol=1e-5)


def test_any_turn_is_that_of_scipy():
    """A smooth image, where two bilinear interpolations agree."""
    t = torch.linspace(-1, 1, 33)
    image = torch.exp(-8 * ((t[:, None] - 0.3) ** 2 + 3 * (t[None] + 0.1) ** 2))
    straight = rotate(image[None, None], torch.zeros(1), 65)[0, 0].numpy()
    turned = rotate(image[None, None], torch.tensor([0.7]), 65)[0, 0].numpy()
    expected = ndimage.rotate(straight, math.degrees(0.7), reshape=False, order=1)
    assert abs(turned - expected).max() < 0.03
    assert abs(turned - straight).max() > 0.3


def test_digits_keep_their_ink_and_have_uniform_angles():
    data, angle, source = rotated_digits(2000, num_sources=5, generator=generator())
    assert data.shape == (2000, 1, 16, 16) and 0 <= data.min() and data.max() <= 1
    assert source.bincount().tolist() == [400] * 5
    uniform = stats.uniform(0, 2 * math.pi).cdf
    assert stats.kstest(angle.numpy(), uniform).statistic < stats.kstwo.ppf(1 - 1e-4, 2000)
    # Ink is the integral of the image: the same at every angle, up to interpolation.
    ink = data.sum((1, 2, 3))
    for k in range(5):
        assert ink[source == k].std() < 0.03 * ink[source == k].mean()
    digits = load_digits()
    first = digits.images[digits.target != 0][0] / 16
    assert float(ink[source == 0].mean()) == pytest.approx(first.sum() * 256 / 128, rel=0.03)
    assert torch.equal(data, rotated_digits(2000, 5, generator=generator()).data)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: random_network(0), "ambient_dim"),
        (lambda: random_network(2, output_dim=0), "output_dim"),
        (lambda: random_network(2, hidden_dim=1.5), "hidden_dim"),
        (lambda: symmetric_data(Circle(), 0, random_network(2)), "num_samples"),
        (lambda: rotated_digits(0), "num_samples"),
        (lambda: rotated_digits(3, num_sources=0), "num_sources"),
        (lambda: rotated_digits(3, num_sources=10_000), "num_sources"),
        (lambda: rotated_digits(3, size=4), "size"),
    ],
)
def test_bad_numbers_are_named(call, name):
    with pytest.raises(ValueError, match=name):
        call()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: random_network(2, generator=0), "generator must be a torch.Generator or None"),
        (lambda: rotated_digits(3, generator=0), "generator must be"),
        (lambda: symmetric_data("circle", 3, random_network(2)), "manifold must be"),
        (lambda: symmetric_data(Circle(), 3, abs), "network must be"),
    ],
)
def test_things_of_other_types_are_named(call, name):
    with pytest.raises(TypeError, match=name):
        call()


def test_points_take_the_type_of_the_network():
    network = random_network(2, 3, generator=generator()).double()
    data, points = symmetric_data(Circle(), np.int64(5), network, generator())
    assert data.dtype == points.dtype == torch.float64
    torch.testing.assert_close(data, network(points))


def test_images_of_bytes_are_turned_as_floats():
    image = load_digits().images[1:2, None] / 16
    bytes_ = np.round(255 * image).astype(np.uint8)
    turned = [rotate(x, [0.3], 12) for x in (image.astype(np.float32), bytes_)]
    torch.testing.assert_close(*turned, rtol=0, atol=0.51 / 255)
    with pytest.raises(ValueError, match="angle must have one entry for each of the 1 images"):
        rotate(image, [0.3, 0.4], 12)
