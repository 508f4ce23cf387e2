"""Which samples a screen of genes compares: those that are known, repeated samples of one patient made one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import get_params
from bulkformer_tl.metrics._check import as_labels
from bulkformer_tl.tl._columns import column, covariate_table
from bulkformer_tl.tl._samples import all_expression

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Rows:
    """Samples and the rows that they make up.

    Parameters
    ----------
    samples
        Positions of the samples that take part.
    codes
        Which row each belongs to.
    first
        Position of the first sample of each row.
    """

    samples: NDArray[np.intp]
    codes: NDArray[np.intp]
    first: NDArray[np.intp]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.first)

    def mean[T: np.floating](self, matrix: NDArray[T]) -> NDArray[T]:
        """Average the samples of each row, missing values left out."""
        if len(self.first) == len(self.samples):
            return matrix[self.first]
        given = matrix[self.samples]
        known = ~np.isnan(given)
        counts, sums = (self._add(part) for part in (known.astype(np.float64), np.where(known, given, 0)))
        with np.errstate(invalid="ignore"):
            return np.asarray(sums / counts, dtype=matrix.dtype)

    def sum(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """Add up the samples of each row."""
        return self._add(matrix[self.samples])

    def _add(self, matrix: NDArray[Any]) -> NDArray[Any]:
        total = np.zeros((len(self.first), matrix.shape[1]), dtype=matrix.dtype)
        np.add.at(total, self.codes, matrix)
        return total


def make_rows(
    adata: AnnData, known: NDArray[np.bool_], groups: str | None, agree: Mapping[str, NDArray[Any] | None]
) -> Rows:
    """Choose the samples, and join those of one group.

    Parameters
    ----------
    adata
        Annotated samples.
    known
        Which take part, shape (N,).
    groups
        Column of ``obs`` that names what is not independent, such as the patient.
    agree
        What has to be the same within a group, each of N values; ``None`` is passed over.

    Raises
    ------
    ValueError
        If a group is missing or disagrees.
    """
    samples = np.flatnonzero(known)
    if groups is None:
        return Rows(samples, np.arange(len(samples)), samples)
    found = column(adata, groups, "groups").to_numpy(dtype=object)[samples]
    codes, names = as_labels(found, f"adata.obs[{groups!r}] (groups)")
    _, first, codes = np.unique(codes, return_index=True, return_inverse=True)
    for name, values in agree.items():
        if values is not None:
            given = pd.factorize(np.asarray(values)[samples])[0]
            differs = given != given[first][codes]
            if differs.any():
                message = (
                    f"samples of the group {names[codes[differs][0]]!r} (adata.obs[{groups!r}]) differ in {name}, so "
                    f"that they cannot be averaged; leave out groups= and pass covariates=[{groups!r}], or choose one "
                    "sample of each group"
                )
                raise ValueError(message)
    return Rows(samples, codes.astype(np.intp), samples[first])


def read_covariates(adata: AnnData, names: Sequence[str] | None) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return covariates as columns, a category as one column per level but the first, and where they are known.

    Parameters
    ----------
    adata
        Annotated samples.
    names
        Columns of ``obs``.

    Returns
    -------
    Shape (N, P) with ``P`` 0 where there are none, and shape (N,).
    """
    if names is None:
        return np.empty((adata.n_obs, 0)), np.ones(adata.n_obs, dtype=bool)
    table = pd.get_dummies(covariate_table(adata, names), drop_first=True, dtype=np.float64)
    design = table.to_numpy(dtype=np.float64)
    return design, np.isfinite(design).all(axis=1)


def read_strata(adata: AnnData, strata: str | None) -> tuple[NDArray[np.intp] | None, NDArray[np.bool_]]:
    """Return codes of the strata, shape (N,), or ``None``; and where they are known."""
    if strata is None:
        return None, np.ones(adata.n_obs, dtype=bool)
    codes, _ = pd.factorize(column(adata, strata, "strata").astype(object))
    return np.asarray(codes, dtype=np.intp), codes >= 0


def read_values(
    adata: AnnData, rows: Rows, layer: str | None, imputed: str | None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Return measured values, and the same with what was imputed, as rows x genes.

    Raises
    ------
    ValueError
        If gene names occur twice, values are no ln(TPM+1), or ``imputed`` was not made from ``layer``.
    """
    if not adata.var_names.is_unique:
        twice = adata.var_names[adata.var_names.duplicated()][0]
        message = f"adata.var_names are not unique, {twice!r} occurs again; call bf.pp.merge_duplicates(adata) first"
        raise ValueError(message)
    genes = [str(name) for name in adata.var_names]
    values = all_expression([adata], layer, genes)
    if imputed is None:
        return rows.mean(values).astype(np.float32), None
    filled = all_expression([adata], imputed, genes)
    mask = str(get_params(adata, imputed).get("mask", ""))
    if mask:
        values[np.asarray(adata.layers[mask], dtype=bool)] = np.nan
    _check_imputed(adata, values, filled, layer, imputed)
    values, filled = (rows.mean(matrix).astype(np.float32) for matrix in (values, filled))
    return values, np.where(np.isnan(values), filled, values)


def _check_imputed(
    adata: AnnData, values: NDArray[np.float32], filled: NDArray[np.float32], layer: str | None, imputed: str
) -> None:
    measured = ~np.isnan(values)
    if not (~measured & ~np.isnan(filled)).any():
        message = (
            f"adata.layers[{imputed!r}] fills in nothing that {layer or 'X'} lacks; call bf.pp.align_genes, which adds "
            "absent genes as missing, and bf.tl.impute first"
        )
        raise ValueError(message)
    differs = measured & (np.abs(filled - values) > 1e-5)
    if differs.any():
        made = get_params(adata, imputed).get("layer")
        hint = f"; it was made from {made}" if made else ""
        message = (
            f"adata.layers[{imputed!r}] differs from {layer or 'X'} in {differs.sum() / measured.sum():.1%} of the "
            f"measured values, which imputation keeps{hint}. Pass as layer= what was imputed"
        )
        raise ValueError(message)
