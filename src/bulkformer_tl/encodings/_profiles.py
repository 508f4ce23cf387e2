"""Samples that hold one value only, and samples that are one another's copies, on arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Correlation of logarithms at one depth beyond which two profiles are one library. Among the cohorts that it was
#: chosen on the closest two samples, replicates of a cell line, reach 0.9989.
SAME_LIBRARY = 0.9995

#: Fewer genes, all of them high, agree that well between replicates.
MIN_GENES = 5000

#: Rows that are compared at once.
BLOCK_ROWS = 256


def constant_rows(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which samples hold one value other than zero in all genes, shape (N,); ``NaN`` is left out."""
    finite = np.isfinite(values)
    top = np.max(values, axis=1, where=finite, initial=-np.inf)
    low = np.min(values, axis=1, where=finite, initial=np.inf)
    constant: NDArray[np.bool_] = (top == low) & (top != 0) & (finite.sum(axis=1) > 1)
    return constant


def constant_columns(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return the shares of genes that are zero in all samples, and that hold one other value in all.

    Parameters
    ----------
    values
        Shape (N, G); genes with ``NaN`` in all samples are left out.
    """
    measured = values[:, ~np.isnan(values).all(axis=0)]
    if not measured.size:
        return 0.0, 0.0
    same = np.nanmax(measured, axis=0) == np.nanmin(measured, axis=0)
    zero = same & (np.nanmax(measured, axis=0) == 0)
    return float(zero.mean()), float((same & ~zero).mean())


def find_duplicates(profiles: NDArray[np.float32]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Find samples that are one another's copies.

    Parameters
    ----------
    profiles
        Logarithms of expression, shape (N, G); ``NaN`` is missing.

    Returns
    -------
    Pairs of identical samples, each later one with the first; and pairs of others that correlate above 0.9995, for
    tables of at least 5,000 genes. Samples of one value are in neither.
    """
    varying = np.flatnonzero(np.nanmax(profiles, axis=1, initial=-np.inf) > np.nanmin(profiles, axis=1, initial=np.inf))
    first: dict[bytes, int] = {}
    identical = []
    for i in map(int, varying):
        j = first.setdefault(profiles[i].tobytes(), i)
        if j != i:
            identical.append((j, i))
    complete = ~np.isnan(profiles).any(axis=0)
    kept = np.array(sorted(first.values()), dtype=np.int64)
    if complete.sum() < MIN_GENES or kept.size < 2:
        return identical, []
    units = profiles[np.ix_(kept, complete)]
    units = units - units.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(units, axis=1, keepdims=True)
    units /= np.where(lengths == 0, 1, lengths)
    similar = []
    for start in range(0, len(units), BLOCK_ROWS):
        products = units[start : start + BLOCK_ROWS] @ units[start:].T
        for i, j in zip(*np.nonzero(np.triu(products > SAME_LIBRARY, k=1)), strict=True):
            similar.append((int(kept[start + i]), int(kept[start + j])))
    return identical, similar
