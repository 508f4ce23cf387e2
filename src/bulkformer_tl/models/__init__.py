"""The encoders: published networks, their files and what they say about samples. Tensors only, no AnnData."""

from __future__ import annotations

from bulkformer_tl.models._bulkformer import BulkFormer, Encoded

__all__ = ["BulkFormer", "Encoded"]
