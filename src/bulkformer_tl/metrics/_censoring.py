"""Right-censored outcomes: checks, Kaplan-Meier curves and inverse probability of censoring weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.metrics._check import as_numbers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Numbers = NDArray[np.float64]


def check_outcome(time: ArrayLike, event: ArrayLike, risk: ArrayLike) -> tuple[Numbers, NDArray[np.bool_], Numbers]:
    """Return times, events and risk after checking them: finite, from 0, at least one event."""
    times = as_numbers(time, "time")
    if times.min() < 0:
        message = f"time goes down to {times.min():.6g}; times run from 0"
        raise ValueError(message)
    events = _events(event, len(times))
    if not events.any():
        message = f"all {len(events)} samples are censored; without an event nothing can be scored"
        raise ValueError(message)
    return times, events, as_numbers(risk, "risk", n=len(times))


def _events(event: ArrayLike, n: int) -> NDArray[np.bool_]:
    flags = as_numbers(event, "event", n=n)
    odd = sorted(set(np.unique(flags).tolist()) - {0.0, 1.0})
    if odd:
        message = f"event holds {odd[:3]}; use True or 1 for an event, False or 0 for a censored sample"
        raise ValueError(message)
    return flags.astype(bool)


def check_times(times: ArrayLike) -> Numbers:
    """Return increasing times as an array."""
    at = as_numbers(np.atleast_1d(np.asarray(times)), "times")
    if (np.diff(at) <= 0).any():
        message = "times must increase; sort them and drop repeats with numpy.unique(times)"
        raise ValueError(message)
    return at


def kaplan_meier(times: Numbers, events: NDArray[np.bool_], *, censoring: bool = False) -> tuple[Numbers, Numbers]:
    """Return distinct times and the probability of no event (or of no censoring) up to and at each."""
    distinct, codes = np.unique(times, return_inverse=True)
    died = np.bincount(codes, events)
    everyone = np.bincount(codes)
    at_risk = everyone[::-1].cumsum()[::-1].astype(np.float64)
    leaving = died
    if censoring:
        at_risk -= died
        leaving = everyone - died
    share = np.divide(leaving, at_risk, out=np.zeros(len(distinct)), where=at_risk > 0)
    return distinct, np.cumprod(1 - share)


def censoring_curve(training: tuple[Any, Any]) -> tuple[Numbers, Numbers]:
    """Return the Kaplan-Meier curve of censoring of the training time and event."""
    times = as_numbers(training[0], "time of train")
    return kaplan_meier(times, _events(training[1], len(times)), censoring=True)


def step(distinct: Numbers, probability: Numbers, at: Numbers) -> Numbers:
    """Read a Kaplan-Meier curve at given times."""
    found: Numbers = np.r_[1.0, probability][np.searchsorted(distinct, at, side="right")]
    return found


def refuse_zero(probability: Numbers, at: Numbers) -> Numbers:
    """Return probabilities to divide by, or say from which time on they are zero."""
    if (probability <= 0).any():
        message = (
            f"every training sample is censored by {at[probability <= 0].min():.6g}, so that later times cannot be "
            "weighted; choose earlier times or a smaller tau"
        )
        raise ValueError(message)
    return probability


def inverse_censoring(times: Numbers, counted: NDArray[np.bool_], training: tuple[Any, Any]) -> Numbers:
    """Return 1 / G at the time of each counted event and 0 elsewhere, shape (N,)."""
    weights = np.zeros(len(times))
    at = times[counted]
    weights[counted] = 1 / refuse_zero(step(*censoring_curve(training), at), at)
    return weights
