"""Data to try things on."""

from bulkformer_tl.datasets._toy import toy

__all__ = ["toy"]
