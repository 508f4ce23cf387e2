"""What tokens attend to, from a network of transformers."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Attention:
    """What the tokens of one sample attend to in one layer.

    Parameters
    ----------
    genes
        Position of each token's gene in the vocabulary, -1 for ``<cls>`` and ``<eos>``, shape (L,).
    weights
        Of each head, rows attend to columns and sum to 1, (H, L, L), float32 on the CPU.
    """

    genes: NDArray[np.int64]
    weights: Tensor


@torch.inference_mode()
def attention_weights(network: Any, ids: Tensor) -> Sequence[Tensor]:
    """Return the attention weights of each layer, (N, H, L, L), for lists of tokens of one length, (N, L)."""
    with _eager(network):
        found = network.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), output_attentions=True)
    weights: Sequence[Tensor] = found.attentions
    return weights


@contextmanager
def _eager(network: Any) -> Iterator[None]:
    """Let the network compute attention in the way that returns its weights."""
    before = network.config._attn_implementation
    network.set_attn_implementation("eager")
    try:
        yield
    finally:
        network.set_attn_implementation(before)
