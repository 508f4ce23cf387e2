"""Genes of a sample in the order of their counts over what is usual for them, as Geneformer reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Counts of a sample sum to this before they are divided by medians (Theodoris et al. 2023).
TARGET_SUM = 10_000.0

#: Genes within this relative distance of the last rank, in single precision, are compared in double precision.
_MARGIN = np.float32(1 - 2**-20)


class RankTable:
    """What ranking needs to know of each column of a table of counts.

    Parameters
    ----------
    medians
        Of the gene's counts above zero over a corpus, samples scaled to 10,000, shape (C,); infinite for columns that
        are not to be ranked.
    tokens
        Of the genes, shape (C,), from 0, each once; equal values stand in their order. Of no meaning where the median
        is infinite.
    """

    def __init__(self, medians: NDArray[np.float64], tokens: NDArray[np.integer]) -> None:
        self.medians = np.asarray(medians, dtype=np.float64)
        ranked = np.isfinite(self.medians)
        # all others share a token that no gene has
        last = np.max(tokens, initial=-1, where=ranked) + 1
        self.tokens = np.where(ranked, tokens, last).astype(np.uint64)
        self.inverse = (1 / self.medians).astype(np.float32)
        #: The bits of a sorting key that hold the token.
        self.low_bits = np.uint64((1 << int(self.tokens.max(initial=0)).bit_length()) - 1)


def scale_by_median(counts: NDArray[np.number], medians: NDArray[np.float64], total: float) -> NDArray[np.float64]:
    """Return counts per 10,000 of the library over the gene's median, in double precision.

    Parameters
    ----------
    counts
        Shape (K,).
    medians
        Of the same genes, shape (K,).
    total
        Counts of the sample.

    Returns
    -------
    Shape (K,).
    """
    values = counts.astype(np.float64)
    values /= total
    values *= TARGET_SUM
    values /= medians
    return values


def rank_genes(
    counts: NDArray[np.number], columns: NDArray[np.integer], table: RankTable, *, total: float, length: int
) -> tuple[NDArray[np.int32], int]:
    """Rank the genes of one sample by :func:`scale_by_median`, largest first.

    The result is that of a stable sort of all values in double precision with genes in the order of their tokens. Where
    a sample has many more genes than ``length``, those that cannot be among the first are left out by a comparison in
    single precision; the rest are sorted as one integer each, made of the value and the token.

    Parameters
    ----------
    counts
        Not negative and finite, shape (K,); zeros are left out.
    columns
        Columns of the table that they belong to, each once, shape (K,).
    table
        What is known of the columns.
    total
        Counts of the sample over all measured genes, above zero.
    length
        Most genes to return.

    Returns
    -------
    Tokens of the genes in the order of their rank, shape (at most ``length``,), and the number of genes above zero that
    could have been ranked.
    """
    surplus = len(counts) - length
    detected = -1
    if surplus > length // 2:
        rough = table.inverse.take(columns, mode="clip")
        np.multiply(rough, counts, out=rough, casting="unsafe")
        detected = int(np.count_nonzero(rough > 0))
        # floating numbers that are not negative are ordered as their bits are
        ordered = rough.view(np.int32).copy()
        ordered.partition(surplus)
        near = np.flatnonzero(rough >= ordered[surplus : surplus + 1].view(np.float32) * _MARGIN)
        counts, columns = counts.take(near), columns.take(near)
    values = scale_by_median(counts, table.medians.take(columns, mode="clip"), total)
    tokens = _sort(values, table.tokens.take(columns, mode="clip"), table.low_bits)
    return tokens[:length].astype(np.int32), len(tokens) if detected < 0 else detected


def _sort(values: NDArray[np.float64], tokens: NDArray[np.uint64], low_bits: np.uint64) -> NDArray[np.uint64]:
    """Return tokens by falling value, and rising among equal values, without those of zeros."""
    keys = np.abs(values).view(np.uint64)
    np.invert(keys, out=keys)
    keys &= ~low_bits
    keys |= tokens
    keys.sort()
    keys = keys[: np.count_nonzero(values > 0)]
    found = keys & low_bits
    if ((keys[1:] ^ keys[:-1]) <= low_bits).any():
        # the token took the value's last bits, and some values differ in nothing else
        lookup = np.empty(int(low_bits) + 1)
        lookup[tokens] = values
        descending = lookup[found]
        if (descending[1:] > descending[:-1]).any():
            return tokens[np.lexsort((tokens, -values))[: len(keys)]]
    return found
