"""The model, blended and alone, in the folds of :func:`bulkformer_tl.tl.score_imputation`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.tl._blend import Blend, fit_blend
from bulkformer_tl.tl._encoders import Alone, Encoders

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from numpy.typing import NDArray

    from bulkformer_tl._progress import Progress
    from bulkformer_tl.metrics import Split
    from bulkformer_tl.tl._input import ModelInput

    #: Names of the prediction, its mean and, for the model, its standard deviation; each (N, G).
    Predicted = dict[str, tuple[NDArray[np.float64], NDArray[np.float64] | None]]

logger = logging.getLogger(__name__)

#: What follows the model's name where it is not blended.
ALONE = "encoder alone"


@dataclass(frozen=True)
class FoldModel:
    """Predicts the test samples of each fold by what was fitted on its training samples.

    Parameters
    ----------
    encoders
        The networks.
    seeds
        Numbers of the samples' names, (N,).
    splits
        Folds.
    fits
        For each fold the blend and the encoder alone.
    """

    encoders: Encoders
    seeds: NDArray[np.uint64]
    splits: Sequence[Split]
    fits: list[dict[str, Blend | Alone]]

    @classmethod
    def fit(
        cls,
        given: ModelInput,
        values: NDArray[np.float32],
        seeds: NDArray[np.uint64],
        splits: Sequence[Split],
        *,
        members: NDArray[Any] | None,
    ) -> Self:
        """Fit in each fold.

        Parameters
        ----------
        given
            The model and its match.
        values
            The columns that the model knows, in its order, (N, n_found).
        seeds
            Numbers of the samples' names.
        splits
            Folds.
        members
            Group of each sample, or ``None``.

        Returns
        -------
        The fits; the encoder alone, if too few entries are measured to blend in every fold.
        """
        encoders = Encoders.of(given)
        fits: list[dict[str, Blend | Alone]] = []
        for split in splits:

            def read(rows: NDArray[np.int64], train: NDArray[np.int64] = split.train) -> NDArray[np.float32]:
                return align(given, values[train[rows]])

            groups = None if members is None else members[split.train]
            fitted = fit_blend(encoders, read, seeds[split.train], groups=groups)
            blended: dict[str, Blend | Alone] = {} if fitted is None else {given.model.name: fitted}
            fits.append({**blended, f"{given.model.name}, {ALONE}": Alone.fit(encoders, read, seeds[split.train])})
        names = set.intersection(*(set(both) for both in fits))
        if given.model.name not in names:
            logger.warning("too few entries are measured to blend %s with simple methods", given.model.name)
        return cls(encoders, seeds, splits, [{name: both[name] for name in both if name in names} for both in fits])

    @property
    def name(self) -> str:
        """What the model's best prediction is called: the blend where there is one."""
        return next(iter(self.fits[0]))

    def predict(self, shown: NDArray[np.float64], batch_size: int | None, progress: Progress) -> Predicted:
        """Predict samples (N, n_found) by the fits of the folds whose test samples they are."""
        given = self.encoders.given
        step = 1 if given.model.device.type == "cpu" else batch_size or 8
        found: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {
            name: (np.full(shown.shape, np.nan), np.full(shown.shape, np.nan)) for name in self.fits[0]
        }
        for split, fits in zip(self.splits, self.fits, strict=True):
            for start in range(0, len(split.test), step):
                rows = split.test[start : start + step]
                values = align(given, shown[rows].astype(np.float32))
                guess = self.encoders(values)
                for name, combine in fits.items():
                    parts: tuple[NDArray[np.floating], ...] = combine(values, guess, self.seeds[rows])
                    for target, part in zip(found[name], parts, strict=True):
                        target[rows] = part[:, given.match.found]
                progress.update(len(rows))
        return {**found}


def align(given: ModelInput, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put the found genes, (n, n_found), among all genes of the model, (n, G)."""
    aligned = np.full((len(values), len(given.match.columns)), np.nan, dtype=np.float32)
    aligned[:, given.match.found] = values
    return aligned
