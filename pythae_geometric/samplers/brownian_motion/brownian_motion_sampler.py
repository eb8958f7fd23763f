import torch
from pythae.models import BaseAE

from ...geometry import Metric, PosteriorMetric, PullbackMetric, brownian_motion
from ...models.brownian_rvae import BrownianRVAE
from ..base import LatentSampler
from ..metric_uniform_hmc import MetricUniformHMCSampler, MetricUniformHMCSamplerConfig
from ..posteriors import embed, to_decoder_space
from .brownian_motion_config import BrownianMotionSamplerConfig


class BrownianMotionSampler(LatentSampler):
    r"""Samples the ends of Brownian motions on a latent manifold, and decodes them.

    .. math:: dz^i = -\tfrac12 g^{jk} \Gamma^i_{jk}\, dt + (G^{-1/2} dW)^i

    from the centre of the prior of a :class:`~pythae_geometric.models.BrownianRVAE`, from given
    points, or from the posterior means of training data, each chosen at random. For the time of the
    prior this is the law of which the prior's density is the leading term; for any model, a way to
    move through the data without leaving them.

    Args:
        model: the trained model: a BrownianRVAE, or for ``metric="pullback"`` any model of pythae
            with a decoder, for ``"posterior"`` one whose encoder gives ``log_covariance``.
        sampler_config: the parameters; None: the motion of a BrownianRVAE's prior.

    Raises:
        TypeError: if ``metric="model"`` and the model is no BrownianRVAE.

    References:
        D. Kalatzis, D. Eklund, G. Arvanitidis, S. Hauberg, *Variational autoencoders with
        Riemannian Brownian motion priors*, ICML 2020, section 3, https://arxiv.org/abs/2002.05227

    Example:
        >>> from pythae.pipelines import GenerationPipeline
        >>> from pythae_geometric.samplers import BrownianMotionSamplerConfig
        >>> pipeline = GenerationPipeline(model, BrownianMotionSamplerConfig(steps=200))
        >>> images = pipeline(num_samples=100)
        >>> pipeline.sampler.trajectories(3).shape  # of a model of two latent dimensions
        torch.Size([201, 3, 2])
    """

    config_class = BrownianMotionSamplerConfig

    def __init__(self, model: BaseAE, sampler_config: BrownianMotionSamplerConfig | None = None):
        super().__init__(model, sampler_config)
        if self.sampler_config.metric == "model" and not isinstance(model, BrownianRVAE):
            raise TypeError(
                f"A {model.model_name} has no metric of its own, as BrownianRVAE does: choose "
                "metric='pullback' or metric='posterior' in the config."
            )
        self.metric: Metric | None = None

    def fit(
        self,
        train_data=None,
        eval_data=None,
        training_config=None,
        start: torch.Tensor | None = None,
        batch_size: int = 500,
    ):
        """Choose the starting points, and make the metric where it is that of posteriors.

        Args:
            train_data: array or tensor ``[N, *input_dim]``, or a ``Dataset`` that returns
                ``data``. ``"posterior"`` needs them; ``"pullback"`` only without ``start``;
                ``"model"`` does not use them.
            eval_data: not used; here because pythae's pipeline passes it.
            training_config: not used; likewise.
            start: points ``[M, latent_dim]`` from which to start, each chosen at random. None: the
                centre of the prior for ``"model"``, the posterior means of ``train_data`` else.
            batch_size: how many data are encoded at a time.

        Raises:
            TypeError, ValueError: if the data or the points are missing or do not fit.
            RuntimeError: if a BrownianRVAE is still in the first phase of its training.
        """
        self._restart()
        self.model.eval()
        if start is not None:
            start = torch.as_tensor(start)
            if start.ndim != 2 or start.shape[1] != self.model.latent_dim or len(start) == 0:
                raise ValueError(
                    f"start must hold points of the latent space, [M >= 1, "
                    f"{self.model.latent_dim}], got {list(start.shape)}."
                )
            if not bool(torch.isfinite(start).all()):
                raise ValueError("start contains NaN or infinity: remove those points.")
        kind = self.sampler_config.metric
        if kind == "posterior":
            config = MetricUniformHMCSamplerConfig(seed=self.sampler_config.seed)
            uniform = MetricUniformHMCSampler(self.model, config)
            uniform.fit(train_data, batch_size=batch_size)
            metric = uniform.metric
            start = uniform._starts if start is None else start
        else:
            metric = self._decoder_metric()
            if start is None:
                start = self._default_start(train_data, batch_size)
        self._set(metric, start)

    def _decoder_metric(self) -> Metric:
        if self.sampler_config.metric == "model":
            return self.model.metric
        decoder = self.model.decoder
        return PullbackMetric(lambda z: decoder(z)["reconstruction"])

    @torch.no_grad()
    def _default_start(self, train_data, batch_size) -> torch.Tensor:
        if self.sampler_config.metric == "model":
            return self.model.prior_center.unsqueeze(0)
        codes = embed(self.model, train_data, batch_size, self.device, self.dtype)
        parts = codes.to(self.device).split(batch_size)
        return torch.cat([to_decoder_space(self.model, part) for part in parts])

    def _set(self, metric: Metric, start: torch.Tensor) -> None:
        self.metric = metric.to(self.device, self.dtype)
        self._start = start.detach().to(self.device, self.dtype)
        self.is_fitted = True
        self._restart()

    def trajectories(self, num_samples: int = 1) -> torch.Tensor:
        """Draw whole paths, in the space of the metric.

        Args:
            num_samples: how many, 1 or more.

        Returns:
            ``[steps + 1, num_samples, latent_dim]``.

        Raises:
            RuntimeError: if the sampler is not fitted.
            ValueError: if the number is out of range, or a path leaves the range of floating-point
                numbers (take more steps).
            DegenerateMetricError: if a path comes to where the metric is degenerate.
        """
        self._check_fitted()
        if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
            raise ValueError(
                f"num_samples must be a whole number of at least 1, got {num_samples!r}."
            )
        self.model.eval()
        return self._walk(num_samples, trajectory=True)

    @torch.no_grad()
    def _walk(self, num_samples: int, trajectory: bool) -> torch.Tensor:
        config = self.sampler_config
        which = torch.randint(
            len(self._start), (num_samples,), generator=self._generator, device=self.device
        )
        time = self.model.prior_log_time.exp() if config.time is None else config.time
        return brownian_motion(
            self.metric,
            self._start[which],
            time,
            config.steps,
            drift=config.drift,
            generator=self._generator,
            trajectory=trajectory,
        )

    def _draw(self, num_samples: int) -> torch.Tensor:
        z = self._walk(num_samples, trajectory=False)
        if self.sampler_config.metric != "posterior":
            return z
        with torch.no_grad():
            return to_decoder_space(self.model, z)

    def _state(self) -> dict[str, torch.Tensor]:
        state = {"start": self._start}
        if self.sampler_config.metric == "posterior":
            state |= self.metric.state_dict()
        return state

    def _set_state(self, state: dict[str, torch.Tensor]) -> None:
        state = dict(state)
        start = state.pop("start")
        if start.ndim != 2 or start.shape[1] != self.model.latent_dim:
            raise ValueError(
                f"it starts at points of shape {list(start.shape)}, but the latent dimension of "
                f"the model is {self.model.latent_dim}."
            )
        posterior = self.sampler_config.metric == "posterior"
        self._set(PosteriorMetric(**state) if posterior else self._decoder_metric(), start)
