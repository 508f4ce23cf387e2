"""Samples on which variants are trained, shrunk and scored, with what linear models that never saw their study say."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from bank import Bank, make_bank
from mini import RATES, coexpression, unseen_variance
from variants import N_FACTORS, WIDE_RATES, Materials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mini import Workshop
    from numpy.typing import NDArray

logger = logging.getLogger("ablations")

#: Genes drawn at random that the networks see and that are scored; the linear models see all.
N_GENES = 4000
#: Samples of each file to choose shrinkage and score on.
PER_FILE = 4
SEED = 0


@dataclass
class Bench:
    """Samples to train on, to choose shrinkage on and to score: three sets of whole studies.

    Parameters
    ----------
    workshop
        Corpus and linear models.
    fold
        Fold that is scored. Shrinkage is chosen on the next one, and the other three are trained on.
    """

    workshop: Workshop
    fold: int

    @cached_property
    def genes(self) -> NDArray[np.int64]:
        """Genes of the networks, ascending."""
        n_genes = self.workshop.expression.shape[1]
        return np.sort(np.random.default_rng(SEED).permutation(n_genes)[:N_GENES])

    @property
    def inner(self) -> int:
        """Fold on which shrinkage is chosen."""
        return (self.fold + 1) % 5

    @cached_property
    def raw(self) -> Bank:
        """Samples to train on; the linear models had not seen their studies."""
        folds = [fold for fold in range(5) if fold not in (self.fold, self.inner)]
        return merged([self._trained(fold) for fold in folds])

    @cached_property
    def share(self) -> float:
        """Weight of the neighbours."""
        return self.raw.neighbour_share()

    @cached_property
    def train(self) -> Bank:
        """Samples to train on, predicted by both linear models together."""
        return self.raw.mixed(self.share)

    @cached_property
    def choose(self) -> Bank:
        """Samples to choose shrinkage on."""
        return self._scored(self.inner).mixed(self.share)

    @cached_property
    def factor_score(self) -> Bank:
        """Samples to score, predicted by the factor model alone."""
        return self._scored(self.fold)

    @cached_property
    def score(self) -> Bank:
        """Samples to score."""
        return self.factor_score.mixed(self.share)

    @cached_property
    def materials(self) -> Materials:
        """What networks are built from."""
        known = self.workshop.expression[self.workshop.rows([self.fold])][:, self.genes]
        fitted, genes = self.workshop.factors(self.fold).leading(N_FACTORS), self.genes
        # loadings of some genes, scaled so that their columns have about the length of all genes'
        part = len(genes) / len(fitted.mean)
        factors = replace(
            fitted,
            mean=fitted.mean[genes],
            loadings=fitted.loadings[genes] / np.float32(part**0.5),
            variances=fitted.variances * np.float32(part),
            noise=fitted.noise[genes],
        )
        variance = np.nanmean((known - factors.mean) ** 2, axis=0).clip(min=1e-3)
        unseen = torch.from_numpy(unseen_variance([self.train]))
        return Materials(factors, coexpression(known), unseen, torch.from_numpy(variance))

    def _trained(self, fold: int) -> Bank:
        logger.info("hiding genes of fold %d", fold)
        return restricted(self.workshop.bank((self.fold,), fold, WIDE_RATES), self.genes)

    def _scored(self, fold: int) -> Bank:
        """Hide genes of some samples of a fold, by other masks than in training."""
        logger.info("hiding genes of fold %d", fold)
        workshop, rng = self.workshop, np.random.default_rng([SEED, fold])
        own = np.flatnonzero(workshop.folds == fold)
        files = workshop.files[own]
        rows = np.sort(np.concatenate([rng.permutation(own[files == file])[:PER_FILE] for file in np.unique(files)]))
        linear = workshop.linear(*{self.fold, fold})
        return restricted(
            make_bank(workshop.expression, rows, workshop.files, linear, RATES, seed=SEED + 1), self.genes
        )


def restricted(bank: Bank, genes: NDArray[np.int64]) -> Bank:
    """Return what a bank says of some genes."""
    blocks = [
        replace(
            block,
            visible=block.visible[genes],
            hidden=block.hidden[genes],
            mean=block.mean[:, genes],
            gap=block.gap[:, genes],
            spread=block.spread[genes],
        )
        for block in bank.blocks
    ]
    return replace(bank, expression=bank.expression[:, genes], blocks=blocks)


def merged(banks: Sequence[Bank]) -> Bank:
    """Return one bank with the samples of several."""
    starts = np.cumsum([0, *map(len, banks)])
    blocks = [
        replace(block, rows=block.rows + start)
        for start, bank in zip(starts, banks, strict=False)
        for block in bank.blocks
    ]
    return Bank(
        np.concatenate([bank.expression for bank in banks]), np.concatenate([bank.files for bank in banks]), blocks
    )
