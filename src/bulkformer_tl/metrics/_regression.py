"""Scores of predicted numbers, each with the axis that it is computed along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from bulkformer_tl.metrics._check import as_labels, to_float
from bulkformer_tl.metrics._weighted import divide

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Numbers = NDArray[np.float64]
    #: Score of truth and prediction, shape (..., n), under weights, shape (..., n).
    Kernel = Callable[[Numbers, Numbers, Numbers], Numbers]

Axis = Literal["global", "per_gene", "per_sample", "per_group"]

#: A spread smaller than this share of the values is rounding.
FLAT = 1e-12


def pearson(
    truth: ArrayLike, prediction: ArrayLike, *, axis: Axis = "global", groups: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Pearson correlation.

    Parameters
    ----------
    truth
        Shape (N, G), or (N,) for ``"global"`` and ``"per_group"``.
    prediction
        Same shape.
    axis
        ``"global"`` over all entries, ``"per_gene"`` within columns, ``"per_sample"`` within rows, ``"per_group"``
        within the entries of each group of rows (drug, line).
    groups
        Of ``"per_group"``, shape (N,).

    Returns
    -------
    One value per unit: shape (), (G,), (N,), or one per group in sorted order. Entries that are ``NaN`` on either
    side are left out. ``NaN`` for units with fewer than two entries, or whose truth or prediction is constant.

    Raises
    ------
    ValueError
        If shapes differ, ``groups`` do not fit ``axis``, or the truth is constant in every unit.
    """
    return _score(_pearson, truth, prediction, axis, groups)


def spearman(
    truth: ArrayLike, prediction: ArrayLike, *, axis: Axis = "global", groups: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Spearman correlation: Pearson correlation of ranks, ties taking their mean rank.

    Parameters
    ----------
    truth
        Shape (N, G), or (N,) for ``"global"`` and ``"per_group"``.
    prediction
        Same shape.
    axis
        As in :func:`pearson`.
    groups
        Of ``"per_group"``, shape (N,).

    Returns
    -------
    One value per unit, as :func:`pearson`.

    Raises
    ------
    ValueError
        As :func:`pearson`.
    """
    return _score(_spearman, truth, prediction, axis, groups)


def rmse(
    truth: ArrayLike, prediction: ArrayLike, *, axis: Axis = "global", groups: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Root mean squared error, in the unit of ``truth``.

    Parameters
    ----------
    truth
        Shape (N, G), or (N,) for ``"global"`` and ``"per_group"``.
    prediction
        Same shape.
    axis
        As in :func:`pearson`.
    groups
        Of ``"per_group"``, shape (N,).

    Returns
    -------
    One value per unit, as :func:`pearson`; ``NaN`` for units without entries.

    Raises
    ------
    ValueError
        If shapes differ, ``groups`` do not fit ``axis``, or no entry is known on both sides.
    """
    return _score(_rmse, truth, prediction, axis, groups)


def r2(
    truth: ArrayLike, prediction: ArrayLike, *, axis: Axis = "global", groups: ArrayLike | None = None
) -> NDArray[np.float64]:
    r"""Coefficient of determination.

    :math:`1 - \sum (y - \hat y)^2 / \sum (y - \bar y)^2` with the mean of the truth in the unit; 0 is what that mean
    reaches, and worse predictions are negative.

    Parameters
    ----------
    truth
        Shape (N, G), or (N,) for ``"global"`` and ``"per_group"``.
    prediction
        Same shape.
    axis
        As in :func:`pearson`.
    groups
        Of ``"per_group"``, shape (N,).

    Returns
    -------
    One value per unit, as :func:`pearson`; ``NaN`` for units with fewer than two entries or constant truth.

    Raises
    ------
    ValueError
        As :func:`pearson`.
    """
    return _score(_r2, truth, prediction, axis, groups)


def regression_scores(truth: Numbers, prediction: Numbers, weights: Numbers) -> dict[str, Numbers]:
    """Score predictions under many sample weights at once.

    Parameters
    ----------
    truth
        Shape (N,).
    prediction
        Shape (N,).
    weights
        How often each sample counts in each resample, shape (B, N).

    Returns
    -------
    Name of each score and its values, shape (B,); ``NaN`` where a resample does not define it.
    """
    return {
        "pearson": _pearson(truth, prediction, weights),
        "spearman": _pearson(_ranks(truth, weights), _ranks(prediction, weights), weights),
        "rmse": _rmse(truth, prediction, weights),
        "r2": _r2(truth, prediction, weights),
    }


def _mean(values: Numbers, weights: Numbers) -> Numbers:
    return divide((values * weights).sum(axis=-1), weights.sum(axis=-1))


def _spread(values: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """Return values centred on their mean and their variance, ``NaN`` where they are constant."""
    centred = values - _mean(values, weights)[..., None]
    variance = _mean(centred**2, weights)
    scale = np.max(np.abs(values) * (weights > 0), axis=-1, initial=0)
    return centred, np.where(variance > (FLAT * scale) ** 2, variance, np.nan)


def _pearson(truth: Numbers, prediction: Numbers, weights: Numbers) -> Numbers:
    one, one_variance = _spread(truth, weights)
    other, other_variance = _spread(prediction, weights)
    # rounding can lift a perfect correlation above one
    return np.clip(_mean(one * other, weights) / np.sqrt(one_variance * other_variance), -1, 1)


def _spearman(truth: Numbers, prediction: Numbers, weights: Numbers) -> Numbers:
    # scipy.stats takes a second to import
    from scipy.stats import rankdata

    known = [np.where(weights > 0, values, np.nan) for values in (truth, prediction)]
    one, other = (np.nan_to_num(rankdata(values, axis=-1, nan_policy="omit")) for values in known)
    return _pearson(one, other, weights)


def _rmse(truth: Numbers, prediction: Numbers, weights: Numbers) -> Numbers:
    return np.sqrt(_mean((truth - prediction) ** 2, weights))


def _r2(truth: Numbers, prediction: Numbers, weights: Numbers) -> Numbers:
    return 1 - _mean((truth - prediction) ** 2, weights) / _spread(truth, weights)[1]


def _ranks(values: Numbers, weights: Numbers) -> Numbers:
    """Return the mean rank of each sample when it occurs ``weights`` times, shape (B, N)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.r_[True, ordered[1:] != ordered[:-1]]
    counts = np.add.reduceat(weights[:, order], np.flatnonzero(starts), axis=1)
    ranks = np.cumsum(counts, axis=1) - (counts - 1) / 2
    found = np.empty_like(weights)
    found[:, order] = ranks[:, np.cumsum(starts) - 1]
    return found


def _score(
    kernel: Kernel, truth: ArrayLike, prediction: ArrayLike, axis: Axis, groups: ArrayLike | None
) -> NDArray[np.float64]:
    true, predicted = to_float(truth, "truth"), to_float(prediction, "prediction")
    _check(true, predicted, axis, groups)
    known = ~(np.isnan(true) | np.isnan(predicted))
    parts = [np.where(known, true, 0.0), np.where(known, predicted, 0.0), known.astype(np.float64)]
    if groups is not None:
        codes, names = as_labels(groups, "groups", n=len(true))
        found = np.stack([kernel(*(part[codes == group].ravel() for part in parts)) for group in range(len(names))])
    elif axis == "global":
        found = np.asarray(kernel(*(part.ravel() for part in parts)))
    else:
        found = kernel(*(part.T if axis == "per_gene" else part for part in parts))
    if np.isnan(found).all():
        _explain(true[known], kernel)
    return found


def _check(true: Numbers, predicted: Numbers, axis: Axis, groups: ArrayLike | None) -> None:
    if axis not in ("global", "per_gene", "per_sample", "per_group"):
        message = f'axis is {axis!r}; use "global", "per_gene", "per_sample" or "per_group"'
        raise ValueError(message)
    if true.shape != predicted.shape:
        message = f"truth has the shape {true.shape} and prediction {predicted.shape}; they must agree"
        raise ValueError(message)
    if axis in ("per_gene", "per_sample") and true.ndim != 2:
        message = f'axis="{axis}" needs samples by genes, and truth has the shape {true.shape}'
        raise ValueError(message)
    if (axis == "per_group") != (groups is not None):
        message = f'axis="{axis}" and groups do not fit; groups belong to axis="per_group" and only there'
        raise ValueError(message)


def _explain(known: Numbers, kernel: Kernel) -> None:
    """Raise if the truth, rather than the prediction, is why nothing could be scored."""
    if not known.size:
        message = "no entry is known in both truth and prediction; look for NaN, and at what was hidden"
        raise ValueError(message)
    if kernel is not _rmse and np.ptp(known) <= FLAT * np.abs(known).max():
        message = f"truth is constant ({known.flat[0]:.6g}), which no correlation or R2 can score; use rmse"
        raise ValueError(message)
