"""Scores of representations beside those of baselines, with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import check_anndata, get_params
from bulkformer_tl.metrics._tables import LESS_IS_BETTER
from bulkformer_tl.pl._palette import OKABE_ITO, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

#: What the axes of scores and the scores themselves are called in plots.
AXES = {
    "fold": "mean over test folds",
    "pooled": "all samples pooled",
    "per_drug": "mean over drugs",
    "per_gene": "mean over genes",
    "per_line": "mean over lines",
    "global": "all pairs together",
    "per_perturbation": "mean over perturbations",
    "fold_pairs": "pairs within test folds",
    "stratum_pairs": "pairs within folds and strata",
    "strata": "mean over strata",
    "samples": "mean over samples",
}
#: What the number of units counts, where it is not samples.
UNITS = {
    "per_drug": "drugs",
    "per_gene": "genes",
    "per_line": "lines",
    "global": "pairs",
}
NAMES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "macro F1",
    "f1_weighted": "weighted F1",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "pearson": "Pearson's r",
    "spearman": "Spearman's rho",
    "rmse": "RMSE",
    "r2": "R²",
    "pearson_delta": "Pearson's r of the change",
    "spearman_delta": "Spearman's rho of the change",
    "pearson_delta_top20": "Pearson's r of the change, top 20 genes",
    "spearman_delta_top20": "Spearman's rho of the change, top 20 genes",
    "pearson_top20": "Pearson's r, top 20 genes",
    "spearman_top20": "Spearman's rho, top 20 genes",
    "rmse_top20": "RMSE, top 20 genes",
    "harrell_c_within": "Harrell's C within strata",
    "harrell_c_macro": "Harrell's C of a stratum",
    "harrell_c": "Harrell's C",
    "uno_c": "Uno's C",
    "auc": "time-dependent AUC",
    "integrated_brier": "integrated Brier score",
}
#: Characters from which the label of an axis takes two lines.
WIDE = 60
BASELINE, REPRESENTATION = "#7f7f7f", OKABE_ITO[0]


def scores(
    adata: AnnData,
    key: str,
    *,
    metric: str | None = None,
    axis: str | None = None,
    target: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the scores of representations above those of the baselines.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.classify`, :func:`bulkformer_tl.tl.regress` or another task with
        such a table.
    key
        Name of the result, such as ``"classify_disease"``.
    metric
        Score to draw; ``None`` takes the first of the table, AUROC or Pearson's r.
    axis
        Axis of the score, where the table has several, such as ``"per_drug"``; ``None`` takes the first.
    target
        Which target, after :func:`bulkformer_tl.tl.finetune`; ``None`` takes the first.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: a point and its interval for each representation (filled, best on top) and, below a line, for each
    baseline (open, grey); dashed, the score of the best baseline. The label names the axis of the score. What a
    prediction leaves undefined has no point.

    Raises
    ------
    KeyError
        If there is no such table, score, axis or target.
    """
    table, baselines = read_scores(adata, key, metric, target)
    table = _along(table, key, axis)
    name = str(table["metric"].iloc[0])
    less = name in LESS_IS_BETTER
    is_baseline = table["representation"].isin(baselines).to_numpy()
    order = np.lexsort((table["mean"].to_numpy() * (1 if less else -1), is_baseline))
    table, is_baseline = table.iloc[order], is_baseline[order]
    axes = new_axes(ax, (5.6, 1.4 + 0.32 * len(table)))
    for y, (row, grey) in enumerate(zip(table.to_dict("records"), is_baseline, strict=True)):
        colour = BASELINE if grey else REPRESENTATION
        axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(row["mean"], y, "o", color=colour, markerfacecolor="white" if grey else colour, markersize=7)
    best = _best(table["mean"].to_numpy()[is_baseline], less=less)
    if best is not None:
        axes.axvline(best, color=BASELINE, linestyle="--", linewidth=0.8, zorder=0)
    if is_baseline.any() and not is_baseline.all():
        axes.axhline((~is_baseline).sum() - 0.5, color="black", linewidth=0.8)
    params = get_params(adata, key)
    level = f"{100 * float(params['protocol']['level']):g} %" if "protocol" in params else "bootstrap"
    where = AXES.get(str(table["axis"].iloc[0]), str(table["axis"].iloc[0]))
    better = ", less is better" if less else ""
    label = f"{NAMES.get(name, name)}{better} ({where}; {level} interval)"
    axes.set(
        yticks=range(len(table)),
        yticklabels=table["representation"].tolist(),
        ylim=(len(table) - 0.5, -0.5),
        xlabel=label if len(label) < WIDE else label.replace(" (", "\n(", 1),
        title=f"{_title(key, table)}, {int(table['n'].iloc[0]):,} {UNITS.get(str(table['axis'].iloc[0]), 'samples')}",
    )
    axes.title.set_fontsize("medium")
    for tick, grey in zip(axes.get_yticklabels(), is_baseline, strict=True):
        tick.set_color("#555555" if grey else "black")
        tick.set_fontstyle("italic" if grey else "normal")
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _title(key: str, table: pd.DataFrame) -> str:
    return f"{key}, {table['target'].iloc[0]}" if "target" in table else key


def _along(table: pd.DataFrame, key: str, axis: str | None) -> pd.DataFrame:
    known = list(dict.fromkeys(table["axis"].astype(str)))
    if axis is not None and axis not in known:
        message = f"adata.uns[{key!r}] has no axis {axis!r} of this score; choose among {known}"
        raise KeyError(message)
    return table[table["axis"] == (axis or known[0])]


def _best(means: Any, *, less: bool) -> float | None:
    known = means[~np.isnan(means)]
    if not len(known):
        return None
    return float(known.min() if less else known.max())


def read_scores(
    adata: AnnData, key: str, metric: str | None, target: str | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of one score, and which of the representations are baselines.

    Raises
    ------
    KeyError
        If there is no such table or score; the message lists those that there are.
    """
    check_anndata(adata, or_mudata=True)
    params = get_params(adata, key)
    if not params:
        message = f"adata.uns[{key!r}] is no result of this package; call bf.tl.classify, for example, first"
        raise KeyError(message)
    entry: Any = adata.uns[key]
    if "scores" not in entry or "representation" not in entry["scores"]:
        message = f"adata.uns[{key!r}] has no scores of representations; no label was known to score"
        raise KeyError(message)
    table: pd.DataFrame = entry["scores"]
    targets = list(dict.fromkeys(table["target"].astype(str))) if "target" in table else []
    if target is not None and target not in targets:
        message = f"adata.uns[{key!r}] has no target {target!r}; choose among {targets}"
        raise KeyError(message)
    if targets:
        table = table[table["target"] == (target or targets[0])]
    known = list(dict.fromkeys(table["metric"].astype(str)))
    wanted = known[0] if metric is None else metric
    if wanted not in known:
        message = f"there is no score {wanted!r} in adata.uns[{key!r}]; choose among {known}"
        raise KeyError(message)
    return table[table["metric"] == wanted], [str(name) for name in params.get("baselines", [])]
