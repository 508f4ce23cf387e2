"""Who is followed for how long: samples, outcome and strata of a survival task, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata
from bulkformer_tl.tl._columns import column
from bulkformer_tl.tl._outcome import Outcome, read_outcome
from bulkformer_tl.tl._samples import read_samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol
    from bulkformer_tl.tl._samples import Samples

#: Names of the two groups that the median of the training samples divides.
RISK_GROUPS = ("low", "high")


@dataclass(frozen=True, eq=False)
class Patients:
    """Outcome of the samples of a task; those of a reference come first.

    Parameters
    ----------
    outcome
        Time, event and code of the stratum, shape (N, 3); ``NaN`` in the first where the outcome is not known.
    strata
        Sorted names of the strata; one empty name if there is one stratum.
    """

    outcome: NDArray[np.float64]
    strata: list[str]

    @property
    def time(self) -> NDArray[np.float64]:
        """Until event or censoring, shape (N,)."""
        return self.outcome[:, 0]

    @property
    def event(self) -> NDArray[np.bool_]:
        """Whether the event happened, shape (N,)."""
        happened: NDArray[np.bool_] = self.outcome[:, 1] == 1
        return happened

    @property
    def codes(self) -> NDArray[np.intp]:
        """Codes of the strata, shape (N,)."""
        return self.outcome[:, 2].astype(np.intp)


def read_patients(
    adata: AnnData,
    time: str,
    *,
    event: str,
    strata: str | None,
    groups: str | None,
    protocol: Protocol,
    reference: AnnData | None,
) -> Patients:
    """Read outcome and strata of one AnnData, or of a reference and the AnnData to predict.

    Raises
    ------
    KeyError
        If a column is not there; the message lists those that are.
    TypeError
        If times or events are texts.
    ValueError
        If a time is not above 0, there is no event, a stratum has no event or one sample, or events or groups are too
        few for the folds; each message names the column.
    """
    parts = [adata] if reference is None else [reference, adata]
    for part in parts:
        check_anndata(part)
    found = [read_outcome(parts[0], time, event), *(_rest(part, time, event) for part in parts[1:])]
    known = np.concatenate([outcome.known for outcome in found])
    times = np.where(known, np.concatenate([outcome.time for outcome in found]), np.nan)
    events = known & np.concatenate([outcome.event for outcome in found])
    codes, names = _read_strata(parts, strata, found[0])
    if reference is None:
        _check_folds(adata, event, groups, found[0], protocol)
    return Patients(np.column_stack([times, events, codes]), names)


def _rest(adata: AnnData, time: str, event: str) -> Outcome:
    """Read the outcome of samples that are only predicted, which need not have one."""
    if all(name in adata.obs and adata.obs[name].notna().any() for name in (time, event)):
        return read_outcome(adata, time, event)
    return Outcome(np.full(adata.n_obs, np.nan), np.zeros(adata.n_obs, dtype=bool), np.zeros(adata.n_obs, dtype=bool))


def _read_strata(parts: list[AnnData], strata: str | None, trained: Outcome) -> tuple[NDArray[np.intp], list[str]]:
    if strata is None:
        return np.zeros(sum(part.n_obs for part in parts), dtype=np.intp), [""]
    found = [read_strata(part, strata) for part in parts]
    counted = pd.DataFrame({"stratum": found[0][trained.known], "event": trained.event[trained.known]})
    sizes = counted.groupby("stratum")["event"].agg(["size", "sum"])
    poor = sizes[(sizes["size"] < 2) | (sizes["sum"] < 1)]
    if len(poor):
        what = {str(name): f"{row['size']} samples, {int(row['sum'])} events" for name, row in poor.iterrows()}
        message = (
            f"adata.obs[{strata!r}] (strata) has strata with one sample or without an event: {what}; leave these "
            "samples out, or merge the strata"
        )
        raise ValueError(message)
    names = [str(name) for name in sizes.index]
    codes = pd.Index(names).get_indexer(pd.Index(np.concatenate(found)))
    unknown = sorted(set(np.concatenate(found)[codes < 0]))
    if unknown:
        message = (
            f"adata.obs[{strata!r}] (strata) holds {unknown}, of which no sample with a known outcome is trained on; "
            f"there are {names}. Leave these samples out, or merge the strata"
        )
        raise ValueError(message)
    return codes, names


def read_strata(adata: AnnData, strata: str) -> NDArray[Any]:
    """Return the stratum of each sample as text, or say how many lack one."""
    found = column(adata, strata, "strata")
    missing = (found.isna() | (found.astype(object) == "")).to_numpy(dtype=bool)
    if missing.any():
        message = (
            f"adata.obs[{strata!r}] (strata) is missing in {int(missing.sum())} samples, the first "
            f"{adata.obs_names[int(np.flatnonzero(missing)[0])]!r}; fill it in, or leave these samples out"
        )
        raise ValueError(message)
    return found.astype(str).to_numpy(dtype=object)


def _check_folds(adata: AnnData, event: str, groups: str | None, outcome: Outcome, protocol: Protocol) -> None:
    """Refuse folds that events or groups are too few for."""
    if protocol.scheme != "k_fold":
        return
    units = np.arange(adata.n_obs) if groups is None else pd.factorize(column(adata, groups, "groups"))[0]
    folds = protocol.n_splits
    available = len(np.unique(units[outcome.known]))
    if groups is not None and available < folds:
        message = (
            f"adata.obs[{groups!r}] (groups) holds {available} groups of samples with a known outcome, too few for "
            f"{folds} folds; pass protocol=bf.metrics.Protocol(n_splits={max(available, 2)}) or a finer column"
        )
        raise ValueError(message)
    happened = len(np.unique(units[outcome.event]))
    if happened < folds:
        what = "samples" if groups is None else f"groups of {groups!r}"
        message = (
            f"adata.obs[{event!r}] (event) holds events in {happened} {what}, too few for {folds} folds; pass "
            f"protocol=bf.metrics.Protocol(n_splits={max(happened, 2)}), or more samples"
        )
        raise ValueError(message)


def followed_samples(
    adata: AnnData,
    time: str,
    patients: Patients,
    *,
    use_rep: str | None,
    layer: str | None,
    groups: str | None,
    covariates: Sequence[str] | None,
    protocol: Protocol,
    reference: AnnData | None,
    expression: bool,
) -> Samples:
    """Read what the task needs beside the outcome; folds spread events evenly.

    Raises
    ------
    KeyError, TypeError, ValueError
        As :func:`bulkformer_tl.tl._samples.read_samples`.
    """
    samples = read_samples(
        adata,
        time,
        task="regression",
        use_rep=use_rep,
        layer=layer,
        groups=groups,
        covariates=covariates,
        reference=reference,
        expression=expression,
    )
    known = ~np.isnan(patients.time)
    events = patients.event.astype(np.intp)
    # of one kind of which there are fewer than folds each fold cannot have any
    enough = np.bincount(events[known], minlength=2).min() >= protocol.n_splits
    return replace(samples, target=patients.time, labelled=known, spread=events if enough else None)
