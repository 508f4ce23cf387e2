"""What is known of perturbations as a matrix: fingerprints of compounds, signed genes, or a table of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata
from bulkformer_tl.encodings import morgan_fingerprints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    #: SMILES, signed genes, or numbers of one perturbation.
    Known = str | Mapping[str, float] | pd.Series[Any] | Sequence[float]

Kind = Literal["none", "smiles", "genes", "table"]
KINDS = ("none", "smiles", "genes", "table")


@dataclass(frozen=True, eq=False)
class Features:
    """Perturbations as rows of numbers.

    Parameters
    ----------
    kind
        ``"none"`` (a mark for each), ``"smiles"``, ``"genes"`` or ``"table"``.
    names
        P perturbations.
    columns
        What the K columns are.
    matrix
        Shape (P, K).
    """

    kind: Kind
    names: list[str]
    columns: list[str]
    matrix: NDArray[np.float64]

    def encode(self, name: str, known: Known | None) -> NDArray[np.float64]:
        """Return the row of a perturbation, shape (K,): one of ``names``, or another one with what is known of it.

        Raises
        ------
        KeyError
            If nothing is known of it.
        ValueError
            If what is known does not fit the columns.
        """
        if known is None:
            if name not in self.names:
                hint = {
                    "none": "it was fitted without features and predicts these only",
                    "smiles": "pass features=, its SMILES",
                    "genes": "pass features=, its signed genes such as {'TP53': -1}",
                    "table": "pass features=, its row of the table",
                }[self.kind]
                message = f"the head was fitted to {some(self.names)} and not to {name!r}; {hint}"
                raise KeyError(message)
            row: NDArray[np.float64] = self.matrix[self.names.index(name)]
            return row
        if self.kind == "smiles" and isinstance(known, str):
            known = morgan_fingerprints({name: known}, n_bits=len(self.columns))[0].tolist()
            return np.array(known, dtype=np.float64)
        if self.kind == "genes" and isinstance(known, Mapping):
            return np.array(_signs({name: known}, self.columns)[0])
        if self.kind == "table" and not isinstance(known, str | Mapping):
            return self._numbers(name, known)
        message = f"features of {name!r} are {type(known).__name__}; the head was fitted to {self.kind!r} features"
        raise TypeError(message)

    def _numbers(self, name: str, known: Any) -> NDArray[np.float64]:
        if isinstance(known, pd.Series):
            known = known.reindex(self.columns)
        row = np.asarray(known, dtype=np.float64)
        if row.shape != (len(self.columns),) or not np.isfinite(row).all():
            message = (
                f"features of {name!r} are {int(np.isfinite(row).sum())} finite numbers; the head reads "
                f"{len(self.columns)}, {some(self.columns)}"
            )
            raise ValueError(message)
        return row


def read_features(names: list[str], features: Any, genes: pd.Index) -> Features:
    """Look up what is known of perturbations.

    Parameters
    ----------
    names
        P perturbations, text.
    features
        ``None``; a mapping of perturbations to SMILES or to signed genes; or a data frame with a row for each.
    genes
        Names of genes that there are.

    Raises
    ------
    KeyError
        If a perturbation or a gene is not known.
    TypeError, ValueError
        If features are no such thing.
    """
    if features is None:
        return Features("none", names, names, np.eye(len(names)))
    if isinstance(features, pd.DataFrame):
        return Features("table", names, [str(name) for name in features.columns], _rows(names, features))
    if not isinstance(features, Mapping):
        message = (
            f"features is {type(features).__name__}; pass a mapping of perturbations to SMILES or to signed genes such "
            "as {'TP53': -1}, or a data frame with a row for each"
        )
        raise TypeError(message)
    by_name = {str(name): known for name, known in features.items()}
    refuse_unknown(names, list(by_name), "features")
    wanted = {name: by_name[name] for name in names}
    if all(isinstance(known, Mapping) for known in wanted.values()):
        return _read_genes(wanted, genes)
    if any(isinstance(known, Mapping) for known in wanted.values()):
        message = "features mixes SMILES and signed genes; pass a data frame that holds both"
        raise TypeError(message)
    bits = morgan_fingerprints(wanted).astype(np.float64)
    return Features("smiles", names, [f"bit {i}" for i in range(bits.shape[1])], bits)


def gene_features(adata: AnnData, genes: Mapping[str, Mapping[str, float]], *, varm: str) -> pd.DataFrame:
    """Describe perturbed genes by gene vectors, so that a response to an unseen gene can be predicted.

    Parameters
    ----------
    adata
        Samples by genes, with gene vectors in ``varm``.
    genes
        Perturbation to its genes, -1 for knock-down and +1 for over-expression or any other amount, such as
        ``{"shSRF": {"ENSG00000112658": -1}}``.
    varm
        Key of the vectors, such as ``"bulkformer_genes"`` after :func:`bulkformer_tl.tl.gene_embeddings`.

    Returns
    -------
    One row per perturbation: the sum of its genes' vectors times their signs. For ``features`` of
    :func:`bulkformer_tl.tl.perturbation_response`.

    Raises
    ------
    KeyError
        If there are no such vectors or no such gene.
    ValueError
        If a sign is zero or a vector is missing.
    """
    check_anndata(adata)
    if varm not in adata.varm:
        message = f"adata.varm has no {varm!r}; it holds {sorted(adata.varm)}. Call bf.tl.gene_embeddings(adata) first"
        raise KeyError(message)
    marks = _read_genes({str(name): signs for name, signs in genes.items()}, adata.var_names)
    vectors = np.asarray(adata.varm[varm], dtype=np.float64)[adata.var_names.get_indexer(pd.Index(marks.columns))]
    missing = [name for name, row in zip(marks.columns, vectors, strict=True) if not np.isfinite(row).all()]
    if missing:
        message = (
            f"adata.varm[{varm!r}] has no vector of {some(missing)}, which the model does not know; leave them out"
        )
        raise ValueError(message)
    columns = [f"{varm} {i}" for i in range(vectors.shape[1])]
    return pd.DataFrame(marks.matrix @ vectors, index=pd.Index(marks.names), columns=pd.Index(columns))


def refuse_unknown(names: list[str], known: Sequence[str], what: str) -> None:
    """Raise if something is not known of a perturbation."""
    there = set(known)
    absent = [name for name in names if name not in there]
    if absent:
        message = (
            f"{what} know nothing of {some(absent)}; they hold {some(list(known))}. Add them, or leave the samples out"
        )
        raise KeyError(message)


def some(names: Sequence[str], n: int = 8) -> str:
    """List a few names, and how many more there are."""
    shown = ", ".join(repr(str(name)) for name in names[:n])
    return f"{shown} and {len(names) - n} more" if len(names) > n else shown


def _rows(names: list[str], table: pd.DataFrame) -> NDArray[np.float64]:
    index = table.index.astype(str)
    if not index.is_unique:
        message = f"features has several rows for {index[index.duplicated()][0]!r}; keep one of each"
        raise ValueError(message)
    refuse_unknown(names, index.tolist(), "features")
    wrong = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    if wrong or not len(table.columns):
        what = f"column {wrong[0]!r} holds {table[wrong[0]].dtype}" if wrong else "there is no column"
        message = f"features must be numbers: {what}; encode categories as columns of 0 and 1"
        raise TypeError(message)
    found: NDArray[np.float64] = table.to_numpy(dtype=np.float64, na_value=np.nan)[index.get_indexer(pd.Index(names))]
    bad = [name for name, row in zip(names, found, strict=True) if not np.isfinite(row).all()]
    if bad:
        message = f"features of {some(bad)} are missing or infinite; fill them in, or leave the samples out"
        raise ValueError(message)
    return found


def _read_genes(wanted: Mapping[str, Mapping[str, float]], genes: pd.Index) -> Features:
    named = sorted({str(gene) for signs in wanted.values() for gene in signs})
    unknown = [gene for gene in named if gene not in genes]
    if unknown:
        message = (
            f"features name {some(unknown)}, not among adata.var_names, which are like {str(genes[0])!r}; use the same "
            "identifiers, or leave these perturbations out"
        )
        raise KeyError(message)
    return Features("genes", list(wanted), named, _signs(wanted, named))


def _signs(wanted: Mapping[str, Mapping[str, float]], columns: list[str]) -> NDArray[np.float64]:
    found = np.zeros((len(wanted), len(columns)))
    for row, (name, signs) in enumerate(wanted.items()):
        amounts = [float(sign) for sign in signs.values()]
        if not amounts or not np.isfinite(amounts).all() or 0 in amounts:
            message = f"features of {name!r} are {dict(signs)}; give each gene -1 (knock-down), +1 or another amount"
            raise ValueError(message)
        strange = [str(gene) for gene in signs if str(gene) not in columns]
        if strange:
            message = (
                f"the head marks {some(columns)} and knows no mark of {some(strange)}; fit it to vectors of genes, see "
                "bf.tl.gene_features, to predict genes that it has not seen"
            )
            raise KeyError(message)
        for gene, amount in zip(signs, amounts, strict=True):
            found[row, columns.index(str(gene))] = amount
    return found
