"""The networks' own modules, run as they are: slow, plain, and what the engine is held to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from bulkformer_tl.models._pooling import Pooling, pool

if TYPE_CHECKING:
    from bulkformer_tl.models._request import Request


def compute(network: Any, values: Tensor, observed: Tensor, request: Request) -> dict[str, Tensor]:
    """Compute gene vectors of samples, and what is made of them.

    Parameters
    ----------
    network
        Network of one of the families.
    values
        ln(TPM+1), 0 where missing, (N, G).
    observed
        Shape (N, G).
    request
        What is asked for.

    Returns
    -------
    By name: ``"pooled"`` (N, D), if gene vectors are pooled, ``"genes"`` (N, k, D), ``"expression"`` and
    ``"deviation"`` (N, G); those that were asked for.
    """
    hidden = network(values, observed)
    found: dict[str, Tensor] = {}
    if request.pools:
        found["pooled"] = _pool(hidden, request.pool_mask(observed), cast("Pooling", request.pooling))
    if "genes" in request.outputs:
        found["genes"] = hidden if request.genes is None else hidden[:, request.genes.to(hidden.device)]
    if "expression" in request.outputs:
        found["expression"] = network.predict(hidden, values, observed)
    if "deviation" in request.outputs:
        found["deviation"] = network.deviation(hidden, values, observed)
    return found


def _pool(hidden: Tensor, wanted: Tensor, pooling: Pooling) -> Tensor:
    # selecting by a full mask would copy all vectors for nothing
    full = bool(wanted.all())
    rows = [pool(vectors if full else vectors[mask], pooling) for vectors, mask in zip(hidden, wanted, strict=True)]
    return torch.stack(rows)
