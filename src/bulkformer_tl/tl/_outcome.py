"""Time and event of each sample, from columns of ``obs``, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl.tl._columns import column

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Outcome:
    """What happened to the samples of an AnnData, and when.

    Parameters
    ----------
    time
        Until event or censoring, ``NaN`` where not known, shape (N,).
    event
        Whether the event happened, shape (N,).
    known
        Whether both are known, shape (N,).
    """

    time: NDArray[np.float64]
    event: NDArray[np.bool_]
    known: NDArray[np.bool_]


def read_outcome(adata: AnnData, time: str, event: str) -> Outcome:
    """Read the outcome of samples; those that lack the time or the event are not known.

    Parameters
    ----------
    adata
        Annotated samples.
    time
        Column of ``obs`` with times above 0.
    event
        Column of ``obs``: boolean, or 1 and 0.

    Raises
    ------
    KeyError
        If there is no such column.
    TypeError
        If it holds text.
    ValueError
        If a time is 0, negative or infinite, an event is neither 0 nor 1, or there is no event; the message names the
        column and a sample.
    """
    times = _numbers(adata, time, "time", "days as numbers, such as pd.to_numeric(column)")
    flags = _numbers(adata, event, "event", "booleans, such as column == 'dead'")
    known = ~(np.isnan(times) | np.isnan(flags))
    _refuse(adata, event, flags, known & ~np.isin(flags, [0, 1]), "use True or 1 for an event, False or 0 for none")
    # a flag of a sample that is never read need not be right, a time neither
    bad = known & ~((times > 0) & np.isfinite(times))
    _refuse(adata, time, times, bad, "times run from above 0; set it to NaN to leave the sample out, or mend it")
    if not known.any():
        message = f"no sample has both adata.obs[{time!r}] and adata.obs[{event!r}]; nothing can be learnt from them"
        raise ValueError(message)
    events = known & (flags == 1)
    if not events.any():
        message = f"adata.obs[{event!r}] (event) holds no event among {int(known.sum())} samples; all are censored"
        raise ValueError(message)
    return Outcome(times, events, known)


def _numbers(adata: AnnData, name: str, argument: str, wanted: str) -> NDArray[np.float64]:
    found: Any = column(adata, name, argument)
    # files keep missing booleans and texts as categories
    plain = found.astype(object)
    text = next((value for value in plain if isinstance(value, str)), None)
    if text is not None:
        message = f"adata.obs[{name!r}] ({argument}) holds the text {text!r}; it must be {wanted}"
        raise TypeError(message)
    numbers: NDArray[np.float64] = pd.to_numeric(plain).to_numpy(dtype=np.float64, na_value=np.nan)
    return numbers


def _refuse(adata: AnnData, name: str, values: NDArray[np.float64], bad: NDArray[np.bool_], mend: str) -> None:
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        message = (
            f"adata.obs[{name!r}] holds {int(bad.sum())} values such as {values[first]:.6g}, the first in sample "
            f"{adata.obs_names[first]!r}; {mend}"
        )
        raise ValueError(message)
