"""The metric whose uniform distribution is that of the codes of a data set."""

import math
import warnings
from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from ..geometry import MixtureMetric
from ..geometry.mixture_metric import features, log_density_coefficients
from .progress import progress_bar

# More codes than this, chosen at random, change the fit little and cost time.
MAX_CODES = 50_000
# One in ten of the codes, but no more than this, are held out to choose from.
MAX_HELD_OUT = 5_000
# Mixtures that are averaged.
MEMBERS = 4
# Passes of expectation and maximisation after k-means, which takes at most as many of its own.
PASSES = 6
# Components of fewer codes have no covariance, and are dropped.
LEAST_CODES = 2
# Each covariance counts as one code of the shape of the pooled covariance.
STRENGTH = 1.0
# Least variance in any direction, in units of the mean one of its component (which float32 must
# hold), and of the variance of a coordinate.
FLOORS = 1e-6, 1e-12
BATCH = 4096


class Mixture(NamedTuple):
    """``log_weights [K]``, ``centroids [K, d]``, ``covariances [K, d, d]``."""

    log_weights: torch.Tensor
    centroids: torch.Tensor
    covariances: torch.Tensor

    def coefficients(self) -> torch.Tensor:
        factors = torch.linalg.cholesky(self.covariances)
        return log_density_coefficients(self.log_weights, self.centroids, factors)[0]


def fit_mixture_metric(
    codes: torch.Tensor,
    num_centroids: int | None = None,
    width: float | None = None,
    seed: int = 0,
) -> MixtureMetric:
    r"""Fit a :class:`~pythae_geometric.geometry.MixtureMetric` to latent codes.

    The uniform distribution of the metric is a mixture of normal distributions
    :math:`\mathcal{N}(c_k, h^2 \Sigma_k)`, where :math:`\Sigma_k` is the covariance of the codes
    around :math:`c_k`. It is the mean of four mixtures, which makes codes that were held out more
    likely than each of the four does. Each is fitted by expectation and maximisation and starts
    from k-means, whose clusters are compact in the space that the decoder sees.

    Args:
        codes: ``[N, d]``, finite. Of more than 50,000 a random choice is used.
        num_centroids: the number K of components, all four mixtures together, less those that came
            to have fewer than two codes; None: in each it doubles as long as codes that are held
            out become more likely, and the smallest number within a standard error is taken.
        width: h > 0; None: 1, the covariance as it is. (On MNIST larger widths gave worse images
            than fewer components with as much novelty.)
        seed: of the choice of held-out codes and of k-means.

    Raises:
        ValueError: if there are fewer than two codes for each centroid, all codes coincide, or
            their variances are too small or too large for floating-point numbers.
    """
    if num_centroids is not None and 2 * num_centroids > len(codes):
        raise ValueError(
            f"num_centroids is {num_centroids}, but there are only {len(codes)} training points, "
            "and each centroid needs two to have a covariance: set it to at most half of them."
        )
    mean, scale = _units(codes)
    generator = torch.Generator().manual_seed(seed)
    codes = codes[torch.randperm(len(codes), generator=generator)[:MAX_CODES]]
    held_out = min(len(codes) // 10, MAX_HELD_OUT) if num_centroids is None else 0
    y = (codes.double() - mean) / scale  # moments of tight clusters cancel in float32
    y, codes, held_out = y[held_out:], codes[held_out:], y[:held_out]

    with progress_bar("Fitting") as bar:

        def fit(K, member):
            bar.update()
            return _fit(y, codes, K, seed + member)

        if num_centroids is None:
            members = [_chosen(held_out, lambda K: fit(K, 0), len(y))]
            K = len(members[0].log_weights)
            members += [fit(K, i) for i in range(1, MEMBERS if K > 1 else 1)]
        else:
            few = min(MEMBERS, num_centroids)
            counts = [num_centroids // few + (i < num_centroids % few) for i in range(few)]
            members = [fit(K, i) for i, K in enumerate(counts)]
    mixture = Mixture(*map(torch.cat, zip(*members, strict=True)))
    units = (1.0 if width is None else width) * scale
    S = units * units.unsqueeze(-1) * mixture.covariances
    made = mixture.log_weights.exp(), mean + scale * mixture.centroids, S
    weights, centroids, S = (tensor.to(codes.dtype) for tensor in made)
    variances, numbers = S.diagonal(dim1=-2, dim2=-1), torch.finfo(S.dtype)
    if not bool(((variances > numbers.tiny) & (variances < numbers.max)).all()):
        raise ValueError(
            f"{S.dtype} does not hold the variances of the codes, with widths times "
            f"{1 if width is None else width:.3g}: choose a temperature nearer to 1, or rescale "
            "the data."
        )
    return MixtureMetric(weights, centroids, S)


def _units(codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each coordinate, ``[d]``."""
    mean, scale = codes.mean(0), codes.std(0, unbiased=False)
    constant = scale <= 1e-6 * codes.abs().amax(0)  # but for rounding
    if bool(constant.all()):
        raise ValueError(
            f"All {len(codes)} training data have the same code, so there is no distribution to "
            "draw from: pass more data, or data that differ. If they do differ, the model has "
            "collapsed: train it again, with less weight on its regularisation."
        )
    # A coordinate that the model does not use varies a little all the same, so that no covariance
    # is singular.
    return mean, torch.where(constant, 1e-3 * scale.max(), scale)


def _chosen(held_out: torch.Tensor, fit, num_codes: int) -> Mixture:
    """The number of components doubles as long as held-out codes become more likely, to 64 in any
    case. Of the numbers tried it is the smallest within a standard error of the best."""
    K, tried = 1, [fit(1)]
    if len(held_out) < 2:
        return tried[0]
    likelihoods = [_log_likelihood(held_out, tried[0])]
    # Components of fewer codes than twice the dimension, or than ten, have no shape of their own.
    most = num_codes // max(10, 2 * held_out.shape[1])
    while (K := 2 * K) <= most:
        tried.append(fit(K))
        likelihoods.append(_log_likelihood(held_out, tried[-1]))
        if K > 64 and likelihoods[-1].mean() < likelihoods[-2].mean():
            break
    best = max(likelihoods, key=lambda likelihood: float(likelihood.mean()))
    for mixture, likelihood in zip(tried, likelihoods, strict=True):
        gain = best - likelihood
        if gain.mean() <= gain.std() / len(gain) ** 0.5:
            return mixture
    return tried[-1]


def _log_likelihood(y: torch.Tensor, mixture: Mixture) -> torch.Tensor:
    """``[B, d] -> [B]``."""
    coefficients = mixture.coefficients()
    return torch.cat([(features(part) @ coefficients).logsumexp(-1) for part in y.split(BATCH)])


def _fit(y: torch.Tensor, codes: torch.Tensor, K: int, seed: int) -> Mixture:
    """A mixture of at most K components for ``y``, which are ``codes`` in units of their own."""
    clusters = KMeans(K, n_init=1, max_iter=PASSES, random_state=seed % 2**32)
    # One thread, so that two runs agree. It warns of codes that coincide.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        label = torch.as_tensor(clusters.fit(codes.numpy()).labels_, dtype=torch.long)
    f = features(y[:1])
    moments = y.new_zeros(K, f.shape[1])
    for part, labels in zip(y.split(BATCH), label.split(BATCH), strict=True):
        moments.index_add_(0, labels, features(part))
    mixture = _maximise(moments, len(y))
    for _ in range(PASSES):
        coefficients, moments = mixture.coefficients(), y.new_zeros(())
        for part in y.split(BATCH):
            f = features(part)
            moments = moments + (f @ coefficients).softmax(-1).T @ f
        mixture = _maximise(moments, len(y))
    return mixture


def _maximise(moments: torch.Tensor, num_codes: int) -> Mixture:
    """The mixture from the moments of its components: sums of shares times ``features``."""
    moments = moments[moments[:, -1] >= min(LEAST_CODES, num_codes / 2)]
    second, first, count = moments.tensor_split([-_dim(moments) - 1, -1], -1)
    d = first.shape[1]
    c = first / count
    i, j = torch.tril_indices(d, d)
    S = moments.new_empty(len(c), d, d)
    S[:, i, j] = second
    S[:, j, i] = second
    S -= count.unsqueeze(-1) * (c.unsqueeze(-1) * c.unsqueeze(-2))

    # The pooled covariance itself leans towards its diagonal where there are few codes. Only its
    # shape is shared: its scale is that of the component, in the mean over directions.
    pooled = S.sum(0)
    pooled = _lifted((pooled + d * torch.diag(pooled.diagonal() / num_codes)) / (num_codes + d))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(pooled))
    count = count.unsqueeze(-1)
    scale = (S * inverse).sum((1, 2)).reshape(count.shape).clamp(min=0) / (d * count)
    S = (S + STRENGTH * scale * pooled) / (count + STRENGTH)
    return Mixture((count / count.sum()).log().flatten(), c, _lifted(S))


def _dim(moments: torch.Tensor) -> int:
    """The d of ``d (d + 1) / 2 + d + 1`` features."""
    return round((math.sqrt(8 * moments.shape[1] + 1) - 3) / 2)


def _lifted(S: torch.Tensor) -> torch.Tensor:
    own = S.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None].clamp(min=0)
    return S + (FLOORS[0] * own + FLOORS[1]) * torch.eye(S.shape[-1]).to(S)
