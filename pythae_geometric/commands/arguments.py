"""Command lines: what all commands take, and numbers that are refused in one sentence."""

import argparse
import contextlib
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number of at least ``least``."""

    def number(text: str) -> int:
        with contextlib.suppress(ValueError):
            if int(text) >= least:
                return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")

    return number


def positive(text: str) -> float:
    """The type of an argument that is a finite number above 0."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


def parser(
    text: str | None,
    output_dir: str | None = None,
    quick: str = "small, to see that it runs",
    prog: str | None = None,
) -> argparse.ArgumentParser:
    """A parser with ``--quick``, and ``--output-dir`` where there is a default for it, that shows a
    module's docstring ``text`` as it is written. ``prog`` is the name of the command, if it is not
    that of the script."""
    p = argparse.ArgumentParser(
        prog, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--quick", action="store_true", help=quick)
    if output_dir is not None:
        p.add_argument("--output-dir", default=output_dir, help=f"({output_dir})")
    return p
