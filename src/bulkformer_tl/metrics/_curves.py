"""Survival curves of groups, and the log-rank test between them. Values equal those of lifelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl.metrics._censoring import check_outcome, kaplan_meier
from bulkformer_tl.metrics._check import as_labels
from bulkformer_tl.metrics._logrank_screen import logrank_screen

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Numbers = NDArray[np.float64]

CURVES = ["group", "time", "at_risk", "events", "censored", "survival", "low", "high"]


def survival_curves(time: ArrayLike, event: ArrayLike, group: ArrayLike, *, level: float = 0.95) -> pd.DataFrame:
    """Kaplan-Meier curve of each group, with pointwise intervals (Greenwood's variance, log-log transformed).

    Parameters
    ----------
    time
        Until event or censoring, shape (N,).
    event
        Whether the event happened, shape (N,).
    group
        Shape (N,).
    level
        Confidence level.

    Returns
    -------
    One row per group and distinct time, from time 0: ``group``, ``time``, ``at_risk`` just before it, ``events`` and
    ``censored`` at it, ``survival`` from it on, ``low`` and ``high``; ``NaN`` where survival is 0.

    Raises
    ------
    ValueError
        If all are censored, or values are missing.
    """
    from scipy.stats import norm

    times, events, _ = check_outcome(time, event, time)
    codes, names = as_labels(group, "group", n=len(times))
    z = float(norm.ppf((1 + level) / 2))
    parts = []
    for code, name in enumerate(names):
        own, died = times[codes == code], events[codes == code]
        distinct, survival = kaplan_meier(own, died)
        positions = np.searchsorted(distinct, own)
        leaving, dead = np.bincount(positions), np.bincount(positions, died)
        at_risk = leaving[::-1].cumsum()[::-1]
        low, high = _greenwood(survival, dead, at_risk, z)
        columns = (distinct, at_risk, dead.astype(int), leaving - dead.astype(int), survival, low, high)
        start = (0.0, len(own), 0, 0, 1.0, 1.0, 1.0)
        table = {column: np.r_[first, rest] for column, first, rest in zip(CURVES[1:], start, columns, strict=True)}
        parts.append(pd.DataFrame({"group": name, **table}))
    return pd.concat(parts, ignore_index=True)


def _greenwood(survival: Numbers, died: Numbers, at_risk: Any, z: float) -> tuple[Numbers, Numbers]:
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.cumsum(died / (at_risk * (at_risk - died)))
        width = z * np.sqrt(variance) / np.log(survival)
        low, high = survival ** np.exp(-width), survival ** np.exp(width)
    untouched = survival == 1
    return np.where(untouched, 1.0, low), np.where(untouched, 1.0, high)


def log_rank(
    time: ArrayLike, event: ArrayLike, group: ArrayLike, *, strata: ArrayLike | None = None
) -> tuple[float, float]:
    """Log-rank test of whether two groups have the same hazard (Mantel 1966), within strata where they are given.

    Parameters
    ----------
    time
        Until event or censoring, shape (N,).
    event
        Whether the event happened, shape (N,).
    group
        Two groups, shape (N,).
    strata
        Observed and expected events are counted within these and then summed, shape (N,).

    Returns
    -------
    The statistic, chi-squared with one degree of freedom, and its p-value; ``NaN`` where no event happens while both
    groups of a stratum are at risk.

    Raises
    ------
    ValueError
        If there are not two groups, all are censored, or values are missing.
    """
    from scipy.stats import chi2

    times, events, _ = check_outcome(time, event, time)
    codes, names = as_labels(group, "group", n=len(times))
    if len(names) != 2:
        message = f"group holds {names.tolist()}; the test compares two groups"
        raise ValueError(message)
    levels = None if strata is None else as_labels(strata, "strata", n=len(times))[0]
    (score,) = logrank_screen(times, events, codes[:, None] == 1, strata=levels)
    return float(score**2), float(chi2.sf(score**2, 1))
