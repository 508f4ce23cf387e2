"""Samples as lists of genes, those first that are unusually high: the encoding of Geneformer."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import scipy.sparse as sp

from bulkformer_tl._anndata import check_slots, copied, get_matrix, sparse_blocks, write_results
from bulkformer_tl._keys import RANK, RankKeys
from bulkformer_tl._progress import Progress
from bulkformer_tl._rank_vocabulary import CLS, CONTEXT, EOS, PAD, SPECIALS_OF, RankVocabulary, Version
from bulkformer_tl.encodings import RankTable, rank_genes
from bulkformer_tl.pp._identifiers import resolve_identifiers
from bulkformer_tl.pp._rank_input import Look, library_sizes
from bulkformer_tl.pp._scan import name_samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._rank_vocabulary import Medians, Renamed, Tokens
    from bulkformer_tl._vocabulary import Identifiers

logger = logging.getLogger(__name__)

#: Samples that are read together: few enough to stay in the processor's cache.
BLOCK = 8


def rank_value_encode(
    adata: AnnData,
    *,
    medians: Medians | RankVocabulary,
    tokens: Tokens | None = None,
    renamed: Renamed | None = None,
    version: Version = "V2",
    max_length: int | None = None,
    layer: str | None = None,
    library_size: str | None = None,
    identifiers: Identifiers | None = None,
    from_tpm: bool = False,
    key_added: str = RANK,
    copy: bool = False,
) -> AnnData | None:
    """Write each sample as the list of its genes by rank, as Geneformer reads it.

    Counts per 10,000 of the sample's library are divided by what is usual for the gene, its median above zero over a
    corpus, in double precision; genes are sorted by that, largest first, zeros are dropped, and what does not fit into
    the context is cut off (Theodoris et al. 2023, doi:10.1038/s41586-023-06139-9). The order is all that is left of the
    values. Genes of equal value stand in the order of their tokens, whatever that of the columns.

    Parameters
    ----------
    adata
        Samples by genes with raw counts; any storage. It is read in blocks.
    medians
        Gene to median: a mapping, a published dictionary (``.json`` or ``.pkl``, which is read without running what is
        in it), what :func:`bulkformer_tl.pp.build_vocabulary` makes of your own corpus in one pass, or its CSV; or
        ``model.dictionary``, the medians, tokens and names of a loaded Geneformer.
    tokens
        Gene, ``<pad>``, ``<cls>`` and ``<eos>`` to token, as a mapping or a published dictionary. ``None`` numbers the
        specials, then the genes in the order of the medians.
    renamed
        Retired and other names to the identifiers of the medians, as a mapping or a published dictionary; columns that
        become one gene are added, and names that are not in it are left out. ``None`` takes Ensembl ids as they are,
        without version.
    version
        ``"V1"`` has 2,048 tokens, all of them genes; ``"V2"`` has 4,096, the first ``<cls>`` and the last ``<eos>``.
    max_length
        Another number of tokens, specials included.
    layer
        Where the counts are; ``None`` reads ``X``.
    library_size
        Column of ``obs`` with the counts of each sample over all genes, for tables that hold only some. ``None`` adds
        up the columns of ``adata``.
    identifiers
        What ``var_names`` are; ``None`` means Ensembl ids, unless :func:`bulkformer_tl.pp.log_tpm` was told otherwise.
    from_tpm
        Rank TPM instead of counts. Published medians are those of counts, which grow with gene length.
    key_added
        Name of the result.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.obsm[key_added + "_tokens"]`` : :class:`numpy.ndarray` (shape ``(n_obs, longest)``, dtype ``int32``)
        Tokens, filled up with that of ``<pad>``. A sample without any gene that can be ranked is an empty row, with a
        warning.
    ``adata.obs[key_added + "_length"]`` : :class:`pandas.Series` (dtype ``int32``)
        Number of tokens, specials included.
    ``adata.obs[key_added + "_truncated"]`` : :class:`pandas.Series` (dtype ``float32``)
        Share of the sample's genes above zero that the context cut off: most of a bulk sample at 2,048.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        Version, context, where medians come from, how many genes can be ranked and were found, specials.

    Raises
    ------
    ValueError
        If the values are not counts (or not TPM with ``from_tpm=True``), most tokens have no median, tokens are no
        numbers, a library size is not positive, no gene is found, several columns have one name, or ``key_added`` is
        taken.
    KeyError
        If there is no such layer or column.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.rank_value_encode(adata, medians=bf.pp.build_vocabulary(adata), version="V1")
    >>> adata.obsm["rank_tokens"].shape[0] == adata.n_obs
    True
    """
    matrix = get_matrix(adata, layer)
    keys = RankKeys(key_added)
    check_slots(adata, key_added, [keys.tokens, keys.length, keys.truncated])
    context = _context(version, max_length)
    n_ends = 2 if version == "V2" else 0
    vocabulary = _vocabulary(medians, tokens, renamed, specials=SPECIALS_OF[version])
    _check_specials(vocabulary, version)
    names = resolve_identifiers(adata, identifiers, layer)
    places = vocabulary.places_of(adata.var_names, names)
    sizes = library_sizes(adata, library_size)
    look = Look(from_tpm=from_tpm)
    table, kept, detected = _rank(
        matrix, places, vocabulary, sizes, length=context - n_ends, ends=n_ends // 2, look=look
    )
    _warn_empty(adata, detected)
    lengths = np.where(kept > 0, kept + n_ends, 0).astype(np.int32)
    params: dict[str, Any] = {
        "encoding": version,
        "max_length": context,
        "medians": vocabulary.name,
        "n_vocabulary": len(vocabulary.ids),
        "n_found": len(np.unique(places[places >= 0])),
        "identifiers": names,
        "from_tpm": from_tpm,
        "layer": layer or "X",
        "library_size": library_size or "",
        "specials": dict(vocabulary.specials),
    }
    target = copied(adata) if copy else adata
    results = {
        keys.tokens: table[:, : lengths.max()].copy() if lengths.max() < table.shape[1] else table,
        keys.length: lengths,
        keys.truncated: (1 - kept / np.maximum(detected, 1)).astype(np.float32) * (detected > 0),
    }
    write_results(target, key_added, results, params)
    return target if copy else None


def _context(version: Version, max_length: int | None) -> int:
    if version not in get_args(Version):
        message = f"version must be 'V1' or 'V2', found {version!r}"
        raise ValueError(message)
    context = CONTEXT[version] if max_length is None else max_length
    if context < 3:
        message = f"max_length must be at least 3, found {max_length}"
        raise ValueError(message)
    return context


def _vocabulary(
    medians: Medians | RankVocabulary, tokens: Tokens | None, renamed: Renamed | None, *, specials: Sequence[str]
) -> RankVocabulary:
    if not isinstance(medians, RankVocabulary):
        return RankVocabulary.of(medians, tokens, renamed, specials=specials)
    if tokens is not None or renamed is not None:
        message = f"{medians.name!r} has its own tokens and names; leave out tokens= and renamed="
        raise ValueError(message)
    return medians


def _check_specials(vocabulary: RankVocabulary, version: Version) -> None:
    absent = [name for name in (CLS, EOS) if name not in vocabulary.specials]
    if version == "V2" and absent:
        message = f"the tokens hold no {' and no '.join(absent)}, as those of V1 do; pass version='V1'"
        raise ValueError(message)


def _rank(
    matrix: Any,
    places: NDArray[np.int64],
    vocabulary: RankVocabulary,
    sizes: NDArray[np.float64] | None,
    *,
    length: int,
    ends: int,
    look: Look,
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Return tokens, padded, with specials at both ends; and how many genes each sample kept and has above zero."""
    genes = np.unique(places[places >= 0])
    several = len(genes) < int((places >= 0).sum())
    of_gene = _adding(places, len(vocabulary.ids)) if several else None
    table = RankTable(vocabulary.medians, vocabulary.tokens)
    if not several:
        medians = np.where(places >= 0, vocabulary.medians[places], np.inf)
        table = RankTable(medians, vocabulary.tokens[places])
    tokens = np.full((matrix.shape[0], min(length, len(genes)) + 2 * ends), vocabulary.specials[PAD], dtype=np.int32)
    kept, detected = np.zeros((2, matrix.shape[0]), dtype=np.int64)
    with Progress(matrix.shape[0], "rank_value_encode") as progress:
        for rows, found in sparse_blocks(matrix, size=BLOCK):
            block, totals = look.take(found)
            totals = totals if sizes is None else sizes[rows]
            block = block if of_gene is None else sp.csr_array(block.astype(np.float64) @ of_gene)
            starts = block.indptr.tolist()
            for i, (row, total) in enumerate(zip(range(rows.start, rows.stop), totals.tolist(), strict=True)):
                counts, columns = block.data[starts[i] : starts[i + 1]], block.indices[starts[i] : starts[i + 1]]
                # a sample of zeros has no library
                first, detected[row] = rank_genes(counts, columns, table, total=total or 1.0, length=length)
                kept[row] = len(first)
                tokens[row, ends : ends + len(first)] = first
            progress.update(rows.stop - rows.start)
    look.judge()
    if ends:
        filled = np.flatnonzero(kept)
        tokens[filled, 0] = vocabulary.specials[CLS]
        tokens[filled, kept[filled] + 1] = vocabulary.specials[EOS]
    return tokens, kept, detected


def _adding(places: NDArray[np.int64], n_genes: int) -> sp.csr_array:
    """Return the matrix that adds the columns of each gene, shape (n_vars, G)."""
    columns = np.flatnonzero(places >= 0)
    return sp.csr_array((np.ones(len(columns)), (columns, places[columns])), shape=(len(places), n_genes))


def _warn_empty(adata: AnnData, detected: NDArray[np.int64]) -> None:
    if (detected == 0).any():
        message = (
            f"{name_samples(adata.obs_names, detected == 0)} hold no gene above zero that can be ranked; their rows "
            "are empty, and a model has nothing to read there: drop them"
        )
        warnings.warn(message, UserWarning, stacklevel=3)
