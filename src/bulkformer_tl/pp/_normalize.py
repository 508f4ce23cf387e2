"""What :func:`log_tpm` and :func:`to_log_tpm` share: the denominator, the lengths, the writing."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from bulkformer_tl import encodings
from bulkformer_tl._anndata import check_slots, copied, row_blocks, write_results
from bulkformer_tl._keys import LogTpmKeys
from bulkformer_tl._vocabulary import load_vocabulary, match_genes, to_ensembl
from bulkformer_tl.pp._lengths import resolve_lengths
from bulkformer_tl.pp._scan import NAMED, name_samples

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneVocabulary, Identifiers
    from bulkformer_tl.pp._lengths import GeneLengths, Lengths
    from bulkformer_tl.pp._scan import Linear, Scan

Denominator = Literal["vocabulary", "all"]

logger = logging.getLogger(__name__)

#: Genes without a length that are listed in ``uns``.
LISTED = 20


@dataclass(frozen=True)
class Reference:
    """What TPM are relative to.

    Parameters
    ----------
    kind
        As the caller named it.
    identifiers
        What ``var_names`` are.
    ids
        Ensembl id of each column, without version, empty where unknown; shape (G,).
    genes
        Which columns make up the million, shape (G,).
    vocabulary
        Whose genes they are; ``None`` if all columns count.
    """

    kind: Denominator
    identifiers: Identifiers
    ids: NDArray[np.str_]
    genes: NDArray[np.bool_]
    vocabulary: GeneVocabulary | None

    @property
    def params(self) -> dict[str, Any]:
        """Plain values that describe it."""
        described: dict[str, Any] = {"denominator": self.kind, "identifiers": self.identifiers}
        if self.vocabulary is not None:
            described |= {"vocabulary": self.vocabulary.name, "vocabulary_checksum": self.vocabulary.checksum}
        return described


def resolve_reference(
    adata: AnnData,
    *,
    denominator: Denominator,
    vocabulary: GeneVocabulary | str | Path | None,
    identifiers: Identifiers | None,
) -> Reference:
    """Find the genes whose TPM sum to a million.

    Raises
    ------
    ValueError
        If the denominator is unknown, no gene of the vocabulary is there, or several columns stand for one.
    """
    if denominator not in get_args(Denominator):
        message = f"denominator must be 'vocabulary' or 'all', found {denominator!r}"
        raise ValueError(message)
    names = identifiers or "ensembl"
    ids = to_ensembl(adata.var_names, identifiers=names)
    if denominator == "all" and vocabulary is None:
        return Reference("all", names, ids, np.ones(adata.n_vars, dtype=bool), None)
    known = load_vocabulary(vocabulary)
    match = match_genes(adata.var_names, known, identifiers=names)
    if denominator == "all":
        return Reference("all", names, ids, np.ones(adata.n_vars, dtype=bool), None)
    logger.info("%d of the %d genes of %s are in adata", match.n_found, len(known), known.name)
    return Reference("vocabulary", names, ids, match.in_vocabulary, known)


@dataclass(frozen=True)
class FilledLengths:
    """Lengths by which abundances are divided.

    Parameters
    ----------
    bp
        In bp, shape (G,); ``NaN`` where unknown and no default was given.
    unknown
        Which genes have no length of their own, shape (G,).
    source
        Where lengths come from.
    default
        Taken where the length is unknown.
    """

    bp: NDArray[np.float64]
    unknown: NDArray[np.bool_]
    source: str
    default: float | None

    def params(self, adata: AnnData) -> dict[str, Any]:
        """Plain values that describe them."""
        missing = adata.var_names[self.unknown]
        described: dict[str, Any] = {"lengths": self.source, "n_missing_lengths": len(missing)}
        if len(missing):
            described["missing_lengths"] = [str(name) for name in missing[:LISTED]]
        if self.default is not None:
            described["default_length"] = float(self.default)
        return described

    def report(self, adata: AnnData, gene_sums: NDArray[np.float64], genes: NDArray[np.bool_]) -> None:
        """Log how many genes, and what share of the counts, have no length; as a warning if TPM depend on them."""
        if not self.unknown.any():
            return
        names = [str(name) for name in adata.var_names[self.unknown][:NAMED]]
        share = float(gene_sums[self.unknown].sum() / max(gene_sums.sum(), np.finfo(float).tiny))
        fate = (
            f"they are taken as {self.default:g} bp long"
            if self.default is not None
            else "they become NaN and stay out of the denominator; pass lengths= for them, or default_length=1000, "
            "which is what the authors' code takes"
        )
        logger.log(
            logging.WARNING if (self.unknown & genes).any() else logging.INFO,
            "%d of %d genes, with %.3g %% of all counts, have no length in %s (%s): %s",
            self.unknown.sum(),
            adata.n_vars,
            100 * share,
            self.source,
            ", ".join(names),
            fate,
        )


def fill_lengths(
    adata: AnnData, reference: Reference, lengths: Lengths | None, default_length: float | None
) -> FilledLengths:
    """Find the lengths of all columns, with a default for those that have none.

    Raises
    ------
    KeyError, TypeError, ValueError
        As :func:`resolve_lengths`, or if the default is not positive.
    """
    if default_length is not None and not default_length > 0:
        message = f"default_length must be positive, in bp; found {default_length}"
        raise ValueError(message)
    own: GeneLengths = resolve_lengths(adata, lengths, ids=reference.ids, vocabulary=reference.vocabulary)
    unknown = np.isnan(own.bp)
    if default_length is None and unknown.all():
        message = (
            f"no gene has a length in {own.source}: the ids are {reference.ids[:3].tolist()} ...; pass lengths=, or "
            'identifiers="symbol" or "entrez" if var_names are that, or call bf.pp.diagnose(adata)'
        )
        raise ValueError(message)
    values = own.bp if default_length is None else np.where(unknown, default_length, own.bp)
    return FilledLengths(values, unknown, own.source, default_length)


def check_denominators(found: Scan, adata: AnnData, reference: Reference) -> None:
    """Refuse, or for all genes mention, samples in which the denominator genes sum to zero.

    Raises
    ------
    ValueError
        If there are such samples and the denominator is the vocabulary.
    """
    empty = found.denominators <= 0
    if not empty.any():
        return
    which = name_samples(adata.obs_names, empty)
    if reference.kind == "vocabulary":
        message = (
            f"the genes of the denominator sum to zero in {which}, so TPM are not defined there; drop these samples"
        )
        raise ValueError(message)
    logger.warning("all values are zero in %s: they stay zero", which)


def write_log_tpm(
    adata: AnnData,
    matrix: Any,
    *,
    key: str,
    linear: Linear | None,
    lengths: NDArray[np.float64] | None,
    denominator: NDArray[np.bool_] | None,
    params: dict[str, Any],
    copy: bool,
) -> AnnData | None:
    """Compute ln(TPM+1) block by block in double precision and write it in single precision.

    Parameters
    ----------
    adata
        Annotated samples.
    matrix
        Where to read, shape (N, G).
    key
        Name of the result.
    linear
        Turns a block into linear values. ``None`` takes them as they are.
    lengths
        In bp, shape (G,). ``None`` if values are per length already.
    denominator
        Genes that make up the million, shape (G,). ``None`` leaves the values unscaled.
    params
        Plain values that say how the result was made.
    copy
        Return a modified copy.
    """
    result = np.empty(matrix.shape, dtype=np.float32)
    for rows, block in row_blocks(matrix, dtype=np.float64):
        values = block if linear is None else linear(block)
        result[rows] = (
            np.log1p(values) if denominator is None else encodings.log_tpm(values, lengths, denominator=denominator)
        )
    target = copied(adata) if copy else adata
    write_results(target, key, {LogTpmKeys(key).layer: result}, {"unit": "ln(TPM+1)", **params})
    return target if copy else None


def check_key(adata: AnnData, key: str) -> None:
    """Refuse a key whose slots are taken; see :func:`bulkformer_tl._anndata.check_slots`."""
    check_slots(adata, key, [LogTpmKeys(key).layer])
