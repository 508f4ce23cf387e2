"""Predicted against measured change of expression under a perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bulkformer_tl import metrics
from bulkformer_tl._anndata import check_anndata, get_params
from bulkformer_tl._keys import ResponseKeys
from bulkformer_tl.pl._palette import OKABE_ITO, new_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

#: Shares of the axes between the labels of genes, and between a label and its point.
LINE, AWAY = 0.032, 0.025


def perturbation_response(
    adata: AnnData,
    key: str = "perturbation_response",
    *,
    perturbation: str,
    dose: float | None = None,
    held_out: str | None = None,
    n_labels: int = 20,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the predicted against the measured change of every gene under a perturbation that was held out.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.perturbation_response`.
    key
        Name of the result.
    perturbation
        Which perturbation.
    dose
        Which dose; ``None`` leaves it open.
    held_out
        Which value of the column that was held out, such as the donor; ``None`` leaves it open.
    n_labels
        Genes to name: those whose measured change is largest.
    gene_symbols
        Column of ``var`` with their names; ``None`` takes ``var_names``.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: a point per gene, the named ones dark, with the identity dashed. The title has Pearson's r over all genes
    and over the named ones. Predictions are those of the latest run under this key. Where several doses or held-out
    values are left open, the one of median r is drawn and the title says of how many: an average over predictions that
    were each made from the others would come close to the average of what was measured, whatever they are worth.

    Raises
    ------
    KeyError
        If there is no such result, perturbation, dose, group or column.
    """
    measured, predicted, title = _changes(adata, key, perturbation, dose, held_out)
    if gene_symbols is not None and gene_symbols not in adata.var:
        message = f"adata.var has no column {gene_symbols!r}; its columns are {adata.var.columns.tolist()}"
        raise KeyError(message)
    names = adata.var_names if gene_symbols is None else adata.var[gene_symbols]
    known = np.flatnonzero(~np.isnan(measured))
    top = known[np.argsort(-np.abs(measured[known]), kind="stable")[:n_labels]]
    axes = new_axes(ax, (5.4, 5.0))
    axes.axhline(0, color="#d0d0d0", linewidth=0.8, zorder=0)
    axes.axvline(0, color="#d0d0d0", linewidth=0.8, zorder=0)
    axes.scatter(measured[known], predicted[known], s=5, color="#9a9a9a", alpha=0.5, linewidths=0, rasterized=True)
    axes.scatter(measured[top], predicted[top], s=16, color=OKABE_ITO[0], zorder=3)
    ends = np.array([np.nanmin(measured), np.nanmax(measured)])
    axes.plot(ends, ends, color="#7f7f7f", linestyle="--", linewidth=0.8)
    axes.margins(x=0.34)
    _label(axes, measured[top], predicted[top], [str(name) for name in np.asarray(names)[top]])
    over_all, over_top = (_r(measured[genes], predicted[genes]) for genes in (known, top))
    axes.set(
        xlabel="measured change of ln(TPM+1)",
        ylabel="predicted change, held out",
        title=f"{title}\nr = {over_all}, top {len(top)} genes r = {over_top}",
    )
    axes.title.set_fontsize("medium")
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _changes(
    adata: AnnData, key: str, perturbation: str, dose: float | None, held_out: str | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Return measured and predicted change of each gene in the condition of median score, and what that is."""
    check_anndata(adata)
    params = get_params(adata, key)
    if params.get("task") != "perturbation_response":
        message = f"adata.uns[{key!r}] is no result of bf.tl.perturbation_response; call it first, or pass its key"
        raise KeyError(message)
    table = adata.uns[key]["perturbations"]
    table = table[table["representation"] == params["representation"]].reset_index(drop=True)
    rows = np.ones(len(table), dtype=bool)
    for name, wanted in (("perturbation", perturbation), ("dose", dose), ("held_out", held_out)):
        if wanted is None:
            continue
        there = table[name].tolist() if name in table else []
        if wanted not in there:
            message = f"there is no {name} {wanted!r} in adata.uns[{key!r}]; choose among {sorted(set(there))}"
            raise KeyError(message)
        rows &= (table[name] == wanted).to_numpy()
    if not rows.any():
        message = (
            f"no sample in adata.uns[{key!r}] has this perturbation, dose and group together; leave one of them out"
        )
        raise KeyError(message)
    keys = ResponseKeys(key)
    slots = [np.asarray(adata.varm[slot.split("/")[1]], dtype=np.float64) for slot in (keys.measured, keys.predicted)]
    places = np.flatnonzero(rows)
    scores = np.nan_to_num(table["pearson_delta"].to_numpy(dtype=float)[places])
    chosen = places[np.argsort(scores, kind="stable")[(len(places) - 1) // 2]]
    row = table.iloc[chosen]
    facts = [str(row[name]) for name in ("dose", "held_out") if name in table and str(row[name]) != perturbation]
    which = f", median of {len(places)}" if len(places) > 1 else ""
    title = f"{', '.join([perturbation, *facts])}{which}: {params['representation']}"
    return slots[0][:, chosen], slots[1][:, chosen], title


def _label(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], names: list[str]) -> None:
    """Name points, left of those that fall and right of those that rise, and apart from each other."""
    from sklearn.isotonic import isotonic_regression

    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    step, away = LINE * (high - low), AWAY * (right - left)
    for side, anchor, shift in ((x < 0, "right", -away), (x >= 0, "left", away)):
        order = np.flatnonzero(side)[np.argsort(y[side], kind="stable")]
        # heights a line apart that are moved least
        ladder = step * np.arange(len(order))
        heights = isotonic_regression(y[order] - ladder) + ladder
        for i, height in zip(order, heights, strict=True):
            axes.plot([x[i], x[i] + shift], [y[i], height], color=OKABE_ITO[0], linewidth=0.5)
            axes.text(x[i] + shift, height, names[i], ha=anchor, va="center", fontsize=7)


def _r(measured: NDArray[np.float64], predicted: NDArray[np.float64]) -> str:
    varies = len(measured) > 1 and np.ptp(predicted) > 0 and np.ptp(measured) > 0
    return f"{metrics.pearson(measured, predicted):.2f}" if varies else "undefined"
