"""Pictures of samples beside what they could be copies of."""

import os

import matplotlib.pyplot as plt
import torch

from pythae_geometric import plotting
from pythae_geometric.commands.files import slug
from pythae_geometric.commands.measures import reconstructions
from pythae_geometric.evaluation import nearest_distances

from .figures import save


def keep_samples(model, images, data, folder, *key, count=12):
    """Keep some samples, the training images nearest to them, and the reconstructions of those."""
    images = images[:count].detach().cpu().reshape(-1, *data.test.shape[1:]).clamp(0, 1)
    near = data.train[nearest_distances(images, data.train)[1]]
    os.makedirs(os.path.join(folder, "samples"), exist_ok=True)
    cells = torch.stack([images, near, reconstructions(model, near)])
    torch.save(cells, os.path.join(folder, "samples", f"{slug(*key)}.pt"))


def draw_samples(chosen, folder, name):
    """A picture of what was kept: a block of three rows for each ``(title, *key)``."""
    blocks = []
    for title, *key in chosen:
        file = os.path.join(folder, "samples", f"{slug(*key)}.pt")
        if os.path.exists(file):
            blocks.append((title, torch.load(file, weights_only=True)))
    if not blocks:
        return
    rows = -(-len(blocks) // 2)
    size = (10, 1.75 * rows)
    figure, axes = plt.subplots(rows, 2, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (title, cells) in zip(axes.flat, blocks, strict=False):
        plotting.image_grid(cells.flatten(0, 1), columns=cells.shape[1], ax=ax)
        ax.set_title(title, fontsize=9)
    figure.suptitle("Sample, nearest training image, its reconstruction", fontsize=10)
    save(figure, folder, name)
