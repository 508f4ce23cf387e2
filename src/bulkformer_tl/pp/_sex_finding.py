"""Compare the sex of donors, as XIST and the Y chromosome tell it, with a column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import row_blocks
from bulkformer_tl.encodings._log_tpm import from_log
from bulkformer_tl.encodings._sex import MIN_READS, SPELLINGS, XIST, Y_GENES, sex_of_clusters, sex_of_linear
from bulkformer_tl.pp._report import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bulkformer_tl.encodings._platform import Platform
    from bulkformer_tl.pp._matrices import Matrix

#: Values of the lowest genes, in TPM of the corpus, beyond which there is a background.
MAX_LOW = 1.0

#: Samples that a finding names.
_NAMED = 10


def call_sex(matrix: Matrix, platform: Platform, samples: pd.Index) -> pd.Series:
    """Tell the sex of every sample.

    Parameters
    ----------
    matrix
        Whose values tell; all its samples are read, block by block.
    platform
        Single cells hold too few reads, and intensities have no zero.
    samples
        Names of the samples.

    Returns
    -------
    ``"female"``, ``"male"`` or ``"undetermined"`` by sample.
    """
    columns = [gene for gene in Y_GENES if gene in matrix.ids]
    unknown = pd.Series("undetermined", index=samples, name="sex", dtype=object)
    if not columns or not matrix.drawn.size or platform == "single-cell":
        return unknown
    absolute = platform != "microarray" and matrix.unit.quantity != "unknown" and not _has_background(matrix)
    genes = [*columns, XIST] if XIST in matrix.ids else columns
    positions = np.array([int(np.flatnonzero(matrix.ids == gene)[0]) for gene in genes])
    blocks = (block for _, block in row_blocks(matrix.stored, dtype=np.float64))
    values = np.concatenate(
        [_scaled(block, matrix, positions) if absolute else block[:, positions] for block in blocks]
    )
    if not absolute and matrix.unit.quantity != "unknown" and matrix.unit.base is None:
        values = np.log2(np.maximum(values, 1))
    y, xist = values[:, : len(columns)], values[:, -1] if XIST in genes else None
    typical = np.array([Y_GENES[gene] for gene in columns])
    called = sex_of_linear(y, typical, xist) if absolute else sex_of_clusters(y, xist)
    return pd.Series(called.astype(object), index=samples, name="sex")


def _has_background(matrix: Matrix) -> bool:
    """Return whether hardly a value is near zero, so that no threshold tells an absent gene."""
    linear = _scaled(matrix.drawn[:20], matrix, np.arange(matrix.ids.size))
    linear = linear[np.isfinite(linear)]
    return not linear.size or bool(np.quantile(linear, 0.01) > MAX_LOW)


def _scaled(block: NDArray[np.float64], matrix: Matrix, positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return linear values of a few genes as in a sample whose known genes have the sum of the corpus mean."""
    unit = matrix.unit
    block = np.where(np.isfinite(block), block, np.nan)
    if unit.base is not None:
        block = from_log(block, base=unit.base, pseudocount=unit.pseudocount)
    known = np.isfinite(matrix.genes.expected)
    expected = np.where(np.isnan(block[:, known]), 0.0, matrix.genes.expected[known]).sum(axis=1)
    total = np.nansum(block[:, known], axis=1)
    factor = np.divide(expected, total, out=np.full(len(block), np.nan), where=total > 0)
    linear: NDArray[np.float64] = block[:, positions] * factor[:, None]
    if unit.quantity in {"counts", "expected_counts"} and unit.base is None:
        # fewer reads cannot tell an absent gene from a missed one
        reads = np.array([Y_GENES.get(str(gene), 0.0) for gene in matrix.ids[positions]]).sum() / factor
        linear[~(reads >= MIN_READS)] = np.nan
    return linear


def compare_sex(called: pd.Series, stated: pd.Series) -> Finding:
    """Compare what genes tell with what a column states.

    Parameters
    ----------
    called
        Result of :func:`call_sex`.
    stated
        The column; spellings such as ``F``, ``female`` and ``Male`` are understood, others are left out.
    """
    where = f"obs[{stated.name!r}]"
    labels = stated.astype(str).str.strip().str.lower().map(SPELLINGS)
    if labels.isna().all():
        some = ", ".join(map(repr, stated.astype(str).unique()[:5]))
        found = f"none of its values ({some}) is understood; write female and male"
        return Finding("sex", where, found, "warning")
    told = called.to_numpy() != "undetermined"
    if not told.any():
        found = "cannot be checked: genes of the Y chromosome are absent, or do not tell two sexes apart"
        return Finding("sex", where, found, "note")
    labelled = labels.notna().to_numpy()
    wrong = told & labelled & (called.to_numpy() != labels.to_numpy())
    n = int((told & labelled).sum())
    rest = f"{int((labelled & ~told).sum()):,} undetermined, {int((~labelled).sum()):,} without a label"
    if not wrong.any():
        return Finding("sex", where, f"XIST and Y genes agree with all {n:,} labels that they can tell; {rest}")
    names = [
        f"{name}: {label}, looks {sex}"
        for name, label, sex in zip(called.index[wrong], stated[wrong], called[wrong], strict=True)
    ]
    more = ", ..." if len(names) > _NAMED else ""
    found = (
        f"XIST and Y genes contradict {int(wrong.sum()):,} of {n:,} labels ({'; '.join(names[:_NAMED])}{more}): "
        f"swapped samples or labels? {rest}"
    )
    return Finding("sex", where, found, "warning")
