"""Recognise how expression was measured, from the values alone, on arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from bulkformer_tl.encodings._scaling import have_one_distribution
from bulkformer_tl.encodings._units import POWERS, Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bulkformer_tl.encodings._units import GeneFacts

Platform = Literal["bulk", "single-cell", "microarray", "panel", "unknown"]

#: A gene is expected in every bulk sample from this TPM of the average sample on.
EXPRESSED = 10.0

#: Fewer such genes say nothing; all genes are looked at instead.
MIN_EXPRESSED = 50

#: Median share of those genes that a sample misses. Bulk cohorts that it was chosen on reach 0.15 (platelets), cells of
#: up to 30,000 reads start at 0.5; what lies between may be both.
MAX_BULK, MIN_CELLS = 0.2, 0.4

#: Fewer genes are a panel or a selection; bulk tables that were filtered by expression keep more than 10,000.
MAX_PANEL = 5000

#: Largest log2 ratio between the median and the 1 % quantile of intensities, whose background is added to all of
#: them. Sequencing of expressed genes spans 5.3 and more.
MAX_RANGE = 4.8

#: Share of a sample's values that equal its smallest: a floor of sequencing, which intensities do not have.
MAX_FLOOR = 0.005

#: Largest logarithm of an intensity (16 bits), with room for normalisation.
MAX_INTENSITY = 20.0


@dataclass(frozen=True)
class Fingerprint:
    """How values were measured.

    Parameters
    ----------
    platform
        ``"unknown"`` where the values cannot tell.
    reason
        The facts that decided.
    question
        What to ask the data's author where the values leave something open.
    """

    platform: Platform
    reason: str
    question: str = ""


def recognise_platform(values: NDArray[np.float64], unit: Unit, genes: GeneFacts) -> Fingerprint:
    """Recognise bulk RNA-seq, single cells, microarrays and targeted panels.

    Parameters
    ----------
    values
        Shape (N, G); ``NaN`` and infinite entries are left out.
    unit
        What :func:`~bulkformer_tl.encodings._units.recognise` made of them.
    genes
        What is known of the columns; without the corpus mean all genes are looked at.

    Returns
    -------
    The fingerprint.

    Notes
    -----
    A single cell misses most of the genes that every bulk sample expresses; intensities have no floor of equal values
    and a narrow range; panels are short. Whether a short table is a panel or a selection from a long one, and whether
    sequencing that misses a third of the expressed genes is shallow bulk or deep single cells, values do not tell.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    measured = ~np.isnan(values).all(axis=0)
    values, expected = values[:, measured], genes.expected[measured]
    if not values.size or not np.nanmax(np.abs(values)):
        return Fingerprint("unknown", "there is no value other than zero")
    signed = unit.quantity == "unknown" and float(np.nanmin(values)) < 0
    if signed and len(values) < 20:
        return Fingerprint("unknown", "centred or corrected values of so few samples do not tell", _ASK)
    missed, which = _missed(values, unit, expected, signed=signed)
    detected = f"a sample misses {missed:.0%} of {which} in the median"
    if missed >= MIN_CELLS:
        return Fingerprint("single-cell", f"{detected}, as single cells do")
    if values.shape[1] < MAX_PANEL:
        found = f"{values.shape[1]:,} genes, and {detected}"
        return Fingerprint("panel", found, "whether this is a targeted panel or a selection from a whole transcriptome")
    if signed:
        return Fingerprint("unknown", f"{detected}; centred or corrected values tell no more", _ASK)
    return _recognise_long(values, unit, missed, detected)


def _recognise_long(values: NDArray[np.float64], unit: Unit, missed: float, detected: str) -> Fingerprint:
    """Tell tables of many genes apart that are no single cells."""
    intensities = _intensities(values, unit)
    if intensities:
        return Fingerprint("microarray", intensities, "whether these are intensities: rlog values look alike")
    if missed > MAX_BULK:
        return Fingerprint(
            "unknown", detected, "whether this is shallow bulk, deep single-cell or pseudobulk sequencing"
        )
    return Fingerprint("bulk", detected)


_ASK = "how expression was measured"


def _missed(
    values: NDArray[np.float64], unit: Unit, expected: NDArray[np.float64], *, signed: bool
) -> tuple[float, str]:
    """Return the median share of expressed genes that a sample misses, and the genes in words."""
    expressed = expected >= EXPRESSED
    which = f"{expressed.sum():,} genes that every bulk sample expresses"
    if expressed.sum() < MIN_EXPRESSED:
        expressed, which = np.ones(values.shape[1], dtype=bool), "all genes"
    measured = values[:, expressed]
    if signed:
        # what was zero is each gene's smallest value after any scaling per gene
        zero: NDArray[np.float64] | float = np.nanmin(measured, axis=0)
        which = f"{which} (at the smallest value of the gene)"
    else:
        has_zero = unit.base is not None and unit.pseudocount > 0
        zero = float(np.log(unit.pseudocount) / np.log(POWERS[unit.base or "e"])) if has_zero else 0.0
    missing = np.isclose(measured, zero, rtol=1e-5, atol=1e-9) | np.isnan(measured)
    return float(np.median(missing.mean(axis=1))), which


def log_intensities(values: NDArray[np.float64]) -> str:
    """Say why values that should be logarithms of TPM are those of array intensities; empty where they are not.

    Parameters
    ----------
    values
        Shape (N, G); ``NaN`` where missing.

    Returns
    -------
    The facts that decided.
    """
    known = ~np.isnan(values)
    if not known.any() or np.nanmax(values) > MAX_INTENSITY or not known.any(axis=1).all():
        return ""
    return _intensities(values, Unit("unknown"))


def _intensities(values: NDArray[np.float64], unit: Unit) -> str:
    """Say why values are intensities of an array; empty where they are not."""
    low = float(np.nanmin(values))
    if low <= 0 or unit.quantity in {"counts", "tpm", "cpm"}:
        return ""
    floor = float(np.median(np.isclose(values, np.nanmin(values, axis=1, keepdims=True)).mean(axis=1)))
    if floor > MAX_FLOOR:
        return ""
    top = float(np.nanmax(values))
    if top <= MAX_INTENSITY:
        if low <= 1:
            return ""
        found = f"logarithms between {low:.1f} and {top:.1f} without a common smallest value, as intensities are"
    else:
        log = np.log2(values)
        width = float(np.nanmedian(np.nanmedian(log, axis=1) - np.nanquantile(log, 0.01, axis=1)))
        if width > MAX_RANGE:
            return ""
        found = f"no zeros, and a median only {2**width:.0f} times the smallest values, as intensities with background"
    return f"{found}; all samples have one distribution" if have_one_distribution(values) else found
