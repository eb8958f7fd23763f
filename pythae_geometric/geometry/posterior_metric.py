"""The metric that the posteriors of a trained variational autoencoder put on its latent space."""

import math
from typing import Any

import torch

from ._checks import check_flag, check_real
from .centroid_metric import CentroidMetric, check_centroids, check_definite, check_tensors
from .metric import at_points, cholesky_factor

# The terms of the expanded quadratic forms may be this large: then they cancel to 1e-8 in float64,
# and the gradient, in float32, to a thousandth of its scale.
MAX_EXPANDED = 1e8


class PosteriorMetric(CentroidMetric):
    r"""The metric interpolated between the inverse posterior covariances at a few centroids.

    .. math::
        G(z) = \sum_k P_k\, w_k(z) + \lambda\, e^{-\tau \|z\|^2} I_d, \qquad
        w_k(z) = \exp\Big(-\frac{(z - c_k)^\top P_k (z - c_k)}{\rho^2}\Big)

    with centroids :math:`c_k`, precisions :math:`P_k = \Sigma_k^{-1}`, temperature :math:`\rho`,
    regularization :math:`\lambda` and decay :math:`\tau`.

    Everything is computed from weights relative to the largest one, so values and gradients stay
    exact where every weight underflows. For diagonal precisions a value and its gradient are four
    matrix products, in :math:`O(BK)` memory; for full ones :math:`O(B (K + d^2))`.

    With ``decay = 0`` and ``regularization > 0`` the volume of the whole space is infinite: the
    uniform distribution :math:`\propto \sqrt{\det G}` is improper, and a chain that runs for
    ever leaves the centroids. A positive decay makes it proper.

    Args:
        centroids: the points :math:`c_k`, ``[K, d]``, float32 or float64.
        precisions: positive diagonals ``[K, d]``, or symmetric positive definite ``[K, d, d]``.
        temperature: :math:`\rho > 0`, in units of the latent space.
        regularization: :math:`\lambda \ge 0`; the paper uses 0.01 (MNIST, SVHN), 0.1 (CIFAR)
            and 1 (CelebA).
        decay: :math:`\tau \ge 0`; the paper takes it close to 0.
        additive_volume: whether volumes of overlapping centroids add, see below.

    Where m centroids coincide, :math:`\sqrt{\det G}` of the paper's metric is :math:`m^{d/2}` times
    that of one: in high dimension the uniform distribution concentrates where centroids are
    densest. With ``additive_volume`` it is m times as large,

    .. math::
        G(z) = \Big(\sum_k v_k\Big)^{2/d}\, \frac{\sum_k v_k P_k}{\sum_k v_k}
               + \lambda\, e^{-\tau \|z\|^2} I_d, \qquad v_k(z) = w_k(z)^{d/2}.

    For one centroid, and for d = 2, both are the same metric. With :math:`\lambda = 0` and equal
    precisions :math:`P` its uniform distribution is exactly the mixture, with equal weights, of the
    normal distributions :math:`\mathcal{N}(c_k, \tfrac{\rho^2}{d} P^{-1})`. (This metric is of this
    package, not of the paper.)

    Raises:
        TypeError: if the tensors are not float32 or float64, or differ in dtype.
        ValueError: if a shape, a range or the definiteness of a precision is wrong.

    See also:
        :class:`~pythae_geometric.samplers.MetricUniformHMCSampler`, which fits this metric to a
        trained model and samples its uniform distribution.

    References:
        Chadebec and Allassonnière, *A Geometric Perspective on Variational Autoencoders*, NeurIPS
        2022, eq. 4 and Algorithm 1, https://arxiv.org/abs/2209.07370

    Example:
        >>> metric = PosteriorMetric(torch.randn(10, 2), torch.ones(10, 2), temperature=1.0)
        >>> log_volume, grad = metric.log_volume_and_grad(torch.randn(500, 2))
    """

    precisions: torch.Tensor
    temperature: torch.Tensor
    regularization: torch.Tensor
    decay: torch.Tensor
    additive_volume: torch.Tensor

    def __init__(
        self,
        centroids: torch.Tensor,
        precisions: torch.Tensor,
        temperature: float,
        regularization: float = 0.01,
        decay: float = 0.0,
        additive_volume: bool = False,
    ):
        _check(centroids, precisions)
        scalars = {
            "temperature": temperature,
            "regularization": regularization,
            "decay": decay,
        }
        if not isinstance(additive_volume, torch.Tensor):
            check_flag("additive_volume", additive_volume)
        for name, value in scalars.items():
            value = check_real(name, value)
            too_small = value <= 0 if name == "temperature" else value < 0
            if not math.isfinite(value) or too_small:
                bound = "positive" if name == "temperature" else "zero or more"
                raise ValueError(f"{name} must be finite and {bound}, got {value}.")

        like: dict[str, Any] = {"dtype": centroids.dtype, "device": centroids.device}
        super().__init__(
            centroids=centroids,
            precisions=precisions,
            **{name: torch.tensor(float(value), **like) for name, value in scalars.items()},
            additive_volume=torch.tensor(bool(additive_volume), device=centroids.device),
        )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """The metric tensor ``G(z)``, ``[B, d] -> [B, d, d]``."""
        log_scale, G = self._scaled_tensor(z)
        G = log_scale.exp() * G
        return torch.diag_embed(G) if self._diagonal else G.unflatten(-1, (self.dim, self.dim))

    @at_points
    def log_volume(self, z: torch.Tensor) -> torch.Tensor:
        r"""Log volume element :math:`\log\sqrt{\det G(z)}`, ``[B, d] -> [B]``."""
        log_scale, G = self._scaled_tensor(z)
        if self._diagonal:
            log_det = G.log().sum(-1)
        else:
            L = cholesky_factor(G.unflatten(-1, (self.dim, self.dim)))
            log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return 0.5 * (log_det + self.dim * log_scale.squeeze(-1))

    @at_points
    @torch.no_grad()
    def log_volume_and_grad(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Log volume ``[B]`` and its gradient in ``z``, ``[B, d]``, in closed form.

        With :math:`l_k` the logarithms of the weights (the regularisation counts as one more
        centroid whose precision is the identity),

        .. math::
            \nabla \log\sqrt{\det G} = \tfrac12 \sum_k a_k \nabla l_k, \qquad
            a_k = \operatorname{tr}(G^{-1} P_k)\, e^{l_k}.

        With additive volumes :math:`l_k = \log v_k + (\tfrac2d - 1) \log \sum_j v_j`.
        """
        log_scale, w, share = self._relative_weights(z)
        G = w @ self._tensors
        if self._diagonal:
            log_det = G.log().sum(-1)
            G_inv = G.reciprocal_()
        else:
            L = cholesky_factor(G.unflatten(-1, (self.dim, self.dim)))
            log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            G_inv = torch.cholesky_inverse(L).flatten(1)
        log_volume = 0.5 * (log_det + self.dim * log_scale.squeeze(-1))

        a = w.mul_(G_inv @ self._tensors.mT)
        if share is not None:
            # What every l_k has in common falls to the centroids by their shares in the volume.
            K = len(self.centroids)
            common = (2 / self.dim - 1) * a[:, :K].sum(-1, keepdim=True)
            a[:, :K].addcmul_(common, share)
        if self._by_differences:
            return log_volume, torch.einsum("bk,bki->bi", a, self._half_gradients(z))
        quadratic, linear = (a @ self._grad_weights).split([G.shape[1], self.dim], dim=-1)
        y = z - self._origin
        if self._diagonal:
            return log_volume, torch.addcmul(linear, quadratic, y)
        A = quadratic.unflatten(-1, (self.dim, self.dim))
        return log_volume, linear + (A @ y.unsqueeze(-1)).squeeze(-1)

    @at_points
    def cholesky(self, z: torch.Tensor) -> torch.Tensor:
        r"""Lower triangular ``L`` with :math:`L L^\top = G(z)`, ``[B, d, d]``."""
        log_scale, G = self._scaled_tensor(z)
        if self._diagonal:
            return torch.diag_embed((0.5 * log_scale).exp() * G.sqrt())
        L = cholesky_factor(G.unflatten(-1, (self.dim, self.dim)))
        return (0.5 * log_scale).exp().unsqueeze(-1) * L

    @at_points
    def inverse_sqrt(self, z: torch.Tensor) -> torch.Tensor:
        r"""The symmetric positive definite :math:`G(z)^{-1/2}`, ``[B, d, d]``."""
        if not self._diagonal:
            return super().inverse_sqrt(z)
        log_scale, G = self._scaled_tensor(z)
        return torch.diag_embed((-0.5 * log_scale).exp() * G.rsqrt())

    @at_points
    def brownian_drift(self, z: torch.Tensor) -> torch.Tensor:
        r"""Drift :math:`-\tfrac12 g^{jk} \Gamma^i_{jk}` of Brownian motion, ``[B, d]``.

        For diagonal precisions in closed form: with :math:`D_l = \partial_l G_{ll} / G_{ll}` it is
        :math:`-\tfrac12 G^{-1} (D - \nabla \log\sqrt{\det G})`, a few matrix products.
        """
        if not self._diagonal:
            return super().brownian_drift(z)
        log_scale, w, share = self._relative_weights(z)
        G, K = w @ self._tensors, len(self.centroids)
        if self._by_differences:
            half = self._half_gradients(z)

            def mean(weights, tensors):  # Σ_k weights_k tensors_k ½ ∇ l_k
                return torch.einsum("bk,ki,bki->bi", weights, tensors, half[:, : len(tensors)])
        else:
            y = z - self._origin
            quadratic, linear = self._grad_weights.split(self.dim, dim=1)

            def mean(weights, tensors):
                n = len(tensors)
                return weights @ (tensors * quadratic[:n]) * y + weights @ (tensors * linear[:n])

        one = torch.ones_like(self._tensors)
        dG = mean(w, self._tensors)  # ½ ∂_l G_ll
        a = w * (G.reciprocal() @ self._tensors.mT)
        gradient = mean(a, one)
        if share is not None:
            common = (2 / self.dim - 1) * mean(share, one[:K])
            dG = dG + common * (w[:, :K] @ self._tensors[:K])
            gradient = gradient + common * a[:, :K].sum(-1, keepdim=True)
        return -(-log_scale).exp() / G * (dG / G - 0.5 * gradient)

    def extra_repr(self) -> str:
        kind = "diagonal" if self._diagonal else "full"
        return (
            f"{len(self.centroids)} centroids in dimension {self.dim}, {kind} precisions, "
            f"temperature={self.temperature.item():.4g}, "
            f"regularization={self.regularization.item():.4g}, decay={self.decay.item():.4g}"
            + (", additive volume" if self._additive else "")
        )

    def _scaled_tensor(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(s, H)`` with ``G(z) = exp(s) H``: s ``[B or 1, 1]``, H flat, ``[B, d]`` or
        ``[B, d²]``."""
        log_scale, w, _ = self._relative_weights(z)
        return log_scale, w @ self._tensors

    def _relative_weights(
        self, z: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """A log scale ``[B or 1, 1]``, all weights relative to it ``[B, K (+ 1)]``, and if volumes
        add the shares ``[B, K]`` of the centroids in the volume."""
        self._check_points(z)
        if self._by_differences:
            log2_w = self._log_weights_by_differences(z) / math.log(2)
        else:
            # The quadratic form is expanded to be a matrix product.
            y = (z - self._origin).to(self._log2_weights.dtype)
            squares = y * y if self._diagonal else torch.einsum("bi,bj->bij", y, y).flatten(1)
            features = torch.cat([squares, y, torch.ones_like(y[:, :1])], -1)
            log2_w = features @ self._log2_weights
        # Arithmetic is many times slower on subnormal numbers, and weights this small are far below
        # rounding in the sum. Powers of 2 are three times faster than powers of e.
        floor = -100.0 if z.dtype == torch.float32 else -430.0
        if self._by_differences:  # the precisions that multiply them are as large as they are small
            floor = -math.inf
        share = None
        if self._additive:
            # w = v / S · S^(2/d), with v the volumes of the centroids and S their sum. The matrix
            # product gave log v.
            log2_v = log2_w[:, : len(self.centroids)]
            largest = log2_v.detach().amax(-1, keepdim=True)
            v = (log2_v - largest).to(z.dtype).clamp_(min=floor).exp2_()
            S = v.sum(-1, keepdim=True)
            share = v / S
            log2_sum = 2 / self.dim * (largest + S.log2())
            log2_w = torch.cat([log2_sum, log2_w[:, len(self.centroids) :]], -1)
        if self._regularization_bounds:
            log_scale = z.new_zeros(1, 1)
        else:
            # log det G does not depend on the scale taken out, so it carries no gradient.
            log2_scale = log2_w.detach().amax(-1, keepdim=True)
            log2_w = log2_w.sub_(log2_scale)
            log_scale = (math.log(2) * log2_scale).to(z.dtype)
        w = log2_w.to(z.dtype).clamp_(min=floor).exp2_()
        if share is not None:
            w = torch.cat([w[:, :1] * share, w[:, 1:]], -1)
        return log_scale, w, share

    def _prepare(self) -> None:
        """Lay out the constants of the matrix products.

        With ``y = z - origin`` the log weights are linear in the features ``(y², y, 1)``, or
        ``(y yᵀ, y, 1)`` for full precisions. The origin is amid the centroids, so that little
        cancels wherever they lie.
        """
        c, P = self.centroids, self.precisions
        if c.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"PosteriorMetric works in float32 and float64, not in {c.dtype}.")
        dtype = c.dtype
        self._diagonal = P.dim() == 2
        exact = torch.float32 if c.device.type == "mps" else torch.float64  # MPS has no float64
        self._origin = c.mean(0)
        origin = self._origin.to(exact)
        c, P = c.to(exact) - origin, P.to(exact)
        rho2 = self.temperature.to(exact) ** 2
        Pc = P * c if self._diagonal else (P @ c.unsqueeze(-1)).squeeze(-1)
        tensors = P.flatten(1)
        # The exponents are those of the weights, or of the volumes: w^(d/2).
        self._additive = bool(self.additive_volume)
        self._power = power = self.dim / 2 if self._additive else 1.0
        rho2 = rho2 / power
        quadratic, linear, bias = -tensors / rho2, 2 * Pc / rho2, -(c * Pc).sum(-1) / rho2
        if self.regularization > 0:
            identity = torch.ones_like(c[:1]) if self._diagonal else torch.eye(self.dim).to(c)
            identity = identity.reshape(1, -1)
            tensors = torch.cat([tensors, identity])
            # -τ |y + origin|²: the decay is about 0, wherever the centroids are.
            tau = self.decay.to(exact)
            quadratic = torch.cat([quadratic, -tau * identity])
            linear = torch.cat([linear, -2 * tau * origin.unsqueeze(0)])
            log_lambda = self.regularization.to(exact).log() - tau * origin.square().sum()
            bias = torch.cat([bias, log_lambda.reshape(1)])
        self._tensors = tensors.to(dtype)
        # Where the regularisation does not decay no weight matters that is small beside it. Then no
        # scale has to be taken out, and the terms that cancel in the expanded form, as large as the
        # constant one, bound the error at every point: if they are small float32 will do.
        self._regularization_bounds = bool(self.regularization >= 1e-4 and self.decay == 0)
        largest = -float(bias.min())
        # Where they are so large that only differences z - c are accurate, memory is O(B K d).
        self._by_differences = largest > MAX_EXPANDED
        if self._regularization_bounds and largest < 100.0 * power:
            exact = dtype
        log_weights = torch.cat([quadratic, linear, bias.unsqueeze(-1)], -1)
        self._log2_weights = (log_weights.mT / math.log(2)).contiguous().to(exact)
        self._grad_weights = torch.cat([quadratic, 0.5 * linear], -1).to(dtype)

    def _half_gradients(self, z: torch.Tensor) -> torch.Tensor:
        """Half the gradients of the log weights, or of the log volumes, ``[B, K (+ 1), d]``."""
        y, P = self.centroids - z.unsqueeze(1), self.precisions
        half = P * y if self._diagonal else torch.einsum("kij,bkj->bki", P, y)
        half = half * (self._power / self.temperature**2)
        if self.regularization > 0:
            half = torch.cat([half, -(self.decay * z).unsqueeze(1)], 1)
        return half

    def _log_weights_by_differences(self, z: torch.Tensor) -> torch.Tensor:
        half = self._half_gradients(z)[:, : len(self.centroids)]
        log_w = -((self.centroids - z.unsqueeze(1)) * half).sum(-1)
        if self.regularization > 0:
            decay = self.decay * z.square().sum(-1, keepdim=True)
            log_w = torch.cat([log_w, self.regularization.log() - decay], 1)
        return log_w


def _check(centroids: torch.Tensor, precisions: torch.Tensor) -> None:
    check_tensors(centroids=centroids, precisions=precisions)
    check_centroids(centroids)
    K, d = centroids.shape
    if precisions.shape not in ((K, d), (K, d, d)):
        raise ValueError(
            f"precisions must have shape [{K}, {d}] (diagonal) or [{K}, {d}, {d}] (full) to go "
            f"with centroids of shape [{K}, {d}], got {list(precisions.shape)}."
        )
    if precisions.dim() == 2:
        if not bool((precisions > 0).all()):
            raise ValueError(
                "Diagonal precisions must be positive, the smallest is "
                f"{precisions.min().item():.3g}: they are inverse variances."
            )
    else:
        check_definite("precisions", precisions)
