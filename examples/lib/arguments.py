"""Types of command-line arguments: a number out of range is refused in one sentence."""

import argparse
import contextlib


def at_least(least):
    """The type of an argument that is a whole number of at least ``least``."""

    def number(text):
        with contextlib.suppress(ValueError):
            if int(text) >= least:
                return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")

    return number


def positive(text):
    """The type of an argument that is a finite number above 0."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


def parser(text):
    """A parser that shows a module's docstring ``text`` as it is written."""
    return argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
