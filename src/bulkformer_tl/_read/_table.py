"""Rows of text to numbers, in batches, with the line and column of every cell that is none."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._read._text import MAX_ROWS, Head, numbered_lines, split

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

#: Characters that are parsed together.
_BATCH = 1 << 23

#: Cells that mean "not measured".
_MISSING = ["", "NA", "N/A", "NaN", "nan", "NAN", "null", "NULL", "None", "-"]

_NUMBER = re.compile(r"^\s*[-+]?(\d[\d.,]*|\.\d+)([eE][-+]?\d+)?\s*$|^\s*[-+]?inf\s*$", re.IGNORECASE)
_THOUSANDS = {",": re.compile(r"^\s*[-+]?\d{1,3}(,\d{3})+(\.\d*)?\s*$"), ".": re.compile(r"^\d{1,3}(\.\d{3})+(,\d+)?$")}
_DECIMAL_COMMA = re.compile(r"^\s*[-+]?\d*,\d+([eE][-+]?\d+)?\s*$")

#: Columns that describe genes, whatever is in them.
_DESCRIPTIONS = {
    *("symbol", "gene_symbol", "gene symbol", "hugo_symbol", "gene_name", "genename", "gene name", "description"),
    *("gene_description", "biotype", "gene_biotype", "gene_type", "chr", "chrom", "chromosome", "seqnames", "strand"),
    *("length", "gene_length", "genelength", "gene length", "entrez", "entrezid", "entrez_id", "entrez_gene_id"),
    *("geneid", "gene_id", "ensembl_id", "ensembl", "hgnc_id", "transcript_id", "transcript_id(s)"),
}
_PLACES = {"start", "end", "width"}


@dataclass(frozen=True)
class Dialect:
    """How numbers are written.

    Parameters
    ----------
    thousands
        What groups digits; ``None`` means nothing does.
    decimal
        What separates the fraction.
    """

    thousands: str | None = None
    decimal: str = "."


@dataclass
class Table:
    """A parsed table: names of rows, columns of numbers and columns of text.

    Parameters
    ----------
    path
        The file.
    corner
        Header of the column of row names.
    rows
        Row names, as they are.
    lines
        Number of each row's line in the file, from 1.
    columns
        Names of the columns of numbers.
    blocks
        Their values, some rows each.
    text
        The other columns.
    """

    path: Path
    corner: str
    rows: list[str]
    lines: list[int]
    columns: list[str]
    blocks: list[NDArray[Any]]
    text: pd.DataFrame

    def values(self, *, transposed: bool) -> NDArray[Any]:
        """Return all values as they stand in the file, or transposed; the blocks are given up."""
        blocks, self.blocks = self.blocks, []
        return np.concatenate([block.T for block in blocks], axis=1) if transposed else np.concatenate(blocks)


def text_columns(header: list[str], body: list[list[str]]) -> list[int]:
    """Return the positions of columns, after the first, that hold text or describe genes."""
    names = [name.strip().casefold() for name in header]
    placed = any(name in {"chr", "chrom", "chromosome", "seqnames"} for name in names)
    found = []
    for position in range(1, len(header)):
        cells = [row[position] for row in body if position < len(row) and row[position].strip() not in _MISSING]
        numbers = sum(bool(_NUMBER.match(cell)) for cell in cells)
        described = names[position] in _DESCRIPTIONS or (placed and names[position] in _PLACES)
        if described or (cells and numbers < 0.5 * len(cells)):
            found.append(position)
    return found


def parse(head: Head, header: list[str], after: int, text: list[int], dialect: Dialect) -> Table:
    """Parse all lines of a file after a given one.

    Parameters
    ----------
    head
        The file's beginning.
    header
        Names of all columns; the first is that of the row names.
    after
        Number of the line before the first row.
    text
        Positions of columns that stay text.
    dialect
        How numbers are written.

    Raises
    ------
    ValueError
        If a row has more or fewer fields than the header, or a cell is no number; with line and column.
    """
    numeric = [i for i in range(1, len(header)) if i not in set(text)]
    if not numeric:
        message = f"{head.path} holds no column of numbers; its columns are {header[:8]}"
        raise ValueError(message)
    table = Table(head.path, header[0], [], [], [header[i] for i in numeric], [], pd.DataFrame())
    texts: list[list[str]] = []
    for batch in _batches(head, len(header), after, text, numeric):
        values = _numbers(batch.cells, dialect)
        fault = _fault(values, dialect)
        if fault is not None:
            row, column = divmod(fault[0], len(numeric))
            where = f"line {batch.lines[row]} (row {batch.rows[row]!r}), column {numeric[column] + 1}"
            message = f"{head.path}, {where} ({header[numeric[column]]!r}): {fault[1]}"
            raise ValueError(message)
        table.rows += batch.rows
        table.lines += batch.lines
        table.blocks.append(_compact(values.to_numpy()).reshape(-1, len(numeric)))
        texts += batch.texts
        if len(table.rows) > MAX_ROWS:
            message = f"{head.path} has more than {MAX_ROWS:,} rows: no table of genes and samples"
            raise ValueError(message)
    if not table.rows:
        message = f"{head.path} is empty below its header {header[:8]}"
        raise ValueError(message)
    table.text = pd.DataFrame(texts, columns=[header[i] for i in text], dtype=object)
    return table


@dataclass
class _Batch:
    """Some rows: numbers of their lines, their names, their texts, and their numbers, each on a line of its own."""

    lines: list[int]
    rows: list[str]
    texts: list[list[str]]
    cells: list[str]


def _batches(head: Head, width: int, after: int, text: list[int], numeric: list[int]) -> Iterator[_Batch]:
    """Yield the rows after a line, taken apart; each has ``width`` fields."""
    delimiter, leading = head.delimiter, text == list(range(1, len(text) + 1))
    batch, size = _Batch([], [], [], []), 0
    for number, whole in numbered_lines(head.path, head.encoding):
        line = whole.rstrip("\r\n")
        if number <= after or not line.strip():
            continue
        if leading and '"' not in line:
            found = line.count(delimiter) + 1
            *named, cells = line.split(delimiter, len(text) + 1) if found == width else [line]
            cells = cells.replace(delimiter, "\n")
        else:
            fields = split(line, delimiter)
            found = len(fields)
            named = [fields[i] for i in (0, *text)] if found == width else []
            cells = "\n".join(fields[i] for i in numeric) if found == width else ""
        if found != width:
            raise ValueError(_ragged(head, number, line, found, width))
        batch.lines.append(number)
        batch.rows.append(named[0])
        batch.texts.append(named[1:])
        batch.cells.append(cells)
        size += len(line)
        if size >= _BATCH:
            yield batch
            batch, size = _Batch([], [], [], []), 0
    if batch.lines:
        yield batch


def _numbers(cells: list[str], dialect: Dialect) -> pd.Series:
    """Return all cells as one column: one type is found for all, whatever the shape of the table."""
    return pd.read_csv(
        StringIO("\n".join([*cells, ""])),
        sep="\x1f",
        header=None,
        names=[0],
        na_values=_MISSING,
        keep_default_na=False,
        skip_blank_lines=False,
        quoting=csv.QUOTE_NONE,
        thousands=dialect.thousands,
        decimal=dialect.decimal,
        low_memory=False,
    )[0]


def _compact(values: NDArray[Any]) -> NDArray[Any]:
    """Return integers in 32 bits where they fit, and as floats where not even 64 bits hold them."""
    limit = np.iinfo(np.int32)
    if values.dtype.kind not in "if":
        return values.astype(np.float64)
    if values.dtype.kind == "i" and limit.min <= values.min() and values.max() <= limit.max:
        return values.astype(np.int32)
    return values


def _fault(values: pd.Series, dialect: Dialect) -> tuple[int, str] | None:
    """Return the position of the first cell that is no finite number, and what is wrong with it."""
    if values.dtype.kind in "iu":
        return None
    if values.dtype.kind == "f":
        wrong = np.isinf(values.to_numpy())
    else:
        parsed = pd.to_numeric(values.astype(object).map(_plain(dialect)), errors="coerce")
        wrong = (~np.isfinite(parsed) & values.notna()).to_numpy()
    if not wrong.any():
        return None
    cells = [str(cell) for cell in values[wrong]]
    return int(wrong.argmax()), f"{cells[0]!r} is no finite number; {_cure(cells[0], cells)}"


def _plain(dialect: Dialect) -> Any:
    """Return a function that rewrites a cell as Python writes numbers."""

    def rewrite(cell: Any) -> Any:
        if not isinstance(cell, str):
            # pandas reads TRUE and FALSE as truth values
            return "" if isinstance(cell, bool) else cell
        return cell.replace(dialect.thousands or "", "").replace(dialect.decimal, ".")

    return rewrite


def _cure(cell: str, cells: list[str]) -> str:
    """Say what to do about a cell that is no number."""
    if _THOUSANDS["."].match(cell) and ("," in cell or cell.count(".") > 1):
        return "digits are grouped with dots: pass thousands='.', decimal=','"
    if _DECIMAL_COMMA.match(cell):
        grouped = all(_THOUSANDS[","].match(other) for other in cells if "," in other)
        if grouped:
            return "pass thousands=',' if the comma groups digits, or decimal=',' if it separates a fraction"
        return "the comma separates a fraction: pass decimal=','"
    if _THOUSANDS[","].match(cell):
        return "the comma groups digits: pass thousands=','"
    spreadsheet = "a spreadsheet left this error; " if cell.startswith("#") else ""
    return f"{spreadsheet}correct it, or leave the cell empty if the value is missing"


def _ragged(head: Head, number: int, line: str, fields: int, width: int) -> str:
    found = split(line, head.delimiter)
    grouped = head.delimiter == "," and fields > width
    cure = (
        "if digits are grouped or fractions written with commas, quote those cells or separate columns with tabs"
        if grouped
        else "the line is cut short or holds a stray separator; correct it"
    )
    return (
        f"{head.path}, line {number} (row {found[0][:40]!r}): {fields} fields where the header has {width} "
        f"(separator {head.delimiter!r}); {cure}"
    )
