"""One scale for all columns of an embedding."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np


@cache
def one_scale() -> Any:
    """Return a transformer class that centres every column and divides all by one number.

    Their mean variance becomes 1. Scaling each column to unit variance would raise the noise of those that vary little,
    as the last components of an analysis by principal components do, to the rank of the first.
    """
    from sklearn.preprocessing import StandardScaler

    class OneScale(StandardScaler):  # type: ignore[misc]  # scikit-learn has no types
        """Centre every column, and divide all by the root of their mean variance."""

        def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
            super().partial_fit(X, y, sample_weight)
            spread = float(np.sqrt(np.mean(self.var_)))
            self.scale_ = np.full(np.shape(self.var_), spread if spread > 0 else 1.0)
            return self

    return OneScale
