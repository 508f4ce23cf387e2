"""Bootstrap resamples as weights: how often each sample, or all of its group, was drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bulkformer_tl.metrics._check import as_labels

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def resample(
    n_samples: int,
    *,
    n_bootstrap: int = 2000,
    groups: ArrayLike | None = None,
    folds: ArrayLike | None = None,
    rng: int | np.random.Generator | None = 0,
) -> NDArray[np.float64]:
    """Draw samples, or whole groups, with replacement.

    A score under such weights is the score of the resample. The same weights for two methods make their difference
    paired.

    Parameters
    ----------
    n_samples
        Number of samples N.
    n_bootstrap
        Number of resamples B.
    groups
        What is drawn as a whole (patients), shape (N,); intervals from fewer than about ten groups are too narrow.
    folds
        Draws are made within each of these, shape (N,). A fold of a single group cannot be redrawn within: then
        folds are drawn as a whole.
    rng
        Seed or generator of the draws.

    Returns
    -------
    Whole numbers as float64, shape (B, N).

    Raises
    ------
    ValueError
        If groups or folds are missing or their number is not N.
    """
    generator = np.random.default_rng(rng)
    units = np.arange(n_samples) if groups is None else as_labels(groups, "groups", n=n_samples)[0]
    parts = np.zeros(n_samples, dtype=np.intp) if folds is None else as_labels(folds, "folds", n=n_samples)[0]
    members = [np.unique(units[parts == part]) for part in range(int(parts.max()) + 1)]
    if len(members) > 1 and min(map(len, members)) < 2:
        return _draw(len(members), n_bootstrap, generator)[:, parts]
    counts = np.zeros((n_bootstrap, int(units.max()) + 1))
    for drawn in members:
        counts[:, drawn] += _draw(len(drawn), n_bootstrap, generator)
    return counts[:, units]


def _draw(n: int, n_bootstrap: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.multinomial(n, np.full(n, 1 / n), size=n_bootstrap).astype(np.float64)
