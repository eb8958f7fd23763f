from pythae.models import BaseAEConfig

from ...config import StrictConfig, check_range, config_dataclass


@config_dataclass
class BrownianRVAEConfig(StrictConfig, BaseAEConfig):
    r"""Config of :class:`BrownianRVAE`. The defaults are the published ones.

    Parameters:
        input_dim (tuple): The shape of a data point (channels, height, width).
        latent_dim (int): The dimension d of the latent space. Default: 10
        hidden_dims (tuple): The widths of the hidden layers of the default encoder; those of the
            default decoder are the same in reverse order. Default: (300, 300)
        warmup_epochs (int): The number of epochs of the first phase, in which encoder and mean are
            trained with :math:`\sigma = 1`. Train for more epochs than this. Default: 100
        num_centers (int): The number K of centres of the precision
            :math:`\sigma(z)^{-2} = W \exp(-\beta |z - c_k|^2) + \zeta`, placed by k-means on the
            codes; at most the number of training points. Default: 350
        rbf_bandwidth (float): :math:`\beta > 0`, in units of the latent space. Default: 0.01
        precision_floor (float): :math:`\zeta > 0`, the precision far from the data. Default: 1e-9
    """

    hidden_dims: tuple[int, ...] = (300, 300)
    warmup_epochs: int = 100
    num_centers: int = 350
    rbf_bandwidth: float = 0.01
    precision_floor: float = 1e-9

    def __post_init__(self):
        super().__post_init__()
        check_range(self, "latent_dim", least=1)
        if not self.hidden_dims or min(self.hidden_dims) < 1:
            raise ValueError(
                f"hidden_dims must name at least one width of at least 1, got {self.hidden_dims!r}."
            )
        check_range(self, "warmup_epochs", least=1)
        check_range(self, "num_centers", least=1)
        check_range(self, "rbf_bandwidth", above=0)
        check_range(self, "precision_floor", above=0)
