"""What a network is made of: genes at both ends of edges, groups and halves of samples, regulators."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import get_matrix, row_blocks
from bulkformer_tl.encodings._correlate import Moments
from bulkformer_tl.tl._columns import column
from bulkformer_tl.tl._gene_names import find_genes
from bulkformer_tl.tl._samples import all_expression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    #: A table of regulators and targets, its file, or names of regulators alone.
    Regulators = pd.DataFrame | str | Path | Sequence[str]

logger = logging.getLogger(__name__)

#: Genes that are taken where none are named.
N_VARIABLE = 1000
#: Samples that are looked at together.
ROWS = 64
#: Genes of which co-expression is computed; their matrix takes 0.6 GB.
MOST_GENES = 12_000
#: Weights that are added up, over pairs of genes, groups, layers, models and halves.
MOST_WEIGHTS = 2**25
#: Names that tables of regulators have for their two columns.
_SOURCES, _TARGETS = ("source", "tf", "regulator"), ("target", "gene")


@dataclass(frozen=True)
class Plan:
    """Which weights are computed of which samples.

    Parameters
    ----------
    sources, targets
        Columns of ``adata`` at both ends, (K,) and (Q,).
    regulators
        Columns of all regulators that were named, (R,); ``None`` without.
    known
        Whether a pair is in the table, (K, Q); ``None`` without one.
    groups
        Names of the groups, and the group of each sample, (N,).
    codes
        Group of each sample, (N,).
    halves
        Samples of each half, (B, N).
    """

    sources: NDArray[np.intp]
    targets: NDArray[np.intp]
    regulators: NDArray[np.intp] | None
    known: NDArray[np.bool_] | None
    groups: list[str]
    codes: NDArray[np.intp]
    halves: NDArray[np.bool_]

    @property
    def genes(self) -> NDArray[np.intp]:
        """Columns of all genes at either end."""
        return np.union1d(self.sources, self.targets)

    @property
    def same(self) -> NDArray[np.bool_]:
        """Where source and target are one gene, (K, Q)."""
        same: NDArray[np.bool_] = self.sources[:, None] == self.targets
        return same


def read_groups(adata: AnnData, groupby: str | None, least: int) -> tuple[list[str], NDArray[np.intp]]:
    """Return the groups that are compared, and the group of each sample.

    Raises
    ------
    ValueError
        If a sample has none, there is one group only, or a group has too few samples.
    """
    if groupby is None:
        return ["all"], np.zeros(adata.n_obs, dtype=np.intp)
    values = column(adata, groupby, "groupby")
    if values.isna().any():
        message = f"adata.obs[{groupby!r}] is missing for {int(values.isna().sum())} samples; drop them or fill it in"
        raise ValueError(message)
    found = pd.Categorical(values)
    counts = np.bincount(found.codes, minlength=len(found.categories))
    names = [str(name) for name in found.categories]
    for name, count in zip(names, counts, strict=True):
        if count < least:
            several = f"{count} samples, and this needs {least}" if count else "no sample"
            message = f"the group {name!r} of adata.obs[{groupby!r}] has {several}; leave it out"
            raise ValueError(message)
    if len(names) < 2:
        message = f"adata.obs[{groupby!r}] has the one group {names[0]!r}, and groupby compares; leave groupby out"
        raise ValueError(message)
    return names, np.asarray(found.codes, dtype=np.intp)


def draw_halves(codes: NDArray[np.intp], n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw half of the samples of each group, n times, (n, N)."""
    halves = np.zeros((n, len(codes)), dtype=bool)
    for half in halves:
        for code in range(int(codes.max()) + 1):
            members = np.flatnonzero(codes == code)
            half[rng.permutation(members)[: (len(members) + 1) // 2]] = True
    return halves


def read_expression(
    adata: AnnData, layer: str | None, columns: NDArray[np.intp], *, counts: bool
) -> NDArray[np.float32]:
    """Return ln(TPM+1), or of counts ln(CPM+1), of some genes, (N, k)."""
    if not counts:
        return all_expression([adata], layer, adata.var_names[columns].astype(str).tolist())
    parts = []
    for _, block in row_blocks(get_matrix(adata, layer)):
        total = np.nansum(block, axis=1, keepdims=True)
        parts.append(np.log1p(block[:, columns] * (1e6 / np.where(total > 0, total, 1))))
    return np.concatenate(parts)


def choose_genes(
    adata: AnnData, genes: Sequence[str] | None, usable: NDArray[np.bool_], layer: str | None, *, counts: bool
) -> NDArray[np.intp]:
    """Return the columns of the genes that were named, or of the most variable ones.

    Raises
    ------
    KeyError
        If a gene is not there, or not usable.
    ValueError
        If fewer than two are there, or one is named twice.
    """
    if genes is None:
        columns = np.flatnonzero(usable)
        values = read_expression(adata, layer, columns, counts=counts)
        known = Moments.of((part.astype(np.float64) for part in np.array_split(values, -(-len(values) // ROWS))), 2)
        spread = np.where(known.varies, known.scale, 0.0)
        order = np.argsort(-spread, kind="stable")[:N_VARIABLE]
        chosen = np.sort(columns[order[spread[order] > 0]])
    else:
        listed = [genes] if isinstance(genes, str) else [str(name) for name in genes]
        chosen = find_genes(adata.var_names, listed)
        absent = [name for name, place in zip(listed, chosen, strict=True) if place < 0 or not usable[place]]
        if absent:
            message = (
                f"{absent[:3]} ({len(absent)} of {len(listed)} genes) are not in adata, or not among the genes that "
                "the model knows or that have a vector; name genes as in adata.var_names, by Ensembl id or by symbol, "
                "or pass genes=None for the most variable ones"
            )
            raise KeyError(message)
        if len(np.unique(chosen)) < len(chosen):
            message = f"genes names {adata.var_names[chosen[pd.Index(chosen).duplicated()][0]]!r} twice; name it once"
            raise ValueError(message)
    if not len(chosen) or (len(chosen) < 2 and genes is None):
        message = f"{len(chosen)} genes can be used, and edges need two; pass other genes"
        raise ValueError(message)
    return chosen


def read_regulators(given: Regulators) -> tuple[list[str], pd.DataFrame | None]:
    """Return the names of regulators, and their targets where those are known.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If a table lacks a column.
    TypeError
        If it is something else.
    """
    if isinstance(given, str | Path):
        path = Path(given)
        if not path.is_file():
            message = f"there is no file {path}; pass a CSV file, a table or a list of regulators"
            raise FileNotFoundError(message)
        given = pd.read_csv(path)
    if not isinstance(given, pd.DataFrame):
        if not all(isinstance(name, str) for name in given):
            message = "regulators is a table with the columns 'source' and 'target', its CSV file, or a list of names"
            raise TypeError(message)
        return list(dict.fromkeys(given)), None
    source = next((name for name in _SOURCES if name in given), None)
    target = next((name for name in _TARGETS if name in given), None)
    if source is None or target is None:
        message = f"regulators has the columns {given.columns.tolist()}; it needs 'source' (or 'tf') and 'target'"
        raise KeyError(message)
    pairs = given[[source, target]].dropna().astype(str).drop_duplicates()
    pairs.columns = pd.Index(["source", "target"])
    return pairs["source"].unique().tolist(), pairs


def place_regulators(
    adata: AnnData, given: Regulators, usable: NDArray[np.bool_], targets: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.bool_] | None]:
    """Return the columns of regulators, (K,), and whether each pair with a target is in the table, (K, Q).

    Raises
    ------
    ValueError
        If no regulator is there, or, of a table, no pair.
    """
    names, pairs = read_regulators(given)
    found = find_genes(adata.var_names, names)
    here = found[found >= 0]
    sources = np.unique(here[usable[here]])
    if not len(sources):
        message = (
            f"none of the {len(names)} regulators ({names[:3]}) is among the usable genes of adata "
            f"({adata.var_names[:3].tolist()}); name them as in adata.var_names, by Ensembl id or by symbol"
        )
        raise ValueError(message)
    if pairs is None:
        return sources, None
    row = pd.Series(found, index=names).reindex(pairs["source"]).to_numpy()
    other = find_genes(adata.var_names, pairs["target"].tolist())
    known = np.zeros((len(sources), len(targets)), dtype=bool)
    rows, columns = pd.Index(sources).get_indexer(pd.Index(row)), pd.Index(targets).get_indexer(pd.Index(other))
    inside = (rows >= 0) & (columns >= 0) & (row != other)
    known[rows[inside], columns[inside]] = True
    logger.info("%d of %d regulators and %d of %d pairs are among the genes", *_counts(sources, names, known, pairs))
    if not known.any():
        message = (
            f"none of the {len(pairs):,} pairs of regulators has its target among the {len(targets)} genes; pass "
            "genes= with targets of the table, or a list of regulators alone"
        )
        raise ValueError(message)
    return sources, known


def _counts(sources: Any, names: Any, known: Any, pairs: Any) -> tuple[int, int, int, int]:
    return len(sources), len(names), int(known.sum()), len(pairs)
