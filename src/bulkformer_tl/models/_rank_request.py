"""What one call of :meth:`Geneformer.encode` is given, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from bulkformer_tl.models._pooling import POOLINGS
from bulkformer_tl.models._request import check_positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from bulkformer_tl.models._geneformer import Geneformer

OUTPUTS = ("pooled", "genes")


@dataclass(frozen=True)
class RankRequest:
    """What to return and how to pool."""

    outputs: frozenset[str]
    genes: Tensor | None
    pooling: str
    pool_genes: Tensor | None


def check_rank_request(
    model: Geneformer,
    *,
    genes: Any,
    outputs: Sequence[str],
    pooling: str | None,
    pool_genes: Any,
    observed_only: bool | None,
    extra: bool,
) -> RankRequest:
    """Check everything but the values.

    Raises
    ------
    ValueError
        If the model has no such output, pooling or gene.
    """
    rule = model.default_pooling if pooling is None else pooling
    rules = [*POOLINGS, *(["cls"] if model.has_specials else [])]
    message = ""
    if isinstance(outputs, str) or not outputs or not set(outputs) <= set(OUTPUTS):
        message = f"outputs must be a list of some of {list(OUTPUTS)} for {model.name}, found {outputs!r}"
    elif rule not in rules:
        message = f"pooling must be one of {rules} for {model.name}, found {rule!r}"
    elif rule == "cls" and pool_genes is not None:
        message = f"pooling='cls' of {model.name} is no summary of gene vectors; with pool_genes pass pooling='mean'"
    elif observed_only is False:
        message = f"{model.name} has vectors of expressed genes only; leave out observed_only=False"
    elif extra:
        message = f"{model.name} has no summary columns and no protein table; leave out these options"
    if message:
        raise ValueError(message)
    return RankRequest(
        outputs=frozenset(outputs),
        genes=check_positions(model, genes, "genes"),
        pooling=rule,
        pool_genes=check_positions(model, pool_genes, "pool_genes"),
    )


def check_counts(model: Geneformer, values: ArrayLike | Tensor) -> NDArray[np.floating]:
    """Return counts (N, G) with 0 where missing."""
    counts: NDArray[Any] = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if counts.ndim != 2 or counts.shape[1] != len(model.vocabulary) or not len(counts):
        message = (
            f"values have shape {counts.shape}; {model.name} needs (N, {len(model.vocabulary)}), counts of its genes "
            "in the order of model.vocabulary"
        )
        raise ValueError(message)
    counts = np.nan_to_num(counts, nan=0.0, posinf=np.inf, neginf=-np.inf)
    if counts.min() < 0 or np.isinf(counts.max()):
        message = f"values lie between {counts.min():g} and {counts.max():g}; counts are not negative and finite"
        raise ValueError(message)
    empty = np.flatnonzero(~counts.any(axis=1))
    if len(empty):
        message = (
            f"no gene of {model.name} is above zero in row {empty[0]} ({len(empty)} such rows of {len(counts)}); drop "
            "them first"
        )
        raise ValueError(message)
    return counts
