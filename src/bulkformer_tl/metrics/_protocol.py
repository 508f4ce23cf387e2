"""How a task is evaluated, in one object that travels through all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal

from bulkformer_tl.metrics._duplicates import near_duplicates
from bulkformer_tl.metrics._splits import Split, k_fold, leave_one_group_out

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Protocol:
    """Splits, head, baselines and bootstrap of an evaluation.

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
    head
        What is fitted on a representation; ``None`` takes the head of the task. A ``head=`` that is passed to a task
        goes first.
    head_options
        Numbers, texts or tuples of them that the head is built with, as of :func:`probe`.
    axis
        ``"fold"`` averages scores over test folds and ``"pooled"`` scores all samples together; ``None`` averages
        where every fold defines every score.
    assumed
        What of the above is a guess, since the source that the protocol follows does not tell.
    caveat
        What its numbers must not be taken for; it is logged and kept beside each result.
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
    head: str | None = None
    head_options: Mapping[str, Any] = field(default_factory=dict)
    axis: Literal["fold", "pooled"] | None = None
    assumed: tuple[str, ...] = ()
    caveat: str = ""

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
            f'axis is {self.axis!r}; use "fold", "pooled" or None': self.axis not in ("fold", "pooled", None),
            f"head_options is {self.head_options!r}; use a mapping of names to numbers, texts or tuples of them, such "
            "as {'n_components': 50}": not _plain(self.head_options),
            f"assumed is {self.assumed!r}; use a tuple of sentences": not isinstance(self.assumed, tuple | list),
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

    def resolve_head(self, head: str | None = None, default: str = "linear") -> tuple[str, dict[str, Any]]:
        """Choose between the head that a caller names, that of the protocol and a default.

        Parameters
        ----------
        head
            What the caller names; goes first.
        default
            Taken where neither names one.

        Returns
        -------
        The head, and the options that are meant for it: those of the protocol, unless they belong to another head.
        """
        chosen = head or self.head or default
        return chosen, dict(self.head_options) if chosen == (self.head or default) else {}

    def params(self) -> dict[str, Any]:
        """Return the fields as plain values that ``uns`` can hold; what is ``None`` or empty is left out.

        Returns
        -------
        Field names and values.
        """
        found = {name: value for name, value in asdict(self).items() if value is not None and value not in ((), {}, "")}
        if "head_options" in found:
            found["head_options"] = {name: _listed(value) for name, value in found["head_options"].items()}
        return {name: _listed(value) for name, value in found.items()}


def _plain(options: Any) -> bool:
    """Say whether these are names of numbers, texts or tuples of them, which a file can hold."""
    if not isinstance(options, Mapping):
        return False
    flat = [part for value in options.values() for part in (value if isinstance(value, tuple | list) else [value])]
    return all(isinstance(name, str) for name in options) and all(isinstance(v, str | int | float) for v in flat)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
