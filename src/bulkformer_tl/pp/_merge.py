"""Sum several columns of one gene."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from bulkformer_tl._anndata import check_anndata, copied, get_matrix, named_layers, on_genes, row_blocks, write_results
from bulkformer_tl._vocabulary import to_ensembl
from bulkformer_tl.pp._identifiers import resolve_identifiers
from bulkformer_tl.pp._scan import scan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import Identifiers

logger = logging.getLogger(__name__)

_KEY = "merge_duplicates"

#: Merged genes that are listed in ``uns``.
LISTED = 20


def merge_duplicates(
    adata: AnnData,
    *,
    layer: str | None = None,
    identifiers: Identifiers | None = None,
    renamed: Mapping[str, str] | None = None,
) -> AnnData:
    """Return a new AnnData in which every gene has one column, the sum of its columns.

    Columns belong to one gene if they have the same Ensembl id without version, or other names of the same gene.
    Counts, TPM, FPKM and CPM add up; logarithms do not, so merge before :func:`bulkformer_tl.pp.log_tpm`.

    Parameters
    ----------
    adata
        Samples by genes; any storage. It is not changed.
    layer
        The values that have to add up; ``None`` means ``X``. Other layers are summed too if they are linear, and left
        out otherwise.
    identifiers
        What ``var_names`` are; ``None`` takes what :func:`bulkformer_tl.pp.log_tpm` was told, else Ensembl ids.
    renamed
        Retired Ensembl ids to those that took their place; columns of both are added.

    Returns
    -------
    A new :class:`~anndata.AnnData` in memory with ``obs``, ``obsm``, ``obsp`` and ``uns`` of the old one and ``var`` of
    each gene's first column; Ensembl ids lose their version, other names stay. Sparse stays sparse (CSR). A
    missing entry (``NaN``) adds nothing; where all are missing the sum is missing. ``raw``, ``varm`` and ``varp`` stay
    behind. Furthermore:

    ``uns["merge_duplicates"]["params"]`` : :class:`dict`
        Number of columns before and of genes after, and the first 20 genes that had several.

    Raises
    ------
    ValueError
        If the values do not add up (negative, or fractional and small as logarithms are).

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.merge_duplicates(adata).n_vars == adata.n_vars
    True
    """
    check_anndata(adata)
    names = resolve_identifiers(adata, identifiers, layer)
    matrix = get_matrix(adata, layer)
    genes = _genes(adata.var_names, names, renamed or {})
    codes, unique = pd.factorize(genes)
    fault = _fault(matrix)
    if fault and len(unique) < adata.n_vars:
        message = f"{fault}; merge the columns of counts or TPM, and pass layer= for the layer that holds them"
        raise ValueError(message)
    merged = copied(adata) if len(unique) == adata.n_vars else _merge(adata, codes)
    if names == "ensembl":
        index: Any = pd.Index(np.asarray(unique, dtype=object), name=adata.var_names.name)
        merged.var_names = index
    several = np.asarray(unique)[np.bincount(codes) > 1]
    params: dict[str, Any] = {"n_columns": adata.n_vars, "n_genes": len(unique), "identifiers": names}
    params |= {"merged": [str(gene) for gene in several[:LISTED]]} if len(several) else {}
    write_results(merged, _KEY, {}, params)
    logger.info("%d columns became %d genes; %d genes had several", adata.n_vars, len(unique), len(several))
    return merged


def _merge(adata: AnnData, codes: NDArray[np.int64]) -> AnnData:
    """Sum the columns of equal code, in the order of the codes."""
    first = np.unique(codes, return_index=True)[1]
    sums = sp.csr_array((np.ones(len(codes)), (np.arange(len(codes)), codes)))
    layers = {
        key: _sum(values, sums) for key, values in named_layers(adata).items() if _adds_up(f"layers[{key!r}]", values)
    }
    matrix = _sum(adata.X, sums) if adata.X is not None and _adds_up("X", adata.X) else None
    return on_genes(adata, matrix=matrix, var=adata.var.iloc[first].copy(), layers=layers)


def _genes(names: pd.Index, identifiers: Identifiers, renamed: Mapping[str, str]) -> NDArray[Any]:
    """Return what columns are grouped by: the Ensembl id, or the name itself where that is unknown."""
    known = to_ensembl(names, identifiers=identifiers).tolist()
    ids = np.array([renamed.get(name, name) for name in known], dtype=object)
    return np.where(ids == "", np.asarray(names, dtype=object), ids)


def _fault(matrix: Any) -> str:
    """Say why values do not add up; empty if they do."""
    if np.dtype(matrix.dtype).kind not in "iuf":
        return f"the values are {matrix.dtype}, not numbers"
    found = scan(matrix)
    if found.minimum < 0:
        return f"the values go down to {found.minimum:.4g}; scaled values do not add up"
    if found.looks_log:
        return f"the values are fractional and at most {found.maximum:.4g}, as logarithms are; those do not add up"
    return ""


def _adds_up(name: str, matrix: Any) -> bool:
    fault = _fault(matrix)
    if fault:
        logger.warning("%s is left out: %s", name, fault)
    return not fault


def _sum(matrix: Any, sums: sp.csr_array) -> Any:
    """Return sums over the columns of each gene, shape (N, genes), in the matrix' own dtype."""
    blocks = []
    sparse = sp.issparse(matrix) or hasattr(matrix, "to_memory")
    for _, block in row_blocks(matrix, dtype=np.float64):
        missing = np.isnan(block)
        total = np.where(missing, 0.0, block) @ sums
        if missing.any():
            total[(~missing).astype(np.float64) @ sums == 0] = np.nan
        blocks.append(sp.csr_matrix(total) if sparse else total)
    stacked = sp.vstack(blocks, format="csr") if sparse else np.concatenate(blocks)
    dtype = np.dtype(matrix.dtype)
    if dtype.kind in "iu" and stacked.max() > np.iinfo(dtype).max:
        dtype = np.dtype(np.int64)
    return stacked.astype(dtype)
