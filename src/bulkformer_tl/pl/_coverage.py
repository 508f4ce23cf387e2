"""How much of a model's vocabulary each sample measures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import get_matrix, get_params, row_blocks
from bulkformer_tl.pl._palette import OKABE_ITO, new_axes, palette

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

#: Kinds of vocabulary genes, from bottom to top of a bar, and their colours.
KINDS = {
    "detected": OKABE_ITO[0],
    "measured zero": OKABE_ITO[4],
    "missing value": OKABE_ITO[1],
    "gene not in the table": "#999999",
}
#: Groups in a column of the legend.
ROWS = 9


def coverage(adata: AnnData, *, key: str = "bulkformer", groupby: str | None = None, ax: Axes | None = None) -> Axes:
    """Share of the model's genes that each sample detects, measures as zero, misses, or has no column for.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.embed` or :func:`bulkformer_tl.tl.impute`.
    key
        ``key_added`` of that result.
    groupby
        Column of ``obs``; samples are ordered by it and a strip of its colours is drawn below. ``None`` orders by the
        number of detected genes.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: one bar per sample, stacked to 1.

    Raises
    ------
    KeyError
        If there is no such result, or no such column.
    """
    params = get_params(adata, key)
    column = f"{key}_in_vocabulary"
    if not params or column not in adata.var:
        message = (
            f"adata.uns[{key!r}] is no result of bf.tl.embed or bf.tl.impute; call one of them first, or pass key="
        )
        raise KeyError(message)
    colours = None if groupby is None else palette(adata, groupby)
    layer = None if params["layer"] == "X" else str(params["layer"])
    shares = _shares(adata, layer, adata.var[column].to_numpy(dtype=bool), int(params["n_vocabulary"]))
    labels = np.zeros(adata.n_obs) if groupby is None else pd.Categorical(adata.obs[groupby]).codes
    order = np.lexsort((-shares[:, 0], labels))
    n_columns = 1 + (len(colours or ()) - 1) // ROWS
    axes = new_axes(ax, (6.4 + 1.4 * max(n_columns - 1, 0), 3.6))
    x, bottom = np.arange(adata.n_obs), np.zeros(adata.n_obs)
    for kind, colour, share in zip(KINDS, KINDS.values(), shares[order].T, strict=True):
        axes.bar(x, share, bottom=bottom, width=1.0, color=colour, label=kind, linewidth=0)
        bottom = bottom + share
    axes.set(
        xlim=(-0.5, adata.n_obs - 0.5),
        ylim=(-0.06 if groupby else 0, 1),
        xticks=[],
        xlabel=f"{adata.n_obs} samples" + (f", by {groupby}" if groupby else ""),
        ylabel=f"share of {int(params['n_vocabulary']):,} genes",
        title=f"{params['model']}: {params['coverage']:.1%} of its genes are in the table",
    )
    bars = axes.containers[-len(KINDS) :][::-1]
    kinds = axes.legend(bars, list(KINDS)[::-1], loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    if groupby is not None and colours is not None:
        # a second legend would take the place of the first
        axes.add_artist(kinds)
        # what is clipped to the axes does not count when a figure is cut to its contents
        kinds.set_clip_on(False)
        _strip(axes, adata.obs[groupby].astype(str).to_numpy()[order], colours, groupby)
    return axes


def _shares(
    adata: AnnData, layer: str | None, in_vocabulary: NDArray[np.bool_], n_vocabulary: int
) -> NDArray[np.float64]:
    counts = []
    for _, block in row_blocks(get_matrix(adata, layer)):
        known = block[:, in_vocabulary]
        missing = np.isnan(known)
        counts.append(np.stack([(known > 0).sum(1), (known == 0).sum(1), missing.sum(1)], axis=1))
    table = np.concatenate(counts).astype(np.float64)
    return np.column_stack([table, n_vocabulary - table.sum(axis=1)]) / n_vocabulary


def _strip(axes: Axes, labels: NDArray[Any], colours: dict[str, str], title: str) -> None:
    """Draw the groups' colours below the bars, and what they mean beside them."""
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    ends = np.r_[starts[1:], len(labels)]
    strips = [
        axes.bar(
            (start + end - 1) / 2,
            -0.05,
            bottom=-0.01,
            width=end - start,
            color=colours.get(labels[start], "#808080"),
            linewidth=0,
        )
        for start, end in zip(starts, ends, strict=True)
    ]
    axes.legend(
        strips,
        labels[starts],
        title=title,
        loc="lower left",
        bbox_to_anchor=(1.0, -0.05),
        ncols=1 + (len(starts) - 1) // ROWS,
        fontsize="x-small",
        frameon=False,
    )
