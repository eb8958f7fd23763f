"""No progress bars and no windows: import this before torch and matplotlib."""

import logging
import os
import warnings

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import torch


def settle(threads=None):
    """Silence what pythae prints for each step, and keep warnings that users can act on."""
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore", module=r"pythae\b")
    if threads is not None:
        torch.set_num_threads(threads)
