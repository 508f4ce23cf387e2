"""Where the samples of a corpus lie: AnnData in memory, backed or lazy, h5ad files and zarr stores."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bulkformer_tl._anndata import check_anndata, dense_rows, get_matrix, get_params, named_layers
from bulkformer_tl._keys import LOG_TPM
from bulkformer_tl._vocabulary import load_vocabulary, match_genes, strip_version

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneMatch, GeneVocabulary, Identifiers


@dataclass(frozen=True, eq=False)
class Source:
    """Samples of one or several studies with the same measured genes.

    Parameters
    ----------
    data
        An AnnData (in memory, backed or with dask arrays), or the path of an h5ad file or a zarr store, which is read
        in pieces while training goes on and never as a whole.
    layer
        Where the values are, ln(TPM+1), or the counts that a family bins or ranks; ``None`` reads ``X``.
    study
        Column of ``obs`` that names each sample's study. ``None`` takes all samples for one study, called ``name``.
    annotation
        Ensembl ids of the genes that were quantified, or a genes file (csv), where that is known. Those of them that
        ``data`` lacks were left out because nobody expressed them: they are measured zeros. All other absent genes are
        missing, and so is every absent gene where ``None`` says that the annotation is unknown.
    identifiers
        What ``var_names`` are; ``None`` takes what :func:`bulkformer_tl.pp.log_tpm` was told, else Ensembl ids.
    name
        For messages and the order of the sources; ``None`` takes the file's name without its ending.
    """

    data: AnnData | str | Path
    layer: str | None = None
    study: str | None = None
    annotation: Sequence[str] | NDArray[np.str_] | str | Path | None = None
    identifiers: Identifiers | None = None
    name: str | None = None


class Samples:
    """A source on the genes of a network.

    Parameters
    ----------
    source
        What to read.
    vocabulary
        Genes G of the network.
    default_name
        Name of a source that has none.
    columns
        Columns of ``obs`` to keep.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    ValueError
        If it is neither h5ad nor zarr, stored by columns, or shares no gene with the vocabulary.
    KeyError
        If it has no such layer or ``obs`` column.
    """

    def __init__(
        self, source: Source, vocabulary: GeneVocabulary, default_name: str, columns: Sequence[str] = ()
    ) -> None:
        self._source = source
        self._path = Path(source.data) if isinstance(source.data, str | Path) else None
        self._opened: tuple[int, Any, Any] | None = None
        stored = _facts_of_file(self._path, source, columns) if self._path else _facts_of_adata(source, columns)
        self.name = source.name or (self._path.stem if self._path else default_name)
        self.studies = stored.studies if stored.studies is not None else np.full(stored.n_obs, self.name)
        self.denominator: str | None = stored.params.get("denominator")
        self.hint = stored.hint
        identifiers = source.identifiers or stored.params.get("identifiers") or "ensembl"
        try:
            self.match: GeneMatch = match_genes(stored.var_names, vocabulary, identifiers=identifiers)
        except ValueError as error:
            message = f"{self.name}: {error}"
            raise ValueError(message) from error
        known = _annotated(source.annotation)
        self.zeros: NDArray[np.bool_] = np.isin(vocabulary.ids, known) & ~self.match.found
        self.n_obs = stored.n_obs
        self.columns = stored.columns
        self.var_names: list[str] = [str(name) for name in stored.var_names]
        #: What turns rows as they are stored into what the network reads.
        self.reader: Callable[[NDArray[Any]], NDArray[np.floating]] = self.match.align

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind: each process opens its own."""
        return self.__dict__ | {"_opened": None}

    @property
    def where(self) -> str:
        """What is read, for messages."""
        return self.name + (": X" if self._source.layer is None else f": layers[{self._source.layer!r}]")

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive samples in vocabulary order, (stop - start, G); ``NaN`` where missing."""
        aligned = self.reader(self.stored(start, stop))
        aligned[:, self.zeros] = 0.0
        values: NDArray[np.float32] = aligned
        return values

    def stored(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive samples as they are stored, (stop - start, n_vars), dense."""
        rows: NDArray[np.float32] = dense_rows(self._matrix(), slice(start, stop))
        return rows

    def close(self) -> None:
        """Close the file, if one is open."""
        if self._opened is not None:
            handle = self._opened[1]
            if hasattr(handle, "close"):
                handle.close()
            self._opened = None

    def _matrix(self) -> Any:
        if self._path is None:
            return get_matrix(self._source.data, self._source.layer)  # type: ignore[arg-type]
        # a file that was opened before a process divided must not be read by both
        if self._opened is None or self._opened[0] != os.getpid():
            handle = _open(self._path)
            self._opened = (os.getpid(), handle, _stored_matrix(handle, self._source.layer, self._path))
        return self._opened[2]


@dataclass(frozen=True)
class _Stored:
    """What is known of a source before its values are read."""

    n_obs: int
    var_names: Any
    studies: NDArray[Any] | None
    params: dict[str, Any]
    hint: str
    columns: dict[str, NDArray[Any]]


def _facts_of_adata(source: Source, columns: Sequence[str]) -> _Stored:
    adata: Any = source.data
    check_anndata(adata)
    matrix = get_matrix(adata, source.layer)
    if isinstance(matrix, sp.csc_matrix | sp.csc_array):
        message = f"{source.name or 'the AnnData'} is stored by columns; convert it first: adata.X = adata.X.tocsr()"
        raise ValueError(message)  # noqa: TRY004  the storage is wrong, not the argument's type
    return _Stored(
        adata.n_obs,
        adata.var_names,
        _studies(adata.obs, source),
        get_params(adata, source.layer or ""),
        _hint(source.layer, named_layers(adata)),
        {name: _column(adata.obs, name, source) for name in columns},
    )


def _facts_of_file(path: Path, source: Source, columns: Sequence[str]) -> _Stored:
    from anndata.io import read_elem

    handle = _open(path)
    try:
        obs: Any = read_elem(handle["obs"])
        var: Any = read_elem(handle["var"])
        _stored_matrix(handle, source.layer, path)
        place = f"uns/{source.layer}/params"
        params: Any = read_elem(handle[place]) if source.layer is not None and place in handle else {}
        layers = list(handle["layers"]) if "layers" in handle else []
        kept = {name: _column(obs, name, source) for name in columns}
        return _Stored(len(obs), var.index, _studies(obs, source), dict(params), _hint(source.layer, layers), kept)
    finally:
        if hasattr(handle, "close"):
            handle.close()


def _open(path: Path) -> Any:
    if not path.exists():
        message = f"there is no file or folder {path}"
        raise FileNotFoundError(message)
    if path.is_dir():
        import zarr

        return zarr.open_group(path, mode="r")
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        message = f"{path} is neither an h5ad file nor a zarr store; bf.read(path) reads tables, write_h5ad stores them"
        raise ValueError(message) from error


def _stored_matrix(handle: Any, layer: str | None, path: Path) -> Any:
    """Return X or a layer of an open file, sliceable by rows without reading the others."""
    from anndata.io import sparse_dataset

    place = "X" if layer is None else f"layers/{layer}"
    if place not in handle:
        layers = sorted(handle["layers"]) if "layers" in handle else []
        message = f"{path} has no {place}; its layers are {layers}"
        raise KeyError(message)
    stored = handle[place]
    if not hasattr(stored, "keys"):
        return stored
    matrix = sparse_dataset(stored)
    if matrix.format != "csr":
        message = (
            f"{path}: {place} is stored by columns (CSC), so that each sample would need the whole file; "
            "write it once more after adata.X = adata.X.tocsr()"
        )
        raise ValueError(message)
    return matrix


def _annotated(annotation: Any) -> NDArray[np.str_]:
    if annotation is None:
        return np.empty(0, dtype=str)
    if isinstance(annotation, str | Path):
        return load_vocabulary(annotation).ids
    return strip_version(list(annotation))


def _studies(obs: Any, source: Source) -> NDArray[Any] | None:
    if source.study is None:
        return None
    labels = _column(obs, source.study, source)
    missing = int((labels == "").sum())
    if missing:
        message = f"{source.name or source.data}: {missing} samples have no study in obs[{source.study!r}]"
        raise ValueError(message)
    return labels


def _column(obs: Any, name: str, source: Source) -> NDArray[Any]:
    """Return a column as text, empty where missing."""
    if name not in obs:
        message = f"{source.name or source.data}: obs has no column {name!r}; its columns are {list(obs)}"
        raise KeyError(message)
    labels: NDArray[Any] = obs[name].astype(object).where(obs[name].notna(), "").astype(str).to_numpy(dtype=str)
    return labels


def _hint(layer: str | None, layers: Any) -> str:
    return f" (or pass layer={LOG_TPM!r})" if layer != LOG_TPM and LOG_TPM in layers else ""
