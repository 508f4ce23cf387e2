"""Which identifiers ``var_names`` are, where an earlier call was told."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bulkformer_tl._anndata import get_params, named_layers

if TYPE_CHECKING:
    from anndata import AnnData

    from bulkformer_tl._vocabulary import Identifiers


def resolve_identifiers(adata: AnnData, identifiers: Identifiers | None, layer: str | None = None) -> Identifiers:
    """Return what the caller said, else what was recorded, else ``"ensembl"``.

    Parameters
    ----------
    adata
        Annotated samples.
    identifiers
        What the caller said.
    layer
        Whose record is asked. ``None`` asks those of all layers.
    """
    if identifiers is not None:
        return identifiers
    layers = named_layers(adata) if layer is None else [layer]
    recorded = {get_params(adata, key).get("identifiers") for key in layers} - {None}
    return cast("Identifiers", recorded.pop()) if len(recorded) == 1 else "ensembl"


def record_identifiers(adata: AnnData, identifiers: Identifiers) -> None:
    """Set what the records of all layers say, after ``var_names`` were replaced."""
    for key in named_layers(adata):
        if "identifiers" in get_params(adata, key):
            adata.uns[key]["params"]["identifiers"] = identifiers
