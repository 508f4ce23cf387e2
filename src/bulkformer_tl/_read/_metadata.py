"""Sample metadata: the column that holds sample names is found by its values, and joined to the left."""

from __future__ import annotations

import logging
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bulkformer_tl._read._part import LISTED
from bulkformer_tl._read._text import full_header, numbered_lines, read_head, split

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger(__name__)


def read_frame(path: Path, encoding: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a small table as text, and with its types.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is empty, no text, or a line has more or fewer fields than the header.
    """
    if not path.is_file():
        message = f"there is no file {path}"
        raise FileNotFoundError(message)
    head = read_head(path, encoding)
    header = full_header(head)
    lines = []
    for number, line in numbered_lines(path, encoding):
        if number <= head.first or not line.strip():
            continue
        fields = len(split(line.rstrip("\r\n"), head.delimiter))
        if fields != len(header):
            message = f"{path}, line {number}: {fields} fields where the header has {len(header)}; correct the line"
            raise ValueError(message)
        lines.append(line)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        message = f"{path}: the columns {twice} occur more than once in the header; rename them"
        raise ValueError(message)
    text = "".join(lines)
    options: dict[str, Any] = {"sep": head.delimiter, "header": None, "names": header, "index_col": False}
    return pd.read_csv(StringIO(text), dtype=str, keep_default_na=False, **options), pd.read_csv(
        StringIO(text), low_memory=False, **options
    )


def join_metadata(adata: AnnData, metadata: str | Path | pd.DataFrame, encoding: str) -> None:
    """Join sample metadata to ``obs`` and add what matched to ``uns["read"]``.

    Raises
    ------
    ValueError
        If nothing matches, a sample has two different rows, or ``obs`` has a column of the same name.
    """
    if isinstance(metadata, pd.DataFrame):
        name, typed = "metadata", metadata.reset_index() if metadata.index.name else _with_index(metadata)
        text = typed.astype(str)
    else:
        name = str(metadata)
        text, typed = read_frame(Path(metadata), encoding)
    column, keys, trimmed = _matching(adata, text, name)
    rows = _one_row_each(typed, keys, set(adata.obs_names.str.strip() if trimmed else adata.obs_names), name, column)
    joined = rows.drop(columns=[column])
    known = [str(name) for name in joined.columns if name in adata.obs]
    if known:
        message = f"{name} has the columns {known}, which adata.obs has from the file already; rename or drop them"
        raise ValueError(message)
    wanted = adata.obs_names.str.strip() if trimmed else adata.obs_names
    joined.columns = pd.Index([str(label).replace("/", "_") or "unnamed" for label in joined.columns])
    obs: Any = adata.obs
    adata.obs = pd.concat([obs, joined.reindex(wanted).set_axis(adata.obs_names, axis=0)], axis=1)
    _report(adata, {"file": name, "column": column, "trimmed": trimmed}, wanted, rows.index, len(typed) - len(rows))


def _with_index(metadata: pd.DataFrame) -> pd.DataFrame:
    return metadata.rename_axis("index").reset_index() if "index" not in metadata else metadata


def _matching(adata: AnnData, text: pd.DataFrame, name: str) -> tuple[str, pd.Series, bool]:
    """Return the column that holds most sample names, its values, and whether white space was trimmed."""
    samples = set(adata.obs_names)
    stripped = {sample.strip() for sample in samples}
    for trimmed, wanted in ((False, samples), (True, stripped)):
        best, hits = "", 0
        for column in text.columns:
            values = text[column].str.strip() if trimmed else text[column]
            found = len(wanted.intersection(values))
            if found > hits:
                best, hits = str(column), found
        if hits:
            return best, text[best].str.strip() if trimmed else text[best], trimmed
    shown = {str(column): text[column].head(3).tolist() for column in text.columns[:6]}
    message = (
        f"no column of {name} holds a sample name. Samples are called {list(adata.obs_names[:3])} ..., the columns "
        f"hold {shown}; make one column equal to the sample names"
    )
    raise ValueError(message)


def _one_row_each(typed: pd.DataFrame, keys: pd.Series, samples: set[str], name: str, column: str) -> pd.DataFrame:
    """Return one row per key, indexed by it; equal rows are merged, different ones of a sample refused."""
    rows = typed.set_axis(pd.Index(keys.to_numpy(dtype=object)), axis=0)
    rows = rows[~rows.assign(**{column: rows.index}).duplicated().to_numpy()]
    twice = rows.index[rows.index.duplicated() & rows.index.isin(samples)]
    if len(twice):
        several = rows.loc[[twice[0]]].drop(columns=[column])
        differing = [str(label) for label in several if len(several[label].unique()) > 1]
        message = (
            f"{name} has {len(several)} rows for the sample {twice[0]!r}, which differ in {differing[:5]}; keep one "
            "row per sample"
        )
        raise ValueError(message)
    return rows[~rows.index.duplicated()]


def _report(adata: AnnData, report: dict[str, Any], samples: pd.Index, rows: pd.Index, n_duplicated: int) -> None:
    lacking = adata.obs_names[~samples.isin(rows)]
    spare = rows[~rows.isin(samples)]
    report |= {"n_matched": adata.n_obs - len(lacking), "n_duplicated_rows": n_duplicated}
    for label, names in (("samples_without_metadata", lacking), ("metadata_without_sample", spare)):
        report[f"n_{label}"] = len(names)
        if len(names):
            report[label] = [str(entry) for entry in names[:LISTED]]
            logger.warning("%s: %d %s, for example %s", report["file"], len(names), label, report[label][:3])
    adata.uns["read"]["metadata"] = report
    logger.info(
        "%d of %d samples have metadata, matched by the column %r", report["n_matched"], adata.n_obs, report["column"]
    )
