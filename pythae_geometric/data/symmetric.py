"""Data with a known symmetry: manifolds through a random network, and turning images."""

import math
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from .._checks import check_count, check_finite, check_generator
from .._inputs import as_data, as_images, like
from ..geometry import Manifold


class SymmetricData(NamedTuple):
    """Points of a manifold, and what a network makes of them.

    Attributes:
        data: ``[N, D]``.
        points: uniform on the manifold, ``[N, m]``.
    """

    data: torch.Tensor
    points: torch.Tensor


def random_network(
    ambient_dim: int,
    output_dim: int = 100,
    hidden_dim: int = 100,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """The fixed network of the toy task: one hidden layer of ReLU units, Xavier-uniform weights.

    Args:
        ambient_dim: m, of the points.
        output_dim: D, of the data. The paper does not say; 100 as in Davidson et al.
        hidden_dim: width of the hidden layer.
        generator: of the weights; None: torch's global one. Biases are 0.

    Returns:
        The network ``[B, m] -> [B, D]``; it is not to be trained.

    Raises:
        TypeError: if ``generator`` is neither a generator nor None.
        ValueError: if a dimension is less than 1.

    References:
        T. Davidson, L. Falorsi, N. De Cao, T. Kipf, J. Tomczak, *Hyperspherical variational
        auto-encoders*, UAI 2018, section 5.1.
    """
    ambient_dim = check_count("ambient_dim", ambient_dim, 1)
    output_dim = check_count("output_dim", output_dim, 1)
    hidden_dim = check_count("hidden_dim", hidden_dim, 1)
    check_generator(generator)
    first, last = nn.Linear(ambient_dim, hidden_dim), nn.Linear(hidden_dim, output_dim)
    for layer in (first, last):
        nn.init.xavier_uniform_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.ReLU(), last).requires_grad_(False)


def symmetric_data(
    manifold: Manifold,
    num_samples: int,
    network: nn.Module,
    generator: torch.Generator | None = None,
) -> SymmetricData:
    r"""Uniform points of a manifold through a fixed network, without noise: :math:`x = f(y)`.

    Args:
        manifold: a circle in the paper.
        num_samples: N, at least 1.
        network: f, such as a :func:`random_network`; the points move to its device and type.
        generator: of the points; None: torch's global one.

    Raises:
        TypeError: if ``manifold``, ``network`` or ``generator`` is of another type.
        ValueError: if ``num_samples`` is less than 1.

    Example:
        >>> from pythae_geometric.geometry import Circle
        >>> network = random_network(2, generator=torch.Generator().manual_seed(0))
        >>> symmetric_data(Circle(), 5, network).data.shape
        torch.Size([5, 100])
    """
    if not isinstance(manifold, Manifold):
        raise TypeError(f"manifold must be a geometry.Manifold, got a {type(manifold).__name__}.")
    if not isinstance(network, nn.Module):
        raise TypeError(f"network must be a torch module, got a {type(network).__name__}.")
    num_samples = check_count("num_samples", num_samples, 1)
    check_generator(generator)
    points = manifold.sample(num_samples, generator).to(like(network))
    with torch.no_grad():
        return SymmetricData(network(points), points)


class RotatedImages(NamedTuple):
    """Turned images, and by how much.

    Attributes:
        data: in [0, 1], ``[N, 1, size, size]``.
        angle: counter-clockwise, in :math:`[0, 2\\pi)`, ``[N]``.
        source: which image it was, ``[N]``.
    """

    data: torch.Tensor
    angle: torch.Tensor
    source: torch.Tensor


def rotated_digits(
    num_samples: int,
    num_sources: int = 1,
    size: int = 16,
    generator: torch.Generator | None = None,
) -> RotatedImages:
    """The 8x8 digits of scikit-learn, enlarged and turned by uniform angles.

    Args:
        num_samples: N, at least 1.
        num_sources: how many digits, the first of scikit-learn's (they begin 0, 1, 2, ...) but
            for zeros, which turn into themselves; sources go round the samples.
        size: side of the images, at least 8.
        generator: of the angles; None: torch's global one.

    Raises:
        TypeError: if ``generator`` is neither a generator nor None.
        ValueError: if a number is out of range.
    """
    num_samples = check_count("num_samples", num_samples, 1)
    num_sources = check_count("num_sources", num_sources, 1)
    size = check_count("size", size, 8)
    check_generator(generator)
    digits = load_digits()
    images = digits.images[digits.target != 0]
    if num_sources > len(images):
        raise ValueError(f"num_sources must be at most {len(images)}, got {num_sources}.")
    source = torch.arange(num_samples) % num_sources
    angle = 2 * math.pi * torch.rand(num_samples, generator=generator)
    images = torch.as_tensor(images[:num_sources, None] / 16, dtype=torch.float32)
    return RotatedImages(rotate(images[source], angle, size), angle, source)


def rotate(images: object, angle: object, size: int) -> torch.Tensor:
    """Turn images counter-clockwise about their centre, by bilinear interpolation.

    The image is drawn small enough that its corners never leave the frame.

    Args:
        images: ``[B, C, H, W]``; uint8 from 0 to 255 becomes [0, 1].
        angle: ``[B]``, in radians.
        size: side of the result, at least 1.

    Returns:
        ``[B, C, size, size]``, black where the image is not.

    Raises:
        TypeError: if the images or angles are not real numbers.
        ValueError: if their shapes do not fit, they are not finite, or ``size`` is out of range.
    """
    size, images = check_count("size", size, 1), as_images(images)
    angle = as_data(angle, "angle").to(images)
    if angle.shape != images.shape[:1]:
        raise ValueError(
            f"angle must have one entry for each of the {len(images)} images, got "
            f"{list(angle.shape)}."
        )
    check_finite(angle, "angle")
    # Rows of the picture go down, so in these coordinates the turn has the other sense; the
    # transform sends points of the result to points of the image, which turns it back.
    c, s = math.sqrt(2) * angle.cos(), math.sqrt(2) * angle.sin()
    zero = torch.zeros_like(c)
    theta = torch.stack([torch.stack([c, -s, zero], 1), torch.stack([s, c, zero], 1)], dim=1)
    grid = F.affine_grid(theta, [*images.shape[:2], size, size], align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
