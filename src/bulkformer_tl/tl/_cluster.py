"""Blocks of a dask array worked on where a dask client says, a few at a time."""

from __future__ import annotations

import pickle
import sys
from importlib import import_module
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import dense_rows
from bulkformer_tl._settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bulkformer_tl.tl._blocks import Work

#: Rows of a task; what is lost with a worker, and what a slow model is busy with between two looks at the bar.
TASK_ROWS = 16
#: Tasks that are under way for each thread of the workers.
TASKS_PER_THREAD = 4

#: A worker computes one task at a time, with its one model, while its other threads read.
_one_at_a_time = Lock()


def running_client(matrix: Any) -> Any:
    """Return the dask client of this process where the matrix is a dask array and there is one, else ``None``."""
    distributed = sys.modules.get("distributed")
    if distributed is None or not hasattr(matrix, "to_delayed"):
        return None
    try:
        return distributed.default_client()
    except ValueError:
        return None


def cluster_blocks(
    client: Any, matrix: Any, hidden: Any, work: Work, *, dtype: Any, wanted: NDArray[np.bool_], device: str | None
) -> Iterator[tuple[slice, Any]]:
    """Yield rows and what ``work`` says of them, in the order in which workers are done with them.

    Each chunk of rows is read by a worker and divided into tasks. Tasks of a worker that is lost go to another one, as
    does ``work``, which every worker holds once.

    Parameters
    ----------
    client
        Of :mod:`distributed`.
    matrix
        Dask array, (N, n_vars).
    hidden
        Boolean matrix of entries to treat as missing, any storage, or ``None``.
    work
        Called with rows and their values; sent once.
    dtype
        Of the values.
    wanted
        Samples to work on, shape (N,); tasks without any of them are left out.
    device
        Of the models, on each worker; ``None`` takes :attr:`bulkformer_tl.settings.device` of this process.

    Raises
    ------
    RuntimeError
        If a worker has another version of this package.
    """
    # neither is typed
    delayed: Any = import_module("dask").delayed
    as_completed: Any = import_module("distributed").as_completed
    _check_workers(client)
    held = _send(client, work, device)
    chunks = iter(_chunks(matrix, wanted))
    under_way = as_completed(with_results=True)
    n_under_way = 0
    while True:
        while n_under_way < TASKS_PER_THREAD * max(sum(client.nthreads().values()), 1):
            parts = next(chunks, None)
            if parts is None:
                break
            blocks = _rows_of(matrix, parts)
            masks = [None] * len(parts) if hidden is None else _masks(hidden, parts)
            tasks = [
                delayed(_compute, pure=False)(held, rows, block, mask, dtype)
                for rows, block, mask in zip(parts, blocks, masks, strict=True)
                if wanted[rows].any()
            ]
            under_way.update(client.compute(tasks))
            n_under_way += len(tasks)
        if not n_under_way:
            return
        _, found = next(under_way)
        n_under_way -= 1
        yield found


def _check_workers(client: Any) -> None:
    """Refuse workers that would compute something else, or wait for ever for what they cannot unpack."""

    def find_version() -> str:
        # goes as code and not by its name, since that may mean nothing there
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("bulkformer-tl")
        except PackageNotFoundError:
            return "none"

    here = find_version()
    for worker, there in client.run(find_version).items():
        if there != here:
            message = f"the dask worker {worker} has bulkformer-tl {there}, here it is {here}; install the same on both"
            raise RuntimeError(message)


def _chunks(matrix: Any, wanted: NDArray[np.bool_]) -> Iterator[list[slice]]:
    """Yield the rows of the tasks of each chunk that has wanted samples."""
    for start, stop in pairwise(np.r_[0, np.cumsum(matrix.chunks[0])].tolist()):
        if wanted[start:stop].any():
            yield [slice(first, min(first + TASK_ROWS, stop)) for first in range(start, stop, TASK_ROWS)]


def _rows_of(matrix: Any, parts: list[slice]) -> list[Any]:
    """Return rows of a dask array as one delayed block for each part."""
    sizes = tuple(part.stop - part.start for part in parts)
    rows = matrix[parts[0].start : parts[-1].stop].rechunk({0: sizes, 1: -1})
    return [block for (block,) in rows.to_delayed()]


def _masks(hidden: Any, parts: list[slice]) -> list[Any]:
    return (
        _rows_of(hidden, parts) if hasattr(hidden, "to_delayed") else [dense_rows(hidden, part, bool) for part in parts]
    )


def _compute(held: _Held, rows: slice, block: Any, mask: Any, dtype: Any) -> tuple[slice, Any]:
    values = dense_rows(block, slice(None), dtype)
    if mask is not None:
        values[dense_rows(mask, slice(None), bool)] = np.nan
    return rows, held(rows, values)


def _send(client: Any, work: Work, device: str | None) -> Any:
    """Return a future of the work on the workers; if all that hold it are lost the scheduler knows how to make it."""
    import dask

    chosen = settings.model_dump(exclude={"cache_dir", "progress"}) | {"device": device or settings.device}
    places = [model.device for model in work.models]
    try:
        # a worker may have no such device, or one of another number
        for model in work.models:
            model.to("cpu")
        packed = pickle.dumps(work)
    finally:
        for model, place in zip(work.models, places, strict=True):
            model.to(place)
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
        return client.submit(_Held, packed, chosen, pure=False)


class _Held:
    """The work on a worker, under the settings of the client."""

    def __init__(self, packed: bytes, chosen: dict[str, Any]) -> None:
        self._packed, self._chosen = packed, chosen
        self._work: Work = pickle.loads(packed)  # noqa: S301  the client sent it
        with _one_at_a_time, settings.override(**chosen):
            for model in self._work.models:
                model.to(None)

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another worker as it came."""
        return _Held, (self._packed, self._chosen)

    def __call__(self, rows: slice, values: NDArray[Any]) -> Any:
        with _one_at_a_time, settings.override(**self._chosen):
            return self._work(rows, values)
