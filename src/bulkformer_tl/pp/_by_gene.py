"""Tables turned to genes, each below the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import row_blocks
from bulkformer_tl._progress import Progress
from bulkformer_tl._turned import turned

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from bulkformer_tl._turned import ByGene

#: Samples that are written together, so that a gene gets whole pages.
BLOCK_ROWS = 1024


def by_gene(
    matrices: Sequence[Any], columns: Sequence[NDArray[np.int64]], n_genes: int
) -> AbstractContextManager[ByGene]:
    """Write tables below each other into a temporary file in which a gene's values lie side by side.

    Parameters
    ----------
    matrices
        Tables of samples by genes, each (N_i, G_i); any storage.
    columns
        For each table the gene that each column stands for, -1 for none; shape (G_i,).
    n_genes
        Number of genes G.

    Returns
    -------
    A context whose values are (G, N), float64; ``NaN`` where a table has no such gene. See
    ``turned``.
    """
    n_samples = sum(matrix.shape[0] for matrix in matrices)
    return turned(_blocks(matrices, columns, n_genes, n_samples), n_genes=n_genes, n_samples=n_samples)


def _blocks(
    matrices: Sequence[Any], columns: Sequence[NDArray[np.int64]], n_genes: int, n_samples: int
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    start = 0
    with Progress(n_samples, "turning to genes") as progress:
        for matrix, genes in zip(matrices, columns, strict=True):
            known = genes >= 0
            for rows, block in row_blocks(matrix, dtype=np.float64, size=BLOCK_ROWS):
                found = np.full((len(block), n_genes), np.nan)
                found[:, genes[known]] = block[:, known]
                yield slice(start + rows.start, start + rows.stop), found
                progress.update(len(block))
            start += matrix.shape[0]


def rank(values: ByGene, studies: Sequence[NDArray[np.int64]]) -> None:
    """Replace values by their ranks within gene and study, ties by their mean rank; ``NaN`` stays."""
    # slow to import
    from scipy.stats import rankdata

    for gene in values:
        for samples in studies:
            gene[samples] = rankdata(gene[samples], nan_policy="omit")
