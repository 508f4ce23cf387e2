"""One scale for all columns of an embedding, and for all columns of each of several that stand side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np

#: How columns are scaled: all by one number, each by its own, or by blocks of so many columns.
Scale = Literal["common", "each"] | Sequence[tuple[int, Literal["common", "each"]]]


@cache
def one_scale() -> Any:
    """Return a transformer class that centres every column and divides all by one number.

    Their mean variance becomes 1. Scaling each column to unit variance would raise the noise of those that vary little,
    as the last components of an analysis by principal components do, to the rank of the first. With ``blocks`` each
    block has a number of its own, chosen so that all have the same total variance.
    """
    from sklearn.preprocessing import StandardScaler

    class OneScale(StandardScaler):  # type: ignore[misc]  # scikit-learn has no types
        """Centre every column, and divide all of a block by one number, or each by its own and then by one number."""

        def __init__(self, blocks: Sequence[tuple[int, str]] = ()) -> None:
            super().__init__()
            self.blocks = blocks

        def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
            super().partial_fit(X, y, sample_weight)
            variance = np.asarray(self.var_)
            blocks = self.blocks or [(len(variance), "common")]
            parts = np.split(variance, np.cumsum([width for width, _ in blocks])[:-1])
            total = len(variance) / len(blocks)
            self.scale_ = np.concatenate(
                [divisors(part, how, total) for part, (_, how) in zip(parts, blocks, strict=True)]
            )
            return self

    return OneScale


def divisors(variance: Any, how: str, total: float) -> Any:
    """Return what columns are divided by to have this variance together; 1 where nothing varies."""
    own = np.sqrt(variance) if how == "each" else np.ones_like(variance)
    own = np.where(own > 0, own, 1.0)
    spread = float(np.sqrt((variance / own**2).sum() / total))
    return own * (spread if spread > 0 else 1.0)
