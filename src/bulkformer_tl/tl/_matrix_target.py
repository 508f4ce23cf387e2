"""A matrix that is to be predicted, such as proteins: numbers from ``obsm``, checked before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.metrics._check import to_float

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def read_matrix(parts: list[AnnData], key: str) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[np.bool_]]:
    """Return numbers (N, P), no classes, and the samples of which any number is known.

    Raises
    ------
    TypeError
        If it holds anything but numbers.
    ValueError
        If columns differ between parts, a value is infinite, or a column is constant where it is known.
    """
    names = matrix_columns(parts[0], key)
    found = []
    for part in parts:
        if key not in part.obsm:
            found.append(np.full((part.n_obs, len(names)), np.nan))
            continue
        if matrix_columns(part, key) != names:
            message = (
                f"obsm[{key!r}] has other columns in adata than in the reference; give both the same, in one order"
            )
            raise ValueError(message)
        given: Any = part.obsm[key]
        dense = given.toarray() if hasattr(given, "toarray") else np.asarray(given)
        found.append(to_float(dense, f"adata.obsm[{key!r}]").astype(np.float64))
    target = np.concatenate(found)
    if np.isinf(target).any():
        message = f"adata.obsm[{key!r}] holds {int(np.isinf(target).sum())} infinite values; missing ones are NaN"
        raise ValueError(message)
    known = [values[~np.isnan(values)] for values in found[0].T]
    flat = [name for name, values in zip(names, known, strict=True) if not len(values) or np.ptp(values) == 0]
    if flat:
        message = (
            f"{len(flat)} of {len(names)} columns of adata.obsm[{key!r}], such as {flat[0]!r}, are constant or hold no "
            "value; leave them out, there is nothing to predict"
        )
        raise ValueError(message)
    return target, np.array([]), ~np.isnan(target).all(axis=1)


def matrix_columns(adata: AnnData, key: str) -> list[str]:
    """Return the names of the columns of an entry of ``obsm``, or their positions."""
    given: Any = adata.obsm[key]
    return [str(name) for name in getattr(given, "columns", range(given.shape[1]))]
