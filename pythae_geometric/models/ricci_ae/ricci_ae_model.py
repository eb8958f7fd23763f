import math
import warnings
from collections.abc import Callable
from functools import partial

import torch
from pythae.models import AE
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch.nn import functional as F

from ...geometry import PullbackMetric, scalar_curvature
from ..base import GeometricModel, check_finite
from .networks import SmoothDecoder, SmoothEncoder
from .ricci_ae_config import RicciAEConfig
from .ricci_functional import RicciFunctional, check_runaway, checked


class RicciAE(GeometricModel, AE):
    r"""Autoencoder whose decoder is regularised by the curvature of its image.

    .. math:: \mathcal{L} = \lambda_{recon}\, \mathrm{MSE} + \lambda_{curv}\, \mathcal{L}_{curv}(g)

    with the pullback metric :math:`g = J^\top J` of the decoder and one of the functionals
    :math:`\int R^2 d\mu`, :math:`\mathcal{F}` and :math:`\mathcal{W}` (see
    :class:`RicciAEConfig`); MSE is the squared error of a sample, as in pythae's ``AE``.

    The integrals are over the latent region, the box of coordinate volume ``V`` that holds the
    codes of the batch: sums over ``B`` points with weights ``V / B``. (For codes this takes their
    law for uniform in the box.) Gradients go through the decoder and through ``V``, not through
    the points: the surface becomes flatter where it is, and codes are not drawn to where it is
    flat already. With ``V`` the functionals are those of the surface, whatever its latent units;
    without it the codes would drift apart for ever, since that lowers :math:`\sqrt{\det g}`.

    Where the Jacobian has no full rank the metric is degenerate; so the metric and the curvature
    are those of :math:`z \mapsto (\mathrm{decoder}(z), \varepsilon z)`, that is
    :math:`g = J^\top J + \varepsilon^2 I`. A first batch in which this decides the metric warns.

    :math:`\mathcal{F}` and :math:`\mathcal{W}` are unbounded below, and the Ricci flow is their
    *ascent*, a negative ``curvature_weight``; the potential descends whatever the sign. What is
    minimised scales with the metric: for :math:`g \to c^2 g`, :math:`\int R^2 d\mu` gets the factor
    :math:`c^{d-4}`, so that where data do not hold the surface it rewards large ones for d = 2
    and small ones for d > 4.

    The output of ``forward`` has ``loss``, ``recon_loss``, ``recon_x``, ``z``; and where the
    functional was evaluated ``curvature_loss`` (unweighted), ``mean_curvature`` and
    ``mean_squared_curvature`` (of R and R² at the points), ``max_squared_curvature`` and
    ``num_degenerate`` (points whose smallest singular value of J is below :math:`\varepsilon`).

    Args:
        model_config: the parameters.
        encoder: network of the user's own, as in pythae. None: a perceptron ``D-512-256-d``, SiLU.
        decoder: likewise; smooth activations (GELU, SiLU, softplus, tanh), since ReLU has no
            second derivatives. None: a perceptron ``d-256-512-D``, SiLU, linear output.

    Raises:
        ValueError: there is no ``input_dim`` for default networks; in ``forward``: data that are
            not finite.
        RunawayFunctionalError: in ``forward`` or in the backward pass; see
            :class:`RunawayFunctionalError`. The weights are still finite.

    References:
        A. Lazarev, Metric regularization of latent spaces via Ricci-type flows, 2023.
        G. Perelman, The entropy formula for the Ricci flow, 2002, arXiv:math/0211159.

    Example:
        >>> from pythae_geometric.models import RicciAE, RicciAEConfig
        >>> model = RicciAE(RicciAEConfig(input_dim=(3,), latent_dim=2, curvature_weight=0.1))
        >>> z = torch.zeros(5, 2)
        >>> model.metric(z).shape, model.curvature(z).shape
        (torch.Size([5, 2, 2]), torch.Size([5]))
    """

    config_class = RicciAEConfig

    def __init__(
        self,
        model_config: RicciAEConfig,
        encoder: BaseEncoder | None = None,
        decoder: BaseDecoder | None = None,
    ):
        config = model_config
        if config.input_dim is None and (encoder is None or decoder is None):
            raise ValueError(
                "The default networks need the shape of a sample: set input_dim in the config, or "
                "give both an encoder and a decoder."
            )
        defaults = encoder is None, decoder is None
        encoder = encoder or SmoothEncoder(config.input_dim, config.latent_dim)
        decoder = decoder or SmoothDecoder(config.input_dim, config.latent_dim)
        super().__init__(config, encoder=encoder, decoder=decoder)
        config.uses_default_encoder, config.uses_default_decoder = defaults
        self.model_name = "RicciAE"
        self.functional = RicciFunctional(config.functional, config.latent_dim, config.tau)
        self._training_steps = 0

    def forward(self, inputs, generator: torch.Generator | None = None, **kwargs) -> ModelOutput:
        """Encode, decode, and take the loss.

        Args:
            inputs: with ``data`` ``[N, *input_dim]``.
            generator: of the uniform points; None: torch's global one.
            kwargs: what pythae's trainer passes; not used.
        """
        config = self.model_config
        x = inputs["data"]
        z = self.encoder(x).embedding
        recon_x = self.decoder(z)["reconstruction"]
        recon_loss = F.mse_loss(recon_x, x, reduction="sum") / len(x)
        if not math.isfinite(float(recon_loss.detach())):
            check_finite(x, "The data")
            raise ArithmeticError(
                "The reconstruction error is not finite, though the data are: training has "
                "diverged. Lower the learning rate."
            )
        output = ModelOutput(
            loss=config.recon_weight * recon_loss, recon_loss=recon_loss, recon_x=recon_x, z=z
        )
        weight = self._curvature_weight()
        # One code alone spans no region.
        if weight and len(z) > 1:
            curvature = self._curvature(z, generator)
            term = weight * curvature.curvature_loss
            check_runaway(term, config.functional)
            output.update(curvature, loss=output.loss + term)
        return output

    def _curvature_weight(self) -> float:
        """Weight of the functional in this step; on those left out 0."""
        config = self.model_config
        if not self.training:
            return config.curvature_weight
        self._training_steps += 1
        if (self._training_steps - 1) % config.curvature_every:
            return 0.0
        return config.curvature_weight * config.curvature_every

    def _curvature(self, z: torch.Tensor, generator: torch.Generator | None) -> ModelOutput:
        config = self.model_config
        low, high = z.amin(0), z.amax(0)
        extent = (high - low).clamp(min=torch.finfo(z.dtype).tiny)
        if config.points == "uniform":
            unit = torch.rand(
                config.num_points, z.shape[1], dtype=z.dtype, device=z.device, generator=generator
            )
            points = (low + extent * unit).detach()
        else:
            points = z[: config.num_points].detach()
        value, R, L = self.functional(
            partial(_regularised, checked(self.decoder), config.regularization),
            points,
            extent.log().sum() - math.log(len(points)),
            ascent=config.curvature_weight < 0,
        )
        R_squared = R.detach().square()
        # Of J itself: the smallest eigenvalue of g is its square plus ε².
        smallest = torch.linalg.svdvals(L.detach())[:, -1].square()
        num_degenerate = int((smallest < 2 * config.regularization**2).sum())
        if num_degenerate:
            warnings.warn(
                f"The decoder's Jacobian has all but lost its rank at {num_degenerate} of "
                f"{len(points)} points (a singular value below regularization = "
                f"{config.regularization:g}), and the regularisation decides the metric there. "
                "This is common early in training; if it lasts, use fewer latent dimensions.",
                stacklevel=2,
            )
        return ModelOutput(
            curvature_loss=value,
            mean_curvature=R.detach().mean(),
            mean_squared_curvature=R_squared.mean(),
            max_squared_curvature=R_squared.max(),
            num_degenerate=num_degenerate,
        )

    def immersion(self, z: torch.Tensor) -> torch.Tensor:
        r"""The map :math:`z \mapsto (\mathrm{decoder}(z), \varepsilon z)`, whose metric is the
        regularised one: ``[B, d] -> [B, D + d]``."""
        return _regularised(self.decoder, self.model_config.regularization, z)

    @property
    def metric(self) -> PullbackMetric:
        r"""The metric :math:`g = J^\top J + \varepsilon^2 I` of the decoder; ``model.metric(z)`` is
        ``[B, d, d]``."""
        return PullbackMetric(self.immersion)

    def curvature(self, z: torch.Tensor) -> torch.Tensor:
        """Scalar curvature ``R`` of :attr:`metric` at points ``[B, d]``: ``[B]``; see
        :func:`~pythae_geometric.geometry.scalar_curvature`."""
        return scalar_curvature(self.immersion, z)


def _regularised(decoder: Callable, epsilon: float, z: torch.Tensor) -> torch.Tensor:
    return torch.cat([decoder(z)["reconstruction"].flatten(1), epsilon * z], dim=1)
