"""Files that are written whole or not at all, and tensors that others wrote.

A save is often several files: a config, weights, networks. :func:`saved_together` lets them take
effect at one instant, and :func:`read_together` reads the files of one save, never a mixture of
two, with their checksums compared. A process may be killed, or another one may save to the same
folder, at any time.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator

import torch

# Leftovers of a process elsewhere, of which nobody can say whether it lives, are kept so long.
_ABANDONED = 24 * 3600.0


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


@contextlib.contextmanager
def saved_together(folder: str | os.PathLike, kind: str) -> Iterator[str]:
    """A folder to write the files of one save to, which enter ``folder`` when the block ends well.

    The files and their checksums are moved to a subfolder ``.KIND-saved`` in one step. From then on
    they are the save; one by one they move to their places, which whoever saves next completes if
    this process cannot.

    Args:
        folder: where the files go; created if need be.
        kind: ``"model"`` or ``"sampler"``: a folder may hold one of each.

    Raises:
        OSError: if the folder cannot be written.
    """
    ensure_writable(folder, "dir_path")
    _remove_leftovers(folder, kind)
    prefix = f".{kind}-partial-{socket.gethostname()}-{os.getpid()}-"
    beside = tempfile.mkdtemp(prefix=prefix, dir=folder)
    try:
        yield beside
        checksums = {name: _checksum(beside, name) for name in sorted(os.listdir(beside))}
        with open(os.path.join(beside, _checksums(kind)), "w", encoding="utf-8") as file:
            json.dump(checksums, file, indent=1)
        os.chmod(beside, 0o777 & ~_umask())  # mkdtemp makes folders that only their owner reads
        saved = _saved(folder, kind)
        while True:
            _move_to_places(folder, kind)
            try:
                os.rename(beside, saved)
                break
            except OSError:  # another process has just saved, and not moved its files yet
                if not os.path.isdir(saved):
                    raise
        _move_to_places(folder, kind)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def read_together(folder: str | os.PathLike, kind: str, names: Iterable[str]) -> dict[str, bytes]:
    """The contents of those of the files ``names`` that there are, all of one save.

    Raises:
        FileNotFoundError: if there is no folder, or a file is missing that was saved.
        ValueError: if a file is not what was saved.
    """
    folder = os.fspath(folder)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"There is no folder {folder!r} to load from.")
    names, before = tuple(names), None
    while True:
        read = {name: _read(folder, kind, name) for name in (_checksums(kind), *names)}
        found = {name: content for name, (content, _) in read.items()}
        wrong = _first_wrong(folder, kind, found)
        if wrong is None:
            contents = {name: found[name] for name in names}
            return {name: data for name, data in contents.items() if data is not None}
        files = [file for _, file in read.values()]
        if files == before:  # no other process is saving: it will not get better
            raise wrong
        if before is not None:
            time.sleep(0.01)
        before = files


def read_latest(folder: str | os.PathLike, kind: str, name: str) -> bytes | None:
    """The content of one file of the latest save, wherever it is at this moment; None: there is
    none."""
    return _read(folder, kind, name)[0]


def _read(folder, kind: str, name: str) -> tuple[bytes | None, tuple | None]:
    """The content of a file, and what tells it from others of that name and content."""
    # A file that is no longer in the first place has just moved to the second.
    for path in (os.path.join(_saved(folder, kind), name), os.path.join(folder, name)):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                return file.read(), (status.st_ino, status.st_mtime_ns)
    return None, None


def ensure_writable(folder: str | os.PathLike, argument: str) -> None:
    """Create ``folder`` if need be, and see that files can be written there.

    Raises:
        OSError: naming the argument, if they cannot.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=os.fspath(folder)):
            pass
    except OSError as error:
        raise OSError(
            f"{argument} {os.fspath(folder)!r} cannot be written ({error.strerror or error}): give "
            "a folder in which you may create files."
        ) from error


def load_tensors(
    content: bytes | None, path: str | os.PathLike, within: str | None = None
) -> dict[str, torch.Tensor]:
    """Read a dictionary of tensors, on the CPU. Nothing in the file is executed.

    torch does not look at the checksums inside its files, and lets tensors claim more numbers than
    a file holds: here both are refused.

    Args:
        content: of the file; None: there is no file.
        path: where it was, for errors.
        within: the key under which the file keeps the dictionary, if it does.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or holds anything but a dictionary of tensors.
    """
    path = os.fspath(path)
    if content is None:
        raise FileNotFoundError(f"There is no file {path!r}: is it the folder that was saved to?")
    try:
        archive = io.BytesIO(_checked_archive(content))
        state = torch.load(archive, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path!r} is damaged or is not a file of tensors ({reason[:200]}): save it again."
        ) from error
    if within is not None:
        state = state.get(within) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(map(_is_whole, state.values())):
        raise ValueError(f"{path!r} does not hold a dictionary of tensors: save it again.")
    return state


def _checked_archive(content: bytes) -> bytes:
    """An archive of the same files, each of which has its checksum.

    Written anew: of a damaged one torch may read other bytes than those that were checked.
    """
    checked = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(checked, "w") as new:
        if sum(info.file_size for info in old.infolist()) > len(content):
            raise ValueError("it claims to hold more than its size")
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    return checked.getvalue()


def _is_whole(value: object) -> bool:
    """Whether it is a tensor in memory with as many numbers as it claims."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


# The files of a save


def _checksums(kind: str) -> str:
    return f"{kind}_checksums.json"


def _saved(folder, kind: str) -> str:
    return os.path.join(folder, f".{kind}-saved")


def _move_to_places(folder, kind: str) -> None:
    """Move the files of a finished save to where users look for them.

    Several processes may do it at once: what one has moved, another does not find.
    """
    saved = _saved(folder, kind)
    with contextlib.suppress(FileNotFoundError):
        # The checksums go last: while they are here, files are looked for here first.
        for name in sorted(os.listdir(saved), key=lambda name: (name == _checksums(kind), name)):
            with contextlib.suppress(FileNotFoundError):
                os.replace(os.path.join(saved, name), os.path.join(folder, name))
    with contextlib.suppress(OSError):  # gone already, or another save is there by now
        os.rmdir(saved)


def _first_wrong(folder: str, kind: str, found: dict[str, bytes | None]) -> Exception | None:
    """The error for the first file that is not as it was saved."""
    text = found[_checksums(kind)]
    if text is None:  # version 0.1.0 wrote none
        return None
    path = os.path.join(folder, _checksums(kind))
    try:
        checksums = json.loads(text)
        checksums = {name: str(checksums[name]) for name in checksums}
    except (ValueError, TypeError, RecursionError):
        return ValueError(f"{path!r} is damaged: load a copy, or save again.")
    for name, content in found.items():
        if name not in checksums:
            continue
        if content is None:
            return FileNotFoundError(
                f"There is no file {os.path.join(folder, name)!r}, which was saved with the "
                "others: is the folder complete?"
            )
        if hashlib.sha256(content).hexdigest() != checksums[name]:
            return ValueError(
                f"{os.path.join(folder, name)!r} is damaged, or was changed after it was saved: "
                "load a copy, or save again. If you changed it yourself, delete "
                f"{_checksums(kind)}, which holds the checksums."
            )
    return None


def _checksum(folder: str, name: str) -> str:
    with open(os.path.join(folder, name), "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _remove_leftovers(folder, kind: str) -> None:
    """Remove what saves left that were killed."""
    prefix = f".{kind}-partial-"
    for name in os.listdir(folder):
        if name.startswith(prefix):
            path = os.path.join(folder, name)
            host, _, rest = name.removeprefix(prefix).rpartition("-")[0].rpartition("-")
            if not _may_live(path, host, rest):
                shutil.rmtree(path, ignore_errors=True)


def _may_live(path: str, host: str, pid: str) -> bool:
    """Whether the process that writes a folder may still be at work."""
    try:
        if time.time() - os.path.getmtime(path) > _ABANDONED:
            return False
        if os.name == "posix" and host == socket.gethostname():
            os.kill(int(pid), 0)  # sends nothing; it only asks whether the process is there
    except (ProcessLookupError, FileNotFoundError):
        return False
    except (ValueError, OverflowError, PermissionError):
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
