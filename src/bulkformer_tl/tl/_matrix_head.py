"""The fitted head of a matrix, such as proteins from RNA: all columns at once, kept without pickle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, is_mudata
from bulkformer_tl._kept_files import KeptHead
from bulkformer_tl.tl._extract import LAYOUT, check_arrays, extract, forward
from bulkformer_tl.tl._head_input import head_matrix
from bulkformer_tl.tl._mudata import as_anndata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

TASK = "regression of a matrix"
#: What the facts say, and of which type.
FIELDS: dict[str, type] = {
    "task": str,
    "label": str,
    "kind": str,
    "use_rep": str,
    "checksum": str,
    "genes": list,
    "columns": list,
    "parts": list,
}
LINKS = {"linear": "identity", "mlp": "identity", "forest": "mean"}


class Part(NamedTuple):
    """Columns that are known of the same training samples, under one fit.

    Parameters
    ----------
    columns
        Their positions, shape (k,).
    model
        Fitted pipeline, of columns with mean 0 and variance 1.
    level, spread
        Mean and standard deviation of the training samples, shape (k,).
    """

    columns: NDArray[np.intp]
    model: Any
    level: Numbers
    spread: Numbers


class MatrixHead(KeptHead):
    """A fitted head that predicts all columns of a matrix from a representation.

    Parameters
    ----------
    facts
        Name of the matrix and of its columns, representation and its model, kind of head, and the part that predicts
        each column, as plain values.
    arrays
        Its weights: ``level`` and ``spread`` of each column, and those of each part, such as ``"0.coef"``. Columns that
        were measured in other samples have a part of their own.
    """

    def __post_init__(self) -> None:
        _check_facts(self.facts)
        parts, n_columns = self.facts["parts"], len(self.facts["columns"])
        for name in ("level", "spread"):
            found = self.arrays.get(name, np.empty(0))
            if found.shape != (n_columns,) or found.dtype != np.float64 or not np.isfinite(found).all():
                message = f"the array {name!r} is {found.dtype} {found.shape}; expected finite float64 ({n_columns},)"
                raise ValueError(message)
        each = [self._part(part) for part in range(max(parts) + 1)]
        if len(self.arrays) != 2 + sum(map(len, each)):
            message = f"the head has {max(parts) + 1} parts and cannot consist of the arrays {sorted(self.arrays)}"
            raise ValueError(message)
        for part, arrays in enumerate(each):
            check_arrays(self.facts["kind"], arrays, self._width, 0, n_columns=parts.count(part))
        genes = self.facts["genes"]
        if genes and len(genes) != self._width:
            message = f"the head names {len(genes)} genes and weighs {self._width}"
            raise ValueError(message)

    @property
    def _width(self) -> int:
        return len(self.arrays.get("0.fill", ()))

    def _part(self, part: int) -> dict[str, NDArray[Any]]:
        mark = f"{part}."
        return {name.removeprefix(mark): array for name, array in self.arrays.items() if name.startswith(mark)}

    def predict(self, adata: AnnData, *, layer: str | None = None) -> pd.DataFrame:
        """Predict the matrix of samples.

        Parameters
        ----------
        adata
            Samples with the representation that the head was fitted to, made by the same model.
        layer
            Where expression is, for a head on expression itself; ``None`` reads ``X``.

        Returns
        -------
        Samples by columns, in the unit of each column.

        Raises
        ------
        KeyError
            If the representation or a gene is not there.
        ValueError
            If it has another width or comes from another model.
        """
        adata = as_anndata(adata, {self.facts["use_rep"]}) if is_mudata(adata) else adata
        check_anndata(adata)
        found = self.predict_array(head_matrix(adata, layer, self.facts))
        return pd.DataFrame(found, index=adata.obs_names, columns=pd.Index(self.facts["columns"]))

    def predict_array(self, matrix: NDArray[np.floating]) -> Numbers:
        """Predict from the representation itself.

        Parameters
        ----------
        matrix
            Shape (N, D).

        Returns
        -------
        Shape (N, P).

        Raises
        ------
        ValueError
            If it has another width.
        """
        if np.ndim(matrix) != 2 or np.shape(matrix)[1] != self._width:
            message = f"the head reads {self._width} columns and the matrix has the shape {np.shape(matrix)}"
            raise ValueError(message)
        kind, parts = self.facts["kind"], np.array(self.facts["parts"])
        found = np.empty((len(matrix), len(parts)))
        for part in range(parts.max() + 1):
            columns = np.flatnonzero(parts == part)
            raw = forward(kind, LINKS[kind], self._part(part), np.asarray(matrix))
            found[:, columns] = raw.reshape(len(matrix), -1)
        return np.asarray(found * self.arrays["spread"] + self.arrays["level"])


def make_matrix_head(parts: list[Part], names: list[str], params: Mapping[str, Any], genes: list[str]) -> MatrixHead:
    """Keep fitted parts.

    Parameters
    ----------
    parts
        What was fitted to all training samples. A column of which they know next to nothing is in none and left out.
    names
        Of the columns.
    params
        How it was done.
    genes
        Names of the genes, where it reads expression.
    """
    together = np.concatenate([part.columns for part in parts])
    order = np.argsort(together)
    arrays: dict[str, NDArray[Any]] = {
        "level": np.concatenate([part.level for part in parts])[order],
        "spread": np.concatenate([part.spread for part in parts])[order],
    }
    kind = ""
    for position, part in enumerate(parts):
        kind, _, own = extract(part.model)
        arrays |= {f"{position}.{name}": array for name, array in own.items()}
    of_column = np.repeat(np.arange(len(parts)), [len(part.columns) for part in parts])[order]
    facts = {
        "task": TASK,
        "label": params["label"],
        "kind": kind,
        "use_rep": params["use_rep"],
        "checksum": params["checksum"],
        "genes": [] if params["use_rep"] else genes,
        "columns": [names[column] for column in together[order]],
        "parts": of_column.tolist(),
    }
    return MatrixHead(facts, arrays)


def _check_facts(facts: dict[str, Any]) -> None:
    wrong = [name for name, kind in FIELDS.items() if not isinstance(facts.get(name), kind)]
    if wrong or set(facts) != set(FIELDS):
        message = f"the facts of a head are {sorted(FIELDS)}; {wrong or sorted(set(facts) ^ set(FIELDS))} do not fit"
        raise ValueError(message)
    parts = facts["parts"]
    whole = all(isinstance(part, int) for part in parts)
    known = whole and bool(parts) and len(parts) == len(facts["columns"]) and set(parts) == set(range(max(parts) + 1))
    if facts["task"] != TASK or facts["kind"] not in LAYOUT or not known:
        message = (
            f"no head of a matrix has the task {facts['task']!r}, the kind {facts['kind']!r}, {len(facts['columns'])} "
            f"columns and the parts {parts[:5]}"
        )
        raise ValueError(message)
