"""Columns of ``obs``: one by name, or covariates as a table or as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray


def column(adata: AnnData, name: str, argument: str) -> pd.Series[Any]:
    """Return a column of ``obs``, or say which there are."""
    if name not in adata.obs:
        message = f"adata.obs has no column {name!r} ({argument}); its columns are {adata.obs.columns.tolist()}"
        raise KeyError(message)
    found: pd.Series[Any] = adata.obs[name]
    return found


def check_covariates(names: Sequence[str]) -> list[str]:
    """Return names of columns, or refuse a single name and none."""
    if isinstance(names, str) or not len(names):
        message = f"covariates is {names!r}; pass a list of columns of adata.obs, such as ['age', 'sex']"
        raise TypeError(message)
    return list(names)


def covariate_table(adata: AnnData, names: Sequence[str]) -> pd.DataFrame:
    """Return columns of ``obs`` as numbers and texts; a missing text is a category of its own."""
    found = {name: column(adata, name, "covariates") for name in check_covariates(names)}
    plain = {
        name: values.to_numpy(dtype=np.float64, na_value=np.nan)
        if pd.api.types.is_numeric_dtype(values)
        else values.astype(object).where(~pd.isna(values), "missing").astype(str).to_numpy(dtype=object)
        for name, values in found.items()
    }
    return pd.DataFrame(plain)


def covariate_matrix(parts: list[AnnData], names: Sequence[str]) -> NDArray[np.float32]:
    """Return columns of ``obs`` as numbers, texts as one column per level; (N, C), a missing number is ``NaN``."""
    table = pd.concat([covariate_table(part, names) for part in parts], ignore_index=True)
    return pd.get_dummies(table, dtype=np.float32).to_numpy(dtype=np.float32)
