"""One look at every value of a cohort before a model sees it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import float_dtype
from bulkformer_tl._keys import LOG_TPM
from bulkformer_tl.encodings import find_fault
from bulkformer_tl.tl._blocks import each_block

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneMatch
    from bulkformer_tl.models import BulkFormer


@dataclass(frozen=True)
class Seen:
    """What is known of the values.

    Parameters
    ----------
    n_measured
        Genes of the model that each sample measures and shows, shape (N,).
    digest
        SHA-256 over the values of all samples, whatever their storage; empty if it was not asked for.
    """

    n_measured: NDArray[np.int64]
    digest: str


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
    whole = True
    where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    n_measured = np.zeros(adata.n_obs, dtype=np.int64)
    digests = np.zeros((adata.n_obs, 32), dtype=np.uint8)
    for rows, found in each_block(matrix, hidden, _Look(match, digest=digest), dtype=float_dtype(matrix)):
        if found.fault is not None:
            row, text = found.fault
            message = (
                f"{where} is not ln(TPM+1): sample {adata.obs_names[rows.start + row]!r} {text}{_hint(adata, layer)}"
            )
            raise ValueError(message)
        whole &= found.whole
        n_measured[rows] = found.n_measured
        if digest:
            digests[rows] = found.digests
    if whole:
        message = (
            f"{where} is not ln(TPM+1): all its values are whole numbers, as counts are; "
            f"call bf.pp.log_tpm(adata) first{_hint(adata, layer)}"
        )
        raise ValueError(message)
    return Seen(n_measured, hashlib.sha256(digests.tobytes()).hexdigest() if digest else "")


@dataclass(frozen=True)
class _Found:
    fault: tuple[int, str] | None
    whole: bool
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
        aligned = self.match.align(block.astype(np.float32, copy=False))
        fault, whole = find_fault(aligned)
        digests = row_digests(block) if self.digest else None
        return _Found(fault, whole, (~np.isnan(aligned)).sum(axis=1), digests)


def row_digests(block: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the SHA-256 of each row, (n, 32)."""
    hashes = [hashlib.sha256(np.ascontiguousarray(row)).digest() for row in block]
    return np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(len(block), 32)


def _hint(adata: AnnData, layer: str | None) -> str:
    return f" (or pass layer={LOG_TPM!r})" if layer != LOG_TPM and LOG_TPM in adata.layers else ""
