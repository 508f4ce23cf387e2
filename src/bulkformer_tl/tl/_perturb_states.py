"""States of samples that a perturbation may lead between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bulkformer_tl.tl._columns import column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray


@dataclass(frozen=True)
class States:
    """A start, a goal and alternates, as labels of a column of ``obs``.

    Parameters
    ----------
    column
        Column of ``obs``.
    start
        Its samples are perturbed.
    goal
        Where they should go.
    alternates
        Other states, which they should not go to.
    """

    column: str
    start: str
    goal: str
    alternates: Sequence[str] = ()

    @property
    def labels(self) -> list[str]:
        """Goal, start and alternates, in this order."""
        return [self.goal, self.start, *self.alternates]

    @property
    def names(self) -> list[str]:
        """What is read of each sample, one number for each label."""
        return [f"toward {self.goal}", *(f"away from {label}" for label in self.labels[1:])]

    def members(self, adata: AnnData) -> list[NDArray[np.intp]]:
        """Find the samples of each label.

        Parameters
        ----------
        adata
            The cohort.

        Returns
        -------
        Their positions, for each label.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If goal, start and alternates are not different, or one of them has no sample.
        """
        if isinstance(self.alternates, str) or len(set(self.labels)) < len(self.labels):
            message = (
                f"start {self.start!r}, goal {self.goal!r} and alternates {self.alternates!r} need to be different "
                "states, alternates a list; a perturbation leads from one state to another"
            )
            raise ValueError(message)
        states = column(adata, self.column, "states").astype(str).to_numpy()
        found = [np.flatnonzero(states == label) for label in self.labels]
        for label, rows in zip(self.labels, found, strict=True):
            if not len(rows):
                message = (
                    f"no sample of adata.obs[{self.column!r}] is {label!r}; its states are {sorted(set(states))}. "
                    "Pass one of them to bf.tl.States"
                )
                raise ValueError(message)
        return found
