"""Of which modality a feature is: its name says it before a colon (``protein:CD3``, ``obs:age``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

#: The modality of expression, of which names state none, and that of columns of ``obs``.
EXPRESSION, SAMPLE = "rna", "obs"


def modality_of(names: Iterable[str]) -> NDArray[np.str_]:
    """Return the modality of each feature, shape (n,)."""
    return np.array([name.split(":", 1)[0] if ":" in name else EXPRESSION for name in map(str, names)], dtype=str)


def modalities_of(names: Iterable[str]) -> list[str]:
    """Return the modalities in the order in which they first occur."""
    return list(dict.fromkeys(modality_of(names).tolist()))


def feature_name(modality: str, name: str) -> str:
    """Return the name of a feature with its modality, as :func:`modality_of` reads it."""
    return name if modality == EXPRESSION else f"{modality}:{name}"
