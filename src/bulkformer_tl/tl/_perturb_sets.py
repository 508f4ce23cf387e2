"""Which genes are perturbed together: single genes, combinations, named sets, pathways."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl.tl._gene_names import find_genes
from bulkformer_tl.tl._gene_sets import read_gene_sets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneMatch, GeneVocabulary

    Genes = str | Path | Sequence[str | tuple[str, ...]] | Mapping[str, Iterable[str]] | None

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Perturbation:
    """Genes that are changed at once.

    Parameters
    ----------
    name
        Of the gene, of the genes joined by "+", or of the set.
    kind
        A single gene, a combination in which every gene has to be there, or a set of which some are enough.
    genes
        Positions in the model's vocabulary, (k,).
    """

    name: str
    kind: Literal["gene", "combination", "set"]
    genes: tuple[int, ...]


@dataclass(frozen=True)
class Names:
    """Finds genes by what users call them: as in ``var_names``, by Ensembl id, or by symbol.

    Parameters
    ----------
    columns
        ``var_names``.
    match
        Where the model's genes stand among them.
    vocabulary
        The model's genes.
    model
        Its name.
    """

    columns: pd.Index
    match: GeneMatch
    vocabulary: GeneVocabulary
    model: str

    def find(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the position of each gene in the vocabulary, -1 for those that adata or the model lacks."""
        positions = np.flatnonzero(self.match.found)
        gene_of = np.full(len(self.columns) + 1, -1, dtype=np.int64)
        gene_of[self.match.columns[positions]] = positions
        # -1 is the last place, which no column has
        found = gene_of[find_genes(self.columns, names)]
        # columns may be called by what is neither id nor symbol, and their genes by either
        others = find_genes(self.vocabulary.ids[positions], names)
        return np.where((found < 0) & (others >= 0), positions[others], found)

    def need(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the positions, or say which are not there."""
        found = self.find(names)
        absent = [name for name, position in zip(names, found, strict=True) if position < 0]
        if absent:
            message = f"{absent[:3]} cannot be perturbed ({len(absent)} of {len(names)} genes): " + (
                f"adata has such columns, but {self.model} does not know them"
                if set(absent) <= set(self.columns)
                else f"adata has no such gene among those that {self.model} knows"
            )
            mend = "name genes as in adata.var_names, by Ensembl id or by symbol, or pass genes=None for all"
            raise KeyError(f"{message}; {mend}")
        return found


def read_perturbations(adata: AnnData, genes: Genes, match: GeneMatch, model: Any) -> list[Perturbation]:
    """Return what is to be perturbed.

    Parameters
    ----------
    adata
        The cohort.
    genes
        As of :func:`bulkformer_tl.tl.perturb`.
    match
        Where the model's genes stand in it.
    model
        The model.

    Raises
    ------
    KeyError
        If a named gene is not there.
    ValueError
        If a name occurs twice, a combination repeats a gene, or no gene of a set is there.
    TypeError
        If genes are something else.
    """
    names = Names(pd.Index(adata.var_names.astype(str)), match, model.vocabulary, model.name)
    if genes is None:
        positions = np.flatnonzero(match.found)
        columns = adata.var_names.astype(str)[match.columns[positions]]
        return [Perturbation(name, "gene", (int(gene),)) for name, gene in zip(columns, positions, strict=True)]
    if isinstance(genes, Path) or hasattr(genes, "items") or (isinstance(genes, str) and genes.endswith(".gmt")):
        return _read_sets(names, genes)
    listed = [genes] if isinstance(genes, str) else list(genes)
    wrong = next((item for item in listed if not isinstance(item, str | tuple)), None)
    if wrong is not None or not listed:
        message = (
            f"genes is a name, a list of names and of tuples of names, a dict of named groups or a GMT file; found "
            f"{'an empty list' if wrong is None else repr(wrong)}"
        )
        raise TypeError(message)
    members = [[item] if isinstance(item, str) else [str(name) for name in item] for item in listed]
    # all at once, since each look-up reads the names of all columns
    positions = iter(names.need([name for own in members for name in own]).tolist())
    found = [_together(own, tuple(islice(positions, len(own)))) for own in members]
    _refuse_twice([item.name for item in found])
    return found


def _together(members: list[str], positions: tuple[int, ...]) -> Perturbation:
    if len(set(positions)) < len(positions) or not positions:
        message = f"the combination {tuple(members)} needs different genes"
        raise ValueError(message)
    return Perturbation("+".join(members), "gene" if len(members) == 1 else "combination", positions)


def _read_sets(names: Names, genes: Any) -> list[Perturbation]:
    pairs = read_gene_sets(genes)
    pairs["gene"] = names.find(pairs["target"].tolist())
    known = pairs[pairs["gene"] >= 0]
    found = []
    for name, members in pairs.groupby("source", sort=False):
        here = known.loc[known["source"] == name, "gene"].drop_duplicates().tolist()
        if not here:
            message = (
                f"no gene of the set {name!r} ({members['target'].iloc[:3].tolist()}) is among those that adata has "
                f"and {names.model} knows; leave the set out, or name genes as in adata.var_names, by Ensembl id or "
                "by symbol"
            )
            raise ValueError(message)
        found.append(Perturbation(str(name), "set", tuple(int(gene) for gene in here)))
    logger.info("%d sets, %d of their %d genes can be perturbed", len(found), len(known), len(pairs))
    return found


def _refuse_twice(names: list[str]) -> None:
    index = pd.Index(names)
    if index.has_duplicates:
        message = f"genes names {index[index.duplicated()][0]!r} twice; name it once"
        raise ValueError(message)
