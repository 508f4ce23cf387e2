"""One score along each of its axes, representations beside baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.pl._palette import OKABE_ITO, new_axes
from bulkformer_tl.pl._scores import AXES, BASELINE, NAMES, UNITS, read_scores

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

#: Points of one axis stand within this distance of its middle.
SPREAD = 0.32


def score_axes(adata: AnnData, key: str, *, metric: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw a score along each axis of its table, which shows what a high number is made of.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.drug_response` or :func:`bulkformer_tl.tl.essentiality`.
    key
        Name of the result, such as ``"drug_response"``.
    metric
        Score to draw; ``None`` takes the first of the table, AUROC or Pearson's r.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: a group of points for each axis, first that within drugs or genes, a point and its interval for each
    representation (filled) and baseline (open, grey shapes). What has no correlation along an axis, as the mean of a
    drug within it, has a cross at the bottom.

    Raises
    ------
    KeyError
        If there is no such table or score.
    """
    table, baselines = read_scores(adata, key, metric)
    axes = new_axes(ax, (6.6, 4.0))
    names = list(dict.fromkeys(table["representation"].astype(str)))
    order = [name for name in names if name not in baselines] + [name for name in names if name in baselines]
    known = list(dict.fromkeys(table["axis"].astype(str)))
    shifts = np.linspace(-SPREAD, SPREAD, len(order)) if len(order) > 1 else np.zeros(1)
    shapes = iter("sDv^<>Ph")
    colours = iter(OKABE_ITO)
    for name, shift in zip(order, shifts, strict=True):
        grey = name in baselines
        colour = BASELINE if grey else next(colours)
        style: dict[str, Any] = {
            "color": colour,
            "markersize": 6,
            "markerfacecolor": "white" if grey else colour,
            "linestyle": "none",
        }
        shape = next(shapes) if grey else "o"
        own = table[table["representation"] == name].set_index("axis").loc[known]
        at = np.arange(len(known)) + shift
        mean = own["mean"].to_numpy(dtype=np.float64)
        axes.vlines(at, own["low"], own["high"], color=colour, linewidth=1.6)
        axes.plot(at, mean, marker=shape, label=name, zorder=3, **style)
        for x in at[np.isnan(mean)]:
            # at the bottom, whatever the scores are
            axes.plot(x, 0.03, marker="x", color=colour, markersize=5, transform=axes.get_xaxis_transform())
    for edge in np.arange(len(known) - 1) + 0.5:
        axes.axvline(edge, color="#cccccc", linewidth=0.8)
    counts = table.drop_duplicates("axis").set_index("axis")["n"]
    words = [f"{AXES.get(axis, axis)}\n({int(counts[axis]):,} {UNITS.get(axis, 'samples')})" for axis in known]
    score = str(table["metric"].iloc[0])
    axes.set(xticks=range(len(known)), xticklabels=words, ylabel=NAMES.get(score, score), xlim=(-0.5, len(known) - 0.5))
    axes.set_title(f"{key}: one prediction, {len(known)} axes")
    axes.title.set_fontsize("medium")
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    axes.spines[["top", "right"]].set_visible(False)
    return axes
