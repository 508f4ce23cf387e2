"""Copies of an AnnData, on the same genes or on others."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from anndata import AnnData

if TYPE_CHECKING:
    from collections.abc import Mapping


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


def named_layers(adata: AnnData) -> dict[str, Any]:
    """Return the layers without ``X``, which recent AnnData lists among them."""
    return {key: matrix for key, matrix in dict(adata.layers).items() if key is not None}
