"""Tables of lines by columns (drugs, genes) that a user hands over, checked and put into the order of the samples."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from bulkformer_tl.metrics._check import as_labels
from bulkformer_tl.metrics._duplicates import _join
from bulkformer_tl.tl._columns import column
from bulkformer_tl.tl._samples import _read_groups

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol

logger = logging.getLogger(__name__)


class Table(NamedTuple):
    """What is measured of each sample.

    Parameters
    ----------
    known
        Shape (N, M), ``NaN`` where not measured; 0 and 1 for classes.
    columns
        Names of the columns.
    classes
        Whether it holds classes.
    lines
        Name of the line of each sample, shape (N,).
    """

    known: NDArray[np.float64]
    columns: list[str]
    classes: bool
    lines: NDArray[np.object_]


def read_table(parts: list[AnnData], table: Any, *, lines: str | None, name: str, kind: str) -> Table:
    """Put a table of lines by columns into the order of the samples.

    Parameters
    ----------
    parts
        A reference, if there is one, and the samples to predict.
    table
        One row per line; numbers, or booleans for classes.
    lines
        Column of ``obs`` that names the line of each sample; ``None`` takes ``obs_names``.
    name
        What the table is called, for messages.
    kind
        What its columns are, for messages.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it does not fit; the message says what was found and what to do.
    """
    if not isinstance(table, pd.DataFrame):
        message = f"{name} is {type(table).__name__}; pass a data frame of lines by {kind}s, or a key"
        raise TypeError(message)
    for axis, labels in (("lines", table.index), (f"{kind}s", table.columns)):
        if not labels.is_unique:
            message = (
                f"{name} lists {axis} twice, such as {labels[labels.duplicated()][0]!r}; average them first, as with "
                f"{name}.groupby(level=0).mean()"
            )
            raise ValueError(message)
    values, classes = _numbers(table, name, kind)
    names = np.concatenate([line_names(part, lines) for part in parts])
    known = _match(values, pd.Index(table.index.astype(str)), names, lines, name)
    measured = ~np.isnan(known)
    _check_measured(known, measured, name, kind)
    kept = measured.any(axis=0)
    if not kept.all():
        logger.info("%s: %d of %d %ss are measured in no sample and left out", name, (~kept).sum(), len(kept), kind)
    return Table(known[:, kept], [str(column) for column in table.columns[kept]], classes, names)


def _numbers(table: pd.DataFrame, name: str, kind: str) -> tuple[NDArray[np.float64], bool]:
    flat = table.to_numpy(dtype=object).ravel()
    flat = flat[~pd.isna(flat)]
    text = next((value for value in flat if isinstance(value, str)), None)
    if text is not None:
        message = (
            f"{name} holds {text!r}; it has to be lines by {kind}s, with numbers or booleans. A long table becomes one "
            f'by .pivot(index="line", columns="{kind}", values="value"), classes become booleans by .isin([...])'
        )
        raise TypeError(message)
    booleans = [isinstance(value, bool | np.bool_) for value in flat]
    if any(booleans) and not all(booleans):
        message = f"{name} mixes booleans with numbers; make it one of them"
        raise TypeError(message)
    values = table.astype(object).where(~table.isna(), np.nan).to_numpy(dtype=np.float64)
    if np.isinf(values).any():
        at = np.argwhere(np.isinf(values))[0]
        message = (
            f"{name} is infinite for {table.index[at[0]]!r} and {table.columns[at[1]]!r}; set it to NaN, or clip it"
        )
        raise ValueError(message)
    if not any(booleans) and set(flat.tolist()) == {0, 1}:
        message = f'{name} holds nothing but 0 and 1; pass {name}.astype("boolean") if these are classes'
        raise TypeError(message)
    return values, bool(booleans) and all(booleans)


def line_names(adata: AnnData, lines: str | None) -> NDArray[np.object_]:
    """Return the name of the line of each sample, shape (n_obs,)."""
    found = adata.obs_names.to_series() if lines is None else column(adata, lines, "lines")
    if found.isna().any():
        message = f"adata.obs[{lines!r}] (lines) is missing in {int(found.isna().sum())} samples; fill it in"
        raise ValueError(message)
    names: NDArray[np.object_] = found.astype(str).to_numpy(dtype=object)
    return names


def _match(
    values: NDArray[np.float64], index: pd.Index, names: NDArray[np.object_], lines: str | None, name: str
) -> NDArray[np.float64]:
    at = index.get_indexer(pd.Index(names))
    where = "adata.obs_names" if lines is None else f"adata.obs[{lines!r}]"
    if (at < 0).all():
        message = (
            f"none of {len(names)} samples is in the index of {name}: {where} holds {names[:3].tolist()}, {name} "
            f"{index[:3].tolist()}. Pass lines=, the column of obs that names lines as {name} does, or rename its index"
        )
        raise ValueError(message)
    if (at < 0).any():
        absent = pd.unique(names[at < 0])
        logger.info("%s: no row for %d of %d samples, such as %s", name, (at < 0).sum(), len(at), absent[:3].tolist())
    known = values[at]
    known[at < 0] = np.nan
    return known


def _check_measured(known: NDArray[np.float64], measured: NDArray[np.bool_], name: str, kind: str) -> None:
    if not measured.any():
        message = f"{name} holds no value for any sample of adata; look for NaN, and at its index"
        raise ValueError(message)
    found = known[measured]
    if np.ptp(found) == 0:
        message = f"{name} is constant ({found[0]:.6g}); there is nothing to predict"
        raise ValueError(message)
    if measured.any(axis=0).sum() < 2:
        message = f"{name} has one {kind} with values; bf.tl.regress predicts a single column of obs"
        raise ValueError(message)


def line_groups(
    parts: list[AnnData],
    table: Table,
    *,
    groups: str | None,
    values: NDArray[np.float32] | None,
    protocol: Protocol,
) -> NDArray[np.intp]:
    """Join samples of one line, of one group and near-duplicates; a sample without any of it is by itself, (N,)."""
    labelled = ~np.isnan(table.known).all(axis=1)
    of_line, _ = as_labels(table.lines, "lines")
    joined = of_line if groups is None else _read_groups(parts, groups, labelled)
    _, first, line = np.unique(of_line, return_index=True, return_inverse=True)
    joined = _join(joined, first[line], np.arange(len(of_line)))
    if values is not None:
        joined = np.asarray(protocol.grouping(values, joined), dtype=np.intp)
    return joined
