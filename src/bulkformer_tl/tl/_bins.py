"""A cohort as a model that reads bins sees it: one look at its values, and the codes of its external tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.encodings import find_count_fault
from bulkformer_tl.tl._looks import Judged, Look, look_at

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.models._binning import BinReader
    from bulkformer_tl.tl._looks import Seen


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
    return look_at(adata, matrix, hidden, _Bins(digest, reader, name), before=f"{where}: ")


@dataclass(frozen=True)
class _Bins(Look):
    reader: BinReader
    name: str

    def judge(self, block: NDArray[Any]) -> Judged:
        match = self.reader.match
        n_measured = (~np.isnan(block[:, match.columns[match.found]])).sum(axis=1)
        for modality, binning in self.reader.binnings.items():
            own = block[:, self.reader.columns == modality]
            fault = find_count_fault(own, counts=binning.target_sum is not None)
            if fault is not None:
                text = f"{fault[1]}; pass layer= for raw counts, bf.pp.diagnose(adata) looks for them"
                return Judged((fault[0], text), n_measured)
        empty = np.flatnonzero(n_measured == 0)
        text = f"measures nothing that {self.name} knows; drop such samples: adata = adata[keep].copy()"
        return Judged((int(empty[0]), text) if len(empty) else None, n_measured)


def external_codes(adata: AnnData, model: Any) -> dict[str, NDArray[np.int64]]:
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
