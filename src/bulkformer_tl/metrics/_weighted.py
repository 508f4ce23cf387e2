"""Scores of classes and probabilities under many sample weights at once, as bootstrap resamples give them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Weighted = NDArray[np.float64]


def classification_scores(codes: NDArray[np.intp], shares: Weighted, weights: Weighted) -> dict[str, Weighted]:
    """Score probabilities under many sample weights at once.

    Parameters
    ----------
    codes
        True classes as columns of ``shares``, shape (N,).
    shares
        Class probabilities, shape (N, K).
    weights
        How often each sample counts in each resample, shape (B, N).

    Returns
    -------
    Name of each score and its values, shape (B,); ``NaN`` where a resample does not define it.
    """
    confusion = confusion_counts(codes, shares.argmax(axis=1), shares.shape[1], weights)
    total = weights.sum(axis=1)
    return {
        "auroc": one_versus_rest(roc_area, codes, shares, weights),
        "auprc": one_versus_rest(precision_area, codes, shares, weights),
        "balanced_accuracy": recall_of(confusion),
        "f1_macro": f1_of(confusion, "macro"),
        "f1_weighted": f1_of(confusion, "weighted"),
        "brier": divide(weights @ squared_error(codes, shares), total),
        "calibration_error": confidence_gap(codes, shares, weights, 10),
    }


def divide(above: Weighted, below: Weighted) -> Weighted:
    """Divide; ``NaN`` where the denominator is not positive."""
    quotient = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient


def confusion_counts(
    truth: NDArray[np.intp], prediction: NDArray[np.intp], k: int, weights: Weighted | None = None
) -> Weighted:
    """Count true (rows) and predicted (columns) classes, shape (B, K, K)."""
    from scipy.sparse import csr_array

    n = len(truth)
    cells = csr_array((np.ones(n), (np.arange(n), truth * k + prediction)), shape=(n, k * k))
    counts = (np.ones((1, n)) if weights is None else weights) @ cells
    return np.asarray(counts, dtype=np.float64).reshape(-1, k, k)


def f1_of(confusion: Weighted, average: str) -> Weighted:
    right = np.einsum("bkk->bk", confusion)
    true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    scores = 2 * divide(right, true + predicted)
    importance = true if average == "weighted" else (true + predicted > 0).astype(np.float64)
    return divide((np.nan_to_num(scores) * importance).sum(axis=1), importance.sum(axis=1))


def recall_of(confusion: Weighted) -> Weighted:
    return mean_defined(divide(np.einsum("bkk->bk", confusion), confusion.sum(axis=2)))


def mean_defined(values: Weighted, weights: Weighted | None = None) -> Weighted:
    """Average over the last axis without ``NaN``; ``NaN`` where nothing is left."""
    counted = np.where(np.isnan(values), 0.0, 1.0 if weights is None else weights)
    return divide((np.nan_to_num(values) * counted).sum(axis=-1), counted.sum(axis=-1))


def one_versus_rest(area: Any, codes: NDArray[np.intp], shares: Weighted, weights: Weighted) -> Weighted:
    if shares.shape[1] == 2:
        found: Weighted = area(codes == 1, shares[:, 1], weights)
        return found
    return mean_defined(np.stack([area(codes == k, shares[:, k], weights) for k in range(shares.shape[1])], axis=-1))


def roc_area(positive: NDArray[np.bool_], score: Weighted, weights: Weighted) -> Weighted:
    return divide(*roc_pairs(positive, score, weights))


def roc_pairs(positive: NDArray[np.bool_], score: Weighted, weights: Weighted) -> Weighted:
    """Count pairs of a positive and a negative sample: those in the right order (ties half), and all, (2, B)."""
    hits, misses = _by_threshold(positive, score, weights)
    below = np.cumsum(misses, axis=1) - misses / 2
    return np.stack([(hits * below).sum(axis=1), hits.sum(axis=1) * misses.sum(axis=1)])


def precision_area(positive: NDArray[np.bool_], score: Weighted, weights: Weighted) -> Weighted:
    hits, misses = _by_threshold(positive, -score, weights)
    found = np.cumsum(hits, axis=1)
    precision = np.nan_to_num(divide(found, found + np.cumsum(misses, axis=1)))
    return divide((hits * precision).sum(axis=1), hits.sum(axis=1))


def _by_threshold(positive: NDArray[np.bool_], score: Weighted, weights: Weighted) -> tuple[Weighted, Weighted]:
    """Sum the weights of positive and of negative samples at each distinct score, ascending."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    both = (weights * positive)[:, order], (weights * ~positive)[:, order]
    return np.add.reduceat(both[0], starts, axis=1), np.add.reduceat(both[1], starts, axis=1)


def squared_error(codes: NDArray[np.intp], shares: Weighted) -> Weighted:
    """Return the Brier loss of each sample, shape (N,)."""
    target = np.eye(shares.shape[1])[codes]
    error: Weighted = ((shares - target) ** 2).sum(axis=1)
    return error / 2 if shares.shape[1] == 2 else error


def confidence_bins(
    codes: NDArray[np.intp], shares: Weighted, n_bins: int
) -> tuple[Weighted, Weighted, NDArray[np.intp]]:
    if n_bins < 1:
        message = f"n_bins is {n_bins}; at least one bin is needed"
        raise ValueError(message)
    confidence = shares.max(axis=1)
    right = (shares.argmax(axis=1) == codes).astype(np.float64)
    bins = np.digitize(confidence, np.linspace(0, 1, n_bins + 1)[1:-1], right=True)
    return confidence, right, bins


def confidence_gap(codes: NDArray[np.intp], shares: Weighted, weights: Weighted, n_bins: int) -> Weighted:
    confidence, right, bins = confidence_bins(codes, shares, n_bins)
    gap = np.abs(weights @ ((right - confidence)[:, None] * np.eye(n_bins)[bins]))
    return divide(gap.sum(axis=1), weights.sum(axis=1))
