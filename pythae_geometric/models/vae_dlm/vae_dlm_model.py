import inspect
import math
import os
import warnings
from collections.abc import Callable

import cloudpickle
import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch.nn import functional as F

from ...geometry import PullbackMetric, evaluation_mode
from ...geometry.flows import eigenvalue_penalty, euclidean_metric, flow_residual, sphere_metric
from ..base import GeometricModel, check_finite
from .networks import ChartDecoder, Decoder, Encoder, GramNetwork, TimeNetwork, check_times
from .vae_dlm_config import VAE_DLM_Config

# Rows that are decoded at a time.
MAX_ROWS = 10_000


class VAE_DLM(GeometricModel):
    r"""Variational autoencoder with a dynamical latent manifold, for evolution equations.

    The state at time 0 is encoded to a chart point :math:`u \sim q(u | x_0) = N(\mu(x_0),
    \operatorname{diag} \sigma(x_0)^2)`; the manifold map :math:`z = E(u, t)` moves a hypersurface
    of :math:`\mathbb{R}^{d+1}` through time, and :math:`\hat x_t = D(z)`. The metric :math:`g(u,
    t)`, a network, is that of the hypersurface, and follows a linear flow to a steady metric:

    .. math::
        \mathrm{loss} = \; &w_r\, \overline{(x_t - \hat x_t)^2}
          + w_k \sum_i (\mu_i^2 + \sigma_i^2 - 1 - \log \sigma_i^2) \\
          + &w_m\, \overline{(g - J^\top J)^2}
          + w_f\, \overline{(\partial_t g + \Lambda g + \alpha (g - \Sigma))^2}
          + w_e\, \overline{\max(0, -\lambda(g - \Sigma))^2}

    with :math:`J = \partial E / \partial u`, flow operator :math:`\Lambda(u, t) = B^\top B`, bars
    for means over batch and entries, and a mean over the batch of the second term.
    :math:`\partial_t g` is one forward-mode product, J is d of them. Since :math:`\Lambda g` is
    symmetric only where the two commute, the residual also asks them to; see
    :mod:`pythae_geometric.geometry.flows`.

    With ``metric_weight = flow_weight = 0`` this is the "extended" VAE of the paper, and with
    ``manifold_map=False`` too its plain VAE.

    **Data.** With :class:`~pythae_geometric.data.trajectories.TrajectoryDataset` a batch has
    ``data`` (the states at time 0), ``time`` and ``target``. Plain data train too: the target is
    the datum itself, at a time drawn uniformly in training, and ``default_time`` in evaluation, so
    that ``reconstruct`` gives the first state.

    **Latent space.** It is the chart: ``latent_dim`` is d, and ``model.decoder(u)`` decodes chart
    points at ``default_time``, ``model.decoder(u, t)`` at another one. Samplers therefore
    generate first states; decode their points at other times for the rest of the trajectory.

    **Gradients** are clipped entry by entry at ±``gradient_clip`` by hooks on the parameters.
    Copies and pickles of parameters lose their hooks, so every training step looks for them first.

    The output of ``forward`` has ``loss``, ``recon_loss``, ``reg_loss`` (the sum above),
    ``recon_x`` and ``z`` (the chart points); where their weights are not 0 ``metric_loss``,
    ``flow_loss``, ``eigenvalue_loss``, all unweighted, and ``min_eigenvalue``, the smallest of
    :math:`J^\top J` in the batch.

    Args:
        model_config: the parameters.
        encoder: network with the outputs ``embedding [B, d]`` and ``log_covariance [B, d]``, as of
            pythae's VAE. None: a :class:`~.networks.ModifiedMLP`.
        decoder: network from points of the manifold, *d + 1* numbers, to ``reconstruction
            [B, *input_dim]``: build pythae's with a config of ``latent_dim = d + 1``. None: a
            modified perceptron.
        steady_metric: function from chart points ``[B, d]`` to metrics ``[B, d, d]``, for
            ``steady_metric="custom"``. It is not saved: set ``model.steady_metric`` again after
            loading, if you train on; encoding and decoding do without.

    Raises:
        ValueError: ``input_dim`` is not set, the networks do not fit, or a custom steady metric is
            given to a config with another or the other way round; in ``forward``: data of a wrong
            shape or not finite, times outside the horizon.
        ArithmeticError: in ``forward``: the loss is not finite though the data are.

    References:
        A. Gracyk, Variational autoencoders with latent high-dimensional steady geometric flows for
        dynamics, 2024, https://arxiv.org/abs/2410.10137

    Example:
        >>> from pythae_geometric.models.vae_dlm import VAE_DLM, VAE_DLM_Config
        >>> model = VAE_DLM(VAE_DLM_Config(input_dim=(201,), latent_dim=6, hidden_dim=16))
        >>> x0 = torch.zeros(4, 201)
        >>> model.evolve(x0, times=[0.0, 0.5, 1.0]).shape
        torch.Size([4, 3, 201])
    """

    config_class = VAE_DLM_Config

    def __init__(
        self,
        model_config: VAE_DLM_Config,
        encoder: BaseEncoder | None = None,
        decoder: BaseDecoder | None = None,
        steady_metric: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ):
        config = model_config
        if config.input_dim is None:
            raise ValueError(
                "input_dim is not set: give the config the shape of a state, such as "
                "input_dim=(201,)."
            )
        if steady_metric is not None and config.steady_metric != "custom":
            raise ValueError(
                f"A steady metric is given, but the config says {config.steady_metric!r}: set "
                'steady_metric="custom" there.'
            )
        d = config.latent_dim
        manifold_map = TimeNetwork(config, (d + 1,), "tanh") if config.manifold_map else None
        network = decoder or Decoder(config)
        chart_decoder = ChartDecoder(manifold_map, network, config.horizon, config.default_time)
        super().__init__(config, decoder=chart_decoder)
        self.model_name = "VAE_DLM"
        self.set_encoder(encoder or Encoder(config))
        config.uses_default_encoder = encoder is None
        config.uses_default_decoder = decoder is None
        self.metric_network = GramNetwork(config) if config.has_geometry else None
        self.flow_operator = GramNetwork(config) if config.flow_weight else None
        self.steady_metric = steady_metric
        self._check_networks()

    # pythae's interface

    def forward(self, inputs, **kwargs) -> ModelOutput:
        """Encode, decode at the times, and take the loss.

        Args:
            inputs: with ``data [B, *input_dim]``, the states at time 0; and, both or none, ``time
                [B]`` and ``target [B, *input_dim]``.
            kwargs: what pythae's trainer passes; not used.
        """
        config = self.model_config
        x, target, t = self._read(inputs)
        if self.training and torch.is_grad_enabled():
            self._clip_gradients()
        mean, log_variance = self.posterior(x)
        u = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        with torch.autocast(x.device.type, enabled=False):
            # Derivatives need full precision; with half of it there is none left of the residual.
            u, t = u.to(t.dtype), t.reshape(-1, 1)
            z, geometry = self._geometry(u, t)
        recon_x = self.decoder.network(z)["reconstruction"]
        recon_loss = F.mse_loss(recon_x, target)
        reg_loss = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        loss = config.recon_weight * recon_loss + config.kl_weight * reg_loss
        for name in ("metric", "flow", "eigenvalue"):
            if f"{name}_loss" in geometry:
                loss = loss + getattr(config, f"{name}_weight") * geometry[f"{name}_loss"]
        _check_not_diverged(loss)
        return ModelOutput(
            loss=loss, recon_loss=recon_loss, reg_loss=reg_loss, recon_x=recon_x, z=u, **geometry
        )

    def _geometry(self, u, t) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The points of the manifold, and what the loss has of its metric."""
        config, terms = self.model_config, {}
        if not config.has_geometry:
            return self.decoder.points(u, t), terms
        E, g_network = self.decoder.manifold_map, self.metric_network
        g, dg = g_network.time_derivative(u, t)
        _check_not_diverged(g)
        Sigma = self._steady(u) if config.flow_weight or config.eigenvalue_weight else None
        if config.metric_weight:
            z, J_rows = E.chart_derivatives(u, t)
            induced = torch.einsum("ibm,jbm->bij", J_rows, J_rows)
            _check_not_diverged(induced)
            terms["metric_loss"] = (g - induced).square().mean()
            terms["min_eigenvalue"] = self._check_rank(induced.detach())
        else:
            z = E(u, t)
        if config.flow_weight:
            residual = flow_residual(dg, g, self.flow_operator(u, t), config.alpha, Sigma)
            terms["flow_loss"] = residual.square().mean()
        if config.eigenvalue_weight:
            terms["eigenvalue_loss"] = eigenvalue_penalty(g, Sigma).mean()
        return z, terms

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance of the chart point, both ``[B, d]``, of states ``[B, *input_dim]``
        at time 0."""
        encoded = self.encoder(x)
        return encoded["embedding"], encoded["log_covariance"]

    @torch.no_grad()
    def evolve(
        self,
        x0: torch.Tensor,
        times,
        sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """The states at given times, from those at time 0.

        Args:
            x0: ``[B, *input_dim]``.
            times: T numbers in [0, horizon], in any order.
            sample: whether to draw the chart points from the posterior, one a state; otherwise
                they are its mean.
            generator: source of the randomness, if any; None: torch's global one.

        Returns:
            ``[B, T, *input_dim]``.

        Raises:
            ValueError: states of a wrong shape or not finite, times outside the horizon.
        """
        x0 = self._check_states(x0, "x0")
        times = torch.as_tensor(times, dtype=x0.dtype, device=x0.device).reshape(-1)
        if len(times) == 0:
            raise ValueError("times is empty: give at least one.")
        check_times(times, times, self.model_config.horizon)
        with evaluation_mode(self):
            u, log_variance = (
                torch.cat(part)
                for part in zip(*map(self.posterior, x0.split(MAX_ROWS)), strict=True)
            )
            if sample:
                noise = torch.empty_like(u).normal_(generator=generator)
                u = u + (0.5 * log_variance).exp() * noise
            rows = zip(
                u.repeat_interleave(len(times), dim=0).split(MAX_ROWS),
                times.repeat(len(u)).split(MAX_ROWS),
                strict=True,
            )
            states = [self.decoder(v, t)["reconstruction"] for v, t in rows]
        return torch.cat(states).unflatten(0, (len(x0), len(times)))

    @torch.no_grad()
    def get_nll(
        self,
        data: torch.Tensor,
        n_samples: int = 1,
        batch_size: int = 100,
        time: float | torch.Tensor | None = None,
        target: torch.Tensor | None = None,
    ) -> float:
        r"""Estimate the log likelihood of states at one time by importance sampling.

        .. math:: \log p(x_t) \approx \log \frac1S \sum_{s=1}^S
                  \frac{N(x_t; D(E(u_s, t)), \varsigma^2 I)\, N(u_s; 0, I)}{q(u_s | x_0)},
                  \quad u_s \sim q(u | x_0)

        The weights of the loss fix the variance: the loss is the evidence lower bound, times
        :math:`-2 w_k`, of :math:`\varsigma^2 = D w_k / w_r` with D the numbers of a state. As for
        pythae's models, the mean log likelihood is returned: its *sign* is not that of the name.

        Args:
            data: states at time 0, ``[N, *input_dim]``.
            n_samples: number S of samples for each state.
            batch_size: number of samples that are decoded at a time.
            time: one, or one for each state; None: ``default_time``.
            target: the states then; None: ``data``.

        Returns:
            The mean over the data.

        Raises:
            ValueError: a number is less than 1, ``kl_weight`` is 0, data or times do not fit.
        """
        config = self.model_config
        if n_samples < 1 or batch_size < 1:
            raise ValueError(
                f"n_samples and batch_size must be at least 1, got {n_samples} and {batch_size}."
            )
        if config.kl_weight == 0:
            raise ValueError("With kl_weight = 0 the loss is no likelihood: set it above 0.")
        data = self._check_states(data, "data")
        target = data if target is None else self._check_states(target, "target", len(data))
        variance = math.prod(config.input_dim) * config.kl_weight / config.recon_weight
        time = config.default_time if time is None else time
        t = check_times(time, data.flatten(1), config.horizon).squeeze(1)
        with evaluation_mode(self):
            mean, log_variance = (
                torch.cat(part)
                for part in zip(*map(self.posterior, data.split(batch_size)), strict=True)
            )
            rows = torch.arange(len(data), device=data.device).repeat_interleave(n_samples)
            log_weights = []
            for i in rows.split(batch_size):
                noise = torch.randn_like(mean[i])
                u = mean[i] + (0.5 * log_variance[i]).exp() * noise
                x = self.decoder(u, t[i])["reconstruction"].flatten(1)
                square = (target[i].flatten(1) - x).square().sum(1)
                log_likelihood = -0.5 * (
                    square / variance + x.shape[1] * math.log(2 * math.pi * variance)
                )
                # The constants of prior and posterior cancel.
                log_ratio = 0.5 * (noise.square() + log_variance[i] - u.square()).sum(1)
                log_weights.append(log_likelihood + log_ratio)
        log_weights = torch.cat(log_weights).view(len(data), n_samples)
        return float((log_weights.logsumexp(1) - math.log(n_samples)).mean())

    # The geometry

    def metric_at(self, t: float) -> PullbackMetric:
        r"""The metric :math:`J^\top J` of the manifold at a time; ``model.metric_at(t)(u)`` is
        ``[B, d, d]``.

        Raises:
            ValueError: the time is outside the horizon.
        """
        decoder, horizon = self.decoder, self.model_config.horizon
        return PullbackMetric(lambda u: decoder.points(u, check_times(t, u, horizon)))

    def _steady(self, u: torch.Tensor) -> torch.Tensor:
        config = self.model_config
        if config.steady_metric == "sphere":
            return sphere_metric(u, config.steady_scale)
        if config.steady_metric == "euclidean":
            return euclidean_metric(u, config.steady_scale)
        if self.steady_metric is None:
            raise ValueError(
                'The config says steady_metric="custom": give the function to the model, or, after '
                "loading, set model.steady_metric to it; it is not saved."
            )
        Sigma, d = self.steady_metric(u), config.latent_dim
        if not isinstance(Sigma, torch.Tensor) or Sigma.shape not in ((len(u), d, d), (d, d)):
            raise ValueError(
                f"steady_metric must give a tensor {[len(u), d, d]} at {len(u)} points."
            )
        return Sigma

    def _check_rank(self, induced: torch.Tensor) -> torch.Tensor:
        """The smallest eigenvalue in the batch; warn, once, if rounding decides its sign at a tenth
        of the points or more (at an outlier or two it may, in a good manifold)."""
        eigenvalues = torch.linalg.eigvalsh(induced)
        low, high = eigenvalues[:, 0], eigenvalues[:, -1]
        resolution = induced.shape[-1] * torch.finfo(induced.dtype).eps
        count = int((low <= resolution * high).sum())
        if 10 * count >= len(low) and self.training and not getattr(self, "_warned_of_rank", False):
            self._warned_of_rank = True
            warnings.warn(
                f"The metric of the latent manifold has lost its rank at {count} of {len(low)} "
                f"points: the smallest eigenvalue of its Jacobian's JᵀJ is {float(low.min()):.3g}, "
                "zero up to rounding. Raise alpha or flow_weight, set eigenvalue_weight, or use "
                "fewer latent dimensions. (This warning is given once.)",
                stacklevel=2,
            )
        return low.min()

    # What can be wrong

    def _clip_gradients(self) -> None:
        bound = self.model_config.gradient_clip
        if bound is None:
            return
        for parameter in self.parameters():
            hooks = parameter._backward_hooks or {}
            if parameter.requires_grad and not any(isinstance(h, _Clip) for h in hooks.values()):
                parameter.register_hook(_Clip(bound))

    def _read(self, inputs):
        """The states at time 0, the targets, and their times ``[B]``."""
        config = self.model_config
        x = self._check_states(inputs["data"], "data")
        if ("time" in inputs) != ("target" in inputs):
            raise ValueError("A batch must have both time and target, or neither of them.")
        if "time" in inputs:
            target = self._check_states(inputs["target"], "target", len(x))
            t = check_times(inputs["time"], x.flatten(1), config.horizon).squeeze(1)
            return x, target, t
        if self.training:
            return x, x, config.horizon * torch.rand(len(x), dtype=x.dtype, device=x.device)
        return x, x, torch.full((len(x),), config.default_time, dtype=x.dtype, device=x.device)

    def _check_states(self, x, name: str, count: int | None = None) -> torch.Tensor:
        input_dim = tuple(self.model_config.input_dim)
        wrong = tuple(x.shape[1:]) != input_dim or len(x) == 0
        if wrong or (count is not None and len(x) != count):
            raise ValueError(
                f"{name} must have shape [{count or 'B'}, {', '.join(map(str, input_dim))}], by "
                f"the model's input_dim, got {list(x.shape)}."
            )
        check_finite(x, name)
        return x

    def _check_networks(self) -> None:
        """Put zeros through the user's own networks: a wrong shape should show before training."""
        config, d = self.model_config, self.model_config.latent_dim
        own_encoder, own_decoder = not config.uses_default_encoder, not config.uses_default_decoder
        with torch.no_grad(), evaluation_mode(self):
            if own_encoder:
                like = next(self.encoder.parameters(), torch.empty(0))
                x = torch.zeros(2, *config.input_dim, dtype=like.dtype, device=like.device)
                encoded = self.encoder(x)
                shapes = [
                    list(encoded[name].shape) if name in encoded else None
                    for name in ("embedding", "log_covariance")
                ]
                if shapes != [[2, d]] * 2:
                    raise ValueError(
                        f"The encoder must give embedding and log_covariance of shape [B, {d}], "
                        f"got {shapes[0]} and {shapes[1]} for B = 2: use one of a VAE, with "
                        f"latent_dim={d}."
                    )
            if own_decoder:
                like = next(self.decoder.network.parameters(), torch.empty(0))
                z = torch.zeros(2, d + 1, dtype=like.dtype, device=like.device)
                wanted = f"points of the manifold in {d + 1} dimensions, latent_dim + 1"
                try:
                    shape = tuple(self.decoder.network(z)["reconstruction"].shape[1:])
                except RuntimeError as error:
                    raise ValueError(
                        f"The decoder must take {wanted}: build it with a config of "
                        f"latent_dim={d + 1}. It raised: {' '.join(str(error).split())[:200]}"
                    ) from error
                if shape != tuple(config.input_dim):
                    raise ValueError(
                        f"The decoder gives states of shape {list(shape)}, but input_dim is "
                        f"{list(config.input_dim)}."
                    )

    def save(self, dir_path: str | os.PathLike) -> None:
        # pythae pickles the decoder with the code of its module; that of the user's network, too,
        # must be there to load it elsewhere.
        if not self.model_config.uses_default_decoder:
            cloudpickle.register_pickle_by_value(inspect.getmodule(self.decoder.network))
        super().save(dir_path)

    @classmethod
    def _load_custom_decoder_from_folder(cls, dir_path):
        # What is pickled is the composition with the manifold map.
        return super()._load_custom_decoder_from_folder(dir_path).network


def _check_not_diverged(values: torch.Tensor) -> None:
    if not bool(torch.isfinite(values.detach()).all()):
        raise ArithmeticError(
            "The loss is not finite, though the data are: training has diverged. Lower the "
            "learning rate."
        )


class _Clip:
    """Hook that clips a gradient, entry by entry, to [-bound, bound]."""

    def __init__(self, bound: float):
        self.bound = bound

    def __call__(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.clamp(-self.bound, self.bound)
