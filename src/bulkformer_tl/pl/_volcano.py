"""Effect and p-value of every gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, get_params
from bulkformer_tl.pl._palette import OKABE_ITO, new_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

UP, DOWN, REST = OKABE_ITO[5], OKABE_ITO[0], "#b8b8b8"
TABLES = {"measured": "genes", "imputed": "imputed"}
#: Labels: size in points, width of a letter and height of a line relative to it, and how far they may move.
FONT, LETTER, LINE, REACH = 7.5, 0.6, 1.25, 90.0


def volcano(
    adata: AnnData,
    key: str,
    *,
    values: Literal["measured", "imputed"] = "measured",
    n_labels: int = 10,
    min_effect: float = 0.0,
    symbols: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the effect of each gene against its p-value.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.biomarkers` or
        :func:`bulkformer_tl.tl.differential_expression`.
    key
        Name of the result, such as ``"biomarkers"``.
    values
        ``"measured"``, or ``"imputed"`` where the two were compared; genes that imputation gained are then open.
    n_labels
        How many genes are named, those with the smallest p-values among those that were found.
    min_effect
        Least change in doublings (of expression or hazard, either way) that is coloured and named.
    symbols
        Column of ``var`` with the names to write; ``None`` takes ``var_names``.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: logarithm to base 2 of the fold change or hazard ratio against minus the logarithm to base 10 of the
    p-value; coloured, genes below the false discovery rate of the result, which is the dashed line; dotted,
    ``min_effect``. Triangles at the border stand for genes beyond it. Genes that were not tested are left out.

    Raises
    ------
    KeyError
        If there is no such result, table or column.
    ValueError
        If no gene was tested, or a number of labels or an effect is negative.
    """
    table, alpha = _read(adata, key, values, symbols)
    for name, number in (("n_labels", n_labels), ("min_effect", min_effect)):
        if number < 0:
            message = f"{name} is {number}; use 0 or more"
            raise ValueError(message)
    found = (table["fdr"].to_numpy() <= alpha) & (np.abs(table["effect"].to_numpy()) >= min_effect)
    named = np.flatnonzero(found)[np.argsort(table["p"].to_numpy()[found], kind="stable")][:n_labels]
    axes = new_axes(ax, (5.4, 4.6))
    x, beyond = _clip(table["effect"].to_numpy(), named)
    y = table["score"].to_numpy()
    colours = np.select([found & (x > 0), found & (x < 0)], [UP, DOWN], REST)
    gained = found & (table["change"] == "gained").to_numpy() if "change" in table else np.zeros_like(found)
    for marker, part in (("o", ~beyond), (">", beyond & (x > 0)), ("<", beyond & (x < 0))):
        layers = ((part & ~found, 7, 0.45), (part & found & ~gained, 14, 0.9), (part & gained, 14, 0.9))
        for layer, size, opacity in layers:
            face: Any = "white" if (layer & gained).any() else colours[layer]
            points = axes.scatter(x[layer], y[layer], s=size, marker=marker, facecolors=face, alpha=opacity)
            points.set(edgecolors=colours[layer], linewidth=0.8 if (layer & gained).any() else 0, rasterized=True)
    _thresholds(axes, table, alpha, min_effect)
    if gained.any():
        axes.scatter([], [], s=14, facecolors="white", edgecolors="black", linewidth=0.8, label="gained by imputation")
        axes.legend(frameon=False, fontsize="small", loc="lower right")
    axes.set_xlim(np.array([-1, 1]) * 1.08 * max(np.abs(x).max(), min_effect))
    axes.set_ylim(-0.02 * y.max(), 1.12 * y.max() + 0.1)
    axes.set(xlabel=_effect_name(adata, key, table), ylabel="-log10 p")
    up, down = int((found & (x > 0)).sum()), int((found & (x < 0)).sum())
    axes.set_title(
        f"{key}, {values}, {len(table):,} genes\n{up:,} up and {down:,} down at FDR {100 * alpha:g} %",
        fontsize="medium",
    )
    axes.spines[["top", "right"]].set_visible(False)
    _label(axes, x[named], y[named], table["name"].to_numpy()[named])
    return axes


def _read(adata: AnnData, key: str, values: str, symbols: str | None) -> tuple[pd.DataFrame, float]:
    check_anndata(adata)
    if values not in TABLES:
        message = f"values is {values!r}; choose among {list(TABLES)}"
        raise ValueError(message)
    params = get_params(adata, key)
    entry: Any = adata.uns.get(key, {})
    if "genes" not in entry or not params:
        message = (
            f"adata.uns[{key!r}] holds no tested genes; call bf.tl.biomarkers or bf.tl.differential_expression first"
        )
        raise KeyError(message)
    if TABLES[values] not in entry:
        message = f"adata.uns[{key!r}] knows measured genes only; pass imputed= to the call that made it"
        raise KeyError(message)
    if symbols is not None and symbols not in adata.var:
        message = f"adata.var has no column {symbols!r} (symbols); its columns are {adata.var.columns.tolist()}"
        raise KeyError(message)
    table = entry[TABLES[values]].copy()
    with np.errstate(divide="ignore"):
        is_hazard = "hazard_ratio" in table
        table["effect"] = np.log2(table["hazard_ratio"]) if is_hazard else table["log2_fold_change"]
    table["name"] = table.index.astype(str)
    if symbols is not None:
        written = pd.Series(adata.var[symbols].astype(object).to_numpy(), index=adata.var_names.astype(str))
        written = written.where(written.notna() & (written != ""), written.index.to_series())
        table["name"] = written.reindex(table.index.astype(str)).to_numpy()
    table = table[np.isfinite(table["effect"]) & table["p"].notna()]
    if not len(table):
        message = f"adata.uns[{key!r}] has no p-value of any gene; nothing can be drawn"
        raise ValueError(message)
    # a p-value below the smallest number is drawn as that
    table["score"] = -np.log10(np.maximum(table["p"].to_numpy(dtype=np.float64), 1e-300))
    return table, float(params["alpha"])


def _clip(effect: NDArray[np.float64], named: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Bring the few genes that would squeeze all others to the border."""
    most = max(2 * float(np.quantile(np.abs(effect), 0.995)), float(np.abs(effect[named]).max(initial=0)))
    return np.clip(effect, -most, most), np.abs(effect) > most


def _thresholds(axes: Axes, table: pd.DataFrame, alpha: float, min_effect: float) -> None:
    scores = table["score"][table["fdr"] <= alpha]
    if len(scores):
        axes.axhline(scores.min(), color="#555555", linestyle="--", linewidth=0.8, zorder=0)
        where = axes.get_yaxis_transform()
        axes.text(
            0.995, scores.min(), f"FDR {100 * alpha:g} %", transform=where, ha="right", va="bottom", fontsize=FONT
        )
    if min_effect:
        for effect in (-min_effect, min_effect):
            axes.axvline(effect, color="#555555", linestyle=":", linewidth=0.8, zorder=0)


def _effect_name(adata: AnnData, key: str, table: pd.DataFrame) -> str:
    params = get_params(adata, key)
    if "hazard_ratio" in table:
        return f"log2 hazard ratio ({'high against low' if params['split'] else 'per standard deviation'})"
    return f"log2 fold change ({params['case']} against {params['control'] or 'all others'})"


def _label(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], names: NDArray[Any]) -> None:
    """Name points, each at the nearest place where its name covers neither another name nor a named point."""
    # a layout moves the axes when it is first drawn
    axes.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
    scale = 72 / axes.figure.dpi
    points = axes.transData.transform(np.column_stack([x, y])) * scale if len(x) else np.empty((0, 2))
    frame = axes.get_window_extent()
    border = np.array([[frame.x0, frame.y0], [frame.x1, frame.y1]]) * scale
    taken = [(*point - 3, *point + 3) for point in points]
    for point, where, name in zip(points, zip(x, y, strict=True), names, strict=True):
        size = np.array([LETTER * FONT * len(name), LINE * FONT])
        shift = _free_place(point, size, taken, border)
        corner = point + shift - size / 2
        taken.append((*corner, *corner + size))
        far = np.hypot(*shift) > 1.6 * size.max()
        axes.annotate(
            name,
            where,
            tuple(shift),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=FONT,
            arrowprops={"arrowstyle": "-", "color": "#888888", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
            if far
            else None,
        )


def _free_place(
    point: NDArray[np.float64],
    size: NDArray[np.float64],
    taken: list[tuple[float, ...]],
    border: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the smallest shift of a label's centre that keeps it clear; the last one tried if none does."""
    shift = np.zeros(2)
    for distance in np.arange(0, REACH, 4.0):
        for angle in np.deg2rad([90, 0, 180, 45, 135, 270, 315, 225]):
            direction = np.array([np.cos(angle), np.sin(angle)])
            shift = direction * (size / 2 + 3.5 + distance)
            low, high = point + shift - size / 2, point + shift + size / 2
            inside = (low >= border[0]).all() and (high <= border[1]).all()
            if inside and not any(
                low[0] < box[2] and box[0] < high[0] and low[1] < box[3] and box[1] < high[1] for box in taken
            ):
                return shift
    return shift
