"""What one call of :meth:`BulkFormer.encode` is given, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bulkformer_tl.models._pooling import POOLINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkformer_tl.models._bulkformer import BulkFormer
    from bulkformer_tl.models._encoder import Encoder

#: ln(1e6 + 1), the largest value that a ln(TPM+1) can have, rounded up as the authors do.
LARGEST = 13.81552

#: Outputs that not every network has, and the method that computes them.
_OF_NETWORKS = {"expression": "predict", "deviation": "deviation"}


@dataclass(frozen=True)
class Request:
    """What to return and how to pool."""

    outputs: frozenset[str]
    genes: Tensor | None
    pooling: str
    pool_genes: Tensor | None
    observed_only: bool
    summary_columns: bool
    protein: bool

    @property
    def pools(self) -> bool:
        """Whether gene vectors are pooled by one of the common rules."""
        return "pooled" in self.outputs and self.pooling in POOLINGS

    def pool_mask(self, observed: Tensor) -> Tensor:
        """Return which genes to pool over, (N, G)."""
        wanted = torch.ones_like(observed)
        if self.pool_genes is not None:
            wanted = torch.zeros_like(observed)
            wanted[:, self.pool_genes.to(observed.device)] = True
        return wanted & observed if self.observed_only else wanted


def check_request(
    model: BulkFormer,
    *,
    genes: Any,
    outputs: Sequence[str],
    pooling: str | None,
    pool_genes: Any,
    observed_only: bool | None,
    summary_columns: bool,
    protein: bool,
) -> Request:
    """Check everything but the values.

    Raises
    ------
    ValueError
        If the model has no such output, pooling, gene or summary columns.
    """
    possible = ["pooled", "genes"]
    possible += [output for output, own in _OF_NETWORKS.items() if hasattr(model.network, own)]
    if isinstance(outputs, str) or not outputs or not set(outputs) <= set(possible):
        message = f"outputs must be a list of some of {possible} for {model.name}, found {outputs!r}"
        raise ValueError(message)
    rules = [*POOLINGS, *({model.default_pooling} - set(POOLINGS))]
    rule = model.default_pooling if pooling is None else pooling
    if rule not in rules:
        message = f"pooling must be one of {rules} for {model.name}, found {pooling!r}"
        raise ValueError(message)
    if rule not in POOLINGS and (pool_genes is not None or observed_only is not None or summary_columns):
        message = (
            f"pooling={rule!r} of {model.name} is not a summary of gene vectors; "
            f"with pool_genes, observed_only or summary_columns pass one of {list(POOLINGS)}"
        )
        raise ValueError(message)
    if summary_columns and not model.n_summary:
        message = f"{model.name} has no summary columns, only the second generation has; pass summary_columns=False"
        raise ValueError(message)
    if protein and model.protein is None:
        message = f"{model.name} has no protein table; pass one to bf.models.load(..., protein=)"
        raise ValueError(message)
    return Request(
        outputs=frozenset(outputs),
        genes=check_positions(model, genes, "genes"),
        pooling=rule,
        pool_genes=check_positions(model, pool_genes, "pool_genes"),
        observed_only=model.pooling_observed_only if observed_only is None else observed_only,
        summary_columns=summary_columns,
        protein=protein,
    )


def check_positions(model: Encoder, genes: Any, name: str) -> Tensor | None:
    if genes is None:
        return None
    chosen = np.asarray(genes)
    if chosen.dtype.kind not in "iu" or chosen.ndim != 1 or not len(chosen):
        message = (
            f"{name} must be a list of positions in model.vocabulary, found {chosen.dtype} of shape {chosen.shape}"
        )
        raise ValueError(message)
    size = len(model.vocabulary)
    outside = chosen[(chosen < 0) | (chosen >= size)]
    if len(outside):
        message = f"{name} has the positions {outside[:5].tolist()}; those of {model.name} run from 0 to {size - 1}"
        raise ValueError(message)
    found, counts = np.unique(chosen, return_counts=True)
    if len(found) < len(chosen):
        message = f"{name} lists the positions {found[counts > 1][:5].tolist()} more than once"
        raise ValueError(message)
    return torch.from_numpy(chosen.astype(np.int64))


def check_values(model: BulkFormer, values: Any, request: Request) -> tuple[Tensor, Tensor]:
    """Check values and tell observed ones from missing ones.

    Returns
    -------
    Values (N, G), float32, 0 where missing; and which are observed, (N, G).

    Raises
    ------
    ValueError
        If they are not (N, G), not ln(TPM+1), or a sample has no gene to work with.
    TypeError
        If they are not floating.
    """
    x = torch.as_tensor(values)
    if not x.is_floating_point():
        message = f"values must be floating ln(TPM+1), found {x.dtype}; call bf.pp.log_tpm on counts first"
        raise TypeError(message)
    if x.ndim != 2 or x.shape[1] != len(model.vocabulary):
        message = (
            f"values have shape {tuple(x.shape)}; {model.name} needs (N, {len(model.vocabulary)}), its genes in the "
            "order of model.vocabulary (bf.pp.align_genes makes that)"
        )
        raise ValueError(message)
    if not len(x):
        message = "values hold no sample"
        raise ValueError(message)
    x = x.detach().float().cpu()
    observed = ~x.isnan()
    x = x.where(observed, 0.0)
    wrong = ~((x >= 0) & (x <= LARGEST))
    if wrong.any():
        row, gene = (int(i) for i in wrong.nonzero()[0])
        message = (
            f"row {row} holds {float(x[row, gene]):g} for {model.vocabulary.ids[gene]}; ln(TPM+1) lies between 0 and "
            f"{LARGEST}, and a missing value is NaN. Call bf.pp.diagnose(adata) to see what the values are"
        )
        raise ValueError(message)
    _check_any(observed, f"no gene of {model.name} was observed", "drop them first")
    if request.pools:
        mend = "drop them, choose other genes or pass observed_only=False"
        _check_any(request.pool_mask(observed), "none of the genes to pool over was observed", mend)
    return x, observed


def _check_any(mask: Tensor, what: str, mend: str) -> None:
    empty = (~mask.any(dim=1)).nonzero().flatten().tolist()
    if empty:
        message = f"{what} in row {empty[0]} ({len(empty)} such rows of {len(mask)}); {mend}"
        raise ValueError(message)
