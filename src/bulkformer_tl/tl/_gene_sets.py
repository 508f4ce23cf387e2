"""Gene sets from a GMT file, a mapping or a table, read without trust."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Largest file that is read, in bytes; all of MSigDB is a tenth of it.
LARGEST = 2**28


def read_gene_sets(given: str | Path | Mapping[str, Iterable[str]]) -> pd.DataFrame:
    """Return sets as pairs: a row per set (``source``) and gene (``target``), each pair once.

    Parameters
    ----------
    given
        A GMT file, or names of sets and their genes.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If it is something else.
    ValueError
        If the file is no GMT file, a set occurs twice, or there is no set.
    """
    if isinstance(given, str | Path):
        sets = _read_gmt(Path(given))
    elif hasattr(given, "items"):
        single = next((name for name, genes in given.items() if isinstance(genes, str)), None)
        if single is not None:
            message = f"the gene set {single!r} is the text {given[single]!r}; pass a list of genes"
            raise TypeError(message)
        sets = {str(name): [str(gene) for gene in genes] for name, genes in given.items()}
    else:
        message = f"gene_sets is of type {type(given).__name__}; pass a GMT file or a dict of set name to genes"
        raise TypeError(message)
    pairs = [(name, gene) for name, genes in sets.items() for gene in dict.fromkeys(genes)]
    if not pairs:
        message = "gene_sets holds no set with a gene"
        raise ValueError(message)
    return pd.DataFrame(pairs, columns=["source", "target"])


def _read_gmt(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        message = f"there is no file {path}; pass a GMT file, as MSigDB offers, or a dict of set name to genes"
        raise FileNotFoundError(message)
    if path.stat().st_size > LARGEST:
        message = f"{path} has {path.stat().st_size:,} bytes, more than the {LARGEST:,} that a GMT file may have"
        raise ValueError(message)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        message = f"{path} is no text, so no GMT file; unpack it first if it is compressed"
        raise ValueError(message) from error
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *rest = (part.strip() for part in line.split("\t"))
        if not name or len(rest) < 2:
            message = (
                f"line {number} of {path} is {line[:60]!r}; each line of a GMT file is the name of a set, a "
                "description and its genes, separated by tabs"
            )
            raise ValueError(message)
        if name in sets:
            message = f"{path} holds the set {name!r} twice, the second time in line {number}; rename one"
            raise ValueError(message)
        sets[name] = [gene for gene in rest[1:] if gene]
    return sets
