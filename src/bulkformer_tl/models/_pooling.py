"""Summaries of a sample's gene vectors into one vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Pooling = Literal["mean", "max", "median", "all"]
POOLINGS: tuple[Pooling, ...] = ("mean", "max", "median", "all")


def pool(vectors: Tensor, pooling: Pooling) -> Tensor:
    """Pool gene vectors (k, D) of one sample into one vector (D,).

    The median averages the two middle values of an even number of genes; ``"all"`` is the published sum of maximum,
    mean and median.
    """
    if pooling == "mean":
        return vectors.mean(dim=0)
    if pooling == "max":
        return vectors.amax(dim=0)
    if pooling == "median":
        ordered, last = vectors.sort(dim=0).values, len(vectors) - 1
        return (ordered[last // 2] + ordered[(last + 1) // 2]) / 2
    return pool(vectors, "max") + pool(vectors, "mean") + pool(vectors, "median")
