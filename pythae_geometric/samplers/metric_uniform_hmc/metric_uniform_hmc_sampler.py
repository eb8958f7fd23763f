import torch
from pythae.models import BaseAE

from ...geometry import PosteriorMetric, hmc
from ..base import LatentSampler
from ..posteriors import encode, to_decoder_space
from .centroids import largest_nearest_distance, select_centroids
from .diagnostics import HMCDiagnostics
from .metric_uniform_hmc_config import MetricUniformHMCSamplerConfig

# k-medoids takes an N x N matrix of distances: 100 MB for this many points.
MAX_MEDOID_POINTS = 5000
# Paths of this many chains are kept for the diagnostics.
DIAGNOSTIC_CHAINS = 64
# Log variances within these bounds have precisions that float32 holds.
MAX_LOG_VARIANCE = 80.0


class MetricUniformHMCSampler(LatentSampler):
    r"""Samples the uniform law of a model's Riemannian latent space.

    ``fit`` puts a :class:`~pythae_geometric.geometry.PosteriorMetric` on the latent space of a
    trained model, made of its posteriors at a few centroids. ``sample`` draws from
    :math:`\mathcal{U}(z) \propto \sqrt{\det G(z)}` by Hamiltonian Monte Carlo, one chain a
    sample, each started at the posterior mean of a random training point; and decodes.

    Works with every pythae model whose encoder gives ``embedding`` and ``log_covariance``. For
    models with a normalizing flow after the posterior (``VAE_LinNF``, ``VAE_IAF``) the metric lives
    before the flow, and samples are carried through it. For ``PoincareVAE`` variances are taken
    as the encoder gives them, and samples are projected on the ball.

    k-medoids needs all distances between its points. Of more than 5,000 training points (or twice
    the number of centroids, if that is more) a random subsample of this size stands for all: the
    centroids are chosen, and the chains started, among its means.

    Args:
        model: the trained model.
        sampler_config: the parameters; None: the paper's setting.

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
        HMCDiagnostics(acceptance_rate=0.99..., divergences=0, step_size=0.01)
    """

    config_class = MetricUniformHMCSamplerConfig

    def __init__(self, model: BaseAE, sampler_config: MetricUniformHMCSamplerConfig | None = None):
        super().__init__(model, sampler_config)
        self.metric: PosteriorMetric | None = None
        self._results: list = []

    def fit(self, train_data=None, eval_data=None, training_config=None, batch_size: int = 500):
        """Make the metric from the posteriors of the training data.

        Args:
            train_data: array or tensor ``[N, *input_dim]``, or a ``Dataset`` that returns
                ``data``, on the scale that the model was trained on. Read batch by batch.
            eval_data: not used; here because pythae's pipeline passes it.
            training_config: not used; likewise.
            batch_size: how many are encoded at a time.

        Raises:
            TypeError: if the data are not numbers, or the model has no posterior variances.
            ValueError: if the data are missing, empty, of a wrong shape or not finite; if there
                are fewer than ``num_centroids``; if variances have collapsed or exploded; or if
                the paper's temperature is 0 because the centroids coincide.
        """
        config = self.sampler_config
        self._restart()
        self.model.eval()
        means, log_vars = encode(self.model, train_data, batch_size, self.device, self.dtype)
        if config.num_centroids > len(means):
            raise ValueError(
                f"num_centroids is {config.num_centroids}, but there are only {len(means)} "
                "training points to choose them from: set it to at most that."
            )
        seed = config.seed if config.seed is not None else int(torch.randint(2**31, ()))
        most = max(MAX_MEDOID_POINTS, 2 * config.num_centroids)
        if len(means) > most:
            generator = torch.Generator().manual_seed(seed)
            subsample = torch.randperm(len(means), generator=generator)[:most]
            means, log_vars = means[subsample], log_vars[subsample]

        chosen = select_centroids(means, config.num_centroids, config.centroid_selection, seed)
        c, log_var = means[chosen], log_vars[chosen]
        temperature = config.temperature
        if temperature is None:
            temperature = _paper_temperature(c)
        if float(log_var.abs().max()) > MAX_LOG_VARIANCE:
            raise ValueError(
                "The posterior variances of the model have collapsed or exploded (log variances "
                f"from {float(log_var.min()):.3g} to {float(log_var.max()):.3g}): no metric can be "
                "made of them. Train the model again, with a smaller learning rate."
            )
        metric = PosteriorMetric(
            c,
            torch.exp(-log_var),
            temperature,
            config.regularization,
            config.decay,
            config.additive_volume,
        )
        self._set(metric, means)

    def _set(self, metric: PosteriorMetric, means: torch.Tensor) -> None:
        self.metric = metric.to(self.device, self.dtype)
        self._starts = means.to(self.device, self.dtype)
        self._results = []
        self.is_fitted = True
        self._restart()

    @property
    def diagnostics(self) -> HMCDiagnostics:
        """What happened in the chains of the last call of ``sample`` or ``sample_latent``.

        Raises:
            RuntimeError: before anything was sampled.
        """
        if not self._results:
            raise RuntimeError("There are no diagnostics yet: call sample or sample_latent first.")
        number = sum(len(result.position) for result in self._results)
        return HMCDiagnostics(
            acceptance_rate=sum(float(r.acceptance.sum()) for r in self._results) / number,
            divergences=sum(int(r.divergences.sum()) for r in self._results),
            step_size=sum(r.step_size * len(r.position) for r in self._results) / number,
            chains=self._results[0].samples.cpu(),
        )

    def _batches(self, num_samples: int, batch_size: int):
        batches = super()._batches(num_samples, batch_size)
        self._results = []
        return batches

    @torch.no_grad()
    def _draw(self, num_samples: int) -> torch.Tensor:
        config = self.sampler_config
        start = torch.randint(
            len(self._starts), (num_samples,), generator=self._generator, device=self.device
        )
        result = hmc(
            self.metric.log_volume_and_grad,
            self._starts[start],
            steps=config.mcmc_steps_nbr,
            leapfrog_steps=config.n_lf,
            step_size=config.eps_lf,
            warmup_steps=config.warmup_steps,
            target_acceptance=config.target_acceptance,
            keep_chains=0 if self._results else DIAGNOSTIC_CHAINS,
            generator=self._generator,
            progress=True,
        )
        self._results.append(result)
        return to_decoder_space(self.model, result.position)

    def _state(self) -> dict[str, torch.Tensor]:
        return {**self.metric.state_dict(), "starts": self._starts}

    def _set_state(self, state: dict[str, torch.Tensor]) -> None:
        state = dict(state)
        starts = state.pop("starts")
        metric = PosteriorMetric(**state)
        if starts.shape[1:] != (metric.dim,) or metric.dim != self.model.latent_dim:
            raise ValueError(
                f"it was fitted in a latent space of dimension {metric.dim}, but that of the model "
                f"has {self.model.latent_dim}."
            )
        self._set(metric, starts)


def _paper_temperature(centroids: torch.Tensor) -> float:
    if len(centroids) == 1:
        raise ValueError(
            "With a single centroid the paper's temperature (a distance between centroids) is not "
            "defined: set temperature, or raise num_centroids."
        )
    temperature = largest_nearest_distance(centroids)
    if temperature == 0:
        raise ValueError(
            "Every centroid coincides with another one, so the paper's temperature is 0: the model "
            "encodes different data to the same point, or the data are duplicates. Set "
            "temperature, lower num_centroids, or remove the duplicates."
        )
    return temperature
