"""How the pictures of this package look."""

import contextlib

from ._extras import require

# Colours that colour-blind readers can tell apart, from M. Okabe, K. Ito, Color universal design,
# 2008; without black, which is for curves, and yellow, which white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Classes that share a colour differ by these.
MARKERS = ("o", "^", "s", "X")

# Settings of matplotlib. They hold for the figures that this package makes, and nowhere else: for
# your own figures use ``with matplotlib.pyplot.rc_context(plotting.STYLE):``.
STYLE = {
    "axes.labelsize": 10,
    "axes.prop_cycle": f"cycler('color', {[colour[1:] for colour in COLOURS]})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: pictures are the same everywhere
    "font.size": 10,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


def style_for(axes) -> contextlib.AbstractContextManager:
    """The style of this package for a new figure (``axes`` None), the caller's for a given one."""
    if axes is not None:
        return contextlib.nullcontext()
    return require("matplotlib", "viz").rc_context(STYLE)


def volume_map():
    """The colours of a volume: greys, since colours are for what is drawn over them."""
    colors = require("matplotlib.colors", "viz")
    return colors.LinearSegmentedColormap.from_list("volume", ["0.35", "0.97"])


def legend_beside(ax) -> None:
    """Name everything on ``ax`` that has a label, to its right, where no data are."""
    ax.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small", markerscale=2
    )
