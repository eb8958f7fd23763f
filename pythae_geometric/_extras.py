"""Optional dependencies, imported where they are used."""

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, or say which extra of this package brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"This needs {module.partition('.')[0]}, which did not import ({error}). "
            f'Install it with: pip install "pythae-geometric[{extra}]"'
        ) from error
