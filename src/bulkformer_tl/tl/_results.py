"""Where results of samples are put while they are computed: arrays in memory, or a zarr store that can be resumed."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from bulkformer_tl._anndata import BLOCK_ROWS, write_results
from bulkformer_tl._unfinished import remove, replacing, take_place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from bulkformer_tl.tl._zarr_output import ZarrOutput

    #: Slot -> results of consecutive samples, (n, width).
    Results = Mapping[str, NDArray[Any]]

logger = logging.getLogger(__name__)

#: Bytes of a chunk of the store, about.
CHUNK_BYTES = 2**20


class InMemory:
    """Results of N samples as arrays.

    Parameters
    ----------
    n_obs
        Number of samples.
    """

    def __init__(self, n_obs: int) -> None:
        self.wanted = np.ones(n_obs, dtype=bool)
        self.arrays: dict[str, NDArray[Any]] = {}

    def write(self, rows: slice, results: Results) -> None:
        """Take the results of some samples."""
        for slot, values in results.items():
            if slot not in self.arrays:
                self.arrays[slot] = np.empty((len(self.wanted), values.shape[1]), dtype=values.dtype)
            self.arrays[slot][rows] = values

    def finish(
        self, adata: AnnData, key: str, results: Mapping[str, Any], params: Mapping[str, Any], extra: Mapping[str, Any]
    ) -> None:
        """Write everything to ``adata``."""
        write_results(adata, key, {**self.arrays, **results}, params, extra)


class InStore:
    """Results of N samples in a store that is renamed when it is complete.

    The unfinished folder holds the store, ``facts.json``, which says what the run is made from, and ``journal.jsonl``
    with a line for each part that was written: its rows and the SHA-256 of its results. A part is taken over if the
    store holds what its line says, so that it does not matter when and how a run was stopped.

    Parameters
    ----------
    output
        Where to.
    facts
        What decides the results: plain values, as JSON holds them.
    n_obs
        Number of samples.

    Raises
    ------
    ValueError
        If the unfinished run is another one, and may not be dropped.
    """

    def __init__(self, output: ZarrOutput, facts: Mapping[str, Any], n_obs: int) -> None:
        self._output = output
        self._store = output.unfinished / "store.zarr"
        self._journal = output.unfinished / "journal.jsonl"
        self.wanted = np.ones(n_obs, dtype=bool)
        # values as they come back from the file
        if not self._resumes(json.loads(json.dumps(facts))):
            remove(output.unfinished)
            self._store.mkdir(parents=True)
            with replacing(output.unfinished / "facts.json") as path:
                path.write_text(json.dumps(facts, indent=2), encoding="utf-8")
            AnnData(shape=(n_obs, 0)).write_zarr(self._store)
        self._group = self._open()
        for start, stop, digest in self._noted():
            rows = slice(start, stop)
            if self._digest({slot: self._group[slot][rows] for slot in self._slots}) == digest:
                self.wanted[rows] = False
        if n_done := int((~self.wanted).sum()):
            logger.info("going on with %s: %d of %d samples are there", output.unfinished, n_done, n_obs)

    def write(self, rows: slice, results: Results) -> None:
        """Write the results of some samples, then note that they are there."""
        for slot, values in results.items():
            if slot not in self._group:
                self._create(slot, values)
            self._group[slot][rows] = values
        line = json.dumps([rows.start, rows.stop, self._digest(results)])
        with self._journal.open("a", encoding="utf-8") as file:
            # a run that was killed may have left half a line
            file.write("\n" + line)

    def finish(
        self, adata: AnnData, key: str, results: Mapping[str, Any], params: Mapping[str, Any], extra: Mapping[str, Any]
    ) -> None:
        """Add ``obs``, ``var`` and ``uns`` of ``adata`` with the results, and give the store its name."""
        import zarr
        from anndata.io import write_elem

        annotation = annotation_of(adata)
        wrote = sorted([*self._slots, *results])
        write_results(annotation, key, results, {**params, "wrote": wrote}, extra)
        for name in ("obs", "var", "uns"):
            write_elem(self._group, name, getattr(annotation, name))
        with warnings.catch_warnings():
            # what anndata writes is consolidated as well
            warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
            zarr.consolidate_metadata(self._group.store)
        self._output.check_target()
        take_place(self._store, self._output.target)
        remove(self._output.unfinished)
        logger.info("wrote %s", self._output.target)

    def _resumes(self, facts: Mapping[str, Any]) -> bool:
        path = self._output.unfinished / "facts.json"
        if not (self._output.resume and path.is_file()):
            return False
        found = json.loads(path.read_text(encoding="utf-8"))
        differs = sorted(name for name in {*facts, *found} if facts.get(name) != found.get(name))
        if differs and not self._output.overwrite:
            what = "; ".join(f"{name} was {found.get(name)} and is {facts.get(name)}" for name in differs)
            message = (
                f"{self._output.unfinished} holds an unfinished run of something else ({what}); repeat that call, or "
                f"pass output=bf.tl.ZarrOutput({str(self._output.target)!r}, overwrite=True) to drop it and begin anew"
            )
            raise ValueError(message)
        return not differs

    def _open(self) -> Any:
        import zarr

        return zarr.open_group(self._store, mode="r+", use_consolidated=False)

    @property
    def _slots(self) -> list[str]:
        return sorted(
            f"{container}/{name}" for container in ("layers", "obsm") for name in self._group[container].array_keys()
        )

    def _create(self, slot: str, values: NDArray[Any]) -> None:
        row_bytes = values.shape[1] * values.dtype.itemsize
        rows = BLOCK_ROWS * max(1, CHUNK_BYTES // (BLOCK_ROWS * max(row_bytes, 1)))
        shape = (len(self.wanted), values.shape[1])
        chunks = (min(rows, shape[0]), max(shape[1], 1))
        encoding = {"encoding-type": "array", "encoding-version": "0.2.0"}
        self._group.create_array(slot, shape=shape, dtype=values.dtype, chunks=chunks, attributes=encoding)

    def _noted(self) -> Iterator[tuple[int, int, str]]:
        if not self._journal.is_file():
            return
        for line in self._journal.read_text(encoding="utf-8").splitlines():
            try:
                start, stop, digest = json.loads(line)
            except ValueError:
                continue
            yield start, stop, digest

    @staticmethod
    def _digest(results: Results) -> str:
        digest = hashlib.sha256()
        for slot in sorted(results):
            digest.update(f"{slot} {results[slot].dtype} {results[slot].shape}".encode())
            digest.update(np.ascontiguousarray(results[slot]))
        return digest.hexdigest()


def annotation_of(adata: AnnData) -> AnnData:
    """Return ``obs``, ``var`` and ``uns`` in memory, also those of a lazy or backed object, as one of its own."""
    untyped: Any = adata
    light = AnnData(obs=untyped.obs, var=untyped.var, uns=dict(adata.uns))
    return light.to_memory() if hasattr(adata.obs, "to_memory") else light.copy()


def hash_plain(value: Any) -> str:
    """Hash nested mappings of arrays and plain values."""
    digest = hashlib.sha256()
    _update(digest, value)
    return digest.hexdigest()


def _update(digest: Any, value: Any) -> None:
    if hasattr(value, "items"):
        for name in sorted(value):
            digest.update(f"{name}:".encode())
            _update(digest, value[name])
    elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value))
    else:
        digest.update(repr(value.tolist() if isinstance(value, np.ndarray) else value).encode())
