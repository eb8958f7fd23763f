from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder

from ..._checks import check_flag, check_generator, check_number
from ..._inputs import as_tensor
from ...geometry import PullbackMetric, evaluation_mode
from ...geometry._warnings import warn
from ..base import GeometricModel
from ..checks import (
    check_custom_decoder,
    check_custom_encoder,
    check_data,
    check_parts,
    data_for,
    data_of,
    decoded,
    encoded,
)
from ..likelihood import log_likelihood
from .gradient_clipping import clip_gradients
from .inputs import check_times, custom_metric, read_batch
from .networks import (
    ChartDecoder,
    Decoder,
    Encoder,
    GramNetwork,
    ManifoldAt,
    TimeNetwork,
    network_of,
)
from .objective import (
    STEADY_METRICS,
    divergence,
    draw,
    likelihood_variance,
    log_weight,
    lost_rank,
    metric_terms,
    reconstruction_loss,
    split_rows,
    total_loss,
)
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

    with :math:`J = \partial E / \partial u` and the flow operator :math:`\Lambda(u, t) = B^\top B`;
    bars are means over batch and entries, and the second term is a mean over the batch; for data in
    [0, 1] the first may be the cross entropy (``reconstruction_loss="bce"``). Since
    :math:`\Lambda g` is symmetric only where the two commute, the residual also asks them to; see
    :mod:`~pythae_geometric.models.vae_dlm.objective`. With ``metric_weight = flow_weight = 0``
    this is the "extended" VAE of the paper, and with ``manifold_map=False`` as well its plain VAE.

    **Data.** With :class:`~pythae_geometric.data.trajectories.TrajectoryDataset` a batch has
    ``data`` (the states at time 0), ``time`` and ``target``. Plain data train too: the target is
    the datum itself, at a time drawn uniformly in training, and ``default_time`` in evaluation, so
    that ``reconstruct`` gives the first state.

    **Latent space.** It is the chart: ``latent_dim`` is d, and ``model.decoder(u)`` decodes chart
    points at ``default_time``, ``model.decoder(u, t)`` at another one. Samplers therefore
    generate first states; decode their points at other times for the rest of the trajectory.

    In training mode the last three terms are means over a random half of the batch.

    **Gradients** of the parameters are clipped entry by entry at plus or minus ``gradient_clip``,
    in every backward pass.

    The output of ``forward`` has ``loss``, ``recon_loss``, ``reg_loss`` (the sum above),
    ``recon_x`` and ``z`` (the chart points); where their weights are not 0, ``metric_loss``,
    ``flow_loss`` and ``eigenvalue_loss``, all unweighted; and with ``metric_loss`` the smallest
    eigenvalue of :math:`J^\top J` in the batch, ``min_eigenvalue``, and ``num_degenerate``, the
    number of points where it is zero up to rounding.

    Args:
        model_config: the parameters.
        encoder: network with the outputs ``embedding [B, d]`` and ``log_covariance [B, d]``, as in
            pythae's VAE. None: a :class:`~.networks.ModifiedMLP`.
        decoder: network from points of the manifold, *d + 1* numbers, to ``reconstruction
            [B, *input_dim]``: build pythae's with a config of ``latent_dim = d + 1``. None: a
            modified perceptron.
        steady_metric: function from chart points ``[B, d]`` to metrics ``[B, d, d]``, for
            ``steady_metric="custom"``. It is not saved: to train a loaded model further, set
            ``model.steady_metric`` again; encoding and decoding do not need it.

    Raises:
        ValueError: if ``input_dim`` is not set, the networks do not fit, or a steady metric is
            given that the config does not ask for; in ``forward``: if data have a wrong shape or
            are not finite, times are outside the horizon, or a custom steady metric is missing.
        TypeError: if a custom network does not return its outputs by name.
        ArithmeticError: in ``forward``: if the loss is not finite though the data are.

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
    _warned_of_rank = False

    def __init__(
        self,
        model_config: VAE_DLM_Config,
        encoder: BaseEncoder | None = None,
        decoder: BaseDecoder | None = None,
        steady_metric: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ):
        check_parts(model_config, VAE_DLM_Config, encoder, decoder)
        config, d = model_config, model_config.latent_dim
        if steady_metric is not None and config.steady_metric != "custom":
            raise ValueError(
                f"A steady metric is given, but the config says {config.steady_metric!r}: set "
                'steady_metric="custom" there.'
            )
        E = TimeNetwork(config, (d + 1,), "tanh") if config.manifold_map else None
        network = Decoder(config) if decoder is None else network_of(decoder)
        chart_decoder = ChartDecoder(E, network, config.horizon, config.default_time)
        super().__init__(config, decoder=chart_decoder)
        self.model_name = "VAE_DLM"
        self._set_networks(encoder, decoder, Encoder(config) if encoder is None else encoder)
        self.metric_network = GramNetwork(config) if config.has_geometry else None
        self.flow_operator = GramNetwork(config) if config.flow_weight else None
        self.steady_metric = steady_metric
        if encoder is not None:
            check_custom_encoder(encoder, config, (d,))
        if decoder is not None:
            points = f"points of the manifold in latent_dim + 1 = {d + 1} dimensions"
            check_custom_decoder(network, config, points, d + 1)
        clip_gradients(self, config.gradient_clip)

    def __setstate__(self, state):
        super().__setstate__(state)
        clip_gradients(self, self.model_config.gradient_clip)  # in copies and pickles, too

    def _custom_part(self, name: str):
        return self.decoder.network if name == "decoder" else super()._custom_part(name)

    def forward(self, inputs, **kwargs) -> ModelOutput:
        """Encode, decode at the times, and take the loss.

        Args:
            inputs: with ``data [B, *input_dim]``, the states at time 0; and, both or none, ``time
                [B]`` and ``target [B, *input_dim]``.
            kwargs: what pythae's trainer passes; not used.
        """
        config = self.model_config
        batch = {**inputs, "data": data_of(inputs, self)}
        x, target, t = read_batch(batch, config, self.training)
        mean, log_variance = self.posterior(x)
        u, _ = draw(mean, log_variance)
        with torch.autocast(x.device.type, enabled=False):
            # Derivatives need full precision; with half of it there is none left of the residual.
            u = u.to(t.dtype)
            z, geometry = self._geometry(u, t, x)
        recon_x = decoded(self.decoder.network, z, config.input_dim, data=x)
        recon_loss = reconstruction_loss(config, target, recon_x)
        reg_loss = divergence(mean, log_variance).mean()
        terms = {"recon_loss": recon_loss, "reg_loss": reg_loss, **geometry}
        self._watch(target, recon_x, reg_loss / 2)
        return ModelOutput(loss=total_loss(config, terms, x), **terms, recon_x=recon_x, z=u)

    def _remedy_for_collapse(self) -> str:
        weight = self.model_config.kl_weight
        return f"Lower kl_weight, now {weight:g}, or raise recon_weight, or train for longer."

    def _geometry(self, u: torch.Tensor, t: torch.Tensor, data: torch.Tensor | None = None):
        """Points of the manifold, and the terms of the loss that are about its metric."""
        config = self.model_config
        if not config.has_geometry:
            return self.decoder.points(u, t), {}
        E, Lambda = self.decoder.manifold_map, self.flow_operator
        g = cast(GramNetwork, self.metric_network)
        rows, rest, back = split_rows(u, self.training)
        z, terms = metric_terms(config, E, g, Lambda, self._steady, u[rows], t[rows], data)
        z = torch.cat([z, self.decoder.points(u[rest], t[rest])])[back]
        # A few outliers are normal.
        lost = terms.get("num_degenerate", 0)
        if 10 * lost >= len(rows) and self.training and not self._warned_of_rank:
            self._warned_of_rank = True
            warn(lost_rank(lost, len(rows), terms["min_eigenvalue"]))
        return z, terms

    @property
    def _steady(self) -> Callable[[torch.Tensor], torch.Tensor]:
        name, scale = self.model_config.steady_metric, self.model_config.steady_scale
        if name == "custom":
            return partial(custom_metric, self.steady_metric)
        return partial(STEADY_METRICS[name], scale=scale)

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance of the chart point, both ``[B, d]``, of states ``[B, *input_dim]``
        at time 0.

        Raises:
            TypeError, ValueError: if the states or the encoder's output do not fit.
            ArithmeticError: if the encoder's output is not finite.
        """
        d = self.model_config.latent_dim
        return encoded(self.encoder, check_data(x, self.model_config, "x"), d, (d,))

    @torch.no_grad()
    def evolve(
        self,
        x0: object,
        times: object,
        sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """The states at given times, from those at time 0.

        Args:
            x0: ``[B, *input_dim]``.
            times: T numbers in [0, horizon], in any order.
            sample: whether to draw one chart point for each state from its posterior; otherwise
                the chart points are the posteriors' means.
            generator: source of the randomness, if any; None: torch's global one.

        Returns:
            ``[B, T, *input_dim]``.

        Raises:
            TypeError: if ``sample`` is not True or False, or ``generator`` no generator.
            ValueError: if states have a wrong shape or are not finite, or times are outside the
                horizon.
        """
        config = self.model_config
        check_flag("sample", sample)
        check_generator(generator)
        x0 = data_for(self, x0, "x0")
        times = as_tensor(times, "times").to(x0).reshape(-1)
        if len(times) == 0:
            raise ValueError("times is empty: give at least one.")
        check_times(times, times, config.horizon)
        with evaluation_mode(self):
            posteriors = zip(*map(self.posterior, x0.split(MAX_ROWS)), strict=True)
            u, log_variance = map(torch.cat, posteriors)
            if sample:
                noise = torch.empty_like(u).normal_(generator=generator)
                u = u + (0.5 * log_variance).exp() * noise
            points = u.repeat_interleave(len(times), dim=0).split(MAX_ROWS)
            rows = zip(points, times.repeat(len(u)).split(MAX_ROWS), strict=True)
            states = [decoded(self.decoder, v, config.input_dim, t) for v, t in rows]
        return torch.cat(states).unflatten(0, (len(x0), len(times)))

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
        :math:`-2 w_k`, of :math:`\varsigma^2 = D w_k / w_r` with D the numbers of a state. For the
        cross entropy the Bernoulli likelihood takes the place of the Gaussian, whatever the
        weights; the loss is its bound, times :math:`-2 w_k`, where :math:`w_r = 2 D w_k`. As for
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
            ValueError: if a number is less than 1, ``kl_weight`` is 0 (for the squared error), or
                data or times do not fit.
        """
        config, variance = self.model_config, likelihood_variance(self.model_config)
        data = data_for(self, data)
        target = data if target is None else data_for(self, target, "target", len(data))
        t = check_times(config.default_time if time is None else time, data, config.horizon)

        def weight_of_a_draw(_, x, t, mean, log_variance):
            u, noise = draw(mean, log_variance)
            recon_x = decoded(self.decoder, u, config.input_dim, t)
            return log_weight(x, recon_x, variance, u, noise, log_variance)

        rows = data, target, t
        return log_likelihood(self, self.posterior, weight_of_a_draw, rows, n_samples, batch_size)

    def metric_at(self, t: float) -> PullbackMetric:
        r"""The metric :math:`J^\top J` of the manifold at a time; ``model.metric_at(t)(u)`` is
        ``[B, d, d]``.

        Raises:
            ValueError: if the time is outside the horizon.
        """
        t = check_number("t", t, least=0)
        check_times(t, torch.empty(1), self.model_config.horizon)
        return PullbackMetric(ManifoldAt(self.decoder, t))
