"""Command lines: what all scripts take, and numbers that are refused in one sentence."""

import argparse
import contextlib

import torch


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


def parser(text, output_dir=None, quick="small, to see that it runs"):
    """A parser with ``--quick``, and ``--output-dir`` where there is a default for it, that shows a
    module's docstring ``text`` as it is written."""
    p = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--quick", action="store_true", help=quick)
    if output_dir is not None:
        p.add_argument("--output-dir", default=output_dir, help=f"({output_dir})")
    return p


def timing_arguments(text):
    """The arguments of a benchmark that runs on any device; its threads are set, and all is said in
    a line."""
    p = parser(text)
    p.add_argument("--threads", type=at_least(1), help="threads of torch (default: its own choice)")
    p.add_argument("--device", default="cpu")
    args = p.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads, float32\n")
    return args
