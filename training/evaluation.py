"""Scores of the embedded checkpoint on left-out studies, beside the methods that it has to beat."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import factors as factor_models
import methods
import networks
import numpy as np
import pandas as pd
from scores import KEYS, draws, row_weights, summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from methods import Floats, Genes, Mask, Predictor
    from numpy.typing import NDArray

    from bulkformer_tl.models import BulkFormer

logger = logging.getLogger("mini")

RATES = (0.15, 0.3, 0.5, 0.7, 0.9)
#: Those at which entries are hidden sample by sample, where every prediction needs a solution of its own.
ENTRY_RATES = (0.15, 0.5, 0.9)
PANELS = (1000, 500)
SEEDS = (0, 1)
#: Samples of a fold, dealt evenly over its files and then over the mask seeds; hidden genes of a mask that are scored.
PER_FOLD, SCORED = 32, 2000
#: Files of a fold whose entries are hidden sample by sample; samples of each that make the cohort, and that are scored.
COHORTS, COHORT, JUDGED = 2, 12, 4
#: Share of the training samples, in whole studies, on which simple methods choose what they leave open.
INNER = 0.1
LINEAR = ("PCA 60", "PCA 250", "ridge 300", "factor model 500", "soft-impute")


class Workshop(Protocol):
    """What evaluation needs of :class:`mini.Workshop`.

    ``expression`` is ln(TPM+1), (N, G), ``NaN`` where missing; ``folds``, ``files`` and the column ``group`` of
    ``table`` say where each sample comes from.
    """

    out: Path
    expression: NDArray[np.float32]
    folds: NDArray[np.int64]
    files: NDArray[np.object_]
    table: pd.DataFrame

    def predict(self, fold: int, values: Floats, visible: Mask, *, seed: int = 0) -> tuple[Floats, Floats]:
        """Predict samples (n, G) that show the same genes (G,) without having seen their fold: mean and deviation."""

    def model(self, fold: int) -> BulkFormer:
        """Return the model that was made without a fold."""


@dataclass(frozen=True)
class Trial:
    """Samples with entries hidden from them.

    Parameters
    ----------
    setting
        ``"genes"``, ``"panel"`` or ``"entries"``.
    hidden
        Share of the genes that is hidden, or number of genes of the panel.
    seed
        Seed of what is hidden.
    rows
        Samples of the corpus, (n,).
    mask
        What is hidden, (n, G).
    genes
        Genes that are scored, (k,).
    judged
        How many samples, the first ones, are scored; the others only keep them company.
    """

    setting: str
    hidden: float
    seed: int
    rows: Genes
    mask: Mask
    genes: Genes
    judged: int

    def alone(self) -> Trial:
        """Return the trial without the company."""
        return replace(self, rows=self.rows[: self.judged], mask=self.mask[: self.judged])


@dataclass(frozen=True)
class Method:
    """A method before it is fitted.

    Parameters
    ----------
    fit
        Fits it.
    settings
        Where it is scored.
    in_company
        Whether it learns from the other samples that it is given.
    """

    fit: Callable[[], Predictor]
    settings: tuple[str, ...] = ("genes", "panel", "entries")
    in_company: bool = False


@dataclass(frozen=True)
class Fold:
    """What the methods of a fold share."""

    workshop: Workshop
    fold: int

    @cached_property
    def training(self) -> methods.Training:
        """The samples of the other folds, with a factor model of rank 500 that stays in the folder of stages."""
        outside = self.workshop.folds != self.fold
        values, path = self.workshop.expression[outside], _stage(self.workshop, "bar-factors", self.fold, ".npz")
        if not path.exists():
            factor_models.fit(values, min(methods.N_FACTORS, len(values) - 1)).save(path)
        groups = self.workshop.table["group"].to_numpy()[outside]
        return methods.Training(values, inner_studies(groups), factor_models.Factors.read(path))

    def methods(self) -> dict[str, Method]:
        """Return all methods by name."""
        return {
            "gene mean": Method(lambda: methods.gene_mean(self.training)),
            "kNN 10": Method(lambda: methods.knn(self.training)),
            "PCA 60": Method(lambda: methods.pca(self.training, 60)),
            "PCA 250": Method(lambda: methods.pca(self.training, 250)),
            # one system for each gene and mask: masks of single samples would take days
            "ridge 300": Method(lambda: methods.ridge(self.training), settings=("genes", "panel")),
            "factor model 500": Method(lambda: methods.factor_model(self.training)),
            "soft-impute": Method(lambda: methods.soft_impute(self.training)),
            "autoencoder": Method(lambda: networks.autoencoder(self.training)),
            "untrained encoder": Method(
                lambda: networks.untrained_encoder(self.workshop.model(self.fold), self.training), settings=("genes",)
            ),
            "mini": Method(lambda: networks.checkpoint(self.workshop, self.fold, 0)),
            "mini, seed 1": Method(lambda: networks.checkpoint(self.workshop, self.fold, 1), settings=("genes",)),
            "tl.impute": Method(
                lambda: networks.imputed(self.workshop.model(self.fold)), settings=("entries",), in_company=True
            ),
        }


def evaluate(workshop: Workshop, folds: Sequence[int], *, without: Sequence[str] = ()) -> pd.DataFrame:
    """Score all methods on left-out folds.

    Every fold and method leaves a file in the folder of stages, and a run that was stopped goes on from there; delete
    ``scores-without*-mini*`` and ``scores-without*-tl.impute*`` after making the network anew.

    Parameters
    ----------
    workshop
        Corpus and networks.
    folds
        Folds to leave out.
    without
        Methods to leave out.

    Returns
    -------
    The table of :func:`scores.summarise`.
    """
    parts = []
    for fold in folds:
        chosen = {name: method for name, method in Fold(workshop, fold).methods().items() if name not in without}
        for name, method in chosen.items():
            path = _stage(workshop, "scores", fold, f"-{name.replace(' ', '_')}.csv")
            if not path.exists():
                started = time.perf_counter()
                temporary = path.with_suffix(".tmp")
                score(workshop, fold, name, method).to_csv(temporary)
                temporary.replace(path)
                logger.info("fold %d, %s: %.0f s", fold, name, time.perf_counter() - started)
            parts.append(pd.read_csv(path, index_col=[*KEYS, "score"]))
    return summarise(pd.concat(parts), LINEAR)


def _stage(workshop: Workshop, name: str, fold: int, suffix: str) -> Path:
    return workshop.out / f"{name}-without{fold}{suffix}"


def score(workshop: Workshop, fold: int, name: str, method: Method) -> pd.DataFrame:
    """Fit a method without a fold and score it there: one row per setting, share hidden and score, draws as columns."""
    predict, found = method.fit(), {}
    for (setting, hidden), group in grouped(trials(workshop, fold)).items():
        if setting in method.settings:
            shown = [trial if method.in_company else trial.alone() for trial in group]
            for metric, drawn in _score(workshop, predict, shown).items():
                found[fold, setting, hidden, name, metric] = drawn
    index = pd.MultiIndex.from_tuples(list(found), names=[*KEYS, "score"])
    return pd.DataFrame(np.stack(list(found.values())), index=index)


def grouped(found: Iterator[Trial]) -> dict[tuple[str, float], list[Trial]]:
    """Group trials by setting and share hidden."""
    groups: dict[tuple[str, float], list[Trial]] = {}
    for trial in found:
        groups.setdefault((trial.setting, trial.hidden), []).append(trial)
    return groups


def _score(workshop: Workshop, predict: Predictor, group: Sequence[Trial]) -> dict[str, NDArray[np.float64]]:
    shape = (sum(trial.judged for trial in group), workshop.expression.shape[1])
    truth, mean, deviation = (np.full(shape, np.nan) for _ in range(3))
    start = 0
    for trial in group:
        values = workshop.expression[trial.rows]
        predicted, spread = predict(np.where(trial.mask, np.nan, values), trial.genes)
        place, own = np.ix_(range(start, start + trial.judged), trial.genes), slice(trial.judged)
        truth[place] = np.where(trial.mask, values, np.nan)[own, trial.genes]
        # expression is never negative, and every method may know it
        mean[place] = np.maximum(predicted[own], 0)
        if spread is not None:
            deviation[place] = spread[own]
        start += trial.judged
    rows = np.concatenate([trial.rows[: trial.judged] for trial in group])
    weights = row_weights(workshop.files[rows], np.concatenate([[trial.seed] * trial.judged for trial in group]))
    scored = ~np.isnan(truth).all(axis=0)
    spreads = None if np.isnan(deviation).all() else deviation[:, scored]
    return draws(truth[:, scored], mean[:, scored], spreads, weights)


def trials(workshop: Workshop, fold: int) -> Iterator[Trial]:
    """Yield what is hidden from the samples of a fold; the same for every method.

    ``"genes"``: a share of the genes, in all samples at once. ``"panel"``: all genes but some that are expressed above
    the median of the training samples, drawn at random. ``"entries"``: a share of the genes, other ones in each sample
    of two files.
    """
    n_genes = workshop.expression.shape[1]
    rng, files = np.random.default_rng(fold), np.unique(workshop.files[workshop.folds == fold])
    members = {file: rng.permutation(np.flatnonzero(workshop.files == file)) for file in files}
    share = -(-PER_FOLD // len(members))
    expressed = _expressed(workshop, fold)
    for seed in SEEDS:
        rows = np.concatenate([found[:share][seed :: len(SEEDS)] for found in members.values()])
        for rate in RATES:
            drawn = np.random.default_rng([fold, seed, int(100 * rate)])
            yield _shared(drawn, drawn.random(n_genes) < rate, setting="genes", hidden=rate, seed=seed, rows=rows)
        for size in PANELS:
            drawn = np.random.default_rng([fold, seed, size])
            mask = np.ones(n_genes, dtype=bool)
            mask[drawn.permutation(expressed)[:size]] = False
            yield _shared(drawn, mask, setting="panel", hidden=size, seed=seed, rows=rows)
    large = [file for file, found in members.items() if len(found) >= COHORT]
    for file in rng.permutation(large)[:COHORTS]:
        rows = members[file][:COHORT]
        for rate in ENTRY_RATES:
            drawn = np.random.default_rng([fold, int(100 * rate), *file.encode()])
            mask = drawn.random((COHORT, n_genes)) < rate
            yield Trial("entries", rate, 0, rows, mask, np.arange(n_genes), JUDGED)


def _shared(rng: np.random.Generator, mask: Mask, *, setting: str, hidden: float, seed: int, rows: Genes) -> Trial:
    genes = np.sort(rng.permutation(np.flatnonzero(mask))[:SCORED])
    return Trial(setting, hidden, seed, rows, np.tile(mask, (len(rows), 1)), genes, len(rows))


def _expressed(workshop: Workshop, fold: int) -> Genes:
    mean = np.nanmean(workshop.expression[workshop.folds != fold], axis=0)
    return np.flatnonzero(mean > np.median(mean))


def inner_studies(groups: NDArray[np.object_]) -> Mask:
    """Return the samples of whole studies, drawn at random, that make up a tenth of all or more, (N,)."""
    chosen = np.zeros(len(groups), dtype=bool)
    for group in np.random.default_rng(0).permutation(np.unique(groups)):
        if chosen.mean() < INNER:
            chosen |= groups == group
    return chosen
