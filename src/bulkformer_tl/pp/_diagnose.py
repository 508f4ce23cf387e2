"""Find out what a data set is, from its values and names alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import check_anndata, named_layers
from bulkformer_tl._vocabulary import load_vocabulary, to_ensembl
from bulkformer_tl.pp import _calls
from bulkformer_tl.pp._matrices import look
from bulkformer_tl.pp._name_findings import (
    coverage_finding,
    duplicate_findings,
    looked_at,
    name_findings,
    sample_findings,
)
from bulkformer_tl.pp._profile_findings import profile_findings
from bulkformer_tl.pp._recognise_names import recognise_names
from bulkformer_tl.pp._report import Report
from bulkformer_tl.pp._sex_finding import call_sex, compare_sex
from bulkformer_tl.pp._value_findings import (
    group_findings,
    next_findings,
    platform_finding,
    top,
    unit_finding,
    value_findings,
)

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneVocabulary


def diagnose(
    adata: AnnData,
    *,
    vocabulary: GeneVocabulary | str | Path | None = None,
    groups: str | None = None,
    sex: str | None = None,
    n_samples: int = 200,
    rng: int | np.random.Generator | None = 0,
) -> Report:
    """Find out what a data set is, and which calls make it ready for the model.

    Looks at the values of ``X``, every layer and ``raw``, and at the names of genes and samples: the unit (counts,
    TPM, FPKM, CPM; which logarithm; z-scores), the platform (bulk, single cells, microarray, panel), the identifiers
    and the species, duplicated genes, missing, negative and infinite values, empty, constant and duplicated samples,
    the orientation, and the share of the vocabulary that is there. It reads neither ``uns`` nor columns of ``obs``
    other than ``groups`` and ``sex``; columns of ``var`` are looked at only where ``var_names`` are no genes, for
    better names. Nothing is written. How often it is right is stated in :doc:`/user-guide/diagnose`.

    Parameters
    ----------
    adata
        Samples by genes, or genes by samples; any storage.
    vocabulary
        A model's name, a bundle folder, a genes file or a vocabulary; ``None`` takes that of ``bulkformer-mini``.
    groups
        A column of ``obs``, for example the study: units are compared between its groups.
    sex
        A column of ``obs`` with the donors' sex (``F``, ``female``, ``Male``, ...): it is compared with XIST and the
        genes of the Y chromosome in every sample.
    n_samples
        Samples to look at, drawn at random where there are more. Duplicates are looked for in all samples of up to
        2,000, the sex in all of them.
    rng
        Seed or generator of that draw.

    Returns
    -------
    The report: a table of findings with the call that mends each, and the proposed ``layer``, its ``unit``, the
    ``identifiers``, ``species``, ``platform`` and ``coverage``, and with ``sex`` that of every sample. Calls assume
    ``import numpy as np, bulkformer_tl as bf``.

    Raises
    ------
    TypeError
        If ``adata`` is not an AnnData.
    KeyError
        If ``obs`` has no column ``groups`` or ``sex``.
    ValueError
        If ``adata`` has no sample, no gene or no matrix, or ``n_samples`` is not positive.

    Notes
    -----
    Where values alone cannot decide, the finding says so, and what to ask the data's author: base-pair coverage sums
    and rounded normalised counts look like read counts, TPM of which genes were dropped look like FPKM. Tables with
    genes in the rows are turned for the report; ``groups`` and ``sex`` are compared once ``adata`` is.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> report = bf.pp.diagnose(bf.datasets.toy())
    >>> report.unit, report.identifiers, report.layer
    ('counts', 'ensembl', None)
    >>> report.calls
    ['bf.pp.log_tpm(adata)']
    """
    _check_arguments(adata, {"groups": groups, "sex": sex}, n_samples)
    model = load_vocabulary(vocabulary)
    names, samples, transposed = _orient(adata)
    rows = _draw(len(samples), n_samples, rng)
    described = recognise_names(names)
    ids = to_ensembl(names, identifiers=described.identifiers or "ensembl")
    matrices = look(adata, model, described, rows, transposed=transposed)
    best = min(matrices, key=lambda matrix: matrix.rank)

    findings = [looked_at(adata, len(rows), len(samples), transposed=transposed)]
    findings += name_findings(adata, names, described, transposed=transposed) + sample_findings(samples)
    for matrix in matrices:
        findings += [unit_finding(matrix), *value_findings(matrix, samples[rows], is_best=matrix is best)]
    measured, fingerprint = platform_finding(best)
    findings += [measured, *profile_findings(best, samples, rows)]
    if groups is not None and not transposed:
        findings += group_findings(best, adata.obs[groups].iloc[rows])
    called = None
    if sex is not None and not transposed:
        called = call_sex(best, fingerprint.platform, samples)
        findings.append(compare_sex(called, adata.obs[sex]))
    target = _calls.Target(best.layer, best.unit, top(best), described.identifiers, vocabulary)
    merged, target = duplicate_findings(ids, names, model, target)
    found = np.isin(model.ids, ids)
    findings += [*merged, coverage_finding(found, best, ids, model)]
    findings += next_findings(best, target, named=described.identifiers is not None and bool(found.any()))
    return Report.from_findings(
        findings,
        unit=best.unit.name,
        identifiers=described.identifiers,
        layer=best.layer,
        coverage=float(found.mean()),
        species=described.species,
        platform=fingerprint.platform,
        sex=called,
    )


def _check_arguments(adata: AnnData, columns: dict[str, str | None], n_samples: int) -> None:
    check_anndata(adata)
    if 0 in adata.shape:
        message = f"adata is empty: {adata.n_obs} samples x {adata.n_vars} genes"
        raise ValueError(message)
    raw: Any = adata.raw
    if adata.X is None and not named_layers(adata) and raw is None:
        message = "adata holds no matrix: X is empty, and there are no layers and no raw"
        raise ValueError(message)
    for argument, column in columns.items():
        if column is not None and column not in adata.obs:
            message = f"{argument}: adata.obs has no column {column!r}; its columns are {adata.obs.columns.tolist()}"
            raise KeyError(message)
    if n_samples < 1:
        message = f"n_samples must be at least 1, found {n_samples}"
        raise ValueError(message)


def _orient(adata: AnnData) -> tuple[pd.Index, pd.Index, bool]:
    """Return the names of genes and of samples, and whether genes are in the rows."""
    genes_in_rows = not recognise_names(adata.var_names).are_genes and recognise_names(adata.obs_names).are_genes
    genes, samples = (adata.obs_names, adata.var_names) if genes_in_rows else (adata.var_names, adata.obs_names)
    return genes, samples, genes_in_rows


def _draw(n: int, n_samples: int, rng: int | np.random.Generator | None) -> NDArray[np.int64]:
    if n <= n_samples:
        return np.arange(n)
    return np.sort(np.random.default_rng(rng).choice(n, n_samples, replace=False))
