import re
from typing import Literal, cast

from pythae.models.base.base_config import BaseAEConfig

from ...config import StrictConfig, check_range, config_dataclass
from ...geometry import Circle, Manifold, Product, SpecialOrthogonal3, Sphere, Torus

_NAMES = '"circle", "sphere(n)", "torus(n)", "so3", or a product such as "sphere(2) x circle"'


@config_dataclass
class ERManifoldVAEConfig(StrictConfig, BaseAEConfig):
    r"""Config of :class:`ERManifoldVAE`.

    Parameters:
        input_dim (tuple): The shape of one sample. Default: None
        latent_dim (int): The dimension n of the latent code, which is that of the manifold.
            None: that of the named manifold; ``"custom"`` needs it. Default: None
        manifold (str): ``"circle"``, ``"sphere(n)"``, ``"torus(n)"``, ``"so3"``, a product of them
            such as ``"sphere(2) x circle"``, or ``"custom"``, which is given to the model by its
            samples or by an embedding. Default: "circle"
        ambient_dim (int): The dimension m of the space that holds the manifold. None: that of the
            named manifold; ``"custom"`` needs it. Default: None
        embedding (str): ``"exact"``: a formula. ``"learned"``: the decoder of a Wasserstein
            auto-encoder that is trained on samples of the manifold. Default: "exact"
        posterior (str): ``"beta"``: Beta, with the uniform prior on the cube. ``"normal"``:
            Gaussian, with the prior N(0, I). Default: "beta"
        group_action (bool): Whether a group-action encoder moves the posterior by an element of
            the symmetry group of the manifold. Data that go round a loop, such as pictures of a
            turning object, need it: without it the codes are torn where the loop closes.
            Default: False
        likelihood (str): ``"gaussian"``: :math:`N(x; \mu(y), \sigma^2 I)`. ``"bernoulli"``: the
            cross entropy, for images in [0, 1]; the default decoder ends with a sigmoid, and a
            custom one must give values in [0, 1], too. Default: "gaussian"
        likelihood_std (float): The deviation :math:`\sigma > 0` of the Gaussian likelihood. It
            weighs the reconstruction against the prior: where it is large for the data, the
            posterior collapses. None: it is learned. Default: None
        hidden_dims (tuple): Widths of the default networks, of ReLU units. Default: (512,)
        embedding_epochs (int): Epochs of 100 steps in the training of a learned embedding.
            Default: 30
    """

    latent_dim: int | None = None
    manifold: str = "circle"
    ambient_dim: int | None = None
    embedding: Literal["exact", "learned"] = "exact"
    posterior: Literal["beta", "normal"] = "beta"
    group_action: bool = False
    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"
    likelihood_std: float | None = None
    hidden_dims: tuple[int, ...] = (512,)
    embedding_epochs: int = 30

    def __post_init__(self):
        super().__post_init__()
        if self.manifold == "custom":
            self._check_custom()
        else:
            manifold = manifold_from_name(self.manifold)
            self.latent_dim = _agreeing(self, "latent_dim", manifold.dim)
            self.ambient_dim = _agreeing(self, "ambient_dim", manifold.ambient_dim)
        if self.likelihood_std is not None:
            check_range(self, "likelihood_std", above=0)
            if self.likelihood != "gaussian":
                raise ValueError(
                    f"likelihood_std={self.likelihood_std!r} belongs to likelihood='gaussian', but "
                    f"likelihood is {self.likelihood!r}: leave it out."
                )
        check_range(self, "embedding_epochs", least=1)
        if not all(width >= 1 for width in self.hidden_dims):
            raise ValueError(f"hidden_dims must be at least 1, got {self.hidden_dims}.")

    def _check_custom(self):
        if self.latent_dim is None or self.ambient_dim is None:
            raise ValueError(
                'For manifold="custom" set latent_dim, the dimension of the manifold, and '
                "ambient_dim, that of the space which holds it."
            )
        check_range(self, "latent_dim", least=1)
        if self.ambient_dim < self.latent_dim:
            raise ValueError(
                f"A manifold of dimension {self.latent_dim} (latent_dim) does not fit into "
                f"{self.ambient_dim} dimensions (ambient_dim)."
            )
        if self.group_action:
            raise ValueError(
                'group_action needs a manifold whose symmetry group is known: for "custom" none '
                f"is defined. Set group_action=False, or name one of {_NAMES}."
            )


def dimensions(config: ERManifoldVAEConfig) -> tuple[int, int]:
    """The dimensions n and m of a config, which are numbers once it is made."""
    return cast(int, config.latent_dim), cast(int, config.ambient_dim)


def manifold_from_name(name: str) -> Manifold:
    """The manifold of a config's name.

    Raises:
        ValueError: there is none of that name.
    """
    factors = [_factor(part.strip(), name) for part in name.lower().split(" x ")]
    return factors[0] if len(factors) == 1 else Product(*factors)


def _factor(part: str, name: str) -> Manifold:
    if part == "circle":
        return Circle()
    if part == "so3":
        return SpecialOrthogonal3()
    match = re.fullmatch(r"(sphere|torus)\((\d+)\)", part)
    if match is None:
        raise ValueError(f'manifold {name!r} is not known: it is {_NAMES}, or "custom".')
    return {"sphere": Sphere, "torus": Torus}[match[1]](int(match[2]))


def _agreeing(config: ERManifoldVAEConfig, field: str, value: int) -> int:
    given = getattr(config, field)
    if given not in (None, value):
        raise ValueError(
            f"{field} is {given}, but {value} for the manifold {config.manifold!r}: the latent "
            "code has the dimension of the manifold, since fewer cannot cover it and more "
            f"cannot be embedded in it. Leave {field} out."
        )
    return value
