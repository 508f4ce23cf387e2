"""Transcripts per million and their logarithms, on arrays; ``NaN`` is missing and stays so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Base = Literal["e", "2", "10"]

#: What the TPM of a sample's denominator genes sum to.
MILLION = 1e6

_LOG = {"e": 1.0, "2": float(np.log(2)), "10": float(np.log(10))}


def tpm(
    abundance: ArrayLike, lengths: ArrayLike | None = None, *, denominator: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Turn counts, or anything proportional to them within a sample, into TPM.

    Every value is divided by the gene's length, then a sample is scaled so that its denominator genes sum to a
    million (Wagner et al. 2012, doi:10.1007/s12064-012-0162-3). Missing values and genes of unknown length take no
    part in the sum.

    Parameters
    ----------
    abundance
        Not negative, shape (N, G): counts, or with ``lengths=None`` what is already per length (FPKM, TPM).
    lengths
        In bp, shape (G,), ``NaN`` where unknown.
    denominator
        Which genes make up the million, boolean, shape (G,). ``None`` takes all.

    Returns
    -------
    TPM, shape (N, G): ``NaN`` where the value or the length is unknown. A sample whose denominator is zero is
    returned unscaled, so that a sample of zeros stays zeros, as in the authors' code.
    """
    rates = per_length(abundance, lengths)
    total = denominator_sums(rates, denominator)[:, None]
    return rates * (MILLION / np.where(total > 0, total, MILLION))


def per_length(abundance: ArrayLike, lengths: ArrayLike | None) -> NDArray[np.float64]:
    """Divide by the length in kilobases; ``None`` leaves the values as they are.

    Parameters
    ----------
    abundance
        Shape (N, G).
    lengths
        In bp, shape (G,), ``NaN`` where unknown.

    Returns
    -------
    Shape (N, G).
    """
    values = np.asarray(abundance, dtype=np.float64)
    return values if lengths is None else values / (np.asarray(lengths, dtype=np.float64) / 1000)


def denominator_sums(rates: NDArray[np.float64], denominator: ArrayLike | None = None) -> NDArray[np.float64]:
    """Sum each sample over its denominator genes, leaving out missing values.

    Parameters
    ----------
    rates
        Abundance per length, shape (N, G).
    denominator
        Boolean, shape (G,). ``None`` takes all genes.

    Returns
    -------
    Shape (N,).
    """
    genes = slice(None) if denominator is None else np.asarray(denominator, dtype=bool)
    sums: NDArray[np.float64] = np.nansum(rates[:, genes], axis=1)
    return sums


def log_tpm(
    abundance: ArrayLike, lengths: ArrayLike | None = None, *, denominator: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return ln(TPM+1) of counts; parameters and missing values as in :func:`tpm`."""
    return np.log1p(tpm(abundance, lengths, denominator=denominator))


def to_log(values: ArrayLike, *, base: Base = "e", pseudocount: float = 1.0) -> NDArray[np.float64]:
    """Return the logarithm of ``values + pseudocount``.

    Parameters
    ----------
    values
        Not negative, any shape.
    base
        Of the logarithm.
    pseudocount
        Added before the logarithm is taken.

    Returns
    -------
    Same shape.
    """
    shifted = np.asarray(values, dtype=np.float64) + (pseudocount - 1)
    return np.log1p(shifted) / _LOG[base]


def from_log(values: ArrayLike, *, base: Base = "e", pseudocount: float = 1.0) -> NDArray[np.float64]:
    """Undo :func:`to_log`.

    Parameters
    ----------
    values
        Logarithms, any shape.
    base
        Of the logarithm.
    pseudocount
        That was added before the logarithm was taken.

    Returns
    -------
    Linear values, same shape. What rounding leaves below zero becomes zero.
    """
    linear = np.expm1(np.asarray(values, dtype=np.float64) * _LOG[base]) - (pseudocount - 1)
    return np.maximum(linear, 0.0)
