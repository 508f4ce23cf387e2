"""What a fitted head reads of new samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulkformer_tl.tl._samples import all_expression, embedding_params, get_representation

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray


def head_matrix(adata: AnnData, layer: str | None, facts: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return the representation that a head was fitted to, (N, D), or say why it is not there.

    Parameters
    ----------
    adata
        Samples.
    layer
        Where expression is; ``None`` reads ``X``.
    facts
        Of the head: ``genes`` where it reads expression, else ``use_rep`` and ``checksum``.

    Raises
    ------
    KeyError
        If the representation or a gene is not there.
    ValueError
        If the representation comes from another model.
    """
    genes, use_rep = facts["genes"], facts["use_rep"]
    if genes:
        absent = [name for name in genes if name not in adata.var_names]
        if absent:
            message = f"adata lacks {len(absent)} of the head's {len(genes)} genes, such as {absent[0]!r}"
            raise KeyError(message + "; add them as missing with bf.pp.align_genes")
        return all_expression([adata], layer, genes)
    made = embedding_params(adata, use_rep).get("checksum", "")
    if made and facts["checksum"] and made != facts["checksum"]:
        message = f"adata.obsm[{use_rep!r}] comes from another model than the head was fitted to; embed it with that"
        raise ValueError(message)
    return get_representation(adata, use_rep)
