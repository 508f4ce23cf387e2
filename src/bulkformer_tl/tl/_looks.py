"""One look at every value of a cohort, block by block: what is wrong, what is measured, and a hash."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bulkformer_tl._anndata import float_dtype
from bulkformer_tl.tl._blocks import each_block

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.models import Encoder


@dataclass(frozen=True)
class Seen:
    """What is known of the values.

    Parameters
    ----------
    n_measured
        Genes of the model that each sample measures and shows, shape (N,).
    digest
        SHA-256 over the values of all samples, whatever their storage; empty if it was not asked for.
    whole
        Whether all values are whole numbers, where the look tells.
    """

    n_measured: NDArray[np.int64]
    digest: str
    whole: bool = False


class Judged(NamedTuple):
    """What a look says of n samples.

    Parameters
    ----------
    fault
        Position of the first sample that cannot be read, and what is said of it; ``None`` if all can.
    n_measured
        Genes of the model that each measures, shape (n,).
    whole
        Whether all values are whole numbers.
    """

    fault: tuple[int, str] | None
    n_measured: NDArray[np.int64]
    whole: bool = False


@dataclass(frozen=True)
class Look(ABC):
    """What is asked of each block.

    Parameters
    ----------
    digest
        Hash the values as well.
    """

    digest: bool

    @property
    def models(self) -> list[Encoder]:
        """None is run."""
        return []

    @abstractmethod
    def judge(self, block: NDArray[Any]) -> Judged:
        """Judge samples by their values, (n, n_vars), ``NaN`` where missing."""

    def __call__(self, _: slice, block: NDArray[Any]) -> tuple[Judged, NDArray[np.uint8] | None]:
        """Judge samples, and hash the values of each, (n, 32)."""
        return self.judge(block), _row_digests(block) if self.digest else None


def look_at(adata: AnnData, matrix: Any, hidden: Any, look: Look, *, before: str = "") -> Seen:
    """Look at all samples.

    Parameters
    ----------
    adata
        Names samples for messages.
    matrix, hidden
        Values and what of them to treat as missing, shape (N, n_vars).
    look
        What is asked.
    before
        What messages begin with.

    Raises
    ------
    ValueError
        At the first sample that cannot be read.
    """
    whole = True
    n_measured = np.zeros(adata.n_obs, dtype=np.int64)
    digests = np.zeros((adata.n_obs, 32), dtype=np.uint8)
    for rows, (found, hashes) in each_block(matrix, hidden, look, dtype=float_dtype(matrix)):
        if found.fault is not None:
            row, text = found.fault
            message = f"{before}sample {adata.obs_names[rows.start + row]!r} {text}"
            raise ValueError(message)
        whole &= found.whole
        n_measured[rows] = found.n_measured
        if hashes is not None:
            digests[rows] = hashes
    return Seen(n_measured, hashlib.sha256(digests.tobytes()).hexdigest() if look.digest else "", whole)


def _row_digests(block: NDArray[Any]) -> NDArray[np.uint8]:
    hashes = [hashlib.sha256(np.ascontiguousarray(row)).digest() for row in block]
    return np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(len(block), 32)
