"""BulkFormer on AnnData: a foundation model of human bulk transcriptomes, in place, with honest evaluation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bulkformer_tl import datasets, pl, pp, tl
from bulkformer_tl._settings import settings

if TYPE_CHECKING:
    from bulkformer_tl import models

__all__ = ["datasets", "models", "pl", "pp", "settings", "tl"]

_LAZY = ("models",)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"bulkformer_tl.{name}")
    message = f"module 'bulkformer_tl' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted(__all__)
