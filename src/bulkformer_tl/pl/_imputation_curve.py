"""Quality of imputation against the share of hidden values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bulkformer_tl._anndata import get_params
from bulkformer_tl.pl._palette import OKABE_ITO, new_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

LABELS = {"pearson": "Pearson's r", "rmse": "RMSE, ln(TPM+1)", "coverage_90": "share inside the 90 % interval"}


def imputation_curve(
    adata: AnnData,
    *,
    metric: Literal["pearson", "rmse", "coverage_90"] = "rmse",
    axis: Literal["global", "per_gene", "per_sample"] = "global",
    by: Literal["entry", "gene"] = "entry",
    key: str = "score_imputation",
    ax: Axes | None = None,
) -> Axes:
    """Score of each method at each rate of hidden values.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.score_imputation`.
    metric
        Score to draw.
    axis
        Axis of the score.
    by
        What was hidden: entries or whole genes.
    key
        ``key_added`` of the scores.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: a line for each method, models solid, simple methods dashed.

    Raises
    ------
    KeyError
        If there are no such scores.
    """
    if not get_params(adata, key):
        message = f"adata.uns[{key!r}] is no result of bf.tl.score_imputation; call it first, or pass key="
        raise KeyError(message)
    table = adata.uns[key]["scores"]
    chosen = table[(table["metric"] == metric) & (table["axis"] == axis) & (table["by"] == by)]
    if chosen.empty:
        there = table[["metric", "axis", "by"]].drop_duplicates().to_numpy().tolist()
        message = f"there is no score of metric={metric!r}, axis={axis!r}, by={by!r}; those there are {there}"
        raise KeyError(message)
    simple = {"gene_mean", "knn", "pca", "factor_analysis"}
    axes = new_axes(ax, (5.6, 3.6))
    colours = OKABE_ITO * (1 + len(chosen) // len(OKABE_ITO))
    for colour, (method, rows) in zip(
        colours, chosen.sort_values("rate", kind="stable").groupby("method", sort=False), strict=False
    ):
        style = "--" if method in simple else "-"
        axes.errorbar(
            rows["rate"],
            rows["mean"],
            yerr=rows["seed_sd"].fillna(0),
            label=str(method),
            color=colour,
            linestyle=style,
            marker="o",
            markersize=4,
            linewidth=1.5 if style == "--" else 2.5,
        )
    if metric == "coverage_90":
        axes.axhline(0.9, color="#999999", linewidth=1)
    over = {"global": "over all hidden entries", "per_gene": "mean over genes", "per_sample": "mean over samples"}[axis]
    axes.set(xlabel=f"share of hidden {'values' if by == 'entry' else 'genes'}", ylabel=f"{LABELS[metric]}\n{over}")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return axes
