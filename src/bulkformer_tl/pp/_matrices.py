"""The matrices of an AnnData, with what their values say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from bulkformer_tl._anndata import dense_rows, named_layers
from bulkformer_tl._vocabulary import gene_table, load_vocabulary, to_ensembl
from bulkformer_tl.encodings._units import GeneFacts, Unit, recognise
from bulkformer_tl.pp._recognise_names import recognise_names

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneVocabulary
    from bulkformer_tl.pp._recognise_names import Names

#: Samples from which the unit is recognised; more do not tell more.
UNIT_SAMPLES = 64

#: What to start from, best first; a logarithm comes after all linear values.
_PREFERENCE = ("counts", "expected_counts", "scaled_counts", "cpm", "tpm", "tpm_or_fpkm", "fpkm", "unknown")


@dataclass(frozen=True)
class Matrix:
    """A matrix, and what was drawn of it.

    Parameters
    ----------
    where
        Its name in a report.
    layer
        Its layer; ``None`` means ``X``.
    drawn
        Values of the drawn samples, shape (N, G).
    unit
        What they are.
    genes
        What is known of its columns.
    ids
        Their Ensembl ids, empty where unknown; shape (G,).
    stored
        The matrix as it is stored, samples in the rows.
    """

    where: str
    layer: str | None
    drawn: NDArray[np.float64]
    unit: Unit
    genes: GeneFacts
    ids: NDArray[np.str_]
    stored: Any

    @property
    def sparse(self) -> bool:
        """Whether it is stored sparse."""
        return bool(sp.issparse(self.stored))

    @property
    def rank(self) -> tuple[bool, bool, int, bool]:
        """Sorts what to start from: what the model reads, then linear values, then logarithms, ``raw`` last."""
        known = self.unit.quantity != "unknown"
        return (
            not self.unit.is_log_tpm,
            not known or self.unit.base is not None,
            _PREFERENCE.index(self.unit.quantity),
            self.where == "raw",
        )


def look(
    adata: AnnData, model: GeneVocabulary, described: Names, rows: NDArray[np.int64], *, transposed: bool
) -> list[Matrix]:
    """Read the drawn samples of every matrix and recognise their units.

    Parameters
    ----------
    adata
        Samples by genes.
    model
        The genes of the model.
    described
        What the names of genes are.
    rows
        The samples to draw.
    transposed
        Whether ``adata`` is genes by samples.
    """
    own = _gene_facts(adata.obs_names if transposed else adata.var_names, described, model)
    sources: list[tuple[str, str | None, Any, Any]] = []
    if adata.X is not None:
        sources.append(("X", None, adata.X, own))
    sources += [(f"layers[{key!r}]", key, matrix, own) for key, matrix in named_layers(adata).items()]
    if adata.raw is not None and not transposed:
        names = adata.raw.var_names
        sources.append(("raw", "raw", adata.raw.X, _gene_facts(names, recognise_names(names), model)))
    looked = []
    for where, layer, matrix, (ids, genes) in sources:
        stored = matrix[:, :].T if transposed else matrix
        if np.dtype(matrix.dtype).kind not in "iuf":
            values, unit = np.empty((0, 0)), Unit("unknown", reason=f"{matrix.dtype}, not expression")
        else:
            values = dense_rows(stored, rows, np.float64)
            unit = recognise(values[:UNIT_SAMPLES], genes)
        looked.append(Matrix(where, layer, values, unit, genes, ids, stored))
    return looked


def _gene_facts(names: pd.Index, described: Names, model: GeneVocabulary) -> tuple[NDArray[np.str_], GeneFacts]:
    """Return the Ensembl ids of columns, and what is known of them."""
    ids = to_ensembl(names, identifiers=described.identifiers or "ensembl")
    embedded = load_vocabulary()
    corpus = pd.Series(embedded.means, embedded.ids)
    facts = GeneFacts(
        lengths=gene_table()["length"].reindex(ids).to_numpy(dtype=np.float64),
        expected=np.expm1(corpus.reindex(ids).to_numpy(dtype=np.float64)),
        vocabulary=np.isin(ids, model.ids),
    )
    return ids, facts
