"""The genes that predictions rest on most, and in which direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import check_anndata, get_matrix, get_params
from bulkformer_tl._keys import AttributeKeys
from bulkformer_tl.pl._palette import new_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


def attributions(
    adata: AnnData,
    key: str = "attributions",
    *,
    n_genes: int = 15,
    layer: str | None = None,
    names: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the attributions of the genes that matter most, a point for each sample.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.attribute`.
    key
        Name of the result.
    n_genes
        How many genes, by their mean absolute attribution.
    layer
        Expression that colours the points, by rank within the gene; ``None`` takes what the model read.
    names
        Column of ``var`` with names of genes, such as symbols; ``None`` takes ``var_names``.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: a row per gene, the one that matters most on top. To the right of the line a gene's expression raises the
    score of a sample above that of the baseline. The title tells the rank correlation with shuffled weights, which
    should be low.

    Raises
    ------
    KeyError
        If there is no such result or column.
    """
    check_anndata(adata)
    keys, params = AttributeKeys(key), get_params(adata, key)
    if "randomised_correlation" not in params:
        message = f"adata.uns[{key!r}] is no result of bf.tl.attribute; call it first"
        raise KeyError(message)
    if names is not None and names not in adata.var:
        message = f"adata.var has no column {names!r}; its columns are {adata.var.columns.tolist()}"
        raise KeyError(message)
    values = np.asarray(adata.layers[keys.layer.split("/")[1]])
    read = str(params["layer"]) if layer is None else layer
    matrix: Any = get_matrix(adata, None if read == "X" and layer is None else read)
    mean = adata.var[keys.mean.split("/")[1]].to_numpy()
    best = np.argsort(-np.nan_to_num(mean, nan=-1.0), kind="stable")[: min(n_genes, int((~np.isnan(mean)).sum()))]
    axes = new_axes(ax, (5.6, 1.4 + 0.3 * len(best)))
    jitter = np.random.default_rng(0)
    drawn = None
    for y, gene in enumerate(best):
        shown = ~np.isnan(values[:, gene])
        column = matrix[:, [gene]]
        column = np.asarray(column.toarray() if hasattr(column, "toarray") else column, dtype=np.float64).ravel()[shown]
        order = np.argsort(np.argsort(column)) / max(len(column) - 1, 1)
        heights = y + jitter.uniform(-0.25, 0.25, int(shown.sum()))
        drawn = axes.scatter(values[shown, gene], heights, c=order, cmap="coolwarm", vmin=0, vmax=1, s=14, linewidths=0)
    axes.axvline(0, color="black", linewidth=0.8, zorder=0)
    labels = adata.var_names if names is None else adata.var[names].astype(str)
    label = f" of {params['label']!r}" if params["label"] else ""
    axes.set(
        yticks=range(len(best)),
        yticklabels=[str(labels.to_numpy()[gene]) for gene in best],
        ylim=(len(best) - 0.5, -0.5),
        xlabel=f"attribution to the score{label} of {params['target']}",
        title=f"{int(params['n'])} samples, correlation with shuffled weights {params['randomised_correlation']:.2f}",
    )
    axes.title.set_fontsize("medium")
    axes.spines[["top", "right"]].set_visible(False)
    if drawn is not None:
        bar = axes.figure.colorbar(drawn, ax=axes, ticks=[0, 1], pad=0.02, aspect=40)
        bar.ax.set_yticklabels(["low", "high"])
        bar.set_label("expression within the gene")
        bar.outline.set_visible(False)
    return axes
