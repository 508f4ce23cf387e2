"""Tidy tables of scores, and of differences corrected for how many were looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bulkformer_tl.metrics._check import as_numbers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SCORES = ["representation", "metric", "axis", "mean", "low", "high", "n", "fold_sd"]
#: Scores of which less is better.
LESS_IS_BETTER = {"brier", "calibration_error", "integrated_brier", "interval_width", "rmse", "rmse_top20"}
DIFFERENCES = ["representation", "baseline", "metric", "axis", "difference", "low", "high", "p", "p_holm", "n"]


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Correct p-values for multiplicity by Holm's step-down method (Holm 1979).

    Parameters
    ----------
    p
        Shape (M,); ``NaN`` is left out of the count and stays.

    Returns
    -------
    Corrected p-values, at most 1, shape (M,).

    Raises
    ------
    ValueError
        If a value is not between 0 and 1.
    """
    values = np.asarray(p, dtype=np.float64)
    corrected = np.full(values.shape, np.nan)
    known = ~np.isnan(values)
    if not known.any():
        return corrected
    found = as_numbers(values[known], "p")
    if found.min() < 0 or found.max() > 1:
        message = f"p runs from {found.min():.6g} to {found.max():.6g}; p-values are between 0 and 1"
        raise ValueError(message)
    order = np.argsort(found, kind="stable")
    stepped = np.maximum.accumulate(found[order] * np.arange(len(found), 0, -1))
    unsorted = np.empty_like(found)
    unsorted[order] = np.minimum(stepped, 1)
    corrected[known] = unsorted
    return corrected


def interval(draws: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Return the percentile interval of bootstrap draws, ``NaN`` draws left out; ``NaN`` if none is left."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def sign_p(draws: NDArray[np.float64]) -> float:
    """Return the two-sided bootstrap p-value of a difference: how often resamples change its sign, twice."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return np.nan
    least = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1, 2 * (least + 1) / (len(known) + 1)))


def add_rows(table: pd.DataFrame | None, rows: pd.DataFrame) -> pd.DataFrame:
    """Add the rows of a rerun to a result table.

    Parameters
    ----------
    table
        Scores or differences so far; ``None`` if there are none.
    rows
        New ones, with the same columns. They replace rows of the same representation, baseline, metric and axis.

    Returns
    -------
    A new table; old rows keep their order, new ones follow.

    Raises
    ------
    ValueError
        If the columns differ.
    """
    if table is None:
        return rows.reset_index(drop=True)
    if list(table.columns) != list(rows.columns):
        message = f"the table has the columns {list(table.columns)} and the new rows {list(rows.columns)}"
        raise ValueError(f"{message}; they must agree")
    keys = [name for name in ("representation", "baseline", "metric", "axis") if name in rows.columns]
    replaced = pd.MultiIndex.from_frame(table[keys]).isin(pd.MultiIndex.from_frame(rows[keys]))
    parts = [part for part in (table[~replaced], rows) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else rows.reset_index(drop=True)
