from typing import Literal

from pythae.samplers import BaseSamplerConfig

from ...config import StrictConfig, check_range, config_dataclass


@config_dataclass
class BrownianMotionSamplerConfig(StrictConfig, BaseSamplerConfig):
    r"""Config of :class:`BrownianMotionSampler`.

    Parameters:
        metric (str): The metric of the latent space. ``"model"``: the model's own, of a
            :class:`~pythae_geometric.models.BrownianRVAE`, a
            :class:`~pythae_geometric.models.RicciAE` or any model with an attribute ``metric``.
            ``"pullback"``: the pullback of the Euclidean metric by the decoder. ``"posterior"``:
            the :class:`~pythae_geometric.geometry.PosteriorMetric` of the training data, with 100
            centroids or as many as there are data.
            Default: "model"
        time (float): The duration of the motion. Its unit is that of the squared length of the
            metric: that of the squared data for the first two, of squared standard deviations of
            the posteriors for the third. None: for a BrownianRVAE and ``"model"`` the learned time
            of its prior. For all others it is chosen such that a path goes as far as new data are
            from the training data: the median, over ``eval_data``, of the squared distance to the
            nearest training datum, divided by ``latent_dim``, because the mean squared distance
            that a motion goes in a short time is ``latent_dim * time``. Without ``eval_data`` each
            training datum is held out in turn and compared with all others. At most 1,000 data
            count; distances are those along straight lines between codes, in the metric.
            Default: None
        steps (int): The number of Euler steps. A path halves a step, up to 4 times, where the
            metric changes too much within it. Default: 100
        drift (bool): Whether there is the drift that makes it a Brownian motion of the metric; the
            published code has none. Default: True
        seed (int): Seed of the motion. None: torch's global random state is used. Default: None
        several_processes (bool): Whether the processes of a ``torch.distributed`` group share the
            work: each encodes a part of the data in ``fit``, and draws and returns a part of the
            samples in ``sample``. All parts together, in the order of the processes, are the
            samples of one process with this seed. Default: False
        stationary (str): The distribution to which a long motion tends. ``"volume"``: that of the
            volume of the metric, as of any Brownian motion. Volume is large where a decoder is
            uncertain, so the longer the motion, the fewer of its samples are near the codes: choose
            it for times up to the default, or to see the motion of the paper. ``"codes"``: that of
            the codes of ``train_data``, a mixture of normal distributions fitted to them, by a
            drift of half its score (see
            :func:`~pythae_geometric.geometry.brownian_motion`). Choose it for long motions, and to
            generate data: samples stay where the codes are however long the motion is. Clusters
            much narrower than a step get too small a share: take more ``steps``. It needs
            ``train_data``, and ``drift``. Default: "volume"
    """

    metric: Literal["model", "pullback", "posterior"] = "model"
    time: float | None = None
    steps: int = 100
    drift: bool = True
    seed: int | None = None
    several_processes: bool = False
    stationary: Literal["volume", "codes"] = "volume"

    def __post_init__(self):
        super().__post_init__()
        if self.time is not None:
            check_range(self, "time", above=0)
        check_range(self, "steps", least=1)
        if self.stationary == "codes" and not self.drift:
            raise ValueError(
                'stationary="codes" is a drift towards the codes, so it needs drift=True: set one '
                "of them to its default."
            )
        if self.seed is not None:
            check_range(self, "seed", least=0, below=2**32)
