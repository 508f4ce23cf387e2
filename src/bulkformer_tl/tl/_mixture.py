"""Weights and errors of several predictions, fitted on entries whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.tl._held_back import MAX_BINS, MIN_ENTRIES, bin_errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]
    #: Predictions (C, m), variances (Q, m), truth (m,) and weight (m,) of m entries.
    Held = tuple[Doubles, Doubles, Doubles, Doubles]

#: Half-width of a normal distribution's 90 % interval, in standard deviations.
Z90 = 1.6449
#: Squared errors count up to this many times the usual one when variances are fitted.
LARGEST = 25.0
#: Least standard deviation, ln(TPM+1).
LEAST_SD = 1e-3


@dataclass(frozen=True)
class Mixture:
    """A weighted sum of predictions, with its error, at several shares of visible genes.

    At each share the weights w >= 0 minimise the weighted squared error of sum_c w_c x_c over held back entries. The
    variance is sum_q v_q s_q, where s_0 is the mean squared error at the same predicted expression and the others are
    what networks and factor models say of their own error; v >= 0 comes from least squares on squared errors, and is
    then scaled so that 90 % of the entries lie in the 90 % interval.

    Parameters
    ----------
    weights
        Shape (R, C).
    expression, sd
        Root mean squared error by predicted expression, (R, B) each.
    variances
        Weights of the variances, (R, Q + 1).
    """

    weights: Doubles
    expression: Doubles
    sd: Doubles
    variances: Doubles

    @classmethod
    def fit(cls, held: Sequence[Held]) -> Self:
        """Fit at each of R shares; each needs MIN_ENTRIES entries."""
        bins = min([MAX_BINS, *(len(truth) // MIN_ENTRIES for _, _, truth, _ in held)])
        fits = [_fit(*part, bins) for part in held]
        return cls(*(np.stack(part) for part in zip(*fits, strict=True)))

    def predict(self, predictions: Doubles, variances: Doubles, at: float) -> tuple[Doubles, Doubles]:
        """Mix predictions.

        Parameters
        ----------
        predictions
            Shape (C, m).
        variances
            Shape (Q, m).
        at
            Position among the R shares, from 0 to R - 1; between two, both mixtures are averaged.

        Returns
        -------
        Mean, cut at 0, and standard deviation, (m,).
        """
        low = int(at)
        high = min(low + 1, len(self.weights) - 1)
        share = at - low
        mean = (((1 - share) * self.weights[low] + share * self.weights[high]) @ predictions).clip(min=0)
        below, above = (
            _deviation(mean, variances, self.expression[i], self.sd[i], self.variances[i]) for i in (low, high)
        )
        return mean, (1 - share) * below + share * above

    def to_dict(self) -> dict[str, Any]:
        """Return the arrays by name."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Build from what :meth:`to_dict` gave, also after a file."""
        return cls(**{name: np.asarray(stored[name]) for name in cls.__dataclass_fields__})


def _fit(
    predictions: Doubles, variances: Doubles, truth: Doubles, weight: Doubles, bins: int
) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    from scipy.optimize import nnls

    weights = nnls((predictions * weight).T, truth * weight)[0]
    mean = (weights @ predictions).clip(min=0)
    table = bin_errors(mean, truth, max_bins=bins)
    error = np.abs(mean - truth)
    usual = np.interp(mean, table["expression"], table["sd"]).clip(min=LEAST_SD) ** 2
    ratio = np.minimum(error**2 / usual, LARGEST)
    shares = nnls(np.vstack([np.ones_like(usual), variances / usual]).T, ratio)[0]
    deviation = _deviation(mean, variances, table["expression"], table["sd"], shares)
    scale = np.quantile(error / deviation, 0.9) / Z90
    return weights, table["expression"], table["sd"], shares * scale**2


def _deviation(mean: Doubles, variances: Doubles, expression: Doubles, sd: Doubles, shares: Doubles) -> Doubles:
    usual = np.interp(mean, expression, sd).clip(min=LEAST_SD) ** 2
    deviation: Doubles = np.sqrt(shares @ np.vstack([usual, variances])).clip(min=LEAST_SD)
    return deviation
