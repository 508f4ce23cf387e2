"""A linear model of each gene, with variances moderated across genes (Smyth 2004, doi:10.2202/1544-6115.1027)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]


def linear_screen(values: Numbers, design: Numbers) -> tuple[Numbers, Numbers, float, int]:
    """Regress each gene on the same columns.

    Parameters
    ----------
    values
        Complete, shape (N, G).
    design
        Shape (N, K); the first column is the one that is asked about.

    Returns
    -------
    Coefficient of the first column (G,), residual variance (G,), what the latter is multiplied with to be the variance
    of the coefficient, and residual degrees of freedom. ``NaN`` and 0 where the column follows from the others or
    nothing is left to estimate the variance from.
    """
    n, k = design.shape
    if n <= k or np.linalg.matrix_rank(design) < k:
        unknown = np.full(values.shape[1], np.nan)
        return unknown, unknown, np.nan, 0
    q, r = np.linalg.qr(design)
    projected = q.T @ values
    coefficients = np.linalg.solve(r, projected)
    residuals = values - q @ projected
    inverse = np.linalg.inv(r)
    return coefficients[0], (residuals**2).sum(axis=0) / (n - k), float((inverse[0] ** 2).sum()), n - k


def moderate(variance: Numbers, df: Numbers) -> tuple[Numbers, Numbers]:
    """Shrink the variances of genes towards what is common to them.

    Parameters
    ----------
    variance
        Residual variances, shape (G,); those that are 0 or ``NaN`` tell nothing about the others.
    df
        Their degrees of freedom, shape (G,).

    Returns
    -------
    Posterior variances and their degrees of freedom, never more than those of all genes together, each of shape (G,).
    """
    from scipy.special import digamma, polygamma

    known = (variance > 0) & (df > 0)
    prior_df, prior = np.inf, np.nan
    if known.any():
        half = df[known] / 2
        shift = np.log(variance[known]) - digamma(half) + np.log(half)
        excess = (shift.var(ddof=1) if len(shift) > 1 else 0.0) - polygamma(1, half).mean()
        prior_df = 2 * _inverse_trigamma(float(excess)) if excess > 0 else np.inf
        offset = digamma(prior_df / 2) - np.log(prior_df / 2) if np.isfinite(prior_df) else 0.0
        prior = float(np.exp(shift.mean() + offset))
    total = np.minimum(prior_df + df, df[known].sum())
    if not np.isfinite(prior_df):
        return np.where(np.isnan(variance), np.nan, prior), total
    return (prior_df * prior + df * variance) / (prior_df + df), total


def _inverse_trigamma(value: float) -> float:
    """Return where the trigamma function has this value."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    # between its bounds 1/x + 1/(2 x^2) and 1/x + 1/x^2
    low = (1 + np.sqrt(1 + 2 * value)) / (2 * value)
    high = (1 + np.sqrt(1 + 4 * value)) / (2 * value)
    return float(brentq(lambda x: float(polygamma(1, x)) - value, low * (1 - 1e-9), high * (1 + 1e-9), xtol=1e-12))
