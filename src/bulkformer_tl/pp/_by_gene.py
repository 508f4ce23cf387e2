"""A table turned on its side in a temporary file, for what needs all samples of a gene at once."""

from __future__ import annotations

import errno
import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import row_blocks
from bulkformer_tl._progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    type ByGene = np.memmap[Any, np.dtype[np.float64]]

#: Samples that are written together, so that a gene gets whole pages.
BLOCK_ROWS = 1024


@contextmanager
def by_gene(matrices: Sequence[Any], columns: Sequence[NDArray[np.int64]], n_genes: int) -> Iterator[ByGene]:
    """Write tables below each other into a temporary file in which a gene's values lie side by side.

    The file lies where :mod:`tempfile` puts it (``TMPDIR``) and is removed at the end.

    Parameters
    ----------
    matrices
        Tables of samples by genes, each (N_i, G_i); any storage.
    columns
        For each table the gene that each column stands for, -1 for none; shape (G_i,).
    n_genes
        Number of genes G.

    Yields
    ------
    Values, (G, N), float64; ``NaN`` where a table has no such gene.

    Raises
    ------
    OSError
        If there is no room for the file.
    """
    n_samples = sum(matrix.shape[0] for matrix in matrices)
    with TemporaryDirectory(prefix="bulkformer_tl-") as folder, Progress(n_samples, "turning to genes") as progress:
        _check_room(folder, 8 * n_genes * n_samples)
        values = np.memmap(Path(folder) / "by_gene", dtype=np.float64, mode="w+", shape=(n_genes, n_samples))
        try:
            start = 0
            for matrix, genes in zip(matrices, columns, strict=True):
                known = genes >= 0
                for rows, block in row_blocks(matrix, dtype=np.float64, size=BLOCK_ROWS):
                    turned = np.full((n_genes, len(block)), np.nan)
                    turned[genes[known]] = block.T[known]
                    values[:, start + rows.start : start + rows.stop] = turned
                    progress.update(len(block))
                start += matrix.shape[0]
            yield values
        finally:
            # an open map keeps its file on some systems
            del values


def _check_room(folder: str, needed: int) -> None:
    """Refuse a disk without room: writing to a map beyond it would end the process."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        message = (
            f"a temporary file of {needed / 2**30:.1f} GiB is needed, and {Path(folder).parent} has "
            f"{free / 2**30:.1f} GiB left; set TMPDIR to a folder of a larger disk"
        )
        raise OSError(errno.ENOSPC, message)


def rank(values: ByGene, studies: Sequence[NDArray[np.int64]]) -> None:
    """Replace values by their ranks within gene and study, ties by their mean rank; ``NaN`` stays."""
    # slow to import
    from scipy.stats import rankdata

    for gene in values:
        for samples in studies:
            gene[samples] = rankdata(gene[samples], nan_policy="omit")
