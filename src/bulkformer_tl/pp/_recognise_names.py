"""Recognise what names of genes are, from the names alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl._vocabulary import entrez_table, symbol_table

if TYPE_CHECKING:
    from bulkformer_tl._vocabulary import Identifiers

Kind = Literal[
    "ensembl", "symbol", "entrez", "transcript", "mouse", "mouse symbol", "lower case", "other species", "other"
]
Species = Literal["human", "mouse", "other"]

#: Least share of names of one kind; tables of all genes hold clone names and spike-ins that no release knows.
MIN_SHARE = 0.4

#: Patterns of whole names, tried in this order.
_PATTERNS: dict[Kind, str] = {
    "ensembl": r"ENSG\d{11}(\.\d+)?(_PAR_Y)?",
    "transcript": r"ENST\d{11}(\.\d+)?|[NX][MR]_\d+(\.\d+)?",
    "mouse": r"ENSMUSG\d{11}(\.\d+)?",
    "other species": r"ENS(?!G\d|MUSG)[A-Z]{3,}G\d{11}(\.\d+)?",
}

#: Entrez ids of as many genes reach beyond this number; smaller ones count rows.
_MAX_POSITION, _MANY = 20_000, 50
_SEPARATORS = ("|", "_", ";", ":")


@dataclass(frozen=True)
class Names:
    """What names are.

    Parameters
    ----------
    kind
        The most frequent kind.
    share
        Share of names of that kind.
    """

    kind: Kind
    share: float

    @property
    def identifiers(self) -> Identifiers | None:
        """The value of ``identifiers=`` in other functions, ``None`` where they understand none of the names."""
        return self.kind if self.kind in {"ensembl", "symbol", "entrez"} else None

    @property
    def are_genes(self) -> bool:
        """Whether these are names of genes of any kind."""
        return self.kind != "other"

    @property
    def species(self) -> Species | None:
        """Whose genes these are; ``None`` where names do not tell."""
        if self.kind in {"mouse", "mouse symbol"}:
            return "mouse"
        if self.kind == "other species":
            return "other"
        return "human" if self.identifiers is not None else None


def recognise_names(names: pd.Index | pd.Series) -> Names:
    """Recognise Ensembl ids, symbols, Entrez ids, transcripts, and genes of mouse and other species.

    Parameters
    ----------
    names
        Any strings.

    Returns
    -------
    The kind to which at least 40 % of the names belong, ``"other"`` where there is none.
    """
    text = pd.Series(np.asarray(names, dtype=object)).astype(str)
    shares: dict[Kind, float] = {kind: float(text.str.fullmatch(p).mean()) for kind, p in _PATTERNS.items()}
    shares["symbol"] = float(text.isin(symbol_table().index).mean())
    # a column of few small numbers, such as the chromosome, is none of ids
    numbers = text[~text.duplicated()]
    shares["entrez"] = 0.0 if _are_positions(text) else float(numbers.isin(entrez_table().index).sum() / len(text))
    kind = max(shares, key=lambda k: shares[k])
    if shares[kind] >= MIN_SHARE:
        return Names(kind, shares[kind])
    # mouse and rat write Actb where human writes ACTB, and C1orf43 is human
    known = text.str.upper().isin(symbol_table().index) & (text != text.str.upper())
    if float(known.mean()) >= MIN_SHARE:
        capitalised = float(text[known].str.fullmatch(r"[A-Z][a-z0-9-]*|mt-.*|H2-.*").mean())
        return Names("mouse symbol" if capitalised > 0.5 else "lower case", float(known.mean()))
    return Names("other", 1 - shares[kind])


def count_versions(names: pd.Index) -> int:
    """Return how many names are Ensembl ids with a version."""
    return int(names.astype(str).str.fullmatch(r"ENSG\d{11}\.\d+(_PAR_Y)?").sum())


def count_mouse(names: pd.Index) -> int:
    """Return how many names are Ensembl ids of mouse."""
    return int(names.astype(str).str.fullmatch(_PATTERNS["mouse"]).sum())


def count_dates(names: pd.Index) -> int:
    """Return how many symbols a spreadsheet turned into dates (``1-Mar`` for ``MARCHF1``)."""
    months = "Mar|Sep|Dec|Oct|Feb|Apr|Nov"
    return int(names.astype(str).str.fullmatch(rf"\d{{1,2}}-({months})|({months})-\d{{1,2}}").sum())


def find_mended_names(names: pd.Index, var: Any) -> str:
    """Return the expression of better names: a part of composite names, or a column of ``var``.

    Parameters
    ----------
    names
        Names that no function understands.
    var
        Table of the genes; only its columns of text are looked at.

    Returns
    -------
    Python, for example ``adata.var["gene_symbol"].astype(str)``; empty where nothing better was found.
    """
    text = names.astype(str)
    # a table that was read as numbers turns 7157 into 7157.0
    if recognise_names(text.str.removesuffix(".0")).kind == "entrez":
        return "adata.var_names.str.removesuffix('.0')"
    for separator in _SEPARATORS:
        if text.str.contains(separator, regex=False).mean() < MIN_SHARE:
            continue
        for part in (0, 1):
            if recognise_names(pd.Series(text.str.split(separator).str[part])).identifiers is not None:
                return f"adata.var_names.str.split({separator!r}).str[{part}]"
    found = {column: recognise_names(var[column]) for column in var if var[column].dtype.kind not in "biufc"}
    usable = {column: n for column, n in found.items() if n.identifiers is not None}
    if not usable:
        return ""
    best = min(usable, key=lambda column: (usable[column].kind != "ensembl", -usable[column].share))
    return f"adata.var[{best!r}].astype(str)"


def _are_positions(text: pd.Series) -> bool:
    """Return whether names only count the columns, as a table without names gives them."""
    # ids of twelve and more digits are none of Entrez
    if not text.str.fullmatch(r"\d{1,12}").all():
        return False
    numbers = text.astype(np.int64)
    return len(set(np.diff(numbers))) <= 1 or bool(len(text) >= _MANY and numbers.max() < _MAX_POSITION)
