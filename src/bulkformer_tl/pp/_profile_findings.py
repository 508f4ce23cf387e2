"""What a report says of whole profiles: constant samples and genes, and samples that are there twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bulkformer_tl._anndata import row_blocks
from bulkformer_tl.encodings._profiles import constant_columns, constant_rows, find_duplicates
from bulkformer_tl.pp import _calls
from bulkformer_tl.pp._report import Finding

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from bulkformer_tl.pp._matrices import Matrix

#: Samples of which duplicates are looked for in all; of more, among the drawn ones.
_MAX_COMPARED = 2000

#: Genes, evenly over the table, in which they are compared; more do not tell more.
_MAX_GENES = 12_000

#: Share of constant genes from which it is worth saying, and least number of samples.
_MANY_CONSTANT, _MIN_SAMPLES = 0.05, 5

#: Samples or pairs that a finding names.
_NAMED = 5


def profile_findings(matrix: Matrix, samples: pd.Index, rows: NDArray[np.int64]) -> list[Finding]:
    """Report constant samples, constant genes and duplicated samples.

    Parameters
    ----------
    matrix
        Whose values are compared.
    samples
        Names of all samples.
    rows
        The drawn ones.
    """
    if not matrix.drawn.size:
        return []
    return [*_constant(matrix, samples[rows]), *_duplicates(matrix, samples, rows)]


def _constant(matrix: Matrix, samples: pd.Index) -> list[Finding]:
    findings = []
    constant = constant_rows(matrix.drawn)
    if constant.any():
        names = samples[constant].astype(str).tolist()
        found = f"{len(names):,} samples hold one value in all genes ({_some(names)})"
        call = _calls.drop_named(names) if matrix.where != "raw" else ""
        findings.append(Finding("constant samples", matrix.where, found, "error", call))
    zero, other = constant_columns(matrix.drawn[~constant])
    if len(matrix.drawn) >= _MIN_SAMPLES and max(zero, other) >= _MANY_CONSTANT:
        found = f"{zero:.0%} of the genes are zero in all samples looked at, {other:.0%} hold one other value in all"
        filled = "; filled in where they were not measured?" if other >= _MANY_CONSTANT else ""
        findings.append(Finding("constant genes", matrix.where, found + filled, "warning" if filled else "note"))
    return findings


def _duplicates(matrix: Matrix, samples: pd.Index, rows: NDArray[np.int64]) -> list[Finding]:
    everything = rows.size < len(samples) <= _MAX_COMPARED
    rows = np.arange(len(samples)) if everything else rows
    identical, similar = find_duplicates(_profiles(matrix, everything=everything))
    names = samples[rows].astype(str)
    among = f" among {rows.size:,} samples drawn at random" if rows.size < len(samples) else ""
    findings = []
    if identical:
        later = [names[i] for _, i in identical]
        found = f"{len(identical):,} samples are copies of others{among} ({_pairs(names, identical)})"
        call = _calls.drop_named(later) if samples.is_unique and matrix.where != "raw" else ""
        findings.append(Finding("duplicated samples", matrix.where, found, "warning", call))
    if similar:
        found = (
            f"{len(similar):,} pairs of samples correlate above 0.9995{among} ({_pairs(names, similar)}): one library "
            "twice? Keep them in one fold"
        )
        findings.append(Finding("similar samples", matrix.where, found, "warning"))
    return findings


def _profiles(matrix: Matrix, *, everything: bool) -> NDArray[np.float32]:
    """Return logarithms of some genes, shape (N, genes)."""
    genes = np.arange(0, matrix.drawn.shape[1], -(-matrix.drawn.shape[1] // _MAX_GENES))
    blocks = (block for _, block in row_blocks(matrix.stored, dtype=np.float64)) if everything else [matrix.drawn]
    linear = matrix.unit.quantity != "unknown" and matrix.unit.base is None
    picked = []
    for block in blocks:
        values = np.where(np.isfinite(block[:, genes]), block[:, genes], np.nan)
        picked.append((_log(values) if linear else values).astype(np.float32))
    return np.concatenate(picked)


def _log(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ln(x + 1) of values with 100 per gene, so that depth does not matter."""
    # a negative entry among counts is an error that is reported elsewhere
    positive = np.maximum(linear, 0)
    mean = np.nansum(positive, axis=1, keepdims=True) / positive.shape[1]
    return np.asarray(np.log1p(100 * positive / np.where(mean > 0, mean, 1)))


def _pairs(names: pd.Index, pairs: list[tuple[int, int]]) -> str:
    return _some([f"{names[i]} = {names[j]}" for i, j in pairs])


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
