"""The program ``pythae-geometric``, also as ``python -m pythae_geometric``."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from . import __version__
from .commands import compare, generate, train

COMMANDS: dict[str, Any] = {"train": train, "generate": generate, "compare": compare}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names with the others; None: those of the process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    lines = [f"{name}: {module.__doc__.splitlines()[0]}" for name, module in COMMANDS.items()]
    p = argparse.ArgumentParser(
        "pythae-geometric",
        description="\n".join(lines),
        epilog="pythae-geometric COMMAND --help lists the arguments of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--version", action="version", version=f"pythae-geometric {__version__}")
    p.add_argument("command", choices=COMMANDS)
    command = p.parse_args(arguments[:1]).command
    former, warnings.formatwarning = warnings.formatwarning, _format
    try:
        COMMANDS[command].main(arguments[1:])
    finally:
        warnings.formatwarning = former


def _format(message, category, filename, lineno, line=None):
    """A warning without the line of code, which says nothing to those who run a program."""
    return f"{category.__name__}: {message}\n"


if __name__ == "__main__":
    main()
