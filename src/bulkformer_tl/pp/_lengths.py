"""Gene lengths: from the package's table, a ``var`` column, an annotation file or the caller's own."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._vocabulary import gene_table, strip_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneVocabulary

    Lengths = str | Path | pd.Series | Mapping[str, float]

_GENE = re.compile(r'\bgene_id[ =]"?([^";]+)')
_ID = re.compile(r"(?:^|;)ID=([^;]+)")
_PARENT = re.compile(r"(?:^|;)Parent=([^;]+)")


@dataclass(frozen=True)
class GeneLengths:
    """Lengths of the columns of a table.

    Parameters
    ----------
    bp
        In bp, shape (G,), ``NaN`` where unknown.
    source
        Where they come from.
    """

    bp: NDArray[np.float64]
    source: str


def resolve_lengths(
    adata: AnnData, lengths: Any, *, ids: NDArray[np.str_], vocabulary: GeneVocabulary | None
) -> GeneLengths:
    """Find a length for every column.

    Parameters
    ----------
    adata
        Annotated samples.
    lengths
        Name of a ``var`` column, path of a GTF or GFF3 file, or lengths by Ensembl id. ``None`` takes the vocabulary's
        own where it has some, and the package's table elsewhere.
    ids
        Ensembl id of each column, without version, empty where unknown.
    vocabulary
        Whose lengths come first if ``lengths`` is ``None``.

    Returns
    -------
    The lengths and their source.

    Raises
    ------
    KeyError
        If ``lengths`` is neither a ``var`` column nor a file.
    TypeError
        If they are of another kind, or not numbers.
    ValueError
        If a length is not positive, or a gene has two.
    """
    if lengths is None:
        found = _default(ids, vocabulary)
    elif isinstance(lengths, str) and lengths in adata.var:
        found = GeneLengths(_numbers(adata.var[lengths]), f"var[{lengths!r}]")
    elif isinstance(lengths, str | Path):
        if not Path(lengths).is_file():
            message = (
                f"{str(lengths)!r} is neither a var column nor a file; the columns are {adata.var.columns.tolist()}"
            )
            raise KeyError(message)
        found = GeneLengths(_by_id(exon_lengths(lengths), ids), Path(lengths).name)
    elif isinstance(lengths, Mapping | pd.Series):
        found = GeneLengths(_by_id(pd.Series(lengths), ids), "given")
    else:
        message = (
            "lengths must be a var column, a GTF or GFF3 file, a Series or a mapping by Ensembl id, "
            f"found {type(lengths).__name__}"
        )
        raise TypeError(message)
    return _checked(found, ids)


def exon_lengths(path: str | Path) -> pd.Series:
    """Return the number of bases that the exons of each gene cover.

    Parameters
    ----------
    path
        GTF or GFF3 of Ensembl or GENCODE, also gzipped.

    Returns
    -------
    Lengths in bp by Ensembl id without version. Copies on the Y chromosome's pseudoautosomal region are left out.

    Raises
    ------
    ValueError
        If the file holds no exon of a gene, or is cut short.
    """
    genes, chromosomes, starts, ends = [], [], [], []
    try:
        for gene, chromosome, start, end in _exons(Path(path)):
            genes.append(gene)
            chromosomes.append(chromosome)
            starts.append(start)
            ends.append(end)
    except (EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        message = f"{path} is cut short or not an annotation file: {error}"
        raise ValueError(message) from error
    if not genes:
        message = f"{path} holds no exon with a gene_id; expected a GTF or GFF3 file"
        raise ValueError(message)
    table = pd.DataFrame({"gene": genes, "chromosome": chromosomes, "start": starts, "end": ends})
    lengths = _covered(table)
    return lengths.groupby(strip_version(lengths.index)).sum()


def _exons(path: Path) -> Iterator[tuple[str, str, int, int]]:
    parents: dict[str, str] = {}
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            fields = line.rstrip("\n").split("\t")
            if line.startswith("#") or len(fields) < 9:
                continue
            attributes = fields[8]
            if fields[2] != "exon":
                _note_parent(attributes, parents)
                continue
            gene = _gene_of(attributes, parents)
            if gene and not gene.endswith("_PAR_Y"):
                yield gene, fields[0], int(fields[3]), int(fields[4])


def _note_parent(attributes: str, parents: dict[str, str]) -> None:
    own, parent = _ID.search(attributes), _PARENT.search(attributes)
    if own and parent:
        parents[own[1]] = parent[1]


def _gene_of(attributes: str, parents: dict[str, str]) -> str:
    named = _GENE.search(attributes)
    if named:
        return named[1]
    # Ensembl's GFF3 names the gene at the transcript only
    transcript = _PARENT.search(attributes)
    return parents.get(transcript[1], "").removeprefix("gene:") if transcript else ""


def _covered(exons: pd.DataFrame) -> pd.Series:
    """Length of the union of each gene's exons; starts and ends are inclusive."""
    exons = exons.sort_values(["gene", "chromosome", "start"], kind="stable")
    reached = exons.groupby(["gene", "chromosome"], sort=False)["end"].cummax()
    before = reached.groupby([exons["gene"], exons["chromosome"]], sort=False).shift(fill_value=0)
    fresh = exons["end"] - np.maximum(exons["start"] - 1, before)
    return fresh.clip(lower=0).groupby(exons["gene"]).sum().astype(np.float64)


def _default(ids: NDArray[np.str_], vocabulary: GeneVocabulary | None) -> GeneLengths:
    values = gene_table()["length"].reindex(ids).to_numpy(dtype=np.float64)
    if vocabulary is None or vocabulary.lengths is None:
        return GeneLengths(values, "package table")
    own = pd.Series(vocabulary.lengths, index=vocabulary.ids).reindex(ids).to_numpy(dtype=np.float64)
    return GeneLengths(np.where(np.isnan(own), values, own), f"{vocabulary.name}, then package table")


def _by_id(lengths: pd.Series, ids: NDArray[np.str_]) -> NDArray[np.float64]:
    stripped = pd.Series(_numbers(lengths), index=strip_version(lengths.index))
    if not stripped.index.is_unique:
        twice = stripped.index[stripped.index.duplicated()].unique()[:5].tolist()
        message = f"lengths lists genes twice: {twice}; keep one length per gene"
        raise ValueError(message)
    return np.asarray(stripped.reindex(ids), dtype=np.float64)


def _numbers(values: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError) as error:
        message = f"lengths must be numbers (bp): {error}"
        raise TypeError(message) from error


def _checked(found: GeneLengths, ids: NDArray[np.str_]) -> GeneLengths:
    bad = (found.bp <= 0) | np.isinf(found.bp)
    if bad.any():
        message = f"lengths must be positive, in bp; found {found.bp[bad][0]} for {ids[bad][:5].tolist()}"
        raise ValueError(message)
    return found
