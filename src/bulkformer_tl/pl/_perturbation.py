"""What perturbations do: the largest effects beside their null, or all of them by rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, get_params
from bulkformer_tl.pl._palette import OKABE_ITO, new_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

#: Inches of one row, and of what stands above and below the rows.
ROW, FRAME = 0.22, 1.1


def perturbation(
    adata: AnnData,
    key: str = "perturb",
    *,
    group: str | None = None,
    output: str | None = None,
    n_top: int = 20,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the largest effects of perturbations with their intervals, beside what they are compared with.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.perturb`.
    key
        Name of the result.
    group
        Which group of samples; ``None`` takes the only one, or the first.
    output
        Which number that was read, such as ``"toward control"``; ``None`` takes the first.
    n_top
        How many perturbations to draw.
    gene_symbols
        Column of ``var`` with the names to write; ``None`` takes those of the table.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes, a row for each perturbation, the largest effect on top: the mean over samples as a dot, filled where the
    false discovery rate is at most 5 %, with its 95 % interval; a bar for the mean of the matched null, a cross for the
    first-order estimate, and a diamond for what is expected of a combination without synergy.

    Raises
    ------
    KeyError
        If there is no such result, group, output or column.
    ValueError
        If no exact pass was run, or ``n_top`` is not above 0.
    """
    table, title = _read(adata, key, group, output, n_top)
    names = table["perturbation"].astype(str)
    if gene_symbols is not None:
        names = _symbols(adata, names, gene_symbols)
    rows = np.arange(len(table))[::-1]
    axes = new_axes(ax, (5.4, FRAME + ROW * len(table)))
    axes.axvline(0, color="#d0d0d0", linewidth=0.8, zorder=0)
    axes.hlines(rows, table["low"], table["high"], color=OKABE_ITO[0], linewidth=1.2)
    found = table["fdr"].to_numpy() <= 0.05 if "fdr" in table else np.ones(len(table), dtype=bool)
    face: Any = np.where(found, OKABE_ITO[0], "#ffffff")
    axes.scatter(table["effect"], rows, s=26, color=face, edgecolors=OKABE_ITO[0], zorder=3, label="effect")
    marks = {"null": ("|", "#555555", "matched null"), "first_order": ("x", OKABE_ITO[1], "first order")}
    marks["expected"] = ("D", OKABE_ITO[3], "without synergy")
    for name, (marker, colour, label) in marks.items():
        if name in table and table[name].notna().any():
            size = 60 if marker == "|" else 20
            axes.scatter(table[name], rows, s=size, marker=marker, color=colour, linewidth=1.2, zorder=4, label=label)
    axes.set_yticks(rows, names.tolist(), fontsize="small")
    axes.set_ylim(-0.8, len(table) - 0.2)
    axes.set(xlabel=str(table["output"].iloc[0]))
    axes.set_title(title, fontsize="medium")
    axes.legend(frameon=False, fontsize="small", loc="best")
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _read(adata: AnnData, key: str, group: str | None, output: str | None, n_top: int) -> tuple[pd.DataFrame, str]:
    check_anndata(adata)
    params, entry = get_params(adata, key), adata.uns.get(key, {})
    if "change_kind" not in params or "table" not in entry:
        message = f"adata.uns[{key!r}] holds no perturbations; call bf.tl.perturb(adata) first"
        raise KeyError(message)
    if n_top < 1:
        message = f"n_top is {n_top}; use 1 or more"
        raise ValueError(message)
    table: pd.DataFrame = entry["table"]
    for name, wanted in (("group", group), ("output", output)):
        known = table[name].astype(str).unique().tolist()
        if wanted is not None and wanted not in known:
            message = f"adata.uns[{key!r}] has no {name} {wanted!r}; it has {known}"
            raise KeyError(message)
        table = table[table[name].astype(str) == (known[0] if wanted is None else wanted)]
    exact = table[table["effect"].notna()]
    if not len(exact):
        message = f"adata.uns[{key!r}] holds estimates alone; call bf.tl.perturb with screen above 0, or None"
        raise ValueError(message)
    top = exact.loc[exact["effect"].abs().sort_values(ascending=False, kind="stable").index[:n_top]]
    several = "" if params["groupby"] == "" else f", {params['groupby']} {top['group'].iloc[0]}"
    title = (
        f"{params['change_kind']}{several}: {len(top)} of {len(table):,} perturbations, {int(top['n'].max())} samples"
    )
    return top, title


def _symbols(adata: AnnData, names: pd.Series, column: str) -> pd.Series:
    if column not in adata.var:
        message = f"adata.var has no column {column!r}; its columns are {adata.var.columns.tolist()}"
        raise KeyError(message)
    known = pd.Series(adata.var[column].astype(object).to_numpy(), index=adata.var_names.astype(str))
    known = known[known.notna() & (known != "") & ~known.index.duplicated()]
    return names.map(lambda name: "+".join(str(known.get(part, part)) for part in name.split("+")))
