"""Find out what a data set is, from its values and names alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from bulkformer_tl._anndata import check_anndata, dense_rows
from bulkformer_tl._vocabulary import gene_table, load_vocabulary, to_ensembl
from bulkformer_tl.encodings._units import MARKER, GeneFacts, Unit, recognise
from bulkformer_tl.pp import _calls
from bulkformer_tl.pp._recognise_names import Names, count_dates, count_versions, find_mended_names, recognise_names
from bulkformer_tl.pp._report import Finding, Report

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneVocabulary
    from bulkformer_tl.pp._report import Severity

#: Samples from which the unit is recognised; more do not tell more.
_UNIT_SAMPLES = 64

#: Share of genes that the published models never missed in training: at most 15 % were hidden.
_TRAINED_MISSING = 0.15

#: What to start from, best first; a logarithm comes after all linear values.
_PREFERENCE = ("counts", "expected_counts", "scaled_counts", "cpm", "tpm", "tpm_or_fpkm", "fpkm", "unknown")

_KINDS = {
    "ensembl": "Ensembl ids",
    "symbol": "gene symbols",
    "entrez": "Entrez ids; map them to Ensembl ids first",
    "transcript": "transcripts; sum them per gene first",
    "other species": "genes of another species; the vocabulary is human",
    "other": "neither gene ids nor symbols",
}


@dataclass(frozen=True)
class _Matrix:
    """A matrix, and what was drawn of it, shape (samples, genes)."""

    where: str
    layer: str | None
    drawn: NDArray[np.float64]
    unit: Unit
    sparse: bool

    @property
    def rank(self) -> tuple[bool, bool, int, bool]:
        """Sorts what to start from: what the model reads, then linear values, then logarithms, ``raw`` last."""
        known = self.unit.quantity != "unknown"
        return (
            not self.unit.is_log_tpm,
            not known or self.unit.base is not None,
            _PREFERENCE.index(self.unit.quantity),
            self.where == "raw",
        )


def diagnose(
    adata: AnnData,
    *,
    vocabulary: GeneVocabulary | str | Path | None = None,
    groups: str | None = None,
    n_samples: int = 200,
    rng: int | np.random.Generator | None = 0,
) -> Report:
    """Find out what a data set is, and which calls make it ready for the model.

    Looks at the values of ``X``, every layer and ``raw``, and at the names of genes and samples: the unit (counts,
    TPM, FPKM, CPM; which logarithm), the identifiers, duplicated genes, missing, negative and infinite values, empty
    samples, the orientation, and the share of the vocabulary that is there. It reads neither ``uns`` nor columns of
    ``obs`` other than ``groups``; columns of ``var`` are looked at only where ``var_names`` are no genes, for better
    names. Nothing is written.

    Parameters
    ----------
    adata
        Samples by genes, or genes by samples; any storage.
    vocabulary
        A model's name, a bundle folder, a genes file or a vocabulary; ``None`` takes that of ``bulkformer-mini``.
    groups
        A column of ``obs``, for example the study: units are compared between its groups.
    n_samples
        Samples to look at, drawn at random where there are more.
    rng
        Seed or generator of that draw.

    Returns
    -------
    The report: a table of findings with the call that mends each, and the proposed ``layer``, its ``unit``, the
    ``identifiers`` and the ``coverage``. Calls assume ``import numpy as np, bulkformer_tl as bf``.

    Raises
    ------
    TypeError
        If ``adata`` is not an AnnData.
    KeyError
        If ``obs`` has no column ``groups``.
    ValueError
        If ``adata`` has no sample, no gene or no matrix, or ``n_samples`` is not positive.

    Notes
    -----
    Where values alone cannot decide, the finding says so, and what to ask the data's author: base-pair coverage sums
    and rounded normalised counts look like read counts, TPM of which genes were dropped look like FPKM.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> report = bf.pp.diagnose(bf.datasets.toy())
    >>> report.unit, report.identifiers, report.layer
    ('counts', 'ensembl', None)
    >>> report.calls
    ['bf.pp.log_tpm(adata)']
    """
    _check_arguments(adata, groups, n_samples)
    model = load_vocabulary(vocabulary)
    names, samples, transposed = _orient(adata)
    rows = _draw(len(samples), n_samples, rng)
    described = recognise_names(names)
    ids = to_ensembl(names, identifiers=described.identifiers or "ensembl")
    matrices = _look(adata, model, described, rows, transposed=transposed)
    best = min(matrices, key=lambda matrix: matrix.rank)

    findings = [_looked_at(adata, len(rows), len(samples), transposed=transposed)]
    findings += _name_findings(adata, names, described, transposed=transposed) + _sample_findings(samples)
    for matrix in matrices:
        findings += [_unit_finding(matrix), *_value_findings(matrix, samples[rows], is_best=matrix is best)]
    if groups is not None:
        findings += _group_findings(best, adata.obs[groups].iloc[rows], _gene_facts(names, described, model))
    target = _calls.Target(best.layer, best.unit, _top(best), described.identifiers, vocabulary)
    merged, target = _duplicate_findings(ids, names, model, target)
    found = np.isin(model.ids, ids)
    findings += [*merged, _coverage_finding(found, best, ids, model)]
    findings += _next_findings(best, target, named=described.identifiers is not None and bool(found.any()))
    return Report.from_findings(
        findings,
        unit=best.unit.name,
        identifiers=described.identifiers,
        layer=best.layer,
        coverage=float(found.mean()),
    )


def _check_arguments(adata: AnnData, groups: str | None, n_samples: int) -> None:
    check_anndata(adata)
    if 0 in adata.shape:
        message = f"adata is empty: {adata.n_obs} samples x {adata.n_vars} genes"
        raise ValueError(message)
    raw: Any = adata.raw
    if adata.X is None and not _layer_names(adata) and raw is None:
        message = "adata holds no matrix: X is empty, and there are no layers and no raw"
        raise ValueError(message)
    if groups is not None and groups not in adata.obs:
        message = f"adata.obs has no column {groups!r}; its columns are {adata.obs.columns.tolist()}"
        raise KeyError(message)
    if n_samples < 1:
        message = f"n_samples must be at least 1, found {n_samples}"
        raise ValueError(message)


def _layer_names(adata: AnnData) -> list[str]:
    # since anndata 0.13 X is the layer None
    return [str(key) for key in list(adata.layers) if key is not None]


def _orient(adata: AnnData) -> tuple[pd.Index, pd.Index, bool]:
    """Return the names of genes and of samples, and whether genes are in the rows."""
    genes_in_rows = not recognise_names(adata.var_names).are_genes and recognise_names(adata.obs_names).are_genes
    genes, samples = (adata.obs_names, adata.var_names) if genes_in_rows else (adata.var_names, adata.obs_names)
    return genes, samples, genes_in_rows


def _draw(n: int, n_samples: int, rng: int | np.random.Generator | None) -> NDArray[np.int64]:
    if n <= n_samples:
        return np.arange(n)
    return np.sort(np.random.default_rng(rng).choice(n, n_samples, replace=False))


def _look(
    adata: AnnData, model: GeneVocabulary, described: Names, rows: NDArray[np.int64], *, transposed: bool
) -> list[_Matrix]:
    """Read the drawn samples of every matrix and recognise their units."""
    genes = _gene_facts(adata.obs_names if transposed else adata.var_names, described, model)
    sources: list[tuple[str, str | None, Any, GeneFacts]] = []
    if adata.X is not None:
        sources.append(("X", None, adata.X, genes))
    sources += [(f"layers[{key!r}]", key, adata.layers[key], genes) for key in _layer_names(adata)]
    if adata.raw is not None and not transposed:
        raw_genes = _gene_facts(adata.raw.var_names, recognise_names(adata.raw.var_names), model)
        sources.append(("raw", "raw", adata.raw.X, raw_genes))
    looked = []
    for where, layer, matrix, facts in sources:
        if np.dtype(matrix.dtype).kind not in "iuf":
            values, unit = np.empty((0, 0)), Unit("unknown", reason=f"{matrix.dtype}, not expression")
        else:
            values = dense_rows(matrix[:, :].T if transposed else matrix, rows, np.float64)
            unit = recognise(values[:_UNIT_SAMPLES], facts)
        looked.append(_Matrix(where, layer, values, unit, sp.issparse(matrix)))
    return looked


def _gene_facts(names: pd.Index, described: Names, model: GeneVocabulary) -> GeneFacts:
    ids = to_ensembl(names, identifiers=described.identifiers or "ensembl")
    embedded = load_vocabulary()
    corpus = pd.Series(embedded.means, embedded.ids)
    return GeneFacts(
        lengths=gene_table()["length"].reindex(ids).to_numpy(dtype=np.float64),
        expected=np.expm1(corpus.reindex(ids).to_numpy(dtype=np.float64)),
        vocabulary=np.isin(ids, model.ids),
    )


def _looked_at(adata: AnnData, n_rows: int, n_samples: int, *, transposed: bool) -> Finding:
    if transposed:
        found = f"{adata.n_obs:,} genes x {adata.n_vars:,} samples: genes are in the rows"
        return Finding("orientation", "obs_names", found, "error", "adata = adata.T")
    drawn = "" if n_rows == n_samples else f"; values of {n_rows} samples drawn at random were looked at"
    return Finding("orientation", "obs_names", f"{adata.n_obs:,} samples x {adata.n_vars:,} genes{drawn}")


def _name_findings(adata: AnnData, names: pd.Index, described: Names, *, transposed: bool) -> list[Finding]:
    examples = ", ".join(map(str, names[:3]))
    found = f"{described.share:.0%} are {_KINDS[described.kind]} ({examples}, ...)"
    if described.identifiers is None:
        mended = "" if transposed else find_mended_names(names, adata.var)
        call = f"adata.var_names = {mended}" if mended else ""
        return [Finding("identifiers", "var_names", found, "error", call)]
    findings = [Finding("identifiers", "var_names", found, "note" if described.kind == "symbol" else "ok")]
    n_versions, n_dates = count_versions(names), count_dates(names)
    if n_versions:
        found = f"{n_versions:,} ids carry a version, which is ignored when genes are matched"
        findings.append(Finding("versions", "var_names", found, "note"))
    if n_dates:
        found = f"{n_dates} symbols are dates, as a spreadsheet makes of MARCHF1 and SEPTIN2; these genes are lost"
        findings.append(Finding("dates", "var_names", found, "warning"))
    return findings


def _sample_findings(samples: pd.Index) -> list[Finding]:
    n = int(samples.duplicated().sum())
    if not n:
        return []
    found = (
        f"{n:,} names occur before, for example {samples[samples.duplicated()][0]!r}: repeated samples, or cut names?"
    )
    return [Finding("sample names", "obs_names", found, "warning", "adata.obs_names_make_unique()")]


def _unit_finding(matrix: _Matrix) -> Finding:
    unit = matrix.unit
    ask = f". Ask the data's author {unit.question}" if unit.question else ""
    severity: Severity = "warning" if unit.quantity == "unknown" and matrix.drawn.size else "note" if ask else "ok"
    return Finding("unit", matrix.where, f"{unit.name}: {unit.reason}{ask}", severity)


def _value_findings(matrix: _Matrix, samples: pd.Index, *, is_best: bool) -> list[Finding]:
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


def _group_findings(matrix: _Matrix, groups: pd.Series, genes: GeneFacts) -> list[Finding]:
    """Recognise the unit in every group by itself."""
    codes, labels = pd.factorize(groups)
    units = {
        str(label): recognise(matrix.drawn[codes == code][:_UNIT_SAMPLES], genes).name
        for code, label in enumerate(labels)
        if matrix.drawn.size
    }
    where = f"{matrix.where} by obs[{groups.name!r}]"
    if len(set(units.values())) <= 1:
        return [Finding("units of groups", where, f"the same unit in all {len(units)} groups")]
    found = "units differ: " + ", ".join(f"{label}: {unit}" for label, unit in units.items())
    return [Finding("units of groups", where, f"{found}; convert each group by itself", "error")]


def _duplicate_findings(
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


def _coverage_finding(
    found: NDArray[np.bool_], matrix: _Matrix, ids: NDArray[np.str_], model: GeneVocabulary
) -> Finding:
    measured = np.isin(ids, model.ids)
    usable = matrix.drawn.shape[-1] == len(ids)
    entries = float(np.isnan(matrix.drawn[:, measured]).mean()) if usable and measured.any() else 0.0
    missing = 1 - found.mean() * (1 - entries)
    text = f"{found.sum():,} of the {len(model):,} genes of {model.name!r} are here, {missing:.1%} are missing"
    if not found.any():
        return Finding("coverage", "var_names", text, "error")
    if missing <= _TRAINED_MISSING:
        return Finding("coverage", "var_names", f"{text}; models were trained with up to 15 % missing")
    text += "; models were trained with up to 15 % missing, and predictions get worse beyond"
    return Finding("coverage", "var_names", text, "warning")


def _next_findings(matrix: _Matrix, target: _calls.Target, *, named: bool) -> list[Finding]:
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


def _top(matrix: _Matrix) -> float:
    """Return the largest linear value."""
    finite = matrix.drawn[np.isfinite(matrix.drawn)]
    top = float(finite.max()) if finite.size else 0.0
    base = matrix.unit.base
    return top if base is None else float({"e": np.e, "2": 2.0, "10": 10.0}[base] ** top)
