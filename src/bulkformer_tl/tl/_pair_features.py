"""Features of drugs or genes: fingerprints of SMILES, or a table of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from bulkformer_tl.encodings import morgan_fingerprints

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Marks features that are bits of a fingerprint; radius and length follow.
FINGERPRINT = "morgan"
#: Radius and bits of fingerprints.
DEFAULT = (2, 2048)


class Features(NamedTuple):
    """Features of columns.

    Parameters
    ----------
    matrix
        Shape (M, P).
    columns
        Names of the columns.
    names
        Names of the features, or ``("morgan", radius, bits)``.
    """

    matrix: NDArray[np.float32]
    columns: list[str]
    names: list[str]


def read_features(
    given: Mapping[str, str] | pd.Series | pd.DataFrame,
    *,
    kind: str,
    wanted: list[str] | None = None,
    names: list[str] | None = None,
    fingerprint: tuple[int, int] = DEFAULT,
) -> Features:
    """Read features, by the names that are wanted.

    Parameters
    ----------
    given
        SMILES by name, or a data frame with one row per drug or gene.
    kind
        ``"drug"`` or ``"gene"``; for messages.
    wanted
        Columns to describe, in this order; ``None`` takes all that are given.
    names
        Features that a fitted head reads.
    fingerprint
        Radius and bits, for SMILES.

    Raises
    ------
    KeyError
        If a column has no features, or a feature is not there; the message names them.
    TypeError
        If it is neither of both, or features are no numbers.
    ValueError
        If a SMILES is no molecule, features are missing, or something is listed twice.
    """
    table = isinstance(given, pd.DataFrame)
    if not table and not isinstance(given, Mapping | pd.Series):
        message = f"{kind}s is {type(given).__name__}; pass SMILES by name, or a data frame of {kind}s by features"
        raise TypeError(message)
    index = pd.Index([str(name) for name in (given.index if isinstance(given, pd.DataFrame | pd.Series) else given)])
    if not index.is_unique:
        message = f"{kind}s lists {index[index.duplicated()][0]!r} twice; leave one of them out"
        raise ValueError(message)
    columns = list(index) if wanted is None else wanted
    at = index.get_indexer(pd.Index(columns))
    if (at < 0).any():
        absent = [column for column, position in zip(columns, at, strict=True) if position < 0]
        message = (
            f"{kind}s describes {len(columns) - len(absent)} of {len(columns)} {kind}s and lacks {absent[:5]}; add "
            "them, or leave them out of the table, as with table.drop(columns=[...])"
        )
        raise KeyError(message)
    if isinstance(given, pd.DataFrame):
        return _table(given.iloc[at], columns, kind, names)
    if names is not None and names[:1] != [FINGERPRINT]:
        message = f"the head reads {len(names)} features, such as {names[:3]}, and no SMILES; pass a data frame of them"
        raise ValueError(message)
    radius, bits = fingerprint if names is None else (int(names[1]), int(names[2]))
    texts = list(given.values()) if isinstance(given, Mapping) else given.tolist()
    smiles = {column: texts[position] for column, position in zip(columns, at, strict=True)}
    matrix = morgan_fingerprints(smiles, radius=radius, n_bits=bits)
    return Features(matrix, columns, [FINGERPRINT, str(radius), str(bits)])


def _table(given: pd.DataFrame, columns: list[str], kind: str, names: list[str] | None) -> Features:
    found = given.set_axis([str(name) for name in given.columns], axis=1)
    if names is not None:
        if names[:1] == [FINGERPRINT]:
            message = f"the head reads fingerprints; pass SMILES by name of each {kind}"
            raise ValueError(message)
        absent = [name for name in names if name not in found.columns]
        if absent:
            message = f"the features of {kind}s lack {len(absent)} that the head reads, such as {absent[:3]}"
            raise KeyError(message)
        found = found[names]
    try:
        matrix = found.to_numpy(dtype=np.float32)
    except (TypeError, ValueError) as error:
        message = f"features of {kind}s must be numbers: {error}"
        raise TypeError(message) from error
    bad = ~np.isfinite(matrix).all(axis=1)
    if bad.any():
        name = columns[int(np.flatnonzero(bad)[0])]
        message = (
            f"the features of {int(bad.sum())} {kind}s are NaN or infinite, such as those of {name!r}; leave them out"
        )
        raise ValueError(message)
    return Features(matrix, columns, [str(name) for name in found.columns])


def same_features(matrix: NDArray[np.float32] | None, n: int) -> NDArray[np.intp]:
    """Give columns with the same features, as one compound of two names, one group; shape (M,)."""
    if matrix is None:
        return np.arange(n)
    _, groups = np.unique(matrix, axis=0, return_inverse=True)
    return np.asarray(groups, dtype=np.intp).reshape(-1)
