"""What the metrics that are given by tensors at a few centroids have in common."""

import torch

from .metric import Metric


class CentroidMetric(Metric):
    """A metric in closed form, given by tensors at ``K`` centroids.

    The tensors are its whole state (``state_dict``), named as the arguments of the subclass, so
    that ``MixtureMetric(**state)`` builds the same metric again. A subclass lays out what follows
    from them in ``_prepare``, which runs again whenever they are moved, converted or loaded.
    """

    is_closed_form = True
    centroids: torch.Tensor

    def __init__(self, **tensors: torch.Tensor):
        super().__init__()
        with torch.inference_mode(False):  # a metric made in inference mode is used outside too
            for name, value in tensors.items():
                self.register_buffer(name, value.detach().clone())
            self._prepare()

    @property
    def dim(self) -> int:
        """Dimension d of the space."""
        return self.centroids.shape[1]

    def _prepare(self) -> None:
        """Lay out the constants of the matrix products."""
        raise NotImplementedError

    def _check_points(self, z: torch.Tensor) -> None:
        c = self.centroids
        if z.shape[1] == c.shape[1] and z.dtype == c.dtype and z.device == c.device:
            return
        if z.shape[1] != self.dim:
            raise ValueError(f"z must have shape [B, {self.dim}], got {list(z.shape)}.")
        for got, own in ((z.dtype, c.dtype), (z.device, c.device)):
            if got != own:
                raise TypeError(f"z is {got} but the metric is {own}: convert one of them.")

    def _apply(self, fn, *args, **kwargs):  # every .to(), .cuda(), .double() goes through here
        with torch.inference_mode(False):
            super()._apply(fn, *args, **kwargs)
            self._prepare()
        return self

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        with torch.inference_mode(False):
            self._prepare()


def check_tensors(**tensors: torch.Tensor) -> None:
    """Raise an error unless all are finite tensors of one dtype, float32 or float64."""
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}.")
        if value.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name} must be float32 or float64, got {value.dtype}.")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} contain NaN or infinity: check the encoder that made them.")
    dtypes = {name: value.dtype for name, value in tensors.items()}
    if len(set(dtypes.values())) > 1:
        listed = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"All tensors must have the same dtype, got {listed}: use one dtype.")


def check_centroids(centroids: torch.Tensor) -> None:
    if centroids.dim() != 2 or 0 in centroids.shape:
        raise ValueError(
            f"centroids must have shape [K, d] with K, d >= 1, got {list(centroids.shape)}."
        )


def check_definite(name: str, matrices: torch.Tensor) -> None:
    """Raise a ValueError unless ``[K, d, d]`` are symmetric and positive definite."""
    scale = matrices.abs().amax()
    if not torch.allclose(matrices, matrices.mT, rtol=0.0, atol=1e-5 * float(scale)):
        raise ValueError(f"{name} must be symmetric: pass (A + A.mT) / 2 for each of them, A.")
    # On the CPU, since not every device has float64.
    info = torch.linalg.cholesky_ex(matrices.cpu().double()).info
    if bool((info > 0).any()):
        raise ValueError(
            f"{name} must be positive definite; number {int(info.nonzero()[0, 0])} is not."
        )
