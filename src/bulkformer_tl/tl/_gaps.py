"""Whether the model or a simple method predicts hidden values better, with an interval over samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol

COLUMNS = ["method", "baseline", "by", "rate", "metric", "axis", "difference", "low", "high", "better"]


def squared_errors(truth: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of squared errors of each sample and their number, (N, 2), from (N, G) with ``NaN`` truths."""
    squares = (truth - mean) ** 2
    known = np.isfinite(squares)
    return np.stack([np.where(known, squares, 0).sum(axis=1), known.sum(axis=1)], axis=1)


def rmse_gaps(
    errors: Mapping[str, NDArray[np.float64]],
    models: Sequence[str],
    protocol: Protocol,
    groups: NDArray[np.object_] | None,
    *,
    by: str,
    rate: float,
) -> pd.DataFrame:
    """Compare the root mean squared error of models and simple methods over the same resamples of the samples.

    Parameters
    ----------
    errors
        Of each method, as of :func:`squared_errors`.
    models
        Methods to compare with all others.
    protocol
        Number of resamples, level and seed.
    groups
        What is resampled as a whole, (N,).
    by, rate
        What was hidden.

    Returns
    -------
    One row per model and simple method: ``difference`` of the errors, model minus method, its interval ``low`` to
    ``high``, widened by Bonferroni to hold for all methods at once, and ``better``, which of the two the interval
    favours, or ``"neither"``.
    """
    from bulkformer_tl.metrics import resample
    from bulkformer_tl.metrics._tables import interval

    n = len(next(iter(errors.values())))
    weights = resample(n, n_bootstrap=protocol.n_bootstrap, groups=groups, rng=protocol.rng)
    sums = {name: np.concatenate([np.ones((1, n)), weights]) @ each for name, each in errors.items()}
    drawn = {name: np.sqrt(each[:, 0] / each[:, 1]) for name, each in sums.items()}
    simple = [name for name in errors if name not in models]
    level = 1 - (1 - protocol.level) / max(len(simple), 1)
    rows = []
    for model in models:
        for other in simple:
            gap = drawn[model] - drawn[other]
            low, high = interval(gap[1:], level)
            better = model if high < 0 else other if low > 0 else "neither"
            rows.append((model, other, by, rate, "rmse", "global", gap[0], low, high, better))
    return pd.DataFrame(rows, columns=COLUMNS)
