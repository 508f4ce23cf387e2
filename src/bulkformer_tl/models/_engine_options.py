"""How a model computes: which precision, and which shortcuts of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch

from bulkformer_tl._settings import Precision

_DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.float32,
}


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How a model computes; the user guide says why each shortcut leaves the numbers as they are.

    Parameters
    ----------
    precision
        ``"float32"``, the network's own numbers to 1e-5; ``"bf16"``, matrix products of bfloat16 numbers, several times
        faster where the processor has them; ``"fp16"``, the same of float16 numbers, on CUDA alone; ``"int8"``, weights
        rounded to eight bits, a quarter of the engine's memory for weights at the speed of float32. Layer norms, sums
        over genes and the stream between layers are float32 in any case.
    reference
        Compute by the modules that published networks are built of, slowly; no other option applies then.
    block
        Genes that go through the layers at a time; ``None`` chooses by the processor's cache.
    requested_only
        Compute the last layer's queries and feed-forward network, and the head, for those genes alone that are asked
        for.
    packed
        Keep weights in the order in which oneDNN's products read them, and have these apply the activation. Where torch
        has no such products, or they give other numbers, plain ones are used.
    compile
        Have torch's compiler join the element-wise operations of attention. It works for up to a minute at the first
        sample; where there is no compiler, the log says so and they run as they are.
    unshifted
        Leave the stabiliser out of the exponentials of attention wherever they cannot overflow.

    Raises
    ------
    ValueError
        If there is no such precision or block.
    """

    precision: Precision = "float32"
    reference: bool = False
    block: int | None = None
    requested_only: bool = True
    packed: bool = True
    compile: bool = False
    unshifted: bool = True

    def __post_init__(self) -> None:
        """Check what was passed."""
        if self.precision not in get_args(Precision):
            message = f"precision must be one of {list(get_args(Precision))}, found {self.precision!r}"
            raise ValueError(message)
        if self.block is not None and self.block < 1:
            message = f"block must be a number of genes from 1, found {self.block}"
            raise ValueError(message)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers that go into matrix products."""
        return _DTYPES[self.precision]


def check_options(options: EngineOptions, device: torch.device) -> None:
    """Refuse a precision that a device does not have.

    Raises
    ------
    ValueError
        If it is fp16 off CUDA.
    """
    if options.precision == "fp16" and device.type != "cuda" and not options.reference:
        message = f"precision 'fp16' is for CUDA, and the model is on {device}; pass 'bf16' or 'float32'"
        raise ValueError(message)
