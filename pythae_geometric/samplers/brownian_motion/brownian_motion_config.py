from typing import Literal

from pythae.samplers import BaseSamplerConfig

from ...config import StrictConfig, check_range, config_dataclass


@config_dataclass
class BrownianMotionSamplerConfig(StrictConfig, BaseSamplerConfig):
    r"""Config of :class:`BrownianMotionSampler`.

    Parameters:
        metric (str): The metric of the latent space. ``"model"``: that of a
            :class:`~pythae_geometric.models.BrownianRVAE`. ``"pullback"``: the pullback of the
            Euclidean metric by the decoder. ``"posterior"``: the
            :class:`~pythae_geometric.geometry.PosteriorMetric` of the training data, with 100
            centroids, as of :class:`~pythae_geometric.samplers.MetricUniformHMCSampler`.
            Default: "model"
        time (float): The duration of the motion. Its unit is that of the squared length of the
            metric: that of the squared data for the first two, of squared standard deviations of
            the posteriors for the third. None: the learned time of the model's prior, for
            ``"model"``. Default: None
        steps (int): The number of Euler steps. Default: 100
        drift (bool): Whether there is the drift that makes it a Brownian motion of the metric; the
            published code has none. Default: True
        seed (int): Seed of the motion. None: torch's global random state is used. Default: None
    """

    metric: Literal["model", "pullback", "posterior"] = "model"
    time: float | None = None
    steps: int = 100
    drift: bool = True
    seed: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.time is not None:
            check_range(self, "time", above=0)
        elif self.metric != "model":
            raise ValueError(
                f"time is not set, and for metric={self.metric!r} no model knows one: set it, such "
                "as to the squared distance that a sample should travel."
            )
        check_range(self, "steps", least=1)
        if self.seed is not None:
            check_range(self, "seed", least=0, below=2**32)
