"""Score tables of several predictions of the same samples, and their differences from baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl.metrics._check import as_labels, as_numbers, to_float
from bulkformer_tl.metrics._protocol import Protocol
from bulkformer_tl.metrics._regression import regression_scores
from bulkformer_tl.metrics._resample import resample
from bulkformer_tl.metrics._tables import DIFFERENCES, SCORES, holm, interval, sign_p
from bulkformer_tl.metrics._weighted import classification_scores, mean_defined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    #: Name and score of each resample, shape (1 + B,); the first is the data as they are.
    Drawn = dict[str, NDArray[np.float64]]

#: Entries of a block of resamples, which bounds memory.
BLOCK = 2_000_000
#: Test folds with fewer samples are not scored one by one in regression.
FOLD = 5


def compare(
    truth: ArrayLike,
    predictions: Mapping[str, NDArray[np.float64]],
    *,
    folds: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    baselines: Sequence[str] = (),
    pairwise: bool = False,
    protocol: Protocol | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score predictions of the same samples and compare them in pairs.

    Parameters
    ----------
    truth
        Class codes from 0, which are columns of the probabilities, or numbers, shape (N,).
    predictions
        Name and probabilities (N, K) or numbers (N,).
    folds
        Which test fold each sample was in, shape (N,); ``None`` if there was one.
    groups
        What is resampled as a whole, shape (N,).
    baselines
        Names among ``predictions`` that the others are compared with.
    pairwise
        Compare those others with each other as well, both ways.
    protocol
        Number of resamples, level, seed and axis; ``None`` takes ``Protocol()``.

    Returns
    -------
    Two tables. Scores, one row per prediction and metric: ``mean`` over test folds (axis ``"fold"``) or over all
    samples together (``"pooled"``), its percentile interval ``low`` to ``high``, ``n`` samples and the standard
    deviation ``fold_sd`` between folds. Differences, one row per prediction, baseline and metric: ``difference`` is
    prediction minus baseline in the same resamples, ``low`` to ``high`` its interval, widened by Bonferroni to hold
    for all that the prediction is compared with at once, ``p`` the two-sided bootstrap p-value and ``p_holm`` that
    value after Holm's correction over the same. What a prediction leaves undefined, as the correlation of a constant,
    is ``NaN``.

    Raises
    ------
    ValueError
        If numbers of samples differ, values are missing, or a baseline is not among the predictions.

    Notes
    -----
    Unless the protocol names the axis, scores are averaged over folds if each fold defines them (all classes in each;
    or at least five samples that are not constant). Pooling ranks predictions of different fits against each other,
    which penalises even a constant prediction; the table says where it was done.
    """
    protocol = protocol or Protocol()
    true = _checked(truth, predictions, baselines)
    parts = np.zeros(len(true), dtype=np.intp) if folds is None else as_labels(folds, "folds", n=len(true))[0]
    axis = protocol.axis or _axis(true, parts, predictions)
    strata = parts if axis == "fold" else np.zeros_like(parts)
    weights = resample(len(true), n_bootstrap=protocol.n_bootstrap, groups=groups, folds=strata, rng=protocol.rng)
    weights = np.concatenate([np.ones((1, len(true))), weights])
    drawn = {name: _over_folds(true, predicted, strata, weights) for name, predicted in predictions.items()}
    rows = []
    for name, scores in drawn.items():
        spread = _fold_sd(true, predictions[name], parts)
        for metric, draws in scores.items():
            low, high = interval(draws[1:], protocol.level)
            rows.append((name, metric, axis, draws[0], low, high, len(true), spread[metric]))
    differences = difference_table(drawn, baselines, protocol.level, pairwise=pairwise)
    differences.insert(DIFFERENCES.index("axis"), "axis", axis)
    differences["n"] = len(true)
    return pd.DataFrame(rows, columns=SCORES), differences


def _checked(
    truth: ArrayLike, predictions: Mapping[str, NDArray[np.float64]], baselines: Sequence[str]
) -> NDArray[Any]:
    absent = [name for name in baselines if name not in predictions]
    if absent:
        message = f"the baselines {absent} are not among the predictions {list(predictions)}"
        raise ValueError(message)
    true = as_numbers(truth, "truth")
    dimensions = {np.ndim(predicted) for predicted in predictions.values()}
    for name, predicted in predictions.items():
        values = to_float(predicted, name)
        if len(values) != len(true) or len(dimensions) > 1 or np.isnan(values).any():
            message = (
                f"{name!r} has the shape {values.shape} with {int(np.isnan(values).sum())} NaN for {len(true)} "
                "samples; pass one prediction per sample, all of them numbers or all of them probabilities"
            )
            raise ValueError(message)
    return true.astype(np.intp) if dimensions == {2} else true


def difference_table(
    drawn: Mapping[str, Drawn], baselines: Sequence[str], level: float, *, pairwise: bool = False
) -> pd.DataFrame:
    """Compare the draws of each prediction with those of each baseline or of all others, metric by metric."""
    rows = []
    judged = [name for name in drawn if name not in baselines]
    for name in judged:
        others = [*baselines, *(other for other in judged if pairwise and other != name)]
        # Bonferroni: one interval per comparison, all of which hold together at the level asked for
        together = 1 - (1 - level) / max(len(others), 1)
        for metric, draws in drawn[name].items():
            gaps = [draws - drawn[other][metric] for other in others]
            p = [sign_p(gap[1:]) for gap in gaps]
            for other, gap, raw, corrected in zip(others, gaps, p, holm(p), strict=True):
                rows.append((name, other, metric, gap[0], *interval(gap[1:], together), raw, corrected))
    return pd.DataFrame(rows, columns=[column for column in DIFFERENCES if column not in ("axis", "n")])


def _axis(truth: NDArray[Any], folds: NDArray[np.intp], predictions: Mapping[str, NDArray[np.float64]]) -> str:
    """Say whether every test fold defines every score on its own."""
    parts = [truth[folds == fold] for fold in np.unique(folds)]
    if any(np.ndim(predicted) == 2 for predicted in predictions.values()):
        defined = all(len(np.unique(part)) == len(np.unique(truth)) for part in parts)
    else:
        defined = all(len(part) >= FOLD and np.ptp(part) > 0 for part in parts)
    return "fold" if defined and len(parts) > 1 else "pooled"


def _score(truth: NDArray[Any], predicted: NDArray[np.float64], weights: NDArray[np.float64]) -> Drawn:
    score = classification_scores if predicted.ndim == 2 else regression_scores
    return score(truth, predicted, weights)


def _over_folds(
    truth: NDArray[Any], predicted: NDArray[np.float64], parts: NDArray[np.intp], weights: NDArray[np.float64]
) -> Drawn:
    """Score each fold and average folds by how often they were drawn, for each resample."""
    rows = max(1, BLOCK // len(truth))
    blocks = [
        _average(truth, predicted, parts, weights[start : start + rows]) for start in range(0, len(weights), rows)
    ]
    return {metric: np.concatenate([block[metric] for block in blocks]) for metric in blocks[0]}


def _average(
    truth: NDArray[Any], predicted: NDArray[np.float64], parts: NDArray[np.intp], weights: NDArray[np.float64]
) -> Drawn:
    per_fold, drawn = [], []
    for part in np.unique(parts):
        here = parts == part
        counts = weights[:, here]
        per_fold.append(_score(truth[here], predicted[here], counts))
        # equal counts: the fold was drawn as a whole; otherwise draws were made within it, and it counts once
        drawn.append(np.where(np.ptp(counts, axis=1) == 0, counts[:, 0], 1.0))
    multiplicity = np.stack(drawn, axis=-1)
    return {
        metric: mean_defined(np.stack([scores[metric] for scores in per_fold], axis=-1), multiplicity)
        for metric in per_fold[0]
    }


def _fold_sd(truth: NDArray[Any], predicted: NDArray[np.float64], folds: NDArray[np.intp]) -> dict[str, float]:
    """Return the standard deviation of each score between the folds that define it."""
    each = []
    for fold in np.unique(folds):
        here = folds == fold
        each.append(_score(truth[here], predicted[here], np.ones((1, int(here.sum())))))
    found = {}
    for metric in each[0]:
        values = np.array([scores[metric][0] for scores in each])
        known = values[~np.isnan(values)]
        found[metric] = float(known.std(ddof=1)) if len(known) > 1 else np.nan
    return found
