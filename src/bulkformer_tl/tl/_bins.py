"""A cohort as a model that reads bins sees it: one look at its values, and the codes of its external tokens."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import float_dtype
from bulkformer_tl.encodings import find_count_fault
from bulkformer_tl.tl._blocks import each_block
from bulkformer_tl.tl._values import Seen, row_digests

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.models import BioFormer, BulkFormer
    from bulkformer_tl.models._binning import BinReader


def check_readable(
    adata: AnnData, matrix: Any, hidden: Any, reader: BinReader, *, layer: str | None, name: str, digest: bool
) -> Seen:
    """Refuse values that cannot be binned, and samples that measure nothing of what the model knows.

    Parameters
    ----------
    adata
        Names samples for messages.
    matrix, hidden
        Values and what of them to treat as missing, shape (N, n_vars).
    reader
        Makes bins of them.
    layer
        Where the matrix comes from.
    name
        Of the model.
    digest
        Hash the values.

    Raises
    ------
    ValueError
        If they cannot; the message names the layer to pass or the call that mends it.
    """
    where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    n_measured = np.zeros(adata.n_obs, dtype=np.int64)
    digests = np.zeros((adata.n_obs, 32), dtype=np.uint8)
    for rows, found in each_block(matrix, hidden, _Look(reader, digest=digest), dtype=float_dtype(matrix)):
        message = ""
        if found.fault is not None:
            row, text = found.fault
            message = (
                f"{where}: sample {adata.obs_names[rows.start + row]!r} {text}; pass layer= for raw counts, "
                "bf.pp.diagnose(adata) looks for them"
            )
        elif not found.n_measured.all():
            sample = adata.obs_names[rows.start + int((found.n_measured == 0).argmax())]
            message = (
                f"sample {sample!r} measures nothing that {name} knows; drop such samples: adata = adata[keep].copy()"
            )
        if message:
            raise ValueError(message)
        n_measured[rows] = found.n_measured
        if digest:
            digests[rows] = found.digests
    return Seen(n_measured, hashlib.sha256(digests.tobytes()).hexdigest() if digest else "")


@dataclass(frozen=True)
class _Found:
    fault: tuple[int, str] | None
    n_measured: NDArray[np.int64]
    digests: NDArray[np.uint8] | None


@dataclass(frozen=True)
class _Look:
    """What one block holds."""

    reader: BinReader
    digest: bool

    @property
    def models(self) -> list[BulkFormer]:
        return []

    def __call__(self, _: slice, block: NDArray[Any]) -> _Found:
        faults = (
            find_count_fault(block[:, self.reader.columns == modality], counts=binning.target_sum is not None)
            for modality, binning in self.reader.binnings.items()
        )
        match = self.reader.match
        known = block[:, match.columns[match.found]]
        return _Found(
            next((fault for fault in faults if fault is not None), None),
            (~np.isnan(known)).sum(axis=1),
            row_digests(block) if self.digest else None,
        )


def external_codes(adata: AnnData, model: BioFormer) -> dict[str, NDArray[np.int64]]:
    """Return the codes of the external tokens of each sample, (N,), 0 where missing.

    Raises
    ------
    KeyError
        If ``obs`` lacks a column.
    ValueError
        If a sample is of a category that the model does not know.
    """
    found = {}
    for slot, categories in model.external.items():
        column = slot.removeprefix("obs/")
        if column not in adata.obs:
            message = (
                f"{model.name} reads adata.obs[{column!r}] as a token, and there is no such column; its categories are "
                f"{list(categories)}, and a missing one is NaN"
            )
            raise KeyError(message)
        known = adata.obs[column].notna().to_numpy()
        places = {category: code + 1 for code, category in enumerate(categories)}
        labels = adata.obs[column].astype(object).where(known, "").astype(str)
        strange = sorted(set(labels[known]) - set(places))
        if strange:
            message = (
                f"adata.obs[{column!r}] holds {strange[:5]}, of which {model.name} has no token; it knows "
                f"{list(categories)}. Set what it does not know to NaN"
            )
            raise ValueError(message)
        found[slot] = np.array([places.get(label, 0) for label in labels], dtype=np.int64)
    return found
