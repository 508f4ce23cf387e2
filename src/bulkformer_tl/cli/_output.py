"""Files that commands write: complete, or not there."""

from __future__ import annotations

import gzip
import io
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from bulkformer_tl._unfinished import remove, take_place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

logger = logging.getLogger(__name__)

_TABLES = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
_SUFFIXES = (".h5ad", ".zarr", *_TABLES)
#: Of a gene graph, as bundles hold it.
TENSORS = ".safetensors"


@dataclass(frozen=True)
class Output:
    """A place to write to.

    Parameters
    ----------
    path
        File, or folder of a zarr store; its suffix is the format.
    force
        Whether something that is there already may be replaced.
    """

    path: Path
    force: bool

    @property
    def suffix(self) -> str:
        """The suffix that decides the format."""
        return next(suffix for suffix in (TENSORS, *_SUFFIXES[::-1]) if self.path.name.lower().endswith(suffix))

    @property
    def is_table(self) -> bool:
        """Whether the format is a plain table."""
        return self.suffix in _TABLES

    def check(self) -> None:
        """Refuse, before any work, a place that cannot be written to.

        Raises
        ------
        FileNotFoundError
            If its folder is not there.
        FileExistsError
            If it exists and may not be replaced.
        """
        if not self.path.parent.is_dir():
            message = f"there is no folder {self.path.parent} to write {self.path.name} to"
            raise FileNotFoundError(message)
        if not self.path.exists():
            return
        if not self.force:
            message = f"{self.path} exists; pass --force to replace it"
            raise FileExistsError(message)
        is_store = any((self.path / name).is_file() for name in ("zarr.json", ".zgroup"))
        if (self.suffix == ".zarr") != self.path.is_dir() or (self.path.is_dir() and not is_store):
            message = f"{self.path} is something else than a {self.suffix} and is not replaced"
            raise FileExistsError(message)

    def write_adata(self, adata: AnnData) -> None:
        """Write all of an AnnData, h5ad or zarr."""
        if self.suffix == ".zarr":
            self.write(adata.write_zarr)
        else:
            self.write(lambda path: adata.write_h5ad(path, compression="gzip"))

    def write_table(self, table: pd.DataFrame) -> None:
        """Write a table, csv or tsv; missing values are empty cells."""
        self.write(lambda path: _save_table(table, path, _TABLES[self.suffix]))

    def write(self, save: Callable[[Path], object]) -> None:
        """Let ``save`` write to another name in the same folder, then rename it."""
        unfinished = self.path.with_name(f".{uuid4().hex[:8]}.{self.path.name}")
        try:
            save(unfinished)
            self.check()
            take_place(unfinished, self.path)
            logger.info("wrote %s", self.path)
        finally:
            remove(unfinished)


def _save_table(table: Any, path: Path, separator: str) -> None:
    if not path.name.lower().endswith(".gz"):
        table.to_csv(path, sep=separator)
        return
    # without a time and a name in its header, equal tables are equal files
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        table.to_csv(text, sep=separator)


def matrix_table(adata: AnnData, layer: str | None, *, genes_in_rows: bool) -> pd.DataFrame:
    """Return ``X`` or a layer as a table with names on both sides; whole numbers are written as such."""
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp

    layers = [str(key) for key in dict(adata.layers) if key is not None]
    if layer is not None and layer not in layers:
        message = f"there is no layer {layer!r}; the layers are {layers}"
        raise KeyError(message)
    stored: Any = adata.X if layer is None else adata.layers[layer]
    values = stored.toarray() if sp.issparse(stored) else np.asarray(stored)
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.rint(values)).all():
        values = values.astype(np.int64)
    table = pd.DataFrame(values, index=adata.obs_names, columns=adata.var_names)
    return (table.T if genes_in_rows else table).rename_axis("gene" if genes_in_rows else "sample")


def to_output(_context: click.Context, _parameter: click.Parameter, value: Path) -> Path:
    """Refuse formats that are not written; for ``callback=``."""
    return _ending(value, _SUFFIXES)


def to_graph(_context: click.Context, _parameter: click.Parameter, value: Path) -> Path:
    """Refuse formats in which no gene graph is written; for ``callback=``."""
    return _ending(value, (TENSORS, *_SUFFIXES))


def to_csv(_context: click.Context, _parameter: click.Parameter, value: Path) -> Path:
    """Refuse formats in which no vocabulary is written; for ``callback=``."""
    return _ending(value, (".csv", ".csv.gz"))


def _ending(value: Path, suffixes: tuple[str, ...]) -> Path:
    if not value.name.lower().endswith(suffixes) or value.name.lower() in suffixes:
        message = f"{value} has none of the endings {', '.join(suffixes)}, which say the format"
        raise click.BadParameter(message)
    return value
