"""Correlation of all pairs of genes over any number of samples, in bounded memory, on arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bulkformer_tl._progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    type Array = NDArray[np.float64]

#: Rows of a block that keep the matrix products busy; 20,000 genes are 160 MB.
BLOCK_ROWS = 1024

#: Genes of a panel: receivers whose sums are kept together.
PANEL = 512

#: Bytes of the sums that are accumulated in one pass over the samples. With the result of 1.6 GB, blocks and what else
#: is needed, 20,000 genes stay below 8 GiB.
BUDGET = 3_200_000_000

#: Sums of a pair of genes: with complete values their product alone, else also number, sums and squares of both.
COMPLETE, INCOMPLETE = 1, 6

#: Share of a gene's variance below which what is left of it in the samples of a pair is rounding.
FLAT = 1e-10


@dataclass(frozen=True)
class Moments:
    """What is known of each gene in one study before pairs are looked at.

    Parameters
    ----------
    n_samples
        Number of samples.
    mean, scale
        Of the observed values, shape (G,); 0 and 1 where the gene does not vary.
    varies
        Whether the gene has at least the required number of values, not all equal, shape (G,).
    complete
        Whether each gene that varies is observed in all samples.
    """

    n_samples: int
    mean: Array
    scale: Array
    varies: NDArray[np.bool_]
    complete: bool

    @classmethod
    def of(cls, study: Iterable[Array], min_samples: int) -> Moments:
        """Look at a study once; means and squares are merged block by block (Chan et al. 1983)."""
        total = 0
        # arrays from the first block on
        count, mean, squares, low, high = (np.asarray(start) for start in (0.0, 0.0, 0.0, np.inf, -np.inf))
        for block in study:
            seen = ~np.isnan(block)
            n = seen.sum(axis=0).astype(np.float64)
            own = np.where(seen, block, 0.0).sum(axis=0) / np.maximum(n, 1)
            both = np.maximum(count + n, 1)
            squares = (
                squares + np.square(np.where(seen, block - own, 0.0)).sum(axis=0) + (own - mean) ** 2 * count * n / both
            )
            mean = mean + (own - mean) * n / both
            low = np.minimum(low, np.where(seen, block, np.inf).min(axis=0))
            high = np.maximum(high, np.where(seen, block, -np.inf).max(axis=0))
            total, count = total + len(block), count + n
        varies = (count >= min_samples) & (low < high)
        scale = np.where(varies, np.sqrt(squares / np.maximum(count, 1)), 1.0)
        complete = bool((count[varies] == total).all())
        return cls(total, np.where(varies, mean, 0.0), scale, varies, complete)

    def standardise(self, block: Array) -> tuple[Array, Array]:
        """Return values in standard deviations from the mean, 0 where nothing is observed, and what is observed."""
        seen = ~np.isnan(block) & self.varies
        return np.where(seen, (block - self.mean) / self.scale, 0.0), seen.astype(np.float64)


def correlate(studies: Sequence[Iterable[Array]], *, min_samples: int = 3) -> NDArray[np.float32]:
    """Compute Pearson's correlation of all pairs of genes, averaged over studies.

    Each study is read block by block, once for means and deviations and then once or a few times for the products of
    pairs, which are summed in double precision panel by panel. Where a value is missing (``NaN``) a pair is correlated
    over the samples that have both (pairwise complete, as in :meth:`pandas.DataFrame.corr`).

    Parameters
    ----------
    studies
        Each an iterable of blocks of samples, (rows, G), float64, that can be iterated several times; a list with one
        array will do. One study gives the plain correlation; of several, each counts alike in the mean of a pair,
        if it has enough samples and both genes vary in it.
    min_samples
        Least number of samples in which both genes are measured.

    Returns
    -------
    Shape (G, G), float32, ``NaN`` where no study defines the correlation.
    """
    moments = [Moments.of(study, min_samples) for study in studies]
    n_genes = len(moments[0].varies)
    kinds = COMPLETE if all(known.complete for known in moments) else INCOMPLETE
    panels = [slice(start, min(start + PANEL, n_genes)) for start in range(0, n_genes, PANEL)]
    passes = _passes(panels, n_genes, kinds)
    result = np.zeros((n_genes, n_genes), dtype=np.float32)
    with Progress(sum(known.n_samples for known in moments) * len(passes), "correlating genes") as progress:
        for chosen in passes:
            counts = [np.zeros((panel.stop - panel.start, n_genes - panel.start), dtype=np.uint16) for panel in chosen]
            for study, known in zip(studies, moments, strict=True):
                sums = _accumulate(study, known, chosen, progress)
                for panel, count, one in zip(chosen, counts, sums, strict=True):
                    r = _complete(one, known, panel) if known.complete else _pairwise(one, min_samples)
                    defined = ~np.isnan(r)
                    np.add(count, defined, out=count)
                    result[panel, panel.start :] += np.where(defined, r, 0.0)
            for panel, count in zip(chosen, counts, strict=True):
                result[panel, panel.start :] /= np.where(count == 0, np.float32(np.nan), count.astype(np.float32))
                result[panel.start :, panel] = result[panel, panel.start :].T
    return result


def _passes(panels: list[slice], n_genes: int, kinds: int) -> list[list[slice]]:
    """Divide the panels so that the sums of each part fit into the budget."""
    passes: list[list[slice]] = []
    free = 0
    for panel in panels:
        size = kinds * (panel.stop - panel.start) * (n_genes - panel.start) * 8
        if size > free:
            passes.append([])
            free = BUDGET
        passes[-1].append(panel)
        free -= size
    return passes


def _accumulate(study: Iterable[Array], known: Moments, panels: list[slice], progress: Progress) -> list[Array]:
    """Sum the products of pairs over the samples of a study.

    Returns
    -------
    For each panel the sums of its genes with themselves and all later ones, (1 or 6, genes, later genes).
    """
    n_genes = len(known.varies)
    kinds = COMPLETE if known.complete else INCOMPLETE
    sums = [np.zeros((kinds, panel.stop - panel.start, n_genes - panel.start)) for panel in panels]
    spare = np.empty(max(one[0].size for one in sums))
    for block in study:
        values, seen = known.standardise(block)
        pairs = [(values, values)]
        if not known.complete:
            squares = values * values
            pairs += [(seen, seen), (values, seen), (seen, values), (squares, seen), (seen, squares)]
        for panel, one in zip(panels, sums, strict=True):
            for total, (left, right) in zip(one, pairs, strict=True):
                product = spare[: total.size].reshape(total.shape)
                np.matmul(left[:, panel].T, right[:, panel.start :], out=product)
                np.add(total, product, out=total)
        progress.update(len(block))
    return sums


def _complete(sums: Array, known: Moments, panel: slice) -> Array:
    """Return the correlations of a panel; values were standardised."""
    defined = known.varies[panel, None] & known.varies[None, panel.start :]
    return np.where(defined, np.clip(sums[0] / known.n_samples, -1.0, 1.0), np.nan)


def _pairwise(sums: Array, min_samples: int) -> Array:
    """Return the correlations of a panel, each over the samples that have both genes."""
    product, n, left, right, left_squares, right_squares = sums
    each = np.maximum(n, 1)
    left_variance = left_squares - left * left / each
    right_variance = right_squares - right * right / each
    defined = (n >= min_samples) & (left_variance > FLAT * n) & (right_variance > FLAT * n)
    scale = np.sqrt(np.where(defined, left_variance * right_variance, 1.0))
    return np.where(defined, np.clip((product - left * right / each) / scale, -1.0, 1.0), np.nan)
