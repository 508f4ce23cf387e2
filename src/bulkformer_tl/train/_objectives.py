"""What a network is trained for: how samples become its input, and what a prediction costs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from bulkformer_tl.models._bioformer import ABSENT
from bulkformer_tl.train import _fast_pass, _forward

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bulkformer_tl.train._bioformers import Marginals
    from bulkformer_tl.train._corpus import Moments
    from bulkformer_tl.train._geneformers import Frequencies

#: Tensors of some samples; the first axis of each runs over the N samples.
type Batch = dict[str, Tensor]


class Objective(Protocol):
    """An objective: all that training knows of a family's input and loss.

    Losses are one number per sample, so that how samples are shared among steps and devices changes nothing.
    """

    #: Sizes of the network that the objective asks for.
    network: ClassVar[dict[str, Any]]

    def collate(self, values: NDArray[np.float32], hidden: NDArray[np.bool_]) -> Batch:
        """Make a batch of N samples: what the network reads, (N, G), ``NaN`` where missing, and what is hidden."""

    def losses(self, network: Any, batch: Batch) -> Tensor:
        """Return the loss of each sample, (N,)."""

    def baseline(self, batch: Batch, moments: Any) -> Tensor:
        """Return the loss of each sample, (N,), of predicting what each gene is in the training samples."""


class MaskedMSE:
    """Mean squared error at the hidden genes of a sample, ln(TPM+1) squared.

    Parameters
    ----------
    fast
        Whether hidden genes go through :mod:`bulkformer_tl.train._fast_pass` or the networks' own modules.
    """

    network: ClassVar[dict[str, Any]] = {}

    def __init__(self, *, fast: bool = True) -> None:
        self._fast = fast

    @property
    def _pass(self) -> Any:
        return _fast_pass if self._fast else _forward

    def collate(self, values: NDArray[np.float32], hidden: NDArray[np.bool_]) -> Batch:
        """See :class:`Objective`."""
        target, marks = torch.from_numpy(values), torch.from_numpy(hidden)
        observed = ~target.isnan() & ~marks
        return {"values": target.where(observed, 0.0), "observed": observed, "hidden": marks, "target": target}

    def losses(self, network: Any, batch: Batch) -> Tensor:
        """See :class:`Objective`."""
        hidden = batch["hidden"]
        predicted = self._pass.hidden_predictions(network, batch["values"], batch["observed"], hidden)
        return per_sample((predicted.float() - batch["target"][hidden]).square(), hidden)

    def baseline(self, batch: Batch, moments: Moments) -> Tensor:
        """See :class:`Objective`."""
        hidden, target = batch["hidden"], batch["target"]
        mean = torch.from_numpy(moments.mean).to(target.device).expand_as(target)
        return per_sample((mean - target)[hidden].square(), hidden)


class GaussianNLL(MaskedMSE):
    """Negative log-likelihood of the hidden genes under a normal distribution whose variance is learned, in nats."""

    network: ClassVar[dict[str, Any]] = {"learned_deviation": True}

    def losses(self, network: Any, batch: Batch) -> Tensor:
        """See :class:`Objective`."""
        hidden = batch["hidden"]
        mean, deviation = self._pass.hidden_distribution(network, batch["values"], batch["observed"], hidden)
        return per_sample(_nll(batch["target"][hidden] - mean.float(), deviation.float()), hidden)

    def baseline(self, batch: Batch, moments: Moments) -> Tensor:
        """See :class:`Objective`."""
        hidden, target = batch["hidden"], batch["target"]
        mean, variance = (
            torch.from_numpy(moment).to(target.device).expand_as(target) for moment in (moments.mean, moments.variance)
        )
        return per_sample(_nll((target - mean)[hidden], variance[hidden].sqrt()), hidden)


class MaskedBins:
    """Cross-entropy of the bins of the hidden genes of a sample, in nats.

    Parameters
    ----------
    fast
        Whether only hidden genes go through the head.
    """

    network: ClassVar[dict[str, Any]] = {}

    def __init__(self, *, fast: bool = True) -> None:
        self._fast = fast

    def collate(self, values: NDArray[np.float32], hidden: NDArray[np.bool_]) -> Batch:
        """Make a batch of N samples: bins, (N, G), ``NaN`` where missing, and what is hidden, (N, G)."""
        given = torch.from_numpy(values)
        bins = given.nan_to_num(nan=float(ABSENT)).to(torch.int64)
        return {"bins": bins, "hidden": torch.from_numpy(hidden)}

    def losses(self, network: Any, batch: Batch) -> Tensor:
        """See :class:`Objective`."""
        hidden, bins = batch["hidden"], batch["bins"]
        external = batch.get("external")
        if external is not None:
            external = external[:, None].expand(-1, bins.shape[1], -1)
        _, vectors = network(bins, hidden, external)
        scores = network.bin_logits(vectors[hidden]) if self._fast else network.bin_logits(vectors)[hidden]
        return per_sample(functional.cross_entropy(scores.float(), bins[hidden], reduction="none"), hidden)

    def baseline(self, batch: Batch, moments: Marginals) -> Tensor:
        """Return the loss of each sample, (N,), of predicting how often each bin of a gene occurs in training."""
        hidden, bins = batch["hidden"], batch["bins"]
        table = torch.from_numpy(moments.log_probability).to(bins.device)
        gene = torch.arange(bins.shape[1], device=bins.device).expand_as(bins)
        return per_sample(-table[gene[hidden], bins[hidden]], hidden)


class MaskedGenes:
    """Cross-entropy of the hidden genes of a list over all tokens, in nats (Theodoris et al. 2023).

    Parameters
    ----------
    fast
        Whether only hidden genes go through the head.
    """

    network: ClassVar[dict[str, Any]] = {}

    def __init__(self, *, fast: bool = True) -> None:
        self._fast = fast

    def collate(self, values: NDArray[np.float32], hidden: NDArray[np.bool_]) -> Batch:
        """Make a batch of N samples: ranks, (N, G), ``NaN`` without one, and what is hidden, (N, G), become lists."""
        ranks, marks = torch.from_numpy(values), torch.from_numpy(hidden)
        lengths = (~ranks.isnan()).sum(dim=1, keepdim=True)
        genes = ranks.nan_to_num(nan=torch.inf).argsort(dim=1, stable=True)[:, : int(lengths.max())]
        behind = torch.arange(genes.shape[1]) >= lengths
        return {"genes": genes.masked_fill(behind, -1), "hidden": marks.gather(1, genes) & ~behind}

    def losses(self, network: Any, batch: Batch) -> Tensor:
        """See :class:`Objective`."""
        scores, asked = network(batch["genes"], batch["hidden"], fast=self._fast)
        return per_sample(functional.cross_entropy(scores.float(), asked, reduction="none"), batch["hidden"])

    def baseline(self, batch: Batch, moments: Frequencies) -> Tensor:
        """Return the loss of each sample, (N,), of predicting how often each gene occurs in training."""
        table = torch.from_numpy(moments.log_probability).to(batch["genes"].device)
        return per_sample(-table[batch["genes"][batch["hidden"]]], batch["hidden"])


#: What ``PretrainConfig.objective`` names.
OBJECTIVES: dict[str, type[MaskedMSE | MaskedBins | MaskedGenes]] = {
    "mse": MaskedMSE,
    "gaussian_nll": GaussianNLL,
    "cross_entropy": MaskedBins,
    "masked_genes": MaskedGenes,
}


def per_sample(costs: Tensor, hidden: Tensor) -> Tensor:
    """Average costs (K,) at hidden entries (N, G) within each sample, (N,); 0 where a sample hides nothing."""
    sample = hidden.nonzero(as_tuple=True)[0]
    total = torch.zeros(len(hidden), dtype=costs.dtype, device=costs.device).index_add(0, sample, costs)
    return total / hidden.sum(dim=1).clamp(min=1)


def _nll(error: Tensor, deviation: Tensor) -> Tensor:
    return 0.5 * (error / deviation).square() + deviation.log() + 0.5 * math.log(2 * math.pi)
