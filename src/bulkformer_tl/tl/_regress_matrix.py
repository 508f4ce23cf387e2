"""Regression of a matrix, such as proteins from RNA: all columns at once, scored column by column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, check_slots, copied, write_results
from bulkformer_tl._kept_files import as_entry
from bulkformer_tl._progress import Progress
from bulkformer_tl.metrics import Split, inner_folds
from bulkformer_tl.metrics._fit import _choose
from bulkformer_tl.metrics._heads import grid_of
from bulkformer_tl.metrics._matrix import compare_matrices, draw_weights
from bulkformer_tl.tl._extract import KEPT
from bulkformer_tl.tl._judge import _better, fingerprint, merged, prepare, report_score
from bulkformer_tl.tl._matrix_head import TASK, Part, make_matrix_head
from bulkformer_tl.tl._matrix_target import matrix_columns
from bulkformer_tl.tl._probe import Predictions, _rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._keys import RegressKeys
    from bulkformer_tl.tl._judge import Verdict
    from bulkformer_tl.tl._probe import Candidate, Plan

    Numbers = NDArray[np.float64]

#: What scores within columns and within samples are called.
AXES = ("per_column", "per_sample")


def is_matrix(adata: AnnData, target: str, reference: AnnData | None) -> bool:
    """Say whether the target is a matrix of ``obsm``.

    Raises
    ------
    TypeError
        If ``adata`` or the reference is no AnnData.
    ValueError
        If it names a column of ``obs`` as well.
    """
    for part in (adata, adata if reference is None else reference):
        check_anndata(part)
    # labels to learn from are those of the reference, where there is one
    known = adata if reference is None else reference
    if target in known.obsm and target in known.obs:
        message = f"{target!r} names a column of obs and a matrix of obsm; rename one of them"
        raise ValueError(message)
    return target in known.obsm


def regress_matrix(adata: AnnData, target: str, keys: RegressKeys, *, copy: bool, **options: Any) -> AnnData | None:
    """Predict all columns of a matrix; parameters and results as of :func:`bulkformer_tl.tl.regress`."""
    check_slots(adata, keys.key, [keys.matrix, keys.outlier])
    verdict, found = prepare(adata, target, task="matrix", **options)
    reference = options["reference"]
    names = matrix_columns(adata if reference is None else reference, target)
    extra = _keep(verdict, _predict_all(verdict, found), names)
    values = verdict.predictions[verdict.name].predicted[verdict.own]
    results = {
        keys.matrix: pd.DataFrame(values, index=adata.obs_names, columns=names),
        keys.outlier: verdict.outlier[verdict.own],
    }
    params = {**verdict.params, "task": TASK, "n_columns": len(names)}
    if verdict.tested.any():
        tables, mark = _tables(adata, keys.key, verdict, names)
        params |= {"axis": AXES[0], "fingerprint": mark}
        extra |= tables
    written = copied(adata) if copy else adata
    write_results(written, keys.key, results, params, extra)
    return written if copy else None


def _predict_all(verdict: Verdict, found: dict[str, Candidate]) -> list[Part]:
    """Fit every candidate in every split, and return the fit of the representation to all training samples."""
    plan, target = verdict.plan, verdict.samples.target
    jobs = [(position, split, name) for position, split in enumerate(plan.scored) for name in found]
    if plan.final is not plan.scored[-1]:
        jobs.append((len(plan.scored), plan.final, verdict.name))
    for name in found:
        verdict.predictions[name] = Predictions(np.full(target.shape, np.nan), np.full(len(target), np.nan))
    parts: list[Part] = []
    with Progress(len(jobs), "regression") as progress:
        for position, split, name in jobs:
            fitted = [_fit(plan, found[name], part, columns, position) for columns, part in _by_missing(target, split)]
            for part in fitted:
                _fill(verdict.predictions[name].predicted, found[name], part, split.test)
            if split is plan.final and name == verdict.name:
                parts = fitted
            progress.update(1)
    return parts


def _keep(verdict: Verdict, parts: list[Part], names: list[str]) -> dict[str, Any]:
    """Return ``{"head": ...}`` for ``uns``, empty if such a head is not kept; see ``keep_head``."""
    if verdict.params["head"] not in KEPT:
        return {}
    head = make_matrix_head(parts, names, verdict.params, verdict.samples.genes)
    rest = verdict.plan.final.test
    if len(rest):
        columns = np.sort(np.concatenate([part.columns for part in parts]))
        found = head.predict_array(verdict.samples.representation[rest])
        verdict.predictions[verdict.name].predicted[np.ix_(rest, columns)] = found
    return {"head": as_entry(head)}


def _fill(into: Numbers, candidate: Candidate, part: Part, rows: NDArray[np.intp]) -> None:
    """Predict some samples by a fitted part."""
    if len(rows):
        found = np.asarray(part.model.predict(_rows(candidate.matrix, rows)), dtype=np.float64)
        into[np.ix_(rows, part.columns)] = found.reshape(len(rows), -1) * part.spread + part.level


def _by_missing(target: Numbers, split: Split) -> Iterator[tuple[NDArray[np.intp], Split]]:
    """Yield columns that are known of the same training samples, and the split without the others."""
    known = ~np.isnan(target[split.train])
    _, which = np.unique(known, axis=1, return_inverse=True)
    for pattern in range(which.max() + 1):
        columns = np.flatnonzero(which.ravel() == pattern)
        train = split.train[known[:, columns[0]]]
        if len(train) > 1:
            yield columns, Split(train, split.test, split.name)


def _fit(plan: Plan, candidate: Candidate, split: Split, columns: NDArray[np.intp], position: int) -> Part:
    """Fit to columns that are standardised on the training samples."""
    seen = plan.samples.target[np.ix_(split.train, columns)]
    level, spread = seen.mean(axis=0), seen.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    scaled = np.zeros((len(plan.samples.target), len(columns)))
    scaled[split.train] = (seen - level) / spread
    if len(columns) == 1:
        # estimators of one number take a vector
        scaled = scaled[:, 0]
    inner = _inner(plan, candidate, split, position)
    smallest = min(len(part.train) for part in (split, *inner))
    model = candidate.make((smallest, candidate.matrix.shape[1]))
    if inner:
        grid = grid_of(candidate.head, "regression")
        model[-1].set_params(**_choose(model, candidate.matrix, scaled, inner, grid))
    model.fit(_rows(candidate.matrix, split.train), scaled[split.train])
    return Part(columns, model, level, spread)


def _inner(plan: Plan, candidate: Candidate, split: Split, position: int) -> list[Split]:
    n, grid = plan.protocol.n_inner, grid_of(candidate.head, "regression")
    if not n or not grid:
        return []
    try:
        return inner_folds(split, n_splits=n, groups=plan.groups, rng=plan.protocol.rng + position)
    except ValueError:
        # too few samples or groups know this column
        return []


def _tables(adata: AnnData, key: str, verdict: Verdict, names: list[str]) -> tuple[dict[str, pd.DataFrame], str]:
    """Score standardised columns, and put the rows beside those of an earlier run on the same samples."""
    plan, protocol, tested = verdict.plan, verdict.plan.protocol, verdict.tested
    truth = verdict.samples.target[tested]
    mean, sd = np.nanmean(truth, axis=0), np.nanstd(truth, axis=0)
    sd = np.where(sd > 0, sd, 1.0)
    predicted = {name: found.predicted[tested] for name, found in verdict.predictions.items()}
    scored = ~np.isnan(truth) & ~np.isnan(predicted[verdict.name])
    groups = np.arange(len(truth)) if plan.groups is None else plan.groups[tested]
    scores, differences, units = compare_matrices(
        (truth - mean) / sd,
        {name: (found - mean) / sd for name, found in predicted.items()},
        folds=np.where(scored, plan.folds[tested][:, None], -1),
        weights=draw_weights(groups, np.arange(len(names)), protocol, which=("rows",)),
        axes=AXES,
        classes=False,
        baselines=verdict.baselines,
        level=protocol.level,
    )
    differences["better"] = _better(differences)
    table = units[AXES[0]]
    table.insert(1, "column", np.array(names, dtype=object)[table.pop("unit").to_numpy()])
    mark = fingerprint(verdict, columns=names)
    tables = merged(adata, key, mark, scores, differences, **{AXES[0]: table})
    report_score(key, verdict.name, "pearson", scores, differences)
    return tables, mark
