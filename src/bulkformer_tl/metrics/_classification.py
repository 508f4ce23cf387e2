"""Scores of predicted classes and probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from bulkformer_tl.metrics._check import as_labels, refuse_missing, refuse_one_class, to_float
from bulkformer_tl.metrics._weighted import (
    confidence_bins,
    confidence_gap,
    confusion_counts,
    f1_of,
    one_versus_rest,
    precision_area,
    recall_of,
    roc_area,
    squared_error,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Shares = NDArray[np.float64]


def f1(truth: ArrayLike, prediction: ArrayLike, *, average: Literal["macro", "weighted"] = "macro") -> float:
    r"""F1 over classes.

    :math:`F_k = 2 TP_k / (2 TP_k + FP_k + FN_k)` for each class that occurs in truth or prediction, averaged evenly
    (``"macro"``) or by the number of true samples (``"weighted"``). A class that is never predicted right scores 0.

    Parameters
    ----------
    truth
        Classes, shape (N,).
    prediction
        Predicted classes, shape (N,).
    average
        How classes are averaged.

    Returns
    -------
    Between 0 and 1.

    Raises
    ------
    ValueError
        If labels are missing, lengths differ, or ``average`` is unknown.
    """
    if average not in ("macro", "weighted"):
        message = f'average is {average!r}; use "macro" or "weighted"'
        raise ValueError(message)
    return float(f1_of(confusion_counts(*_code_both(truth, prediction)), average)[0])


def balanced_accuracy(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Mean recall of the classes that occur in ``truth`` (Brodersen et al. 2010, doi:10.1109/ICPR.2010.764).

    Parameters
    ----------
    truth
        Classes, shape (N,).
    prediction
        Predicted classes, shape (N,).

    Returns
    -------
    Between 0 and 1; chance is one over the number of classes.

    Raises
    ------
    ValueError
        If labels are missing or lengths differ.
    """
    return float(recall_of(confusion_counts(*_code_both(truth, prediction)))[0])


def auroc(truth: ArrayLike, probability: ArrayLike, *, classes: ArrayLike | None = None) -> float:
    """Area under the receiver operating characteristic.

    The share of pairs of a positive and a negative sample in which the positive one scores higher, ties counting half
    (Mann-Whitney). With more than two classes the mean over one-versus-rest areas of the classes in ``truth``.

    Parameters
    ----------
    truth
        Classes, shape (N,).
    probability
        Shape (N, K) in the order of ``classes``, or shape (N,) for the second of two classes.
    classes
        Shape (K,); ``None`` takes the sorted labels of ``truth``.

    Returns
    -------
    Between 0 and 1; chance is 0.5.

    Raises
    ------
    ValueError
        If ``truth`` holds one class only, values are missing, or shapes do not fit.
    """
    codes, shares = _aligned(truth, probability, classes)
    _refuse_one_code(codes)
    return float(one_versus_rest(roc_area, codes, shares, np.ones((1, len(codes))))[0])


def auprc(truth: ArrayLike, probability: ArrayLike, *, classes: ArrayLike | None = None) -> float:
    r"""Area under the precision-recall curve as average precision.

    :math:`\sum_t (R_t - R_{t-1}) P_t` over descending thresholds, without interpolation. With more than two classes
    the mean over one-versus-rest areas of the classes in ``truth``.

    Parameters
    ----------
    truth
        Classes, shape (N,).
    probability
        Shape (N, K) in the order of ``classes``, or shape (N,) for the second of two classes.
    classes
        Shape (K,); ``None`` takes the sorted labels of ``truth``.

    Returns
    -------
    Between 0 and 1; chance is the share of positive samples.

    Raises
    ------
    ValueError
        If ``truth`` holds one class only, values are missing, or shapes do not fit.
    """
    codes, shares = _aligned(truth, probability, classes)
    _refuse_one_code(codes)
    return float(one_versus_rest(precision_area, codes, shares, np.ones((1, len(codes))))[0])


def brier(truth: ArrayLike, probability: ArrayLike, *, classes: ArrayLike | None = None) -> float:
    r"""Brier score of class probabilities (Brier 1950).

    :math:`\frac1N \sum_i \sum_k (p_{ik} - y_{ik})^2`, between 0 and 2; for two classes half of it, the usual mean
    squared error of the probability of the second class.

    Parameters
    ----------
    truth
        Classes, shape (N,).
    probability
        Shape (N, K) in the order of ``classes``, or shape (N,) for the second of two classes.
    classes
        Shape (K,); ``None`` takes the sorted labels of ``truth``.

    Returns
    -------
    Smaller is better.

    Raises
    ------
    ValueError
        If values are missing, or shapes do not fit.
    """
    codes, shares = _aligned(truth, probability, classes)
    return float(squared_error(codes, shares).mean())


def reliability(
    truth: ArrayLike, probability: ArrayLike, *, classes: ArrayLike | None = None, n_bins: int = 10
) -> pd.DataFrame:
    """Compare the confidence of predictions with how often they are right.

    Confidence is the largest probability of a sample; bins are of equal width and closed on the right.

    Parameters
    ----------
    truth
        Classes, shape (N,).
    probability
        Shape (N, K) in the order of ``classes``, or shape (N,) for the second of two classes.
    classes
        Shape (K,); ``None`` takes the sorted labels of ``truth``.
    n_bins
        Number of bins between 0 and 1.

    Returns
    -------
    One row per bin: ``low``, ``high``, ``n``, mean ``confidence`` and ``accuracy`` (``NaN`` in empty bins).

    Raises
    ------
    ValueError
        If values are missing, shapes do not fit, or ``n_bins`` is not positive.
    """
    codes, shares = _aligned(truth, probability, classes)
    confidence, right, bins = confidence_bins(codes, shares, n_bins)
    n = np.bincount(bins, minlength=n_bins)
    edges = np.linspace(0, 1, n_bins + 1)
    empty = np.where(n > 0, 1.0, np.nan)
    divisor = np.maximum(n, 1) * empty
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "n": n,
            "confidence": np.bincount(bins, confidence, n_bins) / divisor,
            "accuracy": np.bincount(bins, right, n_bins) / divisor,
        }
    )


def calibration_error(
    truth: ArrayLike, probability: ArrayLike, *, classes: ArrayLike | None = None, n_bins: int = 10
) -> float:
    r"""Expected calibration error of the most likely class (Guo et al. 2017, equation 3).

    :math:`\sum_b \frac{n_b}{N} |accuracy_b - confidence_b|` over the bins of :func:`reliability`.

    Parameters
    ----------
    truth
        Classes, shape (N,).
    probability
        Shape (N, K) in the order of ``classes``, or shape (N,) for the second of two classes.
    classes
        Shape (K,); ``None`` takes the sorted labels of ``truth``.
    n_bins
        Number of bins between 0 and 1.

    Returns
    -------
    Between 0 and 1; smaller is better.

    Raises
    ------
    ValueError
        As :func:`reliability`.
    """
    codes, shares = _aligned(truth, probability, classes)
    return float(confidence_gap(codes, shares, np.ones((1, len(codes))), n_bins)[0])


def _code_both(truth: ArrayLike, prediction: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp], int]:
    true, there = as_labels(truth, "truth")
    predicted, named = as_labels(prediction, "prediction", n=len(true))
    n = len(true)
    both = np.concatenate([there.astype(object)[true], named.astype(object)[predicted]])
    codes, names = as_labels(both, "truth and prediction")
    return codes[:n], codes[n:], len(names)


def _aligned(truth: ArrayLike, probability: ArrayLike, classes: ArrayLike | None) -> tuple[NDArray[np.intp], Shares]:
    """Return true classes as columns, shape (N,), and probabilities, shape (N, K)."""
    codes, names = as_labels(truth, "truth")
    columns = names if classes is None else as_labels(classes, "classes")[1]
    refuse_one_class(columns, "truth" if classes is None else "classes")
    if classes is not None and len(columns) < len(np.asarray(classes)):
        message = f"classes lists a class twice: {np.asarray(classes).tolist()}"
        raise ValueError(message)
    order = np.arange(len(columns)) if classes is None else pd.Index(np.asarray(classes)).get_indexer(pd.Index(names))
    if (order < 0).any():
        message = f"truth holds {names[order < 0].tolist()}, which are not among the classes {columns.tolist()}"
        raise ValueError(message)
    shares = to_float(probability, "probability")
    refuse_missing(np.isnan(shares).reshape(len(shares), -1).any(axis=1), "probability")
    if shares.ndim == 1 and len(columns) == 2:
        shares = np.stack([1 - shares, shares], axis=1)
    if shares.shape != (len(codes), len(columns)):
        message = (
            f"probability has the shape {shares.shape} for {len(codes)} samples and {len(columns)} classes; "
            "pass one column per class, and classes= if truth does not hold all of them"
        )
        raise ValueError(message)
    return order[codes], shares


def _refuse_one_code(codes: NDArray[np.intp]) -> None:
    if len(np.unique(codes)) < 2:
        message = "truth holds one class only, so that nothing can be told apart; score larger or other test sets"
        raise ValueError(message)
