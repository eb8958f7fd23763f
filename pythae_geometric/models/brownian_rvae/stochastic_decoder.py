r"""The distribution :math:`N(x; \mu(z), \sigma(z)^2)` of a decoder, and the metric it induces."""

import math

import torch
from sklearn.cluster import KMeans
from torch import nn

from ...geometry import StochasticPullbackMetric, jacobian
from ...geometry.derivatives import directional_derivatives


class RBFPrecision(nn.Module):
    r"""Standard deviations that grow away from the data.

    .. math:: \sigma_a(z)^{-2} = \sum_k W_{ak} \phi_k(z) + \zeta, \qquad
              \phi_k(z) = \exp(-\beta |z - c_k|^2), \quad W > 0.

    Args:
        latent_dim: d.
        output_dim: number D of data dimensions.
        num_centers: K.
        bandwidth: :math:`\beta > 0`.
        floor: :math:`\zeta > 0`.

    References:
        Arvanitidis, Hansen, Hauberg, Latent space oddity, ICLR 2018, section 4.
    """

    centers: torch.Tensor

    def __init__(
        self, latent_dim: int, output_dim: int, num_centers: int, bandwidth: float, floor: float
    ):
        super().__init__()
        self.bandwidth, self.floor = bandwidth, floor
        self.register_buffer("centers", torch.zeros(num_centers, latent_dim))
        # The logarithm: whatever the unit of the data, a step of an optimiser is a relative one.
        self.log_weight = nn.Parameter(torch.zeros(output_dim, num_centers))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        r"""The standard deviations :math:`\sigma(z)`, ``[B, d] -> [B, D]``."""
        return (self._features(z) @ self.log_weight.exp().T + self.floor).rsqrt()

    def jacobian(self, z: torch.Tensor) -> torch.Tensor:
        r""":math:`\partial_i \sigma_a = \beta \sigma_a^3\, (W (\phi\, (z - c)_i))_a`,
        ``[B, D, d]``."""
        phi, W = self._features(z), self.log_weight.exp()
        moments = phi.unsqueeze(1) * (z.unsqueeze(-1) - self.centers.T)  # [B, d, K]
        # Flat, so that the gradient of W is one matrix product too.
        slope = (moments.flatten(0, 1) @ W.T).unflatten(0, moments.shape[:2])
        return (slope * self._scale(phi @ W.T).unsqueeze(1)).mT

    def directional_derivatives(self, z: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        r""":math:`d\sigma_z(v) = \beta \sigma^3\, W (\phi\, \langle v, z - c \rangle)` of n
        vectors at each point: ``[n, B, d] -> [n, B, D]``."""
        phi, W = self._features(z), self.log_weight.exp()
        along = (v * z).sum(-1, keepdim=True) - v @ self.centers.T
        weighted = torch.cat([phi.unsqueeze(0), phi * along]).flatten(0, 1) @ W.T
        weighted, *slopes = weighted.split(len(z))
        return self._scale(weighted) * torch.stack(slopes)

    def _scale(self, weighted: torch.Tensor) -> torch.Tensor:
        """The factor of the derivatives, of the features weighted by W."""
        std = (weighted + self.floor).rsqrt()
        return self.bandwidth * std * std * std  # a power would take several times as long

    @torch.no_grad()
    def place(self, codes: torch.Tensor, variance: torch.Tensor) -> None:
        r"""Put the centres among ``codes [N, d]`` by k-means, and start at a constant variance.

        Args:
            codes: at least as many as there are centres.
            variance: of the residuals, ``[D]``: the :math:`\sigma^2` that W gives on average over
                the codes. A dimension without any residual gets a hundredth of the mean.

        Raises:
            ValueError: if there are fewer codes than centres.
        """
        K = len(self.centers)
        if len(codes) < K:
            raise ValueError(
                f"num_centers is {K}, but there are only {len(codes)} codes to place them by "
                "k-means: set it to at most the number of training points."
            )
        seed = int(torch.randint(2**31, ()))
        found = KMeans(K, n_init=1, random_state=seed).fit(codes.double().cpu().numpy())
        self.centers.copy_(torch.from_numpy(found.cluster_centers_))
        total = self._features(codes.to(self.centers)).sum(1).mean()
        variance = variance + 0.01 * variance.mean() + torch.finfo(variance.dtype).tiny
        self.log_weight.copy_(-(variance * total).log().unsqueeze(1).expand_as(self.log_weight))

    def _features(self, z: torch.Tensor) -> torch.Tensor:
        c = self.centers
        square = (z.square().sum(1, keepdim=True) - 2 * z @ c.T + c.square().sum(1)).clamp(min=0)
        return (-self.bandwidth * square).exp()


class MeanAndDeviation(nn.Module):
    r"""The pair :math:`z \mapsto (\mu(z), \sigma(z))` of a stochastic decoder, each ``[B, D]``."""

    def __init__(self, mean: nn.Module, std: RBFPrecision):
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mean(z), self.std(z)


class DecoderMetric(StochasticPullbackMetric):
    r"""The metric :math:`G = J_\mu^\top J_\mu + J_\sigma^\top J_\sigma` of a stochastic decoder.

    Args:
        mean: map ``[B, d] -> [B, D]``.
        std: :math:`\sigma`, whose Jacobian is known in closed form.
    """

    def __init__(self, mean: nn.Module, std: RBFPrecision):
        super().__init__(MeanAndDeviation(mean, std))
        self.mean, self.std = mean, std

    def jacobian(self, z: torch.Tensor) -> torch.Tensor:
        J_mean = jacobian(self.mean, z).flatten(1, -2)
        # Columns are joined in memory, as the decomposition of the Jacobian wants them.
        return torch.cat([J_mean.mT, self.std.jacobian(z).mT], dim=2).mT

    def pushforwards(self, z: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """The tangent vectors ``J(z) v`` of n vectors at each point, ``[n, B, d] -> [n, B, 2D]``,
        by n forward products."""
        of_mean = directional_derivatives(self.mean, z, v)[1].flatten(2)
        return torch.cat([of_mean, self.std.directional_derivatives(z, v)], dim=2)


def gaussian_log_prob(x: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    r""":math:`\log N(x; \mu, \operatorname{diag} \sigma^2)` of rows ``[B, D]``, ``[B]``."""
    square = ((x - mean) / std).square()
    return -0.5 * (square + math.log(2 * math.pi)).sum(1) - std.log().sum(1)
