"""Judge a representation by the risk that it predicts, beside baselines."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._kept_files import as_entry
from bulkformer_tl.metrics import evaluation_times
from bulkformer_tl.metrics._baselines import DEFAULT
from bulkformer_tl.tl._extract import extract
from bulkformer_tl.tl._heads import Head
from bulkformer_tl.tl._judge import hash_run, plan_params
from bulkformer_tl.tl._patients import followed_samples
from bulkformer_tl.tl._probe import Candidate, Plan, make_plan
from bulkformer_tl.tl._prognosis import Prognosis, covariate_model, prognose, survival_probe
from bulkformer_tl.tl._samples import EXPRESSION
from bulkformer_tl.tl._survival_tables import tabulate_survival
from bulkformer_tl.tl._untrained import UNTRAINED, untrained_embedding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol
    from bulkformer_tl.tl._patients import Patients
    from bulkformer_tl.tl._samples import Samples

logger = logging.getLogger(__name__)

HEADS = ("cox", "mlp")
COVARIATES = "covariates"


@dataclass(eq=False)
class Course:
    """What judging found of the samples, those of a reference first.

    Parameters
    ----------
    name
        What the representation is called in the tables.
    plan
        How samples are split.
    risk
        Of each sample that a head was not fitted to, shape (N,).
    high
        Whether it is in the high risk group, shape (N,).
    params
        How it was done, plain values.
    head
        The fitted head as an entry of ``uns``, or empty.
    scores, differences
        Tables; empty if no outcome is there to score.
    fingerprint
        Hash of what has to agree before rows of two runs may stand in one table.
    """

    name: str
    plan: Plan
    risk: NDArray[np.float64]
    high: NDArray[np.bool_]
    params: dict[str, Any]
    head: dict[str, Any]
    fingerprint: str
    scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    differences: pd.DataFrame = field(default_factory=pd.DataFrame)


def judge_survival(
    adata: AnnData,
    time: str,
    patients: Patients,
    *,
    event: str,
    strata: str | None,
    use_rep: str | None,
    layer: str | None,
    groups: str | None,
    covariates: Sequence[str] | None,
    head: str,
    protocol: Protocol,
    reference: AnnData | None,
) -> Course:
    """Split the samples, and predict the risk of each by heads that were not fitted to it.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the input does not allow it; before anything is fitted.
    """
    readable = layer is not None or getattr(adata, "X", None) is not None
    baselines = resolve_baselines(protocol, covariates, strata=strata, readable=readable)
    read: dict[str, Any] = {"use_rep": use_rep, "layer": layer, "groups": groups, "covariates": covariates}
    expression = bool({"raw", "pca"} & set(baselines)) or (readable and protocol.duplicates is not None)
    samples = followed_samples(
        adata, time, patients, **read, protocol=protocol, reference=reference, expression=expression
    )
    _, options = protocol.resolve_head(head, HEADS[0])
    maker = partial(survival_probe, head, rng=protocol.rng, options=options)
    # unknown options are refused before anything is fitted
    maker(shape=(1, 1))
    plan = make_plan(samples, protocol)
    baselines = [*baselines, *(block.name for block in samples.blocks)]
    extra = {}
    if UNTRAINED in baselines:
        parts = [adata] if reference is None else [reference, adata]
        extra = {UNTRAINED: untrained_embedding(parts, use_rep, rng=protocol.rng)}
    name = EXPRESSION if use_rep is None else use_rep
    name = name if head == HEADS[0] else f"{name} ({head})"
    found = _candidates(samples, name, head=head, maker=maker, baselines=baselines, extra=extra)
    joint = f"{name} + {COVARIATES}" if COVARIATES in baselines else ""
    params = plan_params(adata, plan, label=time, **read)
    params |= {"task": "survival", "event": event, "strata": strata or "", "representation": name, "head": head}
    tested = plan.folds >= 0
    scored = tested if (tested & patients.event).any() else ~np.isnan(patients.time)
    times = evaluation_times(patients.time[scored], patients.event[scored])
    params |= {"baselines": baselines, "times": times}
    results = prognose(plan, patients, found, name, times, joint=joint)
    kept = _keep(results[name], plan, patients, params)
    digest = hashlib.sha256(np.ascontiguousarray(patients.outcome).tobytes()).hexdigest()
    mark = hash_run(plan, params, event=event, strata=strata or "", outcome=digest)
    params["calibration"] = f"slopes from inner folds: {', '.join(f'{x:.3g}' for x in results[name].slopes)}"
    course = Course(name, plan, results[name].risk, results[name].high, params, kept, mark)
    if (tested & patients.event).any():
        course.scores, course.differences = tabulate_survival(plan, patients, results, times, baselines)
    return course


def resolve_baselines(
    protocol: Protocol, covariates: Sequence[str] | None, *, strata: str | None, readable: bool
) -> list[str]:
    """List the baselines that the protocol names, or those that the data allow.

    Raises
    ------
    ValueError
        If one is unknown or lacks what it reads.
    """
    trivial = "constant" if strata is None else "strata"
    if protocol.baselines is None:
        return [trivial, *(DEFAULT if readable else ()), *([COVARIATES] if covariates is not None else [])]
    known = [trivial, *DEFAULT, COVARIATES, UNTRAINED]
    for name in protocol.baselines:
        if name not in known:
            message = f"there is no baseline {name!r} for survival; choose among {known}"
            raise ValueError(message)
    if COVARIATES in protocol.baselines and covariates is None:
        message = "the baseline 'covariates' needs covariates=, a list of columns of adata.obs"
        raise ValueError(message)
    return list(protocol.baselines)


def _candidates(
    samples: Samples, name: str, *, head: str, maker: Any, baselines: list[str], extra: dict[str, Any]
) -> dict[str, Candidate]:
    """List what is judged; baselines on expression and covariates are linear whatever the head."""
    expression = samples.values  # noqa: PD011  # no data frame
    first = maker if samples.representation is not expression else partial(maker, scale="each", whole=True)
    if samples.blocks:
        widths = tuple((block.columns.stop - block.columns.start, block.scale) for block in samples.blocks)
        first = partial(maker, scale=widths)
    found = {name: _candidate(samples.representation, first, head)}
    for block in samples.blocks:
        found[block.name] = _candidate(
            samples.representation[:, block.columns], partial(maker, scale=block.scale), head
        )
    linear = partial(survival_probe, HEADS[0], scale="each")
    constant = Candidate(np.zeros((len(samples.target), 1)), None, "", trivial=True)  # type: ignore[arg-type]
    for other in baselines:
        if other in extra:
            found[other] = _candidate(extra[other], maker, head)
        elif other == "raw":
            ridge = partial(linear, whole=True, options={"l1_ratio": 0.0})
            found[other] = _candidate(expression, ridge, HEADS[0])
        elif other == "pca":
            found[other] = _candidate(expression, linear, HEADS[0])
        elif other == COVARIATES:
            found[other] = Candidate(samples.covariates, covariate_model, HEADS[0])
        elif other not in found:
            found[other] = constant
    return found


def _candidate(matrix: Any, maker: Any, head: str) -> Candidate:
    def make(shape: tuple[int, int]) -> Any:
        return maker(shape=shape)

    return Candidate(matrix, make, head)


def _keep(found: Prognosis, plan: Plan, patients: Patients, params: dict[str, Any]) -> dict[str, Any]:
    """Return the head that was fitted to all training samples, and predict the others by what is kept."""
    kind, link, arrays = extract(found.model)
    facts = {
        "task": "survival",
        "label": params["label"],
        "kind": kind,
        "link": link,
        "use_rep": params["use_rep"],
        "checksum": params["checksum"],
        "classes": [],
        "genes": [] if params["use_rep"] else plan.samples.genes,
        "calibration": found.slopes[-1],
        "strata": params["strata"],
        "levels": patients.strata,
    }
    head = Head(facts, {**arrays, "offset": found.offsets, "median": found.medians})
    rest = plan.final.test
    if len(rest):
        log_hazard = head.predict_array(plan.samples.representation[rest])
        found.risk[rest], found.high[rest] = head.place(log_hazard, patients.codes[rest])
    return {"head": as_entry(head)}
