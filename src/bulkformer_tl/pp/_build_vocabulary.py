"""The genes of a corpus, with what encodings need to know of each."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, get_matrix
from bulkformer_tl._vocabulary import GeneVocabulary, gene_table, to_ensembl
from bulkformer_tl.pp._by_gene import by_gene
from bulkformer_tl.pp._identifiers import resolve_identifiers
from bulkformer_tl.pp._lengths import exon_lengths, resolve_lengths
from bulkformer_tl.pp._log_tpm import refuse_unlike_counts
from bulkformer_tl.pp._scan import name_samples, refuse_impossible, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._turned import ByGene
    from bulkformer_tl._vocabulary import Identifiers

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
    identifier. Each cohort is checked, then read once into a temporary file of 8 bytes per sample and gene
    (``TMPDIR``), from which means and medians are computed exactly.

    Parameters
    ----------
    adata
        Samples by genes, or a list of such; any storage.
    layer
        Which values to read; ``None`` reads ``X``.
    unit
        What they are: raw ``"counts"``, or ``"log_tpm"``, ln(TPM+1).
    identifiers
        What ``var_names`` are. Human ``"symbol"`` and ``"entrez"`` become Ensembl ids, and those that are unknown are
        left out. ``None`` takes what :func:`bulkformer_tl.pp.log_tpm` was told, else names as they are, of any
        species; only Ensembl ids lose their version.
    lengths
        Gene lengths in bp: the name of a ``var`` column, the path of a GTF or GFF3 file, or a Series or mapping by the
        vocabulary's identifiers. ``None`` takes those of the package's table, which knows human Ensembl ids.
    min_share
        Least share of the cohorts that hold a gene, between 0 and 1; 0 takes all that any of them holds.
    min_detected
        Least share of a cohort's samples that detect a gene.
    name
        Of the vocabulary.

    Returns
    -------
    The vocabulary. ``lengths`` are ``NaN`` where unknown, ``None`` if all are; where cohorts differ the first counts.
    ``means`` are those of ln(TPM+1), over the samples that measured the gene; TPM of counts run over the genes of the
    vocabulary that have a length, and without any there are no means. ``medians`` are those of the counts above zero,
    scaled so that each sample sums to 10,000 over all its genes; rank encodings divide by them (Geneformer: Theodoris
    et al. 2023, doi:10.1038/s41586-023-06139-9). There are none if the unit is ``"log_tpm"``.

    Raises
    ------
    ValueError
        If no gene is left, several columns stand for one gene, a cohort shares no gene with the others, the values are
        not what ``unit`` says, a sample holds nothing or only zeros, or a share is not between 0 and 1.
    TypeError
        If something in the list is no AnnData.
    KeyError
        If there is no such layer, or no such column or file of lengths.
    OSError
        If there is no room for the temporary file.

    See Also
    --------
    bulkformer_tl.pp.coexpression_graph : the graph of the chosen genes.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> vocabulary = bf.pp.build_vocabulary(adata, min_detected=0.5)
    >>> vocabulary.to_csv("genes.csv")  # doctest: +SKIP
    """
    cohorts: list[Any] = list(adata) if isinstance(adata, list | tuple) else [adata]
    _check_options(cohorts, unit, min_share, min_detected)
    matrices = _per_cohort(lambda cohort: get_matrix(cohort, layer), cohorts)
    names = _per_cohort(lambda cohort: _names(cohort, identifiers, layer), cohorts)
    _check_shared(names)
    genes = pd.Index(sorted(set().union(*names) - {""}))
    bp = _lengths(cohorts, lengths, names, genes)
    totals = np.concatenate(_per_cohort(lambda cohort, matrix: _check(cohort, matrix, unit), cohorts, matrices))
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


def _per_cohort(function: Callable[..., Any], *parts: Sequence[Any]) -> list[Any]:
    """Return what each cohort gives; an error says which one it was."""
    given = []
    for i, part in enumerate(zip(*parts, strict=True), start=1):
        try:
            given.append(function(*part))
        except (KeyError, TypeError, ValueError) as error:
            if len(parts[0]) > 1:
                error.add_note(f"in cohort {i} of {len(parts[0])}")
            raise
    return given


def _names(cohort: AnnData, identifiers: Identifiers | None, layer: str | None) -> NDArray[np.str_]:
    """Return the gene of each column, empty where unknown, and refuse several columns for one."""
    kind = resolve_identifiers(cohort, identifiers, layer)
    ids = to_ensembl(cohort.var_names, identifiers=kind)
    known = pd.Series(np.asarray(cohort.var_names, dtype=str), index=ids)[ids != ""]
    if known.empty:
        message = (
            f"none of {cohort.var_names[:3].tolist()} ... is a known human {kind}; "
            "leave out identifiers= to take the names as they are"
        )
        raise ValueError(message)
    if known.index.has_duplicates:
        gene = known.index[known.index.duplicated()][0]
        argument = "" if kind == "ensembl" else f", identifiers={kind!r}"
        message = (
            f"the columns {known[known.index == gene].tolist()} are all {gene}; "
            f"call adata = bf.pp.merge_duplicates(adata{argument}) on counts or TPM first"
        )
        raise ValueError(message)
    return ids


def _check_shared(names: list[NDArray[np.str_]]) -> None:
    """Refuse cohorts whose genes are called otherwise, or of another species, than those of all others."""
    cohorts_of = pd.Series(np.concatenate(names)).value_counts()
    for i, own in enumerate(names):
        if len(names) > 1 and not (cohorts_of.reindex(own[own != ""]) > 1).any():
            other = names[i - 1]
            message = (
                f"cohort {i + 1} of {len(names)} shares no gene with the others: its genes are called "
                f"{own[own != ''][:3].tolist()} ..., elsewhere {other[other != ''][:3].tolist()} ...; "
                "name the genes of all cohorts alike"
            )
            raise ValueError(message)


def _check(cohort: AnnData, matrix: Any, unit: Unit) -> NDArray[np.float64]:
    """Refuse values that are not what they were said to be; return the sum of each sample."""
    found = scan(matrix)
    refuse_impossible(found, cohort.obs_names)
    if unit == "log_tpm" and not found.looks_log:
        message = (
            f"the values are {'whole ' if found.whole else ''}numbers up to {found.maximum:,.4g}, not ln(TPM+1); "
            "pass unit='counts' for raw counts, and call bf.pp.to_log_tpm(adata, unit=...) on anything else"
        )
        raise ValueError(message)
    if unit == "counts":
        if found.looks_log:
            message = (
                f"the values are fractional and at most {found.maximum:.4g}, as logarithms are, not counts; pass "
                "unit='log_tpm' if they are ln(TPM+1), and call bf.pp.to_log_tpm(adata, unit=...) first if they are not"
            )
            raise ValueError(message)
        refuse_unlike_counts(found)
        if (found.totals == 0).any():
            empty = name_samples(cohort.obs_names, found.totals == 0)
            message = f"{empty} hold no count and cannot be scaled; drop such samples"
            raise ValueError(message)
    return found.totals


def _lengths(cohorts: list[Any], lengths: Any, names: list[NDArray[np.str_]], genes: pd.Index) -> NDArray[np.float64]:
    """Return the length of each gene, from the first cohort that knows it."""
    is_column = any(lengths in cohort.var for cohort in cohorts) if isinstance(lengths, str) else False
    if isinstance(lengths, str | Path) and not is_column and Path(lengths).is_file():
        # read once, not for each cohort
        lengths = exon_lengths(lengths)
    resolved = _per_cohort(
        lambda cohort, own: resolve_lengths(cohort, lengths, ids=own, vocabulary=None).bp, cohorts, names
    )
    bp = pd.Series(np.nan, index=genes)
    for own, found in zip(names, resolved, strict=True):
        bp = bp.fillna(pd.Series(found, index=own)[own != ""])
    return np.asarray(bp, dtype=np.float64)


def _choose(values: ByGene, sizes: Sequence[int], min_share: float, min_detected: float) -> NDArray[np.int64]:
    """Return the genes that enough cohorts hold."""
    starts = np.cumsum([0, *sizes[:-1]])
    held = np.zeros(len(values))
    for i, gene in enumerate(values):
        detected = np.add.reduceat(gene > 0, starts, dtype=np.int64)
        measured = np.add.reduceat(~np.isnan(gene), starts, dtype=np.int64)
        # a share is compared as one: 0.55 * 100 is more than 55
        held[i] = ((detected > 0) & (detected / np.maximum(measured, 1) >= min_detected)).mean()
    kept = np.flatnonzero((held > 0) & (held >= min_share))
    if not len(kept):
        message = f"no gene is held by {min_share:.0%} of the {len(sizes)} cohorts; pass a smaller min_share"
        raise ValueError(message)
    return kept


def _each(values: ByGene, kept: NDArray[np.int64], statistic: Any) -> NDArray[np.float64]:
    return np.array([statistic(values[gene]) for gene in kept], dtype=np.float64)


def _median(gene: NDArray[np.float64], totals: NDArray[np.float64]) -> float:
    detected = gene > 0
    return float(np.median(gene[detected] / totals[detected] * TARGET_SUM))


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
