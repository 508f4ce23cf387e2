"""What is known of samples, genes or entries beside expression, as whole numbers that a network can embed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import get_matrix, row_blocks
from bulkformer_tl.encodings import quantile_bins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._keys import BinKeys

#: Bins of numbers such as age.
NUMBER_BINS = 10

_CONTAINERS = ("obs", "var", "layers")


def external_tokens(
    adata: AnnData, slots: Sequence[str], keys: BinKeys
) -> tuple[dict[str, Any], dict[str, dict[str, list[Any]]]]:
    """Turn columns and layers into codes, 0 where missing.

    Parameters
    ----------
    adata
        Annotated samples.
    slots
        What to turn: ``"obs/<column>"``, ``"var/<column>"`` or ``"layers/<layer>"``.
    keys
        Where codes go.

    Returns
    -------
    Slot to codes; and for each container and name what the codes 1, 2, ... stand for: the categories, or the inner
    edges of the bins of numbers.

    Raises
    ------
    KeyError
        If there is no such column or layer.
    ValueError
        If a slot is none of the three, holds nothing, or a layer has fractional values.
    """
    codes: dict[str, Any] = {}
    meaning: dict[str, dict[str, list[Any]]] = {}
    for slot in slots:
        container, _, name = slot.partition("/")
        if container not in _CONTAINERS or not name:
            message = f"external tokens are named 'obs/<column>', 'var/<column>' or 'layers/<layer>', found {slot!r}"
            raise ValueError(message)
        if container == "layers":
            found, stands_for = _of_layer(adata, name)
        else:
            frame = getattr(adata, container)
            if name not in frame:
                message = f"adata.{container} has no column {name!r}; its columns are {frame.columns.tolist()}"
                raise KeyError(message)
            found, stands_for = _of_column(frame[name], slot)
        codes[keys.external(container, name)] = found
        meaning.setdefault(container, {})[name] = stands_for
    return codes, meaning


def _of_column(column: pd.Series, slot: str) -> tuple[NDArray[np.int32], list[Any]]:
    known = column.notna().to_numpy()
    if not known.any():
        message = f"{slot} holds nothing but missing values"
        raise ValueError(message)
    codes = np.zeros(len(column), dtype=np.int32)
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        codes[known], edges = quantile_bins(column[known].to_numpy(dtype=np.float64), NUMBER_BINS)
        return codes, edges.tolist()
    names, categories = pd.factorize(column[known].astype(str), sort=True)
    codes[known] = names + 1
    return codes, [str(name) for name in categories]


def _of_layer(adata: AnnData, name: str) -> tuple[NDArray[np.int32], list[Any]]:
    matrix = get_matrix(adata, name)
    values = np.empty(matrix.shape)
    for rows, block in row_blocks(matrix, dtype=np.float64):
        values[rows] = block
    known = ~np.isnan(values)
    if not known.any() or not (values[known] == np.rint(values[known])).all():
        message = (
            f"adata.layers[{name!r}] holds {'fractional numbers' if known.any() else 'nothing'}; external tokens are "
            "truth values or whole numbers"
        )
        raise ValueError(message)
    categories, own = np.unique(values[known], return_inverse=True)
    codes = np.zeros(values.shape, dtype=np.int32)
    codes[known] = own.ravel() + 1
    return codes, [int(value) for value in categories]
