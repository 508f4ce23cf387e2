"""The samples that an encoder is adapted to: what it reads of them, and what it says of them before."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bulkformer_tl._progress import Progress
from bulkformer_tl.models._engine import _is_memory
from bulkformer_tl.train._backbones import Backbone, backbone, take

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from bulkformer_tl.train._finetune_heads import Features, Heads

logger = logging.getLogger(__name__)


class Cohort:
    """Samples as an encoder reads them, checked once and kept for every fit.

    Parameters
    ----------
    model
        The pretrained model.
    values
        In the unit that it reads and in vocabulary order, (N, G); ``NaN`` where missing.
    pooling
        How gene vectors become a sample vector.
    genes
        Positions of the genes whose vectors are wanted, (k,), or ``None``.
    external
        Codes of external tokens, of models that have such.

    Raises
    ------
    TypeError, ValueError
        If the model cannot read the values.
    """

    def __init__(
        self,
        model: Any,
        values: Any,
        *,
        pooling: str | None = None,
        genes: NDArray[np.intp] | None = None,
        external: Mapping[str, Any] | None = None,
    ) -> None:
        self.backbone = backbone(model, pooling)
        self.inputs = self.backbone.inputs(values, external)
        #: Samples that go through the encoder at once where nothing is trained: one at a time on a CPU, so that the
        #: numbers do not depend on how many there are.
        self.step = 1 if self.device.type == "cpu" else 8
        self.genes = None if genes is None else torch.from_numpy(np.asarray(genes, dtype=np.int64))

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def device(self) -> torch.device:
        """Where the encoder is."""
        found: torch.device = self.backbone.model.device
        return found

    @cached_property
    def frozen(self) -> Features:
        """Vectors of all samples, (N, D), and of the genes, (N, k, D), by the pretrained encoder, on the CPU."""
        pooled, vectors = [], []
        with Progress(len(self), "frozen vectors") as progress:
            for own, genes in self.encode(self.backbone, np.arange(len(self))):
                pooled.append(own.cpu())
                vectors.extend([] if genes is None else [genes.cpu()])
                progress.update(len(own))
        return torch.cat(pooled), torch.cat(vectors) if vectors else None

    @torch.no_grad()
    def encode(self, way: Backbone, rows: NDArray[np.intp], *, genes: Tensor | None = None) -> Iterator[Features]:
        """Yield vectors of some samples by an encoder as it is now, fewer at once wherever memory runs out."""
        wanted = self.genes if genes is None else genes
        way.network.eval()
        start = 0
        while start < len(rows):
            part = rows[start : start + self.step]
            try:
                pooled, vectors = way.vectors(take(self.inputs, part, self.device), wanted)
            except (RuntimeError, MemoryError) as error:
                self.step = fewer(self.step, error)
                continue
            start += len(part)
            yield pooled.float(), None if vectors is None else vectors.float()

    def predict(
        self, way: Backbone, heads: Heads, rows: NDArray[np.intp], genes: Tensor | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Return what heads say of some samples: probabilities, numbers, log hazards; of genes the mean over samples.

        A gene that no sample has a vector of is ``NaN``.
        """
        found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in heads.kinds}
        for features in self.encode(way, rows, genes=genes):
            with torch.no_grad():
                outputs = heads.outputs(features)
            for name, part in outputs.items():
                found[name].append(part.double().cpu().numpy())
        joined = {name: np.concatenate(parts) for name, parts in found.items()}
        return {name: _mean(part) if heads.kinds[name] == "genes" else part for name, part in joined.items()}


def fewer(samples: int, error: BaseException) -> int:
    """Return half as many samples to send through the encoder at once where memory ran out; raise any other error."""
    if not _is_memory(error) or samples == 1:
        raise error
    logger.warning("out of memory; going on with %d samples at once in the encoder", samples // 2)
    return samples // 2


def _mean(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average over the samples that have a vector of a gene, (n, k, K) to (k, K)."""
    seen = ~np.isnan(shares)
    number = seen.sum(axis=0)
    total = np.where(seen, shares, 0.0).sum(axis=0)
    mean: NDArray[np.float64] = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return mean
