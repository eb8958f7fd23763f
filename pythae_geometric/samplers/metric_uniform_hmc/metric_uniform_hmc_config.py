from typing import Literal

from pythae.samplers import BaseSamplerConfig

from ...config import StrictConfig, check_range, config_dataclass


@config_dataclass
class MetricUniformHMCSamplerConfig(StrictConfig, BaseSamplerConfig):
    r"""Config of :class:`MetricUniformHMCSampler`. The defaults are the paper's setting.

    Parameters:
        num_centroids (int): The number K of centroids of the metric. Default: 100
        centroid_selection (str): How they are chosen among the posterior means. ``"kmedoids"``:
            FasterPAM, by the package kmedoids. ``"sklearn-extra"``: the ``KMedoids`` of
            scikit-learn-extra with its defaults (extra ``sklearn-extra``). ``"random"``: at
            random. Default: "kmedoids"
        temperature (float): The temperature :math:`\rho > 0` of the metric. None: the paper's
            rule, the largest distance from a centroid to its nearest other one. Default: None
        regularization (float): The regularization :math:`\lambda \ge 0` of the metric.
            Default: 0.01
        decay (float): The decay :math:`\tau \ge 0` of the regularization. With 0 the volume of the
            latent space is infinite, and the uniform law improper: chains must stay short.
            Default: 0.0
        additive_volume (bool): Whether volumes of overlapping centroids add, see below.
            Default: False
        mcmc_steps_nbr (int): The number of steps of each chain. Default: 100
        n_lf (int): The number of leapfrog steps in each of them. Default: 10
        eps_lf (float): The leapfrog step size, in units of the latent space. Default: 0.01
        warmup_steps (int): The number of steps taken before these, during which ``eps_lf`` is
            adapted to ``target_acceptance``. 0: it stays as given. Default: 0
        target_acceptance (float): The mean acceptance probability, in (0, 1), aimed at by the
            warm-up. Default: 0.8
        seed (int): Seed of the centroids and the chains. None: torch's global random state is
            used. Default: None

    **More faithful samples than the paper's.** Where m centroids of the paper's metric overlap,
    its volume is :math:`m^{d/2}` times that of one: chains gather in the few densest regions, the
    more the longer they run. With ``additive_volume`` it is m times as large, so that the uniform
    law stays close to the mixture of the posteriors at the centroids, each widened by
    :math:`\rho / \sqrt{d}`. Then every training point can be a centroid, and chains may run until
    they forget their start. With width 1, the setting that
    ``examples/reproduce/seed_002_better.py`` compares with the paper's and with pythae's samplers:

        >>> MetricUniformHMCSamplerConfig(
        ...     num_centroids=len(train_data),
        ...     centroid_selection="random",
        ...     additive_volume=True,
        ...     temperature=1.0 * latent_dim**0.5,  # the width times sqrt(d)
        ...     mcmc_steps_nbr=20,
        ...     n_lf=5,
        ...     eps_lf=0.2,
        ... )

    Larger widths, up to 1.8 or so, take samples farther from the training data, and cover a little
    less of new data: compare the samples' distances to the nearest training data with those of data
    held out.
    """

    num_centroids: int = 100
    centroid_selection: Literal["kmedoids", "sklearn-extra", "random"] = "kmedoids"
    temperature: float | None = None
    regularization: float = 0.01
    decay: float = 0.0
    additive_volume: bool = False
    mcmc_steps_nbr: int = 100
    n_lf: int = 10
    eps_lf: float = 0.01
    warmup_steps: int = 0
    target_acceptance: float = 0.8
    seed: int | None = None

    def __post_init__(self):
        super().__post_init__()
        check_range(self, "num_centroids", least=1)
        if self.temperature is not None:
            check_range(self, "temperature", above=0)
        check_range(self, "regularization", least=0)
        check_range(self, "decay", least=0)
        check_range(self, "mcmc_steps_nbr", least=1)
        check_range(self, "n_lf", least=1)
        check_range(self, "eps_lf", above=0)
        check_range(self, "warmup_steps", least=0)
        check_range(self, "target_acceptance", above=0, below=1)
        if self.seed is not None:
            check_range(self, "seed", least=0, below=2**32)
