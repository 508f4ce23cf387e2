"""AnnData that is stored already: h5ad and zarr."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bulkformer_tl._read._tables import Orientation, gene_side

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

HDF5 = b"\x89HDF\r\n\x1a\n"


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a zarr store."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def is_hdf5(path: Path) -> bool:
    """Tell whether a file is HDF5."""
    with path.open("rb") as handle:
        return handle.read(len(HDF5)) == HDF5


def read_stored(path: Path, orientation: Orientation | None, *, backed: bool = False) -> AnnData:
    """Read h5ad or zarr; genes in rows are transposed.

    Parameters
    ----------
    path
        The store.
    orientation
        Which side holds genes; ``None`` finds out.
    backed
        Leave ``X`` of h5ad in its file, unless it has to be transposed.

    Raises
    ------
    ValueError
        If the store holds no AnnData, or pickled objects, which are never loaded.
    """
    import anndata

    if path.is_dir():
        _refuse_pickles(path)
        import zarr

        _check_groups(path, set(zarr.open_group(path, mode="r").keys()))
        adata, layout = anndata.read_zarr(path), "zarr"
    else:
        import h5py

        with h5py.File(path, "r") as file:
            _check_groups(path, set(file.keys()))
        adata, layout = anndata.read_h5ad(path, backed="r" if backed else None), "h5ad"
    found = orientation or ("genes_by_samples" if _genes_are_rows(adata) else "samples_by_genes")
    if found == "genes_by_samples":
        adata = (adata.to_memory() if adata.isbacked else adata).T.copy()
    if not adata.obs_names.is_unique:
        twice = adata.obs_names[adata.obs_names.duplicated()][0]
        message = (
            f"{path}: the sample {twice!r} occurs again; call adata.obs_names_make_unique() and write it once more"
        )
        raise ValueError(message)
    report: dict[str, Any] = {"source": path.name, "layout": layout, "orientation": found}
    adata.uns["read"] = report | {"n_samples": adata.n_obs, "n_genes": adata.n_vars}
    return adata


def open_stored(path: Path) -> AnnData:
    """Open h5ad or zarr with ``X`` and layers left where they are, to be read in pieces.

    ``obs``, ``var`` and ``uns`` are read; nothing else is opened.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    ValueError
        If it is neither, holds pickled objects, or genes in rows.
    """
    import anndata

    if not path.exists():
        message = f"there is no file or folder {path}"
        raise FileNotFoundError(message)
    if not (is_zarr(path) or (path.is_file() and is_hdf5(path))):
        message = f"{path} is neither h5ad nor zarr, and only these are read in pieces"
        raise ValueError(message)
    root: Any
    if path.is_dir():
        _refuse_pickles(path)
        import zarr

        root = zarr.open_group(path, mode="r")
    else:
        import h5py

        root = h5py.File(path, "r")
    _check_groups(path, set(root.keys()))
    annotation: dict[str, Any] = {
        name: anndata.io.read_elem(root[name]) for name in ("obs", "var", "uns") if name in root
    }
    layers = {name: _on_disk(root["layers"][name]) for name in root.get("layers", ())}
    adata = anndata.AnnData(_on_disk(root["X"]) if "X" in root else None, **annotation, layers=layers)
    if _genes_are_rows(adata):
        message = f"{path} holds genes in rows, which are not read in pieces; write it once with samples in rows"
        raise ValueError(message)
    return adata


def _on_disk(stored: Any) -> Any:
    from anndata.io import sparse_dataset

    return sparse_dataset(stored) if hasattr(stored, "keys") else stored


def _check_groups(path: Path, groups: set[str]) -> None:
    if not {"obs", "var"} <= groups:
        message = f"{path} holds no AnnData: it has {sorted(groups)[:8]} where obs and var are expected"
        raise ValueError(message)


def _refuse_pickles(path: Path) -> None:
    """Refuse stores whose arrays are pickled: to read one is to run what it says."""
    for name in (".zarray", ".zmetadata", "zarr.json"):
        for file in sorted(path.rglob(name)):
            if re.search(r'"(id|name)"\s*:\s*"(numcodecs\.)?pickle"', file.read_text(encoding="utf-8")):
                message = (
                    f"{file} says that an array is pickled; pickles are never loaded. Write the store again as h5ad"
                )
                raise ValueError(message)


def _genes_are_rows(adata: AnnData) -> bool:
    return gene_side(list(adata.obs_names), list(adata.var_names)) == "rows"
