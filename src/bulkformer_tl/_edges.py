"""Edges of a stored gene network, for the graph and the plot of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulkformer_tl._anndata import check_anndata, get_params

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from anndata import AnnData


def read_edges(
    adata: AnnData, key: str, *, group: str | None, min_frequency: float
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the edges of one group, the strongest first, and how the network was made.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.network`.
    key
        Name of the result.
    group
        Group of samples; ``None`` takes the only one, or the first.
    min_frequency
        Least share of models, layers and halves in which an edge comes again.

    Raises
    ------
    KeyError
        If there is no such result or group.
    ValueError
        If no edge is left.
    """
    check_anndata(adata)
    params, entry = get_params(adata, key), adata.uns.get(key, {})
    if params.get("task") != "network":
        message = f"adata.uns[{key!r}] holds no network; call bf.tl.network(adata) first"
        raise KeyError(message)
    table: pd.DataFrame = entry["edges"].astype({"source": str, "target": str, "group": str})
    known = [str(name) for name in params["groups"]]
    if group is not None and group not in known:
        message = f"adata.uns[{key!r}] has no group {group!r}; it has {known}"
        raise KeyError(message)
    table = table[table["group"] == (known[0] if group is None else group)]
    if min_frequency > 0 and "frequency" not in table:
        message = f"adata.uns[{key!r}] comes of one run; pass resamples=, several models or several layers"
        raise ValueError(message)
    if min_frequency > 0:
        table = table[table["frequency"] >= min_frequency]
    if table.empty:
        message = f"no edge of adata.uns[{key!r}] is left with min_frequency={min_frequency}; lower it"
        raise ValueError(message)
    return table, params


def symbols_of(adata: AnnData, genes: Iterable[str], column: str | None) -> dict[str, str]:
    """Return what to write for each gene: its entry in a column of ``var``, or its name where that is empty.

    Raises
    ------
    KeyError
        If there is no such column.
    """
    if column is None:
        return {gene: gene for gene in genes}
    if column not in adata.var:
        message = f"adata.var has no column {column!r}; its columns are {adata.var.columns.tolist()}"
        raise KeyError(message)
    names = adata.var[column].astype(object)
    names = names.where(names.notna(), "").astype(str)
    return {gene: str(names[gene]) or gene for gene in genes}
