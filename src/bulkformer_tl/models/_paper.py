"""Second generation, the five sizes of the paper: trainable gene table, whole-sample projection, three summaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from bulkformer_tl.models._layers import MISSING, DeviationHead, Encoder, GraphPerformer, ValueEncoding, mlp


@dataclass(frozen=True)
class PaperConfig:
    """Sizes of a network of the second generation.

    Parameters
    ----------
    n_genes
        Number of genes G.
    dim
        Width D.
    heads
        Attention heads H.
    n_performers
        Performer layers of each block.
    n_blocks
        Blocks of one graph convolution and ``n_performers`` Performers.
    mask_prob
        Missing share handed over for all samples, as the published code does (its ``None`` is 0.0). ``None`` computes
        it from each sample.
    learned_deviation
        Whether the network also predicts the standard deviation of its predictions, as none of the published ones.
    mean_correction
        Whether predictions of missing genes are shifted as the published networks do it; see
        :meth:`PaperNetwork.correct_mean`. Without, training needs the last layer at hidden genes only.
    """

    n_genes: int
    dim: int
    heads: int = 8
    n_performers: int = 1
    n_blocks: int = 1
    mask_prob: float | None = None
    learned_deviation: bool = False
    mean_correction: bool = True


class PaperNetwork(Encoder):
    """BulkFormer as published with the paper (Cell Systems 2026)."""

    n_summary: ClassVar[int] = 3
    config: PaperConfig

    def __init__(self, config: PaperConfig) -> None:
        super().__init__(config)
        dim = config.dim
        self.gene_emb_onehot_layer = nn.Embedding(config.n_genes, dim)
        self.gene_emb_proj = mlp(dim, 4 * dim, dim)
        self.expr_emb = ValueEncoding(dim)
        self.x_proj = mlp(dim, 4 * dim, dim)
        self.gb_formers = nn.ModuleList(
            GraphPerformer(dim, heads=config.heads, n_performers=config.n_performers, attn_dropout=0.05, ff_dropout=0.1)
            for _ in range(config.n_blocks)
        )
        self.layernorm = nn.LayerNorm(dim)
        self.global_expr_proj = mlp(config.n_genes, 4 * dim, dim)
        width = dim + self.n_summary
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim), nn.ReLU(), nn.Linear(dim, 1), nn.ReLU())
        if config.learned_deviation:
            self.deviation = DeviationHead(dim)
        nn.init.xavier_uniform_(self.gene_emb_onehot_layer.weight)

    def gene_table(self) -> Tensor:
        """Return the trained vector of each gene, (G, D)."""
        return self.gene_emb_onehot_layer.weight

    def tokens(self, values: Tensor, observed: Tensor) -> Tensor:
        """Sum the three inputs and project them: (N, G) to (N, G, D)."""
        # the whole-sample projection sees the markers; only the encoding of values is silent where one is missing
        marked = torch.where(observed, values, MISSING)
        tokens = self.expr_emb(marked, observed) + self.gene_emb_proj(self.gene_table())
        tokens = tokens + self.global_expr_proj(marked)[:, None]
        projected: Tensor = self.x_proj(tokens)
        return projected

    def forward(self, values: Tensor, observed: Tensor) -> Tensor:
        """Return gene vectors (N, G, D) of samples (N, G)."""
        hidden, adjacency = self.tokens(values, observed), self.adjacency()
        for block in self.gb_formers:
            hidden = block(hidden, adjacency)
        normalised: Tensor = self.layernorm(hidden)
        return normalised

    def summaries(self, values: Tensor, observed: Tensor) -> Tensor:
        """Return the missing share, the mean observed value and the share of values that are not zero, (N, 3).

        A missing value counts as not zero, because the published code counts the markers.
        """
        missing = (~observed).float().mean(dim=1)
        if self.config.mask_prob is not None:
            missing = torch.full_like(missing, self.config.mask_prob)
        not_zero = (~observed | (values != 0)).float().mean(dim=1)
        return torch.stack([missing, _observed_mean(values, observed), not_zero], dim=1)

    def predict(self, hidden: Tensor, values: Tensor, observed: Tensor) -> Tensor:
        """Return predicted ln(TPM+1), (N, G); mean-corrected missing genes may be negative."""
        summaries = self.summaries(values, observed)
        wide = torch.cat([hidden, summaries[:, None].expand(-1, hidden.shape[1], -1)], dim=-1)
        predicted: Tensor = self.head(wide).squeeze(-1)
        return self.correct_mean(predicted, values, observed) if self.config.mean_correction else predicted

    def correct_mean(self, predicted: Tensor, values: Tensor, observed: Tensor) -> Tensor:
        """Shift missing genes by as much as the mean prediction of the observed genes misses their mean, (N, G)."""
        shift = _observed_mean(predicted, observed) - _observed_mean(values, observed)
        return torch.where(observed, predicted, predicted - shift[:, None])


def _observed_mean(values: Tensor, observed: Tensor) -> Tensor:
    # the small constant is the published guard against a sample without any observed gene
    return values.where(observed, 0.0).sum(dim=1) / (observed.sum(dim=1) + 1e-8)
