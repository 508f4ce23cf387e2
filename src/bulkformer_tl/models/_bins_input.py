"""What a BioFormers network is given, checked before any work: bins, and codes of external tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bulkformer_tl.models._bioformer import ABSENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bulkformer_tl.models._bioformer_model import BioFormer


def check_bins(model: BioFormer, values: Any) -> Tensor:
    """Return bins as int64, -1 where missing.

    Raises
    ------
    ValueError
        If they are not (N, G), no whole numbers, outside the network's table, or a sample has none.
    """
    given = torch.as_tensor(values)
    size = len(model.vocabulary)
    if given.ndim != 2 or given.shape[1] != size or not len(given):
        message = (
            f"bins have shape {tuple(given.shape)}; {model.name} needs (N, {size}), its features in the order of "
            "model.vocabulary: model.bin(values) makes them"
        )
        raise ValueError(message)
    bins = given.detach().cpu()
    missing = bins.isnan() if bins.is_floating_point() else bins == ABSENT
    bins = bins.masked_fill(missing, 0)
    wrong = (
        ~((bins == bins.floor()) & (bins >= 0) & (bins < model.config.n_bins))
        if bins.is_floating_point()
        else ((bins < 0) | (bins >= model.config.n_bins))
    )
    if wrong.any():
        row, gene = (int(i) for i in wrong.nonzero()[0])
        message = (
            f"row {row} holds {float(bins[row, gene]):g} for {model.vocabulary.ids[gene]}, which is no token of "
            f"{model.name}: its bins run from 0 to {model.config.n_bins - 1}, NaN where missing. Make them by "
            f"model.bin(values), or by bf.pp.bin_expression with n_bins={model.config.n_bins - 1}"
        )
        raise ValueError(message)
    empty = missing.all(dim=1).nonzero().flatten().tolist()
    if empty:
        message = (
            f"no gene of {model.name} was measured in row {empty[0]} ({len(empty)} such rows of {len(bins)}); drop "
            "them first"
        )
        raise ValueError(message)
    return bins.to(torch.int64).masked_fill(missing, ABSENT)


def check_external(model: BioFormer, given: Mapping[str, Any] | None, shape: Sequence[int]) -> Tensor | None:
    """Return codes of external tokens, (N, G, E), in the network's order; 0 where none is given.

    Parameters
    ----------
    model
        Says which there are.
    given
        By name: codes that broadcast to (N, G); of samples they have the shape (N, 1).
    shape
        N and G.

    Raises
    ------
    ValueError
        If the model has no such token, or a code is not in its table.
    """
    asked = given or {}
    unknown = sorted(set(asked) - set(model.external))
    if unknown:
        message = f"{model.name} has the external tokens {list(model.external)}, and none called {unknown[0]!r}"
        raise ValueError(message)
    if not model.external:
        return None
    found = torch.zeros((*shape, len(model.external)), dtype=torch.int64)
    for place, (name, categories) in enumerate(model.external.items()):
        if name in asked:
            codes = np.asarray(asked[name])
            if codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() > len(categories):
                message = (
                    f"the codes of {name!r} run from {codes.min()} to {codes.max()} ({codes.dtype}); those of "
                    f"{model.name} are whole numbers from 0, where unknown, to {len(categories)}"
                )
                raise ValueError(message)
            try:
                found[..., place] = torch.from_numpy(np.broadcast_to(codes, tuple(shape)).astype(np.int64))
            except ValueError as error:
                message = f"the codes of {name!r} have the shape {codes.shape}; they must broadcast to {tuple(shape)}"
                raise ValueError(message) from error
    return found
