"""What an encoder is adapted to tell: labels of samples or of genes, where they are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl.metrics._check import as_labels, as_numbers, refuse_one_class, to_float
from bulkformer_tl.train._check import refuse_unless

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from numpy.typing import ArrayLike, NDArray

    Numbers = NDArray[np.float64]

Kind = Literal["class", "regression", "survival", "genes"]


@dataclass(frozen=True, eq=False)
class Target:
    """One thing to predict; made by ``of_classes``, ``of_numbers``, ``of_survival`` or ``of_genes``.

    Parameters
    ----------
    kind
        ``"class"``, ``"regression"``, ``"survival"`` or ``"genes"``.
    values
        Codes of classes or numbers of the N samples, (N,), time and event, (N, 2), or codes of classes of the G genes
        of the model, (G,); ``NaN`` where not known, which is no part of the loss.
    classes
        Sorted labels that codes stand for.
    """

    kind: Kind
    values: Numbers
    classes: tuple[Any, ...] = ()

    @classmethod
    def of_classes(cls, labels: ArrayLike) -> Self:
        """Make a target of the classes of samples.

        Parameters
        ----------
        labels
            Shape (N,); ``None``, ``NaN`` or an empty text where not known.

        Returns
        -------
        The target.

        Raises
        ------
        ValueError
            If there is only one class.
        """
        return cls("class", *_coded(labels, "labels"))

    @classmethod
    def of_numbers(cls, numbers: ArrayLike) -> Self:
        """Make a target of numbers of samples.

        Parameters
        ----------
        numbers
            Shape (N,); ``NaN`` where not known.

        Returns
        -------
        The target.

        Raises
        ------
        ValueError
            If they are constant or infinite.
        TypeError
            If they are no numbers.
        """
        given = np.asarray(numbers, dtype=object)
        values = to_float(np.where(pd.isna(given), np.nan, given), "numbers")
        known = as_numbers(values[~np.isnan(values)], "numbers")
        refuse_unless(
            bool(np.ptp(known) > 0), f"the numbers are constant ({known[0]:.6g}); there is nothing to predict"
        )
        return cls("regression", values)

    @classmethod
    def of_survival(cls, time: ArrayLike, event: ArrayLike) -> Self:
        """Make a target of times until an event or censoring.

        Parameters
        ----------
        time
            Above 0, (N,); ``NaN`` where not known.
        event
            Whether the event happened, 1 or 0, (N,); ``NaN`` where not known.

        Returns
        -------
        The target.

        Raises
        ------
        ValueError
            If no event happened, a time is not above 0, or an event is neither 0 nor 1.
        """
        values = np.column_stack([np.asarray(time, dtype=np.float64), np.asarray(event, dtype=np.float64)])
        values[np.isnan(values).any(axis=1)] = np.nan
        known = values[~np.isnan(values[:, 0])]
        refuse_unless(bool(np.isin(known[:, 1], [0, 1]).all()), "events are 1 (or True) and 0 (or False)")
        refuse_unless(bool((known[:, 0] > 0).all()), "times run from above 0")
        refuse_unless(bool(known[:, 1].any()), "no event happened; all samples are censored")
        return cls("survival", values)

    @classmethod
    def of_genes(cls, labels: ArrayLike) -> Self:
        """Make a target of the classes of genes.

        Parameters
        ----------
        labels
            In the order of ``model.vocabulary``, (G,); ``None``, ``NaN`` or an empty text where not known.

        Returns
        -------
        The target.

        Raises
        ------
        ValueError
            If there is only one class.
        """
        return cls("genes", *_coded(labels, "labels of genes"))

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether each sample, or gene, has a value."""
        first: Numbers = self.values if self.values.ndim == 1 else self.values[:, 0]
        known: NDArray[np.bool_] = ~np.isnan(first)
        return known

    def only(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Target:
        """Return the target known at some rows alone.

        Parameters
        ----------
        rows
            Samples, or genes, that keep their values.

        Returns
        -------
        A target of the same shape.
        """
        kept = np.full_like(self.values, np.nan)
        kept[rows] = self.values[rows]
        return Target(self.kind, kept, self.classes)


def _coded(labels: ArrayLike, name: str) -> tuple[Numbers, tuple[Any, ...]]:
    found = np.asarray(labels, dtype=object)
    known = ~(pd.isna(found) | (found == ""))
    refuse_unless(bool(known.any()), f"{name} are missing everywhere; nothing can be learnt from them")
    codes, classes = as_labels(np.array(found[known].tolist()), name)
    refuse_one_class(classes, name)
    values = np.full(len(found), np.nan)
    values[known] = codes
    return values, tuple(classes.tolist())


def check_targets(targets: Mapping[str, Target], n_samples: int, n_genes: int) -> None:
    """Refuse targets that do not fit the samples and genes, or of which nothing can be learnt.

    Parameters
    ----------
    targets
        By name.
    n_samples
        Number of samples N.
    n_genes
        Number of genes G of the model.

    Raises
    ------
    ValueError
        If there is none, a length differs, or a target is known nowhere.
    """
    refuse_unless(bool(targets), "there is no target; pass {name: bf.train.Target.of_classes(labels)}, for example")
    for name, target in targets.items():
        wanted = n_genes if target.kind == "genes" else n_samples
        what = "genes" if target.kind == "genes" else "samples"
        refuse_unless(
            len(target.values) == wanted, f"target {name!r} has {len(target.values)} values for {wanted} {what}"
        )


def check_trainable(name: str, target: Target) -> None:
    """Refuse a target of which the training samples show one class, one number or no event."""
    values = target.values[target.known]  # noqa: PD011  no data frame
    refuse_unless(len(values) > 0, f"no training sample has a value of {name!r}; add labelled ones or leave it out")
    if target.kind in {"class", "genes"}:
        absent = [str(target.classes[code]) for code in range(len(target.classes)) if code not in values]
        refuse_unless(
            not absent,
            f"no training {'gene' if target.kind == 'genes' else 'sample'} is of the classes {absent} of {name!r}, so "
            "that they cannot be learnt; leave these classes out, or merge them",
        )
    elif target.kind == "regression":
        refuse_unless(bool(np.ptp(values) > 0), f"{name!r} is constant ({values[0]:.6g}) among the training samples")
    else:
        refuse_unless(bool(values[:, 1].any()), f"no event of {name!r} happened among the training samples")


def check_stoppable(name: str, target: Target) -> None:
    """Refuse a target of which the samples to stop by say nothing: its loss would be 0 whatever is predicted."""
    values = target.values[target.known]  # noqa: PD011  no data frame
    refuse_unless(
        len(values) > 0,
        f"none of the samples to stop by has a value of {name!r}; leave labelled ones out, or pass finer groups",
    )
    if target.kind == "survival":
        # an event tells something where another sample is still at risk
        at_risk = [(values[:, 0] >= time).sum() for time, event in values if event]
        refuse_unless(
            max(at_risk, default=0) > 1,
            f"no event of {name!r} happened, while another one was at risk, among the samples to stop by; leave more "
            "events out, or pass finer groups",
        )
