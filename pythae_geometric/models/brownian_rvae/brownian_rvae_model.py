import math
import os

import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder

from ..._processes import by_first, with_gradients_of
from ...geometry._checks import check_points
from ..base import GeometricModel
from ..checks import check_parts, data_for, data_of, decoded, encoded
from ..decoder_map import DecoderMap, HeldFixed
from ..likelihood import log_likelihood
from ..scale import diverged
from .brownian_rvae_config import BrownianRVAEConfig
from .checks import check_in_range, check_training
from .corrections import choose_rows
from .distributions import BrownianPosterior, BrownianPrior, log_volume
from .geodesic_fan import GeodesicFan, along_curves
from .networks import default_decoder, default_encoder, upgraded
from .phases import CodeStatistics, LastPhase
from .stochastic_decoder import DecoderMetric, RBFPrecision, gaussian_log_prob

# Posterior times are kept within these bounds (published code).
TIMES = (1e-4, 5.0)
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
    one Euler step of Brownian motion from m(x): it is normalised, and its samples come from exactly
    the distribution that is scored. The prior is the zeroth-order heat kernel, as a density of dz
    (its volume factor at c cancels, see
    :func:`~pythae_geometric.geometry.heat_kernel_log_prob`).

    **What the loss bounds.** The heat kernel is normalised to leading order in s: its total mass is
    :math:`Z = 1 + O(s)`, and exactly 1 in flat space. The loss plus :math:`\log Z` is a bound on
    :math:`-\log p(x)` of the normalised prior; ``reg_loss`` estimates the Kullback-Leibler
    divergence minus :math:`\log Z`, and so is at least :math:`-\log Z` in expectation
    (``examples/reproduce/kalatzis2020.py`` measures Z in two dimensions).

    **Two phases.** For ``warmup_epochs`` epochs encoder and mean are trained as an autoencoder
    (:math:`z = m(x)`, :math:`\sigma = 1`). Then k-means on the codes places the centres of
    :math:`\sigma`, and :math:`\sigma`, the prior and the encoder are trained on the loss above with
    :math:`\mu` held fixed, in evaluation mode: the manifold stays, and the distribution on it is
    learned. The model counts its epochs, so that one from a checkpoint continues where that was
    saved; the trainer saves the best model of the second phase (:class:`~.phases.LastPhase`).

    In several processes the optimiser counts its steps from the first phase on for all parameters:
    Adam's first steps in the second are up to three times as long as in one process.

    **Distances and volumes.** Training uses curves between geodesics that are solved once an epoch
    (:class:`~.geodesic_fan.GeodesicFan`), a little longer than geodesics, which makes the loss
    larger; in training mode for a random tenth of the batch, which keeps the mean of the loss
    (:mod:`~.corrections`). :meth:`get_nll` and :meth:`log_prior` solve each geodesic.

    Args:
        model_config: the parameters.
        encoder: network with the outputs ``embedding [B, d]`` and ``log_covariance``, ``[B, 1]`` or
            ``[B, d]``, whose mean over the last axis is log t, up to a constant that the end of
            the first phase sets. None: layers of softplus units, of widths ``hidden_dims``.
        decoder: network with the output ``reconstruction [B, *input_dim]``, the mean. None: the
            same, with a sigmoid; data must then be in [0, 1].

    Raises:
        ValueError: if ``input_dim`` is not set; in training, if data or networks do not fit.

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
        check_parts(model_config, BrownianRVAEConfig, encoder, decoder)
        super().__init__(model_config, decoder=decoder or default_decoder(model_config))
        self.model_name = "BrownianRVAE"
        self._set_networks(encoder, decoder, encoder or default_encoder(model_config))

        K, d = model_config.num_centers, model_config.latent_dim
        D = math.prod(model_config.input_dim)
        beta, zeta = model_config.rbf_bandwidth, model_config.precision_floor
        self.std = RBFPrecision(d, D, K, beta, zeta)
        self.prior_center = torch.nn.Parameter(torch.zeros(d))
        self.prior_log_time = torch.nn.Parameter(torch.zeros(()))
        self.fan = GeodesicFan(K, d)
        # Log times are relative to this unit, which makes them begin, on average, at the variance
        # of the residuals: as wide, in the data, as what the decoder cannot explain.
        self.register_buffer("log_time_unit", torch.zeros(()))
        self.register_buffer("epochs_done", torch.zeros((), dtype=torch.long))
        self._statistics = CodeStatistics()
        self._last_phase = LastPhase()

    # The two phases

    @property
    def in_warmup(self) -> bool:
        """Whether the model is in the first phase of its training."""
        return int(self.epochs_done) < self.model_config.warmup_epochs

    def update(self) -> None:
        """Count an epoch, and begin the second phase or solve the geodesics of the fan again.

        Raises:
            RuntimeError: if the first phase ends without any codes.
            ValueError: if there are fewer codes than centres.
        """
        super().update()  # its warnings
        self._last_phase.restore(self.decoder)
        self.epochs_done += 1
        epochs_of_phase = int(self.epochs_done) - self.model_config.warmup_epochs
        if epochs_of_phase == 0:
            self._begin_second_phase()
        elif epochs_of_phase > 0:
            self.fan.solve(self.metric, self.prior_center, REFRESH_ITERATIONS)
        self._last_phase.end_epoch(self, epochs_of_phase)

    @torch.no_grad()
    def _begin_second_phase(self) -> None:
        seen, self._statistics = self._statistics, CodeStatistics()
        seen.gather()
        by_first(lambda: self._place(seen), self.state_dict().values() if seen.is_parallel else ())

    def _place(self, seen: CodeStatistics) -> None:
        codes = seen.codes
        self.std.place(codes, seen.variance)
        # The prior starts at the central code, with its most likely time.
        self.prior_center.copy_(seen.central_code)
        self.fan.anchors.copy_(self.std.centers)
        self.fan.deviations.zero_()
        self.fan.solve(self.metric, self.prior_center, FIRST_ITERATIONS)
        square = self._along_curves(codes[:1000], choose_rows(codes[:1000], False))[2]
        # Where little has been learned codes are close. The prior still begins far from the
        # shortest posterior, where no gradient passes, and no posterior wider than it.
        s = (square.mean() / self.latent_dim).clamp(min=100 * TIMES[0])
        self.prior_log_time.copy_(s.log())
        start = torch.minimum(seen.variance.mean(), s).log()
        self.log_time_unit.copy_(start - seen.mean_log_time)

    def save(self, dir_path: str | os.PathLike) -> None:
        """Save the model, or what :class:`~.phases.LastPhase` has in place of an early copy; with
        one warning in a training if it is still in the first phase.

        Raises:
            OSError: if the folder cannot be written.
        """
        is_early = int(self.epochs_done) <= self.model_config.warmup_epochs
        best = self._last_phase.best(self) if is_early else self
        if best.in_warmup:
            self._last_phase.warn_once(
                f"The model is saved in the first phase of its training ({self._progress()}), "
                "where it has no metric and no prior yet. Load and train it further, or lower "
                "warmup_epochs. (This warning is given once.)"
            )
        GeometricModel.save(best, dir_path)

    def _progress(self) -> str:
        return f"{int(self.epochs_done)} of {self.model_config.warmup_epochs} epochs"

    @classmethod
    def _upgraded(cls, state):
        return upgraded(state)

    # The geometry

    @property
    def metric(self) -> DecoderMetric:
        """The metric of the latent space.

        Raises:
            RuntimeError: in the first phase.
        """
        if self.in_warmup:
            raise RuntimeError(
                f"The model is in the first phase of its training ({self._progress()}), where it "
                "has no metric yet: train it longer, or lower warmup_epochs."
            )
        return DecoderMetric(self._mean(), self.std)

    def _mean(self) -> HeldFixed:
        """The mean as a map of latent points, which the second phase holds fixed."""
        return HeldFixed(DecoderMap(self))

    def log_prior(self, z: torch.Tensor) -> torch.Tensor:
        """The log density of the prior with respect to dz, its geodesics solved to convergence.

        Args:
            z: points, ``[B, d]``.

        Returns:
            ``[B]``.

        Raises:
            RuntimeError: in the first phase of training.
            TypeError, ValueError: if the points are no such tensor.
            DegenerateMetricError: where the metric is not positive definite.
        """
        return self._prior(self.metric).log_prob(check_points(z))

    def _prior(self, metric: DecoderMetric) -> BrownianPrior:
        return BrownianPrior(metric, self.prior_center, self.prior_log_time)

    def _posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean ``[B, d]`` and log time ``[B]``."""
        d = self.latent_dim
        mean, log_covariance = encoded(self.encoder, x, d, widths=(1, d))
        low, high = (math.log(time) for time in TIMES)
        return mean, (log_covariance.mean(1) + self.log_time_unit).clamp(low, high)

    def _along_curves(self, z, chosen):
        return along_curves(self.fan, self._mean(), self.std, z, self.prior_center, chosen)

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
            ValueError: if the data do not fit, or are outside [0, 1] under the default decoder; if
                the encoder's output has a wrong shape; if there are fewer data than centres.
            DegenerateMetricError: if the decoder has collapsed a latent direction.
            ArithmeticError: if a network's output, or the loss, is not finite.
        """
        x = check_in_range(data_of(inputs, self), self.model_config)
        is_parallel = self.training and kwargs.get("uses_ddp", False)
        if self.training:
            self._last_phase = self._last_phase.in_training(kwargs.get("epoch"))
        if is_parallel and not self.in_warmup:
            self._last_phase.hold(self.decoder)
        with torch.autocast(x.device.type, enabled=False):
            output = self._autoencoder(x, kwargs) if self.in_warmup else self._elbo(x)
        if "epoch" in kwargs and not self.in_warmup:
            self._last_phase.add_loss(output.loss, self.training)
        if is_parallel:
            output["loss"] = with_gradients_of(self.parameters(), output.loss)
        return output

    def _autoencoder(self, x, kwargs) -> ModelOutput:
        if self.training:
            check_training(self.model_config, **kwargs)
        z, log_time = self._posterior(x)
        recon_x = decoded(self.decoder, z, x.shape[1:], data=x)
        self._watch(x, recon_x)
        x, mean = x.flatten(1), recon_x.flatten(1)
        recon_loss = -gaussian_log_prob(x, mean, torch.ones_like(mean)).mean()
        is_last = int(self.epochs_done) == self.model_config.warmup_epochs - 1
        if self.training and is_last and "epoch" in kwargs:
            self._statistics.add(z, log_time, x - mean, kwargs.get("uses_ddp", False))
        parts = {"recon_loss": recon_loss, "reg_loss": torch.zeros_like(recon_loss)}
        return ModelOutput(loss=recon_loss, **parts, recon_x=recon_x, z=z)

    def _elbo(self, x) -> ModelOutput:
        posterior = BrownianPosterior(self.metric, *self._posterior(x))
        z, volume = posterior.rsample_and_log_volume()
        chosen = choose_rows(z, self.training)
        mean, std, square = self._along_curves(z, chosen)
        recon_loss = -gaussian_log_prob(x.flatten(1), mean, std).mean()
        volume_at_z = chosen.corrected(volume, log_volume(posterior.metric, z[chosen.rows]))
        log_prior = self._prior(posterior.metric).log_prob_at(volume_at_z, square)
        reg_loss = (-posterior.entropy_at(volume) - log_prior).mean()
        if not bool(torch.isfinite(recon_loss.detach() + reg_loss.detach())):
            raise diverged("The loss", x)
        self._watch(x.flatten(1), mean, reg_loss)
        parts = {"recon_loss": recon_loss, "reg_loss": reg_loss}
        return ModelOutput(loss=recon_loss + reg_loss, **parts, recon_x=mean.view_as(x), z=z)

    def get_nll(self, data: torch.Tensor, n_samples: int = 1, batch_size: int = 100) -> float:
        r"""Estimate the log likelihood of data by importance sampling.

        .. math:: \log p(x) \approx
                  \log \frac1S \sum_s p(x|z_s)\, p(z_s) / q(z_s|x), \quad z_s \sim q(z|x)

        It grows with S towards the value, up to :math:`\log Z` of the prior (see the class). As for
        pythae's models, the mean log likelihood is returned: its *sign* is not that of the name.

        Args:
            data: ``[N, *input_dim]``.
            n_samples: number S of samples for each data point.
            batch_size: number of samples that are decoded at a time.

        Raises:
            RuntimeError: in the first phase of training.
            ValueError: if a number is less than 1, or the data do not fit.
        """
        metric = self.metric
        data = check_in_range(data_for(self, data), self.model_config)

        def log_weight(x, mean, log_time):
            posterior = BrownianPosterior(metric, mean, log_time)
            z = posterior.rsample()
            log_p_x = gaussian_log_prob(x.flatten(1), metric.mean(z), self.std(z))
            return log_p_x + self.log_prior(z) - posterior.log_prob(z)

        return log_likelihood(self, self._posterior, log_weight, (data,), n_samples, batch_size)
