"""Samples and entries that are held back to learn how far predictions are off.

Both are chosen by hashes of the samples' names, so that order, chunks and workers do not matter.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from bulkformer_tl._anndata import dense_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from bulkformer_tl.tl._input import ModelInput

#: Bins of predicted expression, each with at least MIN_ENTRIES held back entries.
MAX_BINS = 20
MIN_ENTRIES = 30


def name_seeds(names: Iterable[str]) -> NDArray[np.uint64]:
    """Return a number for each name, the first 8 bytes of its SHA-256."""
    digests = (hashlib.sha256(str(name).encode()).digest() for name in names)
    return np.array([int.from_bytes(digest[:8]) for digest in digests], dtype=np.uint64)


def first_by_seed(seeds: NDArray[np.uint64], n: int) -> NDArray[np.int64]:
    """Return the positions of the n smallest numbers, smallest first."""
    return np.argsort(seeds, kind="stable")[:n]


def read_samples(given: ModelInput, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return samples in vocabulary order, (n, G), ``NaN`` where missing or hidden, in the order asked for."""
    # stored matrices take increasing positions only
    rising = np.sort(rows)
    block = dense_rows(given.matrix, rising)
    if given.hidden is not None:
        block[dense_rows(given.hidden, rising, bool)] = np.nan
    return given.match.align(block[np.searchsorted(rising, rows)])


def held_back(row: NDArray[np.float32], seed: int | Sequence[int], share: float) -> NDArray[np.bool_]:
    """Choose a share of the measured entries of a sample, (G,); at least one stays visible."""
    observed = np.flatnonzero(~np.isnan(row))
    n = min(round(share * len(observed)), len(observed) - 1)
    held = np.zeros(len(row), dtype=bool)
    held[np.random.default_rng(seed).choice(observed, size=n, replace=False)] = True
    return held


def bin_errors(
    predicted: NDArray[np.float64], measured: NDArray[np.float64], *, max_bins: int = MAX_BINS
) -> dict[str, NDArray[np.float64]]:
    """Bin errors by predicted expression.

    Parameters
    ----------
    predicted, measured
        ln(TPM+1) of held back entries, (m,).
    max_bins
        Largest number of bins.

    Returns
    -------
    ``"expression"``: mean predicted ln(TPM+1) of each bin, increasing; ``"sd"``: root mean squared error in it.

    Raises
    ------
    ValueError
        If there are too few entries to tell.
    """
    if len(predicted) < MIN_ENTRIES:
        message = f"only {len(predicted)} measured entries could be hidden to learn the error; {MIN_ENTRIES} are needed"
        raise ValueError(message)
    order = np.argsort(predicted, kind="stable")
    parts = np.array_split(order, min(max_bins, len(order) // MIN_ENTRIES))
    centres = np.array([predicted[part].mean() for part in parts])
    spread = np.array([np.sqrt(np.mean((predicted[part] - measured[part]) ** 2)) for part in parts])
    return {"expression": centres, "sd": spread}
