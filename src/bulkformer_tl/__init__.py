"""BulkFormer on AnnData: a foundation model of human bulk transcriptomes, in place, with honest evaluation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulkformer_tl import datasets, metrics, models, pl, pp, tl, train
    from bulkformer_tl._read import read
    from bulkformer_tl._settings import settings

__all__ = ["datasets", "metrics", "models", "pl", "pp", "read", "settings", "tl", "train"]

#: Where each name is found. Nothing is imported before it is used, so that the command answers at once.
_HOMES = {"read": "_read", "settings": "_settings"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"bulkformer_tl.{_HOMES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"bulkformer_tl.{name}")
    message = f"module 'bulkformer_tl' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted(__all__)
