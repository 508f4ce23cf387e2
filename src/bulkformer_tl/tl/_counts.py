"""One look at the counts of a cohort before a model that reads counts sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bulkformer_tl.pp._rank_input import Look as Scan
from bulkformer_tl.tl._looks import Judged, Look, look_at

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneMatch
    from bulkformer_tl.tl._looks import Seen


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
    return look_at(adata, matrix, hidden, _Counts(digest, match, name))


@dataclass(frozen=True)
class _Counts(Look):
    match: GeneMatch
    name: str

    def judge(self, block: NDArray[Any]) -> Judged:
        # each block is judged by itself
        Scan().take(sp.csr_array(block))
        known = block[:, self.match.columns[self.match.found]]
        empty = np.flatnonzero(~(known > 0).any(axis=1))
        text = (
            f"has no count of any gene that {self.name} knows, so that there is nothing to read; drop such samples: "
            "adata = adata[keep].copy()"
        )
        return Judged((int(empty[0]), text) if len(empty) else None, (~np.isnan(known)).sum(axis=1))
