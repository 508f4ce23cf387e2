"""Out-of-fold predictions of several representations, their scores, and their differences from baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.metrics._baselines import DEFAULT, RECIPES, TRIVIAL, baseline, baseline_names, probe
from bulkformer_tl.metrics._check import as_labels, as_numbers, refuse_one_class
from bulkformer_tl.metrics._compare import compare
from bulkformer_tl.metrics._fit import fit_predict
from bulkformer_tl.metrics._heads import Task, grid_of
from bulkformer_tl.metrics._protocol import Protocol
from bulkformer_tl.metrics._splits import Split, inner_folds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation found.

    Parameters
    ----------
    task
        ``"classification"`` or ``"regression"``.
    classes
        Sorted labels that the columns of probabilities stand for; empty in regression.
    folds
        Position of the split that tested each sample, -1 if none, shape (N,).
    predictions
        Representation or baseline and its out-of-fold probabilities (N, K) or numbers (N,); ``NaN`` where untested.
    scores
        Table of scores, as of :func:`compare`.
    differences
        Table of differences from the baselines, as of :func:`compare`.
    """

    task: Task
    classes: NDArray[Any]
    folds: NDArray[np.intp]
    predictions: dict[str, NDArray[np.float64]]
    scores: pd.DataFrame
    differences: pd.DataFrame


def cross_validate(
    representations: Mapping[str, Any],
    target: ArrayLike,
    *,
    task: Task = "classification",
    values: NDArray[np.floating] | None = None,
    covariates: pd.DataFrame | None = None,
    groups: ArrayLike | None = None,
    protocol: Protocol | None = None,
    head: str | None = None,
    splits: Sequence[Split] | None = None,
) -> Evaluation:
    """Judge representations by what a simple head predicts from them, beside baselines, on the same folds.

    Whatever is fitted (filling, scaling, selection, components, transformers, heads) sees training samples only.
    Folds, resamples and baselines depend on the protocol and the data alone, so that reruns with other
    representations can be put into one table.

    Parameters
    ----------
    representations
        Name and matrix (N, D); or a scikit-learn transformer, which is fitted to ``values`` in each fold and put under
        the head; or an estimator with ``predict``, which takes the place of both.
    target
        Classes or numbers, shape (N,).
    task
        ``"classification"`` or ``"regression"``.
    values
        Expression for baselines and transformers, ln(TPM+1), shape (N, G), ``NaN`` where missing.
    covariates
        For the baseline ``"covariates"``, N rows.
    groups
        What must not stand on both sides of a split, shape (N,); resampled as a whole.
    protocol
        Splits, baselines and bootstrap; ``None`` takes ``Protocol()``. Baselines that are not named are the trivial
        one, ``"raw"`` and ``"pca"`` if there are ``values``, and ``"covariates"`` if there are some.
    head
        As in :func:`probe`; ``None`` takes that of the protocol, or ``"linear"``.
    splits
        Splits to use in place of the protocol's, each sample tested once at most.

    Returns
    -------
    Predictions, scores and differences.

    Raises
    ------
    ValueError
        If there is no representation, targets are missing or hold one class, numbers of samples differ, names clash,
        a baseline lacks what it reads, or the samples cannot be split.
    TypeError
        If targets are not numbers in regression.
    """
    protocol = protocol or Protocol()
    if not representations:
        message = "there is no representation to judge; pass {name: matrix}, such as {'bulkformer': adata.obsm[...]}"
        raise ValueError(message)
    names = _baselines(protocol, task, values, covariates)
    coded, classes = _target(target, task)
    members = None if groups is None else as_labels(groups, "groups", n=len(coded))[0]
    labels = coded if task == "classification" else None
    inputs = _inputs(representations, names, values, covariates, len(coded))
    used = list(splits) if splits is not None else protocol.split(len(coded), labels=labels, groups=members)
    folds = _folds(used, len(coded))
    shape = (len(coded), len(classes)) if labels is not None else (len(coded),)
    predictions = {name: np.full(shape, np.nan) for name in inputs}
    for position, split in enumerate(used):
        inner = _inner(split, protocol, labels, members, position)
        for name, (matrix, maker) in inputs.items():
            estimator, kind = _estimator(maker, task, head, _shape(matrix, split, inner), protocol)
            predictions[name][split.test] = fit_predict(
                estimator, matrix, coded, split, inner=inner, grid=grid_of(kind, task), n_classes=len(classes) or None
            )
    tested = folds >= 0
    scores, differences = compare(
        coded[tested],
        {name: predicted[tested] for name, predicted in predictions.items()},
        folds=folds[tested],
        groups=None if members is None else members[tested],
        baselines=names,
        protocol=protocol,
    )
    return Evaluation(task, classes, folds, predictions, scores, differences)


def _baselines(protocol: Protocol, task: Task, values: Any, covariates: Any) -> list[str]:
    known = baseline_names(task)
    if protocol.baselines is None:
        expression = DEFAULT if values is not None else ()
        return [TRIVIAL[task], *expression, *(["covariates"] if covariates is not None else [])]
    for name in protocol.baselines:
        if name not in known:
            message = f"there is no baseline {name!r} for {task}; choose among {list(known)}"
            raise ValueError(message)
        reads = RECIPES[name][0] if name in RECIPES else None
        if reads == "covariates" and covariates is None:
            message = "the baseline 'covariates' needs covariates=, a data frame with one row per sample"
            raise ValueError(message)
        if reads not in (None, "covariates") and values is None:
            message = f"the baseline {name!r} needs values=, the expression of all samples"
            raise ValueError(message)
    return list(protocol.baselines)


def _target(target: ArrayLike, task: Task) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return class codes with sorted classes, or numbers with no class."""
    if task == "classification":
        codes, classes = as_labels(target, "target")
        refuse_one_class(classes, "target")
        return codes, classes
    numbers = as_numbers(target, "target")
    if np.ptp(numbers) == 0:
        message = f"target is constant ({numbers[0]:.6g}); there is nothing to predict"
        raise ValueError(message)
    return numbers, np.array([])


def _inputs(
    representations: Mapping[str, Any], names: list[str], values: Any, covariates: Any, n: int
) -> dict[str, tuple[Any, Any]]:
    """Return for each name what is read, and what is fitted: a baseline's name, an estimator, or ``None``."""
    clash = sorted(set(representations) & set(names))
    if clash:
        message = f"{clash} name both a representation and a baseline; rename the representation"
        raise ValueError(message)
    found: dict[str, tuple[Any, Any]] = {}
    for name, given in representations.items():
        if hasattr(given, "fit"):
            if values is None:
                message = f"{name!r} is fitted in each fold and needs values=, the expression of all samples"
                raise ValueError(message)
            found[name] = (values, given)
        else:
            found[name] = (np.asarray(given), None)
    for name in names:
        reads = RECIPES[name][0] if name in RECIPES else None
        constant = np.zeros((n, 1))
        found[name] = (covariates if reads == "covariates" else constant if reads is None else values, name)
    for name, (matrix, _) in found.items():
        if len(matrix.shape) != 2 or len(matrix) != n:
            message = f"{name!r} reads a matrix of the shape {matrix.shape} for {n} samples; pass one row per sample"
            raise ValueError(message)
    return found


def _folds(splits: Sequence[Split], n: int) -> NDArray[np.intp]:
    folds = np.full(n, -1, dtype=np.intp)
    for position, split in enumerate(splits):
        shared = np.intersect1d(split.train, split.test)
        again = split.test[folds[split.test] >= 0]
        if len(shared) or len(again):
            what = (
                f"trains on {len(shared)} of its test samples" if len(shared) else f"tests {len(again)} samples again"
            )
            message = f"split {split.name!r} {what}; splits must hold out each sample once at most"
            raise ValueError(message)
        folds[split.test] = position
    return folds


def _inner(
    split: Split, protocol: Protocol, labels: NDArray[np.intp] | None, groups: ArrayLike | None, position: int
) -> list[Split] | None:
    if not protocol.n_inner:
        return None
    return inner_folds(split, n_splits=protocol.n_inner, labels=labels, groups=groups, rng=protocol.rng + position)


def _shape(matrix: Any, split: Split, inner: list[Split] | None) -> tuple[int, int]:
    """Return the smallest training set that an estimator will see, and its features."""
    return min(len(part.train) for part in (split, *(inner or ()))), matrix.shape[1]


def _estimator(maker: Any, task: Task, head: str | None, shape: tuple[int, int], protocol: Protocol) -> tuple[Any, str]:
    """Build what is fitted, and name the head whose regularisation inner folds choose."""
    if isinstance(maker, str):
        return baseline(maker, task=task, shape=shape, rng=protocol.rng), RECIPES[maker][1] if maker in RECIPES else ""
    if hasattr(maker, "predict") and not hasattr(maker, "transform"):
        return maker, ""
    name, options = protocol.resolve_head(head)
    return probe(name, task=task, shape=shape, transformer=maker, rng=protocol.rng, options=options), name
