import math

import torch
from pythae.models import AE
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn
from torch.nn import functional as F

from ..._checks import check_generator
from ...geometry import PullbackMetric, scalar_curvature
from ..base import GeometricModel
from ..bernoulli import bernoulli_log_prob
from ..checks import check_parts, data_of, decoded, embedded
from ..decoder_map import DecoderMap
from ..scale import diverged
from .default_weight import DefaultWeight
from .networks import default_decoder, default_encoder
from .region import points_of_region, summary
from .ricci_ae_config import RicciAEConfig
from .ricci_functional import RicciFunctional, WithCheckedGradients, check_runaway


class RicciAE(GeometricModel, AE):
    r"""Autoencoder whose decoder is regularised by the curvature of its image.

    .. math:: \mathcal{L} = \lambda_{recon}\, \mathrm{MSE} + \lambda_{curv}\, \mathcal{L}_{curv}(g)

    with the pullback metric :math:`g = J^\top J` of the decoder and one of the functionals
    :math:`\int R^2 d\mu`, :math:`\mathcal{F}` and :math:`\mathcal{W}` (see
    :class:`RicciAEConfig`); MSE is the squared error of a sample, as in pythae's ``AE``, or the
    cross entropy in its place (``reconstruction_loss="bce"``). By default the second term is at
    most 0.1 % of the error: it lowers the curvature where that costs little, and the model of the
    lowest loss, which pythae keeps, is one of the lowest error.

    The integrals are over the latent region, the box of coordinate volume ``V`` that holds the
    codes of the batch: sums over ``B`` points with weights ``V / B``. (For codes this takes their
    distribution to be uniform in the box.) Gradients go through the decoder and through ``V``, not
    through the points: the surface becomes flatter where it is, and codes are not drawn to where it
    is flat already. With ``V`` the functionals are those of the surface, whatever its latent units;
    without it the codes would drift apart for ever, since that lowers :math:`\sqrt{\det g}`.

    Where the Jacobian has no full rank the metric is degenerate; so the metric and the curvature
    are those of :math:`z \mapsto (\mathrm{decoder}(z), \varepsilon z)`, that is
    :math:`g = J^\top J + \varepsilon^2 I`. A warning is issued when regularisation dominates the
    metric.

    :math:`\mathcal{F}` and :math:`\mathcal{W}` are unbounded below, and the Ricci flow is their
    *ascent*, a negative ``curvature_weight``; the potential descends whatever the sign. What is
    minimised scales with the metric: for :math:`g \to c^2 g`, :math:`\int R^2 d\mu` gets the factor
    :math:`c^{d-4}`, so that where data do not constrain the surface, the loss favours larger
    surfaces for d = 2 and smaller ones for d > 4.

    The output of ``forward`` has ``loss``, ``recon_loss``, ``recon_x``, ``z``; and where the
    functional was evaluated ``curvature_loss`` (unweighted), ``curvature_weight`` (before the
    factor ``curvature_every``), ``mean_curvature`` and ``mean_squared_curvature`` (of R and R² at
    the points), ``max_squared_curvature`` and ``num_degenerate`` (points whose smallest singular
    value of J is below :math:`\varepsilon`).

    Args:
        model_config: the parameters.
        encoder: custom network, as in pythae. None: a perceptron ``D-512-256-d``, SiLU.
        decoder: likewise; smooth activations (GELU, SiLU, softplus, tanh), since ReLU has no
            second derivatives. None: a perceptron ``d-256-512-D``, SiLU, linear output (for the
            cross entropy a sigmoid).

    Raises:
        ValueError: there is no ``input_dim`` for default networks; in ``forward``: data that are
            not finite.
        ArithmeticError: in ``forward``: a network's output is not finite, which is then named.
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
        needs_shape = encoder is None or decoder is None
        check_parts(config, RicciAEConfig, encoder, decoder, needs_shape)
        super().__init__(
            config, encoder or default_encoder(config), decoder or default_decoder(config)
        )
        self.model_name = "RicciAE"
        self._set_networks(encoder, decoder, self.encoder)
        self.functional = RicciFunctional(
            config.functional, config.latent_dim, config.tau, config.num_tangents
        )
        self.register_buffer("training_steps", torch.zeros((), dtype=torch.long))
        self.default_weight = DefaultWeight()

    def forward(self, inputs, generator: torch.Generator | None = None, **kwargs) -> ModelOutput:
        """Encode, decode, and take the loss.

        Args:
            inputs: with ``data`` ``[N, *input_dim]``.
            generator: of the uniform points and of random tangents; None: torch's global one.
            kwargs: what pythae's trainer passes; not used.
        """
        config = self.model_config
        check_generator(generator)
        x = data_of(inputs, self)
        # Second derivatives need full precision.
        with torch.autocast(x.device.type, enabled=False):
            z = embedded(self.encoder, x, self.latent_dim)
            recon_x = decoded(self.decoder, z, x.shape[1:], data=x)
            if config.reconstruction_loss == "bce":
                recon_loss = -bernoulli_log_prob(x, recon_x, 'reconstruction_loss="mse"').mean()
            else:
                recon_loss = F.mse_loss(recon_x, x, reduction="sum") / len(x)
            if not math.isfinite(float(recon_loss.detach())):
                raise diverged("The reconstruction error", x)
            self._watch(x, recon_x)
            output = ModelOutput(
                loss=config.recon_weight * recon_loss, recon_loss=recon_loss, recon_x=recon_x, z=z
            )
            factor = self._factor()
            # One code alone spans no region.
            if factor and config.curvature_weight != 0 and len(z) > 1:
                curvature = self._curvature(z, generator)
                weight = self._weight(recon_loss, curvature.curvature_loss)
                term = factor * weight * curvature.curvature_loss
                check_runaway(term, config.functional)
                output.update(curvature, curvature_weight=weight, loss=output.loss + term)
            else:
                # Every parameter takes part in every loss, for training by several processes.
                output.loss = output.loss + self.functional.zero()
        return output

    def _factor(self) -> int:
        """How many times the functional counts in this step: ``curvature_every`` times or never."""
        if not self.training:
            return 1
        step, every = int(self.training_steps), self.model_config.curvature_every
        self.training_steps += 1
        return 0 if step % every else every

    def _weight(self, recon_loss: torch.Tensor, curvature_loss: torch.Tensor) -> float:
        weight = self.model_config.curvature_weight
        if weight is None:
            return self.default_weight(float(recon_loss.detach()), float(curvature_loss.detach()))
        return weight

    def _curvature(self, z: torch.Tensor, generator: torch.Generator | None) -> ModelOutput:
        config = self.model_config
        points, log_weight = points_of_region(z, config, generator)
        immersion = self.immersion
        if torch.is_grad_enabled():
            immersion = WithCheckedGradients(immersion)
        ascent = config.curvature_weight is not None and config.curvature_weight < 0
        value, R, L = self.functional(immersion, points, log_weight, ascent, generator)
        return ModelOutput(curvature_loss=value, **summary(R, L, config.regularization))

    @classmethod
    def _upgraded(cls, state):
        new = {"training_steps": torch.zeros((), dtype=torch.long)}
        new["default_weight.peak"] = torch.zeros(())
        return new | state

    @property
    def immersion(self) -> "RegularisedDecoder":
        r"""The map :math:`z \mapsto (\mathrm{decoder}(z), \varepsilon z)`, whose metric is the
        regularised one: a module, ``[B, d] -> [B, D + d]``."""
        return RegularisedDecoder(DecoderMap(self), self.model_config.regularization)

    @property
    def metric(self) -> PullbackMetric:
        r"""The metric :math:`g = J^\top J + \varepsilon^2 I` of the decoder; ``model.metric(z)`` is
        ``[B, d, d]``."""
        return PullbackMetric(self.immersion)

    def curvature(self, z: torch.Tensor) -> torch.Tensor:
        """Scalar curvature ``R`` of :attr:`metric` at points ``[B, d]``: ``[B]``; see
        :func:`~pythae_geometric.geometry.scalar_curvature`."""
        return scalar_curvature(self.immersion, z)


class RegularisedDecoder(nn.Module):
    r"""The map :math:`z \mapsto (f(z), \varepsilon z)`, an immersion whatever f is."""

    def __init__(self, f: nn.Module, epsilon: float):
        super().__init__()
        self.f, self.epsilon = f, epsilon

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.f(z), self.epsilon * z], dim=1)
