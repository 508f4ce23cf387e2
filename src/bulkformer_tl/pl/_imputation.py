"""Predicted against measured expression at hidden entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bulkformer_tl._anndata import dense_rows, get_matrix, get_params
from bulkformer_tl.pl._palette import new_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


def imputation(adata: AnnData, *, key: str = "imputed", cmap: str = "viridis", ax: Axes | None = None) -> Axes:
    """Predicted against measured expression at the entries that were hidden from the model.

    Parameters
    ----------
    adata
        Annotated samples after ``bf.pp.hide(adata)`` and ``bf.tl.impute(adata, mask="hidden")``.
    key
        ``key_added`` of the imputation.
    cmap
        Colour map of the number of entries.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: hexagons coloured by the number of entries (log scale), the line of identity, and the Pearson correlation
    and root mean squared error over all hidden entries of all samples (global axis).

    Raises
    ------
    KeyError
        If there is no such imputation.
    ValueError
        If it was made without a mask, so that there is nothing to compare with.
    """
    params = get_params(adata, key)
    if not params or key not in adata.layers:
        message = f"adata.layers[{key!r}] is no result of bf.tl.impute; call it first, or pass key="
        raise KeyError(message)
    if not params.get("mask"):
        message = (
            f"{key!r} was imputed without hidden entries, so nothing measured can be compared; "
            'call bf.pp.hide(adata), then bf.tl.impute(adata, mask="hidden")'
        )
        raise ValueError(message)
    measured, predicted = _hidden_values(adata, key, str(params["mask"]), params["layer"])
    axes = new_axes(ax, (4.6, 4.0))
    top = float(max(measured.max(), predicted.max())) * 1.02
    image = axes.hexbin(
        measured, predicted, gridsize=60, bins="log", mincnt=1, cmap=cmap, extent=(0, top, 0, top), linewidths=0.1
    )
    axes.figure.colorbar(image, ax=axes, label="hidden entries")
    axes.plot([0, top], [0, top], color="#D55E00", linewidth=1, label="identity")
    r = float(np.corrcoef(measured, predicted)[0, 1])
    rmse = float(np.sqrt(np.mean((measured - predicted) ** 2)))
    axes.set(
        xlim=(0, top),
        ylim=(0, top),
        aspect="equal",
        xlabel="measured ln(TPM+1)",
        ylabel="predicted ln(TPM+1)",
        title=f"{len(measured):,} hidden entries\nglobal r = {r:.3f}, RMSE = {rmse:.3f}",
    )
    axes.title.set_fontsize("medium")
    return axes


def _hidden_values(adata: AnnData, key: str, mask: str, layer: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    everything = slice(0, adata.n_obs)
    source = get_matrix(adata, None if layer == "X" else layer)
    hidden = dense_rows(get_matrix(adata, mask), everything, bool)
    measured = dense_rows(source, everything, np.float64)[hidden]
    predicted = dense_rows(adata.layers[key], everything, np.float64)[hidden]
    # genes that the model does not know stay missing
    both = ~np.isnan(measured) & ~np.isnan(predicted)
    if not both.any():
        message = f"no entry marked in adata.layers[{mask!r}] is both measured and predicted"
        raise ValueError(message)
    return measured[both], predicted[both]
