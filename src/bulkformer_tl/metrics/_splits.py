"""Splits into training and test samples that keep together what belongs together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bulkformer_tl.metrics._check import as_labels, refuse_one_class

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


class Split(NamedTuple):
    """One way to hold samples out.

    Parameters
    ----------
    train
        Positions to fit on, sorted.
    test
        Positions to predict, sorted.
    name
        What is held out.
    """

    train: NDArray[np.intp]
    test: NDArray[np.intp]
    name: str


def k_fold(
    n_samples: int,
    *,
    n_splits: int = 5,
    labels: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    rng: int | np.random.Generator | None = 0,
) -> list[Split]:
    """Split samples into folds; every sample is tested once.

    Parameters
    ----------
    n_samples
        Number of samples N.
    n_splits
        Number of folds.
    labels
        Classes to spread evenly over the folds, shape (N,).
    groups
        What must not stand on both sides of a split (patient, donor, study, cell line, drug, scaffold, gene,
        perturbation), shape (N,). Groups go largest first into the fold that has least of their classes, or of
        anything without ``labels``.
    rng
        Seed or generator of the shuffling.

    Returns
    -------
    ``n_splits`` splits named ``"fold 0"`` and so on.

    Raises
    ------
    ValueError
        If samples, groups or a class are too few for the folds, or labels or groups are missing.
    """
    codes = None if labels is None else as_labels(labels, "labels", n=n_samples)[0]
    members = np.arange(n_samples) if groups is None else as_labels(groups, "groups", n=n_samples)[0]
    _check_folds(n_splits, len(np.unique(members)), "samples" if groups is None else "groups")
    if labels is not None:
        _check_classes(labels, members, n_splits if groups is None else 2, "samples" if groups is None else "groups")
    generator = np.random.default_rng(rng)
    folds = _deal(members, codes, n_splits, generator)
    return _from_folds(folds, [f"fold {fold}" for fold in range(n_splits)], codes)


def leave_one_group_out(groups: ArrayLike, *, labels: ArrayLike | None = None) -> list[Split]:
    """Hold out each group in turn, as in leave-one-study-out.

    Parameters
    ----------
    groups
        Shape (N,).
    labels
        Classes, shape (N,); where given, every split must train on all of them.

    Returns
    -------
    One split per group, named after it, in sorted order.

    Raises
    ------
    ValueError
        If there is one group only, values are missing, or a split would train without one of the classes.
    """
    members, names = as_labels(groups, "groups")
    refuse_one_class(names, "groups")
    codes = None
    if labels is not None:
        codes = as_labels(labels, "labels", n=len(members))[0]
        _check_classes(labels, members, 2, "groups")
    return _from_folds(members, [str(name) for name in names], codes)


def leave_pair_out(
    first: ArrayLike, second: ArrayLike, *, n_splits: int = 3, rng: int | np.random.Generator | None = 0
) -> list[Split]:
    """Hold out pairs of which both partners are unseen, as in leave-drug-and-line-out.

    Drugs and lines are each dealt into ``n_splits`` parts. A split tests the pairs of one part of the drugs with one
    part of the lines and trains on pairs that share neither; pairs with one unseen partner are left out of it.

    Parameters
    ----------
    first
        One partner of each pair (drug), shape (N,).
    second
        The other (cell line), shape (N,).
    n_splits
        Parts per partner.
    rng
        Seed or generator of the shuffling.

    Returns
    -------
    At most ``n_splits`` squared splits; each pair is tested once. Combinations without any pair are left out.

    Raises
    ------
    ValueError
        If partners are fewer than parts, values are missing, or a split has nothing to train on.
    """
    one, _ = as_labels(first, "first")
    other, _ = as_labels(second, "second", n=len(one))
    for name, codes in (("first", one), ("second", other)):
        _check_folds(n_splits, len(np.unique(codes)), f"distinct values of {name}")
    generator = np.random.default_rng(rng)
    rows, columns = _deal(one, None, n_splits, generator), _deal(other, None, n_splits, generator)
    found = []
    for row in range(n_splits):
        for column in range(n_splits):
            train = np.flatnonzero((rows != row) & (columns != column))
            test = np.flatnonzero((rows == row) & (columns == column))
            if len(test) and not len(train):
                message = f"no pair is left to train on when parts {row} and {column} are held out; raise n_splits"
                raise ValueError(message)
            if len(test):
                found.append(Split(train, test, f"parts {row}, {column}"))
    return found


def inner_folds(
    split: Split,
    *,
    n_splits: int = 3,
    labels: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    rng: int | np.random.Generator | None = 0,
) -> list[Split]:
    """Split the training samples of a split again, for nested cross-validation.

    Parameters
    ----------
    split
        The outer split.
    n_splits
        Number of inner folds.
    labels
        Classes of all samples, shape (N,).
    groups
        Groups of all samples, shape (N,).
    rng
        Seed or generator of the shuffling.

    Returns
    -------
    Splits whose positions count all N samples, as those of the outer split do.

    Raises
    ------
    ValueError
        As :func:`k_fold`.
    """
    kept = split.train
    classes = None if labels is None else as_labels(labels, "labels")[0][kept]
    members = None if groups is None else as_labels(groups, "groups")[0][kept]
    inner = k_fold(len(kept), n_splits=n_splits, labels=classes, groups=members, rng=rng)
    return [Split(kept[train], kept[test], f"{split.name}, inner {name}") for train, test, name in inner]


def _deal(
    members: NDArray[np.intp], codes: NDArray[np.intp] | None, n_splits: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Deal groups, largest first and equal ones shuffled, each into the fold that lacks its classes most.

    The fold with the smallest product of class shares is the one that keeps their sum of squares over folds smallest.
    """
    groups, positions, sizes = np.unique(members, return_inverse=True, return_counts=True)
    classes = np.zeros_like(members) if codes is None else codes
    shares = np.zeros((len(groups), int(classes.max()) + 1))
    np.add.at(shares, (positions, classes), 1)
    shares /= shares.sum(axis=0)
    order = rng.permutation(len(groups))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled, size = np.zeros((n_splits, shares.shape[1])), np.zeros(n_splits)
    fold_of = np.empty(len(groups), dtype=np.intp)
    for group in order:
        # rounded, so that what is equal but for rounding is decided by size
        fold = np.lexsort((size, np.round(filled @ shares[group], 12)))[0]
        fold_of[group] = fold
        filled[fold] += shares[group]
        size[fold] += sizes[group]
    return fold_of[positions]


def _from_folds(folds: NDArray[np.intp], names: Sequence[str], codes: NDArray[np.intp] | None) -> list[Split]:
    found = []
    for fold, name in enumerate(names):
        split = Split(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold), name)
        if not len(split.test):
            message = f"{name} holds no sample, since groups are few and large; lower n_splits below {len(names)}"
            raise ValueError(message)
        if codes is not None and len(np.unique(codes[split.train])) < len(np.unique(codes)):
            message = (
                f"{name} holds every sample of a class, so that nothing would be trained on it; lower n_splits, "
                "change rng, or leave the class out"
            )
            raise ValueError(message)
        found.append(split)
    return found


def _check_folds(n_splits: int, available: int, what: str) -> None:
    if n_splits < 2:
        message = f"n_splits is {n_splits}; at least 2 folds are needed"
        raise ValueError(message)
    if available < n_splits:
        message = f"{available} {what} cannot fill {n_splits} folds; set n_splits to {available} or less"
        raise ValueError(message)


def _check_classes(labels: ArrayLike, members: NDArray[np.intp], least: int, what: str) -> None:
    """Refuse classes that occur in too few samples or groups to be trained on and tested."""
    codes, names = as_labels(labels, "labels")
    refuse_one_class(names, "labels")
    pairs = np.unique(np.stack([codes, members]), axis=1)
    found = np.bincount(pairs[0], minlength=len(names))
    rare = {str(names[code]): int(found[code]) for code in np.flatnonzero(found < least)}
    if rare:
        message = f"classes in fewer than {least} {what}: {rare}; leave them out, merge them, or lower n_splits"
        raise ValueError(message)
