"""Tables of scores that were computed within units (perturbations, drugs, genes) and are averaged over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bulkformer_tl.metrics._compare import difference_table
from bulkformer_tl.metrics._resample import resample
from bulkformer_tl.metrics._tables import DIFFERENCES, SCORES, interval
from bulkformer_tl.metrics._weighted import mean_defined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bulkformer_tl.metrics._protocol import Protocol


def compare_units(
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]],
    *,
    axis: str,
    folds: NDArray[np.intp],
    n_samples: int,
    baselines: Sequence[str],
    protocol: Protocol,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Average scores over units, with intervals that resample units, and compare representations with baselines.

    Parameters
    ----------
    scores
        Representation, metric, and the score of each unit, shape (U,); ``NaN`` where a unit does not define it.
    axis
        What the table calls it, such as ``"per_perturbation"``.
    folds
        Test fold of each unit, shape (U,).
    n_samples
        Samples behind the scores.
    baselines
        Names among ``scores`` that the others are compared with.
    protocol
        Number of resamples, level and seed.

    Returns
    -------
    Scores and differences with the columns of :func:`compare`.
    """
    weights = resample(len(folds), n_bootstrap=protocol.n_bootstrap, rng=protocol.rng)
    # the first is the data as they are
    weights = np.concatenate([np.ones((1, len(folds))), weights])
    drawn = {
        name: {metric: mean_defined(values, weights) for metric, values in found.items()}
        for name, found in scores.items()
    }
    rows = []
    for name, found in drawn.items():
        for metric, draws in found.items():
            ends, spread = interval(draws[1:], protocol.level), _spread(scores[name][metric], folds)
            rows.append((name, metric, axis, draws[0], *ends, n_samples, spread))
    differences = difference_table(drawn, baselines, protocol.level)
    differences.insert(DIFFERENCES.index("axis"), "axis", axis)
    differences["n"] = n_samples
    return pd.DataFrame(rows, columns=SCORES), differences


def _spread(values: NDArray[np.float64], folds: NDArray[np.intp]) -> float:
    """Return the standard deviation of the folds' means."""
    means = np.array([mean_defined(values[folds == fold]) for fold in np.unique(folds)])
    known = means[~np.isnan(means)]
    return float(known.std(ddof=1)) if len(known) > 1 else np.nan
