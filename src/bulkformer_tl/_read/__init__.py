"""From files to AnnData: layouts found by content, refused where they are not sound."""

from bulkformer_tl._read._read import read

__all__ = ["read"]
