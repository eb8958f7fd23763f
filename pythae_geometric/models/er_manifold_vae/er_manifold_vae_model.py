from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder

from ..base import GeometricModel
from ..checks import check_custom_decoder, check_parts, data_for, data_of, decoded, encoded
from ..likelihood import log_likelihood
from .embedded_latent import EmbeddedLatent
from .embeddings import build_embedding
from .er_manifold_vae_config import ERManifoldVAEConfig, dimensions, manifold_from_name
from .learned_embedding import LearnedEmbedding, Sampler
from .likelihoods import likelihood_of
from .networks import GroupEncoder, ManifoldDecoder, default_decoder, default_encoder
from .posteriors import POSTERIORS


class ERManifoldVAE(EmbeddedLatent, GeometricModel):
    r"""Variational autoencoder with a manifold-valued latent, by embedding and reparameterisation.

    A latent code z in :math:`\mathbb{R}^n` is carried onto the manifold M in
    :math:`\mathbb{R}^m` by an embedding e, which sends the prior :math:`p(z) = N(0, I)` to the
    prior on M:

    .. math::
        z \sim q(z | x), \qquad y = g(x) \cdot e(z), \qquad
        \mathrm{loss} = E_q[-\log p(x | y)] + \mathrm{KL}(q(z | x) \,\|\, p(z))

    The divergence of the distributions on the manifold *is* that of the distributions of z: the
    volume elements :math:`\sqrt{\det J^\top J}` of the embedding cancel. No formula for M enters
    but samples of it.

    **Names.** The *latent code* z, ``[B, n]``, is what pythae's tools see: the output ``z``, the
    argument of ``model.decoder``, the ``embedding`` of an encoder. The *embedding* e is
    ``model.embedding``, and *points on the manifold* y, ``[B, m]``, are what
    :meth:`manifold_points` returns and a custom decoder takes. The prior of z is N(0, I) for both
    posteriors, so every sampler of pythae works as it is; ``"beta"`` is a Beta distribution of
    :math:`u = \Phi(z)`, whose prior is uniform on the cube.

    **Embeddings.** ``"exact"``: a formula, of constant volume element. ``"learned"``: the decoder
    of pythae's ``WAE_MMD``, trained on samples of M in some tens of seconds. :meth:`fit_embedding`
    does this and says how good it is; otherwise the first batch in training mode does, with a
    warning. It is frozen and saved with the model, and not trained again after loading. If there
    are several processes, the first trains it and sends it to the others.

    **The group action** (``group_action=True``): a network gives, for each x, a symmetry of M that
    moves the embedded sample. The uniform distribution on M is invariant, so the divergence stays
    the same, and generation, which decodes latent codes as they are, needs no group element. (Of a
    learned embedding this holds as far as it is uniform.) ``z`` and the embedding of
    ``model.encoder`` are then latent codes of the moved points. The group element comes from a
    frame, and not from angles as in the paper: data that wind round a circle have no continuous
    angle, but they have continuous frames.

    Args:
        model_config: the parameters.
        encoder: network with the outputs ``embedding`` and ``log_covariance``, ``[B, n]``, mean and
            log variance of the posterior (with a group action let the latter begin at about -4).
            None: a perceptron of widths ``hidden_dims``.
        decoder: network of points of the manifold, ``[B, m]`` with m the ``ambient_dim`` of the
            config, with the output ``reconstruction``: build pythae's from a config with
            ``latent_dim=m``. None: a perceptron with linear output.
        sampler: of ``manifold="custom"``: from a number and a generator (or None) the points
            ``[number, m]`` of its prior. It trains a learned embedding, and is not saved.
        exact_embedding: of ``manifold="custom"`` with ``embedding="exact"``: a function or module,
            ``[B, n]`` in the unit cube to ``[B, m]``, that carries the uniform distribution to the
            prior on the manifold. It is pickled with the model.

    Raises:
        ValueError: if ``input_dim`` is not set, or custom networks or functions do not fit.

    References:
        E. Golikov, M. Kretov, *Embedding-reparameterization procedure for manifold-valued latent
        variables in generative models*, 2018, https://arxiv.org/abs/1812.02769

    Example:
        >>> from pythae.pipelines import TrainingPipeline
        >>> from pythae_geometric.models import ERManifoldVAE, ERManifoldVAEConfig
        >>> model = ERManifoldVAE(ERManifoldVAEConfig(input_dim=(1, 16, 16), manifold="circle"))
        >>> TrainingPipeline(model)(train_data)
        >>> model.decoder(torch.randn(5, 1))["reconstruction"]  # five new images
    """

    config_class = ERManifoldVAEConfig
    pickles: ClassVar[dict[str, str]] = {
        **GeometricModel.pickles,
        "exact_embedding": "embedding.pkl",
    }

    def __init__(
        self,
        model_config: ERManifoldVAEConfig,
        encoder: BaseEncoder | None = None,
        decoder: BaseDecoder | None = None,
        sampler: Sampler | None = None,
        exact_embedding: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ):
        config = model_config
        check_parts(config, ERManifoldVAEConfig, encoder, decoder)
        manifold = None if config.manifold == "custom" else manifold_from_name(config.manifold)
        embedding = build_embedding(config, manifold, sampler, exact_embedding)
        network = encoder or default_encoder(config)
        if manifold is not None and config.group_action:
            network = GroupEncoder(
                network, embedding, manifold, config.input_dim, config.hidden_dims
            )
        if decoder is not None:
            _, m = dimensions(config)
            check_custom_decoder(decoder, config, f"points of the manifold, [B, {m}]", m)
        super().__init__(
            config, decoder=ManifoldDecoder(embedding, decoder or default_decoder(config))
        )
        self.model_name = "ERManifoldVAE"
        self._set_networks(encoder, decoder, network)
        self.manifold = manifold
        self._sampler = sampler if manifold is None else manifold.sample
        self.likelihood = likelihood_of(config)

    @classmethod
    def _is_custom(cls, config: ERManifoldVAEConfig, name: str) -> bool:
        if name == "exact_embedding":
            return config.manifold == "custom" and config.embedding == "exact"
        return super()._is_custom(config, name)

    def _custom_part(self, name: str) -> Any:
        if name == "exact_embedding":
            return self.embedding.chart
        return self.decoder.network if name == "decoder" else self._posterior_network

    @property
    def _posterior_network(self) -> BaseEncoder:
        return self.encoder.network if self.model_config.group_action else self.encoder

    def forward(self, inputs, **kwargs) -> ModelOutput:
        """The loss of a batch.

        Args:
            inputs: dictionary with ``data [B, *input_dim]``.
            kwargs: what pythae's trainer passes; not used.

        Returns:
            ``loss``, minus the ELBO in nats; its parts ``recon_loss`` and ``reg_loss``; the mean
            ``recon_x`` of the data; the latent codes ``z [B, n]``, with
            ``recon_x = model.decoder(z)`` (with a group action: as far as the embedding has an
            inverse).

        Raises:
            ValueError, TypeError: if the data or an output of a custom network does not fit, or if
                a learned embedding cannot be trained.
            ArithmeticError: if a network's output is not finite, which is then named.
            RuntimeError: if a learned embedding is not trained, in evaluation mode.
        """
        x = data_of(inputs, self)
        if isinstance(self.embedding, LearnedEmbedding):
            if self.training and not self.embedding.fitted:
                self.embedding.fit_now(self.fit_embedding)
        # The distribution functions of the posteriors need full precision.
        with torch.autocast(x.device.type, enabled=False):
            posterior = self._posterior(*self._parameters_of(x))
            z = posterior.rsample()
            y = self._on_manifold(x, z)
            recon_x = self._decoded(y, x)
            recon_loss = -self.likelihood.log_prob(x, recon_x).mean()
            reg_loss = posterior.kl().mean()
        self._watch(x, recon_x, reg_loss)
        return ModelOutput(
            loss=recon_loss + reg_loss,
            recon_loss=recon_loss,
            reg_loss=reg_loss,
            recon_x=recon_x,
            z=self.embedding.inverse(y) if self.model_config.group_action else z,
        )

    def _remedy_for_collapse(self) -> str:
        std = self.model_config.likelihood_std
        if std is None:
            return "Train for more epochs or with a larger learning rate, or take another manifold."
        return (
            f"likelihood_std={std:g} is large for these data: make it smaller, or leave it out, "
            "and it is learned."
        )

    def get_nll(self, data: torch.Tensor, n_samples: int = 1, batch_size: int = 100) -> float:
        """Estimate the log likelihood of data by importance sampling, see
        :func:`~pythae_geometric.models.likelihood.log_likelihood`.

        As for pythae's models, the mean log likelihood is returned, whose sign is not the name's.

        Args:
            data: ``[N, *input_dim]``.
            n_samples: number of samples for each data point.
            batch_size: number of samples that are decoded at a time.

        Raises:
            ValueError: if a number is less than 1, or the data do not fit.
        """
        data = data_for(self, data)
        return log_likelihood(
            self, self._parameters_of, self._log_weight, (data,), n_samples, batch_size
        )

    def _log_weight(self, x, mean, log_variance) -> torch.Tensor:
        posterior = self._posterior(mean, log_variance)
        z = posterior.rsample()
        recon_x = self._decoded(self._on_manifold(x, z), x)
        return self.likelihood.log_prob(x, recon_x) - posterior.log_ratio(z)

    def _parameters_of(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance ``[B, n]`` of the posterior, before the group acts."""
        return encoded(self._posterior_network, x, self.latent_dim, (self.latent_dim,))

    def _posterior(self, mean: torch.Tensor, log_variance: torch.Tensor):
        return POSTERIORS[self.model_config.posterior](mean, log_variance)

    def _decoded(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return decoded(self.decoder.network, y, self.model_config.input_dim, data=x)
