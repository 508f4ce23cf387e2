"""Predict held-out responses by a representation and by simple baselines, all fitted inside the fold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._progress import Progress
from bulkformer_tl.metrics import Split, inner_folds
from bulkformer_tl.tl._perturbation_head import treated
from bulkformer_tl.tl._perturbation_model import (
    ALPHAS,
    Change,
    Dose,
    design,
    fit_response,
    forward_response,
    forward_scores,
    nearest_change,
)
from bulkformer_tl.tl._perturbation_scores import METRICS, average, score_responses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol
    from bulkformer_tl.tl._perturbation_features import Features
    from bulkformer_tl.tl._perturbation_model import Arrays
    from bulkformer_tl.tl._perturbation_pairs import Pairs, Profiles
    from bulkformer_tl.tl._samples import Block

    Numbers = NDArray[np.float64]

#: Baselines by name: what none of them reads is the representation.
NO_CHANGE, MEAN_CHANGE, NEAREST, MLP, RAW = "no_change", "mean_change", "nearest", "mlp", "raw"
COVARIATES = "covariates"
BASELINES = (NO_CHANGE, MEAN_CHANGE, NEAREST, COVARIATES, MLP, RAW)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A head and the description of controls that it reads.

    Parameters
    ----------
    inputs
        Shape (M, D).
    head
        ``"linear"`` or ``"mlp"``.
    options
        Of the perceptron.
    modalities
        Columns of the inputs that come from one modality each; empty where they are of one kind.
    """

    inputs: Numbers
    head: str
    options: Mapping[str, Any]
    modalities: tuple[Block, ...] = ()


@dataclass(frozen=True, eq=False)
class Study:
    """All that is fitted to and predicted.

    Parameters
    ----------
    pairs
        Treated samples and their controls.
    profiles
        Their expression.
    features
        What is known of the perturbations.
    protocol
        Splits, penalties and seed.
    """

    pairs: Pairs
    profiles: Profiles
    features: Features
    protocol: Protocol

    @property
    def dose(self) -> Dose | None:
        """How doses are read, which are known beforehand of all pairs."""
        return None if self.pairs.doses is None else Dose.of(self.pairs.doses)

    @property
    def levels(self) -> Numbers | None:
        """Doses as they are read, shape (M, 1)."""
        return None if self.pairs.doses is None else Dose.of(self.pairs.doses)(self.pairs.doses)

    @property
    def changes(self) -> Numbers:
        """Treated minus control, shape (M, G)."""
        return self.profiles.treated - self.profiles.control

    def splits(self) -> list[Split]:
        """Split the pairs by unit, or train on those of the reference."""
        pairs = self.pairs
        if pairs.n_reference:
            return [Split(pairs.train, np.arange(len(pairs.rows))[pairs.own], "reference")]
        return self.protocol.split(len(pairs.rows), groups=np.array(pairs.unit_names)[pairs.units])

    def fit_all(self, candidate: Candidate) -> Arrays:
        """Fit a candidate to all training pairs."""
        train = self.pairs.train
        return self.fit(candidate, train, Change.of(self.changes[train], self.pairs.codes[train]))

    def blocks(self, candidate: Candidate, rows: NDArray[np.intp]) -> list[Numbers]:
        """Return the inputs of some pairs."""
        known, levels = self.features.matrix[self.pairs.codes[rows]], self.levels
        inputs = candidate.inputs[rows]
        controls = [inputs[:, block.columns] for block in candidate.modalities] or [inputs]
        return [*controls[:-1], *design(controls[-1], known, None if levels is None else levels[rows])]

    def fit(self, candidate: Candidate, rows: NDArray[np.intp], change: Change) -> Arrays:
        """Fit a candidate to some pairs, its penalty chosen by inner folds where the protocol asks for them."""
        alpha = float(candidate.options.get("alpha", 1.0))
        if candidate.head == "linear" and self.protocol.n_inner and "alpha" not in candidate.options:
            alpha = self._choose(candidate, Split(rows, rows[:0], "training"))
        return self._fit(candidate, rows, change, alpha)

    def _fit(self, candidate: Candidate, rows: NDArray[np.intp], change: Change, alpha: float) -> Arrays:
        return fit_response(
            candidate.head,
            self.blocks(candidate, rows),
            change,
            alpha=alpha,
            scales=[block.scale for block in candidate.modalities],
            options=candidate.options,
            rng=self.protocol.rng,
        )

    def _choose(self, candidate: Candidate, split: Split) -> float:
        units = self.pairs.units
        n_splits = min(self.protocol.n_inner, len(np.unique(units[split.train])))
        if n_splits < 2:
            return 1.0
        losses = np.zeros(len(ALPHAS))
        for train, test, _ in inner_folds(split, n_splits=n_splits, groups=units, rng=self.protocol.rng):
            change = Change.of(self.changes[train], self.pairs.codes[train])
            true = change.project(self.changes[test])
            for k, alpha in enumerate(ALPHAS):
                arrays = self._fit(candidate, train, change, alpha)
                # what lies outside the components is lost alike by all
                found = forward_scores(arrays, self.blocks(candidate, test))
                losses[k] += ((found - true) ** 2).sum()
        return ALPHAS[int(losses.argmin())]


@dataclass(frozen=True, eq=False)
class Responses:
    """What judging found.

    Parameters
    ----------
    predicted
        Profiles predicted from the representation, out of fold, shape (M, G).
    measured, expected
        True and predicted mean change of each condition, shape (Q, G).
    scores
        Of each candidate, and of each metric the value in each condition, shape (Q,).
    folds
        Test fold of each pair, shape (M,), -1 for those of a reference.
    """

    predicted: NDArray[np.float32]
    measured: NDArray[np.float32]
    expected: NDArray[np.float32]
    scores: dict[str, dict[str, Numbers]]
    folds: NDArray[np.intp]


def judge_responses(
    study: Study, name: str, candidates: Mapping[str, Candidate], baselines: list[str], condition: NDArray[np.intp]
) -> Responses:
    """Predict every pair by heads that were not fitted to its unit, and score each condition.

    Parameters
    ----------
    study
        The pairs.
    name
        Which of the candidates is judged.
    candidates
        Heads by name.
    baselines
        Names out of ``BASELINES`` in the order of the table; those that are no candidates are constants or lookups.
    condition
        Condition of each pair, shape (M,).
    """
    pairs, splits = study.pairs, study.splits()
    shape, n_conditions = study.profiles.treated.shape, int(condition.max()) + 1
    predicted = np.zeros(shape, dtype=np.float32)
    changes = [np.zeros((n_conditions, shape[1]), dtype=np.float32) for _ in range(2)]
    folds = np.full(len(pairs.rows), -1, dtype=np.intp)
    names = [name, *baselines]
    scores = {other: {metric: np.full(n_conditions, np.nan) for metric in METRICS} for other in names}
    with Progress(len(splits) * len(names), "perturbation response", unit="fit") as progress:
        for position, split in enumerate(splits):
            folds[split.test] = position
            here = np.unique(condition[split.test])
            change = Change.of(study.changes[split.train], pairs.codes[split.train])
            for other in names:
                moved = _predict(study, other, candidates.get(other), change, split)
                profiles = treated(study.profiles.control[split.test], moved)
                means = _means(study, profiles, split.test, condition[split.test])
                for metric, values in score_responses(means[:2], means[2:]).items():
                    scores[other][metric][here] = values
                if other == name:
                    predicted[split.test] = profiles
                    changes[0][here], changes[1][here] = means[2:]
                progress.update(1)
    return Responses(predicted, changes[0], changes[1], scores, folds)


def _means(study: Study, profiles: Numbers, rows: NDArray[np.intp], condition: NDArray[np.intp]) -> Any:
    """Return true and predicted profiles, and true and predicted changes, averaged over each condition."""
    known = study.profiles
    true = known.treated[rows]
    parts = (true, profiles, true - known.reference[rows], profiles - known.control[rows])
    return tuple(average(part, condition) for part in parts)


def _predict(study: Study, name: str, candidate: Candidate | None, change: Change, split: Split) -> Numbers:
    """Predict the change of the test pairs of a split, shape (test pairs, G)."""
    if candidate is None:
        return _simple(name, study, change, split.train, split.test)
    arrays = study.fit(candidate, split.train, change)
    return forward_response(arrays, study.blocks(candidate, split.test))


def _simple(name: str, study: Study, change: Change, train: NDArray[np.intp], test: NDArray[np.intp]) -> Numbers:
    """Predict changes without any head."""
    if name == NO_CHANGE:
        return np.zeros((len(test), len(change.mean)))
    if name == MEAN_CHANGE:
        return np.tile(change.mean, (len(test), 1))
    levels, known = study.levels, study.features.matrix[study.pairs.codes]
    sides = [(known[rows], None if levels is None else levels[rows]) for rows in (train, test)]
    return nearest_change(study.changes[train], sides[0], sides[1])
