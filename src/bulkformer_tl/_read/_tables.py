"""Tables of many samples: csv and tsv in either orientation, featureCounts, GCT, Xena, recount3."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from itertools import islice
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

import pandas as pd

from bulkformer_tl._read._names import entrez_share, gene_share
from bulkformer_tl._read._part import LISTED, Part, check_samples, without_summary
from bulkformer_tl._read._table import Dialect, Table, parse, text_columns
from bulkformer_tl._read._text import Head, full_header, numbered_lines, split

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

Orientation = Literal["genes_by_samples", "samples_by_genes"]

FEATURE_COUNTS = ["geneid", "chr", "start", "end", "strand", "length"]

#: Least share of names that have to look like genes.
GENE_SHARE = 0.2

_NUMBER = re.compile(r"^-?\d+(\.\d*)?([eE][-+]?\d+)?$")
_BARCODE = re.compile(r"^(TCGA|GTEX|TARGET|K-562)\b")
_NOTES = {
    "xena": "values are left as Xena publishes them, usually log2(x + 1) or log2(TPM + 0.001); see bf.pp.to_log_tpm",
    "recount3": "recount3 sums coverage over bases; divide by the read length for approximate read counts",
}


def read_table(head: Head, layout: str, orientation: Orientation | None, dialect: Dialect) -> Part:
    """Read a table with a header line, in either orientation.

    Raises
    ------
    ValueError
        If there is no header, neither side or both look like genes, two samples share a name, or a cell is wrong.
    """
    header = _header(head)
    text = text_columns(header, head.rows[1:20])
    table = parse(head, header, head.first, text, dialect)
    rows = _row_names(table)
    genes_in_rows = _genes_in_rows(table, rows, orientation)
    named = [i for i in range(1, len(header)) if i not in set(text)]
    names = ([f"line {line}" for line in table.lines], [f"column {i + 1}" for i in named])
    described = _typed(table.text)
    part = Part(
        source=head.path,
        layout=layout,
        samples=table.columns if genes_in_rows else rows,
        genes=rows if genes_in_rows else table.columns,
        matrix=table.values(transposed=genes_in_rows),
        obs=pd.DataFrame() if genes_in_rows else described,
        var=described if genes_in_rows else pd.DataFrame(),
        places=names[0] if genes_in_rows else names[1],
        report={"orientation": "genes_by_samples" if genes_in_rows else "samples_by_genes"},
    )
    check_samples(part)
    if len(described.columns):
        side = "var" if genes_in_rows else "obs"
        part.report[f"{side}_columns"] = [str(name) for name in described.columns]
        logger.info("%s: the columns %s are no samples or genes and went to %s", head.path, list(described), side)
    if layout in _NOTES:
        part.report["note"] = _NOTES[layout]
        logger.info("%s: %s", head.path, _NOTES[layout])
    part = without_summary(part)
    if not genes_in_rows:
        _report_strangers(part)
    return part


def read_feature_counts(head: Head, dialect: Dialect) -> Part:
    """Read the table of featureCounts: positions and lengths to ``var``, paths of alignments to sample names."""
    header = [name.strip() for name in head.header]
    text = text_columns(header, head.rows[1:20])
    table = parse(head, header, head.first, sorted({*range(1, 6), *text}), dialect)
    files = table.columns
    short = [re.sub(r"\.(bam|sam|cram)$", "", PurePath(file.replace("\\", "/")).name) for file in files]
    return Part(
        source=head.path,
        layout="featureCounts",
        samples=short if len(set(short)) == len(short) else files,
        genes=table.rows,
        matrix=table.values(transposed=True),
        obs=pd.DataFrame({"file": files}),
        var=_typed(table.text).rename(columns=str.lower),
        places=[f"line {line}" for line in table.lines],
        report={"orientation": "genes_by_samples"},
    )


def read_gct(head: Head, dialect: Dialect) -> Part:
    """Read GCT 1.2 or 1.3: descriptions to ``var``, column annotations to ``obs``.

    Raises
    ------
    ValueError
        If the second line does not state the size, or states another one.
    """
    head = replace(head, delimiter="\t")
    size = [field for field in head.header if field.strip()]
    if len(size) not in {2, 4} or not all(field.strip().isdigit() for field in size):
        message = f"{head.path}, line {head.first}: GCT states its rows and columns there, found {head.lines[0][:60]!r}"
        raise ValueError(message)
    n_genes, n_samples = int(size[0]), int(size[1])
    n_described, n_annotations = (int(size[2]), int(size[3])) if len(size) == 4 else (1, 0)
    start = islice(numbered_lines(head.path, head.encoding), head.first, head.first + 1 + n_annotations)
    header, *annotations = [split(line.rstrip("\r\n"), "\t") for _, line in start]
    described = list(range(1, 1 + n_described))
    table = parse(head, header, head.first + 1 + n_annotations, described, dialect)
    if (len(table.rows), len(table.columns)) != (n_genes, n_samples):
        message = (
            f"{head.path}, line {head.first} states {n_genes} genes x {n_samples} samples, found {len(table.rows)} x "
            f"{len(table.columns)}; the file is cut short, or the line is wrong"
        )
        raise ValueError(message)
    first = 1 + n_described
    return Part(
        source=head.path,
        layout="gct",
        samples=table.columns,
        genes=table.rows,
        matrix=table.values(transposed=True),
        obs=_typed(pd.DataFrame({row[0]: row[first:] for row in annotations}, dtype=object)),
        var=_typed(table.text).rename(columns={"Description": "symbol"}),
        places=[f"line {line}" for line in table.lines],
        report={"orientation": "genes_by_samples"},
    )


def looks_like_genes(head: Head) -> bool:
    """Tell from its first lines whether a table has genes on a side and numbers inside."""
    rows = head.rows
    width = len(rows[-1])
    header = rows[0] if len(rows[0]) == width else ["", *rows[0]]
    if len(rows) < 2 or len(header) != width or len(text_columns(header, rows[1:20])) == width - 1:
        return False
    first = [row[0] for row in rows[1:]]
    return max(gene_share(first), gene_share(header[1:])) >= GENE_SHARE or (
        header[0].casefold() in {"geneid", "entrez", "entrezid", "entrez_id"} and entrez_share(first) > 0.5
    )


def table_layout(head: Head) -> str:
    """Return ``"recount3"``, ``"xena"`` or ``"table"``."""
    if any(line.startswith("##annotation=") for line in head.comments):
        return "recount3"
    header = head.header
    barcodes = sum(bool(_BARCODE.match(name)) for name in header[1:])
    xena = header[0] in {"Ensembl_ID", "sample", "xena_sample"} and barcodes > 0.5 * (len(header) - 1)
    return "xena" if xena else "table"


def _header(head: Head) -> list[str]:
    """Return the names of all columns, that of the row names included."""
    header = full_header(head)
    if len(header) == 1:
        message = (
            f"{head.path} has a single column, starting with {header[0][:40]!r}; tab, comma or ';' separate columns"
        )
        raise ValueError(message)
    numbers = [name for name in header[1:] if _NUMBER.match(name)]
    repeated = len(set(numbers)) < len(numbers) or any("." in name for name in numbers)
    if numbers and len(numbers) == len(header) - 1 and (repeated or gene_share([header[0]]) == 1):
        message = (
            f"{head.path} has no header: line {head.first} is {head.lines[0][:60]!r}; add a line that names columns"
        )
        raise ValueError(message)
    return header


def _row_names(table: Table) -> list[str]:
    """Return the names of rows; where the first column only counts them, those of a column of genes."""
    if _counts_up(table.rows):
        for name in table.text:
            if gene_share(table.text[name].tolist()) >= 0.5:
                rows = [str(value) for value in table.text.pop(str(name))]
                logger.info("%s: genes are taken from the column %r; the first one counts rows", table.path, name)
                return rows
    return table.rows


def _genes_in_rows(table: Table, rows: list[str], orientation: Orientation | None) -> bool:
    """Tell which side holds the genes.

    Raises
    ------
    ValueError
        If that cannot be told.
    """
    if orientation is not None:
        return orientation == "genes_by_samples"
    side = gene_side(rows, table.columns)
    if side is None:
        message = (
            f"{table.path}: cannot tell genes from samples. {gene_share(rows):.0%} of the {len(rows)} row names (such "
            f"as {rows[:3]}) and {gene_share(table.columns):.0%} of the {len(table.columns)} column names (such as "
            f"{table.columns[:3]}) look like genes; pass orientation='genes_by_samples' or 'samples_by_genes'"
        )
        raise ValueError(message)
    return bool(side == "rows")


def gene_side(rows: Sequence[str], columns: Sequence[str]) -> Literal["rows", "columns"] | None:
    """Return on which side the genes are; ``None`` if both or neither look like them."""
    shares = gene_share(rows), gene_share(columns)
    if max(shares) < GENE_SHARE:
        # Entrez ids are numbers, as are the samples of some; a mere count of rows is neither
        shares = _entrez(rows), _entrez(columns)
    if max(shares) < GENE_SHARE or min(shares) > 0.5 * max(shares):
        return None
    return "rows" if shares[0] > shares[1] else "columns"


def _report_strangers(part: Part) -> None:
    """Report columns of numbers, such as an age, among columns that are nearly all genes."""
    strangers = [name for name in part.genes if gene_share([name]) == 0]
    if strangers and len(strangers) < 0.1 * len(part.genes):
        part.report |= {"n_columns_unlike_genes": len(strangers), "columns_unlike_genes": strangers[:LISTED]}
        logger.warning(
            "%s: the columns %s do not look like genes but hold numbers; they are kept, drop them if they are no genes",
            part.source,
            strangers[:5],
        )


def _entrez(names: Sequence[str]) -> float:
    return 0.0 if _counts_up(names) else entrez_share(names)


def _counts_up(names: Sequence[str]) -> bool:
    """Tell whether names are 0, 1, 2, ... or 1, 2, 3, ..."""
    return any(all(name == str(i) for i, name in enumerate(names, start)) for start in (0, 1))


def _typed(text: pd.DataFrame) -> pd.DataFrame:
    """Return columns as numbers where all their cells are."""
    typed = {}
    for position, name in enumerate(text.columns):
        cells = text.iloc[:, position]
        empty = cells.isna() | cells.isin(["", "NA", "na", "NaN"])
        numbers = pd.to_numeric(cells.where(~empty), errors="coerce")
        typed[str(name) or f"column_{position + 2}"] = (
            cells if (numbers.isna() & ~empty).any() or empty.all() else numbers
        )
    return pd.DataFrame(typed)
