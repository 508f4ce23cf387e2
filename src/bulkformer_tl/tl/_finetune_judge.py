"""Judge an adapted encoder beside the frozen one and simple baselines: the same folds for all targets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.metrics import Split, evaluation_times, probe
from bulkformer_tl.metrics._temperature import fit_temperature, sharpen
from bulkformer_tl.tl._judge import Verdict, resolve_baselines, tabulate
from bulkformer_tl.tl._judge_survival import _candidates as survival_candidates
from bulkformer_tl.tl._judge_survival import resolve_baselines as survival_baselines
from bulkformer_tl.tl._probe import Plan, Predictions, candidates, make_plan, predict_all
from bulkformer_tl.tl._prognosis import Fit, Prognosis, _settle, prognose, survival_probe
from bulkformer_tl.tl._samples import Samples
from bulkformer_tl.tl._survival_tables import tabulate_survival
from bulkformer_tl.tl._untrained import UNTRAINED

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol
    from bulkformer_tl.tl._finetune_targets import Asked

    #: By name of the target, what heads say of samples (or genes).
    Outputs = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Said:
    """What the encoder that was adapted in one split says.

    Parameters
    ----------
    train, held
        Samples that it was trained on, and those that it was stopped by.
    outputs
        Of the test samples of the split.
    inner
        Of the samples that it was stopped by.
    """

    train: NDArray[np.intp]
    held: NDArray[np.intp]
    outputs: Outputs
    inner: Outputs


def shared_plan(
    asked: Sequence[Asked],
    frozen: NDArray[np.float32],
    values: NDArray[np.float32] | None,
    groups: NDArray[np.intp] | None,
    *,
    genes: list[str],
    protocol: Protocol,
) -> Plan:
    """Split the samples that have a value of some target, once for all targets.

    Folds spread the classes, or events, of the first target evenly where all those samples have one.

    Raises
    ------
    ValueError
        If the samples cannot be split so, or a fold would hold all of a class or all events.
    """
    of_samples = [one for one in asked if one.kind != "genes"]
    n = len(frozen)
    union = np.any([one.labelled for one in of_samples], axis=0) if of_samples else np.ones(n, dtype=bool)
    first = next((one for one in of_samples if one.kind in {"class", "survival"}), None)
    target, classes, spread = np.zeros(n), np.array([]), None
    if first is not None and first.labelled[union].all():
        if first.patients is None:
            target, classes = first.codes, first.classes
        elif np.bincount(first.patients.event[union].astype(np.intp), minlength=2).min() >= protocol.n_splits:
            spread = first.patients.event.astype(np.intp)
    samples = Samples(target, classes, union, frozen, values, None, groups, 0, genes, spread=spread)
    plan = make_plan(samples, protocol)
    for one in of_samples:
        for split in plan.scored:
            _check_fold(one, split)
    return plan


def _check_fold(one: Asked, split: Split) -> None:
    train = split.train[one.labelled[split.train]]
    if one.kind == "class":
        absent = [str(name) for code, name in enumerate(one.classes) if code not in one.codes[train]]
        if absent:
            message = (
                f"{split.name} holds every sample of the classes {absent} of {one.name!r}, so that nothing would be "
                "trained on them; lower n_splits, leave these classes out, or pass coarser groups"
            )
            raise ValueError(message)
    events = one.patients is None or one.patients.event[train].any()
    if not len(train) or not events:
        what = "event" if len(train) else "value"
        message = f"{split.name} leaves no sample with an {what} of {one.name!r} to train on; lower n_splits"
        raise ValueError(message)


def own_plan(plan: Plan, one: Asked) -> Plan:
    """Return the shared splits for one target: trained on samples that have a value of it."""
    samples = replace(plan.samples, target=one.codes, classes=one.classes, labelled=one.labelled, spread=None)
    scored = [Split(s.train[one.labelled[s.train]], s.test, s.name) for s in plan.scored]
    final = Split(np.flatnonzero(one.labelled), plan.final.test, "unlabelled")
    return Plan(samples, plan.protocol, plan.groups, scored, final)


def judge_samples(
    plan: Plan, one: Asked, names: tuple[str, str], said: Sequence[Said]
) -> tuple[NDArray[np.float64], pd.DataFrame, pd.DataFrame, list[str]]:
    """Score classes or numbers.

    Parameters
    ----------
    plan
        Shared splits.
    one
        The target.
    names
        Of the adapted encoder and of the frozen one.
    said
        What the adapted encoders say, one per split and then that of all samples.

    Returns
    -------
    Predictions of all samples, scores, differences, and the names of the baselines.
    """
    protocol, own = plan.protocol, own_plan(plan, one)
    tuned, frozen = names
    task = own.samples.task
    given = resolve_baselines(protocol, task, None, readable=_readable(plan))
    refuse_untrained(given)
    maker = partial(probe, "linear", task=task, rng=protocol.rng, options={})
    found = candidates(own.samples, frozen, head="linear", maker=maker, baselines=given, extra={}, rng=protocol.rng)
    predictions = predict_all(own, found, frozen)
    n, k = len(one.codes), len(one.classes)
    ours = Predictions(np.full((n, k) if k else n, np.nan), np.full(n, np.nan))
    for split, part in zip([*plan.scored, plan.final], said, strict=True):
        outputs = part.outputs[one.name]
        if k:
            outputs = sharpen(outputs, temperature(one, part))
        ours.predicted[split.test] = outputs
    predictions[tuned] = ours
    baselines = [frozen, *given]
    verdict = Verdict(tuned, own, predictions, np.zeros(n, dtype=bool), baselines, {})
    return ours.predicted, *tabulate(verdict, {}), baselines


def temperature(one: Asked, part: Said) -> float:
    """Return the temperature that the samples choose by which an adapted encoder was stopped; 1 if none has a class."""
    known = one.labelled[part.held]
    if not known.any():
        return 1.0
    return fit_temperature(part.inner[one.name][known], one.codes[part.held[known]])


def judge_outcome(
    plan: Plan, one: Asked, names: tuple[str, str], said: Sequence[Said]
) -> tuple[NDArray[np.float64], pd.DataFrame, pd.DataFrame, list[str]]:
    """Score survival; parameters and results are those of :func:`judge_samples`."""
    patients: Any = one.patients
    tuned, frozen = names
    protocol, own = plan.protocol, own_plan(plan, one)
    given = survival_baselines(protocol, None, strata=None, readable=_readable(plan))
    refuse_untrained(given)
    maker = partial(survival_probe, "cox", rng=protocol.rng)
    found = survival_candidates(own.samples, frozen, head="cox", maker=maker, baselines=given, extra={})
    tested = own.folds >= 0
    times = evaluation_times(patients.time[tested], patients.event[tested])
    results = prognose(own, patients, found, frozen, times)
    n = len(patients.time)
    ours = Prognosis(np.full(n, np.nan), np.full((n, len(times)), np.nan), np.zeros(n, dtype=bool))
    for split, part in zip([*plan.scored, plan.final], said, strict=True):
        known = one.labelled[part.held]
        held = part.inner[one.name][known][:, None]
        test = part.outputs[one.name][:, None]
        if len(held) and patients.event[part.held[known]].any():
            # samples that it was stopped by say how much log hazards are to be shrunken, and how hazards run over time
            _settle(ours, patients, Split(part.held[known], split.test, split.name), Fit(held, held, test), times)
        else:
            rows = part.train[one.labelled[part.train]]
            nothing = np.zeros((len(rows), 1))
            _settle(ours, patients, Split(rows, split.test, split.name), Fit(nothing, nothing, test), times)
    results[tuned] = ours
    baselines = [frozen, *given]
    return ours.risk, *tabulate_survival(own, patients, results, times, baselines), baselines


def _readable(plan: Plan) -> bool:
    """Say whether there is expression for baselines."""
    return plan.samples.values is not None  # noqa: PD011  no data frame


def refuse_untrained(baselines: list[str]) -> None:
    """Refuse a baseline that stands for the encoder itself."""
    if UNTRAINED in baselines:
        message = f"there is no baseline {UNTRAINED!r} of an adapted encoder; the frozen one stands in its place"
        raise ValueError(message)
