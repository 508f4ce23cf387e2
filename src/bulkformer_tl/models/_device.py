"""Which device a model goes to."""

from __future__ import annotations

import torch

from bulkformer_tl._settings import settings


def choose_device(device: str | torch.device | None) -> str | torch.device:
    """Return a device; ``None`` takes :attr:`bulkformer_tl.settings.device`, and ``"auto"`` CUDA where it is there."""
    name = settings.device if device is None else device
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name
