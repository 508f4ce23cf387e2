"""What an encoder is to be adapted to, read from columns of ``obs`` and ``var`` before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.metrics._check import as_labels
from bulkformer_tl.tl._patients import Patients, read_patients
from bulkformer_tl.tl._samples import _read_target
from bulkformer_tl.train import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol
    from bulkformer_tl.tl._input import ModelInput

#: What may be said of a target, by kind.
FORMS = (
    "'class' or 'regression' (a column of obs of that name), ('survival', time, event) with columns of obs, 'genes' (a "
    "column of var of that name), or ('genes', family) with a column of var that keeps genes together"
)


@dataclass(frozen=True, eq=False)
class Asked:
    """One target.

    Parameters
    ----------
    name
        What results are called.
    target
        For training.
    labelled
        Whether each sample, or gene of the model, has a value.
    patients
        Outcomes of survival.
    columns
        Columns that it comes from.
    """

    name: str
    target: Target
    labelled: NDArray[np.bool_]
    patients: Patients | None = None
    columns: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``"class"``, ``"regression"``, ``"survival"`` or ``"genes"``."""
        return self.target.kind

    @property
    def codes(self) -> NDArray[Any]:
        """Codes of classes, -1 where not known, numbers or times, (N,)."""
        values = self.target.values
        if self.kind == "class":
            return np.where(self.labelled, np.nan_to_num(values), -1).astype(np.intp)
        return values if values.ndim == 1 else values[:, 0]

    @property
    def classes(self) -> NDArray[Any]:
        """Labels that codes stand for; empty for numbers and outcomes."""
        return np.array(self.target.classes)


def read_targets(
    adata: AnnData, targets: Mapping[str, Any], given: ModelInput, *, groups: str | None, protocol: Protocol
) -> list[Asked]:
    """Read every target.

    Raises
    ------
    KeyError
        If a column is not there.
    TypeError
        If numbers are asked for and the column holds something else.
    ValueError
        If a target is not described as :data:`FORMS` says, is constant, or shows no event.
    """
    if not hasattr(targets, "items") or not targets:
        message = f"targets is {targets!r}; pass a mapping of names to {FORMS}"
        raise ValueError(message)
    return [_read(adata, name, form, given, groups=groups, protocol=protocol) for name, form in targets.items()]


def _read(adata: AnnData, name: str, form: Any, given: ModelInput, *, groups: str | None, protocol: Protocol) -> Asked:
    kind, *columns = (form,) if isinstance(form, str) else tuple(form)
    wanted = {"class": (0,), "regression": (0,), "survival": (2,), "genes": (0, 1)}.get(kind, ())
    if len(columns) not in wanted:
        message = f"target {name!r} is described by {form!r}; use {FORMS}"
        raise ValueError(message)
    if kind == "genes":
        return _read_genes(adata, name, given, columns)
    if kind == "survival":
        patients = read_patients(
            adata, columns[0], event=columns[1], strata=None, groups=groups, protocol=protocol, reference=None
        )
        target = Target.of_survival(patients.time, patients.event)
        return Asked(name, target, target.known, patients, tuple(columns))
    codes, classes, labelled = _read_target([adata], name, "classification" if kind == "class" else "regression")
    values = np.where(labelled, codes, np.nan)
    return Asked(name, Target(kind, values, tuple(classes.tolist())), labelled, None, (name,))


def _read_genes(adata: AnnData, name: str, given: ModelInput, columns: list[str]) -> Asked:
    for column in (name, *columns):
        if column not in adata.var:
            message = f"adata.var has no column {column!r}; its columns are {adata.var.columns.tolist()}"
            raise KeyError(message)
    labels: NDArray[Any] = adata.var[name].astype(object).to_numpy()[given.match.columns]
    labels[~given.match.found] = None
    target = Target.of_genes(labels)
    return Asked(name, target, target.known, None, (name, *columns))


def read_groups(adata: AnnData, groups: str | None, labelled: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Code the groups of samples; each is its own where there are none.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If a labelled sample has no group.
    """
    from bulkformer_tl.tl._samples import _read_groups

    if groups is None:
        return np.arange(adata.n_obs)
    return as_labels(_read_groups([adata], groups, labelled), "groups")[0]
