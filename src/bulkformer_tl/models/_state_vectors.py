"""Sample vectors by state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def state_vectors(
    vectors: ArrayLike, states: ArrayLike, *, statistic: Literal["mean", "median"] = "mean"
) -> dict[str, NDArray[np.float32]]:
    """Summarise sample vectors by state, exactly: what a perturbation is measured towards.

    Parameters
    ----------
    vectors
        Shape (N, D).
    states
        State of each sample, shape (N,).
    statistic
        ``"mean"``, or ``"median"`` of each column: the lower of the two middle values, as published.

    Returns
    -------
    State to its vector, shape (D,).

    Raises
    ------
    ValueError
        If the shapes do not agree, or there is no such statistic.
    """
    matrix, labels = np.asarray(vectors, dtype=np.float32), np.asarray(states).astype(str)
    if matrix.ndim != 2 or labels.shape != (len(matrix),):
        message = f"vectors are (N, D) and states (N,), found {matrix.shape} and {labels.shape}"
        raise ValueError(message)
    if statistic not in {"mean", "median"}:
        message = f"statistic must be 'mean' or 'median', found {statistic!r}"
        raise ValueError(message)
    groups = {str(name): torch.from_numpy(matrix[labels == name]) for name in np.unique(labels)}
    return {
        name: (own.mean(dim=0) if statistic == "mean" else own.median(dim=0).values).numpy()
        for name, own in groups.items()
    }
