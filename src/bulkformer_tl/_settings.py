"""The package's settings: one object, typed, overridable from the environment."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  pydantic evaluates the annotations at run time
from typing import Annotated, Literal

import scverse_misc
from platformdirs import user_cache_path
from pydantic import Field

Precision = Literal["float32", "bf16", "fp16", "int8"]


class Settings(scverse_misc.Settings):
    """Settings of bulkformer_tl; each can come from ``BULKFORMER_TL_<NAME>`` in the environment.

    Use ``with bf.settings.override(device="cpu"): ...`` for a local change.
    """

    cache_dir: Path = Field(default_factory=lambda: user_cache_path("bulkformer_tl"))
    """Folder of downloaded models and data sets."""

    device: str = "auto"
    """Torch device; ``"auto"`` takes CUDA where it is there, else the CPU."""

    batch_size: Annotated[int, Field(ge=1)] = 8
    """Samples per forward pass on a GPU. On the CPU samples always go one at a time."""

    precision: Precision = "float32"
    """Precision of matrix products: ``"float32"``; ``"bf16"``, several times faster where the processor has such
    products; ``"fp16"``, on CUDA alone; or ``"int8"`` weights. See :class:`bulkformer_tl.models.EngineOptions`."""

    progress: bool = True
    """Whether long work shows a progress bar."""


settings = Settings()
