"""Blocks of samples on their way: read ahead, worked on, written behind."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from bulkformer_tl._anndata import BLOCK_ROWS, row_blocks
from bulkformer_tl.tl._cluster import cluster_blocks, running_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from bulkformer_tl.models import Encoder

#: Blocks that wait for the next step, on either side of the computation.
WAITING = 2


class Work(Protocol):
    """What is done with samples, here or in another process, where it goes by :mod:`pickle`."""

    @property
    def models(self) -> list[Encoder]:
        """Those that it runs, to be moved to a device."""

    def __call__(self, rows: slice, values: NDArray[Any], /) -> Any:
        """Take positions of samples and their values, (n, n_vars), ``NaN`` where missing."""


def visible_blocks(
    matrix: Any, hidden: Any, *, dtype: Any = np.float32, size: int = BLOCK_ROWS
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield dense blocks of rows with the hidden entries set to ``NaN``."""
    blocks = row_blocks(matrix, dtype=dtype, size=size)
    if hidden is None:
        yield from blocks
        return
    for (rows, block), (_, mask) in zip(blocks, row_blocks(hidden, dtype=bool, size=size), strict=True):
        block[mask] = np.nan
        yield rows, block


def each_block(
    matrix: Any,
    hidden: Any,
    work: Work,
    *,
    dtype: Any = np.float32,
    step: int = BLOCK_ROWS,
    wanted: NDArray[np.bool_] | None = None,
    device: str | None = None,
) -> Iterator[tuple[slice, Any]]:
    """Yield rows and what ``work`` says of them, while a thread reads the next ones.

    A dask array is worked on by the workers of the running dask client, if there is one; rows then come in any order.

    Parameters
    ----------
    matrix
        Shape (N, n_vars), any storage.
    hidden
        Boolean matrix of entries to treat as missing, or ``None``.
    work
        Called with rows and their values.
    dtype
        Of the values.
    step
        Rows of a call; the last one of a block may have fewer.
    wanted
        Samples to work on, shape (N,); calls without any of them are left out.
    device
        Of the models on dask workers; ``None`` takes :attr:`bulkformer_tl.settings.device`.
    """
    if wanted is None:
        wanted = np.ones(matrix.shape[0], dtype=bool)
    if (client := running_client(matrix)) is not None:
        yield from cluster_blocks(client, matrix, hidden, work, dtype=dtype, wanted=wanted, device=device)
        return
    for rows, block in read_ahead(visible_blocks(matrix, hidden, dtype=dtype)):
        for start in range(rows.start, rows.stop, step):
            part = slice(start, min(start + step, rows.stop))
            if wanted[part].any():
                yield part, work(part, block[part.start - rows.start : part.stop - rows.start])


def read_ahead[T](items: Iterable[T]) -> Iterator[T]:
    """Yield items while a thread makes the next ones."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="read") as thread:
        waiting = deque(thread.submit(next, iterator, end) for _ in range(WAITING))
        while (item := waiting.popleft().result()) is not end:
            yield cast("T", item)
            waiting.append(thread.submit(next, iterator, end))


@contextmanager
def write_behind(write: Callable[..., object]) -> Iterator[Callable[..., None]]:
    """Offer a function that hands its arguments to ``write`` in a thread; all is written when the context ends.

    An error of ``write`` is raised at one of the next calls, or at the end.
    """
    waiting: deque[Future[object]] = deque()

    def later(*arguments: Any) -> None:
        while len(waiting) >= WAITING:
            waiting.popleft().result()
        waiting.append(thread.submit(write, *arguments))

    with ThreadPoolExecutor(1, thread_name_prefix="write") as thread:
        yield later
        while waiting:
            waiting.popleft().result()
