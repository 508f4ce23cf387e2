"""Batches as pure functions of the seed and the step, so that any process can make any of them at any time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bulkformer_tl.train._corpus import Corpus, Order
    from bulkformer_tl.train._masks import MaskMaker
    from bulkformer_tl.train._objectives import Batch, Objective


@dataclass(frozen=True)
class Plan:
    """How the samples of a run are divided.

    Parameters
    ----------
    rounds
        Intervals between checkpoints.
    steps_per_round
        Optimiser steps of each.
    batch_size
        Samples of a step, over all processes.
    micro_batch_size
        Samples that a process holds at once.
    world
        Processes.
    """

    rounds: int
    steps_per_round: int
    batch_size: int
    micro_batch_size: int
    world: int = 1

    @property
    def steps(self) -> int:
        """Optimiser steps of the run."""
        return self.rounds * self.steps_per_round

    @property
    def accumulate(self) -> int:
        """Micro-batches that a process sums for a step."""
        return self.batch_size // (self.micro_batch_size * self.world)


class TrainingBatches(Dataset["Batch"]):
    """The micro-batches of a run; the first sample's position in the order is an item's index.

    Parameters
    ----------
    corpus, order, masks, objective, plan
        What batches are made of.
    """

    def __init__(self, corpus: Corpus, order: Order, masks: MaskMaker, objective: Objective, plan: Plan) -> None:
        self._corpus = corpus
        self._order = order
        self._masks = masks
        self._objective = objective
        self._plan = plan

    def __getitem__(self, first: int) -> Batch:
        """Read, mask and collate the samples from a position on."""
        positions = np.arange(first, first + self._plan.micro_batch_size)
        rows = self._order.take(positions)
        values = self._corpus.read(rows)
        step = first // self._plan.batch_size
        hidden = np.stack(
            [
                self._masks.draw(sample, position=int(position), step=step, progress=step / self._plan.steps)
                for position, sample in zip(positions, values, strict=True)
            ]
        )
        batch = self._objective.collate(values, hidden) | _external(self._corpus, rows)
        return {**batch, "position": torch.tensor(first)}


class ValidationBatches(Dataset["Batch"]):
    """The samples of left-out studies with masks that never change.

    Parameters
    ----------
    corpus, masks, objective
        What batches are made of.
    rows
        Samples of the corpus, (n,).
    size
        Of a batch.
    """

    def __init__(
        self, corpus: Corpus, masks: MaskMaker, objective: Objective, rows: NDArray[np.int64], size: int
    ) -> None:
        self._corpus = corpus
        self._masks = masks
        self._objective = objective
        self._rows = rows
        self._size = size

    def __len__(self) -> int:
        """Return the number of batches."""
        return math.ceil(len(self._rows) / self._size)

    def __getitem__(self, index: int) -> Batch:
        """Read, mask and collate a batch."""
        rows = self._rows[index * self._size : (index + 1) * self._size]
        values = self._corpus.read(rows)
        hidden = [self._masks.draw_validation(sample, row=int(row)) for row, sample in zip(rows, values, strict=True)]
        return self._objective.collate(values, np.stack(hidden)) | _external(self._corpus, rows)


def _external(corpus: Corpus, rows: NDArray[np.int64]) -> Batch:
    return {} if corpus.codes is None else {"external": torch.from_numpy(corpus.codes[rows])}


class RoundSampler(Sampler[int]):
    """Positions of the micro-batches of one round that fall to one process.

    Lightning calls a round an epoch, and says through ``set_epoch`` how many it has finished since it started.

    Parameters
    ----------
    plan
        Of the run.
    rank
        Of the process.
    first_round
        Rounds that were finished before Lightning started.
    """

    def __init__(self, plan: Plan, rank: int, first_round: int) -> None:
        self._plan = plan
        self._rank = rank
        self._first_round = first_round
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the number of rounds that Lightning has finished."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Return the number of micro-batches of a round."""
        return self._plan.steps_per_round * self._plan.accumulate

    def __iter__(self) -> Iterator[int]:
        """Yield positions; the processes take turns within a step."""
        plan = self._plan
        begin = (self._first_round + self._epoch) * plan.steps_per_round * plan.batch_size
        for i in range(len(self)):
            yield begin + (i * plan.world + self._rank) * plan.micro_batch_size
