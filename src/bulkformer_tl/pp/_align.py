"""Put a table on the genes of a model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from bulkformer_tl._anndata import check_anndata, float_dtype, named_layers, on_genes, row_blocks, write_results
from bulkformer_tl._vocabulary import gene_table, load_vocabulary, match_genes
from bulkformer_tl.pp._identifiers import record_identifiers, resolve_identifiers

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneMatch, GeneVocabulary, Identifiers

logger = logging.getLogger(__name__)

_KEY = "align_genes"


def align_genes(
    adata: AnnData,
    *,
    vocabulary: GeneVocabulary | str | Path | None = None,
    identifiers: Identifiers | None = None,
    min_coverage: float = 0.0,
) -> AnnData:
    """Return a new AnnData on the genes of a model, in its order.

    Genes that ``adata`` does not have become columns of ``NaN``, so that :func:`bulkformer_tl.tl.impute` fills them;
    genes outside the vocabulary are left out. Normalise first: with ``pp.log_tpm(denominator="all")`` those genes
    count too.

    Parameters
    ----------
    adata
        Samples by genes; any storage. It is not changed.
    vocabulary
        A model's name, a bundle folder, a genes file or a vocabulary; ``None`` takes that of ``bulkformer-mini``.
    identifiers
        What ``var_names`` are; ``None`` takes what :func:`bulkformer_tl.pp.log_tpm` was told, else Ensembl ids.
    min_coverage
        Least share of the vocabulary that has to be there.

    Returns
    -------
    A new :class:`~anndata.AnnData` (``n_obs`` samples, G genes named by Ensembl id) with ``obs``, ``obsm``, ``obsp``
    and ``uns`` of the old one. ``X`` and layers are dense, in memory, of their own float dtype; integers become
    ``float32``, because absent genes are ``NaN``, and in boolean layers absent genes are ``False``. ``raw``, ``varm``
    and ``varp`` stay behind. Furthermore:

    ``var["measured"]`` : :class:`pandas.Series` (dtype ``bool``)
        Whether ``adata`` has the gene.
    ``var["symbol"]`` : :class:`pandas.Series` (dtype ``str``)
        Of the vocabulary, else of the package's table; empty where there is none. Other columns are kept.
    ``uns["align_genes"]["params"]`` : :class:`dict`
        Vocabulary and its checksum, number of genes found, coverage.

    Raises
    ------
    ValueError
        If no gene of the vocabulary or too few are found, or several columns stand for one gene.

    See Also
    --------
    bulkformer_tl.pp.merge_duplicates : sums several columns of one gene.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> aligned = bf.pp.align_genes(adata)
    >>> bool(aligned.var["measured"].all())
    False
    """
    check_anndata(adata)
    known = load_vocabulary(vocabulary)
    names = resolve_identifiers(adata, identifiers)
    match = match_genes(adata.var_names, known, identifiers=names, min_share=min_coverage)
    aligned = on_genes(
        adata,
        matrix=None if adata.X is None else _align(adata.X, match),
        var=_align_var(adata.var, match, known),
        layers={key: _align(matrix, match) for key, matrix in named_layers(adata).items() if _alignable(key, matrix)},
    )
    record_identifiers(aligned, "ensembl")
    params = {
        "vocabulary": known.name,
        "vocabulary_checksum": known.checksum,
        "identifiers": names,
        "n_genes": len(known),
        "n_found": match.n_found,
        "coverage": match.coverage,
        "min_coverage": float(min_coverage),
    }
    write_results(aligned, _KEY, {}, params)
    logger.info(
        "%d of the %d genes of %s are in adata (%.1f %%)", match.n_found, len(known), known.name, 100 * match.coverage
    )
    return aligned


def _alignable(key: str, matrix: Any) -> bool:
    numeric = np.dtype(matrix.dtype).kind in "biuf"
    if not numeric:
        logger.warning("layers[%r] holds %s, which knows no missing value; it is left out", key, matrix.dtype)
    return numeric


def _align(matrix: Any, match: GeneMatch) -> NDArray[Any]:
    """Return the matrix in vocabulary order, shape (N, G)."""
    boolean = np.dtype(matrix.dtype).kind == "b"
    dtype = np.dtype(bool) if boolean else float_dtype(matrix)
    if sp.issparse(matrix):
        # only columns that are kept become dense
        found = match.columns[match.found]
        matrix, columns = matrix.tocsc()[:, found].tocsr(), np.arange(len(found))
    else:
        columns = match.columns[match.found]
    result = np.full((matrix.shape[0], len(match.columns)), False if boolean else np.nan, dtype=dtype)
    for rows, block in row_blocks(matrix, dtype=dtype):
        result[rows, match.found] = block[:, columns]
    return result


def _align_var(var: Any, match: GeneMatch, vocabulary: GeneVocabulary) -> pd.DataFrame:
    # a plain boolean column cannot hold that a gene is absent
    flags = var.select_dtypes(bool)
    nullable = var.astype(dict.fromkeys(flags, "boolean"))
    table: pd.DataFrame = nullable.reset_index(drop=True).reindex(match.columns)
    table.index = pd.Index(vocabulary.ids.astype(object))
    symbols = gene_table()["symbol"].reindex(vocabulary.ids).fillna("").to_numpy(dtype=object)
    if vocabulary.symbols is not None:
        symbols = np.where(vocabulary.symbols == "", symbols, vocabulary.symbols)
    before = table["measured"].fillna(value=False).to_numpy(dtype=bool) if "measured" in flags else True
    table["measured"] = match.found & before
    table["symbol"] = symbols
    return table
