"""Scores over time of predicted risk and survival under right censoring.

The survival function G of censoring is the Kaplan-Meier estimate on the training outcomes, with events before
censorings at equal times. Values equal those of scikit-survival.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bulkformer_tl.metrics._censoring import (
    censoring_curve,
    check_outcome,
    check_times,
    inverse_censoring,
    kaplan_meier,
    refuse_zero,
    step,
)
from bulkformer_tl.metrics._check import refuse_missing, to_float

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Numbers = NDArray[np.float64]


def time_dependent_auc(
    time: ArrayLike,
    event: ArrayLike,
    risk: ArrayLike,
    times: ArrayLike,
    *,
    train: tuple[ArrayLike, ArrayLike] | None = None,
) -> tuple[NDArray[np.float64], float]:
    """Cumulative/dynamic area under the ROC curve at given times (Hung and Chiang 2010; Uno et al. 2007).

    At each time, how well risk tells those who had the event by then, weighted 1 / G at their event, from those
    still without it.

    Parameters
    ----------
    time
        Until event or censoring, shape (N,).
    event
        Whether the event happened, shape (N,).
    risk
        Shape (N,), or one column per time, shape (N, T).
    times
        Increasing, shape (T,).
    train
        Time and event of the training samples, for G; ``None`` takes those that are scored.

    Returns
    -------
    Area at each time, shape (T,), and their mean weighted by the fall of the Kaplan-Meier curve between times.

    Raises
    ------
    ValueError
        If a time has nobody before or nobody after it, all are censored, G is 0 at an event, or values are missing.
    """
    at = check_times(times)
    risks = to_float(risk, "risk")
    columns = risks[:, None] if risks.ndim == 1 else risks
    observed, events, _ = check_outcome(time, event, columns[:, 0])
    if columns.shape[1] not in (1, len(at)):
        message = f"risk has {columns.shape[1]} columns for {len(at)} times; pass one, or one per time"
        raise ValueError(message)
    refuse_missing(np.isnan(columns).any(axis=1), "risk")
    weights = inverse_censoring(observed, events & (observed <= at[-1]), train or (observed, events))
    areas = np.empty(len(at))
    for k, moment in enumerate(at):
        case, control = events & (observed <= moment), observed > moment
        if not (case.any() and control.any()):
            message = (
                f"at {moment:.6g} {int(case.sum())} had the event and {int(control.sum())} are still without it; "
                f"choose times between {observed[events].min():.6g} and {observed.max():.6g}"
            )
            raise ValueError(message)
        score = columns[:, min(k, columns.shape[1] - 1)]
        rest = np.sort(score[control])
        below = (np.searchsorted(rest, score[case], "left") + np.searchsorted(rest, score[case], "right")) / 2
        areas[k] = (weights[case] * below).sum() / (weights[case].sum() * len(rest))
    fall = -np.diff(np.r_[1.0, step(*kaplan_meier(observed, events), at)])
    return areas, float((areas * fall).sum() / fall.sum())


def survival_brier(
    time: ArrayLike,
    event: ArrayLike,
    survival: ArrayLike,
    times: ArrayLike,
    *,
    train: tuple[ArrayLike, ArrayLike] | None = None,
) -> NDArray[np.float64]:
    r"""Brier score of predicted survival at given times (Graf et al. 1999, Statistics in Medicine 18:2529).

    :math:`\frac1N \sum_i \frac{S_i(t)^2 [t_i \le t, event]}{G(t_i)} + \frac{(1 - S_i(t))^2 [t_i > t]}{G(t)}`

    Parameters
    ----------
    time
        Until event or censoring, shape (N,).
    event
        Whether the event happened, shape (N,).
    survival
        Predicted probability of no event by each of ``times``, shape (N, T).
    times
        Increasing, shape (T,).
    train
        Time and event of the training samples, for G; ``None`` takes those that are scored.

    Returns
    -------
    Shape (T,); smaller is better, and 0.25 is what a constant 0.5 reaches.

    Raises
    ------
    ValueError
        If survival is not between 0 and 1, shapes do not fit, all are censored, G is 0, or values are missing.
    """
    observed, events, _ = check_outcome(time, event, time)
    at = check_times(times)
    predicted = to_float(survival, "survival")
    if predicted.shape != (len(observed), len(at)):
        message = f"survival has the shape {predicted.shape} for {len(observed)} samples and {len(at)} times"
        raise ValueError(message)
    refuse_missing(np.isnan(predicted).any(axis=1), "survival")
    if predicted.min() < 0 or predicted.max() > 1:
        message = f"survival runs from {predicted.min():.6g} to {predicted.max():.6g}; probabilities are needed"
        raise ValueError(message)
    training = train or (observed, events)
    weights = inverse_censoring(observed, events & (observed <= at[-1]), training)
    later = 1 / refuse_zero(step(*censoring_curve(training), at), at)
    died = (events[:, None] & (observed[:, None] <= at)) * weights[:, None]
    alive = (observed[:, None] > at) * later
    found: NDArray[np.float64] = (predicted**2 * died + (1 - predicted) ** 2 * alive).mean(axis=0)
    return found


def integrated_brier(
    time: ArrayLike,
    event: ArrayLike,
    survival: ArrayLike,
    times: ArrayLike,
    *,
    train: tuple[ArrayLike, ArrayLike] | None = None,
) -> float:
    """Mean of :func:`~bulkformer_tl.metrics.survival_brier` over the range of ``times``, by the trapezoidal rule.

    Parameters
    ----------
    time
        Until event or censoring, shape (N,).
    event
        Whether the event happened, shape (N,).
    survival
        Predicted probability of no event by each of ``times``, shape (N, T).
    times
        Increasing, at least two, shape (T,).
    train
        Time and event of the training samples, for G; ``None`` takes those that are scored.

    Returns
    -------
    Smaller is better.

    Raises
    ------
    ValueError
        If fewer than two times are given, or as :func:`survival_brier`.
    """
    at = check_times(times)
    if len(at) < 2:
        message = f"{len(at)} time is no range to integrate over; pass at least two, or use survival_brier"
        raise ValueError(message)
    curve = survival_brier(time, event, survival, at, train=train)
    return float(np.trapezoid(curve, at) / (at[-1] - at[0]))
