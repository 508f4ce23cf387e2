"""The partial likelihood of the Cox model, with its gradient: what every survival head is fitted by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]


def partial_likelihood(
    log_hazard: Numbers, time: Numbers, event: NDArray[np.bool_], strata: NDArray[np.intp]
) -> tuple[float, Numbers]:
    r"""Negative log partial likelihood, ties by Efron's method (Efron 1977, JASA 72:557), and its gradient.

    :math:`-\sum_s \sum_t \left[\sum_{i \in D_t} \eta_i - \sum_{l=0}^{d_t - 1} \log\left(\sum_{j \in R_t} e^{\eta_j}
    - \frac{l}{d_t} \sum_{j \in D_t} e^{\eta_j}\right)\right]`, where at time t of stratum s the :math:`d_t` samples
    :math:`D_t` have the event and :math:`R_t` are at risk.

    Parameters
    ----------
    log_hazard
        :math:`\eta`, shape (N,).
    time
        Until event or censoring, shape (N,).
    event
        Whether the event happened, shape (N,).
    strata
        Codes; who is at risk is counted within each, shape (N,).

    Returns
    -------
    The sum over events, and its derivative by each log hazard, shape (N,).
    """
    total, gradient = 0.0, np.zeros(len(time))
    for stratum in np.unique(strata[event]):
        rows = np.flatnonzero(strata == stratum)
        rows = rows[np.argsort(time[rows], kind="stable")]
        loss, gradient[rows] = _of_stratum(log_hazard[rows], time[rows], event[rows])
        total += loss
    return total, gradient


def _of_stratum(eta: Numbers, time: Numbers, event: NDArray[np.bool_]) -> tuple[float, Numbers]:
    """Return the loss and gradient of samples in the order of their times."""
    # a shift leaves the likelihood as it is and keeps exponentials finite
    top = eta.max()
    hazard = np.exp(eta - top)
    _, first, tied = np.unique(time, return_index=True, return_inverse=True)
    at_risk = hazard[::-1].cumsum()[::-1][first]
    died = np.bincount(tied, event)
    dying = np.bincount(tied, hazard * event)
    # the events of a tie leave one after the other, each taking an equal share of their hazard along
    moment = tied[event]
    order = np.arange(len(moment)) - np.r_[0, died.cumsum()[:-1]][moment]
    share = order / died[moment]
    left = at_risk[moment] - share * dying[moment]
    loss = float(np.log(left).sum() + event.sum() * top - eta[event].sum())
    each = np.bincount(moment, 1 / left, minlength=len(first))
    spared = np.bincount(moment, share / left, minlength=len(first))
    return loss, hazard * (each.cumsum()[tied] - event * spared[tied]) - event
