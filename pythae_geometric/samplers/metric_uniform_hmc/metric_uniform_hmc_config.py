from typing import Any, ClassVar, Literal

from pythae.samplers import BaseSamplerConfig

from ...config import StrictConfig, check_range, config_dataclass


@config_dataclass
class MetricUniformHMCSamplerConfig(StrictConfig, BaseSamplerConfig):
    r"""Config of :class:`MetricUniformHMCSampler`. With the defaults every scale comes from the
    data; ``metric="posteriors"`` is the paper's setting.

    Parameters:
        metric (str): The metric of the latent space. ``"codes"``: a
            :class:`~pythae_geometric.geometry.MixtureMetric` that follows the shape of the
            training codes. ``"posteriors"``: the paper's
            :class:`~pythae_geometric.geometry.PosteriorMetric`, of the posteriors at the centroids.
            Default: "codes"
        num_centroids (int): The number K of centroids of the metric. None: for ``"codes"`` it
            doubles as long as codes that are held out become more likely; for ``"posteriors"`` the
            paper's 100. Default: None
        centroid_selection (str): How ``"posteriors"`` chooses them among the posterior means.
            ``"kmedoids"``: FasterPAM, by the package kmedoids. ``"sklearn-extra"``: the
            ``KMedoids`` of scikit-learn-extra with its defaults (extra ``sklearn-extra``).
            ``"random"``: at random. Default: "kmedoids"
        temperature (float): For ``"codes"`` the factor h > 0 by which the deviations around each
            centroid are widened; None: 1, the covariance of the codes there as it is (larger ones
            gave worse images than fewer centroids with as much novelty). For
            ``"posteriors"`` the temperature :math:`\rho > 0` of the metric, in units of the latent
            space; None: the paper's rule, the largest distance from a centroid to its nearest other
            one. Default: None
        regularization (float): The regularization :math:`\lambda \ge 0` of ``"posteriors"``.
            Default: 0.01
        decay (float): The decay :math:`\tau \ge 0` of that regularization. With 0 the volume of the
            latent space is infinite, and the uniform distribution improper: chains must stay short.
            Default: 0.0
        additive_volume (bool): For ``"posteriors"``, whether the volumes of overlapping centroids
            add (:class:`~pythae_geometric.geometry.PosteriorMetric`). Default: False
        mcmc_steps_nbr (int): The number of steps of each chain. None: for ``"codes"`` 5, since a
            chain starts at an exact draw from the uniform distribution and needs no burn-in; for
            ``"posteriors"`` the paper's 100. Default: None
        n_lf (int): The number of leapfrog steps in each of them. None: for ``"codes"`` as many as
            make a step one local standard deviation long, 10 at most; for ``"posteriors"`` the
            paper's 10. Default: None
        eps_lf (float): The leapfrog step size: for ``"codes"`` in units of the local standard
            deviation of the codes, for ``"posteriors"`` in units of the latent space. None: for
            ``"codes"`` ``fit`` adapts it to ``target_acceptance``, with the pooled covariance
            around the centroids as inverse mass matrix; for ``"posteriors"`` 0.005, with which a
            chain of the paper's length walks 0.5 in each coordinate where the metric is flat. (The
            published code has a step of 0.01 and momenta of half the right scale, which is the
            same walk.) Default: None
        adaptation_steps (int): For ``"posteriors"``, the number of steps in which ``fit`` adapts
            ``eps_lf`` to ``target_acceptance``, with 200 chains of its own. Default: 0
        target_acceptance (float): The mean acceptance probability, in (0, 1), aimed at by the
            adaptation. Default: 0.8
        seed (int): Seed of the fit and the chains. None: torch's global random state is used.
            Default: None
        several_processes (bool): Whether the processes of a ``torch.distributed`` group share the
            work: each encodes a part of the data in ``fit``, and draws and returns a part of the
            samples in ``sample``. All parts together, in the order of the processes, are the
            samples of one process with this seed. Default: False

    The paper's setting, and variations of it:

        >>> MetricUniformHMCSamplerConfig(metric="posteriors")
        >>> MetricUniformHMCSamplerConfig(metric="posteriors", num_centroids=500)

    Configs that were saved by version 0.1.0 load as they were: ``metric="posteriors"`` with the
    numbers that they name.
    """

    former_names: ClassVar[dict[str, str]] = {"warmup_steps": "adaptation_steps"}

    metric: Literal["codes", "posteriors"] = "codes"
    num_centroids: int | None = None
    centroid_selection: Literal["kmedoids", "sklearn-extra", "random"] = "kmedoids"
    temperature: float | None = None
    regularization: float = 0.01
    decay: float = 0.0
    additive_volume: bool = False
    mcmc_steps_nbr: int | None = None
    n_lf: int | None = None
    eps_lf: float | None = None
    adaptation_steps: int = 0
    target_acceptance: float = 0.8
    seed: int | None = None
    several_processes: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_centroids", "mcmc_steps_nbr", "n_lf"):
            if getattr(self, name) is not None:
                check_range(self, name, least=1)
        for name in ("temperature", "eps_lf"):
            if getattr(self, name) is not None:
                check_range(self, name, above=0)
        check_range(self, "regularization", least=0)
        check_range(self, "decay", least=0)
        check_range(self, "adaptation_steps", least=0)
        check_range(self, "target_acceptance", above=0, below=1)
        if self.seed is not None:
            check_range(self, "seed", least=0, below=2**32)
        if self.metric == "codes":
            self._check_only_posteriors()

    def _check_only_posteriors(self) -> None:
        defaults = {
            "centroid_selection": "kmedoids",
            "regularization": 0.01,
            "decay": 0.0,
            "additive_volume": False,
            "adaptation_steps": 0,
        }
        for name, default in defaults.items():
            if getattr(self, name) != default:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} belongs to metric='posteriors', and the "
                    "metric is 'codes': set metric='posteriors' as well, or leave it out."
                )

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any]):
        """Build the config from its fields, those of a file of version 0.1.0 too."""
        is_dict = isinstance(config_dict, dict)
        if is_dict and "metric" not in config_dict and "additive_volume" in config_dict:
            config_dict = {**config_dict, "metric": "posteriors"}
        return super().from_dict(config_dict)
