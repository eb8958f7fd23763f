"""Warnings that point at the user's line."""

import itertools
import os
import sys
import traceback
import warnings


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """``warnings.warn`` for the innermost line of the user's, however deep the call is.

    That is the innermost line outside this package, torch (whose modules call ``forward``) and
    pythae (whose trainers call models).
    """
    between = _folders("pythae_geometric", "torch", "pythae")
    if sys.version_info >= (3, 12):
        warnings.warn(message, category, skip_file_prefixes=between)
    else:
        frames = reversed(traceback.extract_stack())  # the first is this function's
        ours = itertools.takewhile(lambda frame: frame.filename.startswith(between), frames)
        warnings.warn(message, category, stacklevel=1 + sum(1 for _ in ours))


def _folders(*names: str) -> tuple[str, ...]:
    """Where the packages lie that are imported.

    Each ends with a separator: a package whose name only begins like one of them is not it.
    """
    files = (getattr(sys.modules.get(name), "__file__", None) for name in names)
    return tuple(os.path.join(os.path.dirname(file), "") for file in files if file)
