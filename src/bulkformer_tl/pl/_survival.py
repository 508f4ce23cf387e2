"""Survival of the two risk groups, and hazard ratios."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import check_anndata, get_params
from bulkformer_tl._optional import require
from bulkformer_tl.pl._palette import OKABE_ITO, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

#: Colours of the groups, and the others in their order.
COLOURS = {"low": OKABE_ITO[0], "high": OKABE_ITO[5]}
#: Points below the axis at which the table of numbers at risk begins, and between its lines.
TABLE, LINE = 46, 13


def kaplan_meier(adata: AnnData, key: str = "survival", *, ax: Axes | None = None) -> Axes:
    """Draw the survival of the samples of high and of low predicted risk.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.survival`.
    key
        Name of the result.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: a Kaplan-Meier curve for each group with its pointwise interval, a mark where samples are censored, the
    p-value of the log-rank test, and below the axis how many samples are still at risk at each tick.

    Raises
    ------
    KeyError
        If there is no such result.
    """
    curves, params = _read(adata, key, "curves")
    axes = new_axes(ax, (6.0, 4.6))
    groups = [name for name in COLOURS if (curves["group"] == name).any()]
    for name in groups:
        own = curves[curves["group"] == name]
        start = own.iloc[0]
        label = f"{name} risk ({int(start['at_risk']):,} samples, {int(own['events'].sum()):,} events)"
        _curve(axes, own, COLOURS[name], label)
    test = adata.uns[key].get("log_rank", {})
    axes.legend(
        loc="upper right", frameon=False, title=_test(test), title_fontsize="small", fontsize="small", alignment="left"
    )
    longest = float(curves["time"].max())
    axes.set(xlim=(-0.01 * longest, 1.02 * longest), ylim=(-0.02, 1.05), xlabel=str(params["label"]))
    axes.set_ylabel("share without the event")
    axes.set_title(f"{params['representation']}, {int(params['n']):,} samples", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    _numbers_at_risk(axes, curves, groups, longest)
    return axes


def _curve(axes: Axes, own: pd.DataFrame, colour: str, label: str) -> None:
    time, survival = own["time"].to_numpy(), own["survival"].to_numpy()
    axes.plot(time, survival, drawstyle="steps-post", color=colour, linewidth=1.8, label=label)
    low, high = own["low"].to_numpy(), own["high"].to_numpy()
    axes.fill_between(time, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
    marks = own["censored"].to_numpy() > 0
    axes.plot(time[marks], survival[marks], "|", color=colour, markersize=6, markeredgewidth=0.9)


def _test(test: Any) -> str:
    if "p" not in test or np.isnan(float(test["p"])):
        return ""
    p = float(test["p"])
    where = " within strata" if bool(test["stratified"]) else ""
    return f"log-rank{where}: p {'< 0.0001' if p < 1e-4 else f'= {p:.2g}'}"


def _numbers_at_risk(axes: Axes, curves: pd.DataFrame, groups: list[str], longest: float) -> None:
    """Write the numbers below the ticks, at a distance in points, so that they stay there at any size."""
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= longest]
    axes.set_xticks(ticks)
    below: dict[str, Any] = {
        "textcoords": "offset points",
        "va": "center",
        "fontsize": "small",
        "annotation_clip": False,
    }
    beside: dict[str, Any] = {**below, "xycoords": "axes fraction", "ha": "right"}
    axes.annotate("at risk", (0, 0), (-16, -TABLE), **beside, color="#555555")
    for line, name in enumerate(groups, start=1):
        depth = -TABLE - line * LINE
        axes.annotate(name, (0, 0), (-16, depth), **beside, color=COLOURS[name], fontweight="bold")
        own = curves[curves["group"] == name]
        for tick in ticks:
            later = own[own["time"] >= tick]
            n = int(later["at_risk"].iloc[0]) if len(later) else 0
            place: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "ha": "center", "color": COLOURS[name]}
            axes.annotate(f"{n}", (tick, 0), (0, depth), **below, **place)


def forest(adata: AnnData, key: str = "survival", *, ax: Axes | None = None) -> Axes:
    """Draw hazard ratios of the predicted risk and of covariates.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.survival`.
    key
        Name of the result.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes, logarithmic: for each term the hazard ratio and its interval, alone (open) and, where there are
    covariates, beside them (filled); the numbers and p-values to the right. A dashed line marks a ratio of 1.

    Raises
    ------
    ImportError
        If the task was run without lifelines, so that there are no hazard ratios.
    KeyError
        If there is no such result.
    """
    table, params = _read(adata, key, "hazard_ratios")
    terms = list(dict.fromkeys(table["term"]))
    rows = [table[table["term"] == term] for term in terms]
    n_rows = sum(map(len, rows))
    axes = new_axes(ax, (7.4, 1.5 + 0.36 * n_rows))
    position, ticks = 0.0, []
    for term in rows:
        ticks.append(position + (len(term) - 1) / 2)
        for row in term.to_dict("records"):
            _ratio(axes, row, position)
            position += 1
        position += 0.35
    axes.axvline(1, color="#7f7f7f", linestyle="--", linewidth=0.8, zorder=0)
    level = f"{100 * float(params['protocol']['level']):g} %"
    axes.set(yticks=ticks, yticklabels=terms, ylim=(position - 0.85, -0.7), xlabel=f"hazard ratio ({level} interval)")
    _logarithmic(axes, table)
    axes.annotate(
        f"ratio ({level} interval), p",
        (1, 1),
        (8, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize="small",
        color="#555555",
        va="bottom",
        annotation_clip=False,
    )
    if (table["model"] == "adjusted").any():
        for model, face in (("alone", "white"), ("adjusted", OKABE_ITO[0])):
            axes.plot([], [], "o", color=OKABE_ITO[0], markerfacecolor=face, label=model)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize="small", borderpad=0.1)
    title = f"{params['representation']}, {int(table['n'].iloc[0]):,} samples, {int(table['events'].iloc[0]):,} events"
    axes.set_title(title, fontsize="medium", pad=24)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return axes


def _ratio(axes: Axes, row: dict[Any, Any], y: float) -> None:
    beside: dict[str, Any] = {
        "xycoords": axes.get_yaxis_transform(),
        "textcoords": "offset points",
        "va": "center",
        "fontsize": "small",
        "annotation_clip": False,
    }
    if np.isnan(row["hazard_ratio"]):
        axes.annotate("no estimate", (1, y), (8, 0), **beside, color="#7f7f7f")
        return
    filled = row["model"] == "adjusted"
    axes.plot([row["low"], row["high"]], [y, y], color=OKABE_ITO[0], linewidth=2, solid_capstyle="butt")
    axes.plot(
        row["hazard_ratio"],
        y,
        "o",
        color=OKABE_ITO[0],
        markerfacecolor=OKABE_ITO[0] if filled else "white",
        markersize=7,
    )
    p = "< 0.0001" if row["p"] < 1e-4 else f"{row['p']:.2g}"
    text = f"{row['hazard_ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f}), {p}"
    axes.annotate(text, (1, y), (8, 0), **beside)


def _logarithmic(axes: Axes, table: pd.DataFrame) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ends = table[["low", "high"]].to_numpy()
    ends = ends[np.isfinite(ends) & (ends > 0)]
    low, high = min([0.8, *ends]), max([1.25, *ends])
    axes.set_xscale("log")
    axes.set_xlim(low / 1.1, high * 1.1)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low > 10 else (1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _read(adata: AnnData, key: str, table: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return a table of a survival task and its parameters.

    Raises
    ------
    ImportError
        If hazard ratios are wanted and lifelines was not there.
    KeyError
        If there is no such result or table.
    """
    check_anndata(adata, or_mudata=True)
    params = get_params(adata, key)
    if params.get("task") != "survival":
        message = f"adata.uns[{key!r}] is no result of bf.tl.survival; call it first, or pass its key"
        raise KeyError(message)
    entry: Any = adata.uns[key]
    if table == "hazard_ratios" and table not in entry and "curves" in entry:
        require("lifelines", extra="survival", purpose="bf.tl.survival with hazard ratios")
        message = f"adata.uns[{key!r}] has no hazard ratios, since lifelines was absent; call bf.tl.survival again"
        raise KeyError(message)
    if table not in entry:
        message = f"adata.uns[{key!r}] has no curves, since no outcome was known to score"
        raise KeyError(message)
    return entry[table], params
