"""Figures, written whole or not at all."""

import os

import matplotlib.pyplot as plt

from .files import replaced


def save(figure, folder, name, **options):
    """Write a figure and close it."""
    with replaced(os.path.join(folder, name)) as beside:
        figure.savefig(beside, **{"dpi": 100, **options})
    plt.close(figure)
