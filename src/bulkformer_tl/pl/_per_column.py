"""The score of each drug or gene by itself, beside that of another prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import check_anndata, get_params
from bulkformer_tl.metrics._tables import LESS_IS_BETTER
from bulkformer_tl.pl._palette import OKABE_ITO, new_axes
from bulkformer_tl.pl._scores import BASELINE, NAMES

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

#: Up to so many drugs or genes have their name.
N_NAMED = 40


def per_column(
    adata: AnnData,
    key: str,
    *,
    metric: str | None = None,
    baseline: str = "pca",
    representation: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the score of each drug or gene, sorted, beside that of a baseline.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.drug_response` or :func:`bulkformer_tl.tl.essentiality`.
    key
        Name of the result, such as ``"drug_response"``.
    metric
        Score to draw; ``None`` takes the first of the table, AUROC or Pearson's r.
    baseline
        What to compare with, a row of the tables.
    representation
        What to draw; ``None`` takes that of the latest run.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: drugs or genes from worst to best, filled points for the representation, open grey ones for the baseline,
    and dashed lines at their means. What a prediction leaves undefined has no point.

    Raises
    ------
    KeyError
        If there is no such result, score, representation or baseline.
    """
    table, column, params = _read(adata, key)
    measured = [name for name in table.columns if name not in ("representation", column, "n")]
    score = measured[0] if metric is None else metric
    if score not in measured:
        message = f"there is no score {score!r} of each {column} in adata.uns[{key!r}]; choose among {measured}"
        raise KeyError(message)
    name = str(params["representation"]) if representation is None else representation
    found = []
    for wanted in (name, baseline):
        rows = table[table["representation"] == wanted].set_index(column)[score]
        if rows.empty:
            known = table["representation"].unique().tolist()
            message = f"adata.uns[{key!r}] has no rows of {wanted!r}; choose among {known}"
            raise KeyError(message)
        found.append(rows)
    less = score in LESS_IS_BETTER
    own = found[0].dropna().sort_values(ascending=not less, kind="stable")
    other = found[1].reindex(own.index)
    axes = new_axes(ax, (7.2, 3.8))
    at = np.arange(len(own))
    axes.vlines(at, own, other.fillna(own), color="#dddddd", linewidth=1, zorder=0)
    axes.plot(at, other, "o", color=BASELINE, markerfacecolor="white", markersize=4, label=f"{baseline} (baseline)")
    axes.plot(at, own, "o", color=OKABE_ITO[0], markersize=4, label=name)
    for values, colour in ((own, OKABE_ITO[0]), (other.dropna(), BASELINE)):
        if len(values):
            axes.axhline(float(values.mean()), color=colour, linestyle="--", linewidth=0.8)
    better = ", less is better" if less else ""
    axes.set(ylabel=f"{NAMES.get(score, score)}{better}", xlim=(-1, max(len(own), 1)))
    if len(own) <= N_NAMED:
        axes.set_xticks(at, [str(one) for one in own.index], rotation=90, fontsize="small")
    else:
        axes.set(xticks=[], xlabel=f"{len(own):,} {column}s, worst to best")
    wins = (own < other if less else own > other)[other.notna()]
    axes.set_title(f"{key}: {name} is better in {int(wins.sum())} of {len(wins)} {column}s")
    axes.title.set_fontsize("medium")
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _read(adata: AnnData, key: str) -> tuple[pd.DataFrame, str, dict[str, Any]]:
    """Return the table of scores of each drug or gene, and which of both they are."""
    check_anndata(adata, or_mudata=True)
    params, entry = get_params(adata, key), adata.uns.get(key, {})
    for column in ("drug", "gene"):
        if params and f"per_{column}" in entry:
            return entry[f"per_{column}"], column, params
    message = (
        f"adata.uns[{key!r}] has no scores of drugs or genes; call bf.tl.drug_response or bf.tl.essentiality first"
    )
    raise KeyError(message)
