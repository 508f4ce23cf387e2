"""Profiles that are nearly the same must not stand on both sides of a split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bulkformer_tl.metrics._check import as_labels

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Samples per block: a block of correlations is no larger than a few megabytes.
BLOCK = 512


def near_duplicates(
    values: NDArray[np.floating], *, threshold: float = 0.998, groups: ArrayLike | None = None
) -> NDArray[np.intp]:
    """Put profiles that correlate at least ``threshold`` into one group.

    Groups are the connected components of the graph of such pairs (single linkage). Of public cohorts, replicates of
    one library correlate above 0.999 on ln(TPM+1), and samples of different people from one brain region up to 0.997,
    so that thresholds much below the default join whole studies.

    Parameters
    ----------
    values
        ln(TPM+1), shape (N, G). Genes that are missing (``NaN``) in any sample are left out.
    threshold
        Smallest Pearson correlation of near-duplicates, above 0 and at most 1.
    groups
        Groups that are kept together in any case (patients), shape (N,); near-duplicates join whole groups.

    Returns
    -------
    Group of each sample, counted from 0 in order of appearance, shape (N,).

    Raises
    ------
    ValueError
        If the threshold is out of range, fewer than three genes are measured in all samples, or groups are missing.

    Notes
    -----
    Memory is that of ``values`` over the common genes plus blocks of 512 x 512 correlations. A constant profile has
    no correlation and stays by itself.
    """
    if not 0 < threshold <= 1:
        message = f"threshold is {threshold}; a correlation above 0 and at most 1 is needed"
        raise ValueError(message)
    profiles = _standardise(np.asarray(values))
    n = len(profiles)
    labels = np.arange(n) if groups is None else as_labels(groups, "groups", n=n)[0]
    for top in range(0, n, BLOCK):
        for left in range(top, n, BLOCK):
            correlation = profiles[top : top + BLOCK] @ profiles[left : left + BLOCK].T
            # rounding must not part identical profiles at a threshold of 1
            rows, columns = np.nonzero(correlation >= threshold - 1e-6)
            labels = _join(labels, rows + top, columns + left)
    _, first, codes = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes]


def _standardise(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Centre each row over the common genes and give it length one, so that products are correlations."""
    if values.ndim != 2:
        message = f"values must be samples by genes and have the shape {values.shape}"
        raise ValueError(message)
    common = ~np.isnan(values).any(axis=0)
    if common.sum() < 3:
        message = (
            f"{int(common.sum())} of {values.shape[1]} genes are measured in all samples; "
            "look for near-duplicates within each study instead"
        )
        raise ValueError(message)
    profiles = values[:, common].astype(np.float64)
    profiles -= profiles.mean(axis=1, keepdims=True)
    length = np.linalg.norm(profiles, axis=1, keepdims=True)
    return np.divide(profiles, length, out=np.zeros_like(profiles), where=length > 1e-12)


def _join(labels: NDArray[np.intp], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.intp]:
    """Merge the groups of each pair of samples."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one, other = labels[rows], labels[columns]
    new = one != other
    if not new.any():
        return labels
    size = int(labels.max()) + 1
    graph = coo_array((np.ones(int(new.sum())), (one[new], other[new])), shape=(size, size))
    merged: NDArray[np.intp] = connected_components(graph.tocsr(), directed=False)[1][labels].astype(np.intp)
    return merged
