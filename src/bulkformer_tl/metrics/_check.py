"""What splits and scores check before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def as_labels(values: ArrayLike, name: str, *, n: int | None = None) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Code labels as integers.

    Parameters
    ----------
    values
        Labels, shape (N,).
    name
        What they are; for messages.
    n
        How many there must be.

    Returns
    -------
    Codes, shape (N,), and the sorted labels that they stand for.

    Raises
    ------
    ValueError
        If there are too few or too many, or some are missing.
    TypeError
        If they mix text with something else.
    """
    # numpy would turn a NaN among text into the text "nan"
    labels = np.asarray(values if hasattr(values, "dtype") else pd.Series(list(values)))  # type: ignore[arg-type]
    _check_shape(labels, name, n)
    refuse_missing(pd.isna(labels), name)
    kinds = sorted({type(label).__name__ for label in labels.tolist()}) if labels.dtype == object else []
    if len(kinds) > 1 and "str" in kinds:
        message = f"{name} mixes {' and '.join(kinds)}; make them one type, as with .astype(str)"
        raise TypeError(message)
    codes, categories = pd.factorize(labels, sort=True)
    return codes, np.asarray(categories)


def as_numbers(values: ArrayLike, name: str, *, n: int | None = None) -> NDArray[np.float64]:
    """Return finite numbers, shape (N,).

    Parameters
    ----------
    values
        Numbers, shape (N,).
    name
        What they are; for messages.
    n
        How many there must be.

    Returns
    -------
    The numbers as float64.

    Raises
    ------
    TypeError
        If they are not numbers.
    ValueError
        If there are too few or too many, or some are missing or infinite.
    """
    numbers = to_float(values, name)
    _check_shape(numbers, name, n)
    refuse_missing(np.isnan(numbers), name)
    if np.isinf(numbers).any():
        message = f"{name} holds {int(np.isinf(numbers).sum())} infinite values; take them out or mend them"
        raise ValueError(message)
    return numbers


def to_float(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return ``values`` as float64, or say that they are not numbers."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        found = next((v for v in np.asarray(values, dtype=object).ravel() if isinstance(v, str)), values)
        message = f"{name} must be numbers and holds {found!r}; for categories use the classification scores"
        raise TypeError(message) from error


def refuse_missing(missing: NDArray[np.bool_], name: str) -> None:
    """Raise if anything is missing, and say how much and where first."""
    if missing.any():
        message = (
            f"{name} holds {int(missing.sum())} missing values of {missing.size}, the first at position "
            f"{int(np.flatnonzero(missing)[0])}; leave these samples out (keep = ~pandas.isna({name}))"
        )
        raise ValueError(message)


def refuse_one_class(categories: NDArray[Any], name: str) -> None:
    """Raise if there is nothing to tell apart."""
    if len(categories) < 2:
        found = f"only {categories.tolist()[0]!r}" if len(categories) else "nothing"
        message = f"{name} holds {found}; at least two classes are needed"
        raise ValueError(message)


def _check_shape(values: NDArray[Any], name: str, n: int | None) -> None:
    if values.ndim != 1:
        message = f"{name} must have one dimension and has the shape {values.shape}"
        raise ValueError(message)
    if n is not None and len(values) != n:
        message = f"{name} has {len(values)} values for {n} samples"
        raise ValueError(message)
    if not len(values):
        message = f"{name} is empty"
        raise ValueError(message)
