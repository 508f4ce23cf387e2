"""Cox regression of one gene at a time, for all genes at once.

Tied events are treated as in Efron 1977 (doi:10.1080/01621459.1977.10480613). Coefficients and standard errors equal
those of lifelines and statsmodels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

#: Values of a block of genes that are worked on together, and the steps and halvings of Newton's method.
BLOCK_VALUES, STEPS, HALVINGS = 2**20, 40, 12
#: Change of every coefficient (per standard deviation) at which a fit has converged, and the largest one of a fit that
#: is believed: beyond it events and the others are told apart without error and the likelihood has no maximum.
PRECISION, LARGEST = 1e-9, 20.0


@dataclass(frozen=True)
class _Stratum:
    """Samples of a stratum, latest first, and its events.

    Parameters
    ----------
    rows
        Positions of the samples.
    events
        Places of the events among ``rows``.
    last
        For each event, place of the last sample at risk.
    starts
        Of the events that are tied, the first; one per distinct time.
    tied
        For each event, which of these it belongs to.
    share
        For each event, the share of its tied events that Efron's method takes out of the samples at risk.
    """

    rows: NDArray[np.intp]
    events: NDArray[np.intp]
    last: NDArray[np.intp]
    starts: NDArray[np.intp]
    tied: NDArray[np.intp]
    share: Numbers


def cox_screen(
    time: Numbers,
    event: NDArray[np.bool_],
    values: Numbers,
    *,
    strata: NDArray[np.intp] | None = None,
    covariates: Numbers | None = None,
) -> tuple[Numbers, Numbers]:
    """Fit the hazard of each gene alone, or beside covariates.

    Parameters
    ----------
    time
        Until event or censoring, shape (N,).
    event
        Whether the event happened, shape (N,).
    values
        Complete, none of them constant, shape (N, G).
    strata
        Samples are compared within these only, shape (N,).
    covariates
        Shape (N, P).

    Returns
    -------
    Logarithm of the hazard ratio per unit and its standard error, each of shape (G,); ``NaN`` where the likelihood has
    no maximum, because samples with and without the event are separated or a gene follows from the covariates.
    """
    parts = _strata(time, event, strata)
    others = np.empty((len(time), 0)) if covariates is None else covariates
    shared = _standardise(others)[0]
    n_columns = 1 + shared.shape[1]
    step = max(1, BLOCK_VALUES // (len(time) * n_columns))
    found = [_fit(parts, values[:, start : start + step], shared) for start in range(0, values.shape[1], step)]
    coefficient, error = (np.concatenate(column) for column in zip(*found, strict=True))
    return coefficient, error


def _strata(time: Numbers, event: NDArray[np.bool_], strata: NDArray[np.intp] | None) -> list[_Stratum]:
    codes = np.zeros(len(time), dtype=np.intp) if strata is None else strata
    parts = []
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        rows = rows[np.argsort(-time[rows], kind="stable")]
        events = np.flatnonzero(event[rows])
        if len(events):
            times = time[rows]
            _, starts, tied, counts = np.unique(
                -times[events], return_index=True, return_inverse=True, return_counts=True
            )
            last = np.searchsorted(-times, -times[events], side="right") - 1
            share = (np.arange(len(events)) - starts[tied]) / counts[tied]
            parts.append(_Stratum(rows, events, last, starts, tied, share))
    return parts


def _standardise(values: Numbers) -> tuple[Numbers, Numbers]:
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / spread, spread


def _fit(parts: list[_Stratum], values: Numbers, shared: Numbers) -> tuple[Numbers, Numbers]:
    """Find the maximum by Newton's method, halving steps that overshoot; genes that are done take no further part."""
    own, spread = _standardise(values)
    n_genes, k = values.shape[1], 1 + shared.shape[1]
    beta, variance = np.zeros((n_genes, k)), np.full(n_genes, np.nan)
    active = np.arange(n_genes)
    level, score, information = _likelihood(parts, own, shared, beta)
    for _ in range(STEPS):
        change = _solve(information, score)
        for _ in range(HALVINGS):
            trial = _likelihood(parts, own[:, active], shared, beta[active] + change)
            worse = ~(trial[0] >= level - 1e-10 * np.abs(level))
            if not worse.any():
                break
            change[worse] /= 2
        beta[active] += change
        level, score, information = trial
        done = np.abs(change).max(axis=1) < PRECISION
        variance[active[done]] = _variance(information[done])
        lost = ~np.isfinite(beta[active]).all(axis=1) | (np.abs(beta[active]).max(axis=1) > LARGEST)
        stay = ~(done | lost)
        active, level, score, information = active[stay], level[stay], score[stay], information[stay]
        if not len(active):
            break
    beta[np.isnan(variance), 0] = np.nan
    return beta[:, 0] / spread, np.sqrt(variance) / spread


def _solve(information: Numbers, score: Numbers) -> Numbers:
    """Return the Newton step of each gene; ``NaN`` where columns follow from one another."""
    step = np.full(score.shape, np.nan)
    fine = _well_posed(information)
    step[fine] = np.linalg.solve(information[fine], score[fine][:, :, None])[:, :, 0]
    return step


def _variance(information: Numbers) -> Numbers:
    """Return the variance of each gene's coefficient."""
    found = np.full(len(information), np.nan)
    fine = _well_posed(information)
    found[fine] = np.linalg.inv(information[fine])[:, 0, 0]
    return found


def _well_posed(information: Numbers) -> NDArray[np.bool_]:
    finite = np.isfinite(information).all(axis=(1, 2))
    roots = np.linalg.eigvalsh(np.where(finite[:, None, None], information, 0))
    fine: NDArray[np.bool_] = finite & (roots[:, 0] > 1e-9 * roots[:, -1])
    return fine


def _likelihood(
    parts: list[_Stratum], own: Numbers, shared: Numbers, beta: Numbers
) -> tuple[Numbers, Numbers, Numbers]:
    """Return the partial log-likelihood (B,), its gradient (B, K) and the information (B, K, K) of B genes."""
    n_genes, k = beta.shape
    level, score, information = np.zeros(n_genes), np.zeros((n_genes, k)), np.zeros((n_genes, k, k))
    with np.errstate(all="ignore"):
        linear = own * beta[:, 0] + shared @ beta[:, 1:].T
        linear -= linear.max(axis=0)
        for part in parts:
            columns = [own[part.rows], *(shared[part.rows, j : j + 1] for j in range(k - 1))]
            risk = np.exp(linear[part.rows])
            total = _at_risk(part, risk)
            level += (linear[part.rows[part.events]] - np.log(total)).sum(axis=0)
            means = [_at_risk(part, risk * column) / total for column in columns]
            for i in range(k):
                score[:, i] += (columns[i][part.events] - means[i]).sum(axis=0)
                for j in range(i + 1):
                    product = _at_risk(part, risk * (columns[i] * columns[j])) / total
                    information[:, i, j] += (product - means[i] * means[j]).sum(axis=0)
                    information[:, j, i] = information[:, i, j]
    return level, score, information


def _at_risk(part: _Stratum, values: Numbers) -> Numbers:
    """Sum over the samples at risk of each event, less Efron's share of those that are tied with it."""
    total: Numbers = values.cumsum(axis=0)[part.last]
    if len(part.starts) < len(part.events):
        total -= part.share[:, None] * np.add.reduceat(values[part.events], part.starts, axis=0)[part.tied]
    return total
