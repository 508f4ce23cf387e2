"""The encoder that has learnt nothing: same shape, genes and graph, random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.tl._input import load_model, prepare
from bulkformer_tl.tl._samples import embedding_params

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.models import BulkFormer

#: Name of the baseline.
UNTRAINED = "untrained"


def untrained(model: Any, *, rng: int = 0) -> BulkFormer:
    """Build a model of the same shape, genes and graph with random weights.

    Parameters
    ----------
    model
        A BulkFormer, whose shape is taken.
    rng
        Seed of the weights; torch's own random state is left alone.

    Returns
    -------
    A model that has seen no sample. Tables that a network leaves at zero until it is trained are orthogonal.
    """
    import torch

    from bulkformer_tl.models import BulkFormer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng)
        network = type(model.network)(model.config)
        for table in (*network.parameters(), *network.buffers()):
            if table.ndim == 2 and table.is_floating_point() and not table.any():
                table.data.copy_(torch.nn.init.orthogonal_(torch.empty(table.shape)))
    return BulkFormer(
        network,
        model.vocabulary,
        graph=model.graph,
        name=f"{UNTRAINED} {model.name}",
        family=model.family,
        denominator=model.denominator,
        default_pooling=model.default_pooling,
        pooling_observed_only=model.pooling_observed_only,
    ).to(model.device)


def untrained_embedding(parts: list[AnnData], use_rep: str | None, *, rng: int) -> NDArray[np.float32]:
    """Embed samples with an untrained copy of the model that made a representation, in the same way.

    Parameters
    ----------
    parts
        A reference, if there is one, and the samples to predict.
    use_rep
        Key of ``obsm``, as :func:`bulkformer_tl.tl.embed` wrote it.
    rng
        Seed of the weights.

    Returns
    -------
    Shape (N, D).

    Raises
    ------
    ValueError
        If the representation does not come from a model that can be loaded by its name.
    """
    from bulkformer_tl import registry

    made = embedding_params(parts[-1], use_rep)
    name = str(made.get("model", ""))
    if name not in registry.available():
        message = (
            f"the baseline {UNTRAINED!r} needs use_rep= made by bf.tl.embed with a model of the registry; {use_rep!r} "
            + (f"was made by {name!r}" if name else "was not")
        )
        raise ValueError(message)
    copy = untrained(load_model(name), rng=rng)
    return np.concatenate([_embed(part, copy, embedding_params(part, use_rep)) for part in parts])


def _embed(adata: AnnData, model: BulkFormer, made: dict[str, Any]) -> NDArray[np.float32]:
    layer = None if made["layer"] == "X" else str(made["layer"])
    given = prepare(adata, model=model, layer=layer, identifiers=made["identifiers"], min_coverage=0.0, device=None)
    pooling, only = str(made["pooling"]), bool(made["observed_only"])
    options = {
        # what a network has a rule of its own for, it is not asked for by name
        "pooling": None if pooling == model.default_pooling else pooling,
        "observed_only": None if only == model.pooling_observed_only else only,
        "summary_columns": bool(made["summary_columns"]),
    }
    pooled = [
        given.encode(values, "pooled", rows=rows, **options)[0] for rows, values in given.batches("untrained", None)
    ]
    return np.concatenate(pooled)
