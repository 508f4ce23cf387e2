"""Tell z-scores, gene-centred, shifted and quantile-normalised values apart, on arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scaling = Literal["z-scores", "sample z-scores", "centred", "shifted", "unknown"]

#: What each is, in words.
SCALINGS: dict[Scaling, str] = {
    "z-scores": "centred per gene to standard deviation 1, as z-scores are",
    "sample z-scores": "centred per sample to standard deviation 1",
    "centred": "centred per gene, as log ratios to the cohort's mean are",
    "shifted": "as log ratios and batch-corrected values are",
    "unknown": "and fewer than three samples do not tell why",
}

#: Relative deviation of a mean from 0 and of a standard deviation from 1 that rounding leaves.
TOLERANCE = 0.1


def recognise_scaling(values: NDArray[np.float64]) -> Scaling:
    """Tell what was done to values of which some are negative.

    Parameters
    ----------
    values
        Shape (N, G), samples drawn from a larger table or all of it; ``NaN`` is left out.

    Returns
    -------
    ``"z-scores"`` or ``"centred"`` where most genes have mean 0 within the error of a draw, with or without standard
    deviation 1; ``"sample z-scores"`` where samples have; ``"shifted"`` otherwise.
    """
    measured = values[:, (~np.isnan(values)).sum(axis=0) >= 3]
    if len(values) < 3 or not measured.size:
        return "unknown"
    if np.allclose(np.nanmean(measured, axis=1), 0, atol=0.01) and np.allclose(
        np.nanstd(measured, axis=1), 1, atol=0.01
    ):
        return "sample z-scores"
    spread = np.nanstd(measured, axis=0)
    varying = spread > 1e-9
    if not varying.any():
        return "unknown"
    # samples drawn from a centred table have a mean of their own
    error = max(TOLERANCE, 1.5 / np.sqrt(len(values)))
    mean = np.abs(np.nanmean(measured, axis=0))[varying] / spread[varying]
    if np.median(mean) > error:
        return "shifted"
    unit = np.abs(np.median(spread[varying]) - 1) < TOLERANCE + 1 / len(values)
    return "z-scores" if unit and np.std(spread[varying]) < 0.3 else "centred"


def have_one_distribution(values: NDArray[np.float64]) -> bool:
    """Return whether at least three different samples hold the same values in another order.

    Parameters
    ----------
    values
        Shape (N, G); ``NaN`` is left out. Quantile normalisation makes the distributions the same, and with them the
        sums in any unit.
    """
    quantiles = np.nanquantile(values, np.linspace(0.02, 1, 50), axis=1)
    spread = float(quantiles[-1].max() - quantiles[0].min())
    alike = spread > 0 and float(np.ptp(quantiles, axis=1).max()) < 1e-3 * spread
    return bool(alike and len(np.unique(values, axis=0)) >= 3)
