"""Figures, written whole or not at all."""

import os

import matplotlib.pyplot as plt

from pythae_geometric import plotting
from pythae_geometric.commands.files import replaced

plt.rcParams.update(plotting.STYLE)


def save(figure, folder, name, **options):
    """Write a figure and close it."""
    with replaced(os.path.join(folder, name)) as beside:
        figure.savefig(beside, **{"dpi": 100, **options})
    plt.close(figure)
