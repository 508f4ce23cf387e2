"""What names look like: genes, row numbers, or genes that a spreadsheet turned into dates."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from bulkformer_tl._vocabulary import gene_table, symbol_table

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Names that are looked at to tell genes from samples.
_LOOKED_AT = 2000

_ENSEMBL = re.compile(r"ENS[A-Z]*[GT]\d{6,}")
_TRANSCRIPT = re.compile(r"^(ENS[A-Z]*T\d{6,}|[NX][MR]_\d+)")
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)"
_DATE = re.compile(
    rf"^(?:\d{{1,2}}-{_MONTH}(?:-\d{{2,4}})?|{_MONTH}-\d{{1,4}}"
    r"|\d{4}-\d\d-\d\d(?: 00:00:00)?|\d{1,2}/\d{1,2}/\d{2,4})$",
    re.IGNORECASE,
)
#: Days since 1900 of the years 1999 to 2035, as which a spreadsheet stores MARCH1 typed in any of them.
_SERIAL = re.compile(r"^(3[6-9]|4\d)\d{3}$")


@cache
def _symbols() -> frozenset[str]:
    return frozenset(str(symbol).upper() for symbol in symbol_table().index)


@cache
def _entrez() -> frozenset[str]:
    return frozenset(number for number in gene_table()["entrez"] if number)


def gene_share(names: Sequence[str]) -> float:
    """Return which share of the names are Ensembl ids, symbols (of any case), or genes that became dates."""
    looked_at = _some(names)
    return float(np.mean([_is_gene(name) for name in looked_at])) if looked_at else 0.0


def entrez_share(names: Sequence[str]) -> float:
    """Return which share of the names are Entrez gene numbers; small row numbers are some too."""
    looked_at = _some(names)
    return float(np.mean([name.strip() in _entrez() for name in looked_at])) if looked_at else 0.0


def transcript_share(names: Sequence[str]) -> float:
    """Return which share of the names are Ensembl or RefSeq transcripts."""
    looked_at = _some(names)
    return float(np.mean([bool(_TRANSCRIPT.match(name)) for name in looked_at])) if looked_at else 0.0


def spreadsheet_dates(names: Sequence[str]) -> list[int]:
    """Return the positions of names that a spreadsheet turned from gene symbols into dates (``1-Mar``, ``44621``)."""
    positions = [i for i, name in enumerate(names) if _DATE.match(name)]
    serials = [i for i, name in enumerate(names) if _SERIAL.match(name)]
    # five-digit names are dates only among names that are no numbers: Entrez ids are five-digit too
    digits = sum(name.isdigit() for name in names)
    return sorted(positions + serials) if serials and digits < 0.5 * len(names) else positions


def _is_gene(name: str) -> bool:
    text = name.strip().strip('"')
    if _ENSEMBL.search(text) or _DATE.match(text):
        return True
    return any(part.upper() in _symbols() for part in (text, *re.split(r"[|;]", text)[:1]) if not part.isdigit())


def _some(names: Sequence[str]) -> list[str]:
    step = max(1, len(names) // _LOOKED_AT)
    return [str(name) for name in names[::step]]
