"""Predicted against true numbers, with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bulkformer_tl import metrics
from bulkformer_tl._anndata import check_anndata, get_params
from bulkformer_tl._keys import RegressKeys
from bulkformer_tl.pl._palette import OKABE_ITO, new_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


def regression(adata: AnnData, key: str, *, intervals: bool = True, ax: Axes | None = None) -> Axes:
    """Draw predicted against true numbers.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.regress`.
    key
        Name of the result, such as ``"regress_age"``.
    intervals
        Whether each prediction stands in its interval.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: a point for each sample, those out of distribution open; dashed, the identity. Pearson's r and RMSE in the
    title are over all samples pooled; the table's are means over folds where its axis says so.

    Raises
    ------
    KeyError
        If there is no such result.
    ValueError
        If fewer than two predicted samples have a known number.
    """
    check_anndata(adata, or_mudata=True)
    params = get_params(adata, key)
    if params.get("task") != "regression":
        message = f"adata.uns[{key!r}] is no result of bf.tl.regress; call it first, or pass its key"
        raise KeyError(message)
    target = str(params["label"])
    keys = RegressKeys.of(target, None if key == f"regress_{target}" else key)
    slots = (keys.prediction, keys.low, keys.high)
    given = adata.obs[target].to_numpy(dtype=np.float64) if target in adata.obs else np.full(adata.n_obs, np.nan)
    known = ~np.isnan(given)
    if known.sum() < 2:
        message = f"adata.obs[{target!r}] is known of {int(known.sum())} samples; two are needed to compare"
        raise ValueError(message)
    truth = given[known]
    predicted, low, high = (adata.obs[slot.split("/")[1]].to_numpy(dtype=np.float64)[known] for slot in slots)
    outlier = adata.obs[keys.outlier.split("/")[1]].to_numpy(dtype=bool)[known]
    axes = new_axes(ax, (4.6, 4.4))
    finite = np.isfinite(low)
    if intervals and finite.any():
        axes.vlines(truth[finite], low[finite], high[finite], color=OKABE_ITO[4], linewidth=0.8, alpha=0.5)
    for shown, face, name in ((~outlier, OKABE_ITO[0], "in distribution"), (outlier, "none", "out of distribution")):
        if shown.any():
            axes.scatter(truth[shown], predicted[shown], s=18, facecolors=face, edgecolors=OKABE_ITO[0], label=name)
    ends = np.array([truth.min(), truth.max()])
    axes.plot(ends, ends, color="#7f7f7f", linestyle="--", linewidth=0.8)
    if outlier.any():
        axes.legend(frameon=False, fontsize="small")
    varies = np.ptp(predicted) > 0 and np.ptp(truth) > 0
    r = f"{metrics.pearson(truth, predicted):.3f}" if varies else "undefined"
    error = float(np.sqrt(np.mean((truth - predicted) ** 2)))
    axes.set(xlabel=f"true {target}", ylabel=f"predicted {target}")
    axes.set_title(f"{params['representation']}, {len(truth):,} samples\npooled r = {r}, RMSE = {error:.3g}")
    axes.title.set_fontsize("medium")
    return axes
