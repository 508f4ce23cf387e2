"""The ``bulkformer`` command: one sub-command per journey, each a thin cover of the functions behind it."""

from bulkformer_tl.cli._main import bulkformer, main

__all__ = ["bulkformer", "main"]
