"""Colours of categories, the same as in scanpy's plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

#: Okabe and Ito's colours, which people with any colour vision can tell apart (without black).
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")


def palette(adata: AnnData, column: str) -> dict[str, str]:
    """Colours of the categories of an ``obs`` column, as scanpy's plots use them.

    Parameters
    ----------
    adata
        Annotated samples.
    column
        Column of ``obs``.

    Returns
    -------
    Category to colour. ``adata.uns[column + "_colors"]`` where it is there, so that scanpy's plots and ours agree; else
    Okabe and Ito's colours for up to seven categories and scanpy's default colours for more.
    ``adata.uns[column + "_colors"] = list(bf.pl.palette(adata, column).values())`` hands them to scanpy.

    Raises
    ------
    KeyError
        If there is no such column.
    """
    if column not in adata.obs:
        message = f"adata.obs has no column {column!r}; its columns are {adata.obs.columns.tolist()}"
        raise KeyError(message)
    categories = pd.Categorical(adata.obs[column]).categories.astype(str).tolist()
    stored = [str(colour) for colour in adata.uns.get(f"{column}_colors", [])]
    if len(stored) >= len(categories):
        return dict(zip(categories, stored, strict=False))
    if len(categories) <= len(OKABE_ITO):
        return dict(zip(categories, OKABE_ITO, strict=False))
    from scanpy.plotting import palettes

    colours = next(
        (
            list(p)
            for p in (palettes.default_20, palettes.default_28, palettes.default_102)
            if len(p) >= len(categories)
        ),
        ["#808080"] * len(categories),
    )
    return dict(zip(categories, colours, strict=False))


def new_axes(ax: Axes | None, figsize: tuple[float, float]) -> Axes:
    """Return ``ax``, or the axes of a new figure."""
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    _, fresh = plt.subplots(figsize=figsize, layout="constrained")
    return fresh
