"""Whether values can be ln(TPM+1), from what that unit makes impossible."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: No ln(TPM+1) is larger, since no TPM is larger than a million.
MAX_LOG_TPM = math.log(1e6 + 1)

#: TPM of a sample sum to a million over their own denominator; over another gene set they may exceed it a little, but
#: log2 values read as natural logarithms sum to five millions and more.
MAX_SUM = 2.5e6


def find_fault(block: NDArray[np.float32]) -> tuple[tuple[int, str] | None, bool]:
    """Look for the first sample that cannot be ln(TPM+1).

    Parameters
    ----------
    block
        Shape (N, G); ``NaN`` where missing.

    Returns
    -------
    The row and what was found with the call that mends it, or ``None``; and whether all values are whole numbers.
    """
    observed = ~np.isnan(block)
    filled = np.where(observed, block, 0)
    top = filled.max(axis=1)
    bottom = filled.min(axis=1)
    with np.errstate(over="ignore"):
        total = np.expm1(filled, dtype=np.float64).sum(axis=1)
    whole = bool((filled == np.floor(filled)).all())
    for row in np.flatnonzero(
        ~observed.any(axis=1) | ~np.isfinite(top) | (bottom < 0) | (top > MAX_LOG_TPM + 1e-4) | (total > MAX_SUM)
    ):
        return (int(row), _describe(observed[row], filled[row], total[row])), whole
    return None, whole


def _describe(observed: NDArray[np.bool_], values: NDArray[np.float32], total: float) -> str:
    top, bottom = float(values.max()), float(values.min())
    faults = {
        "has no measured gene of the vocabulary; drop it: adata = adata[keep].copy()": not observed.any(),
        "holds infinite values; set them to NaN where they mean missing": not np.isfinite([top, bottom]).all(),
        "holds -10, the marker of missing genes in the authors' files; set those entries to NaN": bottom == -10,
        f"holds negative values (down to {bottom:.3g}), as z-scores or log ratios do; "
        "start from counts or TPM, see bf.pp.diagnose(adata)": bottom < 0,
        f"holds whole numbers up to {top:,.0f}, as raw counts do; call bf.pp.log_tpm(adata) first": (
            top > MAX_LOG_TPM and bool((values == np.floor(values)).all())
        ),
        f"reaches {top:,.4g}, and ln(TPM+1) ends at {MAX_LOG_TPM:.2f}; for TPM call "
        'bf.pp.to_log_tpm(adata, unit="tpm"), for log2(TPM+1) unit="log2_tpm", and see '
        "bf.pp.diagnose(adata)": top > MAX_LOG_TPM,
        f"sums to {total / 1e6:.1f} million TPM, and TPM sum to one million; for log2(TPM+1) call "
        'bf.pp.to_log_tpm(adata, unit="log2_tpm"), and see bf.pp.diagnose(adata)': True,
    }
    return next(text for text, applies in faults.items() if applies)
