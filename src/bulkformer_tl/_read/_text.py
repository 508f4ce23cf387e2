"""Text behind any compression: the head of a file, and its lines with their numbers; nothing is trusted."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import TextIOWrapper
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: A line longer than this (characters), or a table of more rows, is no expression table but a mistake or a bomb.
MAX_LINE = 1 << 26
MAX_ROWS = 2_000_000

#: Lines that are looked at to recognise a layout; of wide tables fewer, once this many characters were seen.
HEAD_LINES, _FEWER, _ENOUGH = 60, 4, 1 << 20

_OPENERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_FOREIGN = {
    b"PK\x03\x04": "a zip archive (an Excel workbook is one); save the sheet as csv, or unpack it first",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save the sheet as csv first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first, or use gzip",
    b"RDX": "an R object; write the table from R with write.csv first",
    b"PAR1": "a parquet file; write it as csv first",
    b"%PDF": "a PDF",
    b"\x80\x04": "a Python pickle, which is never opened; write the table as csv first",
    b"\x80\x05": "a Python pickle, which is never opened; write the table as csv first",
    b"BAM\x01": "an alignment (BAM); count reads per gene first",
    b"\x93NUMPY": "a numpy array, which has no names; write a csv with gene and sample names first",
}
_DELIMITERS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar", " ": "space"}


#: What the column of row names is called; a header that starts so is not one that R wrote without it.
_CORNERS = {
    *("", "gene", "genes", "gene_id", "geneid", "gene id", "gene_name", "gene_symbol", "symbol", "ensembl_id", "id"),
    *(
        "name",
        "feature",
        "probe",
        "target_id",
        "sample",
        "samples",
        "sample_id",
        "sampleid",
        "sample id",
        "run",
        "index",
    ),
}


@dataclass(frozen=True)
class Head:
    """The first lines of a text file.

    Parameters
    ----------
    path
        The file.
    encoding
        Of its text.
    comments
        Leading lines that start with ``#``.
    lines
        Lines after them, without line ends and blank lines.
    delimiter
        What separates fields.
    first
        Number of the first of ``lines`` in the file, from 1.
    """

    path: Path
    encoding: str
    comments: list[str]
    lines: list[str]
    delimiter: str
    first: int

    @cached_property
    def rows(self) -> list[list[str]]:
        """The lines, split into fields."""
        return [split(line, self.delimiter) for line in self.lines]

    @property
    def header(self) -> list[str]:
        """Fields of the first line."""
        return self.rows[0]


def full_header(head: Head) -> list[str]:
    """Return the names of all columns; R leaves out that of the row names.

    Raises
    ------
    ValueError
        If every row ends with a separator that the header does not have: values would move one column to the right.
    """
    header, *rows = head.rows
    header = [name.strip() for name in header]
    if not rows or any(len(row) != len(header) + 1 for row in rows) or header[0].casefold() in _CORNERS:
        return header
    if all(not row[-1].strip() for row in rows):
        message = f"{head.path}: every row ends with {head.delimiter!r} but the header does not; remove the last one"
        raise ValueError(message)
    return ["", *header]


def split(line: str, delimiter: str) -> list[str]:
    """Return the fields of a line; quotes are heeded."""
    if '"' not in line:
        return line.split(delimiter)
    return next(csv.reader([line], delimiter=delimiter))


def read_head(path: Path, encoding: str) -> Head:
    """Return the first lines of a file and what separates their fields.

    Raises
    ------
    ValueError
        If the file is empty, no text, or cannot be decoded.
    """
    comments: list[str] = []
    lines: list[str] = []
    first = size = 0
    for number, line in numbered_lines(path, encoding):
        if line.startswith("#") and not lines:
            comments.append(line.rstrip("\r\n"))
        elif line.strip():
            first = first or number
            lines.append(line.rstrip("\r\n"))
            size += len(line)
        if len(lines) >= HEAD_LINES or (len(lines) >= _FEWER and size > _ENOUGH):
            break
    if not lines:
        message = f"{path} is empty: it holds no table" + (f", only {len(comments)} comment lines" if comments else "")
        raise ValueError(message)
    delimiter = _delimiter(lines)
    # "#gene<tab>S1" is a header, not a comment, where the rows have as many fields
    last = comments[-1].lstrip("#") if comments else ""
    fields = len(split(lines[0], delimiter))
    if fields > 1 and len(split(last, delimiter)) == fields:
        lines.insert(0, last)
        comments.pop()
        first -= 1
    return Head(path, encoding, comments, lines, delimiter, first)


def numbered_lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Yield the number (from 1) and the text of every line, with its line end.

    Raises
    ------
    ValueError
        If the file is no text, cannot be decoded, is cut short, or a line has no end in sight.
    """
    number = 0
    try:
        with _open(path, encoding) as handle:
            while line := handle.readline(MAX_LINE):
                number += 1
                if len(line) == MAX_LINE:
                    message = f"{path}, line {number}: more than {MAX_LINE:,} characters without a line end; no table"
                    raise ValueError(message)
                if "\0" in line:
                    raise ValueError(_binary(path, line))
                yield number, line
    except UnicodeDecodeError as error:
        line_number = number + 1 + error.object[: error.start].count(b"\n")
        message = (
            f"{path}, line {line_number}: the byte 0x{error.object[error.start]:02x} is no {encoding}; "
            "pass encoding=, for example 'latin-1' or 'utf-16'"
        )
        raise ValueError(message) from error
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        message = f"{path}: the compressed file is damaged or cut short after line {number} ({error}); get it again"
        raise ValueError(message) from error


@contextmanager
def _open(path: Path, encoding: str) -> Iterator[TextIOWrapper]:
    """Open text whatever its compression, which its first bytes tell."""
    with path.open("rb") as raw:
        start = raw.read(8)
        raw.seek(0)
        for magic, what in _FOREIGN.items():
            if start.startswith(magic):
                message = f"{path} is {what}"
                raise ValueError(message)
        opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
        stream = raw if opener is None else opener(raw)
        with TextIOWrapper(stream, encoding="utf-8-sig" if encoding == "utf-8" else encoding) as handle:
            yield handle


def _binary(path: Path, line: str) -> str:
    if line.count("\0") * 3 >= len(line):
        return f"{path} looks like UTF-16; pass encoding='utf-16'"
    return f"{path} is no text: it holds zero bytes. Count tables (csv, tsv), h5ad and zarr can be read"


def _delimiter(lines: list[str]) -> str:
    """Return the delimiter that splits most lines into the same number of fields."""

    def quality(delimiter: str) -> tuple[float, int]:
        counts = [len(split(line, delimiter)) for line in lines]
        common = max(set(counts), key=lambda count: (counts.count(count), count))
        return (counts.count(common) / len(counts) if common > 1 else 0.0, common)

    qualities = {delimiter: quality(delimiter) for delimiter in _DELIMITERS}
    best = max(share for share, _ in qualities.values())
    # tabs and semicolons beat the commas inside numbers and names, and the spaces inside names
    for delimiter in ("\t", ";"):
        if qualities[delimiter][0] > 0.5:
            return delimiter
    good = [delimiter for delimiter, (share, _) in qualities.items() if share >= 0.9 * best]
    return next(delimiter for delimiter in _DELIMITERS if delimiter in good)
