"""What the samplers of this package share: decoding, images, files and the Hub."""

import os
import tempfile
from typing import ClassVar

import torch
from pythae.models import BaseAE
from pythae.samplers import BaseSampler, BaseSamplerConfig
from tqdm.auto import tqdm

from .. import hub
from .._extras import require
from .._files import ensure_writable, load_tensors, written_beside
from ..geometry._warnings import warn


class LatentSampler(BaseSampler):
    """A sampler that draws points of a latent space and decodes them.

    A subclass names its ``config_class`` and defines ``fit``, ``_draw`` (points), ``_state`` (the
    tensors that ``fit`` made) and ``_set_state``.
    """

    config_class: ClassVar[type[BaseSamplerConfig]]

    def __init__(self, model: BaseAE, sampler_config: BaseSamplerConfig | None = None):
        if not isinstance(model, BaseAE):
            raise TypeError(f"model must be a pythae model, got {type(model).__name__}.")
        if sampler_config is None:
            sampler_config = self.config_class()
        if not isinstance(sampler_config, self.config_class):
            raise TypeError(
                f"{type(self).__name__} takes a {self.config_class.__name__}, got "
                f"{type(sampler_config).__name__}."
            )
        super().__init__(model=model, sampler_config=sampler_config)
        self.dtype = next((p.dtype for p in model.parameters()), torch.float32)
        self._restart()

    def _restart(self) -> None:
        """Go back to the start of the stream of random numbers that the config's seed names."""
        seed = self.sampler_config.seed
        self._generator = None  # torch's global generator
        if seed is not None:
            self._generator = torch.Generator(self.device).manual_seed(seed)

    def _draw(self, num_samples: int) -> torch.Tensor:
        """Points ``[num_samples, d]`` that the decoder takes."""
        raise NotImplementedError

    def _state(self) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def _set_state(self, state: dict[str, torch.Tensor]) -> None:
        raise NotImplementedError

    def _report(self) -> str | None:
        """What went wrong in the last call of ``sample``, and what to do; None: nothing."""
        return None

    def _warn(self) -> None:
        if message := self._report():
            warn(message)

    def sample_latent(self, num_samples: int = 1, batch_size: int = 500) -> torch.Tensor:
        """Draw latent points, such that ``model.decoder`` takes them.

        Args:
            num_samples: how many, 0 or more.
            batch_size: how many at a time, 1 or more.

        Returns:
            Tensor ``[num_samples, latent_dim]`` on the sampler's device.

        Raises:
            RuntimeError: if the sampler is not fitted.
            ValueError: if a number is out of range.
        """
        z = torch.cat(list(self._batches(num_samples, batch_size)))
        self._warn()
        return z

    def sample(
        self,
        num_samples: int = 1,
        batch_size: int = 500,
        output_dir: str | None = None,
        return_gen: bool = True,
        save_sampler_config: bool = False,
    ) -> torch.Tensor | None:
        """Generate data.

        Args:
            num_samples: how many, 0 or more.
            batch_size: how many at a time, 1 or more.
            output_dir: folder, created if need be, for images ``00000000.png`` and on, of values
                cut off at 0 and 1. None: no images are saved.
            return_gen: whether to return the data.
            save_sampler_config: whether to save the sampler (:meth:`save`) in ``output_dir``.

        Returns:
            Tensor ``[num_samples, *input_dim]``, or None if ``return_gen`` is False.

        Raises:
            RuntimeError: if the sampler is not fitted.
            ValueError: if a number is out of range, if images are wanted of data that are none, if
                ``save_sampler_config`` comes without ``output_dir``, or if the decoder gives NaN.
            OSError: if ``output_dir`` cannot be written.
        """
        if save_sampler_config and output_dir is None:
            raise ValueError("save_sampler_config=True needs output_dir, the folder to save in.")
        batches = self._batches(num_samples, batch_size)
        shape = self._decode(torch.zeros(1, self.model.latent_dim)).shape[1:]
        if output_dir is not None:
            if len(shape) != 3 or shape[0] not in (1, 3, 4):
                raise ValueError(
                    "output_dir saves images, of shape [1, 3 or 4 channels, height, width], but "
                    f"the model decodes to {list(shape)}: leave it out and use the returned tensor."
                )
            ensure_writable(output_dir, "output_dir")

        generated, done = [], 0
        for z in batches:
            x = self._decode(z)
            if output_dir is not None:
                for image in x:
                    with written_beside(os.path.join(output_dir, f"{done:08d}.png")) as path:
                        # pythae's save_img wraps what is out of range round: black to white.
                        self.save_img(image.clamp(0, 1), *os.path.split(path))
                    done += 1
            if return_gen:
                generated.append(x)
        if save_sampler_config:
            self.save(output_dir)
        self._warn()
        if return_gen:
            return torch.cat(generated)
        return None

    def save(self, dir_path: str | os.PathLike) -> None:
        """Save the config (``sampler_config.json``) and the fitted sampler (``sampler.pt``).

        Raises:
            RuntimeError: if the sampler is not fitted.
            OSError: if the folder cannot be written.
        """
        self._check_fitted()
        ensure_writable(dir_path, "dir_path")
        with written_beside(os.path.join(dir_path, "sampler.pt")) as path:
            torch.save({name: v.cpu() for name, v in self._state().items()}, path)
        self.sampler_config.save_json(dir_path, "sampler_config")

    @classmethod
    def load(cls, dir_path: str | os.PathLike, model: BaseAE) -> "LatentSampler":
        """Load a sampler that :meth:`save` wrote, ready to sample from ``model``.

        Args:
            dir_path: the folder.
            model: the model that it was fitted to.

        Raises:
            FileNotFoundError: if the config or the fitted sampler is missing.
            ValueError: if one is damaged, or was fitted to a model of another latent dimension.
        """
        config = cls.config_class.from_json_file(os.path.join(dir_path, "sampler_config.json"))
        path = os.path.join(dir_path, "sampler.pt")
        state = load_tensors(path)
        sampler = cls(model, config)
        try:
            sampler._set_state(state)
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise ValueError(f"{path!r} does not fit a {cls.__name__}: {error}") from error
        return sampler

    def push_to_hf_hub(self, hf_hub_path: str) -> None:
        """Save the sampler together with its model in the repo ``"namespace/name"`` of the
        Hugging Face Hub, which is created where it does not exist.

        Raises:
            ImportError: if huggingface_hub is not installed.
            RuntimeError: if the sampler is not fitted.
        """
        require("huggingface_hub", "hub")
        title = f"{self.model.model_name} with {type(self).__name__}"
        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            self.model.save(folder)
            hub.push_folder(folder, hf_hub_path, title, self._card_code)

    @classmethod
    def load_from_hf_hub(
        cls, hf_hub_path: str, model: BaseAE | None = None, allow_pickle: bool = False
    ) -> "LatentSampler":
        """Load a sampler that :meth:`push_to_hf_hub` saved.

        Args:
            hf_hub_path: the repo, ``"namespace/name"``.
            model: the model to sample from; None: the one in the same repo.
            allow_pickle: also load networks of the model that are stored as pickles. Unpickling
                can run any code: allow it only for authors you trust.

        Raises:
            ImportError: if huggingface_hub is not installed.
            ValueError: if the model's networks are pickled and ``allow_pickle`` is False.
        """
        if model is None:
            from pythae.models import AutoModel

            loader = f"{cls.__name__}.load_from_hf_hub"
            folder = hub.pull_model_folder(hf_hub_path, allow_pickle, loader)
            model = AutoModel.load_from_folder(folder)
        folder = hub.pull_folder(hf_hub_path, ["sampler_config.json", "sampler.pt"])
        return cls.load(folder, model)

    def _card_code(self, repo_id: str) -> str:
        name = type(self).__name__
        return (
            f"from pythae_geometric.samplers import {name}\n\n"
            f"sampler = {hub.loading_call(name + '.load_from_hf_hub', self.model, repo_id)}\n"
            "generated = sampler.sample(num_samples=16)\n"
            "model = sampler.model"
        )

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            raise RuntimeError(
                f"This {type(self).__name__} is not fitted: call fit(train_data) first, or load a "
                "fitted one."
            )

    def _batches(self, num_samples: int, batch_size: int):
        """Check now; then yield batches of points as they are asked for (one empty batch for 0)."""
        for name, value, least in (("num_samples", num_samples, 0), ("batch_size", batch_size, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(
                    f"{name} must be a whole number of at least {least}, got {value!r}."
                )
        self._check_fitted()
        self.model.eval()
        return self._drawn(num_samples, batch_size)

    def _drawn(self, num_samples: int, batch_size: int):
        if num_samples == 0:
            yield torch.empty(0, self.model.latent_dim, device=self.device, dtype=self.dtype)
        with tqdm(total=num_samples, desc="Sampling", disable=None, leave=False) as bar:
            for start in range(0, num_samples, batch_size):
                size = min(batch_size, num_samples - start)
                yield self._draw(size)
                bar.update(size)

    @torch.no_grad()
    def _decode(self, z: torch.Tensor) -> torch.Tensor:
        z = z.to(self.device, self.dtype)
        if len(z) == 0:  # not every network takes an empty batch
            return self._decode(z.new_zeros(1, z.shape[1]))[:0]
        x = self.model.decoder(z)["reconstruction"].detach()
        bad = ~torch.isfinite(x).flatten(1).all(1)
        if bool(bad.any()):
            raise ValueError(
                f"The decoder of {self.model.model_name} gives NaN or infinity for "
                f"{int(bad.sum())} of {len(x)} samples, and these are not saved: its training has "
                "diverged. Train it again, with a smaller learning rate."
            )
        return x
