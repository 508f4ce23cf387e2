"""Whether values can be counts, from what counts never are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Fractional values that stay below this in a sample are logarithms, not expected counts: no library is so small.
LOGARITHMS = 30.0
#: What TPM and CPM of a sample sum to, and how close to it a sum has to be.
MILLION, SAME = 1e6, 1e-3


def find_count_fault(block: NDArray[np.floating], *, counts: bool = True) -> tuple[int, str] | None:
    """Look for the first sample that cannot be counts.

    Parameters
    ----------
    block
        Shape (N, G); ``NaN`` where missing.
    counts
        Whether counts are expected, whole or as quantifiers estimate them; else any values that are not negative.

    Returns
    -------
    The row and what was found with the call that mends it, or ``None``.
    """
    filled = np.where(np.isnan(block), 0, block)
    top, bottom = filled.max(axis=1, initial=0), filled.min(axis=1, initial=0)
    total = np.where(np.isinf(top), 0, filled.sum(axis=1, dtype=np.float64))
    fractional = counts & (filled != np.rint(filled)).any(axis=1)
    scaled = fractional & (np.abs(total - MILLION) <= SAME * MILLION)
    for row in np.flatnonzero((bottom < 0) | np.isinf(top) | scaled | (fractional & (top <= LOGARITHMS))):
        if bottom[row] < 0:
            why = "which counts are not" if counts else "and bins begin at 0"
            return int(row), f"holds negative values (down to {bottom[row]:.3g}), {why}"
        if np.isinf(top[row]):
            return int(row), "holds infinite values; set them to NaN where they mean missing"
        if scaled[row]:
            return int(row), "is fractional and sums to a million, as TPM and CPM do, not counts"
        return int(row), f"is fractional and at most {top[row]:.3g}, as logarithms are, not counts"
    return None
