"""One look at the counts of a cohort before a model that reads counts sees them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bulkformer_tl._anndata import float_dtype
from bulkformer_tl.pp._rank_input import Look
from bulkformer_tl.tl._blocks import each_block
from bulkformer_tl.tl._values import Seen, row_digests

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneMatch
    from bulkformer_tl.models import BulkFormer


def check_counts(adata: AnnData, matrix: Any, hidden: Any, match: GeneMatch, *, name: str, digest: bool) -> Seen:
    """Refuse values that are not counts, and samples without any gene of the model.

    Parameters
    ----------
    adata
        Names samples for messages.
    matrix, hidden
        Values and what of them to treat as missing, shape (N, n_vars).
    match
        Where the model's genes are.
    name
        Of the model.
    digest
        Hash the values.

    Raises
    ------
    ValueError
        If they are not; the message names the layer to pass or the call that mends it.
    """
    n_measured = np.zeros(adata.n_obs, dtype=np.int64)
    digests = np.zeros((adata.n_obs, 32), dtype=np.uint8)
    for rows, found in each_block(matrix, hidden, _Look(match, digest=digest), dtype=float_dtype(matrix)):
        if not found.n_expressed.all():
            sample = adata.obs_names[rows.start + int((found.n_expressed == 0).argmax())]
            message = (
                f"sample {sample!r} has no count of any gene that {name} knows, so that there is nothing to read; drop "
                "such samples: adata = adata[keep].copy()"
            )
            raise ValueError(message)
        n_measured[rows] = found.n_measured
        if digest:
            digests[rows] = found.digests
    return Seen(n_measured, hashlib.sha256(digests.tobytes()).hexdigest() if digest else "")


@dataclass(frozen=True)
class _Found:
    n_expressed: NDArray[np.int64]
    n_measured: NDArray[np.int64]
    digests: NDArray[np.uint8] | None


@dataclass(frozen=True)
class _Look:
    """What one block holds."""

    match: GeneMatch
    digest: bool

    @property
    def models(self) -> list[BulkFormer]:
        return []

    def __call__(self, _: slice, block: NDArray[Any]) -> _Found:
        # each block is judged by itself
        Look().take(sp.csr_array(block))
        known = block[:, self.match.columns[self.match.found]]
        return _Found(
            (known > 0).sum(axis=1), (~np.isnan(known)).sum(axis=1), row_digests(block) if self.digest else None
        )
