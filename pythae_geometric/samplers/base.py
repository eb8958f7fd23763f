"""What the samplers of this package share: decoding, images, files and the Hub."""

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pythae.models import BaseAE
from pythae.samplers import BaseSampler, BaseSamplerConfig

from .. import hub
from .._checks import check_count
from .._files import ensure_writable, load_tensors, read_together, saved_together, written_beside
from .._inputs import as_model, like
from .._processes import from_first, place
from ..config import built_config, parse_config
from ..geometry import RowStreams, evaluation_mode
from ..geometry._checks import check_flag
from ..geometry._warnings import warn
from ..geometry.row_streams import Source
from ..models.foreign import labels_for
from .fingerprint import fingerprint
from .posteriors import decode
from .progress import progress_bar

CONFIG, STATE, CHECKSUMS = "sampler_config.json", "sampler.pt", "sampler_checksums.json"
# The keys of the state under which a file keeps the fingerprint of the model, and that it was
# fitted since samples have streams of random numbers of their own.
FINGERPRINT, BY_ROWS = "fingerprint", "by_rows"


class LatentSampler(hub.Shareable, BaseSampler):
    """A sampler that draws points of a latent space and decodes them.

    The model is used in evaluation mode, and left in the mode that it had. A subclass names its
    ``config_class`` and defines ``fit``, ``_draw``, ``_state`` and ``_set_state``.

    Each sample has a stream of random numbers of its own (:class:`~.geometry.RowStreams`), the n-th
    since ``fit`` the n-th stream of the config's seed: batches of any size, and any number of
    processes, draw the same samples. What a sampler of version 0.1.0 draws, from a file, depends on
    the size of its batches as it did.
    """

    config_class: ClassVar[type[BaseSamplerConfig]]

    def __init__(self, model: BaseAE, sampler_config: BaseSamplerConfig | None = None):
        model = as_model(model)
        if sampler_config is None:
            sampler_config = self.config_class()
        if not isinstance(sampler_config, self.config_class):
            raise TypeError(
                f"{type(self).__name__} takes a {self.config_class.__name__}, got "
                f"{type(sampler_config).__name__}."
            )
        with evaluation_mode(model):  # where pythae would leave it
            super().__init__(model=model, sampler_config=sampler_config)
        self.dtype = like(model).dtype
        self._restart()

    def _restart(self) -> None:
        """Go back to the start of the stream of random numbers that the config's seed names."""
        seed = self.sampler_config.seed
        self._by_rows, self._next_row = True, 0
        self._generator = None  # torch's global generator
        if seed is not None:
            self._generator = torch.Generator(self.device).manual_seed(seed)

    @property
    def _is_shared(self) -> bool:
        """Whether several processes share the work; a custom config need not have the field."""
        return getattr(self.sampler_config, "several_processes", False)

    def _shared(self, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, of several processes in the first."""
        return from_first(make) if self._is_shared else make()

    def _random_seed(self) -> int:
        """The seed of the config, or one by torch's global generator."""
        if self.sampler_config.seed is not None:
            return self.sampler_config.seed
        return self._shared(lambda: int(torch.randint(2**31, ())))

    def _share(self, num_samples: int) -> range:
        """Which samples of a call this process draws."""
        rank, processes = place() if self._is_shared else (0, 1)
        return range(num_samples * rank // processes, num_samples * (rank + 1) // processes)

    @contextlib.contextmanager
    def _isolated(self) -> Iterator[None]:
        """The state of torch in which samplers fit and draw, whatever the caller's is."""
        with (
            evaluation_mode(self.model),
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast(self.device, enabled=False),
        ):
            yield

    def _finish_fit(self) -> None:
        """To be called when ``fit``, or loading, is complete."""
        self._fingerprint = fingerprint(self.model)
        self.is_fitted = True
        self._restart()

    def _draw(self, num_samples: int, source: Source) -> torch.Tensor:
        """Points ``[num_samples, d]`` that the decoder takes, by a source of random numbers."""
        raise NotImplementedError

    def _state(self) -> dict[str, torch.Tensor]:
        """The tensors that ``fit`` made."""
        raise NotImplementedError

    def _set_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take the tensors of a file; a ValueError says what is wrong with them ("it has ...")."""
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
            Tensor ``[num_samples, latent_dim]`` on the sampler's device; of several processes that
            share the work (``several_processes`` of the config) the share of this one.

        Raises:
            RuntimeError: if the sampler is not fitted.
            ValueError: if a number is out of range.
        """
        with self._isolated():
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
        labels=None,
    ) -> torch.Tensor | None:
        """Generate data.

        Args:
            num_samples: how many, 0 or more.
            batch_size: how many at a time, 1 or more.
            output_dir: folder, created if need be, for images ``00000000.png`` and on, of values
                cut off at 0 and 1. None: no images are saved. Images of an earlier run are
                replaced, if it was not longer.
            return_gen: whether to return the data.
            save_sampler_config: whether to save the sampler (:meth:`save`) in ``output_dir``.
            labels: of the samples, ``[num_samples, ...]`` or one number for all; for models whose
                networks take them (:mod:`~pythae_geometric.models.foreign`), and no others.

        Returns:
            Tensor ``[num_samples, *input_dim]``, or None if ``return_gen`` is False; of several
            processes that share the work (``several_processes`` of the config) the share of this
            one. Joined in the order of the processes they are what one process draws.

        Raises:
            RuntimeError: if the sampler is not fitted.
            TypeError: if labels are missing, or given to a model that takes none.
            ValueError: if a number is out of range, if labels are not as many, if images are
                wanted of data that are none, if ``output_dir`` holds those of a longer run, if
                ``save_sampler_config`` comes without ``output_dir``, or if the decoder gives NaN.
            OSError: if ``output_dir`` cannot be written.
        """
        check_flag("return_gen", return_gen)
        check_flag("save_sampler_config", save_sampler_config)
        if save_sampler_config and output_dir is None:
            raise ValueError("save_sampler_config=True needs output_dir, the folder to save in.")
        generated = []
        with self._isolated():
            batches = self._batches(num_samples, batch_size)
            # The decoder is tried before long chains are run.
            labels = labels_for(self.model, labels, num_samples)
            share = self._share(num_samples)
            labels, done = None if labels is None else labels[share.start : share.stop], share.start
            parts = itertools.repeat(()) if labels is None else zip(labels.split(batch_size))
            one = () if labels is None else (_one(labels),)
            shape = self._decode(torch.zeros(1, self.model.latent_dim), *one).shape[1:]
            if output_dir is not None:
                _check_images(shape, output_dir, num_samples)
            for z, of_z in zip(batches, parts, strict=False):
                x = self._decode(z, *of_z)
                if output_dir is not None:
                    for image in x:
                        with written_beside(os.path.join(output_dir, f"{done:08d}.png")) as path:
                            # pythae's save_img wraps what is out of range round: black to white.
                            self.save_img(image.clamp(0, 1), *os.path.split(path))
                        done += 1
                if return_gen:
                    generated.append(x)
            x = torch.cat(generated) if return_gen else None
        first = place()[0] == 0 or not self._is_shared
        if save_sampler_config and output_dir is not None and first:
            self.save(output_dir)
        self._warn()
        return x

    def save(self, dir_path: str | os.PathLike) -> None:
        """Save the config (``sampler_config.json``) and the fitted sampler (``sampler.pt``).

        Raises:
            RuntimeError: if the sampler is not fitted.
            OSError: if the folder cannot be written.
        """
        self._check_fitted()
        state = {**self._state(), FINGERPRINT: self._fingerprint}
        if self._by_rows:
            state[BY_ROWS] = torch.tensor(True)
        with saved_together(dir_path, "sampler") as folder:
            self.sampler_config.save_json(folder, "sampler_config")
            torch.save({name: v.cpu() for name, v in state.items()}, os.path.join(folder, STATE))

    @classmethod
    def load(cls, dir_path: str | os.PathLike, model: BaseAE) -> "LatentSampler":
        """Load a sampler that :meth:`save` wrote, ready to sample from ``model``.

        Args:
            dir_path: the folder.
            model: the model that it was fitted to.

        Raises:
            FileNotFoundError: if the config or the fitted sampler is missing.
            ValueError: if one is damaged, or was fitted to a model of another latent dimension.

        Warns:
            UserWarning: if it was fitted to a model of other weights.
        """
        files = read_together(dir_path, "sampler", (CONFIG, STATE))
        path = os.path.join(dir_path, STATE)
        config = cls._config_of(files.get(CONFIG), os.path.join(dir_path, CONFIG))
        state = load_tensors(files.get(STATE), path)
        saved, by_rows = state.pop(FINGERPRINT, None), state.pop(BY_ROWS, None)  # 0.1.0 saved none
        sampler = cls(model, config)
        try:
            sampler._set_state(state)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path!r} does not fit a {cls.__name__}: {error}") from error
        if saved is not None:
            if saved.tolist() != sampler._fingerprint.tolist():
                warn(
                    f"The sampler in {os.fspath(dir_path)!r} was fitted to a model of other "
                    f"weights than this {model.model_name}: what it draws will not decode to "
                    "samples like the data. Load the model that it was fitted to, or fit it again."
                )
            sampler._fingerprint = saved
        sampler._by_rows = by_rows is not None
        return sampler

    @classmethod
    def _config_of(cls, content: bytes | None, path: str) -> BaseSamplerConfig:
        fields = parse_config(content, path)
        if fields["name"] != cls.config_class.__name__:
            raise ValueError(
                f"{path!r} holds a {fields['name']}, not a {cls.config_class.__name__}: load it "
                "with the class that wrote it."
            )
        return built_config(cls.config_class, fields, path)

    def _save_for_hub(self, folder: str) -> None:
        self.save(folder)
        self.model.save(folder)

    def _card(self):
        return f"{self.model.model_name} with {type(self).__name__}", self._card_code

    @classmethod
    def load_from_hf_hub(
        cls,
        hf_hub_path: str,
        model: BaseAE | None = None,
        allow_pickle: bool = False,
        revision: str | None = None,
        token: str | None = None,
    ) -> "LatentSampler":
        """Load a sampler that :meth:`push_to_hf_hub` saved.

        Args:
            hf_hub_path: the repo, ``"namespace/name"``.
            model: the model to sample from; None: the one in the same repo.
            allow_pickle: also load networks of the model that are stored as pickles. Unpickling
                can run any code: allow it only for authors you trust.
            revision: a branch, tag or commit; None: the latest.
            token: of the Hub; None: that of ``hf auth login``.

        Raises:
            ImportError: if huggingface_hub is not installed.
            ValueError: if the model's networks are pickled and ``allow_pickle`` is False; if a file
                is damaged.

        Warns:
            UserWarning: if it was fitted to a model of other weights.
        """
        if model is None:
            loader = f"{cls.__name__}.load_from_hf_hub"
            model = hub.pull_model(hf_hub_path, allow_pickle, loader, revision, token)
        folder = hub.pull_folder(hf_hub_path, [CONFIG, STATE, CHECKSUMS], revision, token)
        return cls.load(folder, model)

    def _card_code(self, repo_id: str) -> str:
        name = type(self).__name__
        return (
            f"from pythae_geometric.samplers import {name}\n\n"
            f"sampler = {hub.loading_call(name + '.load_from_hf_hub', self.model, repo_id)}\n"
            "generated = sampler.sample(num_samples=16)\n"
            "model = sampler.model"
        )

    if not TYPE_CHECKING:  # to which any attribute would be known

        def __getattr__(self, name):
            # Called for what is not there: before fit, what a fit chooses.
            if name in getattr(type(self), "__annotations__", ()):
                raise AttributeError(f"{self._not_fitted()} Then it has a {name}.")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _not_fitted(self) -> str:
        name = type(self).__name__
        return f"This {name} is not fitted: call fit(train_data) first, or load a fitted one."

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            raise RuntimeError(self._not_fitted())

    def _batches(self, num_samples: int, batch_size: int) -> Iterator[torch.Tensor]:
        """Check now; then yield batches of points as they are asked for (one empty batch for 0)."""
        num_samples = check_count("num_samples", num_samples, 0)
        batch_size = check_count("batch_size", batch_size, 1)
        self._check_fitted()
        return self._drawn(num_samples, batch_size)

    def _drawn(self, num_samples: int, batch_size: int) -> Iterator[torch.Tensor]:
        share, source_of = self._share(num_samples), self._sources(num_samples)
        if len(share) == 0:
            yield torch.empty(0, self.model.latent_dim, device=self.device, dtype=self.dtype)
        with progress_bar("Sampling", len(share)) as bar:
            for first in range(share.start, share.stop, batch_size):
                size = min(batch_size, share.stop - first)
                yield self._draw(size, source_of(first, size))
                bar.update(size)

    def _sources(self, num_samples: int) -> Callable[[int, int], Source]:
        """The source of random numbers for samples of the next ``num_samples``, by the first of
        them and their number."""
        if not self._by_rows:
            return lambda first, size: self._generator
        seed, before = self._random_seed(), self._next_row
        if self.sampler_config.seed is not None:  # else each call has a seed of its own
            self._next_row += num_samples
        return lambda first, size: RowStreams(seed, size, before + first, self.device)

    def _decode(self, z: torch.Tensor, *labels: torch.Tensor) -> torch.Tensor:
        z = z.to(self.device, self.dtype)
        if len(z) == 0:  # not every network takes an empty batch
            return self._decode(z.new_zeros(1, z.shape[1]), *map(_one, labels))[:0]
        return decode(self.model, z, *labels)


def _one(labels: torch.Tensor) -> torch.Tensor:
    """The first label, or where there is none a zero, ``[1, ...]``."""
    return labels[:1] if len(labels) else labels.new_zeros(1, *labels.shape[1:])


def _check_images(shape: torch.Size, output_dir: str | os.PathLike, num_samples: int) -> None:
    """Raise unless data of this shape are images, and the folder is free to hold these."""
    if len(shape) != 3 or shape[0] not in (1, 3, 4):
        raise ValueError(
            "output_dir saves images, of shape [1, 3 or 4 channels, height, width], but the "
            f"model decodes to {list(shape)}: leave it out and use the returned tensor."
        )
    ensure_writable(output_dir, "output_dir")
    names = filter(re.compile(r"\d{8}\.png").fullmatch, os.listdir(output_dir))
    older = sorted(name for name in names if int(name[:8]) >= num_samples)
    if older:
        raise ValueError(
            f"output_dir {os.fspath(output_dir)!r} holds {len(older)} images from "
            f"{older[0]} on, of a longer run, which would pass for samples of this one: choose "
            "an empty folder, or delete them."
        )
