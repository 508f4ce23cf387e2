"""One temperature that makes probabilities as sure as they should be (Guo et al. 2017, arXiv:1706.04599)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Probabilities are kept away from zero by this before their logarithm is taken.
TINY = 1e-12
#: Temperatures lie between the inverse of this and this.
MAX_TEMPERATURE = 20.0


def fit_temperature(shares: NDArray[np.float64], codes: NDArray[np.intp]) -> float:
    """Find the temperature that makes held-out probabilities most likely (Guo et al. 2017, arXiv:1706.04599).

    Parameters
    ----------
    shares
        Probabilities of samples that were not fitted to, shape (N, K).
    codes
        Their classes, shape (N,).

    Returns
    -------
    Above 1 where the head was too sure of itself, below 1 where it was not sure enough.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        chosen = sharpen(shares, float(np.exp(log_temperature)))[np.arange(len(codes)), codes]
        return float(-np.log(np.maximum(chosen, TINY)).mean())

    limit = float(np.log(MAX_TEMPERATURE))
    found: Any = minimize_scalar(loss, bounds=(-limit, limit), method="bounded")
    return float(np.exp(found.x))


def sharpen(shares: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Divide the logarithms of probabilities (N, K) by a temperature and normalise them again."""
    logits = np.log(np.maximum(shares, TINY)) / temperature
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return found
