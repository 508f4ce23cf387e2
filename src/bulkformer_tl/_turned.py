"""Samples turned to genes in a temporary file, for what needs all samples of a gene at once."""

from __future__ import annotations

import errno
import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    type ByGene = np.memmap[Any, np.dtype[np.float64]]


@contextmanager
def turned(blocks: Iterable[tuple[slice, NDArray[np.floating]]], *, n_genes: int, n_samples: int) -> Iterator[ByGene]:
    """Write samples into a temporary file in which a gene's values lie side by side.

    The file lies where :mod:`tempfile` puts it (``TMPDIR``) and is removed at the end.

    Parameters
    ----------
    blocks
        Places of some samples among all, and their values, (n, G); large blocks give a gene whole pages.
    n_genes
        Number of genes G.
    n_samples
        Number of samples N.

    Yields
    ------
    Values, (G, N), float64.

    Raises
    ------
    OSError
        If there is no room for the file.
    """
    with TemporaryDirectory(prefix="bulkformer_tl-") as folder:
        _check_room(folder, 8 * n_genes * n_samples)
        values = np.memmap(Path(folder) / "by_gene", dtype=np.float64, mode="w+", shape=(n_genes, n_samples))
        try:
            for rows, block in blocks:
                values[:, rows] = block.T
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
