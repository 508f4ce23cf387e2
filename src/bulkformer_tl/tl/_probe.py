"""What classification and regression share: splits, calibrated heads, distances to the training samples, tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._progress import Progress
from bulkformer_tl.metrics import Split, baseline, inner_folds
from bulkformer_tl.metrics._baselines import RECIPES
from bulkformer_tl.metrics._fit import _choose
from bulkformer_tl.metrics._heads import grid_of
from bulkformer_tl.metrics._temperature import fit_temperature, sharpen
from bulkformer_tl.tl._calibrate import conformal_width, far_from_training

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol
    from bulkformer_tl.metrics._scale import Scale
    from bulkformer_tl.tl._samples import Samples, Task

#: Folds inside each training set that calibrate probabilities and intervals.
N_CALIBRATION = 3


@dataclass(frozen=True, eq=False)
class Candidate:
    """A representation or baseline: what is read, and what is fitted to it.

    Parameters
    ----------
    matrix
        Shape (N, D), an array or a data frame.
    make
        Returns an unfitted estimator for a shape of the training matrix.
    head
        Head whose regularisation inner folds choose; empty if there is none.
    trivial
        Whether it predicts a constant, so that there is nothing to calibrate.
    """

    matrix: Any
    make: Callable[[tuple[int, int]], Any]
    head: str
    trivial: bool = False


@dataclass(eq=False)
class Plan:
    """How samples are split.

    Parameters
    ----------
    samples
        The samples.
    protocol
        Splits and seed.
    groups
        What is kept together, near-duplicates joined, shape (N,); ``None`` if every sample is by itself.
    scored
        Splits that are scored.
    final
        All that may be trained on, and what remains to be predicted.
    """

    samples: Samples
    protocol: Protocol
    groups: NDArray[np.intp] | None
    scored: list[Split]
    final: Split

    @property
    def folds(self) -> NDArray[np.intp]:
        """Split that scores each sample, -1 if none, shape (N,)."""
        found = np.full(len(self.samples.target), -1, dtype=np.intp)
        for position, split in enumerate(self.scored):
            found[split.test[self.samples.labelled[split.test]]] = position
        return found


@dataclass(eq=False)
class Predictions:
    """Predictions of one candidate for the samples that it was not fitted to.

    Parameters
    ----------
    predicted
        Probabilities (N, K) or numbers (N,).
    width
        Half the width of each interval, (N,); ``NaN`` in classification.
    calibration
        Temperature or half width of each split.
    model
        What was fitted last.
    """

    predicted: NDArray[np.float64]
    width: NDArray[np.float64]
    calibration: list[float] = field(default_factory=list)
    model: Any = None


def make_plan(samples: Samples, protocol: Protocol) -> Plan:
    """Split the samples as the protocol says, or into a reference and what it predicts.

    Raises
    ------
    ValueError
        If the samples cannot be split so.
    """
    if samples.n_reference:
        return _plan_reference(samples, protocol)
    rows = np.flatnonzero(samples.labelled)
    groups = _grouping(samples, protocol, rows)
    # labels rather than their codes, so that messages name them
    labels = None if samples.labels is None else samples.labels[rows]
    if labels is not None and len(samples.classes):
        labels = samples.classes[labels]
    inside = None if groups is None else groups[rows]
    scored = [
        Split(rows[split.train], rows[split.test], split.name)
        for split in protocol.split(len(rows), labels=labels, groups=inside)
    ]
    return Plan(samples, protocol, groups, scored, Split(rows, np.flatnonzero(~samples.labelled), "unlabelled"))


def _plan_reference(samples: Samples, protocol: Protocol) -> Plan:
    everything = np.arange(len(samples.target))
    train, test = everything[: samples.n_reference], everything[samples.n_reference :]
    train = train[samples.labelled[train]]
    groups = _grouping(samples, protocol, np.concatenate([train, test]))
    if groups is not None:
        train = train[~np.isin(groups[train], groups[test])]
    left = np.unique(samples.target[train])
    if len(left) < max(2, len(samples.classes)):
        message = (
            f"{len(train)} samples of the reference with {len(left)} distinct labels share no group and no "
            "near-duplicate with adata, which is too few to train on; pass a reference of other samples"
        )
        raise ValueError(message)
    split = Split(train, test, "reference")
    return Plan(samples, protocol, groups, [split], split)


def _grouping(samples: Samples, protocol: Protocol, rows: NDArray[np.intp]) -> NDArray[np.intp] | None:
    """Join near-duplicates among some samples to the groups; all others are groups of their own."""
    known = None if samples.groups is None else samples.groups[rows]
    joined = known if samples.values is None else protocol.grouping(samples.values[rows], known)
    if joined is None or (known is None and len(np.unique(joined)) == len(rows)):
        return None
    codes = np.asarray(joined, dtype=np.intp)
    groups = codes.max() + 1 + np.arange(len(samples.target))
    groups[rows] = codes
    return groups


def candidates(
    samples: Samples,
    name: str,
    *,
    head: str,
    maker: Callable[..., Any],
    baselines: list[str],
    extra: Mapping[str, NDArray[np.float32]],
    rng: int,
) -> dict[str, Candidate]:
    """List what is judged: the representation, its modalities and others under the same head, and baselines by name.

    ``maker`` builds the head of a ``shape`` and a ``scale``.
    """
    task = samples.task
    under_head = partial(_scaled, maker, "common")
    itself = samples.representation is samples.values
    first = partial(_scaled, maker, "each") if itself else under_head
    if samples.blocks:
        first = partial(_scaled, maker, tuple((b.columns.stop - b.columns.start, b.scale) for b in samples.blocks))
    found = {name: Candidate(samples.representation, first, head)}
    for block in samples.blocks:
        found[block.name] = Candidate(
            samples.representation[:, block.columns], partial(_scaled, maker, block.scale), head
        )
    for other in baselines:
        if other in found:
            continue
        if other in extra:
            found[other] = Candidate(extra[other], under_head, head)
            continue
        features, kind = RECIPES.get(other, ("", ""))
        constant = np.zeros((len(samples.target), 1))
        matrix = {"covariates": samples.covariates, "": constant}.get(features, samples.values)
        found[other] = Candidate(matrix, partial(_baseline, other, task, rng), kind, trivial=not features)
    return found


def _scaled(maker: Callable[..., Any], scale: Scale, shape: tuple[int, int]) -> Any:
    return maker(shape=shape, scale=scale)


def _baseline(name: str, task: Task, rng: int, shape: tuple[int, int]) -> Any:
    return baseline(name, task=task, shape=shape, rng=rng)


def predict_all(plan: Plan, found: Mapping[str, Candidate], name: str) -> dict[str, Predictions]:
    """Fit every candidate in every split, and the one that is named also to all training samples.

    Everything that is fitted, calibration included, sees the training samples of its split only.
    """
    results = {other: _empty(plan.samples) for other in found}
    jobs = [(position, split, other) for position, split in enumerate(plan.scored) for other in found]
    if plan.final is not plan.scored[-1]:
        jobs.append((len(plan.scored), plan.final, name))
    with Progress(len(jobs), plan.samples.task) as progress:
        for position, split, other in jobs:
            # the last fit is the one to all training samples
            results[other].model = _into(results[other], plan, found[other], split, position)
            progress.update(1)
    return results


def _empty(samples: Samples) -> Predictions:
    n, k = len(samples.target), len(samples.classes)
    return Predictions(np.full((n, k) if k else n, np.nan), np.full(n, np.nan))


def _into(results: Predictions, plan: Plan, candidate: Candidate, split: Split, position: int) -> Any:
    """Fit to a split's training samples, calibrate on inner folds of them, and fill in its test samples."""
    samples, protocol = plan.samples, plan.protocol
    inner = [] if candidate.trivial and samples.task == "classification" else _inner(plan, split, position)
    model = _fit(plan, candidate, split, position)
    raw = [_predict(_fit(plan, candidate, part, position), candidate, part.test, samples) for part in inner]
    held = np.concatenate([part.test for part in inner]) if inner else np.array([], dtype=np.intp)
    predicted = _predict(model, candidate, split.test, samples) if len(split.test) else None
    if samples.task == "classification":
        calibration = fit_temperature(np.concatenate(raw), samples.target[held]) if inner else 1.0
        if predicted is not None:
            results.predicted[split.test] = sharpen(predicted, calibration)
    else:
        errors = np.abs(np.concatenate(raw) - samples.target[held]) if inner else np.array([])
        calibration = conformal_width(errors, protocol.level)
        if predicted is not None:
            results.predicted[split.test] = predicted
            results.width[split.test] = calibration
    results.calibration.append(calibration)
    return model


def _inner(plan: Plan, split: Split, position: int, n_splits: int = N_CALIBRATION) -> list[Split]:
    """Split training samples again; an empty list if classes or groups are too few for it."""
    try:
        return inner_folds(
            split, n_splits=n_splits, labels=plan.samples.labels, groups=plan.groups, rng=plan.protocol.rng + position
        )
    except ValueError:
        return []


def _fit(plan: Plan, candidate: Candidate, split: Split, position: int) -> Any:
    samples, protocol = plan.samples, plan.protocol
    grid = grid_of(candidate.head, samples.task) if protocol.n_inner else {}
    inner = _inner(plan, split, position, protocol.n_inner) if grid else []
    smallest = min(len(part.train) for part in (split, *inner))
    model = candidate.make((smallest, candidate.matrix.shape[1]))
    if inner:
        model[-1].set_params(**_choose(model, candidate.matrix, samples.target, inner, grid))
    return model.fit(_rows(candidate.matrix, split.train), samples.target[split.train])


def _predict(model: Any, candidate: Candidate, rows: NDArray[np.intp], samples: Samples) -> NDArray[np.float64]:
    held_out = _rows(candidate.matrix, rows)
    if samples.task == "regression":
        return np.asarray(model.predict(held_out), dtype=np.float64).reshape(-1)
    shares = np.zeros((len(rows), len(samples.classes)))
    shares[:, np.asarray(model.classes_, dtype=np.intp)] = model.predict_proba(held_out)
    return shares


def _rows(matrix: Any, positions: NDArray[np.intp]) -> Any:
    return matrix.iloc[positions] if hasattr(matrix, "iloc") else matrix[positions]


def outliers(plan: Plan) -> NDArray[np.bool_]:
    """Flag samples that are farther from the training samples of their split than those are from each other."""
    matrix = plan.samples.representation
    flags = np.zeros(len(matrix), dtype=bool)
    for split in [*plan.scored, plan.final]:
        if len(split.test):
            groups = None if plan.groups is None else plan.groups[split.train]
            flags[split.test] = far_from_training(matrix[split.train], matrix[split.test], groups)
    return flags
