"""Rows of text to numbers, in batches, with the line and column of every cell that is none."""

from __future__ import annotations

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
    kept = set(text) | {0}
    numeric = [i for i in range(len(header)) if i not in kept]
    if not numeric:
        message = f"{head.path} holds no column of numbers; its columns are {header[:8]}"
        raise ValueError(message)
    table = Table(head.path, header[0], [], [], [header[i] for i in numeric], [], pd.DataFrame())
    texts: list[pd.DataFrame] = []
    for lines, batch in _batches(head, len(header), after):
        frame = _frame(batch, head.delimiter, len(header), numeric, dialect)
        _check_numbers(frame.drop(columns=text), header, lines, head.path, dialect)
        table.rows += frame[0].tolist()
        table.lines += lines
        table.blocks.append(_compact(frame[numeric].to_numpy()))
        texts.append(frame[text])
        if len(table.rows) > MAX_ROWS:
            message = f"{head.path} has more than {MAX_ROWS:,} rows: no table of genes and samples"
            raise ValueError(message)
    if not table.rows:
        message = f"{head.path} is empty below its header {header[:8]}"
        raise ValueError(message)
    table.text = pd.concat(texts, ignore_index=True)
    table.text.columns = pd.Index([header[i] for i in text])
    return table


def _batches(head: Head, width: int, after: int) -> Iterator[tuple[list[int], str]]:
    """Yield the numbers of some lines and their text; each line has ``width`` fields."""
    numbers: list[int] = []
    batch: list[str] = []
    size = 0
    for number, line in numbered_lines(head.path, head.encoding):
        if number <= after or not line.strip():
            continue
        stripped = line.rstrip("\r\n")
        fields = stripped.count(head.delimiter) + 1 if '"' not in line else len(split(stripped, head.delimiter))
        if fields != width:
            raise ValueError(_ragged(head, number, stripped, fields, width))
        numbers.append(number)
        batch.append(line)
        size += len(line)
        if size >= _BATCH:
            yield numbers, "".join(batch)
            numbers, batch, size = [], [], 0
    if batch:
        yield numbers, "".join(batch)


def _frame(batch: str, delimiter: str, width: int, numeric: list[int], dialect: Dialect) -> pd.DataFrame:
    names: Any = set(range(width)) - set(numeric)
    numbers: Any = numeric
    return pd.read_csv(
        StringIO(batch),
        sep=delimiter,
        header=None,
        names=list(range(width)),
        index_col=False,
        dtype=dict.fromkeys(names, str),
        na_values=dict.fromkeys(numbers, _MISSING),
        keep_default_na=False,
        thousands=dialect.thousands,
        decimal=dialect.decimal,
        low_memory=False,
    )


def _compact(values: NDArray[Any]) -> NDArray[Any]:
    """Return integers in 32 bits where they fit."""
    limit = np.iinfo(np.int32)
    if values.dtype.kind in "iu" and values.size and limit.min <= values.min() and values.max() <= limit.max:
        return values.astype(np.int32)
    return values


def _check_numbers(frame: pd.DataFrame, header: list[str], lines: list[int], path: Path, dialect: Dialect) -> None:
    """Refuse the first cell, by line, that is no finite number; the first column names rows."""
    faults: list[tuple[int, int]] = []
    for column in map(int, frame.columns[1:]):
        values = frame[column]
        if values.dtype.kind in "iu":
            continue
        if values.dtype.kind == "f":
            wrong = np.isinf(values.to_numpy())
        else:
            parsed = pd.to_numeric(values.astype(object).where(values.notna()).map(_plain(dialect)), errors="coerce")
            wrong = (parsed.isna() & values.notna()).to_numpy()
        if wrong.any():
            faults.append((int(wrong.argmax()), column))
    if not faults:
        return
    row, column = min(faults)
    cells = [str(cell) for cell in frame[column] if pd.notna(cell)]
    cell = str(frame[column].iloc[row])
    message = (
        f"{path}, line {lines[row]} (row {frame[0].iloc[row]!r}), column {column + 1} ({header[column]!r}): "
        f"{cell!r} is no finite number; {_cure(cell, cells)}"
    )
    raise ValueError(message)


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
