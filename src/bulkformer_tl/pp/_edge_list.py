"""A gene graph from a list of pairs, such as protein interactions or shared annotations."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)


def read_edges(edges: Any) -> pd.DataFrame:
    """Return pairs of genes with weights.

    Parameters
    ----------
    edges
        Table, or the path of a csv or tsv (also compressed), with two columns of genes and optionally one of weights.

    Returns
    -------
    Columns ``a``, ``b`` (text) and ``weight`` (float64, 1 where the list has none).

    Raises
    ------
    ValueError
        If there are other columns, no rows, or weights that are not numbers, negative or missing.
    FileNotFoundError
        If there is no such file.
    TypeError
        If it is neither a table nor a path.
    """
    if isinstance(edges, str | Path):
        path = Path(edges)
        if not path.is_file():
            message = f"there is no file {path}"
            raise FileNotFoundError(message)
        tabs = path.name.lower().removesuffix(".gz").endswith((".tsv", ".txt"))
        # a gene may be called NA
        table = pd.read_csv(path, sep="\t" if tabs else ",", keep_default_na=False, dtype=str)
    elif isinstance(edges, pd.DataFrame):
        table = edges
    else:
        message = f"edges must be a DataFrame or a path, found {type(edges).__name__}"
        raise TypeError(message)
    if table.shape[1] not in (2, 3) or table.empty:
        message = (
            "edges must have two columns of genes and optionally one of weights, and at least one row; found "
            f"{len(table)} rows of {table.columns.tolist()}; pass those columns only"
        )
        raise ValueError(message)
    weights = _weights(table.iloc[:, 2]) if table.shape[1] == 3 else np.ones(len(table))
    names = (table.iloc[:, side].astype(str).to_numpy() for side in (0, 1))
    return pd.DataFrame(dict(zip("ab", names, strict=True)) | {"weight": weights})


def _weights(column: pd.Series) -> NDArray[np.float64]:
    weights: Any = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        first = str(column[bad].iloc[0])
        message = f"weights of edges must be numbers and not negative; {bad.sum()} are not, the first {first!r}"
        raise ValueError(message)
    return np.asarray(weights)


def edge_graph(edges: pd.DataFrame, genes: pd.Index) -> tuple[sp.csr_matrix, dict[str, int]]:
    """Connect the genes of each pair, in both directions.

    Parameters
    ----------
    edges
        As :func:`read_edges` returns them.
    genes
        Names of the genes, unique.

    Returns
    -------
    Weights, (G, G), float32, the largest where a pair is listed again; no gene with itself, no edge of weight 0. And
    how many rows of the list were left out because a gene is unknown, because both genes are the same one, and
    because the pair is listed again.

    Raises
    ------
    ValueError
        If no pair remains.
    """
    ends = np.stack([genes.get_indexer(pd.Index(edges[side])) for side in "ab"])
    unknown = (ends < 0).any(axis=0)
    loops = ~unknown & (ends[0] == ends[1])
    kept = ~unknown & ~loops & (edges["weight"].to_numpy() > 0)
    low, high = np.sort(ends[:, kept], axis=0)
    pairs = pd.DataFrame({"low": low, "high": high, "weight": edges["weight"].to_numpy()[kept]})
    strongest = pairs.groupby(["low", "high"], sort=True)["weight"].max()
    counts = {
        "n_unknown": int(unknown.sum()),
        "n_loops": int(loops.sum()),
        "n_repeated": len(pairs) - len(strongest),
    }
    if strongest.empty:
        names = pd.unique(edges[["a", "b"]].to_numpy().ravel())[:3].tolist()
        message = (
            f"no edge connects two genes of adata: of {len(edges):,} edges {counts['n_unknown']:,} name unknown genes. "
            f"The list has {names}, adata has {genes[:3].tolist()}; both need the same identifiers"
        )
        raise ValueError(message)
    if any(counts.values()):
        logger.info(
            "of %d edges %d name genes that adata does not have, %d connect a gene with itself, %d are listed again",
            len(edges),
            *counts.values(),
        )
    low, high = (strongest.index.get_level_values(level).to_numpy() for level in (0, 1))
    weights = np.tile(strongest.to_numpy(dtype=np.float32), 2)
    shape = (len(genes), len(genes))
    graph = sp.csr_matrix((weights, (np.concatenate([low, high]), np.concatenate([high, low]))), shape=shape)
    graph.sort_indices()
    return graph, counts
