"""Log-rank tests of two groups for every gene at once, and of the best of all cut-points, corrected for the search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

#: Least share of the samples on each side of a cut-point.
LEAST_SHARE = 0.1


def logrank_screen(
    time: Numbers,
    event: NDArray[np.bool_],
    high: NDArray[np.bool_],
    *,
    strata: NDArray[np.intp] | None = None,
) -> Numbers:
    """Compare the samples that are high in a gene with the others (Mantel 1966), for every gene.

    Parameters
    ----------
    time
        Until event or censoring, shape (N,).
    event
        Whether the event happened, shape (N,).
    high
        Shape (N, G).
    strata
        Samples are compared within these only, shape (N,).

    Returns
    -------
    Standard normal statistic, positive where the high ones have more events than expected; its square is the usual
    chi-squared. ``NaN`` where no event can be attributed. Shape (G,).
    """
    codes = np.zeros(len(time), dtype=np.intp) if strata is None else strata
    excess, variance = np.zeros(high.shape[1]), np.zeros(high.shape[1])
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        rows = rows[np.argsort(time[rows], kind="stable")]
        moments, first = np.unique(time[rows], return_index=True)
        del moments
        members = high[rows].astype(np.float64)
        died = np.add.reduceat(event[rows].astype(np.float64), first)[:, None]
        died_high = np.add.reduceat(members * event[rows][:, None], first)
        at_risk = (len(rows) - first).astype(np.float64)[:, None]
        share = members[::-1].cumsum(axis=0)[::-1][first] / at_risk
        excess += (died_high - died * share).sum(axis=0)
        left = np.divide(at_risk - died, at_risk - 1, out=np.zeros_like(at_risk), where=at_risk > 1)
        variance += (died * share * (1 - share) * left).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic: Numbers = np.where(variance > 0, excess / np.sqrt(variance), np.nan)
    return statistic


def martingale_residuals(time: Numbers, event: NDArray[np.bool_], strata: NDArray[np.intp] | None = None) -> Numbers:
    """Return event minus the cumulative hazard of Nelson and Aalen at the time of each sample.

    Parameters
    ----------
    time
        Until event or censoring, shape (N,).
    event
        Whether the event happened, shape (N,).
    strata
        Each has its own hazard, shape (N,).

    Returns
    -------
    Shape (N,); they sum to 0.
    """
    codes = np.zeros(len(time), dtype=np.intp) if strata is None else strata
    residuals = event.astype(np.float64)
    for code in np.unique(codes):
        rows = codes == code
        _, place, counts = np.unique(time[rows], return_inverse=True, return_counts=True)
        at_risk = counts[::-1].cumsum()[::-1]
        residuals[rows] -= (np.bincount(place, event[rows]) / at_risk).cumsum()[place]
    return residuals


def best_cut(time: Numbers, event: NDArray[np.bool_], values: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Search the cut-point with the largest log-rank statistic of each gene, and correct its p-value for the search.

    The statistic is the sum of log-rank scores above the cut, divided by its standard deviation under permutation. Of
    all cut-points with at least a tenth of the samples on either side the largest is taken; its p-value is that of
    Lausen and Schumacher 1992 (doi:10.2307/2532740), equation 7.

    Parameters
    ----------
    time
        Until event or censoring, shape (N,).
    event
        Whether the event happened, shape (N,).
    values
        Complete, shape (N, G).

    Returns
    -------
    Cut-point (samples above it are high), signed statistic and corrected p-value, each of shape (G,); ``NaN`` where no
    cut-point leaves a tenth on either side.
    """
    from scipy.stats import norm

    n = len(time)
    scores = martingale_residuals(time, event)
    order = np.argsort(values, axis=0, kind="stable")
    ascending = np.take_along_axis(values, order, axis=0)
    below = np.arange(1, n)[:, None]
    # what lies above a cut is minus what lies below it, since scores sum to 0
    above = -scores[order].cumsum(axis=0)[:-1]
    statistic = above / np.sqrt(below * (n - below) / (n * (n - 1)) * (scores**2).sum())
    allowed = (ascending[:-1] < ascending[1:]) & (np.minimum(below, n - below) >= LEAST_SHARE * n)
    best = np.where(allowed, np.abs(statistic), -1.0).argmax(axis=0)
    genes = np.arange(values.shape[1])
    found = allowed[best, genes]
    cut = np.where(found, ascending[:-1][best, genes], np.nan)
    largest = np.where(found, statistic[best, genes], np.nan)
    b = np.abs(largest)
    tail = norm.pdf(b) * (4 / b + (b - 1 / b) * 2 * np.log((1 - LEAST_SHARE) / LEAST_SHARE))
    # the tail formula holds for large statistics only
    p = np.where(b > 1, np.clip(tail, 0, 1), np.where(found, 1.0, np.nan))
    return cut, largest, p
