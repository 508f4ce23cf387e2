"""From a cohort to results of its samples, wherever either lies: in memory, on disk, on a dask cluster."""

from __future__ import annotations

import hashlib
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import BLOCK_ROWS, float_dtype
from bulkformer_tl._progress import Progress
from bulkformer_tl._settings import settings
from bulkformer_tl.tl._blocks import each_block, write_behind
from bulkformer_tl.tl._results import InMemory, InStore, hash_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from anndata import AnnData

    from bulkformer_tl.tl._blocks import Work
    from bulkformer_tl.tl._input import ModelInput
    from bulkformer_tl.tl._results import Results
    from bulkformer_tl.tl._zarr_output import ZarrOutput

#: Seconds after which results are written although their block is not complete.
PATIENCE = 30.0


def check_output(output: ZarrOutput | None, *, copy: bool) -> None:
    """Refuse, before any work, an output that cannot be written, or that a copy is asked for as well.

    Raises
    ------
    ValueError
        If ``copy`` is asked for, or the path is no zarr store.
    FileNotFoundError, FileExistsError
        If it cannot be written.
    """
    if output is None:
        return
    if copy:
        message = "output= writes to a file and leaves adata as it is; leave out copy=True, or output="
        raise ValueError(message)
    output.check()


def place_for(
    output: ZarrOutput | None, adata: AnnData, given: ModelInput, function: str, arguments: Mapping[str, Any]
) -> InMemory | InStore:
    """Return where results go: to memory, or to a store that knows what they are made from.

    Parameters
    ----------
    output
        The store, or ``None``.
    adata
        The samples.
    given
        The cohort as the model sees it, its values hashed.
    function, arguments
        What is computed, and what else decides the results.
    """
    if output is None:
        return InMemory(adata.n_obs)
    names = "\n".join([*map(str, adata.obs_names), "", *map(str, adata.var_names)])
    facts = {
        **{
            name: value if isinstance(value, str | int | float) else hash_plain(value)
            for name, value in arguments.items()
        },
        "function": function,
        "model": f"{given.model.name} {given.model.checksum}",
        # not every family has ways to compute
        "engine": repr(getattr(given.model, "options", None)),
        "external": hash_plain(given.external),
        "samples": adata.n_obs,
        "genes": adata.n_vars,
        "names": hashlib.sha256(names.encode()).hexdigest(),
        "values": given.seen.digest,
        "device": given.model.device.type,
        "version": version("bulkformer-tl"),
    }
    return InStore(output, facts, adata.n_obs)


def compute(
    given: ModelInput,
    work: Work,
    place: InMemory | InStore,
    description: str,
    *,
    batch_size: int | None,
    device: str | None,
) -> None:
    """Compute the results of all samples that are not there yet; reading, computing and writing overlap.

    Parameters
    ----------
    given
        The cohort.
    work
        Takes rows and their values, and returns results.
    place
        Takes them.
    description
        For the progress bar.
    batch_size
        Samples at once on a GPU. On the CPU it is one, so that results do not depend on it.
    device
        What the caller was told.
    """
    step = 1 if given.model.device.type == "cpu" else batch_size or settings.batch_size
    dtype = float_dtype(given.matrix)
    parts = each_block(given.matrix, given.hidden, work, dtype=dtype, step=step, wanted=place.wanted, device=device)
    with Progress(int(place.wanted.sum()), description) as progress, write_behind(place.write) as write:
        for rows, results in _joined(_counted(parts, progress)):
            write(rows, results)


def _counted(parts: Iterable[tuple[slice, Results]], progress: Progress) -> Iterator[tuple[slice, Results]]:
    for rows, results in parts:
        yield rows, results
        progress.update(rows.stop - rows.start)


def _joined(parts: Iterable[tuple[slice, Results]]) -> Iterator[tuple[slice, Results]]:
    """Join results of neighbouring samples to those of a block, or of as many as were there in time."""
    held: list[tuple[slice, Results]] = []
    since = time.monotonic()
    for part in parts:
        if held and (held[-1][0].stop != part[0].start or time.monotonic() - since > PATIENCE):
            yield _join(held)
            held = []
        if not held:
            since = time.monotonic()
        held.append(part)
        if part[0].stop % BLOCK_ROWS == 0:
            yield _join(held)
            held = []
    if held:
        yield _join(held)


def _join(held: list[tuple[slice, Results]]) -> tuple[slice, Results]:
    slots = held[0][1]
    results = {slot: np.concatenate([part[slot] for _, part in held]) for slot in slots}
    return slice(held[0][0].start, held[-1][0].stop), results
