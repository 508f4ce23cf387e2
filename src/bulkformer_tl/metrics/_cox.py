"""The Cox model with an elastic net penalty, as a scikit-learn estimator, and its hazards over time.

Coefficients equal those of lifelines (ridge) and scikit-survival (elastic net). lifelines fits 256 columns in minutes
where this takes a tenth of a second, and does not converge on some; scikit-survival is GPL and knows no strata.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.metrics._censoring import step
from bulkformer_tl.metrics._partial_likelihood import partial_likelihood

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

#: What inner folds choose among for the Cox model.
GRID = {"penalty": [0.1, 1.0, 10.0], "l1_ratio": [0.0, 0.5]}
#: Rounds of the alternation between baseline hazard and strata; the change is then below 1e-3.
ROUNDS = 30
#: Log hazards beyond this are taken for it, so that exponentials stay finite.
LARGEST = 30.0


def as_outcome(target: Any) -> tuple[Numbers, NDArray[np.bool_], NDArray[np.intp]]:
    """Take times, events and codes of strata out of the columns of a target, shape (N, 3)."""
    columns = np.asarray(target, dtype=np.float64)
    return columns[:, 0], columns[:, 1] == 1, columns[:, 2].astype(np.intp)


@cache
def elastic_net_cox() -> Any:
    """Return the class of the estimator; scikit-learn is imported when it is needed."""
    from sklearn.base import BaseEstimator

    class ElasticNetCox(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
        """Stratified Cox model, ties by Efron's method.

        Minimises the negative log partial likelihood + penalty * (l1_ratio * sum |b| + (1 - l1_ratio) / 2 * sum b^2),
        where columns are centred and all divided by the root of their summed variances: the ridge part expects of the
        log hazard the variance 1 / penalty, however many samples and columns there are.

        Parameters
        ----------
        penalty
            Weight of the penalty.
        l1_ratio
            Share of the absolute values in it.
        """

        def __init__(self, penalty: float = 1.0, l1_ratio: float = 0.1) -> None:
            self.penalty = penalty
            self.l1_ratio = l1_ratio

        def fit(self, X: Any, y: Any) -> Any:
            """Fit to columns (N, D) and an outcome of time, event and stratum (N, 3)."""
            values = np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float64)
            mean = values.mean(axis=0)
            spread = float(np.sqrt(values.var(axis=0).sum())) or 1.0
            coef = _minimise((values - mean) / spread, y, self.penalty, self.l1_ratio) / spread
            self.coef_, self.intercept_ = coef, float(-mean @ coef)
            return self

        def predict(self, X: Any) -> Numbers:
            """Return log hazards, 0 at the training mean, shape (N,)."""
            found: Numbers = np.asarray(X @ self.coef_ + self.intercept_)
            return found

        def loss(self, X: Any, y: Any) -> float:
            """Return the negative log partial likelihood of other samples."""
            return partial_likelihood(self.predict(X), *as_outcome(y))[0]

    return ElasticNetCox


def _minimise(values: Numbers, target: Any, penalty: float, l1_ratio: float) -> Numbers:
    """Minimise by bounded quasi-Newton steps, coefficients split into what is above and below zero."""
    from scipy.optimize import minimize

    outcome, k = as_outcome(target), values.shape[1]
    lasso, ridge = penalty * l1_ratio, penalty * (1 - l1_ratio)

    def objective(parts: Numbers) -> tuple[float, Numbers]:
        coef = parts[:k] - parts[k:]
        loss, gradient = partial_likelihood(values @ coef, *outcome)
        slope = values.T @ gradient + ridge * coef
        total = float(loss + lasso * parts.sum() + ridge / 2 * (coef @ coef))
        return total, np.r_[slope + lasso, lasso - slope]

    options = {"maxiter": 10_000, "maxfun": 20_000, "ftol": 1e-12, "gtol": 1e-6}
    found: Any = minimize(
        objective, np.zeros(2 * k), jac=True, method="L-BFGS-B", bounds=[(0, None)] * (2 * k), options=options
    )
    coef: Numbers = found.x[:k] - found.x[k:]
    return coef


def breslow(log_hazard: Numbers, time: Numbers, event: NDArray[np.bool_]) -> tuple[Numbers, Numbers]:
    """Return distinct times and the cumulative baseline hazard up to each (Breslow 1972)."""
    distinct, codes = np.unique(time, return_inverse=True)
    at_risk = np.bincount(codes, np.exp(log_hazard))[::-1].cumsum()[::-1]
    return distinct, np.cumsum(np.bincount(codes, event) / at_risk)


def fit_hazard(
    log_hazard: Numbers, time: Numbers, event: NDArray[np.bool_], strata: NDArray[np.intp], n_strata: int
) -> tuple[Numbers, tuple[Numbers, Numbers]]:
    """Fit what a stratified Cox model leaves open: how hazards differ between strata, and how they run over time.

    A stratum's hazard is a multiple of one baseline hazard. The multiple has a gamma prior of mean and variance one, so
    that a stratum with few events stays near the others; it and the baseline are fitted in turns.

    Parameters
    ----------
    log_hazard
        Of the training samples, shape (N,).
    time
        Until event or censoring, shape (N,).
    event
        Whether the event happened, shape (N,).
    strata
        Codes below ``n_strata``, shape (N,).
    n_strata
        Number of strata S.

    Returns
    -------
    What each stratum adds to the log hazard, 0 for one without a sample, shape (S,); times and the cumulative baseline
    hazard up to each.
    """
    own = np.clip(log_hazard, -LARGEST, LARGEST)
    sizes, events = np.bincount(strata, minlength=n_strata), np.bincount(strata, event, minlength=n_strata)
    offsets = np.zeros(n_strata)
    for _ in range(ROUNDS):
        baseline = breslow(own + offsets[strata], time, event)
        expected = np.bincount(strata, cumulative(baseline, time) * np.exp(own), minlength=n_strata)
        offsets = np.log((events + 1) / (expected + 1))
        # the baseline is that of the average sample; without it, level and baseline drift against each other
        offsets = np.where(sizes > 0, offsets - np.average(offsets, weights=sizes), 0.0)
    return offsets, breslow(own + offsets[strata], time, event)


def cumulative(baseline: tuple[Numbers, Numbers], at: Numbers) -> Numbers:
    """Read a cumulative hazard at given times."""
    return 1 - step(baseline[0], 1 - baseline[1], at)


def survival_probability(log_hazard: Numbers, baseline: tuple[Numbers, Numbers], times: Numbers) -> Numbers:
    """Return the probability of no event by each time, shape (N, T)."""
    hazard = np.exp(np.clip(log_hazard, -LARGEST, LARGEST))
    found: Numbers = np.exp(-np.outer(hazard, cumulative(baseline, times)))
    return found
