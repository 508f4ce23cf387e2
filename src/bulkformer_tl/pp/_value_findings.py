"""What a report says of values: units, missing and impossible entries, the platform, and the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bulkformer_tl.encodings._platform import recognise_platform
from bulkformer_tl.encodings._units import MARKER, recognise
from bulkformer_tl.pp import _calls
from bulkformer_tl.pp._matrices import UNIT_SAMPLES
from bulkformer_tl.pp._report import Finding

if TYPE_CHECKING:
    from bulkformer_tl.encodings._platform import Fingerprint
    from bulkformer_tl.pp._matrices import Matrix
    from bulkformer_tl.pp._report import Severity


def unit_finding(matrix: Matrix) -> Finding:
    unit = matrix.unit
    ask = f". Ask the data's author {unit.question}" if unit.question else ""
    severity: Severity = "warning" if unit.quantity == "unknown" and matrix.drawn.size else "note" if ask else "ok"
    return Finding("unit", matrix.where, f"{unit.name}: {unit.reason}{ask}", severity)


def value_findings(matrix: Matrix, samples: pd.Index, *, is_best: bool) -> list[Finding]:
    """Report missing, infinite and negative values, and empty samples."""
    values, where, layer = matrix.drawn, matrix.where, matrix.layer
    if not values.size:
        return []
    bad: Severity = "error" if is_best else "note"
    missing, infinite = np.isnan(values), np.isinf(values)
    marker = (values == MARKER) & ((values >= 0) | (values == MARKER) | missing).all()
    findings = []
    if missing.any():
        n_genes = int(missing.all(axis=0).sum())
        found = f"{missing.sum():,} entries are NaN ({missing.mean():.1%}; {n_genes:,} genes in all samples)"
        findings.append(Finding("missing", where, found, "note"))
    if infinite.any():
        call = _calls.set_missing(layer, "np.isinf({})", sparse=matrix.sparse) if where != "raw" else ""
        findings.append(Finding("infinite", where, f"{infinite.sum():,} entries are infinite", bad, call))
    if marker.any():
        call = _calls.set_missing(layer, "{} == -10", sparse=matrix.sparse) if where != "raw" else ""
        found = f"{marker.sum():,} entries are -10, the marker of missing genes in published files"
        findings.append(Finding("marker", where, found, bad, call))
    elif (values < 0).any() and matrix.unit.base is None:
        found = f"{(values < 0).sum():,} entries are negative, down to {values[~infinite & ~missing].min():.4g}"
        findings.append(Finding("negative", where, found, bad))
    empty = ~(np.isfinite(values) & (values != 0) & ~marker).any(axis=1)
    if empty.any():
        some = ", ".join(map(str, samples[empty][:5]))
        call = _calls.drop_samples(layer, sparse=matrix.sparse) if where != "raw" else ""
        found = f"{empty.sum():,} samples hold nothing but zeros or NaN ({some}{', ...' if empty.sum() > 5 else ''})"
        findings.append(Finding("empty samples", where, found, bad, call))
    return findings


def group_findings(matrix: Matrix, groups: pd.Series) -> list[Finding]:
    """Recognise the unit in every group by itself."""
    codes, labels = pd.factorize(groups)
    units = {
        str(label): recognise(matrix.drawn[codes == code][:UNIT_SAMPLES], matrix.genes).name
        for code, label in enumerate(labels)
        if matrix.drawn.size
    }
    where = f"{matrix.where} by obs[{groups.name!r}]"
    if len(set(units.values())) <= 1:
        return [Finding("units of groups", where, f"the same unit in all {len(units)} groups")]
    found = "units differ: " + ", ".join(f"{label}: {unit}" for label, unit in units.items())
    return [Finding("units of groups", where, f"{found}; convert each group by itself", "error")]


def platform_finding(matrix: Matrix) -> tuple[Finding, Fingerprint]:
    """Return how the values were measured."""
    found = recognise_platform(matrix.drawn, matrix.unit, matrix.genes)
    ask = f". Ask the data's author {found.question}" if found.question else ""
    text = f"{found.platform}: {found.reason}{_PLATFORMS[found.platform]}{ask}"
    severity: Severity = "warning" if found.platform in {"single-cell", "microarray"} else "note" if ask else "ok"
    return Finding("platform", matrix.where, text, severity), found


_PLATFORMS = {
    "bulk": "",
    "single-cell": "; models read bulk: sum the counts of many cells per sample and cell type first",
    "microarray": "; models read sequencing: intensities of arrays mean something else in any unit",
    "panel": "",
    "unknown": "",
}


def next_findings(matrix: Matrix, target: _calls.Target, *, named: bool) -> list[Finding]:
    """Return the step that leads to the model."""
    if matrix.unit.quantity == "unknown":
        return [Finding("next step", matrix.where, "no matrix has a unit that leads to TPM", "error")]
    if not named:
        return [Finding("next step", "var_names", "mend the gene names, then call diagnose again", "note")]
    calls = _calls.to_model(target)
    before = []
    if matrix.where == "raw" and target.layer == "raw":
        before = ['adata.layers["raw"] = adata.raw[:, adata.var_names].X']
    ready = calls[-1].startswith("bf.tl.")
    found = (
        "this is ln(TPM+1) over the vocabulary, what the model reads" if ready else f"{matrix.unit.name} to ln(TPM+1)"
    )
    return [Finding("next step", matrix.where, found, "ok", "; ".join([*before, *calls]))]


def top(matrix: Matrix) -> float:
    """Return the largest linear value."""
    finite = matrix.drawn[np.isfinite(matrix.drawn)]
    top = float(finite.max()) if finite.size else 0.0
    base = matrix.unit.base
    return top if base is None else float({"e": np.e, "2": 2.0, "10": 10.0}[base] ** top)
