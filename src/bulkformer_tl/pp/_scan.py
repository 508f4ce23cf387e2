"""One look at all values before anything is computed from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import row_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray

    Linear = Callable[[NDArray[np.float64]], NDArray[np.float64]]

#: Logarithms of expression stay below (log2 of 33 million), linear values of whole transcriptomes do not.
LOG_LIMIT = 25.0

#: Samples that a message names.
NAMED = 5


@dataclass(frozen=True)
class Scan:
    """What a matrix holds.

    Parameters
    ----------
    minimum, maximum
        Over all entries that are not missing.
    infinite
        Whether there is an infinite entry.
    whole
        Whether all entries are whole numbers.
    unmeasured
        Which samples hold nothing but ``NaN``, shape (N,).
    gene_sums
        Sum of each gene's linear values, shape (G,).
    totals
        Sum of each sample's linear values over all genes, shape (N,).
    denominators
        The same over the denominator genes, shape (N,).
    """

    minimum: float
    maximum: float
    infinite: bool
    whole: bool
    unmeasured: NDArray[np.bool_]
    gene_sums: NDArray[np.float64]
    totals: NDArray[np.float64]
    denominators: NDArray[np.float64]

    @property
    def looks_log(self) -> bool:
        """Whether the values are too small, and too fractional, for counts or TPM of a transcriptome."""
        return not self.whole and self.maximum <= LOG_LIMIT


def scan(matrix: Any, *, denominator: NDArray[np.bool_] | None = None, linear: Linear | None = None) -> Scan:
    """Look at a matrix once, block by block.

    Parameters
    ----------
    matrix
        Shape (N, G); any storage.
    denominator
        Genes of the sample sums, shape (G,). ``None`` takes all.
    linear
        Turns a block into linear values. ``None`` takes them as they are.

    Returns
    -------
    What it holds.
    """
    n, g = matrix.shape
    genes = slice(None) if denominator is None else denominator
    minimum, maximum, infinite, whole = np.inf, -np.inf, False, True
    unmeasured, gene_sums, totals, denominators = np.zeros(n, dtype=bool), np.zeros(g), np.zeros(n), np.zeros(n)
    for rows, block in row_blocks(matrix, dtype=np.float64):
        missing = np.isnan(block)
        unmeasured[rows] = missing.all(axis=1)
        minimum = min(minimum, np.min(block, initial=np.inf, where=~missing))
        maximum = max(maximum, np.max(block, initial=-np.inf, where=~missing))
        infinite = infinite or bool(np.isinf(block).any())
        whole = whole and bool(((block == np.rint(block)) | missing).all())
        # values that are not what they were said to be may overflow here; their limits are judged later
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.where(missing, 0.0, block if linear is None else linear(block))
            gene_sums += values.sum(axis=0)
            totals[rows] = values.sum(axis=1)
            denominators[rows] = values[:, genes].sum(axis=1)
    return Scan(float(minimum), float(maximum), infinite, whole, unmeasured, gene_sums, totals, denominators)


def refuse_impossible(found: Scan, samples: pd.Index, *, lowest: float = 0.0) -> None:
    """Refuse what no unit of expression can hold.

    Parameters
    ----------
    found
        What the matrix holds.
    samples
        Names of the samples.
    lowest
        The value of an expression of zero.

    Raises
    ------
    ValueError
        If there are infinite or too small entries, or samples without any.
    """
    if found.infinite:
        message = "the values hold infinities; set them to NaN where they mean missing"
        raise ValueError(message)
    if found.unmeasured.any():
        message = (
            f"{name_samples(samples, found.unmeasured)} hold nothing but NaN; "
            "drop such samples, for example adata[~np.isnan(adata.X).all(axis=1)].copy()"
        )
        raise ValueError(message)
    if found.minimum >= lowest - 1e-6 * max(1.0, abs(lowest)):
        return
    if found.minimum == -10:
        message = "the values hold -10, the published marker of missing entries; replace it by NaN"
    else:
        message = (
            f"the values go down to {found.minimum:.4g}, below the {lowest:.4g} of a gene that is not expressed; "
            "scaled or batch-corrected values do not lead back to TPM; bf.pp.diagnose(adata) looks for a better layer"
        )
    raise ValueError(message)


def name_samples(samples: pd.Index, which: NDArray[np.bool_]) -> str:
    """Return the number of marked samples and the names of the first."""
    n = int(which.sum())
    names = [str(name) for name in samples[which][:NAMED]]
    return f"{n:,} of {len(samples):,} samples ({', '.join(names)}{', ...' if n > NAMED else ''})"
