import math
import sys

import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer

from ...geometry import evaluation_mode, heat_kernel_log_prob
from ..base import GeometricModel, check_finite
from .brownian_rvae_config import BrownianRVAEConfig
from .geodesic_fan import GeodesicFan, mean_squared_speed
from .networks import Decoder, Encoder
from .stochastic_decoder import DecoderMetric, RBFPrecision, gaussian_log_prob

# Posterior times are kept within these bounds (published code).
TIMES = (1e-4, 5.0)
# The codes of this many training points place the centres.
MAX_CODES = 20_000
# Added to the loss of the first phase. pythae's trainer keeps the model of the lowest loss, and
# begins at 1e10.
WARMUP_OFFSET = 1e9
# Evaluations of the energy an epoch, for the geodesics of the fan, and when it is made.
REFRESH_ITERATIONS, FIRST_ITERATIONS = 10, 100


class BrownianRVAE(GeometricModel):
    r"""Variational autoencoder with Riemannian Brownian motion priors (R-VAE).

    The decoder :math:`N(x; \mu(z), \sigma(z)^2)`, whose deviation grows away from the data, makes
    the latent space a manifold with the metric
    :math:`G = J_\mu^\top J_\mu + J_\sigma^\top J_\sigma`. Prior and posterior are short Brownian
    motions on it:

    .. math::
        q(z | x) &= N\bigl(z;\, m(x),\, t(x)\, G(m(x))^{-1}\bigr), \\
        p(z) &= (2 \pi s)^{-d/2} \sqrt{\det G(z)}\; e^{-l^2(z, c) / 2s}, \\
        \mathrm{loss} &= E_q \bigl[ -\log N(x; \mu(z), \sigma(z)^2) + \log q(z|x) - \log p(z) \bigr]

    with the geodesic distance l, and c and s learned. Both densities refer to dz. The posterior is
    one Euler step of Brownian motion from m(x): it is normalised, and samples come from exactly the
    law that is scored. The prior is the zeroth-order heat kernel, as a density of dz (its volume
    factor at c cancels, see :func:`~pythae_geometric.geometry.heat_kernel_log_prob`).

    **What the loss bounds.** The heat kernel is normalised to leading order in s: its total mass is
    :math:`Z = 1 + O(s)`, and exactly 1 in flat space. The loss plus :math:`\log Z` is a bound on
    :math:`-\log p(x)` of the normalised prior; ``reg_loss`` estimates the Kullback-Leibler
    divergence minus :math:`\log Z`, and so is at least :math:`-\log Z` in expectation. In two
    dimensions Z is an integral over a plane (``examples/reproduce/seed_001.py`` measures it).

    **Two phases.** For ``warmup_epochs`` epochs encoder and mean are trained as an autoencoder
    (:math:`z = m(x)`, :math:`\sigma = 1`). Then k-means on the codes places the centres of
    :math:`\sigma`, and :math:`\sigma`, the prior and the encoder are trained on the loss above with
    :math:`\mu` held fixed, in evaluation mode: the manifold stays, and the law on it is learned.
    The model counts its epochs, so a model loaded from a checkpoint goes on where that was saved.
    pythae's trainer keeps the copy of the lowest loss; that it never is one of the first phase,
    losses of that phase are reported with 10⁹ added (in float64: gradients, and the digits that
    you see, are not affected).

    **Distances.** Training uses curves between geodesics that are solved once an epoch, see
    :class:`~.geodesic_fan.GeodesicFan`. They are a little longer than the geodesics, which makes
    the loss larger. :meth:`get_nll` and :meth:`log_prior` solve each geodesic.

    Args:
        model_config: the parameters.
        encoder: network with the outputs ``embedding [B, d]`` and ``log_covariance``, ``[B, 1]`` or
            ``[B, d]``, whose mean over the last axis is log t, up to a constant that the end of
            the first phase sets. None: layers of softplus units, of widths ``hidden_dims``.
        decoder: network with the output ``reconstruction [B, *input_dim]``, the mean. None: the
            same, with a sigmoid; data must then be in [0, 1].

    Raises:
        ValueError: if ``input_dim`` is not set; in training, if data or networks do not fit, or
            training would end in the first phase.

    References:
        D. Kalatzis, D. Eklund, G. Arvanitidis, S. Hauberg, *Variational autoencoders with
        Riemannian Brownian motion priors*, ICML 2020, sections 3 and 4,
        https://arxiv.org/abs/2002.05227

    Example:
        >>> from pythae.pipelines import TrainingPipeline
        >>> from pythae.trainers import BaseTrainerConfig
        >>> from pythae_geometric.models import BrownianRVAE, BrownianRVAEConfig
        >>> model = BrownianRVAE(BrownianRVAEConfig(input_dim=(1, 28, 28), latent_dim=2))
        >>> TrainingPipeline(model, BaseTrainerConfig(num_epochs=200))(train_data)
        >>> model.metric.log_volume(z)
    """

    config_class = BrownianRVAEConfig

    def __init__(
        self,
        model_config: BrownianRVAEConfig,
        encoder: BaseEncoder | None = None,
        decoder: BaseDecoder | None = None,
    ):
        if model_config.input_dim is None:
            raise ValueError(
                "input_dim is not set: give the config the shape of a data point, such as "
                "input_dim=(1, 28, 28)."
            )
        super().__init__(model_config, decoder=decoder or Decoder(model_config))
        self.model_name = "BrownianRVAE"
        self.set_encoder(encoder or Encoder(model_config))
        model_config.uses_default_encoder = encoder is None
        model_config.uses_default_decoder = decoder is None

        K, d = model_config.num_centers, model_config.latent_dim
        self.std = RBFPrecision(
            d,
            math.prod(model_config.input_dim),
            K,
            model_config.rbf_bandwidth,
            model_config.precision_floor,
        )
        self.prior_center = torch.nn.Parameter(torch.zeros(d))
        self.prior_log_time = torch.nn.Parameter(torch.zeros(()))
        self.fan = GeodesicFan(K, d)
        # Log times are relative to this unit, which makes them begin, on average, at the variance
        # of the residuals: as wide, in the data, as what the decoder cannot explain.
        self.register_buffer("log_time_unit", torch.zeros(()))
        self.register_buffer("epochs_done", torch.zeros((), dtype=torch.long))
        self._forget_codes()

    # The two phases

    @property
    def in_warmup(self) -> bool:
        """Whether the model is in the first phase of its training."""
        return int(self.epochs_done) < self.model_config.warmup_epochs

    def update(self) -> None:
        """Count an epoch (pythae's trainer calls this after each), and go on to the second phase
        or solve the geodesics of the fan anew.

        Raises:
            RuntimeError: if the first phase ends without any codes.
            ValueError: if there are fewer codes than centres.
        """
        self.epochs_done += 1
        if not self.in_warmup:
            if int(self.epochs_done) == self.model_config.warmup_epochs:
                self._begin_second_phase()
            else:
                self.fan.solve(self.metric, self.prior_center, REFRESH_ITERATIONS)

    @torch.no_grad()
    def _begin_second_phase(self) -> None:
        if not self._codes:
            raise RuntimeError(
                "No codes were seen in the last epoch of the first phase: call the model in "
                "training mode with the keyword epoch, as pythae's trainer does, before update()."
            )
        codes = torch.cat(self._codes)
        variance = self._square_sum / self._num_seen
        self.std.place(codes, variance)
        mean_log_time = self._log_time_sum / self._num_seen
        self._forget_codes()
        # The prior starts at the code nearest to the mean, with its most likely time.
        nearest = (codes - codes.mean(0)).norm(dim=1).argmin()
        self.prior_center.copy_(codes[nearest])
        self.fan.anchors.copy_(self.std.centers)
        self.fan.deviations.zero_()
        self.fan.solve(self.metric, self.prior_center, FIRST_ITERATIONS)
        square = self._along_curves(codes[:1000])[2]
        # Where little has been learned the codes are next to each other. The prior still begins far
        # from the shortest posterior, where no gradient passes, and no posterior wider than it.
        s = (square.mean() / self.latent_dim).clamp(min=100 * TIMES[0])
        self.prior_log_time.copy_(s.log())
        self.log_time_unit.copy_(torch.minimum(variance.mean(), s).log() - mean_log_time)

    @torch.no_grad()
    def _collect(self, codes, log_time, residual) -> None:
        # The trainer shuffles: the first codes of an epoch are a random choice.
        if self._num_seen < MAX_CODES:
            self._codes.append(codes.detach())
            self._square_sum = self._square_sum + residual.square().sum(0)
            self._log_time_sum = self._log_time_sum + log_time.sum()
            self._num_seen += len(codes)

    def _forget_codes(self) -> None:
        self._codes, self._num_seen = [], 0
        self._square_sum = self._log_time_sum = 0.0

    def _check_second_phase(self) -> None:
        if self.in_warmup:
            raise RuntimeError(
                f"The model is in the first phase of its training ({int(self.epochs_done)} of "
                f"{self.model_config.warmup_epochs} epochs), where it has no metric yet: train it "
                "longer, or lower warmup_epochs."
            )

    # The geometry

    @property
    def metric(self) -> DecoderMetric:
        """The metric of the latent space.

        Raises:
            RuntimeError: in the first phase.
        """
        self._check_second_phase()
        return DecoderMetric(self._mean_map(), self.std)

    def _mean_map(self):
        decoder = self.decoder  # in the closure, where geometry finds it to set its mode
        return lambda z: decoder(z)["reconstruction"].flatten(1)

    def log_prior(self, z: torch.Tensor) -> torch.Tensor:
        r"""The log density of the prior with respect to dz, its geodesics solved to convergence.

        .. math:: \log p(z) = -\tfrac d2 \log(2 \pi s) + \tfrac12 \log \det G(z)
                  - l^2(z, c) / 2s

        Args:
            z: points, ``[B, d]``.

        Returns:
            ``[B]``.

        Raises:
            RuntimeError: in the first phase of training.
            DegenerateMetricError: where the metric is not positive definite.
        """
        metric, c, s = self.metric, self.prior_center, self.prior_log_time.exp()
        kernel = heat_kernel_log_prob(metric, z, c.expand_as(z), s.expand(len(z)))
        return kernel + metric.log_volume(c.unsqueeze(0))

    def _posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean ``[B, d]`` and log time ``[B]``."""
        encoded = self.encoder(x)
        B, d = len(x), self.latent_dim
        mean, log_covariance = encoded["embedding"], encoded["log_covariance"]
        if mean.shape != (B, d) or log_covariance.shape not in ((B, 1), (B, d)):
            raise ValueError(
                f"The encoder must give embedding of shape {[B, d]} (latent_dim is {d}) and "
                f"log_covariance of shape {[B, 1]} or {[B, d]}, got {list(mean.shape)} and "
                f"{list(log_covariance.shape)}."
            )
        low, high = (math.log(time) for time in TIMES)
        return mean, (log_covariance.mean(1) + self.log_time_unit).clamp(low, high)

    def _sample_posterior(self, metric, mean, log_time):
        r""":math:`z = m + \sqrt t\, L^{-\top} \epsilon` with :math:`L L^\top = G(m)`, and the log
        density of its law as a function of :math:`\epsilon` averaged over it: minus the entropy."""
        d = self.latent_dim
        L = metric.cholesky(mean)
        noise = torch.randn_like(mean).unsqueeze(-1)
        step = torch.linalg.solve_triangular(L.mT, noise, upper=True).squeeze(-1)
        log_volume = L.diagonal(dim1=1, dim2=2).log().sum(1)
        negative_entropy = log_volume - 0.5 * d * (log_time + math.log(2 * math.pi) + 1)
        z = mean + (0.5 * log_time).exp().unsqueeze(1) * step
        return z, negative_entropy, negative_entropy + 0.5 * (d - noise.square().sum((1, 2)))

    def _along_curves(self, z):
        """Mean and deviation of the decoder at ``z``, and squared distances to the prior's centre,
        from the curves of the fan."""
        mean = self._mean_map()
        interior = self.fan(z, self.prior_center)
        ends, inner = torch.cat([z, self.prior_center.unsqueeze(0)]), interior.flatten(0, 1)
        with evaluation_mode(mean):
            mean_ends = mean(ends)
            with torch.no_grad():  # neither these points nor the mean are learned here
                mean_inner = mean(inner)
        std = self.std(torch.cat([ends, inner]))
        image = torch.cat([torch.cat([mean_ends, mean_inner]), std], dim=1)
        image_z, image_c, image_inner = image.split([len(z), 1, len(inner)])
        curves = [
            image_c.expand(len(z), 1, -1),
            image_inner.unflatten(0, interior.shape[:2]),
            image_z.unsqueeze(1),
        ]
        return *image_z.chunk(2, dim=1), mean_squared_speed(torch.cat(curves, dim=1))

    # pythae's interface

    def forward(self, inputs, **kwargs) -> ModelOutput:
        """The loss of a batch.

        Args:
            inputs: dictionary with ``data [B, *input_dim]``.
            kwargs: ``epoch`` and ``dataset_size``, by pythae's trainer.

        Returns:
            ``loss``, its parts ``recon_loss`` (minus the log likelihood) and ``reg_loss`` (the
            Kullback-Leibler divergence; 0 in the first phase), means over the batch; the mean
            ``recon_x`` of the data at the sampled ``z``.

        Raises:
            ValueError: if the data are not finite, of a wrong shape, or outside [0, 1] under the
                default decoder; if the encoder's output has a wrong shape; if training would end
                in the first phase, or has fewer points than ``num_centers``.
            DegenerateMetricError: if the decoder has collapsed a latent direction.
        """
        x = inputs["data"]
        self._check_data(x)
        # Geometry needs full precision: not every operation has a half one, and none of the
        # derivatives would be of use.
        with torch.autocast(x.device.type, enabled=False):
            self.decoder.requires_grad_(self.in_warmup)
            if self.in_warmup:
                return self._autoencoder(x, kwargs)
            return self._elbo(x)

    def _autoencoder(self, x, kwargs) -> ModelOutput:
        if self.training:
            self._check_training(kwargs)
        z, log_time = self._posterior(x)
        recon_x = self.decoder(z)["reconstruction"]
        x, mean = x.flatten(1), recon_x.flatten(1)
        recon_loss = -gaussian_log_prob(x, mean, torch.ones_like(mean)).mean()
        is_last = int(self.epochs_done) == self.model_config.warmup_epochs - 1
        if self.training and is_last and "epoch" in kwargs:
            self._collect(z, log_time, x - mean)
        return ModelOutput(
            loss=recon_loss.double() + WARMUP_OFFSET,
            recon_loss=recon_loss,
            reg_loss=torch.zeros_like(recon_loss),
            recon_x=recon_x,
            z=z,
        )

    def _elbo(self, x) -> ModelOutput:
        d, s = self.latent_dim, self.prior_log_time.exp()
        metric = self.metric
        z, negative_entropy, _ = self._sample_posterior(metric, *self._posterior(x))
        mean, std, square = self._along_curves(z)
        recon_loss = -gaussian_log_prob(x.flatten(1), mean, std).mean()
        log_prior = log_volume(metric, z) - square / (2 * s)
        log_prior = log_prior - 0.5 * d * (self.prior_log_time + math.log(2 * math.pi))
        reg_loss = (negative_entropy - log_prior).mean()
        return ModelOutput(
            loss=recon_loss + reg_loss,
            recon_loss=recon_loss,
            reg_loss=reg_loss,
            recon_x=mean.view_as(x),
            z=z,
        )

    @torch.no_grad()
    def get_nll(self, data: torch.Tensor, n_samples: int = 1, batch_size: int = 100) -> float:
        r"""Estimate the log likelihood of data by importance sampling.

        .. math:: \log p(x) \approx \log \frac1S \sum_{s=1}^S
                  \frac{N(x; \mu(z_s), \sigma(z_s)^2)\, p(z_s)}{q(z_s | x)}, \quad z_s \sim q(z | x)

        The estimate grows with S towards the value, up to :math:`\log Z` of the prior (see the
        class). As for pythae's models, the mean log likelihood is returned: its *sign* is not that
        of the name.

        Args:
            data: ``[N, *input_dim]``.
            n_samples: number S of samples for each data point.
            batch_size: number of samples that are decoded at a time.

        Returns:
            The mean over the data.

        Raises:
            RuntimeError: in the first phase of training.
            ValueError: if a number is less than 1, or the data do not fit.
        """
        metric = self.metric
        self._check_data(data)
        if n_samples < 1 or batch_size < 1:
            raise ValueError(
                f"n_samples and batch_size must be at least 1, got {n_samples} and {batch_size}."
            )
        with evaluation_mode(self):
            mean, log_time = (
                torch.cat(part)
                for part in zip(*map(self._posterior, data.split(batch_size)), strict=True)
            )
            rows = torch.arange(len(data), device=data.device).repeat_interleave(n_samples)
            log_weights = []
            for batch in rows.split(batch_size):
                z, _, log_posterior = self._sample_posterior(metric, mean[batch], log_time[batch])
                x = data[batch].flatten(1)
                log_likelihood = gaussian_log_prob(x, self._mean_map()(z), self.std(z))
                log_weights.append(log_likelihood + self.log_prior(z) - log_posterior)
            log_weights = torch.cat(log_weights).view(len(data), n_samples)
        return float((log_weights.logsumexp(1) - math.log(n_samples)).mean())

    # What can be wrong

    def _check_data(self, x) -> None:
        input_dim = tuple(self.model_config.input_dim)
        if tuple(x.shape[1:]) != input_dim or len(x) == 0:
            raise ValueError(
                f"The data must have shape [B, {', '.join(map(str, input_dim))}], the model's "
                f"input_dim, got {list(x.shape)}."
            )
        check_finite(x, "The data")
        if self.model_config.uses_default_decoder:
            low, high = float(x.min()), float(x.max())
            if low < 0 or high > 1:
                raise ValueError(
                    f"The data must be in [0, 1], the range of the default decoder, got "
                    f"{low:.4g} to {high:.4g}: rescale them, or give a decoder of your own."
                )

    def _check_training(self, kwargs) -> None:
        if kwargs.get("uses_ddp"):
            raise ValueError(
                "BrownianRVAE cannot be trained by several processes: pythae's trainer wraps it in "
                "a DistributedDataParallel that wants gradients of all parameters in every step, "
                "and those of one phase rest in the other. Train it in one process."
            )
        size, K = kwargs.get("dataset_size"), self.model_config.num_centers
        if size is not None and size < K:
            raise ValueError(
                f"num_centers is {K}, but there are only {size} training points whose codes could "
                "place them: set it to at most that."
            )
        planned = _planned_epochs()
        if planned is not None:
            total = int(self.epochs_done) - (kwargs.get("epoch", 1) - 1) + planned
            if total <= self.model_config.warmup_epochs:
                raise ValueError(
                    f"warmup_epochs is {self.model_config.warmup_epochs}, but training would end "
                    f"after epoch {total}, before the second phase: raise num_epochs of the "
                    "training config, or lower warmup_epochs."
                )


def log_volume(metric: DecoderMetric, z: torch.Tensor) -> torch.Tensor:
    r"""The log volume ``[B]``, with an unbiased estimate of its gradient.

    :math:`\nabla \tfrac12 \log \det J^\top J = \operatorname{tr} (J^\top J)^{-1} J^\top \nabla J
    = E\, (J w)^\top \nabla (J w)` for w of law :math:`N(0, G^{-1})` held fixed: one differentiable
    tangent instead of d.

    A sample that has strayed to where the map is constant up to rounding gets the smallest volume
    that rounding can tell, and no gradient: a training must not end for one of them.
    """
    with torch.no_grad():
        R = torch.linalg.qr(metric.jacobian(z), mode="r").R
        diagonal = R.diagonal(dim1=1, dim2=2).abs()
        finfo = torch.finfo(z.dtype)
        least = (64 * finfo.eps * R.norm(dim=1)).clamp(min=finfo.tiny)
        value = diagonal.clamp(min=least).log().sum(1)
    if not torch.is_grad_enabled():
        return value
    regular = (diagonal > least).all(1)[:, None, None]
    R = torch.where(regular, R, torch.eye(z.shape[1], dtype=z.dtype, device=z.device))
    w = torch.linalg.solve_triangular(R, torch.randn_like(z).unsqueeze(-1), upper=True)
    w = torch.where(regular, w, 0.0).squeeze(-1)
    surrogate = 0.5 * metric.pushforward(z, w).square().sum(1)
    return value + surrogate - surrogate.detach()


def _planned_epochs() -> int | None:
    """The number of epochs of the pythae trainer that is calling, if one is.

    A trainer tells its model the number of the epoch, but not how many there will be; to refuse a
    run that is too short before hours are spent on it, its config is looked up among the callers.
    """
    frame = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, BaseTrainer):
            return caller.training_config.num_epochs
        frame = frame.f_back
    return None
