"""Between AnnData and arrays: read rows in blocks from any storage, write results all at once or not at all."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from copy import deepcopy
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData, ImplicitModificationWarning

from bulkformer_tl import _keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

#: Rows that are worked on together; a block of 20,000 genes in float32 is 5 MB.
BLOCK_ROWS = 64
#: Bytes that are read at once where storage is in larger chunks.
MOST_BYTES = 2**29


def get_matrix(adata: AnnData, layer: str | None) -> Any:
    """Return ``X`` or a layer as it is stored.

    Raises
    ------
    TypeError
        If ``adata`` is not an AnnData.
    KeyError
        If there is no such layer; the message lists those that are there.
    ValueError
        If ``X`` is empty (``None``), there are no samples or no genes, or two samples share a name.
    """
    check_anndata(adata)
    if layer is not None and layer not in adata.layers:
        message = f"adata has no layer {layer!r}; its layers are {sorted(named_layers(adata))}"
        raise KeyError(message)
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        message = f"adata.X is empty; pass layer=, one of {sorted(named_layers(adata))}"
        raise ValueError(message)
    if 0 in adata.shape:
        message = f"adata is empty: {adata.n_obs} samples x {adata.n_vars} genes"
        raise ValueError(message)
    if not adata.obs_names.is_unique:
        twice = adata.obs_names[adata.obs_names.duplicated()][0]
        message = f"adata.obs_names are not unique, {twice!r} occurs again; call adata.obs_names_make_unique() first"
        raise ValueError(message)
    return matrix


def check_anndata(adata: AnnData, *, or_mudata: bool = False) -> None:
    """Refuse anything but an AnnData, naming the modality to pass where it is a MuData that will not do."""
    if is_mudata(adata):
        if or_mudata:
            return
        modalities: Any = getattr(adata, "mod", {})
        message = f"a MuData was passed; pass one of its modalities, for example mdata[{next(iter(modalities))!r}]"
        raise TypeError(message)
    if not all(hasattr(adata, name) for name in ("obs", "var", "layers", "uns")):
        message = f"expected an AnnData (samples x genes), found {type(adata).__name__}"
        raise TypeError(message)


def is_mudata(adata: Any) -> bool:
    """Say whether it is a MuData, without importing mudata."""
    # a DataFrame has a method of that name
    return hasattr(getattr(adata, "mod", None), "keys")


def named_layers(adata: AnnData) -> dict[str, Any]:
    """Return the layers without ``X``, which recent AnnData lists among them."""
    return {key: matrix for key, matrix in dict(adata.layers).items() if key is not None}


def gene_mask(adata: AnnData, mask_var: NDArray[np.bool_] | str | None) -> NDArray[np.bool_] | None:
    """Return a boolean array over ``var`` from an array or the name of a column; ``None`` stays ``None``.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If it is not boolean with one entry per gene.
    """
    if mask_var is None:
        return None
    if isinstance(mask_var, str) and mask_var not in adata.var:
        message = f"adata.var has no column {mask_var!r}; its columns are {adata.var.columns.tolist()}"
        raise KeyError(message)
    mask = np.asarray(adata.var[mask_var] if isinstance(mask_var, str) else mask_var)
    if mask.dtype != bool or mask.shape != (adata.n_vars,):
        message = f"mask_var must be boolean with {adata.n_vars} entries, found {mask.dtype} of shape {mask.shape}"
        raise ValueError(message)
    return mask


def float_dtype(matrix: Any) -> np.dtype[Any]:
    """Return the matrix' own float dtype; integers become float32."""
    dtype = np.dtype(matrix.dtype)
    return dtype if dtype.kind == "f" and dtype.itemsize >= 4 else np.dtype(np.float32)


def dense_rows(matrix: Any, rows: slice | NDArray[Any], dtype: Any = np.float32) -> NDArray[Any]:
    """Return rows of a dense, sparse, backed, dask or zarr matrix as a dense array of their own."""
    block = matrix[rows]
    if hasattr(block, "compute"):
        block = block.compute()
    if sp.issparse(block):
        block = block.toarray()
    return np.array(block, dtype=dtype, order="C")


def row_blocks(matrix: Any, *, dtype: Any = np.float32, size: int = BLOCK_ROWS) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield consecutive blocks of rows, dense; the blocks do not depend on how the matrix is stored.

    Parameters
    ----------
    matrix
        Shape (N, G); dense, CSR, CSC, backed, dask or zarr.
    dtype
        Of the blocks.
    size
        Rows of a block.

    Yields
    ------
    The slice of rows, and the block of shape (rows, G), an array of its own.
    """
    if getattr(getattr(matrix, "_meta", matrix), "format", None) == "csc":
        # slicing rows of CSC, in memory or in a file, reads the whole matrix each time
        read = next((getattr(matrix, name) for name in ("to_memory", "compute") if hasattr(matrix, name)), None)
        matrix = (read() if read else matrix).tocsr()
    n, start = matrix.shape[0], 0
    rest = np.empty((0, matrix.shape[1]), dtype)
    for rows in _read_together(matrix, size):
        read_rows = dense_rows(matrix, rows, dtype)
        rest = np.concatenate([rest, read_rows]) if len(rest) else read_rows
        while len(rest) >= size or (rows.stop == n and len(rest)):
            block, rest = (rest, rest[:0]) if len(rest) <= size else (rest[:size].copy(), rest[size:])
            yield slice(start, start + len(block)), block
            start += len(block)


def _read_together(matrix: Any, size: int) -> Iterator[slice]:
    """Yield rows to read at once: blocks, or the chunks around them where a part of a chunk costs as much as all."""
    n, chunks = matrix.shape[0], getattr(matrix, "chunks", None)
    if chunks is None:
        edges = np.arange(size, n + size, size)
    else:
        # dask lists all chunks of an axis, zarr and HDF5 have equal ones
        edges = np.cumsum(chunks[0]) if isinstance(chunks[0], tuple) else np.arange(chunks[0], n + chunks[0], chunks[0])
    most = max(size, MOST_BYTES // (8 * matrix.shape[1]))
    start = 0
    while start < n:
        edge = int(edges[np.searchsorted(edges, min(start + size, n))])
        stop = min(edge, start + most, n)
        yield slice(start, stop)
        start = stop


def sparse_blocks(matrix: Any, *, size: int = BLOCK_ROWS) -> Iterator[tuple[slice, sp.csr_array]]:
    """Yield consecutive blocks of rows, sparse and in the matrix' own dtype; CSR in memory is not copied.

    Parameters
    ----------
    matrix
        Shape (N, G); dense, CSR, CSC, backed, dask or zarr.
    size
        Rows of a block.

    Yields
    ------
    The slice of rows, and the block of shape (rows, G) with each entry once; not to be written to.
    """
    if getattr(matrix, "format", None) == "csc":
        matrix = (matrix.to_memory() if hasattr(matrix, "to_memory") else matrix).tocsr()
    if sp.issparse(matrix) and not (matrix.format == "csr" and matrix.has_canonical_format):
        matrix = sp.csr_array(matrix, copy=True)
        matrix.sum_duplicates()
    for start in range(0, matrix.shape[0], size):
        rows = slice(start, min(start + size, matrix.shape[0]))
        block: Any
        if sp.issparse(matrix):
            own = matrix.indptr[rows.start : rows.stop + 1]
            entries = slice(own[0], own[-1])
            block = sp.csr_array((rows.stop - rows.start, matrix.shape[1]), dtype=matrix.dtype)
            # the constructor would look at all indices once more
            block.data, block.indices, block.indptr = matrix.data[entries], matrix.indices[entries], own - own[0]
            block.has_canonical_format = True
        else:
            block = matrix[rows]
            block = sp.csr_array(block.compute() if hasattr(block, "compute") else block)
            block.sum_duplicates()
        yield rows, block


def copied(adata: AnnData) -> AnnData:
    """Return a copy in memory, also of a backed object."""
    return adata.to_memory() if adata.isbacked else adata.copy()


def on_genes(adata: AnnData, *, matrix: Any, var: Any, layers: Mapping[str, Any]) -> AnnData:
    """Return a new AnnData with other genes and what is known of the same samples.

    Parameters
    ----------
    adata
        Whose ``obs``, ``obsm``, ``obsp`` and ``uns`` are copied.
    matrix
        The new ``X``, shape (N, G), or ``None``.
    var
        The new genes, G rows.
    layers
        The new layers, each of shape (N, G).
    """
    # arrays of a view refer to it; anndata's own copy knows
    kept: dict[str, Any] = {name: dict(getattr(adata, name).copy()) for name in ("obsm", "obsp")}
    obs: Any = adata.obs.copy()
    return AnnData(X=matrix, obs=obs, var=var, layers=dict(layers), uns=deepcopy(dict(adata.uns)), **kept)


def get_params(adata: AnnData, key: str) -> dict[str, Any]:
    """Return ``uns[key]["params"]`` where this package wrote it, else an empty dict."""
    entry: Any = adata.uns.get(key)
    found: Any = entry.get("params") if hasattr(entry, "get") else None
    ours = hasattr(found, "get") and found.get("package") == "bulkformer_tl"
    # of a lazy AnnData arrays are not read yet
    return (
        {name: value.compute() if hasattr(value, "compute") else value for name, value in found.items()} if ours else {}
    )


def check_slots(adata: AnnData, key: str, slots: list[str]) -> None:
    """Refuse, before any work, to overwrite what this package did not write.

    Parameters
    ----------
    adata
        Annotated samples.
    key
        Name of the result; its parameters lie in ``uns[key]["params"]``.
    slots
        What will be written, as ``"<container>/<key>"``.

    Raises
    ------
    ValueError
        If the key holds a "/", or a slot is taken; the message names ``key_added``.
    """
    for slot in [_keys.params(key), *slots]:
        container, name = slot.split("/", 1)
        if not name or "/" in name:
            message = f"{name!r} cannot be written to a file because of its '/'; pass another key_added"
            raise ValueError(message)
    ours = get_params(adata, key)
    written = {str(slot) for slot in ours.get("wrote", [])}
    for slot in [_keys.params(key), *slots]:
        container, name = slot.split("/", 1)
        taken = name in getattr(adata, container)
        mine = bool(ours) if container == "uns" else slot in written
        if taken and not mine:
            message = (
                f"adata.{container}[{name!r}] exists and was not written by this call before; "
                "pass another key_added, or delete it first"
            )
            raise ValueError(message)


def write_results(
    adata: AnnData,
    key: str,
    results: Mapping[str, Any],
    params: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a result and its parameters, all or nothing.

    Parameters
    ----------
    adata
        Written in place; a view becomes an actual object, as in scanpy.
    key
        Name of the result.
    results
        Slot (``"obsm/X_bulkformer"``) to value.
    params
        Plain values that say how the result was made; the package's version and the slots are added.
    extra
        Further entries of ``uns[key]``, tables for example.

    Raises
    ------
    ValueError
        If a slot is taken by something else (see :func:`check_slots`).
    """
    check_slots(adata, key, list(results))
    stamp = {"package": "bulkformer_tl", "version": version("bulkformer-tl"), "wrote": sorted(results)}
    entry = {"params": {**stamp, **params}, **(extra or {})}
    everything = {**results, _keys.params(key): entry}
    with warnings.catch_warnings(), all_or_nothing(adata, everything):
        # a view is made actual here on purpose
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        for slot, value in everything.items():
            container, name = slot.split("/", 1)
            getattr(adata, container)[name] = value


_ABSENT = object()


@contextmanager
def all_or_nothing(adata: AnnData, slots: Iterable[str]) -> Iterator[None]:
    """Put slots back as they were if what is done meanwhile fails.

    Parameters
    ----------
    adata
        Written in place meanwhile.
    slots
        What is written, as ``"<container>/<key>"``.
    """
    before = {}
    for slot in slots:
        container, name = slot.split("/", 1)
        before[slot] = getattr(adata, container).get(name, _ABSENT)
    try:
        yield
    except BaseException:
        for slot, value in before.items():
            container, name = slot.split("/", 1)
            target = getattr(adata, container)
            if value is not _ABSENT:
                target[name] = value
            elif name in target:
                del target[name]
        raise
