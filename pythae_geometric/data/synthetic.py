"""Surfaces in a higher dimension whose flat picture is known (Lazarev 2023, "Datasets")."""

import math
from typing import NamedTuple

import torch

from .._checks import check_count, check_generator, check_number


class SyntheticGaussians(NamedTuple):
    """Planar Gaussian clouds, and what they were made of.

    Attributes:
        data: ``[N, D]``.
        labels: cloud of each point, ``[N]``.
        plane: coordinates of each point in the plane of its cloud, ``[N, 2]``.
        planes: orthonormal bases of the planes, ``[K, D, 2]``.
        centres: of the clouds, ``[K, D]``.
    """

    data: torch.Tensor
    labels: torch.Tensor
    plane: torch.Tensor
    planes: torch.Tensor
    centres: torch.Tensor


def synthetic_gaussians(
    num_samples: int = 18_000,
    num_clouds: int = 3,
    dim: int = 784,
    offset: float = 0.1,
    std: float = 1.0,
    generator: torch.Generator | None = None,
) -> SyntheticGaussians:
    r"""Gaussian clouds in random planes of :math:`\mathbb{R}^D`.

    .. math:: x = c_k + P_k u, \qquad u \sim \mathcal{N}(0, \sigma^2 I_2), \qquad
              c_k \sim \mathcal{N}(0, s^2 I_D)

    with ``P_k`` the orthonormal basis of a uniformly random plane and ``k`` going round the clouds,
    so that their sizes differ by one at most. Two centres are about :math:`s \sqrt{2 D}` apart.

    Args:
        num_samples: N, at least ``num_clouds``.
        num_clouds: K, at least 1.
        dim: D, at least 2.
        offset: scale :math:`s \ge 0` of the centres.
        std: :math:`\sigma > 0`.
        generator: source of the randomness; None: torch's global one.

    Raises:
        TypeError: if ``generator`` is neither a generator nor None.
        ValueError: if a number is out of range.

    Example:
        >>> gaussians = synthetic_gaussians(9, generator=torch.Generator().manual_seed(0))
        >>> gaussians.data.shape, gaussians.labels.tolist()
        (torch.Size([9, 784]), [0, 1, 2, 0, 1, 2, 0, 1, 2])
    """
    num_clouds = check_count("num_clouds", num_clouds, 1)
    num_samples = check_count("num_samples", num_samples, num_clouds)
    dim = check_count("dim", dim, 2)
    offset, std = check_number("offset", offset, least=0), check_number("std", std, above=0)
    check_generator(generator)
    planes = torch.linalg.qr(torch.randn(num_clouds, dim, 2, generator=generator)).Q
    centres = offset * torch.randn(num_clouds, dim, generator=generator)
    plane = std * torch.randn(num_samples, 2, generator=generator)
    labels = torch.arange(num_samples) % num_clouds
    data = torch.empty(num_samples, dim)
    for k in range(num_clouds):
        data[labels == k] = centres[k] + plane[labels == k] @ planes[k].T
    return SyntheticGaussians(data, labels, plane, planes, centres)


class SwissRoll(NamedTuple):
    """A rolled sheet, and the coordinates on it when it lies flat.

    Attributes:
        data: ``[N, 3]``.
        sheet: arc length along the roll and height, ``[N, 2]``: distances on the sheet are
            Euclidean distances of these.
        angle: of the roll, ``[N]``.
    """

    data: torch.Tensor
    sheet: torch.Tensor
    angle: torch.Tensor


def swiss_roll(
    num_samples: int = 18_000, noise: float = 1e-6, generator: torch.Generator | None = None
) -> SwissRoll:
    r"""The Swiss roll of ``sklearn.datasets.make_swiss_roll``, with the sheet that it is made of.

    .. math:: x = (t \cos t,\ h,\ t \sin t) + \text{noise}, \qquad
              t \sim \mathcal{U}[\tfrac32 \pi, \tfrac92 \pi], \qquad h \sim \mathcal{U}[0, 21]

    The spiral has the arc length :math:`s(t) = \tfrac12 (t \sqrt{1 + t^2} + \operatorname{arsinh}
    t)`, counted from its inner end; the sheet is 89.3 long and 21 high.

    Args:
        num_samples: N, at least 1.
        noise: standard deviation of Gaussian noise on ``data``, at least 0.
        generator: source of the randomness; None: torch's global one.

    Raises:
        TypeError: if ``generator`` is neither a generator nor None.
        ValueError: if a number is out of range.
    """
    num_samples = check_count("num_samples", num_samples, 1)
    noise = check_number("noise", noise, least=0)
    check_generator(generator)
    unit = torch.rand(num_samples, 2, generator=generator)
    t, height = 1.5 * math.pi * (1 + 2 * unit[:, 0]), 21 * unit[:, 1]
    data = torch.stack([t * t.cos(), height, t * t.sin()], dim=1)
    data = data + noise * torch.randn(num_samples, 3, generator=generator)
    length = _spiral_length(t) - _spiral_length(torch.tensor(1.5 * math.pi))
    return SwissRoll(data, torch.stack([length, height], dim=1), t)


def _spiral_length(t: torch.Tensor) -> torch.Tensor:
    return 0.5 * (t * (1 + t.square()).sqrt() + t.asinh())
