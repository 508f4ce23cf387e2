"""Probabilities, intervals and distances that are honest about what a head has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Neighbours whose mean distance says how far away a sample is.
N_NEIGHBORS = 5
#: Interquartile ranges above the upper quartile from which a distance is far out (Tukey 1977).
FAR_OUT = 3.0


def conformal_width(errors: NDArray[np.float64], level: float) -> float:
    """Return half the width of a conformal interval (Vovk 2015, doi:10.1007/s10472-013-9368-4).

    Parameters
    ----------
    errors
        Absolute errors of held-out samples, shape (N,).
    level
        Share of new samples that the interval is to cover.

    Returns
    -------
    The ceil((N + 1) level)-th smallest error; infinite if there are too few for the level.
    """
    rank = int(np.ceil((len(errors) + 1) * level))
    return float(np.sort(errors)[rank - 1]) if rank <= len(errors) else np.inf


def far_from_training(
    train: NDArray[np.floating], test: NDArray[np.floating], groups: NDArray[np.intp] | None = None
) -> NDArray[np.bool_]:
    """Flag samples whose nearest training samples are farther away than training samples are from each other.

    Missing values take the training mean; distance is the mean Euclidean one to the five nearest training samples, for
    training samples to those of other groups.

    Parameters
    ----------
    train
        Training samples, shape (N, D).
    test
        Other samples, shape (M, D).
    groups
        Groups of the training samples, shape (N,).

    Returns
    -------
    Whether the distance is more than three interquartile ranges above the upper quartile of those of the training
    samples, shape (M,); outliers among these do not move the limit much.
    """
    from sklearn.impute import SimpleImputer

    fill = SimpleImputer(keep_empty_features=True).fit(train)
    usual, found = distances_to_training(fill.transform(train), fill.transform(test), groups)
    return far_out(usual, found)


def distances_to_training(
    train: NDArray[np.floating],
    test: NDArray[np.floating],
    groups: NDArray[np.intp] | None = None,
    *,
    n_neighbors: int = N_NEIGHBORS,
    metric: str = "euclidean",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean distances to the nearest training samples: of each of these to other groups, and of other samples.

    Parameters
    ----------
    train
        Training samples, complete, shape (N, D).
    test
        Other samples, complete, shape (M, D).
    groups
        Groups of the training samples, shape (N,); ``None`` if each is one of its own.
    n_neighbors
        How many are the nearest.
    metric
        As of scikit-learn.

    Returns
    -------
    Distances within the training samples, at most N, those without a sample of another group left out; and of the
    others, shape (M,).
    """
    members = np.arange(len(train)) if groups is None else groups
    usual = _distance(train, train, (members, members), n_neighbors, metric)
    return usual[np.isfinite(usual)], _distance(test, train, None, n_neighbors, metric)


def far_out(usual: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Flag distances that are three interquartile ranges above the upper quartile of the usual ones (Tukey 1977)."""
    if not len(usual):
        return np.zeros(len(found), dtype=bool)
    lower, upper = np.quantile(usual, [0.25, 0.75])
    flags: NDArray[np.bool_] = found > upper + FAR_OUT * (upper - lower)
    return flags


def _distance(
    rows: NDArray[np.floating],
    known: NDArray[np.floating],
    members: tuple[NDArray[np.intp], NDArray[np.intp]] | None,
    n_neighbors: int,
    metric: str,
) -> NDArray[np.float64]:
    """Return the mean distance of each row to its nearest known samples, those of its own group left out."""
    from sklearn.metrics import pairwise_distances_chunked

    def nearest(block: NDArray[np.float64], start: int) -> NDArray[np.float64]:
        if members is not None:
            own = members[0][start : start + len(block), None] == members[1][None]
            block = np.where(own, np.inf, block)
        k = min(n_neighbors, block.shape[1])
        closest = np.sort(np.partition(block, k - 1, axis=1)[:, :k], axis=1)
        finite = np.isfinite(closest)
        total = np.where(finite, closest, 0).sum(axis=1)
        return np.where(finite.any(axis=1), total / np.maximum(finite.sum(axis=1), 1), np.inf)

    found = list(pairwise_distances_chunked(rows, known, reduce_func=nearest, metric=metric))
    return np.concatenate(found)
