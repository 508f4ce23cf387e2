"""Keep the head that was fitted to all training samples, and predict unlabelled samples by what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulkformer_tl._kept_files import as_entry
from bulkformer_tl.tl._extract import KEPT, extract
from bulkformer_tl.tl._heads import Head

if TYPE_CHECKING:
    from bulkformer_tl.tl._judge import Verdict


def keep_head(verdict: Verdict) -> dict[str, Any]:
    """Return ``{"head": ...}`` for ``uns``, empty if such a head is not kept.

    Parameters
    ----------
    verdict
        What judging found. Its predictions of samples that the final head was not fitted to are replaced by those of
        the head that is kept, so that a head that is read back predicts the same bits.
    """
    params, samples = verdict.params, verdict.samples
    if params["head"] not in KEPT:
        return {}
    found = verdict.predictions[verdict.name]
    kind, link, arrays = extract(found.model)
    facts = {
        "task": samples.task,
        "label": params["label"],
        "kind": kind,
        "link": link,
        "use_rep": params["use_rep"],
        "checksum": params["checksum"],
        "classes": samples.classes.tolist(),
        "genes": [] if params["use_rep"] else samples.genes,
        "calibration": found.calibration[-1],
    }
    head = Head(facts, arrays)
    rest = verdict.plan.final.test
    if len(rest):
        found.predicted[rest] = head.predict_array(samples.representation[rest])
    return {"head": as_entry(head)}
