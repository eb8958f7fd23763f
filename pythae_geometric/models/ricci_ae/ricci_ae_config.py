import math
from typing import ClassVar, Literal

from pythae.models.base.base_config import BaseAEConfig

from ...config import StrictConfig, check_range, config_dataclass


@config_dataclass
class RicciAEConfig(StrictConfig, BaseAEConfig):
    r"""Config of :class:`RicciAE`.

    Parameters:
        input_dim (tuple): The shape of one sample. Default: None
        latent_dim (int): The latent dimension, at least 2: the scalar curvature of a curve is 0.
            Default: 2
        functional (str): The curvature loss. ``"total_squared"``: :math:`\int R^2 d\mu`.
            ``"perelman_f"``, ``"perelman_w"``: Perelman's :math:`\mathcal{F}` and
            :math:`\mathcal{W}`. Default: "total_squared"
        reconstruction_loss (str): The reconstruction error, summed over a sample. ``"mse"``: the
            squared error. ``"bce"``: the binary cross entropy, for data in [0, 1]; the default
            decoder then ends with a sigmoid, and a custom one must give values in [0, 1], too.
            Default: "mse"
        recon_weight (float): The weight of the reconstruction error, at least 0. Default: 1.0
        curvature_weight (float): The weight of the functional. None: 0.001, or as much less as
            keeps the weighted functional within 0.1 % of the reconstruction error, measured by the
            largest functional of the past steps, so that a decoder can bend and fold as far as the
            data ask for; for lengths of about 1 in data space.
            ``docs/results/ricci_ae_default.md`` says what it costs. A number is taken as it is: in
            a training from scratch 0.01 can hold the decoder flat where the data are rolled up, for
            many times the error; after a first training without curvature it cost at most 6 %
            (``examples/reproduce/lazarev2023.md``), but more with Perelman's functionals. Negative:
            the functional is increased, which for :math:`\mathcal{F}` and :math:`\mathcal{W}` is
            the direction of the Ricci flow. 0: a plain autoencoder. It is read in every step, so
            that a training callback may raise it; the loss rises with it, and pythae's best model
            may be an early one. Default: None
        tau (float): The scale :math:`\tau > 0` of :math:`\mathcal{W}`, a squared length in data
            space. Default: 1.0
        points (str): Where the integrals are evaluated. ``"uniform"``: at points drawn uniformly in
            the latent region, the smallest box with sides along the axes that holds the codes of
            the batch. ``"encoded"``: at the codes. Default: "uniform"
        num_points (int): How many points; of ``"encoded"``, at most the batch. Default: 48
        curvature_every (int): The functional is evaluated on every so many training steps, with a
            weight so many times larger. Default: 1
        num_tangents (int): Estimate the curvature by so many random tangents, from 2 to latent_dim:
            unbiased, and in many latent dimensions far cheaper
            (:func:`~pythae_geometric.geometry.curvature_estimates`; at 32, with 4, a step takes an
            eighteenth of the time). ``"total_squared"`` is then the product of two estimates, which
            may be negative. None: exact. Default: None
        regularization (float): :math:`\varepsilon > 0`; the metric is
            :math:`J^\top J + \varepsilon^2 I`. Default: 1e-3
    """

    former_names: ClassVar[dict[str, str]] = {
        "lambda_recon": "recon_weight",
        "lambda_curv": "curvature_weight",
    }

    latent_dim: int = 2
    functional: Literal["total_squared", "perelman_f", "perelman_w"] = "total_squared"
    reconstruction_loss: Literal["mse", "bce"] = "mse"
    recon_weight: float = 1.0
    curvature_weight: float | None = None
    tau: float = 1.0
    points: Literal["uniform", "encoded"] = "uniform"
    num_points: int = 48
    curvature_every: int = 1
    num_tangents: int | None = None
    regularization: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        if self.latent_dim == 1:
            raise ValueError(
                "latent_dim is 1, and a curve has scalar curvature 0: there is nothing to "
                "regularise. Set latent_dim to at least 2, or use pythae's AE."
            )
        check_range(self, "latent_dim", least=2)
        check_range(self, "recon_weight", least=0)
        if self.curvature_weight is not None and not math.isfinite(self.curvature_weight):
            raise ValueError(
                f"curvature_weight must be finite or None, got {self.curvature_weight!r}."
            )
        check_range(self, "tau", above=0)
        check_range(self, "num_points", least=1)
        check_range(self, "curvature_every", least=1)
        check_range(self, "regularization", above=0)
        if self.num_tangents is not None and not 2 <= self.num_tangents <= self.latent_dim:
            raise ValueError(
                f"num_tangents must be from 2 to latent_dim, {self.latent_dim}, or None, got "
                f"{self.num_tangents}."
            )
