"""Values one after the other: the most certain ones first, each seen by those that come later."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def generate(
    network: Any, bins: Tensor, hidden: Tensor, external: Tensor | None, features: Tensor, *, rounds: int
) -> tuple[Tensor, Tensor]:
    """Predict the hidden bins of one sample in rounds.

    In each round the network predicts all bins that are still hidden, and an equal share of them, those whose best bin
    has the highest probability, becomes known with it. One round predicts all from what is known at first.

    Parameters
    ----------
    network
        Encoder or decoder.
    bins
        Shape (T,).
    hidden
        Which of them to predict, (T,).
    external
        Codes of external tokens, (T, E), or ``None``.
    features
        Which features the T are.
    rounds
        Number of rounds, at most one for each hidden bin.

    Returns
    -------
    Bins, (T,), known ones as they were; and the probability that the network gave each, (T,), 1 for known ones.
    """
    found, open_ = bins.clone(), hidden.clone()
    certainty = torch.ones(len(bins), device=bins.device)
    left = int(hidden.sum())
    codes = None if external is None else external[None]
    for remaining in range(min(rounds, left), 0, -1):
        _, vectors = network(found[None], open_[None], codes, features=features)
        probabilities = network.bin_logits(vectors, features)[0].float().softmax(dim=-1)
        best, bin_ = probabilities.max(dim=-1)
        share = -(-int(open_.sum()) // remaining)
        # a stable order, so that equal probabilities do not depend on the machine
        order = best.masked_fill(~open_, -1.0).argsort(descending=True, stable=True)[:share]
        found[order], certainty[order] = bin_[order], best[order]
        open_[order] = False
    return found, certainty
