"""Manifolds whose geometry is known exactly: ground truth for tests, latent spaces for models.

Each is a submanifold of a Euclidean space with the metric induced from it, and a compact group of
orthogonal matrices of that space acts on it by isometries, transitively:

=========================  =====  =======  ==========================================
manifold                   dim    ambient  group
=========================  =====  =======  ==========================================
``Circle()``               1      2        SO(2)
``Sphere(n)``              n      n + 1    SO(n + 1)
``Torus(n)``               n      2n       SO(2)ⁿ
``SpecialOrthogonal3()``   3      9        SO(3), from the left
``Product(M, N, ...)``     sum    sum      the product of the groups
=========================  =====  =======  ==========================================
"""

import math

import torch


class Manifold:
    """The vocabulary that every reference manifold shares.

    Attributes:
        dim: dimension of the manifold.
        ambient_dim: dimension of the Euclidean space that holds it.
        group_dim: dimension of the symmetry group.
        domain: one interval ``(low, high)`` a coordinate; the chart ``immersion`` covers the
            manifold once on their product, but for a set of measure zero.

    Example:
        >>> sphere = Sphere(2)
        >>> x = sphere.sample(5, generator=torch.Generator().manual_seed(0))
        >>> g = sphere.group_element(torch.tensor([[0.1, 0.2, 0.3]]))
        >>> sphere.distance(sphere.act(g, x), x).shape
        torch.Size([5])
    """

    dim: int
    ambient_dim: int
    group_dim: int
    domain: tuple[tuple[float, float], ...]

    def immersion(self, z: torch.Tensor) -> torch.Tensor:
        """The chart: points of the manifold from coordinates, ``[B, dim] -> [B, ambient_dim]``."""
        raise NotImplementedError

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> torch.Tensor:
        """``n`` independent points, uniform for the Riemannian volume, ``[n, ambient_dim]``."""
        raise NotImplementedError

    def distance(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Geodesic distance of points ``[B, ambient_dim]``: ``[B]``, accurate near 0 too."""
        raise NotImplementedError

    def group_element(self, parameters: torch.Tensor) -> torch.Tensor:
        """Group elements from free parameters; every element is reached, 0 gives the identity.

        ``[B, group_dim] -> [B, ambient_dim, ambient_dim]``, orthogonal matrices.
        """
        raise NotImplementedError

    def check(self, x: torch.Tensor) -> None:
        """Raise a ``ValueError`` that says why ``x`` is no batch of points of the manifold."""
        raise NotImplementedError

    def identity(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> torch.Tensor:
        """The neutral group element, ``[1, ambient_dim, ambient_dim]``."""
        return torch.eye(self.ambient_dim, dtype=dtype, device=device).unsqueeze(0)

    def compose(self, g: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """The group element that acts as ``h`` first and ``g`` second."""
        return g @ h

    def act(self, g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Points moved by group elements, ``[B or 1, m, m]`` on ``[B, m]``: ``[B, m]``."""
        return (g @ x.unsqueeze(-1)).squeeze(-1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def _check_shape(self, x: torch.Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.ambient_dim:
            raise ValueError(
                f"Points of {self!r} have shape [B, {self.ambient_dim}], got {list(x.shape)}."
            )

    def _refuse(self, bad: torch.Tensor, reason: str) -> None:
        """Raise where ``bad`` ``[B]`` holds."""
        if bool(bad.any()):
            raise ValueError(
                f"{int(bad.sum())} of {len(bad)} points are not on {self!r}, the first at index "
                f"{int(bad.int().argmax())}: {reason}."
            )


class Sphere(Manifold):
    r"""The unit sphere :math:`S^n` in :math:`\mathbb{R}^{n+1}`.

    Coordinates are the angles of
    :math:`(\cos u_1, \sin u_1 \cos u_2, \dots, \sin u_1 \cdots \sin u_n)`, in which the metric is
    :math:`\mathrm{diag}(1, \sin^2 u_1, \sin^2 u_1 \sin^2 u_2, \dots)`.
    """

    def __init__(self, n: int):
        if n < 1:
            raise ValueError(f"A sphere has dimension at least 1, got {n}.")
        self.dim = n
        self.ambient_dim = n + 1
        self.group_dim = n * (n + 1) // 2
        self.domain = ((0.0, math.pi),) * (n - 1) + ((0.0, 2 * math.pi),)

    def immersion(self, z: torch.Tensor) -> torch.Tensor:
        one = torch.ones_like(z[:, :1])
        sines = torch.cat([one, torch.cumprod(z.sin(), dim=1)], dim=1)
        return sines * torch.cat([z.cos(), one], dim=1)

    def sample(self, n, generator=None, dtype=None, device=None):
        x = torch.randn(n, self.ambient_dim, generator=generator, dtype=dtype, device=device)
        return x / x.norm(dim=1, keepdim=True)

    def distance(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        # The arc cosine of the inner product would lose half of the digits near 0 and near pi.
        return 2 * torch.atan2((x - y).norm(dim=-1), (x + y).norm(dim=-1))

    def group_element(self, parameters: torch.Tensor) -> torch.Tensor:
        return _rotation(parameters, self.ambient_dim)

    def check(self, x: torch.Tensor) -> None:
        self._check_shape(x)
        error = (x.norm(dim=1) - 1).abs()
        self._refuse(
            ~(error <= _tolerance(x)),
            f"the norm of a point must be 1, and is off by {_worst(error)}",
        )

    def __repr__(self) -> str:
        return f"Sphere({self.dim})"


class Circle(Sphere):
    r"""The unit circle, :math:`(\cos u, \sin u)`; group elements are rotations by an angle."""

    def __init__(self):
        super().__init__(1)

    def __repr__(self) -> str:
        return "Circle()"


class SpecialOrthogonal3(Manifold):
    r"""The rotations of space, as 3 x 3 matrices written row by row in :math:`\mathbb{R}^9`.

    The metric is that of :math:`\mathbb{R}^9` (Frobenius norm): the distance of two rotations is
    :math:`\sqrt{2}` times the angle between them. Coordinates are the Euler angles
    :math:`(\alpha, \beta, \gamma)` of :math:`R_z(\alpha) R_y(\beta) R_z(\gamma)`. A group element
    multiplies from the left.
    """

    dim = 3
    ambient_dim = 9
    group_dim = 3
    domain = ((0.0, 2 * math.pi), (0.0, math.pi), (0.0, 2 * math.pi))

    def immersion(self, z: torch.Tensor) -> torch.Tensor:
        (ca, cb, cg), (sa, sb, sg) = z.cos().unbind(1), z.sin().unbind(1)
        return torch.stack(
            [
                ca * cb * cg - sa * sg,
                -ca * cb * sg - sa * cg,
                ca * sb,
                sa * cb * cg + ca * sg,
                -sa * cb * sg + ca * cg,
                sa * sb,
                -sb * cg,
                sb * sg,
                cb,
            ],
            dim=1,
        )

    def sample(self, n, generator=None, dtype=None, device=None):
        # A uniform unit quaternion w + xi + yj + zk is a uniform rotation.
        q = torch.randn(n, 4, generator=generator, dtype=dtype, device=device)
        w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
        return torch.stack(
            [
                1 - 2 * (y * y + z * z),
                2 * (x * y - w * z),
                2 * (x * z + w * y),
                2 * (x * y + w * z),
                1 - 2 * (x * x + z * z),
                2 * (y * z - w * x),
                2 * (x * z - w * y),
                2 * (y * z + w * x),
                1 - 2 * (x * x + y * y),
            ],
            dim=1,
        )

    def distance(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        M = x.unflatten(-1, (3, 3)).mT @ y.unflatten(-1, (3, 3))
        sine = (M - M.mT).flatten(-2).norm(dim=-1) / math.sqrt(8)
        cosine = (M.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
        return math.sqrt(2) * torch.atan2(sine, cosine)

    def group_element(self, parameters: torch.Tensor) -> torch.Tensor:
        # (g X) written row by row is (g ⊗ I) x.
        eye = torch.eye(3, dtype=parameters.dtype, device=parameters.device)
        return torch.einsum("bij,kl->bikjl", _rotation(parameters, 3), eye).reshape(-1, 9, 9)

    def check(self, x: torch.Tensor) -> None:
        self._check_shape(x)
        X = x.unflatten(1, (3, 3))
        eye = torch.eye(3, dtype=x.dtype, device=x.device)
        error = (X.mT @ X - eye).abs().amax((-2, -1))
        self._refuse(
            ~(error <= _tolerance(x)),
            f"the matrix must be orthogonal, and XᵀX is off the identity by {_worst(error)}",
        )
        self._refuse(torch.linalg.det(X) < 0, "the determinant must be 1, and is -1 (a reflection)")


class Product(Manifold):
    """The product of manifolds; coordinates, points and parameters are written one after another.

    Example:
        >>> Product(Sphere(2), Circle()).ambient_dim
        5
    """

    def __init__(self, *factors: Manifold):
        if not factors:
            raise ValueError("A product needs at least one factor.")
        self.factors = factors
        self.dim = sum(factor.dim for factor in factors)
        self.ambient_dim = sum(factor.ambient_dim for factor in factors)
        self.group_dim = sum(factor.group_dim for factor in factors)
        self.domain = tuple(interval for factor in factors for interval in factor.domain)

    def immersion(self, z: torch.Tensor) -> torch.Tensor:
        parts = z.split([factor.dim for factor in self.factors], dim=1)
        return torch.cat([M.immersion(u) for M, u in zip(self.factors, parts, strict=True)], dim=1)

    def sample(self, n, generator=None, dtype=None, device=None):
        return torch.cat([M.sample(n, generator, dtype, device) for M in self.factors], dim=1)

    def distance(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        parts = zip(self.factors, self._split(x), self._split(y), strict=True)
        # vector_norm has gradient 0 at 0, where a square root has none.
        return torch.stack([M.distance(u, v) for M, u, v in parts], dim=-1).norm(dim=-1)

    def group_element(self, parameters: torch.Tensor) -> torch.Tensor:
        parts = parameters.split([factor.group_dim for factor in self.factors], dim=1)
        blocks = [M.group_element(p) for M, p in zip(self.factors, parts, strict=True)]
        return torch.vmap(torch.block_diag)(*blocks)

    def check(self, x: torch.Tensor) -> None:
        self._check_shape(x)
        for factor, part in zip(self.factors, self._split(x), strict=True):
            factor.check(part)

    def _split(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.split([factor.ambient_dim for factor in self.factors], dim=-1)

    def __repr__(self) -> str:
        return f"Product({', '.join(map(repr, self.factors))})"


class Torus(Product):
    r"""The flat torus :math:`(S^1)^n` in :math:`\mathbb{R}^{2n}`; coordinates are angles."""

    def __init__(self, n: int):
        if n < 1:
            raise ValueError(f"A torus has dimension at least 1, got {n}.")
        super().__init__(*(Circle() for _ in range(n)))

    def __repr__(self) -> str:
        return f"Torus({self.dim})"


def _rotation(parameters: torch.Tensor, m: int) -> torch.Tensor:
    """The exponentials of skew-symmetric matrices: rotations ``[B, m, m]``, all of them."""
    if parameters.ndim != 2 or parameters.shape[1] != m * (m - 1) // 2:
        raise ValueError(
            f"A rotation in dimension {m} has {m * (m - 1) // 2} parameters: expected "
            f"[B, {m * (m - 1) // 2}], got {list(parameters.shape)}."
        )
    i, j = torch.tril_indices(m, m, offset=-1, device=parameters.device)
    lower = parameters.new_zeros(len(parameters), m, m)
    lower = lower.index_put(
        (torch.arange(len(parameters), device=i.device)[:, None], i, j), parameters
    )
    return torch.linalg.matrix_exp(lower - lower.mT)


def _tolerance(x: torch.Tensor) -> float:
    return torch.finfo(x.dtype).eps ** 0.5


def _worst(error: torch.Tensor) -> str:
    return f"{error.max().item():.2g}"
