"""Raw counts to ln(TPM+1)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from bulkformer_tl._anndata import get_matrix
from bulkformer_tl._keys import LOG_TPM
from bulkformer_tl.encodings._log_tpm import MILLION
from bulkformer_tl.pp._normalize import (
    check_denominators,
    check_key,
    fill_lengths,
    resolve_reference,
    write_log_tpm,
)
from bulkformer_tl.pp._scan import refuse_impossible, scan

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

    from bulkformer_tl._vocabulary import GeneVocabulary, Identifiers
    from bulkformer_tl.pp._normalize import Denominator
    from bulkformer_tl.pp._scan import Scan

logger = logging.getLogger(__name__)


def log_tpm(
    adata: AnnData,
    *,
    layer: str | None = None,
    lengths: str | Path | pd.Series | Mapping[str, float] | None = None,
    denominator: Denominator = "vocabulary",
    vocabulary: GeneVocabulary | str | Path | None = None,
    identifiers: Identifiers | None = None,
    default_length: float | None = None,
    key_added: str = LOG_TPM,
    copy: bool = False,
) -> AnnData | None:
    """Turn raw counts into ln(TPM+1), the unit that the models read.

    Counts are divided by gene length and scaled so that the denominator genes of each sample sum to a million
    (Wagner et al. 2012, doi:10.1007/s12064-012-0162-3), in double precision. A missing count (``NaN``) stays missing;
    an entry that a sparse matrix does not store is a measured zero. Expected counts of RSEM or salmon need not be
    whole numbers.

    Parameters
    ----------
    adata
        Samples by genes; any storage.
    layer
        Where the counts are; ``None`` reads ``X``.
    lengths
        Gene lengths in bp: the name of a ``var`` column, the path of a GTF or GFF3 file (the union of a gene's exons
        is taken), or a Series or mapping by Ensembl id. ``None`` takes the vocabulary's own lengths where it makes up
        the denominator, and the package's table elsewhere.
    denominator
        Whose TPM sum to a million: the genes of the vocabulary that are in ``adata``, or all its genes. Take what the
        model was trained with.
    vocabulary
        A model's name, a bundle folder, a genes file or a vocabulary; ``None`` takes that of ``bulkformer-mini``. With
        ``denominator="all"`` it only serves to find duplicated genes, and is not needed.
    identifiers
        What ``var_names`` are; ``None`` means Ensembl ids, with or without version.
    default_length
        Length in bp of genes that have none; the authors' code takes 1,000. With ``None`` such genes become ``NaN``
        and stay out of the denominator.
    key_added
        Name of the result.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.layers[key_added]`` : :class:`numpy.ndarray` (shape ``(n_obs, n_vars)``, dtype ``float32``)
        ln(TPM+1); ``NaN`` where the count is missing or the gene has no length. With ``denominator="all"`` a sample
        of zeros stays zeros, as in the authors' code.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        Layer, denominator, vocabulary and its checksum, identifiers, source of the lengths, number and names (up to
        20) of the genes without one.

    Raises
    ------
    ValueError
        If the values cannot be counts (negative, infinite, logarithms, TPM), a sample holds no value or with
        ``denominator="vocabulary"`` only zeros, no gene or several columns for one gene of the vocabulary are found,
        a length is not positive, or ``key_added`` is taken.
    KeyError
        If the layer, or the column or file of lengths, does not exist.

    See Also
    --------
    bulkformer_tl.pp.to_log_tpm : from TPM, FPKM, CPM or logarithms of them.
    bulkformer_tl.pp.diagnose : finds out what the values are.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> adata.uns["log_tpm"]["params"]["unit"]
    'ln(TPM+1)'
    """
    matrix = get_matrix(adata, layer)
    check_key(adata, key_added)
    reference = resolve_reference(adata, denominator=denominator, vocabulary=vocabulary, identifiers=identifiers)
    filled = fill_lengths(adata, reference, lengths, default_length)
    genes = reference.genes & ~np.isnan(filled.bp)
    found = scan(matrix, denominator=genes)
    refuse_impossible(found, adata.obs_names)
    refuse_unlike_counts(found)
    check_denominators(found, adata, reference)
    filled.report(adata, found.gene_sums, reference.genes)
    return write_log_tpm(
        adata,
        matrix,
        key=key_added,
        linear=None,
        lengths=filled.bp,
        denominator=genes,
        params={"from_unit": "counts", **({} if layer is None else {"layer": layer}), **reference.params}
        | filled.params(adata),
        copy=copy,
    )


def refuse_unlike_counts(found: Scan) -> None:
    """Refuse logarithms and TPM, and mention what may be a part of TPM.

    Parameters
    ----------
    found
        What the matrix holds.

    Raises
    ------
    ValueError
        If the values are fractional and small, or sum to a million in every sample.
    """
    if found.looks_log:
        message = (
            f"the values are fractional and at most {found.maximum:.4g}, as logarithms are, not counts. If they are "
            "ln(TPM+1), pass this layer to the model as it is; else call bf.pp.to_log_tpm(adata, unit=...) with "
            "'log2_tpm', 'log2_cpm' or 'normalized_log1p'. bf.pp.diagnose(adata) tells which"
        )
        raise ValueError(message)
    if found.whole:
        return
    low, high = found.totals.min() / MILLION, found.totals.max() / MILLION
    if low > 0.999 and high < 1.001:
        message = (
            "the values are fractional and sum to a million in every sample, as TPM and CPM do, not counts; "
            'call bf.pp.to_log_tpm(adata, unit="tpm") or unit="cpm"'
        )
        raise ValueError(message)
    if low > 0.5 and high < 1.1:
        logger.warning(
            "the values are fractional and sum to %.2f to %.2f million, as TPM of a part of the genes do; "
            'if they are no counts call bf.pp.to_log_tpm(adata, unit="tpm") instead',
            low,
            high,
        )
