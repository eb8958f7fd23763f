import dataclasses
import math

import torch
from pythae.models import VQVAE, BaseAE

from ...geometry import HMCResult, MixtureMetric, PosteriorMetric, hmc
from ...geometry._warnings import warn
from ...geometry.row_streams import RowStreams, Source, choices
from ...models.brownian_rvae import BrownianRVAE
from ...models.decoder_map import decoder_space
from ..base import LatentSampler
from ..mixture_metric import fit_mixture_metric
from ..posterior_metric import posterior_metric, refuse_times
from ..posteriors import encode, encode_any
from ..progress import progress_bar
from ..state import metric_of, positive, taken
from .diagnostics import NEVER, HMCDiagnostics, summarise
from .local_units import LocalUnits
from .metric_uniform_hmc_config import MetricUniformHMCSamplerConfig

# Paths of this many chains are kept for the diagnostics.
DIAGNOSTIC_CHAINS = 64
# Steps in which the step size is adapted, of this many chains.
ADAPTATION_STEPS = 30
ADAPTATION_CHAINS = 200
# Steps of chains that start at exact draws, and the most leapfrog steps of each.
STEPS = 5
MOST_LEAPFROGS = 10
# Codes that differ by less than this many standard deviations of their posteriors say nothing.
COLLAPSED = 0.1
# What the paper's code does: 100 steps of 10 leapfrogs, and a walk of 0.5 in the flat part.
PAPER_STEPS = 100
PAPER_LEAPFROGS = 10
PAPER_STEP_SIZE = 0.005
# How often chains that did not move are begun again.
RESTARTS = 5


class MetricUniformHMCSampler(LatentSampler):
    r"""Samples the uniform distribution of a model's Riemannian latent space.

    ``fit`` puts a metric on the latent space of a trained model, and ``sample`` draws from
    :math:`\mathcal{U}(z) \propto \sqrt{\det G(z)}` by Hamiltonian Monte Carlo, one chain a sample,
    and decodes.

    With ``metric="codes"``, the default, the metric follows the covariance of the training codes
    around its centroids (:class:`~pythae_geometric.geometry.MixtureMetric`). Its uniform
    distribution is a mixture in closed form, so chains start at exact draws; their steps are fitted
    to the local scale of the codes. It takes any model whose encoder gives an ``embedding``.

    With ``metric="posteriors"`` it is the paper's: the metric interpolates the inverse posterior
    covariances at a few centroids (:class:`~pythae_geometric.geometry.PosteriorMetric`), and each
    chain starts at the posterior mean of a random training point. Such chains are short random
    walks and do not reach the uniform distribution. It takes any model whose encoder gives
    ``embedding`` and ``log_covariance``.

    For models with a normalizing flow after the posterior (``VAE_LinNF``, ``VAE_IAF``) the metric
    lives before the flow, and samples are carried through it. For ``PoincareVAE`` variances are
    taken as the encoder gives them, and samples are projected on the ball; those of ``SVAE`` on the
    sphere.

    A chain that did nothing is never passed off as a sample in silence. Chains that start at
    training points and do not move begin again at others, up to five times. After each call of
    ``sample`` one warning says how many chains never accepted a step, ended where they started,
    diverged, or ended in the flat part of the metric, and what to set; :attr:`diagnostics` has the
    numbers.

    Args:
        model: the trained model.
        sampler_config: the parameters; None: all scales are chosen from the data.

    References:
        Chadebec and Allassonnière, *A Geometric Perspective on Variational Autoencoders*, NeurIPS
        2022, section 4, https://arxiv.org/abs/2209.07370

    Example:
        >>> import pythae_geometric
        >>> from pythae.pipelines import GenerationPipeline
        >>> from pythae_geometric.samplers import MetricUniformHMCSamplerConfig
        >>> pipeline = GenerationPipeline(model, MetricUniformHMCSamplerConfig())
        >>> images = pipeline(num_samples=100, train_data=train_data)
        >>> pipeline.sampler.diagnostics
        HMCDiagnostics(acceptance_rate=0.8..., divergences=0, step_size=0.5..., ...)
    """

    config_class = MetricUniformHMCSamplerConfig
    # What fit makes: the metric, and for "codes" or for "posteriors" where chains start.
    metric: PosteriorMetric | MixtureMetric
    _local: LocalUnits
    _starts: torch.Tensor

    def __init__(self, model: BaseAE, sampler_config: MetricUniformHMCSamplerConfig | None = None):
        super().__init__(model, sampler_config)
        self._to_decoder = decoder_space(self.model)
        self._results: list = []

    def fit(
        self,
        train_data=None,
        eval_data=None,
        training_config=None,
        batch_size: int = 500,
        labels=None,
    ):
        """Make the metric from the codes, or the posteriors, of the training data.

        Args:
            train_data: array, tensor, list, data frame, data set or ``DataLoader`` of
                ``[N, *input_dim]``, on the scale that the model was trained on. Read batch by
                batch; of items that are tuples or dictionaries the first, or ``"data"``, counts.
            eval_data: not used; here because pythae's pipeline passes it.
            training_config: not used; likewise.
            batch_size: how many are encoded at a time.
            labels: one for each row of ``train_data``, for models whose networks take them
                (:mod:`~pythae_geometric.models.foreign`); None: those of the data set. The metric
                is one for all labels.

        Raises:
            TypeError: if the data are not numbers, the model has no posterior variances for
                ``metric="posteriors"``, or labels are missing or not taken.
            ValueError: if the data are missing, empty, of a wrong shape or not finite, or labels
                are not as many; if there
                are fewer than ``num_centroids``; if all codes coincide; or, for
                ``"posteriors"``, if variances have collapsed or exploded, or if the paper's
                temperature is 0 because the centroids coincide.
        """
        self._restart()
        if isinstance(self.model, VQVAE):
            raise TypeError(
                "The codes of a VQVAE are quantised, with no log_covariance and no distances in "
                "between: use pythae's PixelCNNSampler."
            )
        seed = self._random_seed()
        with self._isolated():
            if self.sampler_config.metric == "codes":
                self._fit_codes(train_data, labels, batch_size, seed)
            else:
                self._fit_posteriors(train_data, labels, batch_size, seed)

    def _fit_codes(self, train_data, labels, batch_size: int, seed: int) -> None:
        config = self.sampler_config
        shared = config.several_processes
        codes, log_vars = encode_any(self.model, train_data, batch_size, labels, shared)
        if not isinstance(self.model, BrownianRVAE):  # which gives a log time there
            _warn_of_collapse(codes, log_vars)

        def fit():
            metric = fit_mixture_metric(codes, config.num_centroids, config.temperature, seed)
            return metric, self._adapted_step_size(metric, seed)

        metric, step_size = self._shared(fit)
        self._set(metric, step_size=step_size)

    def _fit_posteriors(self, train_data, labels, batch_size: int, seed: int) -> None:
        config = self.sampler_config
        refuse_times(self.model)
        shared = config.several_processes
        means, log_vars = encode(self.model, train_data, batch_size, labels, shared)
        options = (
            config.num_centroids,
            config.centroid_selection,
            config.temperature,
            config.regularization,
            config.decay,
            config.additive_volume,
            seed,
        )

        def fit():
            metric = posterior_metric(means, log_vars, *options)
            if config.adaptation_steps == 0:
                return metric, config.eps_lf or PAPER_STEP_SIZE
            return metric, self._adapted_walk(metric, means, seed)

        metric, step_size = self._shared(fit)
        self._set(metric, starts=means, step_size=step_size)

    def _former_step_size(self, metric: PosteriorMetric, starts: torch.Tensor) -> float:
        """That of a file of version 0.1.0, which saved none and adapted it in each batch."""
        config = self.sampler_config
        if config.adaptation_steps == 0:
            return config.eps_lf or PAPER_STEP_SIZE
        with self._isolated():
            return self._adapted_walk(metric, starts, self._random_seed())

    def _adapted_walk(self, metric: PosteriorMetric, means: torch.Tensor, seed: int) -> float:
        """The step size for chains from training codes, by some of their own."""
        config, streams = self.sampler_config, RowStreams(seed, ADAPTATION_CHAINS).beside(1)
        metric = metric.to(self.device, self.dtype)
        start = means[choices(len(means), ADAPTATION_CHAINS, streams, "cpu")]
        with progress_bar("Adapting", config.adaptation_steps + 1) as bar:
            result = hmc(
                metric.log_volume_and_grad,
                start.to(self.device, self.dtype),
                steps=1,
                leapfrog_steps=config.n_lf or PAPER_LEAPFROGS,
                step_size=config.eps_lf or PAPER_STEP_SIZE,
                adaptation_steps=config.adaptation_steps,
                target_acceptance=config.target_acceptance,
                keep_chains=0,
                generator=torch.Generator(self.device).manual_seed(seed),
                progress=bar.update,
            )
        return result.step_size

    def _adapted_step_size(self, metric: MixtureMetric, seed: int) -> float:
        config = self.sampler_config
        if config.eps_lf is not None:
            return config.eps_lf
        # The adaptation has random numbers of its own: samples do not depend on it otherwise.
        metric, generator = metric.to(self.device, self.dtype), torch.Generator(self.device)
        local = LocalUnits(metric)
        with progress_bar("Adapting", ADAPTATION_STEPS + 1) as bar:
            result = hmc(
                local.log_prob_and_grad,
                local.draw(ADAPTATION_CHAINS, generator.manual_seed(seed)),
                steps=1,
                leapfrog_steps=config.n_lf or 3,
                step_size=0.5,
                adaptation_steps=ADAPTATION_STEPS,
                target_acceptance=config.target_acceptance,
                keep_chains=0,
                generator=generator,
                progress=bar.update,
            )
        return result.step_size

    def _set(
        self,
        metric: PosteriorMetric | MixtureMetric,
        step_size: float,
        starts: torch.Tensor | None = None,
    ) -> None:
        self.metric = metric.to(self.device, self.dtype)
        if isinstance(self.metric, MixtureMetric):
            self._local = LocalUnits(self.metric)
        if starts is not None:
            self._starts = starts.to(self.device, self.dtype)
        self._step_size = step_size
        self._results = []
        self._finish_fit()

    @property
    def diagnostics(self) -> HMCDiagnostics:
        """What happened in the chains of the last call of ``sample`` or ``sample_latent``.

        Raises:
            RuntimeError: before anything was sampled.
        """
        if not self._results:
            raise RuntimeError("There are no diagnostics yet: call sample or sample_latent first.")
        return summarise(self._results)

    def _batches(self, num_samples: int, batch_size: int):
        batches = super()._batches(num_samples, batch_size)
        self._results = []
        return batches

    def _report(self) -> str | None:
        return self.diagnostics.problems(self.sampler_config.metric) if self._results else None

    def _draw(self, num_samples: int, source: Source) -> torch.Tensor:
        keep = 0 if self._results else DIAGNOSTIC_CHAINS
        codes = self.sampler_config.metric == "codes"
        draw = self._draw_codes if codes else self._draw_posteriors
        z, outcome = draw(num_samples, keep, source)
        self._results.append(outcome)
        return self._to_decoder(z)

    def _draw_codes(self, num_samples: int, keep: int, source: Source):
        config, local = self.sampler_config, self._local
        step_size = self._step_size
        leapfrogs = config.n_lf or min(MOST_LEAPFROGS, math.ceil(1 / step_size))
        start = local.draw(num_samples, source)
        steps = config.mcmc_steps_nbr or STEPS
        with progress_bar("HMC", steps) as bar:
            result = hmc(
                local.log_prob_and_grad,
                start,
                steps=steps,
                leapfrog_steps=leapfrogs,
                step_size=step_size,
                keep_chains=keep,
                generator=source,
                progress=bar.update,
            )
        result = result._replace(samples=local.to_latent(result.samples))
        return local.to_latent(result.position), self._outcome(start, result)

    def _draw_posteriors(self, num_samples: int, keep: int, source: Source):
        start = self._training_codes(num_samples, source)
        result = self._walk(start, source, keep)
        # A chain that accepts nothing gives back a training code: it is begun again elsewhere.
        z, restarted = result.position, 0
        for again in range(1, RESTARTS + 1):
            still = (z == start).all(-1).nonzero().flatten()
            if len(still) == 0:
                break
            part = source.beside(again).of(still) if isinstance(source, RowStreams) else source
            start[still] = self._training_codes(len(still), part)
            z[still] = self._walk(start[still], part).position
            restarted += len(still)
        outcome = self._outcome(start, result._replace(position=z))
        return z, dataclasses.replace(outcome, restarted=restarted)

    def _training_codes(self, count: int, source: Source) -> torch.Tensor:
        return self._starts[choices(len(self._starts), count, source, self.device)]

    def _walk(self, start: torch.Tensor, source: Source, keep: int = 0) -> HMCResult:
        config = self.sampler_config
        steps = config.mcmc_steps_nbr or PAPER_STEPS
        with progress_bar("HMC", steps) as bar:
            return hmc(
                self.metric.log_volume_and_grad,
                start,
                steps=steps,
                leapfrog_steps=config.n_lf or PAPER_LEAPFROGS,
                step_size=self._step_size,
                keep_chains=keep,
                generator=source,
                progress=bar.update,
            )

    def _outcome(self, start: torch.Tensor, result: HMCResult) -> HMCDiagnostics:
        z, metric = result.position, self.metric
        flat = 0
        if isinstance(metric, PosteriorMetric) and metric.regularization > 0:
            floor = metric.regularization.log() - metric.decay * z.square().sum(-1)
            flat = int((metric.log_volume(z) < metric.dim * (0.5 * floor + 0.01)).sum())
        return HMCDiagnostics(
            acceptance_rate=float(result.acceptance.mean()),
            divergences=int(result.divergences.sum()),
            step_size=result.step_size,
            chains=result.samples.cpu(),
            num_chains=len(z),
            never_accepted=int((result.acceptance < NEVER).sum()),
            at_start=int((z == start).all(-1).sum()),
            diverged=int((result.divergences > 0).sum()),
            flat=flat,
        )

    def _state(self) -> dict[str, torch.Tensor]:
        step_size = torch.tensor(self._step_size, dtype=torch.float64)
        state = {**self.metric.state_dict(), "step_size": step_size}
        if self.sampler_config.metric == "posteriors":
            state["starts"] = self._starts
        return state

    def _set_state(self, state: dict[str, torch.Tensor]) -> None:
        config, d = self.sampler_config, self.model.latent_dim
        metric: PosteriorMetric | MixtureMetric
        if config.metric == "codes":
            starts, step_size = None, positive(state, "step_size")
            metric = metric_of(MixtureMetric, state, d)
        else:
            starts = taken(state, "starts", (None, d))
            saved = positive(state, "step_size") if "step_size" in state else None
            metric = metric_of(PosteriorMetric, state, d)
            step_size = saved or self._former_step_size(metric, starts)
        K, wanted = len(metric.centroids), config.num_centroids
        # A mixture drops components of fewer than two codes.
        fits = wanted is None or (K <= wanted if config.metric == "codes" else K == wanted)
        if not fits:
            raise ValueError(f"it has {K} centroids, but num_centroids of its config is {wanted}.")
        self._set(metric, step_size, starts)


def _warn_of_collapse(codes: torch.Tensor, log_vars: torch.Tensor | None) -> None:
    """Where codes differ by less than the noise that the decoder was trained with."""
    if log_vars is None or len(codes) < 2:
        return
    ratio = float((codes.std(0) / (0.5 * log_vars).exp().mean(0)).max())
    if ratio < COLLAPSED:
        warn(
            "The posterior of this model has collapsed: the codes of different data differ by only "
            f"{ratio:.2g} standard deviations of their posteriors in every coordinate, so samples "
            "will all look alike. Train it with less weight on its regularisation: a smaller beta, "
            'a sum of squared errors instead of a mean, or reconstruction_loss="bce" for images in '
            "[0, 1]."
        )
