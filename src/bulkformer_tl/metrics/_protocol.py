"""How a task is evaluated, in one object that travels through all of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal

from bulkformer_tl.metrics._duplicates import near_duplicates
from bulkformer_tl.metrics._splits import Split, k_fold, leave_one_group_out

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Protocol:
    """Splits, baselines and bootstrap of an evaluation.

    Parameters
    ----------
    scheme
        ``"k_fold"``, which keeps groups together where they are given, or ``"leave_one_group_out"``.
    n_splits
        Number of folds of ``"k_fold"``.
    stratify
        Whether classes are spread evenly over the folds. Has no effect on regression.
    n_inner
        Folds inside each training set that choose the regularisation; 0 keeps the defaults.
    duplicates
        Pearson correlation from which profiles are near-duplicates that are kept in one fold; ``None`` does not look.
    baselines
        Names out of :func:`baseline_names`; ``None`` takes the majority or mean, raw expression and PCA.
    n_bootstrap
        Resamples behind each interval.
    level
        Confidence level of the intervals.
    rng
        Seed of folds, fits and resamples.
    """

    scheme: Literal["k_fold", "leave_one_group_out"] = "k_fold"
    n_splits: int = 5
    stratify: bool = True
    n_inner: int = 0
    duplicates: float | None = 0.998
    baselines: tuple[str, ...] | None = None
    n_bootstrap: int = 2000
    level: float = 0.95
    rng: int = 0

    def __post_init__(self) -> None:
        problems = {
            f'scheme is {self.scheme!r}; use "k_fold" or "leave_one_group_out"': self.scheme
            not in ("k_fold", "leave_one_group_out"),
            f"n_splits is {self.n_splits}; at least 2 folds are needed": self.n_splits < 2,
            f"n_inner is {self.n_inner}; use 0 for no inner folds, or at least 2": self.n_inner < 0
            or self.n_inner == 1,
            f"level is {self.level}; use a share between 0 and 1, such as 0.95": not 0 < self.level < 1,
            f"n_bootstrap is {self.n_bootstrap}; at least 100 resamples are needed": self.n_bootstrap < 100,
            f"duplicates is {self.duplicates}; use a correlation above 0 and at most 1, or None": self.duplicates
            is not None
            and not 0 < self.duplicates <= 1,
            f"baselines is {self.baselines!r}; use a tuple of names, such as ('pca',)": not isinstance(
                self.baselines, tuple | list | NoneType
            ),
        }
        for message, applies in problems.items():
            if applies:
                raise ValueError(message)

    def split(self, n_samples: int, *, labels: ArrayLike | None = None, groups: ArrayLike | None = None) -> list[Split]:
        """Split samples as the protocol says.

        Parameters
        ----------
        n_samples
            Number of samples N.
        labels
            Classes, shape (N,); ``None`` in regression.
        groups
            What must not stand on both sides, shape (N,).

        Returns
        -------
        Splits that test every sample once.

        Raises
        ------
        ValueError
            If groups are needed and absent, or the samples cannot be split so; see :func:`k_fold`.
        """
        if self.scheme == "leave_one_group_out":
            if groups is None:
                message = 'scheme="leave_one_group_out" needs groups, such as the study of each sample'
                raise ValueError(message)
            return leave_one_group_out(groups, labels=labels)
        return k_fold(
            n_samples,
            n_splits=self.n_splits,
            labels=labels if self.stratify else None,
            groups=groups,
            rng=self.rng,
        )

    def grouping(self, values: NDArray[np.floating], groups: ArrayLike | None = None) -> ArrayLike | None:
        """Join near-duplicate profiles to the groups that are kept in one fold.

        Parameters
        ----------
        values
            ln(TPM+1), shape (N, G).
        groups
            Groups that are known, shape (N,).

        Returns
        -------
        Groups, shape (N,); ``groups`` as they were if the protocol does not look for near-duplicates.
        """
        if self.duplicates is None:
            return groups
        return near_duplicates(values, threshold=self.duplicates, groups=groups)

    def params(self) -> dict[str, Any]:
        """Return the fields as plain values that ``uns`` can hold; what is ``None`` is left out.

        Returns
        -------
        Field names and values.
        """
        found = {name: value for name, value in asdict(self).items() if value is not None}
        if self.baselines is not None:
            found["baselines"] = list(self.baselines)
        return found
