from typing import Literal

from pythae.models.base.base_config import BaseAEConfig

from ...config import StrictConfig, check_range, config_dataclass


@config_dataclass
class VAE_DLM_Config(StrictConfig, BaseAEConfig):
    r"""Config of :class:`VAE_DLM`. The defaults are those of the paper's Burgers equation.

    Parameters:
        input_dim (tuple): The shape of one state. Default: None
        latent_dim (int): d, the dimension of the chart, at least 1; the manifold is a hypersurface
            of :math:`\mathbb{R}^{d+1}`. Default: 6
        hidden_dim (int): The width of the networks. Default: 400
        num_layers (int): The number of their hidden layers. Default: 3
        horizon (float): The last time T > 0; times are in [0, T]. Default: 1.0
        default_time (float): The time at which ``model.decoder`` decodes points without a time.
            Default: 0.0
        manifold_map (bool): False: no map E, the decoder sees (u, t) itself, as in a plain VAE;
            the weights of metric, flow and eigenvalues must then be 0. Default: True
        reconstruction_loss (str): The reconstruction error, a mean over the numbers of a state.
            ``"mse"``: the squared error. ``"bce"``: the binary cross entropy, for data in [0, 1];
            the default decoder then ends with a sigmoid, and a custom one must give values in
            [0, 1], too. Default: "mse"
        recon_weight (float): The weight, above 0, of the reconstruction error. Default: 100.0
        kl_weight (float): The weight of :math:`\sum_i (\mu_i^2 + \sigma_i^2 - 1 - \log
            \sigma_i^2)`, twice the divergence from N(0, I). Default: 1e-4
        metric_weight (float): The weight of the squared :math:`g - J^\top J`. Default: 1.0
        flow_weight (float): The weight of the squared residual of the flow. Default: 1.0
        eigenvalue_weight (float): The weight of :math:`\max(0, -\lambda(g - \Sigma))^2`.
            Default: 0.0
        alpha (float): The rate :math:`\alpha` towards the steady metric, at least 0. Default: 2.0
        steady_metric (str): :math:`\Sigma`: ``"sphere"``, ``"euclidean"``, or ``"custom"``, the
            function given to the model. Default: "sphere"
        steady_scale (float): The factor of the sphere's metric, the square of its radius, or of
            the Euclidean one. Default: 10.0
        gradient_clip (float): The greatest absolute value of an entry of a gradient; larger ones
            are clipped in the backward pass, by each process of several before they are averaged.
            None: they are not. Default: 1.0
    """

    latent_dim: int = 6
    hidden_dim: int = 400
    num_layers: int = 3
    horizon: float = 1.0
    default_time: float = 0.0
    manifold_map: bool = True
    reconstruction_loss: Literal["mse", "bce"] = "mse"
    recon_weight: float = 100.0
    kl_weight: float = 1e-4
    metric_weight: float = 1.0
    flow_weight: float = 1.0
    eigenvalue_weight: float = 0.0
    alpha: float = 2.0
    steady_metric: Literal["sphere", "euclidean", "custom"] = "sphere"
    steady_scale: float = 10.0
    gradient_clip: float | None = 1.0

    def __post_init__(self):
        super().__post_init__()
        for field in ("latent_dim", "hidden_dim", "num_layers"):
            check_range(self, field, least=1)
        for field in ("horizon", "recon_weight", "steady_scale"):
            check_range(self, field, above=0)
        weights = ("kl_weight", "metric_weight", "flow_weight", "eigenvalue_weight")
        for field in (*weights, "alpha", "default_time"):
            check_range(self, field, least=0)
        if self.gradient_clip is not None:
            check_range(self, "gradient_clip", above=0)
        if self.default_time > self.horizon:
            raise ValueError(
                f"default_time must be at most horizon, {self.horizon:g}, got "
                f"{self.default_time:g}."
            )
        if not self.manifold_map and self.has_geometry:
            raise ValueError(
                "Without a manifold map there is no metric to learn: set metric_weight, "
                "flow_weight and eigenvalue_weight to 0, or manifold_map to True."
            )

    @property
    def has_geometry(self) -> bool:
        """Whether any term of the loss is about the metric."""
        return bool(self.metric_weight or self.flow_weight or self.eigenvalue_weight)
