"""Scores of a risk under many sample weights at once, as bootstrap resamples give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.metrics._censoring import censoring_curve, inverse_censoring, kaplan_meier, refuse_zero, step
from bulkformer_tl.metrics._concordance import later, no_pair, won
from bulkformer_tl.metrics._weighted import divide, mean_defined

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]
    #: Draws, shape (B,), their axis, and the standard deviation between folds.
    Score = tuple[Numbers, str, float]


@dataclass(frozen=True, eq=False)
class Censored:
    """Outcomes of the samples that are scored, and what corrects for censoring.

    Parameters
    ----------
    times
        Until event or censoring, shape (N,).
    events
        Whether the event happened, shape (N,).
    at
        Times at which areas and survival are scored, shape (T,).
    inverse
        1 / G at events up to the last of ``at``, 0 elsewhere, shape (N,).
    followed
        G at each of ``at``, shape (T,).
    fall
        By how much survival falls up to each of ``at``, shape (T,).
    """

    times: Numbers
    events: NDArray[np.bool_]
    at: Numbers
    inverse: Numbers
    followed: Numbers
    fall: Numbers

    @classmethod
    def of(cls, times: Numbers, events: NDArray[np.bool_], at: Numbers) -> Self:
        """Estimate censoring on the samples that are scored."""
        own = (times, events)
        inverse = inverse_censoring(times, events & (times <= at[-1]), own)
        followed = refuse_zero(step(*censoring_curve(own), at), at)
        return cls(times, events, at, inverse, followed, -np.diff(np.r_[1.0, step(*kaplan_meier(*own), at)]))


def draw_scores(
    data: Censored,
    risk: Numbers,
    weights: Numbers,
    *,
    survival: Numbers | None,
    folds: NDArray[np.intp],
    strata: NDArray[np.intp] | None,
) -> dict[str, Score]:
    """Score a risk under each row of weights.

    Parameters
    ----------
    data
        Outcomes.
    risk
        Shape (N,).
    weights
        How often each sample counts in each resample, shape (B, N).
    survival
        Shape (N, T), or ``None``.
    folds
        Codes, shape (N,); pairs are formed within them.
    strata
        Codes, shape (N,), or ``None``.

    Returns
    -------
    Name of each score, its draws, its axis, and its standard deviation between folds.

    Raises
    ------
    ValueError
        If no pair is comparable.
    """
    found: dict[str, Score] = {}
    one = np.ones(len(risk))
    if strata is not None:
        cells = folds * (int(strata.max()) + 1) + strata
        above, below, kept = _concordance(data, risk, one, cells, weights)
        stratum = kept % (int(strata.max()) + 1)
        found["harrell_c_within"] = (divide(above.sum(axis=0), below.sum(axis=0)), "stratum_pairs", np.nan)
        each = [divide(above[stratum == s].sum(axis=0), below[stratum == s].sum(axis=0)) for s in np.unique(stratum)]
        found["harrell_c_macro"] = (mean_defined(np.stack(each, axis=-1)), "strata", np.nan)
    early = (data.times < data.at[-1]).astype(np.float64)
    for metric, importance in (("harrell_c", one), ("uno_c", data.inverse**2 * early)):
        if not importance.any():
            continue
        above, below, _ = _concordance(data, risk, importance, folds, weights)
        draws = divide(above.sum(axis=0), below.sum(axis=0))
        found[metric] = (draws, "fold_pairs", _spread(divide(above[:, 0], below[:, 0])))
    area, spread = _area(data, risk, folds, weights)
    found["auc"] = (area, "fold_pairs", spread)
    if survival is not None and len(data.at) > 1:
        loss = _brier(data, survival)
        each_fold = [float(loss[folds == fold].mean()) for fold in np.unique(folds)]
        found["integrated_brier"] = (weights @ loss / weights.sum(axis=1), "samples", _spread(np.array(each_fold)))
    return found


def _spread(values: Numbers) -> float:
    known = values[~np.isnan(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else np.nan


def _concordance(
    data: Censored, risk: Numbers, importance: Numbers, cells: NDArray[np.intp], weights: Numbers
) -> tuple[Numbers, Numbers, NDArray[np.intp]]:
    """Sum the weights of concordant and of comparable pairs of each cell that has any, shapes (cells, B)."""
    above, below, kept = [], [], []
    for cell in np.unique(cells):
        rows = np.flatnonzero(cells == cell)
        times, events = data.times[rows], data.events[rows]
        cases = np.flatnonzero(events & (importance[rows] > 0))
        pair = later(times, events, cases) * importance[rows][cases, None]
        if not pair.any():
            continue
        counts = weights[:, rows]
        above.append(np.einsum("bi,bi->b", counts[:, cases], counts @ (pair * won(risk[rows], cases)).T))
        below.append(np.einsum("bi,bi->b", counts[:, cases], counts @ pair.T))
        kept.append(cell)
    if not kept:
        raise ValueError(no_pair())
    return np.stack(above), np.stack(below), np.array(kept)


def _area(data: Censored, risk: Numbers, folds: NDArray[np.intp], weights: Numbers) -> tuple[Numbers, float]:
    """Average the area at each time by the fall of survival up to it; each sums its pairs over folds."""
    parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    shape = (len(parts), len(data.at), len(weights))
    above, below = np.zeros(shape), np.zeros(shape)
    for p, rows in enumerate(parts):
        order = rows[np.argsort(risk[rows], kind="stable")]
        starts = np.flatnonzero(np.r_[True, np.diff(risk[order]) != 0])
        counts, times, inverse = weights[:, order], data.times[order], data.inverse[order]
        for k, moment in enumerate(data.at):
            hits = np.add.reduceat(counts * (inverse * (times <= moment)), starts, axis=1)
            misses = np.add.reduceat(counts * (times > moment), starts, axis=1)
            beaten = np.cumsum(misses, axis=1) - misses / 2
            above[p, k] = (hits * beaten).sum(axis=1)
            below[p, k] = hits.sum(axis=1) * misses.sum(axis=1)
    fall = np.broadcast_to(data.fall, (len(weights), len(data.at)))
    area = mean_defined(divide(above.sum(axis=0), below.sum(axis=0)).T, fall)
    each = mean_defined(divide(above[:, :, 0], below[:, :, 0]), np.broadcast_to(data.fall, above.shape[:2]))
    return area, _spread(each)


def _brier(data: Censored, survival: Any) -> Numbers:
    """Return the loss of each sample, its mean over the range of times, shape (N,)."""
    died = (data.times[:, None] <= data.at) * data.inverse[:, None]
    alive = (data.times[:, None] > data.at) / data.followed
    loss = survival**2 * died + (1 - survival) ** 2 * alive
    found: Numbers = np.trapezoid(loss, data.at, axis=1) / (data.at[-1] - data.at[0])
    return found
