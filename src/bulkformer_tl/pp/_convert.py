"""TPM, FPKM, CPM and logarithms of them to ln(TPM+1)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from bulkformer_tl import encodings
from bulkformer_tl._anndata import get_matrix
from bulkformer_tl._keys import LOG_TPM
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
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneVocabulary, Identifiers
    from bulkformer_tl.encodings._log_tpm import Base
    from bulkformer_tl.pp._normalize import Denominator
    from bulkformer_tl.pp._scan import Scan

Unit = Literal[
    "tpm", "log_tpm", "log2_tpm", "log10_tpm",
    "fpkm", "log_fpkm", "log2_fpkm", "log10_fpkm",
    "cpm", "log_cpm", "log2_cpm", "log10_cpm",
    "normalized_log1p",
]  # fmt: skip

#: Largest linear value of each quantity. TPM sum to a million, with room for rounding; FPKM of short genes and CPM
#: after scaling factors exceed it; counts scaled to a common depth are bounded by any depth in use.
_LIMITS = {"tpm": 1.1e6, "fpkm": 1e8, "cpm": 1e7, "normalized": 1e10}
_BASES: dict[str, Base] = {"log": "e", "log2": "2", "log10": "10"}

#: Sample sums of TPM beyond which another unit or base is meant: log2 values read as natural ones give five millions.
_MOST_TPM = 2.5e6
#: Over a whole transcriptome TPM below this sum speak for another unit or base as well, though panels exist.
_LEAST_TPM, _TRANSCRIPTOME = 2e5, 10_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Source:
    """A unit taken apart: linear quantity, base of the logarithm if any, pseudocount."""

    unit: Unit
    quantity: str
    base: Base | None
    pseudocount: float

    @property
    def needs_lengths(self) -> bool:
        """Whether the quantity is not yet per length."""
        return self.quantity in {"cpm", "normalized"}

    @property
    def lowest(self) -> float:
        """The value of a gene that is not expressed."""
        return 0.0 if self.base is None else float(encodings.to_log(0.0, base=self.base, pseudocount=self.pseudocount))

    def linear(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Undo the logarithm."""
        if self.base is None:
            return values
        return encodings.from_log(values, base=self.base, pseudocount=self.pseudocount)


def to_log_tpm(
    adata: AnnData,
    *,
    unit: Unit,
    layer: str | None = None,
    pseudocount: float = 1.0,
    lengths: str | Path | pd.Series | Mapping[str, float] | None = None,
    denominator: Denominator = "vocabulary",
    vocabulary: GeneVocabulary | str | Path | None = None,
    identifiers: Identifiers | None = None,
    default_length: float | None = None,
    key_added: str = LOG_TPM,
    copy: bool = False,
) -> AnnData | None:
    """Turn TPM, FPKM, CPM or logarithms of them into ln(TPM+1).

    The logarithm is undone, CPM and values of ``scanpy.pp.normalize_total`` are divided by gene length as counts are
    (their factor per sample cancels), and each sample is scaled so that its denominator genes sum to a million. FPKM
    need that scaling alone (Li and Dewey 2011, doi:10.1186/1471-2105-12-323). TPM with ``denominator="all"`` are left
    unscaled: whoever made them divided by all their genes, also those that ``adata`` no longer holds; pass
    ``unit="fpkm"`` to scale them nevertheless.

    Parameters
    ----------
    adata
        Samples by genes; any storage. ``NaN`` is missing and stays so.
    unit
        What the values are: a quantity (``fpkm`` stands for RPKM as well), with ``log_``, ``log2_`` or ``log10_`` in
        front for logarithms of the quantity plus ``pseudocount``. ``normalized_log1p`` is the result of
        ``scanpy.pp.normalize_total`` and ``scanpy.pp.log1p``.
    layer
        Where the values are; ``None`` reads ``X``.
    pseudocount
        That was added before the logarithm was taken.
    lengths
        Gene lengths for CPM and ``normalized_log1p``; as in :func:`bulkformer_tl.pp.log_tpm`.
    denominator
        Whose TPM sum to a million: the genes of the vocabulary that are in ``adata``, or all its genes.
    vocabulary
        A model's name, a bundle folder, a genes file or a vocabulary; ``None`` takes that of ``bulkformer-mini``.
    identifiers
        What ``var_names`` are; ``None`` means Ensembl ids, with or without version.
    default_length
        Length in bp of genes that have none, for units that need lengths.
    key_added
        Name of the result.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.layers[key_added]`` : :class:`numpy.ndarray` (shape ``(n_obs, n_vars)``, dtype ``float32``)
        ln(TPM+1); ``NaN`` where the value is missing, or a gene has no length and the unit needs one.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        As :func:`bulkformer_tl.pp.log_tpm`, and the unit that was given.

    Raises
    ------
    ValueError
        If the values cannot be of that unit, a sample holds no value or only zeros, no gene or several columns for
        one gene of the vocabulary are found, lengths are given that the unit does not need, or ``key_added`` is taken.
    KeyError
        If the layer, or the column or file of lengths, does not exist.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.to_log_tpm(adata, unit="cpm")
    >>> adata.uns["log_tpm"]["params"]["from_unit"]
    'cpm'
    """
    source = _take_apart(unit, pseudocount)
    if not source.needs_lengths and (lengths is not None or default_length is not None):
        message = f"{unit} is per length already; lengths and default_length are for CPM and normalized_log1p"
        raise ValueError(message)
    matrix = get_matrix(adata, layer)
    check_key(adata, key_added)
    reference = resolve_reference(adata, denominator=denominator, vocabulary=vocabulary, identifiers=identifiers)
    filled = fill_lengths(adata, reference, lengths, default_length) if source.needs_lengths else None
    genes = reference.genes if filled is None else reference.genes & ~np.isnan(filled.bp)
    found = scan(matrix, denominator=genes, linear=source.linear)
    refuse_impossible(found, adata.obs_names, lowest=source.lowest)
    _refuse_other_unit(found, source)
    check_denominators(found, adata, reference)
    params: dict[str, Any] = {"from_unit": unit, "pseudocount": float(pseudocount)}
    params |= ({} if layer is None else {"layer": layer}) | reference.params
    if filled is not None:
        filled.report(adata, found.gene_sums, reference.genes)
        params |= filled.params(adata)
    return write_log_tpm(
        adata,
        matrix,
        key=key_added,
        linear=source.linear,
        lengths=None if filled is None else filled.bp,
        denominator=None if source.quantity == "tpm" and denominator == "all" else genes,
        params=params,
        copy=copy,
    )


def _take_apart(unit: Unit, pseudocount: float) -> _Source:
    if unit not in get_args(Unit):
        message = f"unit must be one of {list(get_args(Unit))}, found {unit!r}; raw counts go to bf.pp.log_tpm"
        raise ValueError(message)
    if not 0 < pseudocount < np.inf:
        message = f"pseudocount must be positive, found {pseudocount}"
        raise ValueError(message)
    if unit == "normalized_log1p":
        return _Source(unit, "normalized", "e", pseudocount)
    *logarithm, quantity = unit.split("_")
    return _Source(unit, quantity, _BASES[logarithm[0]] if logarithm else None, pseudocount)


def _refuse_other_unit(found: Scan, source: _Source) -> None:
    """Refuse values that cannot be of the unit, and mention those that may not be.

    Raises
    ------
    ValueError
        If they are too large, too small throughout, or sum to more than TPM can.
    """
    if source.base is None and found.looks_log:
        message = (
            f"the values are fractional and at most {found.maximum:.4g}, as logarithms are, not {source.unit}; "
            f'pass unit="log2_{source.quantity}", "log_{source.quantity}" or "log10_{source.quantity}"'
        )
        raise ValueError(message)
    with np.errstate(over="ignore"):
        largest = source.linear(np.asarray(found.maximum)).item()
    limit = _LIMITS[source.quantity]
    if largest > limit:
        end = (
            limit
            if source.base is None
            else float(encodings.to_log(limit, base=source.base, pseudocount=source.pseudocount))
        )
        message = (
            f"the values reach {found.maximum:,.6g}, and {source.unit} ends at {end:,.4g}; "
            "bf.pp.diagnose(adata) tells the unit (raw counts go to bf.pp.log_tpm)"
        )
        raise ValueError(message)
    if source.quantity != "tpm":
        return
    most, middle = float(found.totals.max()), float(np.median(found.totals))
    if most > _MOST_TPM:
        message = (
            f"as {source.unit} a sample would sum to {most / 1e6:.1f} million TPM, and TPM sum to one million; "
            "the base of the logarithm or the unit is another: call bf.pp.diagnose(adata)"
        )
        raise ValueError(message)
    if len(found.gene_sums) >= _TRANSCRIPTOME and middle < _LEAST_TPM:
        logger.warning(
            "as %s the samples sum to %.3g TPM (median), far from a million: is the %s another?",
            source.unit,
            middle,
            "unit" if source.base is None else "base of the logarithm",
        )
