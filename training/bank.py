"""Masked samples together with what a factor model that never saw their study says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from factors import Factors
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Block:
    """Samples of one file under one mask.

    Parameters
    ----------
    rate
        Share of the measured genes that is hidden.
    rows
        Samples, (n,), positions in the bank.
    visible, hidden
        Genes, (G,); genes that the file did not measure are neither.
    mean
        Factor model's prediction, (n, G), float16.
    spread
        Variance that the factors leave, (G,).
    """

    rate: float
    rows: NDArray[np.int64]
    visible: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    mean: NDArray[np.float16]
    spread: NDArray[np.float32]


@dataclass(frozen=True)
class Bank:
    """Samples with their masks: one mask for each file and rate.

    Parameters
    ----------
    expression
        ln(TPM+1), (n, G), ``NaN`` where missing.
    files
        File of each sample, (n,).
    blocks
        All files at all rates.
    """

    expression: NDArray[np.float32]
    files: NDArray[np.object_]
    blocks: list[Block]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.expression)

    def weights(self) -> NDArray[np.float64]:
        """Return how often to draw each sample: a file weighs as the root of its size, (n,)."""
        _, inverse, counts = np.unique(self.files, return_inverse=True, return_counts=True)
        return counts[inverse] ** -0.5

    def draw(self, row: int, rng: np.random.Generator) -> tuple[NDArray[np.generic], ...]:
        """Return values (zero where missing), visible, hidden, mean and spread of a sample under one of its masks."""
        blocks = [block for block in self.blocks if row in block.rows]
        block = blocks[rng.integers(len(blocks))]
        mean = block.mean[np.searchsorted(block.rows, row)].astype(np.float32)
        return np.nan_to_num(self.expression[row]), block.visible, block.hidden, mean, block.spread

    def file_errors(self) -> Iterator[NDArray[np.float32]]:
        """Yield each file's mean squared error at hidden genes over all its masks, (G,), ``NaN`` where never hidden."""
        for file in np.unique(self.files):
            total = np.zeros(self.expression.shape[1])
            count = np.zeros(self.expression.shape[1])
            for block in self.blocks:
                if self.files[block.rows[0]] == file:
                    error = (self.expression[block.rows] - block.mean)[:, block.hidden]
                    total[block.hidden] += (error**2).mean(axis=0)
                    count[block.hidden] += 1
            yield np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0).astype(np.float32)


def make_bank(
    values: NDArray[np.float32],
    rows: NDArray[np.int64],
    files: NDArray[np.object_],
    factors: Factors,
    rates: Sequence[float],
    *,
    seed: int,
) -> Bank:
    """Hide genes at random, the same for all samples of a file, and predict them.

    Parameters
    ----------
    values
        ln(TPM+1) of the corpus, (N, G).
    rows
        Samples to take, ascending.
    files
        File of each sample of the corpus, (N,).
    factors
        Factor model that was fitted without these samples' studies.
    rates
        Shares of the measured genes to hide.
    seed
        Masks depend on it, the file's place and the rate.
    """
    own, own_files = values[rows], files[rows]
    blocks = []
    for place, file in enumerate(np.unique(own_files)):
        members = np.flatnonzero(own_files == file)
        measured = ~np.isnan(own[members[0]])
        for rate in rates:
            rng = np.random.default_rng([seed, place, int(1000 * rate)])
            hidden = measured & (rng.random(len(measured)) < rate)
            mean, spread = factors.predict(own[members], measured & ~hidden)
            blocks.append(Block(rate, members, measured & ~hidden, hidden, mean.astype(np.float16), spread))
    return Bank(own, own_files, blocks)
