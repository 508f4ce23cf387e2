"""Scores of masked expression bins as the BioFormers paper defines them (doi:10.1101/2023.11.29.569320).

The published evaluation counts highly expressed genes twice, once above 8 and once above its cutoff, prints the recall
of zeros in place of a predictive value, and takes bin 0 of the next gene for a neighbour of the highest bin. None of
this is done here: bins are compared within a gene, and each gene counts once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bulkformer_tl.metrics._check import to_float

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def sensitivity(truth: ArrayLike, prediction: ArrayLike, *, mask: ArrayLike | None = None) -> float:
    """Share of expressed genes (true bin above 0) whose bin is predicted exactly.

    Parameters
    ----------
    truth
        True bins, whole numbers from 0, shape (N, G) or (N,).
    prediction
        Predicted bins, same shape.
    mask
        Where to look (the masked genes), same shape; ``None`` looks everywhere.

    Returns
    -------
    Between 0 and 1.

    Raises
    ------
    ValueError
        If shapes differ, bins are not whole numbers from 0, or no gene in the mask is expressed.
    """
    true, predicted = _bins(truth, prediction, mask)
    return _share(true == predicted, true > 0, "expressed (true bin above 0)")


def hel_sensitivity(truth: ArrayLike, prediction: ArrayLike, *, cutoff: int, mask: ArrayLike | None = None) -> float:
    """Share of highly expressed genes (true bin above ``cutoff``) whose bin is missed by one at most.

    Parameters
    ----------
    truth
        True bins, whole numbers from 0, shape (N, G) or (N,).
    prediction
        Predicted bins, same shape.
    cutoff
        Last bin of the linear part of value binning, called c in the paper.
    mask
        Where to look (the masked genes), same shape; ``None`` looks everywhere.

    Returns
    -------
    Between 0 and 1.

    Raises
    ------
    ValueError
        If shapes differ, bins are not whole numbers from 0, or no gene in the mask is highly expressed.
    """
    true, predicted = _bins(truth, prediction, mask)
    return _share(np.abs(true - predicted) <= 1, true > cutoff, f"highly expressed (true bin above {cutoff})")


def npv_50(truth: ArrayLike, prediction: ArrayLike, *, mask: ArrayLike | None = None) -> float:
    """Share of unexpressed genes among those predicted unexpressed: the negative predictive value.

    It carries its 50 because the paper masks as many zeros as non-zeros; with another share of zeros in the mask the
    value is not comparable.

    Parameters
    ----------
    truth
        True bins, whole numbers from 0, shape (N, G) or (N,).
    prediction
        Predicted bins, same shape.
    mask
        Where to look (the masked genes), same shape; ``None`` looks everywhere.

    Returns
    -------
    Between 0 and 1.

    Raises
    ------
    ValueError
        If shapes differ, bins are not whole numbers from 0, or no gene in the mask is predicted unexpressed.
    """
    true, predicted = _bins(truth, prediction, mask)
    return _share(true == 0, predicted == 0, "predicted unexpressed (bin 0)")


def lowest_bin(truth: ArrayLike, prediction: ArrayLike, *, mask: ArrayLike | None = None) -> dict[str, float]:
    """Split barely expressed genes (true bin 1) by what is predicted of them, as the paper's Table 3 does.

    Parameters
    ----------
    truth
        True bins, whole numbers from 0, shape (N, G) or (N,).
    prediction
        Predicted bins, same shape.
    mask
        Where to look (the masked genes), same shape; ``None`` looks everywhere.

    Returns
    -------
    Shares ``"one"``, predicted exactly, ``"zero"``, taken for unexpressed, and ``"above_one"``; they sum to 1.

    Raises
    ------
    ValueError
        If shapes differ, bins are not whole numbers from 0, or no gene in the mask has the true bin 1.
    """
    true, predicted = _bins(truth, prediction, mask)
    found = {"one": predicted == 1, "zero": predicted == 0, "above_one": predicted > 1}
    return {name: _share(where, true == 1, "barely expressed (true bin 1)") for name, where in found.items()}


def _bins(
    truth: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    true, predicted = to_float(truth, "truth"), to_float(prediction, "prediction")
    where = np.ones(true.shape, dtype=bool) if mask is None else np.asarray(mask).astype(bool)
    if not true.shape == predicted.shape == where.shape:
        message = f"truth, prediction and mask have the shapes {true.shape}, {predicted.shape}, {where.shape}"
        raise ValueError(f"{message}; they must agree")
    for name, bins in (("truth", true[where]), ("prediction", predicted[where])):
        # NaN is unequal to its floor and is refused with the rest
        wrong = (bins != np.floor(bins)) | (bins < 0)
        if wrong.any():
            message = f"{name} holds {bins[wrong].tolist()[0]!r}, which is no bin; bins are whole numbers from 0"
            raise ValueError(message)
    return true[where], predicted[where]


def _share(right: NDArray[np.bool_], counted: NDArray[np.bool_], what: str) -> float:
    if not counted.any():
        message = f"none of the {counted.size} genes in the mask is {what}, so that the share is undefined"
        raise ValueError(message)
    return float(right[counted].mean())
