"""Masked samples together with what linear models that never saw their study say of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from factors import Factors
    from neighbours import Neighbours
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
    gap
        How far the neighbours' prediction is from it, (n, G), float16.
    spread
        Variance that the factors leave, (G,).
    """

    rate: float
    rows: NDArray[np.int64]
    visible: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    mean: NDArray[np.float16]
    gap: NDArray[np.float16]
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
        """Return values (0 where missing), visible, hidden, mean, gap, spread of a sample under one of its masks."""
        blocks = [block for block in self.blocks if row in block.rows]
        block = blocks[rng.integers(len(blocks))]
        place = np.searchsorted(block.rows, row)
        mean, gap = block.mean[place].astype(np.float32), block.gap[place].astype(np.float32)
        return np.nan_to_num(self.expression[row]), block.visible, block.hidden, mean, gap, block.spread

    def neighbour_share(self) -> float:
        """Return the share of the neighbours in the mean of both models that errs least; the files weigh alike."""
        above, below = 0.0, 0.0
        for block in self.blocks:
            error = (self.expression[block.rows] - block.mean)[:, block.hidden]
            gap = block.gap[:, block.hidden].astype(np.float32)
            above += float((gap * error).mean())
            below += float((gap**2).mean())
        return above / below

    def mixed(self, share: float) -> Bank:
        """Return the bank with the weighted mean of both models in place of the factor model's."""
        blocks = [replace(block, mean=(block.mean + share * block.gap).astype(np.float16)) for block in self.blocks]
        return replace(self, blocks=blocks)

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


def predict(
    factors: Factors, neighbours: Neighbours, values: NDArray[np.float32], visible: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], ...]:
    """Return the factor model's prediction, how far the neighbours' is from it, both (n, G), and the variance, (G,)."""
    mean, spread = factors.predict(values, visible)
    complete = np.where(visible, values, mean) - factors.mean
    return mean, factors.mean + neighbours.predict(complete) - mean, spread


def make_bank(
    values: NDArray[np.float32],
    rows: NDArray[np.int64],
    files: NDArray[np.object_],
    models: tuple[Factors, Neighbours],
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
    models
        Factor model and neighbours, fitted without these samples' studies.
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
            visible = measured & ~hidden
            mean, gap, spread = predict(*models, own[members], visible)
            blocks.append(
                Block(rate, members, visible, hidden, mean.astype(np.float16), gap.astype(np.float16), spread)
            )
    return Bank(own, own_files, blocks)
