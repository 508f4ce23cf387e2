"""What the other samples of a cohort say of a sample: gene means and factors, fitted without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.metrics._imputers import fit_factors, predict_by_factors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from numpy.typing import NDArray

    Floats = NDArray[np.floating]

#: Parts of the samples; each is predicted by a fit on the others.
N_FOLDS = 4


@dataclass(frozen=True)
class Cohort:
    """Factor models of a cohort: one without each fold of its samples, and one of all for samples that it lacks.

    Parameters
    ----------
    samples
        Numbers of the samples' names, of :func:`bulkformer_tl.tl._held_back.name_seeds`, increasing, (n,).
    fold
        Fold of each sample, (n,).
    means, loadings, noise
        Factor models, (F, G), (F, G, K) and (F, G), float32; F is the number of folds + 1, the last being of all
        samples. ``NaN`` where a gene was not measured.
    """

    samples: NDArray[np.uint64]
    fold: NDArray[np.int64]
    means: Floats
    loadings: Floats
    noise: Floats

    @classmethod
    def fit(cls, values: Floats, samples: NDArray[np.uint64], groups: NDArray[Any] | None = None) -> Self:
        """Fit the factor models.

        Parameters
        ----------
        values
            Shape (n, G), ``NaN`` where missing, in the order of ``samples``.
        samples
            Numbers of the samples' names, increasing.
        groups
            What each sample belongs to; a group stays in one fold. ``None`` takes each sample for itself.

        Returns
        -------
        The models; none know any gene if there is but one group.
        """
        own = np.arange(len(values)) if groups is None else groups
        _, first, member = np.unique(own, return_index=True, return_inverse=True)
        # groups in the order of their first sample
        fold = np.argsort(np.argsort(first))[member] % N_FOLDS
        if len(first) < 2:
            return cls.empty(samples, values.shape[1])
        precise = values.astype(np.float64)
        kept = [fold != part for part in range(fold.max() + 1)] + [np.ones(len(fold), dtype=bool)]
        fits = [fit_factors(precise[rows]) for rows in kept]
        width = max(loadings.shape[1] for _, loadings, _ in fits)
        padded = [np.pad(loadings, ((0, 0), (0, width - loadings.shape[1]))) for _, loadings, _ in fits]
        stacked = (np.stack(part) for part in ([fit[0] for fit in fits], padded, [fit[2] for fit in fits]))
        return cls(samples, fold, *(part.astype(np.float32) for part in stacked))

    @classmethod
    def empty(cls, samples: NDArray[np.uint64], n_genes: int) -> Self:
        """Return what knows no gene."""
        nothing = np.full((1, n_genes), np.nan, dtype=np.float32)
        return cls(samples, np.zeros(len(samples), dtype=np.int64), nothing, nothing[..., None], nothing)

    def fit_for(self, sample: np.uint64) -> int:
        """Return which of the F models has not seen the sample."""
        at = int(np.searchsorted(self.samples, sample))
        known = at < len(self.samples) and self.samples[at] == sample
        return int(self.fold[at]) if known else len(self.means) - 1

    def has_seen(self, sample: np.uint64, which: int) -> bool:
        """Whether one of the F models was fitted on the sample."""
        return self.fit_for(sample) != which

    def knows(self, which: int) -> NDArray[np.bool_]:
        """Which genes one of the F models was fitted on, (G,)."""
        known: NDArray[np.bool_] = ~np.isnan(self.means[which])
        return known

    def predict(self, row: Floats, which: int) -> NDArray[np.float64]:
        """Return a sample's prediction by mean and by factors, (2, G), ``NaN`` for genes that were not measured."""
        means, loadings, noise = (part[which].astype(np.float64) for part in (self.means, self.loadings, self.noise))
        return np.stack([means, predict_by_factors(row[None].astype(np.float64), means, loadings, noise)[0]])

    def to_dict(self) -> dict[str, Any]:
        """Return the arrays by name."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Build from what :meth:`to_dict` gave, also after a file."""
        return cls(**{name: np.asarray(stored[name]) for name in cls.__dataclass_fields__})
