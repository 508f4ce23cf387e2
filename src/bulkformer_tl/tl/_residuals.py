"""How far a model's predictions are off on this cohort, by predicted expression."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from bulkformer_tl._anndata import dense_rows
from bulkformer_tl.tl._input import hidden_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from bulkformer_tl.tl._input import ModelInput

#: Samples that are looked at; large models take half a minute for each on a CPU.
MAX_SAMPLES = 8
#: Share of a sample's measured entries that is hidden to measure the error.
SHARE = 0.15
#: Bins of predicted expression, each with at least MIN_ENTRIES hidden entries.
MAX_BINS = 20
MIN_ENTRIES = 30


def fit_residuals(given: ModelInput, names: Iterable[str], batch_size: int | None) -> dict[str, NDArray[np.float64]]:
    """Hide measured entries of a few samples, predict them, and bin the error by predicted expression.

    Samples and entries are chosen by hashes of the samples' names, so that order, chunks and workers do not matter.

    Parameters
    ----------
    given
        The cohort as the model sees it.
    names
        Names of the samples.
    batch_size
        Samples per forward pass on a GPU.

    Returns
    -------
    ``"expression"``: mean predicted ln(TPM+1) of each bin, increasing; ``"sd"``: root mean squared error in it.

    Raises
    ------
    ValueError
        If too few entries are measured to tell.
    """
    seeds = [int.from_bytes(hashlib.sha256(str(name).encode()).digest()[:8]) for name in names]
    chosen = sorted(range(len(seeds)), key=lambda i: (seeds[i], i))[:MAX_SAMPLES]
    predicted, measured = [], []
    step = 1 if given.model.device.type == "cpu" else batch_size or MAX_SAMPLES
    for start in range(0, len(chosen), step):
        rows = chosen[start : start + step]
        values = np.concatenate([_visible_row(given, row) for row in rows])
        held = np.stack([_held_back(row, seeds[i]) for row, i in zip(values, rows, strict=True)])
        (expression,) = given.encode(np.where(held, np.nan, values), "expression")
        predicted.append(expression[held].clip(min=0))
        measured.append(values[held])
    return _bin(np.concatenate(predicted).astype(np.float64), np.concatenate(measured).astype(np.float64))


def _visible_row(given: ModelInput, row: int) -> NDArray[np.float32]:
    rows = slice(row, row + 1)
    block = dense_rows(given.matrix, rows)
    if given.hidden is not None:
        block[hidden_rows(given.hidden, rows)] = np.nan
    return given.match.align(block)


def _held_back(row: NDArray[np.float32], seed: int) -> NDArray[np.bool_]:
    observed = np.flatnonzero(~np.isnan(row))
    n = min(round(SHARE * len(observed)), len(observed) - 1)
    held = np.zeros(len(row), dtype=bool)
    held[np.random.default_rng(seed).choice(observed, size=n, replace=False)] = True
    return held


def _bin(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    if len(predicted) < MIN_ENTRIES:
        message = f"only {len(predicted)} measured entries could be hidden to learn the error; {MIN_ENTRIES} are needed"
        raise ValueError(message)
    order = np.argsort(predicted, kind="stable")
    parts = np.array_split(order, min(MAX_BINS, len(order) // MIN_ENTRIES))
    centres = np.array([predicted[part].mean() for part in parts])
    spread = np.array([np.sqrt(np.mean((predicted[part] - measured[part]) ** 2)) for part in parts])
    return {"expression": centres, "sd": spread}
