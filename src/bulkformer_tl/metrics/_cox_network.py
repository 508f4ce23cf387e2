"""A small network for the log hazard, fitted by the partial likelihood of the Cox model."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.metrics._cox import as_outcome
from bulkformer_tl.metrics._partial_likelihood import partial_likelihood

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

#: What inner folds choose among for the network.
NETWORK_GRID = {"penalty": [0.3, 1.0, 3.0]}
#: Standard deviation of the weights that training starts from.
START = 0.3


@cache
def cox_network() -> Any:
    """Return the class of the estimator; scikit-learn is imported when it is needed."""
    from sklearn.base import BaseEstimator

    class CoxNetwork(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
        """One hidden layer of rectified units, ties by Efron's method, all samples at each step.

        Columns are centred and all divided by the root of their summed variances, and the sum over hidden units by the
        root of their number, so that weights of variance 1 / penalty expect the same of the log hazard whatever the
        number of columns and units; early stopping would hold a handful of events out.

        Parameters
        ----------
        hidden
            Units of the hidden layer.
        penalty
            Weight of half the sum of squared weights.
        max_iter
            Quasi-Newton steps.
        rng
            Seed of the weights that it starts from.
        """

        out_activation_ = "identity"

        def __init__(self, hidden: int = 32, penalty: float = 1.0, max_iter: int = 200, rng: int = 0) -> None:
            self.hidden = hidden
            self.penalty = penalty
            self.max_iter = max_iter
            self.rng = rng

        def fit(self, X: Any, y: Any) -> Any:
            """Fit to columns (N, D) and an outcome of time, event and stratum (N, 3)."""
            values = np.asarray(X, dtype=np.float64)
            mean = values.mean(axis=0)
            spread = float(np.sqrt(values.var(axis=0).sum())) or 1.0
            start = START * np.random.default_rng(self.rng).normal(size=self.hidden * (values.shape[1] + 2))
            found = _train((values - mean) / spread, y, start, self.penalty, self.max_iter)
            first, bias, second = _layers(found, self.hidden)
            self.coefs_ = [first.T / spread, second[:, None] / np.sqrt(self.hidden)]
            self.intercepts_ = [bias - first @ mean / spread, np.zeros(1)]
            self.intercepts_[1] = -self.predict(values).mean(keepdims=True)
            return self

        def predict(self, X: Any) -> Numbers:
            """Return log hazards, 0 on average over the training samples, shape (N,)."""
            hidden = np.maximum(X @ self.coefs_[0] + self.intercepts_[0], 0)
            found: Numbers = (hidden @ self.coefs_[1] + self.intercepts_[1])[:, 0]
            return found

        def loss(self, X: Any, y: Any) -> float:
            """Return the negative log partial likelihood of other samples."""
            return partial_likelihood(self.predict(X), *as_outcome(y))[0]

    return CoxNetwork


def _layers(weights: Numbers, hidden: int) -> tuple[Numbers, Numbers, Numbers]:
    """Take weights of the hidden layer (H, D), its biases (H,) and the weights of the output (H,) out of one array."""
    return weights[: -2 * hidden].reshape(hidden, -1), weights[-2 * hidden : -hidden], weights[-hidden:]


def _train(values: Numbers, target: Any, start: Numbers, penalty: float, max_iter: int) -> Numbers:
    from scipy.optimize import minimize

    outcome = as_outcome(target)
    found: Any = minimize(
        penalised_loss,
        start,
        args=(values, outcome, len(start) // (values.shape[1] + 2), penalty),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iter, "maxfun": 2 * max_iter},
    )
    weights: Numbers = found.x
    return weights


def penalised_loss(
    weights: Numbers, values: Numbers, outcome: Any, hidden: int, penalty: float
) -> tuple[float, Numbers]:
    """Return the penalised loss of a network and its gradient, passed back through the layers."""
    first, bias, second = _layers(weights, hidden)
    inside = values @ first.T + bias
    units, scale = np.maximum(inside, 0), 1 / np.sqrt(hidden)
    loss, gradient = partial_likelihood(units @ second * scale, *outcome)
    back = np.outer(gradient, second * scale) * (inside > 0)
    slope = np.concatenate([(back.T @ values).ravel(), back.sum(axis=0), units.T @ gradient * scale])
    return float(loss + penalty / 2 * (weights @ weights)), slope + penalty * weights
