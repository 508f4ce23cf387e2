"""Expression as whole numbers, as BioFormers reads it (doi:10.1101/2023.11.29.569320)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Form = Literal["monotone", "printed", "published", "published_linear"]


def quantile_bins(values: NDArray[np.floating], n_bins: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Cut values into bins of equal size.

    Parameters
    ----------
    values
        Shape (K,), at least one.
    n_bins
        Number of bins B.

    Returns
    -------
    Bins from 1 to B, shape (K,): one more than the number of inner quantiles (linear interpolation) that are smaller,
    so that equal values share a bin; and these quantiles, shape (B - 1,).
    """
    edges = np.quantile(values, np.linspace(0, 1, n_bins + 1)[1:-1])
    return np.searchsorted(edges, values, side="left").astype(np.int32) + np.int32(1), edges


def segment_bins(values: NDArray[np.floating], n_bins: int) -> NDArray[np.int32]:
    """Cut the values above zero of one sample into bins of equal size (equation 2).

    Parameters
    ----------
    values
        Not negative, shape (G,).
    n_bins
        Number of bins B.

    Returns
    -------
    Bins from 1 to B as :func:`quantile_bins` gives them, 0 for zeros; shape (G,).
    """
    bins = np.zeros(values.shape, dtype=np.int32)
    above = values > 0
    if above.any():
        bins[above] = quantile_bins(values[above], n_bins)[0]
    return bins


def value_bins(
    values: NDArray[np.floating], *, bin_size: float = 1 / 3, cutoff: float = 8.0, form: Form = "monotone"
) -> NDArray[np.int32]:
    """Round small values and cut the logarithm of larger ones into bins of equal length (equation 5).

    With b the length of a bin of log2 and c the cutoff, zero is bin 0 in all forms, and

    ``"monotone"``
        values up to c are rounded (half to even) but at least 1; above it max(1, round(c)) + ceil((log2 x - log2 c)/b).
        Never falls, and leaves no value above zero in bin 0.
    ``"printed"``
        as in the paper: up to 1 in bin 1, up to c rounded, above it ceil((log2 x - log2 c) b), which is 1 just above c.
        For c < 1 the case of values up to 1 comes first where cases overlap.
    ``"published"``
        as in the published code: truncated up to c, so that values below 1 are in bin 0; above it
        ceil((log2 x - log2 c)/b) + c, truncated.
    ``"published_linear"``
        the other mode of that code: x/b, truncated.

    Parameters
    ----------
    values
        Not negative, any shape; computed in their own precision.
    bin_size
        b, above zero.
    cutoff
        c, above zero.
    form
        Which of them.

    Returns
    -------
    Bins, same shape.
    """
    if form == "published_linear":
        return np.trunc(values / bin_size).astype(np.int32)
    high = values > (max(cutoff, 1.0) if form == "printed" else cutoff)
    steps = np.log2(values, where=high, out=np.zeros_like(values)) - np.log2(cutoff, dtype=values.dtype)
    if form == "printed":
        low = np.where(values <= 1, 1, np.rint(values))
        bins = np.where(high, np.ceil(steps * bin_size), low)
    elif form == "published":
        bins = np.trunc(np.where(high, np.ceil(steps / bin_size) + cutoff, values))
    else:
        bins = np.where(high, np.ceil(steps / bin_size) + max(1.0, np.rint(cutoff)), np.maximum(np.rint(values), 1))
    return np.where(values > 0, bins, 0).astype(np.int32)
