"""Each gene as a weighted sum of the genes that move with it, kept in two bytes per neighbour."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from bulkformer_tl.models._layers import drop_when_loaded

#: Largest step between two neighbours that one byte holds.
_STEP = 255


class NeighbourModel(nn.Module):
    """Deviation of each gene from its mean as a weighted sum of its neighbours' deviations.

    Neighbours ascend within a gene, so that a byte holds the step from one to the next; a larger step is cut by entries
    of weight zero. Weights are 8-bit integers with one scale for each gene.

    Parameters
    ----------
    n_genes
        Number of genes G.
    n_entries
        Number of stored entries E, those of weight zero included.
    """

    def __init__(self, n_genes: int, n_entries: int) -> None:
        super().__init__()
        self.counts: Tensor
        self.steps: Tensor
        self.codes: Tensor
        self.scale: Tensor
        # untrained: entries of weight zero, shared out
        more = torch.arange(n_genes) < n_entries % n_genes
        self.register_buffer("counts", (n_entries // n_genes + more.long()).to(torch.int16))
        self.register_buffer("steps", torch.zeros(n_entries, dtype=torch.uint8))
        self.register_buffer("codes", torch.zeros(n_entries, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(n_genes))
        self.columns: Tensor | None
        self.weights: Tensor | None
        for name in ("columns", "weights"):
            self.register_buffer(name, None, persistent=False)
        drop_when_loaded(self)

    def set_packed(self, counts: Tensor, steps: Tensor, codes: Tensor, scale: Tensor) -> None:
        """Take over what :func:`pack` made."""
        self.counts.copy_(counts)
        self.steps.copy_(steps)
        self.codes.copy_(codes)
        self.scale.copy_(scale)
        self.forget()

    def forget(self) -> None:
        """Drop what was computed from the buffers."""
        self.columns = self.weights = None

    def forward(self, deviations: Tensor) -> Tensor:
        """Predict deviations from the gene means, (N, G), from those of complete samples, (N, G)."""
        columns, weights = self._unpacked()
        counts, size = self.counts.long(), len(self.counts)
        if deviations.device.type == "mps":
            # no CSR there: sum up the entries of each gene
            rows = torch.repeat_interleave(torch.arange(size, device=counts.device), counts)
            return torch.zeros_like(deviations).index_add_(1, rows, deviations[:, columns] * weights)
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        with warnings.catch_warnings():
            # torch says once per process that CSR is in beta
            warnings.filterwarnings("ignore", message="Sparse", category=UserWarning)
            matrix = torch.sparse_csr_tensor(starts, columns, weights, (size, size), check_invariants=False)
        # one product per sample, so that the sums do not depend on how many there are
        return torch.stack([matrix @ row for row in deviations])

    def _unpacked(self) -> tuple[Tensor, Tensor]:
        """Return the genes, (E,), int64, and the weights, (E,), of all entries."""
        if self.columns is None or self.weights is None:
            counts = self.counts.long()
            total = self.steps.long().cumsum(0)
            first = counts.cumsum(0) - counts
            # each gene starts anew at zero
            before = torch.where(first > 0, total[(first - 1).clamp(min=0)], 0)
            self.columns = total - torch.repeat_interleave(before, counts)
            self.weights = self.codes.float() * torch.repeat_interleave(self.scale, counts)
        return self.columns, self.weights


def pack(genes: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Pack neighbours, (G, k), ascending, and their weights, (G, k), into the buffers of :class:`NeighbourModel`."""
    size = len(genes)
    steps = torch.diff(genes.long(), dim=1, prepend=genes.new_zeros(size, 1).long())
    scale = weights.abs().amax(dim=1).clamp(min=1e-12) / 127
    codes = (weights / scale[:, None]).round().to(torch.int8)
    # a step of s takes (s - 1) // 255 entries of weight zero before it, a step of 0 none
    fillers = ((steps - 1).clamp(min=0) // _STEP).ravel()
    ends = (fillers + 1).cumsum(0) - 1
    packed_steps = torch.full((int(ends[-1]) + 1,), _STEP, dtype=torch.uint8)
    packed_codes = torch.zeros(len(packed_steps), dtype=torch.int8)
    packed_steps[ends] = (steps.ravel() - _STEP * fillers).to(torch.uint8)
    packed_codes[ends] = codes.ravel()
    counts = (fillers + 1).reshape(size, -1).sum(dim=1).to(torch.int16)
    return {"counts": counts, "steps": packed_steps, "codes": packed_codes, "scale": scale}
