from collections.abc import Iterator

import torch
from pythae.models import BaseAE
from torch import nn

from ..._checks import check_count
from ..._inputs import as_points
from ...geometry import (
    DegenerateMetricError,
    Metric,
    MixtureMetric,
    PosteriorMetric,
    PullbackMetric,
)
from ...geometry.brownian import walk
from ...geometry.row_streams import Source, choices
from ...models.decoder_map import decoder_space
from ...models.foreign import labels_for, takes_labels
from ..base import LatentSampler
from ..mixture_metric import fit_mixture_metric
from ..posterior_metric import posterior_metric, refuse_times
from ..posteriors import embed, encode
from ..progress import progress_bar
from ..state import metric_of, positive, taken
from .brownian_motion_config import BrownianMotionSamplerConfig
from .default_time import default_time
from .diagnostics import BrownianMotionDiagnostics

# The names of the tensors of the mixture in a file begin with this.
MIXTURE = "mixture."
# The mean log density of the mixture is that of so many draws, within about 0.01 sqrt(d / 2).
DRAWS = 10_000


class BrownianMotionSampler(LatentSampler):
    r"""Samples the ends of Brownian motions on a latent manifold, and decodes them.

    .. math:: dz^i = -\tfrac12 g^{jk} \Gamma^i_{jk}\, dt + (G^{-1/2} dW)^i

    from the centre of the prior of a :class:`~pythae_geometric.models.BrownianRVAE`, from given
    points, or from the codes of training data, each chosen at random. For the centre and the time
    of the prior this is the distribution whose leading-order density is the prior; for any model, a
    way to move through the data without leaving them, if the time is short. A long motion leaves
    them, as it tends to the volume of the metric. With ``stationary="codes"`` it tends to the
    distribution of the codes of the training data instead, a mixture of normal distributions p, by
    one more drift,

    .. math:: \tfrac12\, G^{-1} \nabla \big(\log p - \log\sqrt{\det G}\big)\, dt,

    and may be as long as one likes (:func:`~pythae_geometric.geometry.brownian_motion` says why).

    A path that comes to where the metric is degenerate, such as a flat spot of a decoder, stops at
    its last point before it. How many did is in :attr:`diagnostics`, and a warning.

    Args:
        model: the trained model: with a ``metric`` of its own, or for ``metric="pullback"`` any
            model of pythae with a decoder, for ``"posterior"`` one whose encoder gives
            ``log_covariance``.
        sampler_config: the parameters; None: the motion in the model's own metric.

    Raises:
        TypeError: if ``metric="model"`` and the model has none.

    References:
        D. Kalatzis, D. Eklund, G. Arvanitidis, S. Hauberg, *Variational autoencoders with
        Riemannian Brownian motion priors*, ICML 2020, section 3, https://arxiv.org/abs/2002.05227
        T. Xifara et al., *Langevin diffusions and the Metropolis-adjusted Langevin algorithm*,
        Statistics and Probability Letters 91, 2014, https://arxiv.org/abs/1309.2983 (the drift to
        a density; not in the paper)

    Example:
        >>> from pythae.pipelines import GenerationPipeline
        >>> from pythae_geometric.samplers import BrownianMotionSamplerConfig
        >>> pipeline = GenerationPipeline(model, BrownianMotionSamplerConfig(metric="pullback"))
        >>> images = pipeline(num_samples=100, train_data=train_data)
        >>> pipeline.sampler.diagnostics
        BrownianMotionDiagnostics(time=0.0..., paths=100, stopped=0, shortened=2, ...)
        >>> pipeline.sampler.trajectories(3).shape  # of a model of two latent dimensions
        torch.Size([101, 3, 2])
    """

    config_class = BrownianMotionSamplerConfig
    # What fit chooses.
    metric: Metric
    time: float
    mixture: MixtureMetric | None  # of the codes, for stationary="codes"

    def __init__(self, model: BaseAE, sampler_config: BrownianMotionSamplerConfig | None = None):
        super().__init__(model, sampler_config)
        if self.sampler_config.metric == "model" and not _has_metric(self.model):
            raise TypeError(
                f"A {self.model.model_name} has no metric of its own, as BrownianRVAE and RicciAE "
                "do: choose metric='pullback' or metric='posterior' in the config."
            )
        of_decoder = self.sampler_config.metric != "posterior"
        if of_decoder and takes_labels(self.model):
            raise TypeError(
                "The metric of this model's decoder depends on the label: take the model of one, "
                "BrownianMotionSampler(foreign.given(model, label)), or metric='posterior'."
            )
        self._to_decoder = decoder_space(self.model)
        # Of each batch, which paths stopped, which were shortened, and the ends' log densities.
        self._walks: list = []
        self._moved = False  # whether any path got away from its start

    def fit(
        self,
        train_data=None,
        eval_data=None,
        training_config=None,
        start: torch.Tensor | None = None,
        batch_size: int = 500,
        labels=None,
    ):
        """Choose the metric, the starting points, the time and the stationary distribution.

        Args:
            train_data: array, tensor, list, data frame, data set or ``DataLoader`` of
                ``[N, *input_dim]``. Needed for ``"posterior"`` and for ``stationary="codes"``; else
                to start from their codes or to choose the time. Not used where a BrownianRVAE's
                prior gives both.
            eval_data: held-out data, likewise: where ``time`` is None, their distance to the
                training data chooses it. None: that of the training data to each other.
            training_config: not used; here because pythae's pipeline passes it.
            start: points ``[M, latent_dim]`` from which to start, each chosen at random, in the
                space of the metric. None: the centre of a BrownianRVAE's prior for ``"model"``, the
                codes of ``train_data`` else.
            batch_size: how many data are encoded at a time.
            labels: one for each row of ``train_data``, for models whose networks take them.

        Raises:
            TypeError, ValueError: if the data, labels or points are missing or do not fit, or if no
                time can be chosen by the data.
            RuntimeError: if a BrownianRVAE is still in the first phase of its training.
        """
        self._restart()
        batch_size = check_count("batch_size", batch_size, 1)
        if self.sampler_config.stationary == "codes" and train_data is None:
            raise ValueError(
                'stationary="codes" needs train_data, the data near whose codes the motion stays: '
                "pass them to fit, or as GenerationPipeline's train_data."
            )
        if start is not None:
            start = as_points(start, "start", self.model.latent_dim)
        if labels is not None:
            labels = labels_for(self.model, labels)
        if eval_data is not None and takes_labels(self.model):
            raise ValueError(
                "The labels are those of train_data: leave out eval_data, or set time in the "
                "config."
            )
        with self._isolated():
            self._set(*self._chosen(train_data, eval_data, start, batch_size, labels))

    def _chosen(
        self, train_data, eval_data, start: torch.Tensor | None, batch_size: int, labels
    ) -> tuple[Metric, torch.Tensor, float, MixtureMetric | None]:
        """The metric, the starting points, the time, and the mixture to which the motion tends."""
        config = self.sampler_config
        to_codes = config.stationary == "codes"
        metric = self._decoder_metric()  # None: that of the posteriors
        time = config.time
        if self._is_prior:
            start = self.model.prior_center.unsqueeze(0) if start is None else start
            time = float(self.model.prior_log_time.exp()) if time is None else time
        elif time is None and train_data is None and start is not None and metric is not None:
            raise ValueError(
                "Without train_data no time can be chosen by them: set time in the config, such as "
                "to the squared distance that a sample should go divided by latent_dim, or pass "
                "train_data, too."
            )
        if metric is None:
            refuse_times(self.model)
            codes, log_vars = encode(
                self.model, train_data, batch_size, labels, config.several_processes
            )
            seed = self._random_seed()
            metric = self._shared(lambda: posterior_metric(codes, log_vars, seed=seed))
        elif start is None or time is None or to_codes:
            codes = self._codes(train_data, batch_size)
        start = codes if start is None else start
        if time is None:
            held_out = None
            if eval_data is not None:
                held_out = self._codes(eval_data, batch_size, "eval_data")
            metric, codes = metric.to(self.device, self.dtype), codes.to(self.device)
            time = self._shared(
                lambda: default_time(metric, codes, held_out, self._generator, batch_size)
            )
        mixture = None
        if to_codes:
            seed = self._random_seed()
            mixture = self._shared(lambda: fit_mixture_metric(codes.cpu(), seed=seed))
        return metric, start, time, mixture

    @property
    def _is_prior(self) -> bool:
        """Whether it samples the prior of a model that has a centre and a time of its own."""
        own = hasattr(self.model, "prior_center") and hasattr(self.model, "prior_log_time")
        return self.sampler_config.metric == "model" and own

    def _decoder_metric(self) -> Metric | None:
        if self.sampler_config.metric == "posterior":
            return None
        if self.sampler_config.metric == "model":
            metric = self.model.metric
            if not isinstance(metric, Metric):
                raise TypeError(
                    f"The metric of {self.model.model_name} must be a geometry.Metric, got a "
                    f"{type(metric).__name__}."
                )
            return metric
        return PullbackMetric(_Decoder(self.model.decoder))

    def _codes(self, data, batch_size: int, name: str = "train_data") -> torch.Tensor:
        """Codes of data, ``[N, d]``, in the space of the metric."""
        shared = self.sampler_config.several_processes
        codes = embed(self.model, data, batch_size, name, shared=shared).to(self.device)
        if self.sampler_config.metric == "posterior":
            return codes
        return torch.cat([self._to_decoder(part) for part in codes.split(batch_size)])

    def _set(
        self, metric: Metric, start: torch.Tensor, time: float, mixture: MixtureMetric | None
    ) -> None:
        self.metric = metric.to(self.device, self.dtype)
        self.mixture = None if mixture is None else mixture.to(self.device, self.dtype)
        self._start = start.detach().to(self.device, self.dtype)
        self.time = time
        self._walks = []
        self._finish_fit()

    @property
    def diagnostics(self) -> BrownianMotionDiagnostics:
        """What happened to the paths of the last call of ``sample``, ``sample_latent`` or
        ``trajectories``.

        Raises:
            RuntimeError: before anything was sampled.
        """
        if not self._walks:
            raise RuntimeError("There are no diagnostics yet: call sample or sample_latent first.")
        stopped, shortened, log_density = (
            torch.cat(parts) for parts in zip(*self._walks, strict=True)
        )
        excess = None
        if self.mixture is not None:
            seeded = torch.Generator(self.device).manual_seed(0)
            expected = self.mixture.log_volume(self.mixture.sample(DRAWS, seeded)).mean()
            excess = float(log_density.mean() - expected)
        return BrownianMotionDiagnostics(
            time=self.time,
            paths=len(stopped),
            stopped=int(stopped.sum()),
            shortened=int(shortened.sum()),
            excess_log_density=excess,
        )

    def trajectories(self, num_samples: int = 1) -> torch.Tensor:
        """Draw whole paths, in the space of the metric.

        Args:
            num_samples: how many, 1 or more.

        Returns:
            ``[steps + 1, num_samples, latent_dim]``.

        Raises:
            RuntimeError: if the sampler is not fitted.
            ValueError: if the number is out of range.
            DegenerateMetricError: if the metric is degenerate at all starting points drawn.

        Warns:
            UserWarning: if paths stop where the metric is degenerate.
        """
        self._check_fitted()
        num_samples = check_count("num_samples", num_samples, 1)
        self._walks, self._moved = [], False
        with self._isolated():
            source = self._sources(num_samples)(0, num_samples)
            paths = self._walk(num_samples, source, trajectory=True)
        self._warn()
        return paths

    def _batches(self, num_samples: int, batch_size: int) -> Iterator[torch.Tensor]:
        batches = super()._batches(num_samples, batch_size)
        self._walks, self._moved = [], False
        return batches

    def _report(self) -> str | None:
        if not any(bool(stopped.any()) for stopped, *_ in self._walks):
            return None
        found = self.diagnostics
        if not self._moved:
            raise DegenerateMetricError(
                f"The metric is degenerate where the motion starts, for all {found.paths} paths: "
                "the decoder is flat there in some direction. Train it longer, use fewer latent "
                "dimensions, or choose other starting points or another metric."
            )
        return (
            f"{found.stopped} of {found.paths} paths ({found.stopped / found.paths:.1%}) met a "
            "place where the metric is degenerate, and stopped there before their time, "
            f"{found.time:.3g}. Such places are flat spots of a decoder, or far from the data: set "
            "a shorter time, or train the model longer."
        )

    def _walk(self, num_samples: int, source: Source, trajectory: bool) -> torch.Tensor:
        config, mixture = self.sampler_config, self.mixture
        start = self._start[choices(len(self._start), num_samples, source, self.device)]
        with progress_bar("Brownian motion", config.steps) as bar:
            walked = walk(
                self.metric,
                start,
                self.time,
                config.steps,
                drift=config.drift,
                generator=source,
                trajectory=trajectory,
                progress=bar.update,
                score=None if mixture is None else lambda z: mixture.log_volume_and_grad(z)[1],
            )
        end = walked.path[-1] if trajectory else walked.path
        # The density of the mixture is the volume of its metric.
        log_density = end[:0, 0] if mixture is None else mixture.log_volume(end)
        self._walks.append((walked.stopped, walked.shortened, log_density))
        self._moved = self._moved or not torch.equal(end, start)
        return walked.path

    def _draw(self, num_samples: int, source: Source) -> torch.Tensor:
        z = self._walk(num_samples, source, trajectory=False)
        return self._to_decoder(z) if self.sampler_config.metric == "posterior" else z

    def _state(self) -> dict[str, torch.Tensor]:
        state = {"start": self._start, "time": torch.tensor(self.time, dtype=torch.float64)}
        if self.sampler_config.metric == "posterior":
            state |= self.metric.state_dict()
        if self.mixture is not None:
            state |= self.mixture.state_dict(prefix=MIXTURE)
        return state

    def _set_state(self, state: dict[str, torch.Tensor]) -> None:
        start = taken(state, "start", (None, self.model.latent_dim))
        # Version 0.1.0 saved no time: it was that of the config, or of the model's prior.
        if "time" in state:
            time = positive(state, "time")
        elif self.sampler_config.time is not None:
            time = self.sampler_config.time
        elif self._is_prior:
            time = float(self.model.prior_log_time.detach().exp())
        else:
            raise ValueError("it has no time, and the config has none.")
        mixture = None
        if self.sampler_config.stationary == "codes":
            names = [name for name in state if name.startswith(MIXTURE)]
            parts = {name.removeprefix(MIXTURE): state.pop(name) for name in names}
            mixture = metric_of(MixtureMetric, parts, self.model.latent_dim)
        metric = self._decoder_metric()  # None: that of the posteriors
        if metric is None:
            metric = metric_of(PosteriorMetric, state, self.model.latent_dim)
        self._set(metric, start, time, mixture)


class _Decoder(nn.Module):
    """The decoder alone as a map, of the points that it takes: ``[B, d] -> [B, *input_dim]``."""

    def __init__(self, decoder: nn.Module):
        super().__init__()
        self.decoder = decoder

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(z)["reconstruction"]


def _has_metric(model: BaseAE) -> bool:
    # A property is not asked for its value: that of a model in training may raise. Models of pythae
    # have attributes of this name, too (RHVAE: a network).
    if hasattr(type(model), "metric"):
        return True
    return isinstance(getattr(model, "metric", None), Metric)
