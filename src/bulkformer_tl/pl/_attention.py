"""What each layer attends to: regulators, or what is highly expressed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bulkformer_tl._anndata import check_anndata, get_params
from bulkformer_tl._keys import NETWORK
from bulkformer_tl.pl._palette import new_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

#: What can be drawn: title, label, colour map, and the value in its middle.
VALUES: dict[str, tuple[str, str, str, float]] = {
    "regulators": ("attention on regulators", "times uniform", "PuOr_r", 1.0),
    "rank": ("attention and expression", "Spearman's r", "RdBu_r", 0.0),
}


def attention(
    adata: AnnData,
    key: str = NETWORK,
    *,
    values: Literal["regulators", "rank"] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw what the layers of models attend to, in each group of samples.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.network` with ``method="attention"``.
    key
        Name of the result.
    values
        ``"regulators"``: the share of attention that regulators receive, as a multiple of uniform attention;
        ``"rank"``: the correlation over genes of what they receive with their expression. ``None`` takes the first
        where regulators were named, else the second.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: a row for each model and layer, a column for each group, and the value in each cell. A model whose
    attention is nothing but expression level has a correlation near 1 or -1.

    Raises
    ------
    KeyError
        If there is no such result.
    ValueError
        If it has no regulators, or there is nothing else of that name to draw.
    """
    check_anndata(adata)
    params, entry = get_params(adata, key), adata.uns.get(key, {})
    if params.get("task") != "network" or "layers" not in entry:
        message = f"adata.uns[{key!r}] holds no attention; call bf.tl.network(adata, method='attention') first"
        raise KeyError(message)
    table = entry["layers"]
    named = table["regulator_share"].notna().any()
    chosen = values or ("regulators" if named else "rank")
    if chosen not in VALUES:
        message = f"values is {chosen!r}; choose among {list(VALUES)}"
        raise ValueError(message)
    if chosen == "regulators" and not named:
        message = f"adata.uns[{key!r}] was made without regulators; pass regulators= to bf.tl.network, or values='rank'"
        raise ValueError(message)
    number = table["rank_correlation"] if chosen == "rank" else table["regulator_share"] / table["uniform_share"]
    several = table["model"].nunique() > 1
    rows = [f"{model}, layer {n}" if several else f"layer {n}" for model, n in table[["model", "layer"]].to_numpy()]
    cells = table.assign(number=number, row=rows).pivot_table(
        index="row", columns="group", values="number", sort=False, dropna=False
    )
    title, label, colours, middle = VALUES[chosen]
    axes = new_axes(ax, (2.6 + 0.75 * cells.shape[1], 1.7 + 0.36 * len(cells)))
    _heatmap(axes, cells, label, colours, middle)
    axes.set_title(title if several else f"{title}, {table['model'].iloc[0]}", fontsize="medium")
    return axes


def _heatmap(axes: Axes, cells: Any, label: str, colours: str, middle: float) -> None:
    numbers = cells.to_numpy(dtype=np.float64)
    # never narrower than what can be told from the middle, and the same on both sides of it
    reach = 1.0 if middle == 0 else max(float(np.nanmax(np.abs(numbers - middle))), 0.1)
    image = axes.imshow(numbers, cmap=colours, vmin=middle - reach, vmax=middle + reach, aspect="auto")
    for (row, column), number in np.ndenumerate(numbers):
        dark = abs(number - middle) > 0.65 * reach
        axes.text(
            column, row, f"{number:.2f}", ha="center", va="center", fontsize="small", color="white" if dark else "black"
        )
    turned = max(len(str(name)) for name in cells.columns) > 8
    axes.set_xticks(
        range(cells.shape[1]),
        [str(name) for name in cells.columns],
        rotation=45 if turned else 0,
        ha="right" if turned else "center",
    )
    axes.set_yticks(range(len(cells)), [str(name) for name in cells.index])
    axes.tick_params(length=0)
    axes.figure.colorbar(image, ax=axes).set_label(label, fontsize="small")
