"""Writing files whole or not at all, and reading tensors that others wrote."""

import contextlib
import os
import pickle
import tempfile
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def written_beside(path: str | os.PathLike) -> Iterator[str]:
    """A path beside ``path`` to write to, which takes its name when the block ends well."""
    folder, name = os.path.split(os.fspath(path))
    # The ending stays: writers of images choose the format by it.
    handle, beside = tempfile.mkstemp(
        prefix=".partial-", suffix="-" + name, dir=folder or os.curdir
    )
    os.close(handle)
    try:
        yield beside
        os.chmod(beside, 0o666 & ~_umask())  # mkstemp makes files that only their owner reads
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def ensure_writable(folder: str | os.PathLike, argument: str) -> None:
    """Create ``folder`` if need be, and see that files can be written there.

    Raises:
        OSError: naming the argument, if they cannot.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"{argument} {os.fspath(folder)!r} cannot be written ({error.strerror or error}): give "
            "a folder in which you may create files."
        ) from error


def load_tensors(path: str | os.PathLike, within: str | None = None) -> dict[str, torch.Tensor]:
    """Read a dictionary of tensors, on the CPU. Nothing in the file is executed.

    Args:
        path: the file.
        within: the key under which the file keeps the dictionary, if it does.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or holds anything but a dictionary of tensors.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file {path!r}: is it the folder that was saved to?")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, KeyError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path!r} is damaged or is not a file of tensors ({reason[:200]}): save it again."
        ) from error
    if within is not None:
        state = state.get(within) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError(f"{path!r} does not hold a dictionary of tensors: save it again.")
    return state


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
