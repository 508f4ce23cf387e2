"""Count tables and their metadata to AnnData."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pandas as pd

from bulkformer_tl._read._folder import read_folder
from bulkformer_tl._read._layouts import Options, layout_of, read_part
from bulkformer_tl._read._metadata import join_metadata, read_frame
from bulkformer_tl._read._part import to_anndata
from bulkformer_tl._read._samples import Strandedness, transcript_map
from bulkformer_tl._read._stored import is_hdf5, is_zarr, read_stored
from bulkformer_tl._read._table import Dialect
from bulkformer_tl._read._tables import Orientation
from bulkformer_tl._read._text import read_head

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger(__name__)


def read(
    path: str | Path,
    metadata: str | Path | pd.DataFrame | None = None,
    *,
    orientation: Orientation | None = None,
    strandedness: Strandedness = "unstranded",
    tx2gene: str | Path | pd.DataFrame | None = None,
    thousands: str | None = None,
    decimal: str = ".",
    encoding: str = "utf-8",
    backed: bool = False,
) -> AnnData:
    """Read expression of bulk samples, whatever wrote it, as samples by genes.

    The layout is recognised by content, not by name: csv and tsv tables with genes on either side (plain, gzip, bzip2
    or xz), featureCounts, GCT 1.2 and 1.3, Xena, recount3, files of one sample from salmon, kallisto, RSEM, STAR, HTSeq
    and the GDC, h5ad and zarr. Values are those of the file: nothing is scaled, rounded or filled in, an empty cell is
    ``NaN``. Names of genes stay as they are, also where they repeat or a spreadsheet turned them into dates; both are
    logged and reported.

    Parameters
    ----------
    path
        A file, a zarr store, or a folder with a file per sample (also in subfolders, all of one layout). Samples of
        several files are joined on the union of their genes; genes that a file lacks are ``NaN``, never 0. Links that
        lead out of the folder are not followed.
    metadata
        csv, tsv or a DataFrame with a row per sample. The column (or index) whose values are sample names is found by
        its values: exactly, else without surrounding white space.
    orientation
        Which side of a table holds genes; ``None`` finds out.
    strandedness
        Which counts to take from STAR's ``ReadsPerGene.out.tab`` and the GDC's tables: of reads from either strand, or
        of libraries whose first read is on the strand of the RNA (``"forward"``) or on the other (``"reverse"``).
    tx2gene
        Gene of each transcript, to sum the transcripts of salmon and kallisto: csv, tsv or a DataFrame. Effective
        lengths are averaged with TPM as weights.
    thousands
        What groups digits, such as ``","`` in ``1,234``.
    decimal
        What separates the fraction.
    encoding
        Of text files.
    backed
        Leave ``X`` of an h5ad file on disk, to be read in pieces, unless it holds genes in rows; anything else is read
        into memory.

    Returns
    -------
    Samples by genes: ``X`` holds the counts (integers where the file has integers, else ``float64``),
    ``layers["tpm"]`` and ``layers["effective_length"]`` (bp) what salmon, kallisto and RSEM add. ``var`` holds
    descriptions of genes (symbols, lengths, positions), ``obs`` those of samples and the metadata. ``uns["read"]`` says
    what was found: layout, orientation, duplicated genes, names that became dates, what was dropped, and in
    ``uns["read"]["metadata"]`` how many samples matched, and which did not on either side.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    TypeError
        If ``metadata`` or ``tx2gene`` is neither a path nor a DataFrame.
    ValueError
        If a file is empty, cut short, no text or no table; rows have different numbers of fields; a cell is no number;
        samples share a name; genes and samples cannot be told apart; transcripts have no genes; or the metadata matches
        nothing. The message names file, line and column, what was found, and what to do.

    Notes
    -----
    Averages of effective lengths follow Soneson, Love and Robinson, F1000Research 2015,
    doi:10.12688/f1000research.7563.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.read("counts.tsv.gz", metadata="samples.csv")  # doctest: +SKIP
    >>> adata.uns["read"]["metadata"]["n_matched"]  # doctest: +SKIP
    24
    """
    source = Path(path)
    for name, table in (("metadata", metadata), ("tx2gene", tx2gene)):
        _check_table(name, table)
    options = _options(orientation, strandedness, tx2gene, Dialect(thousands, decimal), encoding)
    if not source.exists():
        message = f"there is no file or folder {source}"
        raise FileNotFoundError(message)
    if is_zarr(source) or (source.is_file() and is_hdf5(source)):
        adata = read_stored(source, orientation, backed=backed)
    elif source.is_dir():
        adata = to_anndata(read_folder(source, options))
    else:
        head = read_head(source, encoding)
        adata = to_anndata(read_part(head, layout_of(head) or "table", options))
    if metadata is not None:
        join_metadata(adata, metadata, encoding)
    report = adata.uns["read"]
    logger.info("%s: layout %s, %d samples x %d genes", source, report["layout"], adata.n_obs, adata.n_vars)
    return adata


def _check_table(name: str, table: object) -> None:
    if table is not None and not isinstance(table, str | Path | pd.DataFrame):
        message = f"{name} must be a path or a DataFrame, found {type(table).__name__}"
        raise TypeError(message)


def _options(
    orientation: Orientation | None,
    strandedness: Strandedness,
    tx2gene: str | Path | pd.DataFrame | None,
    dialect: Dialect,
    encoding: str,
) -> Options:
    """Check what the caller said."""
    for name, value, known in (
        ("orientation", orientation, (None, *get_args(Orientation))),
        ("strandedness", strandedness, get_args(Strandedness)),
        ("decimal", dialect.decimal, (".", ",")),
        ("thousands", dialect.thousands, (None, ",", ".", " ", "'")),
    ):
        if value not in known:
            message = f"{name} must be one of {list(known)}, found {value!r}"
            raise ValueError(message)
    if dialect.decimal == dialect.thousands:
        message = f"thousands and decimal are both {dialect.decimal!r}; they have to differ"
        raise ValueError(message)
    mapping = read_frame(Path(tx2gene), encoding)[0] if isinstance(tx2gene, str | Path) else tx2gene
    genes = None if mapping is None else transcript_map(mapping)
    return Options(orientation, strandedness, genes, dialect, encoding)
