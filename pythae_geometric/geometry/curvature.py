r"""Scalar curvature of a decoder's image, and Perelman's functionals of it.

References:
    M. P. do Carmo, Riemannian Geometry, Birkhäuser 1992, chapter 6 (the Gauss equation).
    G. Perelman, The entropy formula for the Ricci flow and its geometric applications, 2002,
    arXiv:math/0211159, sections 1 (F) and 3 (W).
    A. Lazarev, Metric regularization of latent spaces via Ricci-type flows, 2023 (as losses).
"""

import math

import torch
from torch import nn

from ._checks import check_count, check_generator, check_number, check_points, check_tensor
from ._guard import guard, owner_of
from ._warnings import warn
from .connection import metric_scalar_curvature
from .derivatives import Immersion, jacobian, second_derivatives, second_derivatives_along
from .metric import Metric, skewness
from .pullback import PullbackMetric, as_metric, orthonormal_frame

_PIECEWISE_LINEAR = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.Hardtanh,
    nn.Hardsigmoid,
    nn.Hardshrink,
    nn.Softshrink,
    nn.Threshold,
)

# In skewed coordinates the error of the curvature grows with the square of their condition number.
# Beyond this fraction of eps^(-1/2) the derivatives are taken along an orthonormal frame; the error
# of float32 is 3e-4 there.
SKEWED = 0.03


def scalar_curvature(immersion_or_metric: Immersion | Metric, z: torch.Tensor) -> torch.Tensor:
    r"""Scalar curvature of the pullback metric :math:`J^\top J`, or of any other metric.

    That of a pullback metric follows from the Gauss equation. With
    :math:`H_{ij} = \partial_i \partial_j f` and :math:`\langle a, b \rangle_N` the inner product of
    the parts normal to the image of ``J``,

    .. math:: R = g^{ik} g^{jl} \left( \langle H_{ik}, H_{jl} \rangle_N
                  - \langle H_{il}, H_{jk} \rangle_N \right)
                = \Big| \sum_a h_{aa} \Big|^2 - \sum_{ab} |h_{ab}|^2,

    where :math:`h` is the normal part of ``H`` in an orthonormal frame of the image. Two
    derivatives of ``f`` are enough, where the Christoffel symbols, which give the curvature of any
    other metric, need three.

    Args:
        immersion_or_metric: map ``[B, d] -> [B, *out]``, twice differentiable, with at least ``d``
            outputs, differentiated in evaluation mode; or a metric, three times differentiable.
            Piecewise linear activations (ReLU) have no second derivative: use GELU, SiLU, softplus
            or tanh. A smooth layer after them hides only a part of the curvature from this
            function, without a warning.
        z: points, ``[B, d]``.

    Returns:
        ``[B]``; ``n (n - 1) / r²`` on a sphere of radius ``r`` in dimension ``n``, twice the
        Gaussian curvature on a surface. Differentiable in ``z`` and in the parameters; memory
        ``O(B D d²/2)``, ``D`` the number of outputs.

    Raises:
        DegenerateMetricError: the Jacobian has no full rank (a collapsed latent direction).
        ValueError, TypeError: wrong shapes, or derivatives that are not finite.

    Example:
        >>> sphere = lambda z: 2 * torch.nn.functional.normalize(
        ...     torch.cat([z, torch.ones_like(z[:, :1])], dim=1))
        >>> scalar_curvature(sphere, torch.zeros(1, 2))  # 2 / r²
        tensor([0.5000])
    """
    metric = as_metric(immersion_or_metric)
    if isinstance(metric, PullbackMetric):
        return curvature_and_cholesky(metric.immersion, z)[0]
    return metric_scalar_curvature(metric, z)


def curvature_and_cholesky(
    immersion: Immersion, z: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scalar curvature ``[B]`` and the Cholesky factor ``[B, d, d]`` of the metric, in one pass.

    The functionals below need both: the factor holds the volume element and the inverse metric.
    The argument is a map; its requirements and the errors are those of :func:`scalar_curvature`.

    Skewed coordinates would leave no digit of the curvature in float32 where the condition number
    of J, its columns scaled to length 1, is 3,000. At points where it passes 90 (float64: 2
    million) the derivatives are therefore taken a second time, along an orthonormal frame; then
    its size does not matter.
    """
    z = check_points(z)
    with guard(immersion, z):
        return _curvature_and_cholesky(immersion, z)


def _curvature_and_cholesky(immersion, z):
    J, H = second_derivatives(immersion, z)
    _check_second_derivatives(immersion, J, H)
    J, H = J.flatten(1, -2), H.flatten(1, -2)
    Q, R = orthonormal_frame(J)
    E = torch.linalg.solve_triangular(R, _identity(R), upper=True)
    curvature = _gauss_equation(H, Q, E)
    skewed = skewness(R.mT) > SKEWED * torch.finfo(z.dtype).eps ** -0.5
    if bool(skewed.any()):
        # The curvature is that of any coordinates, so the frame may be held fixed.
        frame = E[skewed].detach().movedim(-1, 0)
        J, H = second_derivatives_along(immersion, z[skewed], frame)
        Q, R_frame = orthonormal_frame(J.flatten(1, -2))
        E = torch.linalg.solve_triangular(R_frame, _identity(R), upper=True)
        curvature = curvature.index_put((skewed,), _gauss_equation(H.flatten(1, -2), Q, E))
    return curvature, R.mT


def curvature_estimates(
    immersion: Immersion,
    z: torch.Tensor,
    num_tangents: int,
    num_estimates: int = 2,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Unbiased estimates of the scalar curvature by few tangents, and the Cholesky factor.

    The scalar curvature is :math:`d (d - 1)` times the mean sectional curvature of the tangent
    planes. An estimate takes the planes of a random subspace of m dimensions, drawn uniformly: with
    the normal parts :math:`h_{ab}` of second derivatives along an orthonormal frame of that,

    .. math:: \hat R = \frac{d (d - 1)}{m (m - 1)}
              \Big( \Big| \sum_{a \le m} h_{aa} \Big|^2 - \sum_{a, b \le m} |h_{ab}|^2 \Big).

    It takes m (m + 1) / 2 second derivatives in place of d (d + 1) / 2. Its standard deviation is
    :math:`d (d - 1)` times that of the mean sectional curvature of such a subspace: 0 where all
    sectional curvatures at a point are equal, and where m = d. The product of two estimates is an
    unbiased estimate of :math:`R^2`; their gradients are unbiased, too.

    Args:
        immersion: map ``[B, d] -> [B, ...]``, twice differentiable.
        z: points, ``[B, d]``.
        num_tangents: m, from 2 to d.
        num_estimates: n, independent at each point.
        generator: of the subspaces; None: torch's global one.

    Returns:
        The estimates ``[n, B]``, and the Cholesky factor ``[B, d, d]`` of the metric.

    Raises:
        DegenerateMetricError: the Jacobian has no full rank at some point.
        TypeError, ValueError: ``z`` is no batch of points, the immersion does not map it to tensors
            ``[B, ...]``, or a number is out of range.

    References:
        The scalar curvature as a mean of sectional ones: M. P. do Carmo, Riemannian Geometry,
        Birkhäuser 1992, chapter 4, section 4.
    """
    z = check_points(z)
    d = z.shape[1]
    m, n = (
        check_count("num_tangents", num_tangents, 2),
        check_count("num_estimates", num_estimates, 1),
    )
    check_generator(generator)
    if m > d:
        raise ValueError(f"num_tangents must be at most the dimension, {d}, got {m}.")
    with guard(immersion, z):
        Q, R = orthonormal_frame(jacobian(immersion, z).flatten(1, -2))
        E = torch.linalg.solve_triangular(R, _identity(R), upper=True)
        estimates = []
        for _ in range(n):
            draw = torch.randn(len(z), d, m, generator=generator, dtype=z.dtype, device=z.device)
            subspace = torch.linalg.qr(draw)[0]
            J, H = second_derivatives_along(immersion, z, (E @ subspace).movedim(-1, 0))
            _check_second_derivatives(immersion, J, H)
            frame = torch.eye(m, dtype=z.dtype, device=z.device).expand(len(z), m, m)
            estimates.append(_gauss_equation(H.flatten(1, -2), Q, frame))
    return d * (d - 1) / (m * (m - 1)) * torch.stack(estimates), R.mT


def _gauss_equation(H: torch.Tensor, Q: torch.Tensor, E: torch.Tensor) -> torch.Tensor:
    """Scalar curvature ``[B]`` from the second derivatives ``[B, D, P]``, an orthonormal frame of
    the image ``[B, D, d]`` and the same frame in coordinates ``[B, d, d]``."""
    # The normal part is a projection on an orthonormal frame, not a difference of Gram matrices: in
    # float32, at condition number 100 of J, this keeps three digits and the other none.
    normal = torch.baddbmm(H, Q, Q.mT @ H, alpha=-1)
    h = normal @ _change_of_frame(E)
    i, j = torch.triu_indices(E.shape[-1], E.shape[-1], device=E.device)
    trace = h @ (i == j).to(h.dtype)
    return trace.square().sum(-1) - h.square().sum((-2, -1))


def _identity(R: torch.Tensor) -> torch.Tensor:
    return torch.eye(R.shape[-1], dtype=R.dtype, device=R.device)


def _change_of_frame(E: torch.Tensor) -> torch.Tensor:
    """Matrix ``[B, P, P]`` that takes the P distinct ``H_ij`` to ``h_ab`` in the frame ``E``.

    ``h_ab = Σ_ij E_ia E_jb H_ij``. Each ``h_ab`` with a < b is scaled by √2, so that the sum of
    squares over distinct pairs is the sum over all pairs.
    """
    d = E.shape[-1]
    i, j = torch.triu_indices(d, d, device=E.device)
    both = E[:, i][..., i] * E[:, j][..., j] + E[:, i][..., j] * E[:, j][..., i]
    diagonal = (i == j).to(E.dtype)
    return both * (1 - 0.5 * diagonal).unsqueeze(-1) * (diagonal + math.sqrt(2) * (1 - diagonal))


def _check_second_derivatives(immersion: Immersion, J: torch.Tensor, H: torch.Tensor) -> None:
    # Sums of absolute values: they are finite, or zero, where every entry is.
    size_J, size_H = (x.detach().flatten(1).norm(p=1, dim=1) for x in (J, H))
    finite = torch.isfinite(size_J + size_H)
    if not bool(finite.all()):
        raise ValueError(
            f"The derivatives of the map are not finite at {int((~finite).sum())} of the {len(J)} "
            f"points, the first at index {int((~finite).int().argmax())}: check that its "
            "parameters are finite, and lower the learning rate if training has diverged."
        )
    if not bool(size_H.any()):
        owner = owner_of(immersion)
        modules = () if owner is None else owner.modules()
        kinks = {type(m).__name__ for m in modules if isinstance(m, _PIECEWISE_LINEAR)}
        if kinks:
            warn(
                "All second derivatives of the map are zero because its activations "
                f"({', '.join(sorted(kinks))}) are piecewise linear: its curvature is 0 and carries"
                " no information. Use a smooth activation: GELU, SiLU, softplus or tanh."
            )


def total_squared_curvature(
    R: torch.Tensor, log_volume: torch.Tensor, log_weights: torch.Tensor | None = None
) -> torch.Tensor:
    r"""The functional :math:`\int R^2 d\mu` with :math:`d\mu = \sqrt{\det g}\, du`.

    All integrals of this module are sums over evaluation points ``u_b`` with weights ``w_b``,
    :math:`\int \varphi\, d\mu \approx \sum_b w_b \sqrt{\det g(u_b)}\, \varphi(u_b)`:

    - uniform points in a latent region of coordinate volume ``V``: ``w_b = V / B``;
    - points drawn with density ``q``: ``w_b = 1 / (B q(u_b))``;
    - a quadrature rule: its weights;
    - ``log_weights=None``: ``w_b = 1 / B``, the integral over a region of volume 1, that is the
      mean over the region. For encoded data it is the integral against the distribution of the
      codes in place of ``du``.

    Args:
        R: scalar curvature at the points, ``[B]``.
        log_volume: :math:`\log\sqrt{\det g}`, ``[B]``.
        log_weights: :math:`\log w_b`, ``[B]`` or a scalar.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: the arguments are not ``[B]`` with one ``B``.
    """
    log_measure = _log_measure(log_volume, log_weights, R=R)
    return (R.square() * log_measure.exp()).sum()


def perelman_f(
    R: torch.Tensor,
    grad_f_sq: torch.Tensor,
    f: torch.Tensor,
    log_volume: torch.Tensor,
    log_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Perelman's :math:`\mathcal{F}(g, f) = \int (R + |\nabla f|^2)\, e^{-f} d\mu`.

    It is unbounded below; the Ricci flow is its *ascent* direction.

    Args:
        R: scalar curvature, ``[B]``.
        grad_f_sq: :math:`|\nabla f|^2` of :func:`gradient_norm_squared`, ``[B]``.
        f: potential with :math:`\int e^{-f} d\mu = 1`; see :func:`normalize_potential`; ``[B]``.
        log_volume: :math:`\log\sqrt{\det g}`, ``[B]``.
        log_weights: weights of the points; see :func:`total_squared_curvature`.

    Returns:
        A scalar; the curvature itself where ``f`` and ``R`` are constant.

    Raises:
        ValueError: the arguments are not ``[B]`` with one ``B``.
    """
    log_measure = _log_measure(log_volume, log_weights, R=R, grad_f_sq=grad_f_sq, f=f)
    return ((R + grad_f_sq) * (log_measure - f).exp()).sum()


def perelman_w(
    R: torch.Tensor,
    grad_f_sq: torch.Tensor,
    f: torch.Tensor,
    log_volume: torch.Tensor,
    tau: float | torch.Tensor,
    n: int,
    log_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Perelman's :math:`\mathcal{W} = \int [\tau (|\nabla f|^2 + R) + f - n]
    (4 \pi \tau)^{-n/2} e^{-f} d\mu`.

    It is unchanged when the metric and ``tau`` are multiplied by the same number; the Ricci flow
    is its *ascent* direction.

    Args:
        R: scalar curvature, ``[B]``.
        grad_f_sq: :math:`|\nabla f|^2` of :func:`gradient_norm_squared`, ``[B]``.
        f: potential with :math:`\int (4 \pi \tau)^{-n/2} e^{-f} d\mu = 1`; see
            :func:`normalize_potential`; ``[B]``.
        log_volume: :math:`\log\sqrt{\det g}`, ``[B]``.
        tau: scale (squared length), positive.
        n: dimension of the manifold, that of the latent space.
        log_weights: weights of the points; see :func:`total_squared_curvature`.

    Returns:
        A scalar.

    Raises:
        ValueError: the arguments are not ``[B]`` with one ``B``, or ``tau`` is not positive.
    """
    log_measure = _log_measure(log_volume, log_weights, R=R, grad_f_sq=grad_f_sq, f=f)
    log_density = -f - _log_gaussian_normaliser(tau, n)
    return ((tau * (grad_f_sq + R) + f - n) * (log_measure + log_density).exp()).sum()


def normalize_potential(
    f: torch.Tensor,
    log_volume: torch.Tensor,
    tau: float | torch.Tensor | None = None,
    n: int | None = None,
    log_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""The potential plus the constant that makes :math:`e^{-f} d\mu` a probability.

    .. math:: f + \log \int e^{-f} d\mu \quad (\mathcal{F}), \qquad
              f + \log \int (4 \pi \tau)^{-n/2} e^{-f} d\mu \quad (\mathcal{W})

    over the batch, in the log domain. The gradient of ``f`` in ``z`` stays as it is.

    Args:
        f: any potential at the points, ``[B]``.
        log_volume: :math:`\log\sqrt{\det g}`, ``[B]``.
        tau, n: as in :func:`perelman_w`; leave out both for :func:`perelman_f`.
        log_weights: weights of the points; see :func:`total_squared_curvature`.

    Returns:
        ``[B]``.

    Raises:
        ValueError: wrong shapes, ``tau`` not positive, or only one of ``tau`` and ``n``.
    """
    if (tau is None) != (n is None):
        raise ValueError("Give both tau and n (for W) or neither (for F).")
    log_integral = torch.logsumexp(_log_measure(log_volume, log_weights, f=f) - f, dim=0)
    return (
        f + log_integral - (0.0 if tau is None or n is None else _log_gaussian_normaliser(tau, n))
    )


def gradient_norm_squared(f: Immersion, z: torch.Tensor, cholesky: torch.Tensor) -> torch.Tensor:
    r"""Squared length :math:`|\nabla f|^2 = g^{ij} \partial_i f\, \partial_j f` of a gradient.

    Args:
        f: potential, ``[B, d] -> [B]`` or ``[B, 1]``.
        z: points, ``[B, d]``.
        cholesky: Cholesky factor of the metric there, ``metric.cholesky(z)``, ``[B, d, d]``.

    Returns:
        ``[B]``.

    Raises:
        ValueError: ``f`` is not one number for each point, or the factor has another shape.

    Example:
        >>> L = 2 * torch.eye(2).unsqueeze(0)  # G = 4 I
        >>> gradient_norm_squared(lambda z: z.sum(-1), torch.zeros(1, 2), L)
        tensor([0.5000])
    """
    df = jacobian(f, z).flatten(1)
    if df.shape != z.shape:
        raise ValueError(
            f"The potential must give one number for each of the {len(z)} points, "
            f"but its derivative has {df.shape[1]} entries a point where z has {z.shape[1]}."
        )
    check_tensor(cholesky, "The Cholesky factor")
    if cholesky.shape != (*z.shape, z.shape[1]):
        raise ValueError(
            f"The Cholesky factor must have shape {[*z.shape, z.shape[1]]}, "
            f"got {list(cholesky.shape)}."
        )
    solution = torch.linalg.solve_triangular(cholesky, df.unsqueeze(-1), upper=False)
    return solution.square().sum((-2, -1))


def _log_measure(
    log_volume: torch.Tensor, log_weights: torch.Tensor | float | None, **values: torch.Tensor
) -> torch.Tensor:
    """Log of the measure that each point carries, with the shapes of all arguments checked."""
    for name, value in {"log_volume": log_volume, **values}.items():
        check_tensor(value, name)
    B = log_volume.shape
    if len(B) != 1 or B[0] == 0:
        raise ValueError(f"log_volume must have shape [B], one number a point, got {list(B)}.")
    for name, value in values.items():
        if value.shape != B:
            raise ValueError(
                f"{name} must have the shape of log_volume, {list(B)}, got {list(value.shape)}."
            )
    if log_weights is None:
        return log_volume - math.log(B[0])
    if isinstance(log_weights, torch.Tensor) and log_weights.ndim > 0 and log_weights.shape != B:
        raise ValueError(
            f"log_weights must be a number or have shape {list(B)}, got {list(log_weights.shape)}."
        )
    return log_volume + log_weights


def _log_gaussian_normaliser(tau: float | torch.Tensor, n: int) -> torch.Tensor | float:
    """``log (4 π τ)^{n/2}``."""
    check_count("n", n, 1)
    if not isinstance(tau, torch.Tensor):
        check_number("tau", tau, above=0)
    elif tau.numel() != 1:
        raise ValueError(f"tau must be one number, got a tensor of shape {list(tau.shape)}.")
    if not tau > 0:
        raise ValueError(f"tau is a squared length and must be positive, got {float(tau):g}.")
    log_tau = tau.log() if isinstance(tau, torch.Tensor) else math.log(tau)
    return 0.5 * n * (math.log(4 * math.pi) + log_tau)
