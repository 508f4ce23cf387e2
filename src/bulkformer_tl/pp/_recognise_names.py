"""Recognise what names of genes are, from the names alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl._vocabulary import gene_table, symbol_table

if TYPE_CHECKING:
    from bulkformer_tl._vocabulary import Identifiers

Kind = Literal["ensembl", "symbol", "entrez", "transcript", "other species", "other"]

#: Least share of names of one kind; tables of all genes hold clone names and spike-ins that no release knows.
MIN_SHARE = 0.4

#: Patterns of whole names, tried in this order.
_PATTERNS: dict[Kind, str] = {
    "ensembl": r"ENSG\d{11}(\.\d+)?(_PAR_Y)?",
    "transcript": r"ENST\d{11}(\.\d+)?|[NX][MR]_\d+(\.\d+)?",
    "other species": r"ENS(?!G\d)[A-Z]{3,}G\d{11}(\.\d+)?",
}
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
        return self.kind if self.kind in {"ensembl", "symbol"} else None

    @property
    def are_genes(self) -> bool:
        """Whether these are names of genes of any kind."""
        return self.kind != "other"


def recognise_names(names: pd.Index | pd.Series) -> Names:
    """Recognise Ensembl ids, symbols, Entrez ids, transcripts and Ensembl ids of other species.

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
    shares["entrez"] = 0.0 if _are_positions(text) else float(text.isin(_entrez()).mean())
    kind = max(shares, key=lambda k: shares[k])
    if shares[kind] >= MIN_SHARE:
        return Names(kind, shares[kind])
    # mouse, rat and others write the symbols of the same genes in lower case
    if float(text.str.upper().isin(symbol_table().index).mean()) >= MIN_SHARE:
        return Names("other species", float((text != text.str.upper()).mean()))
    return Names("other", 1 - shares[kind])


def count_versions(names: pd.Index) -> int:
    """Return how many names are Ensembl ids with a version."""
    return int(names.astype(str).str.fullmatch(r"ENSG\d{11}\.\d+(_PAR_Y)?").sum())


def count_dates(names: pd.Index) -> int:
    """Return how many symbols a spreadsheet turned into dates (``1-Mar`` for ``MARCHF1``)."""
    months = "Mar|Sep|Dec|Oct|Feb|Apr|Nov"
    return int(names.astype(str).str.fullmatch(rf"\d{{1,2}}-({months})|({months})-\d{{1,2}}").sum())


def find_mended_names(names: pd.Index, var: Any) -> str:
    """Return the expression of better names: a part of composite names, or a column of ``var``.

    Parameters
    ----------
    names
        Names that are neither Ensembl ids nor symbols.
    var
        Table of the genes; only its columns of text are looked at.

    Returns
    -------
    Python, for example ``adata.var["gene_symbol"].astype(str)``; empty where nothing better was found.
    """
    text = names.astype(str)
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
    return bool(text.str.isdecimal().all()) and len(set(np.diff(text.astype(np.int64)))) <= 1


@cache
def _entrez() -> frozenset[str]:
    ids = gene_table()["entrez"]
    return frozenset(ids[ids != ""].str.split().explode())
