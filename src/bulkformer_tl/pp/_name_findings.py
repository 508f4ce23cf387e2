"""What a report says of names: genes, samples, duplicates and coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bulkformer_tl import registry
from bulkformer_tl.pp import _calls
from bulkformer_tl.pp._recognise_names import count_dates, count_mouse, count_versions, find_mended_names
from bulkformer_tl.pp._report import Finding

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneVocabulary
    from bulkformer_tl.pp._matrices import Matrix
    from bulkformer_tl.pp._recognise_names import Names

#: Largest share of genes that the published models missed in training; for models that the registry does not know.
_TRAINED_MISSING = 0.15

_KINDS = {
    "ensembl": "Ensembl ids",
    "symbol": "gene symbols",
    "entrez": "Entrez ids",
    "transcript": "transcripts; sum them per gene first",
    "mouse": (
        "mouse genes; the model is human: map them to human one-to-one orthologues (Ensembl BioMart) first, and do not "
        "expect it to hold for mouse"
    ),
    "mouse symbol": (
        "gene symbols as mouse and rat write them; the model is human: map them to human one-to-one orthologues "
        "(Ensembl BioMart) first, capital letters alone confuse gene families"
    ),
    "lower case": "gene symbols in small letters: of zebrafish or frog, or human ones that lost their case; ask which",
    "other species": "genes of another species; the vocabulary is human",
    "other": "neither gene ids nor symbols",
}


def looked_at(adata: AnnData, n_rows: int, n_samples: int, *, transposed: bool) -> Finding:
    if transposed:
        found = f"{adata.n_obs:,} genes x {adata.n_vars:,} samples: genes are in the rows"
        return Finding("orientation", "obs_names", found, "error", "adata = adata.T")
    drawn = "" if n_rows == n_samples else f"; values of {n_rows} samples drawn at random were looked at"
    return Finding("orientation", "obs_names", f"{adata.n_obs:,} samples x {adata.n_vars:,} genes{drawn}")


def name_findings(adata: AnnData, names: pd.Index, described: Names, *, transposed: bool) -> list[Finding]:
    examples = ", ".join(map(str, names[:3]))
    found = f"{described.share:.0%} are {_KINDS[described.kind]} ({examples}, ...)"
    if described.identifiers is None:
        mended = "" if transposed else find_mended_names(names, adata.var)
        call = f"adata.var_names = {mended}" if mended else ""
        return [Finding("identifiers", "var_names", found, "error", call)]
    findings = [Finding("identifiers", "var_names", found, "ok" if described.kind == "ensembl" else "note")]
    n_versions, n_dates = count_versions(names), count_dates(names)
    if n_versions:
        found = f"{n_versions:,} ids carry a version, which is ignored when genes are matched"
        findings.append(Finding("versions", "var_names", found, "note"))
    n_mouse = count_mouse(names)
    if n_mouse:
        found = f"{n_mouse:,} ids are of mouse, as of a xenograft; they are ignored"
        findings.append(Finding("species", "var_names", found, "note"))
    if n_dates:
        found = f"{n_dates} symbols are dates, as a spreadsheet makes of MARCHF1 and SEPTIN2; these genes are lost"
        findings.append(Finding("dates", "var_names", found, "warning"))
    return findings


def sample_findings(samples: pd.Index) -> list[Finding]:
    n = int(samples.duplicated().sum())
    if not n:
        return []
    found = (
        f"{n:,} names occur before, for example {samples[samples.duplicated()][0]!r}: repeated samples, or cut names?"
    )
    return [Finding("sample names", "obs_names", found, "warning", "adata.obs_names_make_unique()")]


def duplicate_findings(
    ids: NDArray[np.str_], names: pd.Index, model: GeneVocabulary, target: _calls.Target
) -> tuple[list[Finding], _calls.Target]:
    """Report columns that share a gene, and what is left to convert once they are merged."""
    known = pd.Series(ids, index=names)[ids != ""]
    several = known[known.duplicated(keep=False)]
    if several.empty:
        return [], target
    n_model = int(several[several.isin(model.ids)].nunique())
    example = several.index[several == several.iloc[0]].tolist()[:3]
    found = (
        f"{len(several):,} columns share {several.nunique():,} genes, {n_model:,} of them in the vocabulary "
        f"(for example {', '.join(map(str, example))})"
    )
    if not n_model:
        return [Finding("duplicates", "var_names", found, "note")], target
    if target.unit.quantity == "unknown" or target.identifiers is None:
        return [Finding("duplicates", "var_names", found, "error")], target
    calls, target = _calls.merge(target)
    return [Finding("duplicates", "var_names", found, "error", "; ".join(calls))], target


def coverage_finding(found: NDArray[np.bool_], matrix: Matrix, ids: NDArray[np.str_], model: GeneVocabulary) -> Finding:
    measured = np.isin(ids, model.ids)
    usable = matrix.drawn.shape[-1] == len(ids)
    entries = float(np.isnan(matrix.drawn[:, measured]).mean()) if usable and measured.any() else 0.0
    missing = 1 - found.mean() * (1 - entries)
    text = f"{found.sum():,} of the {len(model):,} genes of {model.name!r} are here, {missing:.1%} are missing"
    if not found.any():
        return Finding("coverage", "var_names", text, "error")
    known = registry.info(model.name).trained_missing[1] if model.name in registry.available() else None
    most = _TRAINED_MISSING if known is None else known
    who = "published models were" if known is None else "the model was"
    text += f"; {who} trained with up to {most:.0%} missing"
    if missing <= most:
        return Finding("coverage", "var_names", text)
    return Finding("coverage", "var_names", f"{text}, and predictions get worse beyond", "warning")
