"""What is known of each published model, as far as primary sources state it."""

from bulkformer_tl.registry._models import ModelInfo, available, info, locate

__all__ = ["ModelInfo", "available", "info", "locate"]
