"""First generation, the code of the preprint: protein embeddings as gene identity, three blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bulkformer_tl.models._layers import MISSING, Encoder, GraphPerformer, ValueEncoding, mlp


@dataclass(frozen=True)
class PreprintConfig:
    """Sizes of a network of the first generation.

    Parameters
    ----------
    n_genes
        Number of genes G.
    dim
        Width D.
    protein_dim
        Width of the protein embeddings (1,280 for ESM2).
    heads
        Attention heads H.
    n_performers
        Performer layers of each block.
    n_blocks
        Blocks of one graph convolution and ``n_performers`` Performers.
    """

    n_genes: int
    dim: int
    protein_dim: int = 1280
    heads: int = 8
    n_performers: int = 4
    n_blocks: int = 3


class PreprintNetwork(Encoder):
    """BulkFormer as published with the preprint (bioRxiv 2025.06.11.659222)."""

    config: PreprintConfig

    def __init__(self, config: PreprintConfig) -> None:
        super().__init__(config)
        dim = config.dim
        self.gene_emb = nn.Parameter(torch.zeros(config.n_genes, config.protein_dim))
        self.gene_emb_proj = mlp(config.protein_dim, 4 * dim, dim)
        self.expr_emb = ValueEncoding(dim)
        self.x_proj = mlp(dim, 4 * dim, dim)
        self.gb_formers = nn.ModuleList(
            GraphPerformer(dim, heads=config.heads, n_performers=config.n_performers, attn_dropout=0.2, ff_dropout=0.2)
            for _ in range(config.n_blocks)
        )
        self.layernorm = nn.LayerNorm(dim)
        self.ae_enc = mlp(config.n_genes, 4 * dim, dim)
        self.head = nn.Sequential(*mlp(dim, 4 * dim, 1), nn.ReLU())

    def gene_table(self) -> Tensor:
        """Return the protein embedding of each gene, as trained further, (G, P)."""
        return self.gene_emb

    def tokens(self, values: Tensor, observed: Tensor) -> Tensor:
        """Sum the three inputs and project them: (N, G) to (N, G, D)."""
        # the whole-sample encoder sees the markers; only the encoding of values is silent where one is missing
        marked = torch.where(observed, values, MISSING)
        tokens = self.gene_emb_proj(self.gene_emb) + self.expr_emb(marked, observed)
        projected: Tensor = self.x_proj(tokens + self.ae_enc(marked)[:, None])
        return projected

    def forward(self, values: Tensor, observed: Tensor, *, block: int | None = None) -> Tensor:
        """Return gene vectors (N, G, D) of samples (N, G).

        ``block`` counts from 0; ``None`` is the last. The last block's vectors are normalised, those of earlier ones
        are not, as in the published code.
        """
        last = len(self.gb_formers) - 1
        wanted = last if block is None else block
        if not 0 <= wanted <= last:
            message = f"block must lie between 0 and {last}, found {block}"
            raise ValueError(message)
        hidden, adjacency = self.tokens(values, observed), self.adjacency()
        for layer in self.gb_formers[: wanted + 1]:
            hidden = layer(hidden, adjacency)
        if wanted < last:
            return hidden
        normalised: Tensor = self.layernorm(hidden)
        return normalised

    def predict(self, hidden: Tensor, values: Tensor, observed: Tensor) -> Tensor:
        """Return predicted ln(TPM+1), (N, G), never negative."""
        predicted: Tensor = self.head(hidden).squeeze(-1)
        return predicted
