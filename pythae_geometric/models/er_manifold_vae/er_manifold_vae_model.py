import copy
import inspect
import json
import logging
import math
import os
import types
import warnings
from collections.abc import Callable

import cloudpickle
import torch
from pythae.models.base.base_utils import CPU_Unpickler, ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder

from ..._files import written_beside
from ...geometry import evaluation_mode
from ...hub import pull_folder, pull_model_folder
from ..base import GeometricModel, check_finite
from .embedding_quality import EmbeddingQuality, PoorEmbeddingWarning, embedding_quality
from .embeddings import ExactEmbedding, LearnedEmbedding, Sampler, draw
from .er_manifold_vae_config import ERManifoldVAEConfig, manifold_from_name
from .networks import Decoder, Encoder, GroupEncoder, ManifoldDecoder
from .posteriors import POSTERIORS

logger = logging.getLogger(__name__)

PICKLE = "embedding.pkl"


class ERManifoldVAE(GeometricModel):
    r"""Variational autoencoder with a manifold-valued latent, by embedding and reparameterisation.

    A hidden variable z in :math:`\mathbb{R}^n` is carried onto the manifold M in
    :math:`\mathbb{R}^m` by an embedding e, which sends the prior :math:`p(z) = N(0, I)` to the
    prior on M:

    .. math::
        z \sim q(z | x), \qquad y = g(x) \cdot e(z), \qquad
        \mathrm{loss} = E_q[-\log N(x; \mu(y), \sigma^2 I)] + \mathrm{KL}(q(z | x) \,\|\, p(z))

    The divergence of the laws on the manifold *is* that of the hidden laws: the volume elements
    :math:`\sqrt{\det J^\top J}` of the embedding cancel. No formula for M enters but samples of it.

    **Hidden points.** z is what users see: the output ``z``, and the argument of
    ``model.decoder``, which is the user's network after the embedding. Its prior is N(0, I) for
    both posteriors, so every sampler of pythae works as it is; ``"beta"`` is a Beta law of
    :math:`u = \Phi(z)`, whose prior is uniform on the cube.

    **Embeddings.** ``"exact"``: a formula, of constant volume element. ``"learned"``: the decoder
    of pythae's ``WAE_MMD``, which pythae's pipeline trains on samples of M at the first batch in
    training mode (or in :meth:`fit_embedding`). It is frozen and saved with the model, and not
    trained again after loading.

    **The group action** (``group_action=True``): a network gives, for each x, a symmetry of M that
    moves the embedded sample. The uniform law on M is invariant, so the divergence stays the same,
    and generation, which decodes hidden points as they are, needs no group element. (Of a learned
    embedding this holds as far as it is uniform.) ``z`` and the embedding of ``model.encoder`` are
    then hidden points of the moved points. The group element comes from a frame, and not from
    angles as in the paper: data that wind round a circle have no continuous angle, but they have
    continuous frames.

    Args:
        model_config: the parameters.
        encoder: network with the outputs ``embedding`` and ``log_covariance``, ``[B, n]``, mean and
            log variance of the posterior. None: a perceptron of widths ``hidden_dims``.
        decoder: network of points of the manifold, ``[B, m]`` with m the ``ambient_dim`` of the
            config, with the output ``reconstruction``: build pythae's from a config with
            ``latent_dim=m``. None:
            a perceptron with linear output.
        sampler: of ``manifold="custom"``: from a number and a generator (or None) the points
            ``[number, m]`` of its prior. It trains a learned embedding, and is not saved.
        exact_embedding: of ``manifold="custom"`` with ``embedding="exact"``: a function or module,
            ``[B, n]`` in the unit cube to ``[B, m]``, that carries the uniform law to the prior on
            the manifold. It is pickled with the model.

    Raises:
        ValueError: there is no ``input_dim``; the user's networks or functions do not fit.

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

    def __init__(
        self,
        model_config: ERManifoldVAEConfig,
        encoder: BaseEncoder | None = None,
        decoder: BaseDecoder | None = None,
        sampler: Sampler | None = None,
        exact_embedding: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ):
        config = model_config
        if config.input_dim is None:
            raise ValueError(
                "input_dim is not set: give the config the shape of a data point, such as "
                "input_dim=(1, 28, 28)."
            )
        n, m = config.latent_dim, config.ambient_dim
        is_custom = config.manifold == "custom"
        if not is_custom and (sampler is not None or exact_embedding is not None):
            raise ValueError(
                "A sampler or an exact_embedding of your own belongs to "
                f'manifold="custom", but manifold is {config.manifold!r}.'
            )
        manifold = None if is_custom else manifold_from_name(config.manifold)
        if config.embedding == "learned":
            embedding = LearnedEmbedding(n, m)
        elif is_custom:
            if exact_embedding is None:
                raise ValueError(
                    'manifold="custom" with embedding="exact" needs exact_embedding=, a function '
                    'from the unit cube: give it, or set embedding="learned" and give a sampler.'
                )
            embedding = ExactEmbedding(exact_embedding)
        else:
            embedding = ExactEmbedding(manifold.from_cube, manifold.to_cube)
        defaults = encoder is None, decoder is None
        encoder = encoder or Encoder(config.input_dim, n, config.hidden_dims)
        if config.group_action:
            encoder = GroupEncoder(
                encoder, embedding, manifold, config.input_dim, config.hidden_dims
            )
        decoder = decoder or Decoder(config.input_dim, m, config.hidden_dims)
        super().__init__(config, decoder=ManifoldDecoder(embedding, decoder))
        self.set_encoder(encoder)
        config.uses_default_encoder, config.uses_default_decoder = defaults
        self.model_name = "ERManifoldVAE"
        self.manifold = manifold
        self._sampler = manifold.sample if manifold is not None else sampler
        self._check_functions(exact_embedding)
        if not defaults[1]:
            self._check_decoder()

    # The manifold

    @property
    def embedding(self) -> torch.nn.Module:
        """The map from hidden points to the manifold, ``[B, n] -> [B, m]``."""
        return self.decoder.embedding

    def fit_embedding(self, seed: int = 0) -> EmbeddingQuality:
        """Train a learned embedding, and measure it; training a model does this by itself.

        An embedding that is trained already, or exact, is only measured.

        Args:
            seed: of the training and of the measurement.

        Raises:
            ValueError: a manifold of the user's has no sampler.

        Warns:
            PoorEmbeddingWarning: the embedding is poor, and why.
        """
        embedding = self.embedding
        if isinstance(embedding, LearnedEmbedding) and not embedding.fitted:
            self._check_sampler()
            embedding.fit(self._sampler, self.model_config.embedding_epochs, seed)
        quality = self.embedding_quality(seed=seed)
        logger.info("Embedding of %s: %s", self.model_config.manifold, quality)
        if quality.faults:
            warnings.warn(
                f"The embedding of the manifold is poor: {'; '.join(quality.faults)}. Raise "
                "embedding_epochs, or take an exact embedding.",
                PoorEmbeddingWarning,
                stacklevel=2,
            )
        return quality

    def embedding_quality(self, count: int = 1000, seed: int = 0) -> EmbeddingQuality:
        """The embedding as numbers.

        Args:
            count: number of points; time and memory grow as its square.
            seed: of the points.

        Raises:
            ValueError: a manifold of the user's has no sampler (after loading: give one to
                ``ERManifoldVAE`` and load the state, or keep the numbers of the training).
            RuntimeError: a learned embedding is not trained.
        """
        self._check_sampler()
        generator = torch.Generator().manual_seed(seed)
        where = next(self.parameters())
        points = draw(self._sampler, 2 * count, self.model_config.ambient_dim, generator).to(where)
        project = None if self.manifold is None else self.manifold.project
        return embedding_quality(
            self.embedding, self.latent_dim, *points.chunk(2), project, generator
        )

    @torch.no_grad()
    def sample_manifold(self, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Points of the prior on the manifold, as the model has it: embedded samples of N(0, I).

        Args:
            count: how many.
            generator: on the device of the model.

        Returns:
            ``[count, m]``.
        """
        where = next(self.parameters())
        z = torch.randn(
            count, self.latent_dim, generator=generator, dtype=where.dtype, device=where.device
        )
        return self.embedding(z)

    @torch.no_grad()
    def embed_on_manifold(self, x: torch.Tensor) -> torch.Tensor:
        """The points of the manifold that stand for data: posterior centres, moved by the group.

        Args:
            x: ``[B, *input_dim]``.

        Returns:
            ``[B, m]``.
        """
        self._check_data(x)
        mean, _ = self._parameters_of(x)
        return self._on_manifold(x, mean)

    def _on_manifold(self, x, z):
        y = self.embedding(z)
        return self.encoder.move(x, y) if self.model_config.group_action else y

    # pythae's interface

    def forward(self, inputs, **kwargs) -> ModelOutput:
        """The loss of a batch.

        Args:
            inputs: dictionary with ``data [B, *input_dim]``.
            kwargs: what pythae's trainer passes; not used.

        Returns:
            ``loss``, minus the ELBO in nats; its parts ``recon_loss`` and ``reg_loss``; the mean
            ``recon_x`` of the data; the hidden points ``z [B, n]``, with
            ``recon_x = model.decoder(z)`` (with a group action: as far as the embedding has an
            inverse).

        Raises:
            ValueError: the data are not finite or of a wrong shape; a learned embedding cannot be
                trained.
            ArithmeticError: the posterior is not finite.
            RuntimeError: a learned embedding is not trained, in evaluation mode.
        """
        x = inputs["data"]
        self._check_data(x)
        embedding = self.embedding
        if self.training and isinstance(embedding, LearnedEmbedding) and not embedding.fitted:
            self.fit_embedding()
        # The distribution functions of the posteriors need full precision.
        with torch.autocast(x.device.type, enabled=False):
            posterior = POSTERIORS[self.model_config.posterior](*self._parameters_of(x))
            z = posterior.rsample()
            y = self._on_manifold(x, z)
            recon_x = self.decoder.network(y)["reconstruction"]
            recon_loss = -self._log_likelihood(x, recon_x).mean()
            reg_loss = posterior.kl().mean()
        return ModelOutput(
            loss=recon_loss + reg_loss,
            recon_loss=recon_loss,
            reg_loss=reg_loss,
            recon_x=recon_x,
            z=embedding.inverse(y) if self.model_config.group_action else z,
        )

    @torch.no_grad()
    def get_nll(self, data: torch.Tensor, n_samples: int = 1, batch_size: int = 100) -> float:
        r"""Estimate the log likelihood of data by importance sampling (the IWAE bound).

        .. math:: \log p(x) \ge E \log \frac1S \sum_{s=1}^S
                  \frac{N(x; \mu(y_s), \sigma^2 I)\, p(z_s)}{q(z_s | x)}, \quad z_s \sim q(z | x)

        The bound grows with S, to the value. As for pythae's models, the mean log likelihood is
        returned: its *sign* is not that of the name.

        Args:
            data: ``[N, *input_dim]``.
            n_samples: number S of samples for each data point.
            batch_size: number of samples that are decoded at a time.

        Returns:
            The mean over the data.

        Raises:
            ValueError: a number is less than 1, or the data do not fit.
        """
        self._check_data(data)
        if n_samples < 1 or batch_size < 1:
            raise ValueError(
                f"n_samples and batch_size must be at least 1, got {n_samples} and {batch_size}."
            )
        with evaluation_mode(self):
            mean, log_variance = (
                torch.cat(part)
                for part in zip(*map(self._parameters_of, data.split(batch_size)), strict=True)
            )
            rows = torch.arange(len(data), device=data.device).repeat_interleave(n_samples)
            log_weights = []
            for batch in rows.split(batch_size):
                x = data[batch]
                posterior = POSTERIORS[self.model_config.posterior](
                    mean[batch], log_variance[batch]
                )
                z = posterior.rsample()
                recon_x = self.decoder.network(self._on_manifold(x, z))["reconstruction"]
                log_weights.append(self._log_likelihood(x, recon_x) - posterior.log_ratio(z))
            log_weights = torch.cat(log_weights).view(len(data), n_samples)
        return float((log_weights.logsumexp(1) - math.log(n_samples)).mean())

    def _parameters_of(self, x):
        """Mean and log variance ``[B, n]`` of the posterior, before the group acts."""
        network = self.encoder.network if self.model_config.group_action else self.encoder
        output, shape = network(x), (len(x), self.latent_dim)
        mean, log_variance = output["embedding"], output["log_covariance"]
        if mean.shape != shape or log_variance.shape != shape:
            raise ValueError(
                f"The encoder must give embedding and log_covariance of shape {list(shape)} (the "
                f"manifold has dimension {self.latent_dim}), got {list(mean.shape)} and "
                f"{list(log_variance.shape)}."
            )
        if not bool(torch.isfinite(mean).all() & torch.isfinite(log_variance).all()):
            raise ArithmeticError(
                "The encoder's output is not finite, though the data are: training has diverged. "
                "Lower the learning rate, or raise likelihood_std."
            )
        return mean, log_variance

    def _log_likelihood(self, x, mean):
        """``[B]``."""
        std, error = self.model_config.likelihood_std, (x - mean).flatten(1)
        constant = error.shape[1] * (math.log(std) + 0.5 * math.log(2 * math.pi))
        return -0.5 * (error / std).square().sum(1) - constant

    # Files

    def save(self, dir_path: str | os.PathLike) -> None:
        """Save as pythae does: of networks of the user's own, those that were given are pickled.

        Raises:
            OSError: if the folder cannot be written.
        """
        # To pythae the model looks as if its networks were the user's alone; its state is whole.
        view = copy.copy(self)
        view._modules = {**self._modules, "decoder": self.decoder.network}
        if self.model_config.group_action:
            view._modules["encoder"] = self.encoder.network
        view.state_dict = self.state_dict
        super(ERManifoldVAE, view).save(dir_path)
        if _needs_pickle(self.model_config):
            chart = self.embedding.chart
            module = inspect.getmodule(chart if inspect.isfunction(chart) else type(chart))
            if module is not None and not isinstance(chart, types.BuiltinFunctionType):
                cloudpickle.register_pickle_by_value(module)  # as pythae does for networks
            with written_beside(os.path.join(dir_path, PICKLE)) as path, open(path, "wb") as f:
                cloudpickle.dump(chart, f)

    @classmethod
    def load_from_folder(cls, dir_path: str | os.PathLike):
        """Load a model that :meth:`save` wrote. Networks and an embedding of the user's own are
        unpickled, which can run any code: load only folders that you trust.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if one is damaged, or belongs to another model.
        """
        if not os.path.isfile(os.path.join(dir_path, "model_config.json")):
            return super().load_from_folder(dir_path)  # says what is missing
        config = cls._load_model_config_from_folder(dir_path)
        if not _needs_pickle(config):
            return super().load_from_folder(dir_path)
        weights = cls._load_model_weights_from_folder(dir_path)
        networks = {
            name: None
            if getattr(config, f"uses_default_{name}")
            else getattr(cls, f"_load_custom_{name}_from_folder")(dir_path)
            for name in ("encoder", "decoder")
        }
        path = os.path.join(dir_path, PICKLE)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"There is no file {path!r}: is the folder complete?")
        with open(path, "rb") as f:
            networks["exact_embedding"] = CPU_Unpickler(f).load()
        model = cls(config, **networks)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"The weights in {os.fspath(dir_path)!r} do not fit its model_config.json: {reason}"
            ) from error
        return model

    def _card_code(self, repo_id: str) -> str:
        code = super()._card_code(repo_id)
        if _needs_pickle(self.model_config) and "allow_pickle" not in code:
            code = code.removesuffix(")") + ", allow_pickle=True)"
        return code

    @classmethod
    def load_from_hf_hub(cls, hf_hub_path: str, allow_pickle: bool = False):
        """Load a model that :meth:`push_to_hf_hub` saved.

        Args:
            hf_hub_path: the repo, ``"namespace/name"``.
            allow_pickle: also load networks, or an exact embedding of the author's, that are stored
                as pickles. Unpickling can run any code: allow it only for authors you trust.

        Raises:
            ImportError: if huggingface_hub is not installed.
            ValueError: if there are pickles and ``allow_pickle`` is False.
        """
        loader = f"{cls.__name__}.load_from_hf_hub"
        folder = pull_model_folder(hf_hub_path, allow_pickle, loader)
        with open(os.path.join(folder, "model_config.json"), encoding="utf-8") as f:
            config = json.load(f)
        if _needs_pickle(types.SimpleNamespace(**config)):
            if not allow_pickle:
                raise ValueError(
                    f"{hf_hub_path} keeps its embedding in {PICKLE}, and unpickling can run any "
                    f"code: if you trust its author, call {loader} with allow_pickle=True."
                )
            pull_folder(hf_hub_path, [PICKLE])
        return cls.load_from_folder(folder)

    # What can be wrong

    def _check_functions(self, exact_embedding) -> None:
        config = self.model_config
        if self.manifold is None and self._sampler is not None:
            draw(self._sampler, 16, config.ambient_dim, torch.Generator().manual_seed(0))
        if exact_embedding is not None:
            if config.embedding == "learned":
                raise ValueError(
                    'embedding is "learned", but an exact_embedding is given: leave it out, or set '
                    'embedding="exact".'
                )
            self._check_chart()

    def _check_chart(self) -> None:
        n, m = self.latent_dim, self.model_config.ambient_dim
        with torch.no_grad():
            y = self.embedding(torch.linspace(-1, 1, 3 * n).view(3, n))
        if y.shape != (3, m) or not bool(torch.isfinite(y).all()):
            raise ValueError(
                f"exact_embedding must send points [B, {n}] of the cube to finite points [B, {m}] "
                f"(ambient_dim is {m}), got {list(y.shape)}."
            )

    def _check_decoder(self) -> None:
        m, expected = self.model_config.ambient_dim, (2, *self.model_config.input_dim)
        network = self.decoder.network
        where = next(network.parameters(), torch.zeros(()))
        y = torch.zeros(2, m, dtype=where.dtype, device=where.device)
        reason = ""
        try:
            with torch.no_grad(), evaluation_mode(network):
                shape = network(y)["reconstruction"].shape
            reason = f"its output has shape {list(shape)}"
        except Exception as error:  # whatever the user's network raises on a wrong shape
            shape, reason = None, f"it raised {' '.join(str(error).split())[:200]}"
        if shape is None or math.prod(shape) != math.prod(expected):
            raise ValueError(
                f"The decoder takes points of the manifold, [B, {m}], and gives data, "
                f"{['B', *self.model_config.input_dim]}, but for 2 points {reason}. Build it for "
                f"latent_dim = {m} (ambient_dim of the config)."
            )

    def _check_sampler(self) -> None:
        if self._sampler is None:
            raise ValueError(
                "This manifold of your own has no sampler here: pass sampler= to ERManifoldVAE."
            )

    def _check_data(self, x) -> None:
        input_dim = tuple(self.model_config.input_dim)
        if tuple(x.shape[1:]) != input_dim or len(x) == 0:
            raise ValueError(
                f"The data must have shape [B, {', '.join(map(str, input_dim))}], the model's "
                f"input_dim, got {list(x.shape)}."
            )
        check_finite(x, "The data")


def _needs_pickle(config) -> bool:
    return config.manifold == "custom" and config.embedding == "exact"
