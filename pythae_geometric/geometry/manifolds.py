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

Two charts: ``immersion`` in the customary angles, and ``from_cube`` on the unit cube, which
preserves volume up to a constant: it sends the uniform distribution on the cube to that on the
manifold.
"""

import math

import torch

from ._checks import check_count, check_generator, check_tensor

# What the rows of each size are called in an error.
_NAMES = {
    "ambient_dim": "The points",
    "dim": "The coordinates",
    "group_dim": "The parameters",
    "frame_dim": "The frames",
}


class Manifold:
    """The vocabulary that every reference manifold shares.

    Attributes:
        dim: dimension of the manifold.
        ambient_dim: dimension of the Euclidean space that holds it.
        group_dim: dimension of the symmetry group.
        frame_dim: number of entries of the frames that ``group_element_from_frame`` takes.
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
    frame_dim: int
    domain: tuple[tuple[float, float], ...]

    def immersion(self, z: torch.Tensor) -> torch.Tensor:
        """The chart: points of the manifold from coordinates, ``[B, dim] -> [B, ambient_dim]``."""
        raise NotImplementedError

    def from_cube(self, u: torch.Tensor) -> torch.Tensor:
        """The uniform chart: ``[B, dim]`` in (0, 1) to points ``[B, ambient_dim]``.

        Injective on the open cube, onto but for a set of measure zero, and of constant volume
        element: uniform points of the cube become uniform points of the manifold.
        """
        raise NotImplementedError

    def to_cube(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`from_cube`: ``[B, ambient_dim] -> [B, dim]``."""
        raise NotImplementedError

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """The nearest points of the manifold to points near it, both ``[B, ambient_dim]``."""
        raise NotImplementedError

    def sample(
        self,
        num_samples: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> torch.Tensor:
        """Independent points, uniform for the Riemannian volume, ``[num_samples, ambient_dim]``."""
        raise NotImplementedError

    def distance(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Geodesic distance of points ``[B, ambient_dim]``: ``[B]``, accurate near 0 too."""
        raise NotImplementedError

    def group_element(self, parameters: torch.Tensor) -> torch.Tensor:
        """Group elements from free parameters; every element is reached, 0 gives the identity.

        ``[B, group_dim] -> [B, ambient_dim, ambient_dim]``, orthogonal matrices.
        """
        raise NotImplementedError

    def group_element_from_frame(self, frame: torch.Tensor) -> torch.Tensor:
        r"""Group elements from frames, ``[B, frame_dim] -> [B, ambient_dim, ambient_dim]``.

        A frame of :math:`\mathbb{R}^m` is m - 1 linearly independent vectors, written one after
        another; Gram and Schmidt make them the first columns of a rotation. Every element is
        reached, and unlike the exponential of :meth:`group_element` the map has a continuous
        inverse (take the columns of a rotation as the frame): a network that gives frames can
        follow a loop of group elements that winds round the group, one that gives angles cannot.
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
        self._check_elements(g)
        self._check_elements(h)
        return g @ h

    def act(self, g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Points moved by group elements, ``[B or 1, m, m]`` on ``[B, m]``: ``[B, m]``."""
        self._check_elements(g)
        self._check_rows(x)
        return (g @ x.unsqueeze(-1)).squeeze(-1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def _check_rows(self, x: torch.Tensor, size: str = "ambient_dim") -> None:
        """Raise unless ``x`` is a tensor ``[B, n]`` of floating-point numbers, n an attribute.

        Raises:
            TypeError: if it is something else.
            ValueError: if it has another shape.
        """
        n, name = getattr(self, size), _NAMES[size]
        check_tensor(x, name)
        if x.ndim != 2 or x.shape[1] != n:
            raise ValueError(f"{name} of {self!r} must have shape [B, {n}], got {list(x.shape)}.")

    def _check_elements(self, g: torch.Tensor) -> None:
        """As :meth:`_check_rows`, of group elements ``[B, ambient_dim, ambient_dim]``."""
        check_tensor(g, "A group element")
        m = self.ambient_dim
        if g.ndim != 3 or g.shape[1:] != (m, m):
            raise ValueError(
                f"Group elements of {self!r} have shape [B, {m}, {m}], got {list(g.shape)}."
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
        n = check_count("The dimension n of a sphere", n, 1)
        self.dim = n
        self.ambient_dim = n + 1
        self.group_dim = n * (n + 1) // 2
        self.frame_dim = n * (n + 1)
        self.domain = ((0.0, math.pi),) * (n - 1) + ((0.0, 2 * math.pi),)

    def immersion(self, z: torch.Tensor) -> torch.Tensor:
        self._check_rows(z, "dim")
        one = torch.ones_like(z[:, :1])
        sines = torch.cat([one, torch.cumprod(z.sin(), dim=1)], dim=1)
        return sines * torch.cat([z.cos(), one], dim=1)

    # By Archimedes a coordinate of a point of S² is uniform in [-1, 1]. In higher dimensions the
    # first two coordinates of a point of Sⁿ have squared norm r² with 1 - r² = v^{2/(n-1)}, v
    # uniform, and the others are a point of S^{n-2} times √(1 - r²).

    def from_cube(self, u: torch.Tensor) -> torch.Tensor:
        self._check_rows(u, "dim")
        angle = 2 * math.pi * u[:, -1:]
        x = [angle.cos(), angle.sin()]
        if self.dim % 2 == 0:
            t = 1 - 2 * u[:, -2:-1]
            s = (1 - t.square()).sqrt()
            x = [t, s * x[0], s * x[1]]
        for n in range(len(x) + 1, self.dim + 1, 2):
            v, angle = u[:, -n : -n + 1], 2 * math.pi * u[:, -n + 1 : -n + 2 or None]
            squared = v.pow(2 / (n - 1))  # 1 - r²
            r, s = (1 - squared).sqrt(), squared.sqrt()
            x = [r * angle.cos(), r * angle.sin(), *(s * y for y in x)]
        return torch.cat(x, dim=1)

    def to_cube(self, x: torch.Tensor) -> torch.Tensor:
        self._check_rows(x)
        u = []
        for n in range(self.dim, 2, -2):
            u += [x[:, 2:].square().sum(1, keepdim=True).pow((n - 1) / 2), _turns(x[:, :2])]
            x = x[:, 2:]
            x = x / x.norm(dim=1, keepdim=True)
        if self.dim % 2 == 0:
            u.append((1 - x[:, :1]) / 2)
            x = x[:, 1:]
        return torch.cat([*u, _turns(x)], dim=1)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        self._check_rows(x)
        return x / x.norm(dim=1, keepdim=True)

    def sample(
        self,
        num_samples: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> torch.Tensor:
        num_samples = check_count("num_samples", num_samples, 0)
        check_generator(generator)
        x = torch.randn(
            num_samples, self.ambient_dim, generator=generator, dtype=dtype, device=device
        )
        return x / x.norm(dim=1, keepdim=True)

    def distance(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self._check_rows(x)
        self._check_rows(y)
        # The arc cosine of the inner product would lose half of the digits near 0 and near pi.
        return 2 * torch.atan2((x - y).norm(dim=-1), (x + y).norm(dim=-1))

    def group_element(self, parameters: torch.Tensor) -> torch.Tensor:
        self._check_rows(parameters, "group_dim")
        return _rotation(parameters, self.ambient_dim)

    def group_element_from_frame(self, frame: torch.Tensor) -> torch.Tensor:
        self._check_rows(frame, "frame_dim")
        return _gram_schmidt(frame, self.ambient_dim)

    def check(self, x: torch.Tensor) -> None:
        self._check_rows(x)
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
    frame_dim = 6
    domain = ((0.0, 2 * math.pi), (0.0, math.pi), (0.0, 2 * math.pi))

    def immersion(self, z: torch.Tensor) -> torch.Tensor:
        self._check_rows(z, "dim")
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

    # The volume element of the Euler angles is a multiple of sin β.

    def from_cube(self, u: torch.Tensor) -> torch.Tensor:
        self._check_rows(u, "dim")
        scale = 2 * math.pi
        beta = (1 - 2 * u[:, 1]).arccos()
        return self.immersion(torch.stack([scale * u[:, 0], beta, scale * u[:, 2]], dim=1))

    def to_cube(self, x: torch.Tensor) -> torch.Tensor:
        self._check_rows(x)
        alpha = _turns(x[:, [2, 5]])
        gamma = _turns(torch.stack([-x[:, 6], x[:, 7]], dim=1))
        return torch.cat([alpha, (1 - x[:, 8:]) / 2, gamma], dim=1)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        self._check_rows(x)
        U, _, Vh = torch.linalg.svd(x.unflatten(1, (3, 3)))
        sign = torch.linalg.det(U @ Vh)
        last = torch.cat([torch.ones_like(x[:, :2]), sign[:, None]], dim=1)
        return ((U * last[:, None]) @ Vh).flatten(1)

    def sample(
        self,
        num_samples: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> torch.Tensor:
        num_samples = check_count("num_samples", num_samples, 0)
        check_generator(generator)
        # A uniform unit quaternion w + xi + yj + zk is a uniform rotation.
        q = torch.randn(num_samples, 4, generator=generator, dtype=dtype, device=device)
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
        self._check_rows(x)
        self._check_rows(y)
        M = x.unflatten(-1, (3, 3)).mT @ y.unflatten(-1, (3, 3))
        sine = (M - M.mT).flatten(-2).norm(dim=-1) / math.sqrt(8)
        cosine = (M.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
        return math.sqrt(2) * torch.atan2(sine, cosine)

    def group_element(self, parameters: torch.Tensor) -> torch.Tensor:
        self._check_rows(parameters, "group_dim")
        return self._acting_on_rows(_rotation(parameters, 3))

    def group_element_from_frame(self, frame: torch.Tensor) -> torch.Tensor:
        self._check_rows(frame, "frame_dim")
        return self._acting_on_rows(_gram_schmidt(frame, 3))

    @staticmethod
    def _acting_on_rows(g: torch.Tensor) -> torch.Tensor:
        # (g X) written row by row is (g ⊗ I) x.
        eye = torch.eye(3, dtype=g.dtype, device=g.device)
        return torch.einsum("bij,kl->bikjl", g, eye).reshape(-1, 9, 9)

    def check(self, x: torch.Tensor) -> None:
        self._check_rows(x)
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
        for factor in factors:
            if not isinstance(factor, Manifold):
                raise TypeError(f"A factor must be a Manifold, got a {type(factor).__name__}.")
        self.factors = factors
        self.dim = sum(factor.dim for factor in factors)
        self.ambient_dim = sum(factor.ambient_dim for factor in factors)
        self.group_dim = sum(factor.group_dim for factor in factors)
        self.frame_dim = sum(factor.frame_dim for factor in factors)
        self.domain = tuple(interval for factor in factors for interval in factor.domain)

    def immersion(self, z: torch.Tensor) -> torch.Tensor:
        self._check_rows(z, "dim")
        parts = zip(self.factors, self._split(z, "dim"), strict=True)
        return torch.cat([M.immersion(u) for M, u in parts], dim=1)

    def from_cube(self, u: torch.Tensor) -> torch.Tensor:
        self._check_rows(u, "dim")
        parts = zip(self.factors, self._split(u, "dim"), strict=True)
        return torch.cat([M.from_cube(v) for M, v in parts], dim=1)

    def to_cube(self, x: torch.Tensor) -> torch.Tensor:
        self._check_rows(x)
        parts = zip(self.factors, self._split(x), strict=True)
        return torch.cat([M.to_cube(y) for M, y in parts], dim=1)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        self._check_rows(x)
        parts = zip(self.factors, self._split(x), strict=True)
        return torch.cat([M.project(y) for M, y in parts], dim=1)

    def sample(
        self,
        num_samples: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> torch.Tensor:
        return torch.cat(
            [M.sample(num_samples, generator, dtype, device) for M in self.factors], dim=1
        )

    def distance(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self._check_rows(x)
        self._check_rows(y)
        parts = zip(self.factors, self._split(x), self._split(y), strict=True)
        # vector_norm has gradient 0 at 0, where a square root has none.
        return torch.stack([M.distance(u, v) for M, u, v in parts], dim=-1).norm(dim=-1)

    def group_element(self, parameters: torch.Tensor) -> torch.Tensor:
        self._check_rows(parameters, "group_dim")
        parts = zip(self.factors, self._split(parameters, "group_dim"), strict=True)
        return torch.vmap(torch.block_diag)(*(M.group_element(p) for M, p in parts))

    def group_element_from_frame(self, frame: torch.Tensor) -> torch.Tensor:
        self._check_rows(frame, "frame_dim")
        parts = zip(self.factors, self._split(frame, "frame_dim"), strict=True)
        return torch.vmap(torch.block_diag)(*(M.group_element_from_frame(p) for M, p in parts))

    def check(self, x: torch.Tensor) -> None:
        self._check_rows(x)
        for factor, part in zip(self.factors, self._split(x), strict=True):
            factor.check(part)

    def _split(self, x: torch.Tensor, size: str = "ambient_dim") -> tuple[torch.Tensor, ...]:
        return x.split([getattr(factor, size) for factor in self.factors], dim=-1)

    def __repr__(self) -> str:
        return f"Product({', '.join(map(repr, self.factors))})"


class Torus(Product):
    r"""The flat torus :math:`(S^1)^n` in :math:`\mathbb{R}^{2n}`; coordinates are angles."""

    def __init__(self, n: int):
        n = check_count("The dimension n of a torus", n, 1)
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


def _gram_schmidt(frame: torch.Tensor, m: int) -> torch.Tensor:
    """Rotations ``[B, m, m]`` whose first m - 1 columns span what those of the frames span."""
    if frame.ndim != 2 or frame.shape[1] != m * (m - 1):
        raise ValueError(
            f"A frame in dimension {m} has {m * (m - 1)} entries: expected [B, {m * (m - 1)}], got "
            f"{list(frame.shape)}."
        )
    Q, R = torch.linalg.qr(frame.unflatten(1, (m - 1, m)).mT)
    diagonal = R.diagonal(dim1=1, dim2=2)
    independent = (diagonal.abs() > 16 * torch.finfo(R.dtype).eps * R.norm(dim=1)).all(1)
    if not bool(independent.all()):
        bad = ~independent
        raise ValueError(
            f"{int(bad.sum())} of the {len(frame)} frames are 0, not finite, or have linearly "
            f"dependent vectors (the first at index {int(bad.int().argmax())}): they stand for no "
            "rotation. Give frames of independent vectors."
        )
    Q = Q * diagonal.sign().unsqueeze(1)
    # The last column is the cross product of the others: determinants of the matrix without row i.
    i, j = torch.arange(m)[:, None], torch.arange(m - 1)
    minors = Q[:, j + (j >= i)]
    sign = (-1.0) ** torch.arange(m - 1, 2 * m - 1, device=Q.device, dtype=Q.dtype)
    return torch.cat([Q, (sign * torch.linalg.det(minors)).unsqueeze(2)], dim=2)


def _turns(x: torch.Tensor) -> torch.Tensor:
    """The angles of points of a plane, ``[B, 2] -> [B, 1]``, as parts of a turn in [0, 1)."""
    return (torch.atan2(x[:, 1:], x[:, :1]) / (2 * math.pi)).remainder(1.0)


def _tolerance(x: torch.Tensor) -> float:
    return torch.finfo(x.dtype).eps ** 0.5


def _worst(error: torch.Tensor) -> str:
    return f"{error.max().item():.2g}"
