"""Fréchet distance between Gaussians fitted to two clouds of features."""

import torch

from .._processes import all_of
from ..geometry._warnings import warn
from ._checks import as_clouds


class FrechetStatistics:
    r"""Number, mean and covariance of features that are seen batch by batch, or in several
    processes: all that :func:`frechet_distance` asks of a cloud, however large.

    Sums of squares around the mean add up without cancellation: those of two clouds of n and m
    points whose means differ by :math:`\delta` to
    :math:`S = S_n + S_m + \tfrac{n m}{n + m}\, \delta \delta^\top`.

    References:
        T. F. Chan, G. H. Golub, R. J. LeVeque, Algorithms for computing the sample variance, The
        American Statistician 37, 1983.

    Example:
        >>> import torch
        >>> real, fake = FrechetStatistics(), FrechetStatistics()
        >>> for x in torch.tensor([[0.0], [2.0], [0.0], [2.0]]).split(2):
        ...     real.add(x)
        ...     fake.add(x + 3)
        >>> frechet_distance(real, fake)
        9.0
    """

    def __init__(self):
        self.count = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.scatter = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, features: object) -> None:
        """Take in features ``[n, p]``, n at least 1.

        Raises:
            TypeError: if they are not real numbers.
            ValueError: if they are not finite, or of another dimension than those before.
        """
        (x,) = as_clouds(1, features=features)
        x = x.cpu()
        mean = x.mean(0)
        self._take(len(x), mean, (x - mean).T @ (x - mean))

    def over_processes(self) -> "FrechetStatistics":
        """Those of all processes of a ``torch.distributed`` group together, in each of them;
        without a group, the same.

        Raises:
            ValueError: if the features of processes are of different dimensions.
        """
        whole = FrechetStatistics()
        for part in all_of([(self.count, self.mean, self.scatter)]):
            if part[0] > 0:
                whole._take(*part)
        return whole

    def _take(self, count, mean, scatter):
        if self.count == 0:
            self.count, self.mean, self.scatter = count, mean, scatter
            return
        if len(mean) != len(self.mean):
            raise ValueError(
                f"features must have {len(self.mean)} dimensions as those before, got {len(mean)}."
            )
        total = self.count + count
        difference = mean - self.mean
        between = self.count * count / total * difference.outer(difference)
        self.mean = self.mean + count / total * difference
        self.scatter = self.scatter + scatter + between
        self.count = total

    def _root(self) -> torch.Tensor:
        r"""A root R ``[p, p]`` of the covariance :math:`C = R^\top R`."""
        values, vectors = torch.linalg.eigh(self.scatter / (self.count - 1))
        return values.clamp(min=0).sqrt().unsqueeze(1) * vectors.T


def frechet_distance(features_a: object, features_b: object) -> float:
    r"""Squared Fréchet (2-Wasserstein) distance between Gaussians fitted to two clouds.

    .. math::
        |m_a - m_b|^2 + \operatorname{tr}(C_a + C_b - 2 (C_a C_b)^{1/2}),

    with means m and unbiased covariances C. With Inception features this is the FID. It is biased
    upwards for few points: compare only distances between equal numbers of points.

    Args:
        features_a: ``[N, p]``, N at least 2, or :class:`FrechetStatistics` of such.
        features_b: ``[M, p]``, M at least 2, or likewise.

    Raises:
        TypeError: if the points are not real numbers.
        ValueError: if there are too few points, they or their squares are not finite, or dimensions
            differ.

    Warns:
        UserWarning: if there are no more points than features.

    References:
        Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
        Equilibrium*, NeurIPS 2017, eq. 6, https://arxiv.org/abs/1706.08500

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> frechet_distance(x, x + 3)
        9.0
    """
    (mean_a, root_a), (mean_b, root_b) = _gaussians(features_a, features_b)
    difference = mean_a - mean_b
    apart = difference.square().sum() + root_a.square().sum() + root_b.square().sum()
    if not bool(torch.isfinite(apart)):
        raise ValueError("The squares of the features are too large for float64: rescale them.")
    common = torch.linalg.svdvals(root_a @ root_b.T).sum()
    return max(0.0, float(apart - 2 * common))


def _gaussians(*features: object) -> list[tuple[torch.Tensor, torch.Tensor]]:
    r"""Mean and root R of the covariance :math:`C = R^\top R` of each cloud.

    tr (C_a C_b)^½ is the sum of the singular values of R_a R_bᵀ: no root of a matrix is taken, so
    that singular covariances do no harm.
    """
    names = ("features_a", "features_b")
    given = dict(zip(names, features, strict=True))
    clouds = {n: f for n, f in given.items() if not isinstance(f, FrechetStatistics)}
    found, counts = {}, {}
    for name, x in zip(clouds, as_clouds(2, **clouds), strict=True):
        root = torch.linalg.qr((x - x.mean(0)) / (len(x) - 1) ** 0.5, mode="r").R
        found[name], counts[name] = (x.mean(0), root), len(x)
    for name, f in given.items():
        if isinstance(f, FrechetStatistics):
            if f.count < 2:
                raise ValueError(f"{name} must be of at least 2 points, got {f.count}: add some.")
            found[name], counts[name] = (f.mean, f._root()), f.count
    means = [found[name][0] for name in names]
    dims = [len(mean) for mean in means]
    if dims[0] != dims[1]:
        sizes = ", ".join(f"{n} {d}" for n, d in zip(names, dims, strict=True))
        raise ValueError(f"Points must have one dimension, got {sizes}.")
    if min(counts.values()) <= dims[0]:
        warn(
            f"The Fréchet distance of {counts[names[0]]} and {counts[names[1]]} points with "
            f"{dims[0]} features is far too large: a covariance needs more points than features. "
            "Take more points, and compare only distances between equal numbers of points."
        )
    return [(mean.cpu(), root.cpu()) for mean, root in (found[name] for name in names)]
