"""Gene vectors in the context of samples as features of pairs of line and gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import get_params
from bulkformer_tl.metrics._check import as_labels
from bulkformer_tl.tl._columns import column
from bulkformer_tl.tl._pair_model import _ridge

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

#: Penalty where features have unit variance, as under the heads of samples.
PENALTY = 100.0


def read_vectors(adata: AnnData, key: str) -> tuple[NDArray[np.float32], NDArray[np.intp] | None]:
    """Read gene vectors: one of each gene, (n_vars, P), or one of each group of samples, (K, n_vars, P).

    Parameters
    ----------
    adata
        Samples after :func:`bulkformer_tl.tl.gene_embeddings`, or with vectors of the user's own.
    key
        Key of ``varm``, or of vectors in the context of the groups of ``groupby=``.

    Returns
    -------
    The vectors; and the group of each sample, shape (n_obs,), or ``None``.

    Raises
    ------
    KeyError
        If there are none; the message lists those that there are.
    """
    if key in adata.varm:
        return np.asarray(adata.varm[key], dtype=np.float32), None
    groupby = str(get_params(adata, key).get("groupby", ""))
    if not groupby:
        message = (
            f"adata.varm has no {key!r}; it holds {sorted(adata.varm)}. bf.tl.gene_embeddings(adata) makes vectors of "
            "genes, and with contextual=True and groupby= those in the context of each line"
        )
        raise KeyError(message)
    codes, names = as_labels(
        column(adata, groupby, "groups of the gene vectors").astype(str), f"adata.obs[{groupby!r}]"
    )
    absent = [name for name in names if f"{key}_{name}" not in adata.varm]
    if absent:
        message = (
            f"adata.varm has no vectors {key + '_' + absent[0]!r}; call bf.tl.gene_embeddings on these samples again"
        )
        raise KeyError(message)
    return np.stack([np.asarray(adata.varm[f"{key}_{name}"], dtype=np.float32) for name in names]), codes


def within_between(known: Numbers, vectors: NDArray[np.floating], groups: NDArray[np.intp]) -> Numbers:
    """Predict pairs from vectors of each: how a gene's vector differs between lines, and how genes differ.

    A gene's mean is its own, or, where none of it is known, regressed on its mean vector; deviations from it are
    regressed on the deviations of the vector, by one ridge regression over all genes.

    Parameters
    ----------
    known
        Shape (N, M), ``NaN`` where not known.
    vectors
        Of each group of lines and gene, shape (K, M, P).
    groups
        Group of each line, shape (N,).

    Returns
    -------
    Predictions, shape (N, M).
    """
    present = ~np.isnan(known)
    rows, columns = present.any(axis=1), present.any(axis=0)
    n_groups, _, p = vectors.shape
    of_group = np.eye(n_groups)[groups].T
    counts, sums = of_group @ present, of_group @ np.nan_to_num(known)
    trained = np.bincount(groups[rows], minlength=n_groups)
    # a gene of which nothing is known has the mean vector of the training lines
    shares = np.where(columns, counts, trained[:, None]).astype(np.float64)
    shares /= shares.sum(axis=0)
    center = np.einsum("km,kmp->mp", shares, vectors)
    level = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1)
    square, product = np.zeros((p, p)), np.zeros(p)
    for k in np.flatnonzero(trained):
        deviation = vectors[k] - center
        square += (deviation * counts[k][:, None]).T @ deviation
        product += deviation.T @ (sums[k] - counts[k] * level)
    slope = np.zeros(p)
    if np.trace(square) > 0:
        scale = np.trace(square) / (p * present.sum())
        slope = np.linalg.solve(square + PENALTY * scale * np.eye(p), product)
    if not columns.all():
        spread = float(np.sqrt(center[columns].var(axis=0).mean())) or 1.0
        weights, base = _ridge(center[columns] / spread, level[columns, None], PENALTY)
        level = np.where(columns, level, (center / spread @ weights + base)[:, 0])
    deviations: Any = np.stack([(vectors[k] - center) @ slope for k in range(n_groups)])
    found: Numbers = level + deviations[groups]
    return found
