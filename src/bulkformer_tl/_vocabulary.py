"""Ordered gene vocabularies, the gene table of the package, and matching of identifiers to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from bulkformer_tl import registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Identifiers = Literal["ensembl", "symbol", "entrez"]

#: Numbers are read bit for bit as they were written: pandas 2 does so only if told, and later versions warn of it.
_EXACT: dict[str, Any] = {"float_precision": "round_trip"} if pd.__version__.startswith("2.") else {}
#: Column names under which published gene files keep their identifiers, symbols and lengths (bp).
_ID_COLUMNS = ("ensembl_id", "ensg_id", "canonical_ensg", "gene_id")
_SYMBOL_COLUMNS = ("symbol", "gene_symbol", "gene_name")
_LENGTH_COLUMNS = ("length", "gene_length", "gene_length_bp")
_MEAN_COLUMNS = ("mean",)
_MEDIAN_COLUMNS = ("median",)
#: What numbers may be where they are unknown; a gene may well be called ``nan``.
_UNKNOWN = ["", "NA", "N/A", "NaN", "nan", "null", "None"]


@dataclass(frozen=True, eq=False)
class GeneVocabulary:
    """The genes of a model, in its order.

    Parameters
    ----------
    ids
        Identifiers, unique: Ensembl ids without version in all published models.
    symbols
        Gene symbols, empty where unknown.
    lengths
        Lengths in bp, ``NaN`` where unknown.
    name
        Where it comes from; for messages.
    means
        Mean ln(TPM+1) in the corpus of the model, ``NaN`` where unknown.
    medians
        Median of the corpus' counts above zero, samples scaled to a sum of 10,000; ``NaN`` where unknown.
    renamed
        Retired identifiers to those of this vocabulary, where a model comes with such a dictionary.
    """

    ids: NDArray[np.str_]
    symbols: NDArray[np.str_] | None = None
    lengths: NDArray[np.float64] | None = None
    name: str = "custom"
    means: NDArray[np.float64] | None = None
    medians: NDArray[np.float64] | None = None
    renamed: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        index = pd.Index(self.ids)
        if not len(index):
            message = f"the vocabulary {self.name!r} holds no gene"
            raise ValueError(message)
        if not index.is_unique:
            twice = index[index.duplicated()].unique()[:5].tolist()
            message = f"the vocabulary {self.name!r} lists genes twice: {twice}"
            raise ValueError(message)

    def __len__(self) -> int:
        """Return the number of genes."""
        return len(self.ids)

    @property
    def checksum(self) -> str:
        """SHA-256 of the identifiers in order, joined by newlines."""
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()

    @classmethod
    def from_csv(cls, path: str | Path, *, name: str | None = None) -> GeneVocabulary:
        """Read a genes file: a bundle's ``genes.csv`` or the authors' gene tables.

        Parameters
        ----------
        path
            CSV (also compressed) with a column ``ensembl_id``, ``ensg_id``, ``canonical_ensg`` or ``gene_id``, and
            optionally symbols, lengths (bp), the corpus mean of ln(TPM+1) and the median of scaled counts.
        name
            Where it comes from; ``None`` takes the file's name.

        Raises
        ------
        ValueError
            If no column holds identifiers, or a gene occurs twice.
        """
        table = pd.read_csv(
            path,
            dtype=dict.fromkeys((*_ID_COLUMNS, *_SYMBOL_COLUMNS), str),
            keep_default_na=False,
            na_values=dict.fromkeys((*_LENGTH_COLUMNS, *_MEAN_COLUMNS, *_MEDIAN_COLUMNS), _UNKNOWN),
            **_EXACT,
        )
        ids = _first_column(table, _ID_COLUMNS)
        if ids is None:
            message = f"{path} has the columns {table.columns.tolist()}; expected one of {list(_ID_COLUMNS)}"
            raise ValueError(message)
        symbols = _first_column(table, _SYMBOL_COLUMNS)
        lengths, means, medians = (
            _first_column(table, names) for names in (_LENGTH_COLUMNS, _MEAN_COLUMNS, _MEDIAN_COLUMNS)
        )
        return cls(
            ids=strip_version(ids),
            symbols=None if symbols is None else symbols.to_numpy(dtype=str),
            lengths=None if lengths is None else lengths.to_numpy(dtype=np.float64),
            name=name or Path(path).name,
            means=None if means is None else means.to_numpy(dtype=np.float64),
            medians=None if medians is None else medians.to_numpy(dtype=np.float64),
        )

    def to_csv(self, path: str | Path) -> None:
        """Write ``ensembl_id``, and as far as known ``symbol``, ``length`` (bp), ``mean`` and ``median``."""
        table = pd.DataFrame({"ensembl_id": self.ids})
        if self.symbols is not None:
            table["symbol"] = self.symbols
        if self.lengths is not None:
            table["length"] = self.lengths
        if self.means is not None:
            table["mean"] = self.means
        if self.medians is not None:
            table["median"] = self.medians
        table.to_csv(path, index=False)


@dataclass(frozen=True)
class GeneMatch:
    """Where the genes of a vocabulary stand in a table.

    Parameters
    ----------
    columns
        For each vocabulary gene its column in the table, -1 where absent; shape (G,).
    n_columns
        Number of columns of the table.
    """

    columns: NDArray[np.int64]
    n_columns: int

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which vocabulary genes are in the table, shape (G,)."""
        return self.columns >= 0

    @property
    def n_found(self) -> int:
        """Number of vocabulary genes in the table."""
        return int(self.found.sum())

    @property
    def coverage(self) -> float:
        """Share of the vocabulary that is in the table."""
        return float(self.found.mean())

    @property
    def in_vocabulary(self) -> NDArray[np.bool_]:
        """Which columns of the table are vocabulary genes, shape (n_columns,)."""
        known = np.zeros(self.n_columns, dtype=bool)
        known[self.columns[self.found]] = True
        return known

    def align(self, block: NDArray[np.floating]) -> NDArray[np.floating]:
        """Put a block's columns into vocabulary order, with ``NaN`` for absent genes.

        Parameters
        ----------
        block
            Shape (N, n_columns), floating.

        Returns
        -------
        Shape (N, G), same dtype.
        """
        aligned = np.full((block.shape[0], len(self.columns)), np.nan, dtype=block.dtype)
        aligned[:, self.found] = block[:, self.columns[self.found]]
        return aligned


def match_genes(
    names: pd.Index | Sequence[str],
    vocabulary: GeneVocabulary,
    *,
    identifiers: Identifiers = "ensembl",
    min_share: float = 0.0,
) -> GeneMatch:
    """Find the genes of a vocabulary among a table's columns.

    Parameters
    ----------
    names
        Identifiers of the columns: Ensembl (a version suffix is dropped), symbols or Entrez.
    vocabulary
        Genes to find.
    identifiers
        What ``names`` are.
    min_share
        Least share of the vocabulary that has to be found.

    Returns
    -------
    The match.

    Raises
    ------
    ValueError
        If ``identifiers`` is not what the names are, if no gene or too few are found, or if several columns stand
        for one gene. The messages name the call that mends it.
    """
    ids = to_ensembl(names, identifiers=identifiers)
    if vocabulary.renamed is not None:
        ids = np.array([vocabulary.renamed.get(name, name) for name in ids.tolist()], dtype=str)
    wanted = pd.Index(vocabulary.ids)
    relevant = pd.Series(ids, index=np.asarray(names, dtype=str))
    relevant = relevant[relevant.isin(wanted)]
    if relevant.empty:
        raise ValueError(_nothing_found(names, vocabulary, identifiers))
    if relevant.duplicated().any():
        raise ValueError(_several_columns(relevant, renamed=vocabulary.renamed is not None))
    columns = pd.Index(ids).where(pd.Index(ids) != "", other=None)
    positions = pd.Series(np.arange(len(columns)), index=columns)
    positions = positions[positions.index.isin(wanted)]
    match = GeneMatch(positions.reindex(wanted, fill_value=-1).to_numpy(dtype=np.int64), len(columns))
    if match.coverage < min_share:
        message = (
            f"only {match.n_found:,} of the {len(vocabulary):,} genes of {vocabulary.name!r} "
            f"({match.coverage:.1%}) are in adata; at least {min_share:.0%} are needed. "
            "See bf.pp.diagnose(adata) for what the identifiers are; for a targeted panel pass a smaller min_coverage"
        )
        raise ValueError(message)
    return match


def to_ensembl(names: pd.Index | Sequence[str], *, identifiers: Identifiers = "ensembl") -> NDArray[np.str_]:
    """Turn identifiers into Ensembl ids without version.

    Parameters
    ----------
    names
        Ensembl ids, with or without version, or symbols or Entrez ids of Ensembl 109.
    identifiers
        What ``names`` are.

    Returns
    -------
    Ensembl ids, shape (n,); empty where a symbol or an Entrez id is unknown.

    Raises
    ------
    ValueError
        If ``identifiers`` is none of ``"ensembl"``, ``"symbol"`` and ``"entrez"``.
    """
    if identifiers not in get_args(Identifiers):
        message = f"identifiers must be 'ensembl', 'symbol' or 'entrez', found {identifiers!r}"
        raise ValueError(message)
    if identifiers == "ensembl":
        return strip_version(names)
    table = symbol_table() if identifiers == "symbol" else entrez_table()
    return table.reindex(np.asarray(names, dtype=str)).fillna("").to_numpy(dtype=str)


def strip_version(names: pd.Index | pd.Series | Sequence[str]) -> NDArray[np.str_]:
    """Drop the version of Ensembl ids (``ENSG00000141510.18``); anything else stays as it is."""
    text = pd.Series(np.asarray(names, dtype=object)).astype(str)
    return text.str.replace(r"^(ENS[A-Z]*G\d+)\.\d+(_PAR_Y)?$", r"\1", regex=True).to_numpy(dtype=str)


@cache
def gene_table() -> pd.DataFrame:
    """Return the package's gene table, indexed by Ensembl id.

    Returns
    -------
    Columns ``symbol``, ``length`` (bp, ``NaN`` where unknown), ``biotype``, ``chromosome`` and ``entrez``. Source and
    release are stated in ``resources/README.md``.
    """
    path = files("bulkformer_tl") / "resources" / "genes.csv.gz"
    with path.open("rb") as handle:
        return pd.read_csv(
            handle,
            compression="gzip",
            index_col="ensembl_id",
            dtype={"symbol": str, "biotype": str, "chromosome": str, "entrez": str, "length": np.float64},
            keep_default_na=False,
            na_values={"length": [""]},
        )


@cache
def symbol_table() -> pd.Series:
    """Return the Ensembl id of each symbol.

    A symbol of several genes goes to the protein-coding one on a primary chromosome, then to the first id.
    """
    return _best_gene(gene_table()["symbol"])


@cache
def entrez_table() -> pd.Series:
    """Return the Ensembl id of each Entrez id, chosen among several genes as in :func:`symbol_table`.

    Where a gene has several Entrez ids, all of them lead to it.
    """
    return _best_gene(gene_table()["entrez"].str.split().explode().fillna(""))


def _best_gene(names: pd.Series) -> pd.Series:
    """Return the Ensembl id of each name, from names by Ensembl id, empty where unknown."""
    names = names[names != ""]
    facts = gene_table().loc[names.index, ["biotype", "chromosome"]]
    primary = facts["chromosome"].isin([*map(str, range(1, 23)), "X", "Y", "MT"])
    rank = (facts["biotype"] != "protein_coding").astype(int) * 2 + (~primary).astype(int)
    ordered = names.iloc[np.argsort(rank.to_numpy(), kind="stable")]
    ordered = ordered[~ordered.duplicated()]
    return pd.Series(ordered.index.to_numpy(dtype=str), index=ordered.to_numpy(dtype=str))


def load_vocabulary(source: GeneVocabulary | str | Path | None = None) -> GeneVocabulary:
    """Return a vocabulary from whatever names one.

    Parameters
    ----------
    source
        ``None`` (the embedded model's), the name of a model, a bundle folder, a genes file, or a vocabulary.

    Raises
    ------
    FileNotFoundError
        If the model is not on this machine, or the path does not exist.
    """
    if isinstance(source, GeneVocabulary):
        return source
    name = "bulkformer-mini" if source is None else str(source)
    path = Path(name) if Path(name).exists() else registry.locate(name)
    if path.is_dir():
        candidates = [path / file for file in ("genes.csv", "gene_vocab.csv", "bulkformer_gene_info.csv")]
        found = [file for file in candidates if file.exists()]
        if not found:
            message = f"{path} holds no genes file; expected one of {[file.name for file in candidates]}"
            raise FileNotFoundError(message)
        path = found[0]
    return GeneVocabulary.from_csv(path, name=name)


def _first_column(table: pd.DataFrame, names: Sequence[str]) -> pd.Series | None:
    return next((table[name] for name in names if name in table), None)


def _nothing_found(names: pd.Index | Sequence[str], vocabulary: GeneVocabulary, identifiers: Identifiers) -> str:
    kinds: tuple[Identifiers, ...] = get_args(Identifiers)
    for other in kinds:
        share = float(np.mean(np.isin(to_ensembl(names, identifiers=other), vocabulary.ids)))
        if share > 0:
            return (
                f"no gene of {vocabulary.name!r} found: the gene names were taken as {identifiers!r}, but {share:.0%} "
                f"of them are of the kind {other!r}; pass identifiers={other!r}"
            )
    return (
        f"no gene of {vocabulary.name!r} found among {[str(n) for n in names[:3]]} ...; "
        "call bf.pp.diagnose(adata) to see what the identifiers are"
    )


def _several_columns(relevant: pd.Series, *, renamed: bool) -> str:
    gene = relevant[relevant.duplicated()].iloc[0]
    columns = relevant.index[relevant == gene].tolist()
    n = int(relevant.duplicated(keep=False).sum())
    return (
        f"{n} columns share a gene with another column, for example {columns} are all {gene}; "
        f"call adata = bf.pp.merge_duplicates(adata{', renamed=model.vocabulary.renamed' * renamed}) on counts or TPM "
        "first"
    )
