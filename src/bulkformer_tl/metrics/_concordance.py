"""Concordance of predicted risk with right-censored times; a larger risk means an earlier event.

Values equal those of lifelines (Harrell) and scikit-survival (Harrell, Uno). Ours share one definition of a comparable
pair, form pairs within strata, and need neither package at run time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bulkformer_tl.metrics._censoring import check_outcome, inverse_censoring
from bulkformer_tl.metrics._check import as_labels

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Numbers = NDArray[np.float64]

#: Pairs compared at a time, as rows of a block.
BLOCK = 256
#: Risks that differ by less are tied.
TIED = 1e-8


def harrell_c(time: ArrayLike, event: ArrayLike, risk: ArrayLike, *, strata: ArrayLike | None = None) -> float:
    """Harrell's concordance index (Harrell, Lee and Mark 1996, Statistics in Medicine 15:361).

    A pair is comparable if the one with the earlier time had the event, or both times are equal and only one had it;
    it is concordant if that one has the larger risk, half so if risks are tied.

    Parameters
    ----------
    time
        Until event or censoring, shape (N,).
    event
        Whether the event happened (boolean or 0 and 1), shape (N,).
    risk
        Shape (N,).
    strata
        Pairs are formed within these only (cancer types), shape (N,); pairs of all strata count alike.

    Returns
    -------
    Between 0 and 1; chance is 0.5.

    Raises
    ------
    ValueError
        If all are censored, no pair is comparable, or values are missing.
    """
    times, events, risks = check_outcome(time, event, risk)
    levels = None if strata is None else as_labels(strata, "strata", n=len(times))[0]
    concordant, pairs = _concordance(times, events, risks, levels)
    return _ratio(concordant, pairs)


def concordance_by_stratum(
    time: ArrayLike, event: ArrayLike, risk: ArrayLike, strata: ArrayLike, *, folds: ArrayLike | None = None
) -> pd.DataFrame:
    """Harrell's C within each stratum, as in within-cancer evaluation.

    Parameters
    ----------
    time
        Until event or censoring, shape (N,).
    event
        Whether the event happened, shape (N,).
    risk
        Shape (N,).
    strata
        Cancer type of each sample, shape (N,).
    folds
        Pairs are formed within these only, shape (N,).

    Returns
    -------
    One row per stratum: ``stratum``, ``c`` (``NaN`` without a comparable pair), ``pairs``, ``events`` and ``n``. The
    mean of ``c`` weighs strata alike, :func:`harrell_c` with ``strata`` weighs their pairs.

    Raises
    ------
    ValueError
        If all are censored or values are missing.
    """
    times, events, risks = check_outcome(time, event, risk)
    codes, names = as_labels(strata, "strata", n=len(times))
    parts = np.zeros(len(times), dtype=np.intp) if folds is None else as_labels(folds, "folds", n=len(times))[0]
    rows = []
    for code, name in enumerate(names):
        here = codes == code
        concordant, pairs = _concordance(times[here], events[here], risks[here], parts[here])
        c = concordant / pairs if pairs else np.nan
        rows.append({"stratum": name, "c": c, "pairs": int(pairs), "events": int(events[here].sum()), "n": here.sum()})
    return pd.DataFrame(rows)


def uno_c(
    time: ArrayLike,
    event: ArrayLike,
    risk: ArrayLike,
    *,
    train: tuple[ArrayLike, ArrayLike] | None = None,
    tau: float | None = None,
    strata: ArrayLike | None = None,
) -> float:
    """Uno's concordance index, which does not depend on how samples are censored (doi:10.1002/sim.4154, equation 6).

    Each pair counts 1 / G(t)^2 at the earlier time t, so that events at times when many are censored count more.

    Parameters
    ----------
    time
        Until event or censoring, shape (N,).
    event
        Whether the event happened, shape (N,).
    risk
        Shape (N,).
    train
        Time and event of the training samples, for G; ``None`` takes those that are scored.
    tau
        Only events before it count.
    strata
        Pairs are formed within these only, shape (N,).

    Returns
    -------
    Between 0 and 1; chance is 0.5.

    Raises
    ------
    ValueError
        If all are censored (before ``tau``), no pair is comparable, G is 0 at an event, or values are missing.
    """
    times, events, risks = check_outcome(time, event, risk)
    levels = None if strata is None else as_labels(strata, "strata", n=len(times))[0]
    counted = events if tau is None else events & (times < tau)
    if not counted.any():
        message = f"no event happened before tau={tau}; the first one is at {times[events].min():.6g}"
        raise ValueError(message)
    weights = inverse_censoring(times, counted, train or (times, events)) ** 2
    return _ratio(*_concordance(times, events, risks, levels, weights=weights))


def _concordance(
    times: Numbers,
    events: NDArray[np.bool_],
    risks: Numbers,
    strata: NDArray[np.intp] | None,
    *,
    weights: Numbers | None = None,
) -> tuple[float, float]:
    """Sum the weights of concordant and of comparable pairs, each that of its earlier sample."""
    weights = events.astype(np.float64) if weights is None else weights
    concordant = comparable = 0.0
    cases = np.flatnonzero(weights)
    for start in range(0, len(cases), BLOCK):
        i = cases[start : start + BLOCK]
        pair = later(times, events, i)
        if strata is not None:
            pair &= strata == strata[i, None]
        concordant += float((weights[i, None] * pair * won(risks, i)).sum())
        comparable += float((weights[i] * pair.sum(axis=1)).sum())
    return concordant, comparable


def later(times: Numbers, events: NDArray[np.bool_], cases: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return who was followed beyond the event of each case, shape (cases, N)."""
    found: NDArray[np.bool_] = (times > times[cases, None]) | ((times == times[cases, None]) & ~events)
    return found


def won(risks: Numbers, cases: NDArray[np.intp]) -> Numbers:
    """Return 1 where a case has the larger risk, 0.5 where risks are tied, shape (cases, N)."""
    lead = risks[cases, None] - risks
    return np.where(np.abs(lead) <= TIED, 0.5, lead > 0)


def _ratio(concordant: float, comparable: float) -> float:
    if not comparable:
        raise ValueError(no_pair())
    return concordant / comparable


def no_pair() -> str:
    """Say why there is no concordance."""
    return (
        "no pair is comparable: nobody is followed beyond the first event (within a stratum); "
        "score more samples or fewer strata"
    )
