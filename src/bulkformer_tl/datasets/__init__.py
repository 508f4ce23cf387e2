"""Data to try things on."""

from bulkformer_tl.datasets._cohorts import cohorts, fetch
from bulkformer_tl.datasets._simulate import simulate
from bulkformer_tl.datasets._toy import toy

__all__ = ["cohorts", "fetch", "simulate", "toy"]
