"""Alive or dead, as the BulkFormer paper judges prognosis: a classification that ignores when, and who was censored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.tl._judge import HEADS as CLASSIFIERS
from bulkformer_tl.tl._judge import fingerprint, judge, tabulate
from bulkformer_tl.tl._judge_survival import Course
from bulkformer_tl.tl._keep import keep_head

if TYPE_CHECKING:
    from anndata import AnnData

    from bulkformer_tl.metrics import Protocol

__all__ = ["CLASSIFIERS", "judge_alive"]


def judge_alive(
    adata: AnnData,
    event: str,
    *,
    time: str,
    strata: str | None,
    head: str,
    protocol: Protocol,
    **options: Any,
) -> Course:
    """Classify who is dead at the end of follow-up.

    Parameters
    ----------
    adata
        Annotated samples.
    event
        Column of ``obs`` with the classes.
    time, strata
        Columns of ``obs``; the classes know neither.
    head
        Classifier.
    protocol
        Its caveat is logged.
    **options
        As of :func:`bulkformer_tl.tl._judge.judge`.

    Returns
    -------
    Probabilities of being dead in place of risks, and groups by the median of those that are out of fold.
    """
    verdict = judge(adata, event, task="classification", head=head, protocol=protocol, **options)
    kept = keep_head(verdict)
    risk = verdict.predictions[verdict.name].predicted[:, 1]
    scored = verdict.tested if verdict.tested.any() else ~np.isnan(risk)
    high = risk > np.median(risk[scored])
    params = verdict.params | {
        "task": "survival",
        "label": time,
        "event": event,
        "strata": strata or "",
        "groups_by": "median of all out-of-fold probabilities, as in the paper",
    }
    course = Course(verdict.name, verdict.plan, risk, high, params, kept, fingerprint(verdict, time=time))
    if verdict.tested.any():
        course.scores, course.differences = tabulate(verdict, {})
    return course
