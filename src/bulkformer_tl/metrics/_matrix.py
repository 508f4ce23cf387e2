"""Scores of a matrix with two axes, such as lines by drugs: along each of them, and over all entries together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from bulkformer_tl.metrics._compare import BLOCK, difference_table
from bulkformer_tl.metrics._regression import FLAT
from bulkformer_tl.metrics._resample import resample
from bulkformer_tl.metrics._tables import DIFFERENCES, SCORES, interval
from bulkformer_tl.metrics._weighted import divide, roc_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from bulkformer_tl.metrics._protocol import Protocol

    Numbers = NDArray[np.float64]
    #: Name of each score and its value in each resample and unit, shape (B, units).
    Units = dict[str, Numbers]

#: A variance below this share of the sum of squares is rounding.
TINY = 1e-10


class Weights(NamedTuple):
    """How often each row and each column counts in each resample; the first resample is the data as they are.

    Parameters
    ----------
    rows
        Shape (1 + B, N).
    columns
        Shape (1 + B, M).
    """

    rows: Numbers
    columns: Numbers


def draw_weights(
    rows: NDArray[np.intp], columns: NDArray[np.intp], protocol: Protocol, *, which: Sequence[str]
) -> Weights:
    """Resample groups of rows, of columns, or both independently of each other (Owen 2007, doi:10.1214/07-AOAS122).

    Parameters
    ----------
    rows
        Group of each row, shape (N,).
    columns
        Group of each column, shape (M,).
    protocol
        Number of resamples and seed.
    which
        What is resampled, ``"rows"`` and ``"columns"``; the rest counts once.
    """
    drawn = []
    for seed, (name, groups) in enumerate((("rows", rows), ("columns", columns))):
        plain = np.ones((1 + protocol.n_bootstrap, len(groups)))
        if name in which:
            rng = np.random.default_rng([protocol.rng, seed])
            plain[1:] = resample(len(groups), n_bootstrap=protocol.n_bootstrap, groups=groups, rng=rng)
        drawn.append(plain)
    return Weights(*drawn)


def compare_matrices(
    truth: Numbers,
    predictions: Mapping[str, Numbers],
    *,
    folds: NDArray[np.intp],
    weights: Weights,
    axes: tuple[str, str],
    classes: bool,
    baselines: Sequence[str],
    level: float,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, pd.DataFrame]]:
    """Score predictions of a matrix along its columns, along its rows and over all entries, and compare them.

    Within a column or row, entries are compared with those of the same test fold only, since other folds come from
    other fits: correlations are those of values (or ranks) centred within the fold, the AUROC counts pairs within it.
    A baseline that is constant there, as the mean of a drug is, has no correlation, rather than a negative one.

    Parameters
    ----------
    truth
        Shape (N, M), ``NaN`` where not measured; 0 and 1 for classes.
    predictions
        Name and predictions, shape (N, M).
    folds
        Test fold of each entry, -1 where it is not scored, shape (N, M).
    weights
        Resamples.
    axes
        What scores within columns and within rows are called, such as ``("per_drug", "per_line")``.
    classes
        Whether to score classes: AUROC and Brier score in place of correlations and errors.
    baselines
        Names among ``predictions``.
    level
        Of the intervals.

    Returns
    -------
    Scores with the columns of :func:`compare`, where ``n`` counts columns, rows or entries; differences from the
    baselines; and for each of ``axes`` a table of the scores of each column or row: ``representation``, ``unit`` (its
    position), ``n`` entries, and one column per score.
    """
    drawn = {
        name: _all_axes(truth, found, folds, weights, axes, classes=classes) for name, found in predictions.items()
    }
    numbers = {axes[0]: folds.T, axes[1]: folds, "global": folds.reshape(1, -1)}
    rows, parts = [], []
    units: dict[str, list[pd.DataFrame]] = {axis: [] for axis in axes}
    once = Weights(*(part[:1] for part in weights))
    for name, scored in drawn.items():
        each = [
            _all_axes(truth, predictions[name], np.where(folds == fold, fold, -1), once, axes, classes=classes)
            for fold in np.unique(folds[folds >= 0])
        ]
        for axis, (draws, values) in scored.items():
            n = int((folds >= 0).sum() if axis == "global" else (numbers[axis] >= 0).any(axis=1).sum())
            for metric, found in draws.items():
                spread = [fold[axis][0][metric][0] for fold in each]
                known = np.array([value for value in spread if not np.isnan(value)])
                deviation = float(known.std(ddof=1)) if len(known) > 1 else np.nan
                rows.append((name, metric, axis, found[0], *interval(found[1:], level), n, deviation))
            if axis in units:
                counts = (numbers[axis] >= 0).sum(axis=1)
                table = pd.DataFrame({"representation": name, "unit": np.arange(len(counts)), "n": counts, **values})
                units[axis].append(table[counts > 0])
    for axis in (*axes, "global"):
        part = difference_table({name: scored[axis][0] for name, scored in drawn.items()}, baselines, level)
        part.insert(DIFFERENCES.index("axis"), "axis", axis)
        part["n"] = next((row[6] for row in rows if row[2] == axis), 0)
        parts.append(part)
    tables = {axis: pd.concat(found, ignore_index=True) for axis, found in units.items()}
    return pd.DataFrame(rows, columns=SCORES), pd.concat(parts, ignore_index=True), tables


def _all_axes(
    truth: Numbers,
    predicted: Numbers,
    folds: NDArray[np.intp],
    weights: Weights,
    axes: tuple[str, str],
    *,
    classes: bool,
) -> dict[str, tuple[Units, Units]]:
    """Return for each axis the mean over units in each resample, and the score of each unit in the data."""
    score = _class_units if classes else _number_units
    columns = _average(score(truth, predicted, folds, weights.rows), weights.columns)
    rows = _average(score(truth.T, predicted.T, folds.T, weights.columns), weights.rows)
    everything = (_class_global if classes else _number_global)(truth, predicted, folds, weights)
    return {axes[0]: columns, axes[1]: rows, "global": (everything, {})}


def _average(blocks: Iterator[tuple[slice, Units]], weights: Numbers) -> tuple[Units, Units]:
    """Average units, as often as they were drawn, over those that define the score."""
    sums: dict[str, list[Numbers]] = {}
    first: dict[str, list[Numbers]] = {}
    for columns, scores in blocks:
        for metric, found in scores.items():
            counted = np.where(np.isnan(found), 0.0, weights[:, columns])
            both = np.stack([(np.nan_to_num(found) * counted).sum(axis=1), counted.sum(axis=1)])
            sums.setdefault(metric, []).append(both)
            first.setdefault(metric, []).append(found[0])
    totals = {metric: np.sum(parts, axis=0) for metric, parts in sums.items()}
    means = {metric: divide(total[0], total[1]) for metric, total in totals.items()}
    return means, {metric: np.concatenate(parts) for metric, parts in first.items()}


def _number_units(
    truth: Numbers, predicted: Numbers, folds: NDArray[np.intp], weights: Numbers
) -> Iterator[tuple[slice, Units]]:
    """Score each column under weights of the rows, (B, N), a block of columns at a time."""
    size = max(1, BLOCK // len(weights))
    for start in range(0, truth.shape[1], size):
        columns = slice(start, min(start + size, truth.shape[1]))
        plain, ranked, errors = np.zeros((3, 1, 1)), np.zeros((3, 1, 1)), np.zeros((2, 1, 1))
        block = truth[:, columns], predicted[:, columns]
        for fold in np.unique(folds[:, columns]):
            inside = (folds[:, columns] == fold) if fold >= 0 else np.zeros(block[0].shape, dtype=bool)
            rows = np.flatnonzero(inside.any(axis=1))
            here, counts = [np.where(inside, values, np.nan)[rows] for values in block], weights[:, rows]
            plain = plain + _moments(here[0], here[1], counts)
            ranked = ranked + _moments(_ranks(here[0]), _ranks(here[1]), counts)
            squares = (here[0] - here[1]) ** 2
            errors = errors + np.stack([counts @ np.nan_to_num(squares), counts @ ~np.isnan(squares)])
        yield columns, _finish(plain, ranked, errors)


def _number_global(truth: Numbers, predicted: Numbers, folds: NDArray[np.intp], weights: Weights) -> Units:
    inside = folds >= 0
    here = [np.where(inside, values, np.nan) for values in (truth, predicted)]
    ranked = [_ranks(values.reshape(-1, 1)).reshape(values.shape) for values in here]

    def total(values: Numbers) -> Numbers:
        found: Numbers = ((weights.rows @ values) * weights.columns).sum(axis=1)
        return found

    squares = np.where(inside, (here[0] - here[1]) ** 2, 0.0)
    errors = np.stack([total(squares), total(inside.astype(np.float64))])
    return _finish(_moments(here[0], here[1], total), _moments(ranked[0], ranked[1], total), errors)


def _moments(truth: Numbers, predicted: Numbers, weights: Numbers | Callable[[Numbers], Numbers]) -> Numbers:
    """Return both variances and the covariance, times the number of entries, under weights; (3, B, M) or (3, B)."""
    total = weights if callable(weights) else weights.__matmul__
    known = ~np.isnan(truth)
    axis = None if callable(weights) else 0
    one, other = (_centred(values, known, axis) for values in (truth, predicted))
    n, first, second = total(known.astype(np.float64)), total(one), total(other)
    squares = total(one**2), total(other**2)
    n = np.maximum(n, 1)
    spread = [whole - part**2 / n for whole, part in zip(squares, (first, second), strict=True)]
    spread = [np.where(part > TINY * whole, part, 0.0) for part, whole in zip(spread, squares, strict=True)]
    return np.stack([*spread, total(one * other) - first * second / n])


def _centred(values: Numbers, known: NDArray[np.bool_], axis: int | None) -> Numbers:
    """Centre the known values, 0 elsewhere, and make what is constant but for rounding so."""
    filled = np.where(known, values, 0.0)
    mean = filled.sum(axis=axis, keepdims=True) / np.maximum(known.sum(axis=axis, keepdims=True), 1)
    centred = np.where(known, filled - mean, 0.0)
    largest = np.abs(filled).max(axis=axis, keepdims=True, initial=0)
    return np.where(np.abs(centred) > FLAT * largest, centred, 0.0)


def _ranks(values: Numbers) -> Numbers:
    # scipy.stats takes a second to import
    from scipy.stats import rankdata

    found: Numbers = rankdata(values, axis=0, nan_policy="omit")
    return found


def _finish(plain: Numbers, ranked: Numbers, errors: Numbers) -> Units:
    correlations = [divide(part[2], np.sqrt(part[0] * part[1])) for part in (plain, ranked)]
    pearson, spearman = (np.clip(found, -1, 1) for found in correlations)
    return {"pearson": pearson, "spearman": spearman, "rmse": np.sqrt(divide(errors[0], errors[1]))}


def _class_units(
    truth: Numbers, predicted: Numbers, folds: NDArray[np.intp], weights: Numbers
) -> Iterator[tuple[slice, Units]]:
    for column in range(truth.shape[1]):
        pairs = np.zeros((2, len(weights)))
        losses = np.zeros((2, len(weights)))
        for fold in np.unique(folds[:, column]):
            if fold < 0:
                continue
            rows = np.flatnonzero(folds[:, column] == fold)
            true, found, counts = truth[rows, column], predicted[rows, column], weights[:, rows]
            pairs += roc_pairs(true > 0, found, counts)
            losses += np.stack([counts @ (true - found) ** 2, counts.sum(axis=1)])
        scores = {"auroc": divide(*pairs), "brier": divide(*losses)}
        yield slice(column, column + 1), {metric: found[:, None] for metric, found in scores.items()}


def _class_global(truth: Numbers, predicted: Numbers, folds: NDArray[np.intp], weights: Weights) -> Units:
    rows, columns = np.nonzero(folds >= 0)
    true, found = truth[rows, columns], predicted[rows, columns]
    scores: dict[str, list[Numbers]] = {"auroc": [], "brier": []}
    size = max(1, BLOCK // len(rows))
    for start in range(0, len(weights.rows), size):
        counts = weights.rows[start : start + size, rows] * weights.columns[start : start + size, columns]
        scores["auroc"].append(divide(*roc_pairs(true > 0, found, counts)))
        scores["brier"].append(divide(counts @ (true - found) ** 2, counts.sum(axis=1)))
    return {metric: np.concatenate(parts) for metric, parts in scores.items()}
