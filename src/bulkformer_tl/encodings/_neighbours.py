"""From correlations to a sparse gene graph, on arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Genes that are looked at together; of 20,000 correlations each they take 40 MB.
ROWS = 512


def nearest_genes(correlation: NDArray[np.float32], *, n_neighbors: int = 20, threshold: float = 0.4) -> sp.csr_matrix:
    """Connect each gene to the others of highest absolute correlation.

    The graph is directed: a gene receives from its neighbours, which need not receive from it.

    Parameters
    ----------
    correlation
        Shape (G, G); ``NaN`` connects nothing.
    n_neighbors
        Most neighbours of a gene. Of equal ones the first in the order of the genes are taken.
    threshold
        Least absolute correlation; one of exactly 0 never connects.

    Returns
    -------
    Absolute correlations, shape (G, G), float32, receivers in rows, columns sorted, no gene with itself.
    """
    parts = []
    for start in range(0, len(correlation), ROWS):
        strength = np.nan_to_num(np.abs(correlation[start : start + ROWS]).astype(np.float32))
        own = np.arange(len(strength))
        strength[own, own + start] = 0.0
        strength[strength < threshold] = 0.0
        last = strength.shape[1] - n_neighbors
        if last > 0:
            least = np.partition(strength, last, axis=1)[:, last, None]
            above = strength > least
            tied = strength == least
            room = n_neighbors - above.sum(axis=1, keepdims=True)
            strength[~(above | (tied & (np.cumsum(tied, axis=1) <= room)))] = 0.0
        parts.append(sp.csr_matrix(strength))
    return sp.vstack(parts, format="csr")
