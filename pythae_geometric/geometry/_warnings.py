"""Warnings that point at the line that called this package."""

import itertools
import os
import sys
import traceback
import warnings

# The folder of pythae_geometric. Ends with a separator: a package whose name only begins like ours
# is not ours.
_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """``warnings.warn`` for the innermost line outside this package, however deep the call is."""
    if sys.version_info >= (3, 12):
        warnings.warn(message, category, skip_file_prefixes=(_PACKAGE,))
    else:
        frames = reversed(traceback.extract_stack())  # the first is this function's
        ours = itertools.takewhile(lambda frame: frame.filename.startswith(_PACKAGE), frames)
        warnings.warn(message, category, stacklevel=1 + sum(1 for _ in ours))
