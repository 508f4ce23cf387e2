"""One look at every value of a cohort before a model sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._keys import LOG_TPM
from bulkformer_tl.encodings import find_fault
from bulkformer_tl.tl._looks import Judged, Look, look_at

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneMatch
    from bulkformer_tl.tl._looks import Seen


def check_values(
    adata: AnnData, matrix: Any, hidden: Any, match: GeneMatch, layer: str | None, *, digest: bool
) -> Seen:
    """Check that all values can be ln(TPM+1).

    Parameters
    ----------
    adata
        Names samples and layers for messages.
    matrix, hidden
        Values and what of them to treat as missing, shape (N, n_vars).
    match
        Where the model's genes are.
    layer
        Where the matrix comes from.
    digest
        Hash the values.

    Raises
    ------
    ValueError
        If they cannot; the message names the call that mends it.
    """
    where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    hint = _hint(adata, layer)
    seen = look_at(adata, matrix, hidden, _Values(digest, match, hint), before=f"{where} is not ln(TPM+1): ")
    if seen.whole:
        message = (
            f"{where} is not ln(TPM+1): all its values are whole numbers, as counts are; "
            f"call bf.pp.log_tpm(adata) first{hint}"
        )
        raise ValueError(message)
    return seen


@dataclass(frozen=True)
class _Values(Look):
    match: GeneMatch
    hint: str

    def judge(self, block: NDArray[Any]) -> Judged:
        aligned = self.match.align(block.astype(np.float32, copy=False))
        fault, whole = find_fault(aligned)
        said = None if fault is None else (fault[0], f"{fault[1]}{self.hint}")
        return Judged(said, (~np.isnan(aligned)).sum(axis=1), whole)


def _hint(adata: AnnData, layer: str | None) -> str:
    return f" (or pass layer={LOG_TPM!r})" if layer != LOG_TPM and LOG_TPM in adata.layers else ""
