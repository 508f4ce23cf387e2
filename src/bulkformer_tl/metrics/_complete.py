"""Simple ways to fill a matrix with two axes in from its known entries: what a model of pairs has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

#: Rounds of the alternation of row and column effects; each shrinks the error by the share of missing entries.
N_ROUNDS = 50


def column_mean(known: Numbers) -> Numbers:
    """Predict each entry by the mean of its column; a column without any by the mean of the others' means.

    Parameters
    ----------
    known
        Shape (N, M), ``NaN`` where not known.

    Returns
    -------
    Predictions, shape (N, M).
    """
    counts = (~np.isnan(known)).sum(axis=0)
    means = np.nansum(known, axis=0) / np.maximum(counts, 1)
    means = np.where(counts > 0, means, means[counts > 0].mean())
    return np.tile(means, (len(known), 1))


def additive(known: Numbers) -> Numbers:
    """Predict each entry by an effect of its row and one of its column, fitted by least squares.

    A row or column without any known entry has the mean effect, so that the mean of the column or of the row remains.

    Parameters
    ----------
    known
        Shape (N, M), ``NaN`` where not known.

    Returns
    -------
    Predictions, shape (N, M).
    """
    columns = column_mean(known)[0]
    rows = np.zeros(len(known))
    present = ~np.isnan(known)
    filled = np.nan_to_num(known)
    for _ in range(N_ROUNDS):
        rows = _effects(filled - columns, present, axis=1)
        columns = _effects(filled - rows[:, None], present, axis=0)
    found: Numbers = np.add.outer(rows, columns)
    return found


def _effects(residual: Numbers, present: NDArray[np.bool_], *, axis: int) -> Numbers:
    """Average over an axis; the mean effect where nothing is known."""
    counts = present.sum(axis=axis)
    means = np.where(present, residual, 0.0).sum(axis=axis) / np.maximum(counts, 1)
    found: Numbers = np.where(counts > 0, means, means[counts > 0].mean())
    return found


def nearest_column(known: Numbers, features: NDArray[np.floating]) -> Numbers:
    """Predict the entries of a column without any known one by those of the column that is most like it.

    Likeness is Tanimoto's of 0/1 features, such as fingerprints, and else the Euclidean distance of standardised ones.
    What the nearest column lacks is filled in by :func:`additive`; so are the columns that have known entries.

    Parameters
    ----------
    known
        Shape (N, M), ``NaN`` where not known.
    features
        Shape (M, P).

    Returns
    -------
    Predictions, shape (N, M).
    """
    from scipy.spatial.distance import cdist
    from sklearn.metrics import pairwise_distances_argmin

    found = additive(known)
    filled = np.where(np.isnan(known), found, known)
    # a row without any known entry is known by nothing but the columns' means
    seen = ~np.isnan(known).all(axis=0)
    new, old = features[~seen], features[seen]
    if not seen.all():
        if np.isin(features, (0, 1)).all():
            nearest = cdist(new > 0, old > 0, "jaccard").argmin(axis=1)
        else:
            spread = old.std(axis=0)
            scale = np.where(spread > 0, spread, 1.0)
            nearest = pairwise_distances_argmin(new / scale, old / scale)
        found[:, ~seen] = filled[:, np.flatnonzero(seen)[nearest]]
    return found


def own_slope(known: Numbers, own: NDArray[np.floating]) -> Numbers:
    """Predict each entry by one number that belongs to it, such as the expression of the gene in the line.

    Each column has its mean and its slope, which is shrunk towards the slope that all columns share, by as much as an
    average column has to say. A column without any known entry has that slope, and the mean that a line through the
    columns' means gives.

    Parameters
    ----------
    known
        Shape (N, M), ``NaN`` where not known.
    own
        The number of each entry, shape (N, M); ``NaN`` takes the mean of its column.

    Returns
    -------
    Predictions, shape (N, M).
    """
    present = ~np.isnan(known)
    rows, columns = present.any(axis=1), present.any(axis=0)
    counts = np.maximum(present.sum(axis=0), 1)
    usual = own[rows].astype(np.float64)
    measured = np.maximum((~np.isnan(usual)).sum(axis=0), 1)
    values = np.where(np.isnan(own), np.nansum(usual, axis=0) / measured, own)
    level = np.where(present, known, 0.0).sum(axis=0) / counts
    center = np.where(columns, np.where(present, values, 0.0).sum(axis=0) / counts, values[rows].mean(axis=0))
    x, y = np.where(present, values - center, 0.0), np.where(present, known - level, 0.0)
    square, product = (x**2).sum(axis=0), (x * y).sum(axis=0)
    shared = product.sum() / square.sum() if square.sum() > 0 else 0.0
    prior = square[columns].mean()
    slope = (product + prior * shared) / (square + prior) if prior > 0 else np.zeros_like(square)
    spread = float(np.ptp(center[columns]))
    tilt, base = np.polyfit(center[columns], level[columns], 1) if spread > 0 else (0.0, level[columns].mean())
    level = np.where(columns, level, base + tilt * center)
    found: Numbers = level + slope * (values - center)
    return found
