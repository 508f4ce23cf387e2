"""The genes of a corpus, with what encodings need to know of each."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, get_matrix
from bulkformer_tl._vocabulary import GeneVocabulary, gene_table, to_ensembl
from bulkformer_tl.pp._by_gene import by_gene
from bulkformer_tl.pp._identifiers import resolve_identifiers
from bulkformer_tl.pp._lengths import resolve_lengths
from bulkformer_tl.pp._log_tpm import refuse_unlike_counts
from bulkformer_tl.pp._scan import refuse_impossible, scan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import Identifiers
    from bulkformer_tl.pp._by_gene import ByGene

logger = logging.getLogger(__name__)

Unit = Literal["counts", "log_tpm"]

#: Counts of a sample sum to this before medians are taken, as in Geneformer (Theodoris et al. 2023).
TARGET_SUM = 10_000.0


def build_vocabulary(
    adata: AnnData | Sequence[AnnData],
    *,
    layer: str | None = None,
    unit: Unit = "counts",
    identifiers: Identifiers | None = None,
    lengths: str | Path | pd.Series | Mapping[str, float] | None = None,
    min_share: float = 0.4,
    min_detected: float = 0.0,
    name: str = "custom",
) -> GeneVocabulary:
    """Choose the genes of a model from one cohort or several, of any species.

    A cohort holds a gene if it detects it (a value above zero) in at least one sample and ``min_detected`` of those
    that measured it. The vocabulary are the genes that at least ``min_share`` of the cohorts hold, sorted by
    identifier. Each cohort is read once, into a temporary file of 8 bytes per value (``TMPDIR``), from which means
    and medians are computed exactly.

    Parameters
    ----------
    adata
        Samples by genes, or a list of such; any storage.
    layer
        Which values to read; ``None`` reads ``X``.
    unit
        What they are: raw ``"counts"``, or ``"log_tpm"``, ln(TPM+1).
    identifiers
        What ``var_names`` are. ``None`` takes them as they are, whatever they are, without the version of Ensembl ids;
        human ``"symbol"`` and ``"entrez"`` become Ensembl ids, and those that are unknown are left out.
    lengths
        Gene lengths in bp: the name of a ``var`` column, the path of a GTF or GFF3 file, or a Series or mapping by
        identifier. ``None`` takes those of the package's table, which knows human Ensembl ids.
    min_share
        Least share of the cohorts that hold a gene, between 0 and 1; 0 takes all that any of them holds.
    min_detected
        Least share of a cohort's samples that detect a gene.
    name
        Of the vocabulary.

    Returns
    -------
    The vocabulary. ``lengths`` are ``NaN`` where unknown, ``None`` if all are. ``means`` are those of ln(TPM+1), where
    TPM of counts run over the genes of the vocabulary that have a length; ``None`` if no gene has. ``medians`` are those of
    counts above zero, scaled so that each sample sums to 10,000 over all its genes, which rank encodings divide by;
    ``None`` if the unit is ``"log_tpm"``.

    Raises
    ------
    ValueError
        If no gene is left, several columns stand for one gene, the values are not what ``unit`` says, a sample
        holds nothing or only zeros, or a share is not between 0 and 1.
    TypeError
        If something in the list is no AnnData.
    KeyError
        If there is no such layer, or no such column or file of lengths.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> vocabulary = bf.pp.build_vocabulary(adata, min_detected=0.5)
    >>> vocabulary.to_csv("genes.csv")  # doctest: +SKIP
    """
    cohorts: list[Any] = list(adata) if isinstance(adata, list | tuple) else [adata]
    _check_options(cohorts, unit, min_share, min_detected)
    names = [_names(cohort, identifiers, layer) for cohort in cohorts]
    matrices = [get_matrix(cohort, layer) for cohort in cohorts]
    totals = np.concatenate([_check(cohort, matrix, unit) for cohort, matrix in zip(cohorts, matrices, strict=True)])
    genes = pd.Index(sorted(set().union(*names) - {""}))
    bp = _lengths(cohorts, lengths, names, genes)
    columns = [genes.get_indexer(pd.Index(own)) for own in names]
    with by_gene(matrices, columns, len(genes)) as values:
        kept = _choose(values, [matrix.shape[0] for matrix in matrices], min_share, min_detected)
        known = bp[kept]
        means = _mean_log_tpm(values, kept, known) if unit == "counts" else _each(values, kept, np.nanmean)
        medians = _each(values, kept, lambda gene: _median(gene, totals)) if unit == "counts" else None
    ids = genes[kept].to_numpy(dtype=str)
    symbols = gene_table()["symbol"].reindex(ids).fillna("").to_numpy(dtype=str)
    logger.info("%d of %d genes of %d cohorts are in the vocabulary", len(kept), len(genes), len(cohorts))
    return GeneVocabulary(
        ids,
        symbols=symbols if (symbols != "").any() else None,
        lengths=None if np.isnan(known).all() else known,
        name=name,
        means=None if np.isnan(means).all() else means,
        medians=medians,
    )


def _check_options(cohorts: list[Any], unit: Unit, min_share: float, min_detected: float) -> None:
    if not cohorts:
        message = "no AnnData was passed; pass one, or a list of them"
        raise ValueError(message)
    for cohort in cohorts:
        check_anndata(cohort)
    if unit not in get_args(Unit):
        message = f"unit must be 'counts' or 'log_tpm', found {unit!r}; other units become ln(TPM+1) by pp.to_log_tpm"
        raise ValueError(message)
    for option, share in (("min_share", min_share), ("min_detected", min_detected)):
        if not 0 <= share <= 1:
            message = f"{option} must lie between 0 and 1, found {share}"
            raise ValueError(message)


def _names(cohort: AnnData, identifiers: Identifiers | None, layer: str | None) -> NDArray[np.str_]:
    """Return the gene of each column, empty where unknown, and refuse several columns for one."""
    ids = to_ensembl(cohort.var_names, identifiers=resolve_identifiers(cohort, identifiers, layer))
    known = pd.Series(np.asarray(cohort.var_names, dtype=str), index=ids)[ids != ""]
    if known.index.has_duplicates:
        gene = known.index[known.index.duplicated()][0]
        message = (
            f"the columns {known[known.index == gene].tolist()} are all {gene}; "
            "call adata = bf.pp.merge_duplicates(adata) on counts or TPM first"
        )
        raise ValueError(message)
    return ids


def _check(cohort: AnnData, matrix: Any, unit: Unit) -> NDArray[np.float64]:
    """Refuse values that are not what they were said to be; return the sum of each sample."""
    found = scan(matrix)
    refuse_impossible(found, cohort.obs_names)
    if unit == "counts":
        refuse_unlike_counts(found)
        if (found.totals == 0).any():
            empty = cohort.obs_names[found.totals == 0][:5].tolist()
            message = f"samples without a single count cannot be scaled, drop them: {empty}"
            raise ValueError(message)
    elif not found.looks_log:
        message = (
            f"the values are {'whole ' if found.whole else ''}numbers up to {found.maximum:,.4g}, not ln(TPM+1); "
            "pass unit='counts' for raw counts, and call bf.pp.to_log_tpm(adata, unit=...) on anything else"
        )
        raise ValueError(message)
    return found.totals


def _lengths(cohorts: list[Any], lengths: Any, names: list[NDArray[np.str_]], genes: pd.Index) -> NDArray[np.float64]:
    """Return the length of each gene, from the first cohort that knows it."""
    bp = pd.Series(np.nan, index=genes)
    for cohort, own in zip(cohorts, names, strict=True):
        found = pd.Series(resolve_lengths(cohort, lengths, ids=own, vocabulary=None).bp, index=own)[own != ""]
        bp = bp.fillna(found)
    return bp.to_numpy(dtype=np.float64)


def _choose(values: ByGene, sizes: Sequence[int], min_share: float, min_detected: float) -> NDArray[np.int64]:
    """Return the genes that enough cohorts hold."""
    starts = np.cumsum([0, *sizes[:-1]])
    held = np.zeros(len(values))
    for i, gene in enumerate(values):
        detected = np.add.reduceat(gene > 0, starts, dtype=np.int64)
        measured = np.add.reduceat(~np.isnan(gene), starts, dtype=np.int64)
        held[i] = ((detected > 0) & (detected >= min_detected * measured)).mean()
    kept = np.flatnonzero((held > 0) & (held >= min_share))
    if not len(kept):
        message = f"no gene is held by {min_share:.0%} of the {len(sizes)} cohorts; pass a smaller min_share"
        raise ValueError(message)
    return kept


def _each(values: ByGene, kept: NDArray[np.int64], statistic: Any) -> NDArray[np.float64]:
    return np.array([statistic(values[gene]) for gene in kept], dtype=np.float64)


def _median(gene: NDArray[np.float64], totals: NDArray[np.float64]) -> np.float64:
    detected = gene > 0
    return np.median(gene[detected] / totals[detected] * TARGET_SUM)


def _mean_log_tpm(values: ByGene, kept: NDArray[np.int64], bp: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each gene's mean ln(TPM+1), ``NaN`` without a length."""
    sums = np.zeros(values.shape[1])
    long = [(gene, length) for gene, length in zip(kept, bp, strict=True) if not np.isnan(length)]
    for gene, length in long:
        sums += np.nan_to_num(values[gene] / length)
    # a sample that has counts of other genes alone says nothing of these
    scale = 1e6 / np.where(sums > 0, sums, np.nan)
    means = np.full(len(kept), np.nan)
    means[~np.isnan(bp)] = [np.nanmean(np.log1p(values[gene] / length * scale)) for gene, length in long]
    return means
