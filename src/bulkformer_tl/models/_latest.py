"""Third generation, ``bulkformer-latest``: one graph bottleneck, then Performers; scaled by how much is visible."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from bulkformer_tl.models._layers import DeviationHead, Encoder, GraphConvolution, ValueEncoding, performer, propagate


@dataclass(frozen=True)
class LatestConfig:
    """Sizes and constants of a network of the third generation.

    Parameters
    ----------
    n_genes
        Number of genes G.
    dim
        Width D.
    depth
        Performer layers.
    heads, dim_head
        Attention heads H and the width of each.
    ff_mult
        Width of the feed-forward layers, in multiples of D.
    nb_features
        Random features of each attention.
    dropout, attention_dropout, graph_dropout
        Shares dropped in training.
    graph_hidden_dim
        Width of the graph bottleneck.
    graph_scale_init
        Start of the per-channel scale of the graph branch.
    expression_base
        Base of the frequencies of the value encoding.
    expression_scale_init
        Start of the learned scale of the value encoding.
    mask_ratio_scaling_enabled
        Whether the value encoding grows where less is visible.
    mask_ratio_reference
        Missing share at which that factor is 1.
    mask_ratio_max_scale
        Largest factor.
    mask_ratio_min_visible_fraction
        Visible shares below this one count as this one.
    learned_deviation
        Whether the network also predicts the standard deviation of its predictions; the published one does not.
    """

    n_genes: int
    dim: int = 768
    depth: int = 12
    heads: int = 12
    dim_head: int = 64
    ff_mult: int = 4
    nb_features: int = 256
    dropout: float = 0.1
    attention_dropout: float = 0.05
    graph_hidden_dim: int = 192
    graph_dropout: float = 0.1
    graph_scale_init: float = 0.01
    expression_base: float = 100.0
    expression_scale_init: float = 1.0
    mask_ratio_scaling_enabled: bool = True
    mask_ratio_reference: float = 0.1
    mask_ratio_max_scale: float = 2.0
    mask_ratio_min_visible_fraction: float = 0.05
    learned_deviation: bool = False


class GraphBottleneck(nn.Module):
    """Residual graph convolution in a narrow space, with a scale per channel."""

    def __init__(self, config: LatestConfig) -> None:
        super().__init__()
        narrow = config.graph_hidden_dim
        self.residual_scale = nn.Parameter(torch.full((config.dim,), config.graph_scale_init))
        self.norm = nn.LayerNorm(config.dim)
        self.input_projection = nn.Linear(config.dim, narrow, bias=False)
        self.convolution = GraphConvolution(narrow, bias=False)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(config.graph_dropout)
        self.output_projection = nn.Linear(narrow, config.dim, bias=False)

    def forward(self, hidden: Tensor, adjacency: tuple[Tensor, ...]) -> Tensor:
        """Map (N, G, D) to (N, G, D)."""
        narrow = propagate(self.convolution, self.input_projection(self.norm(hidden)), adjacency)
        wide: Tensor = self.output_projection(self.dropout(self.activation(narrow)))
        return hidden + self.residual_scale * wide


class LatestNetwork(Encoder):
    """``bulkformer-latest`` as released on 9 October 2026."""

    #: Edges are used as stored: from row 0 to row 1.
    receiver_row: ClassVar[int] = 1
    config: LatestConfig

    def __init__(self, config: LatestConfig) -> None:
        super().__init__(config)
        dim = config.dim
        self.expression_scale = nn.Parameter(torch.tensor(config.expression_scale_init))
        self.gene_embedding = nn.Embedding(config.n_genes, dim)
        self.value_encoding = ValueEncoding(dim, base=config.expression_base, persistent=False)
        self.input_norm = nn.LayerNorm(dim)
        self.graph_block = GraphBottleneck(config)
        self.pre_performer_norm = nn.LayerNorm(dim)
        self.performer = performer(
            dim,
            depth=config.depth,
            heads=config.heads,
            dim_head=config.dim_head,
            nb_features=config.nb_features,
            ff_mult=config.ff_mult,
            attn_dropout=config.attention_dropout,
            ff_dropout=config.dropout,
        )
        self.output_norm = nn.LayerNorm(dim)
        self.expression_head = nn.Sequential(
            nn.Linear(dim, dim), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(dim, 1)
        )
        if config.learned_deviation:
            self.deviation = DeviationHead(dim)

    def gene_table(self) -> Tensor:
        """Return the trained vector of each gene, of unit root mean square, (G, D)."""
        table = self.gene_embedding.weight
        return table * (table.square().mean(dim=-1, keepdim=True) + 1e-8).rsqrt()

    def visible_scale(self, observed: Tensor) -> Tensor:
        """Return the factor of each sample's value encoding, (N,): larger where less of the vocabulary is visible."""
        config = self.config
        visible = observed.float().mean(dim=1)
        if not config.mask_ratio_scaling_enabled:
            return torch.ones_like(visible)
        scale = (1.0 - config.mask_ratio_reference) / visible.clamp(min=config.mask_ratio_min_visible_fraction)
        return scale.clamp(max=config.mask_ratio_max_scale)

    def tokens(self, values: Tensor, observed: Tensor) -> Tensor:
        """Add gene identity and value encoding and normalise: (N, G) to (N, G, D)."""
        expression = self.value_encoding(values, observed) * math.sqrt(2.0)
        expression = expression * self.visible_scale(observed)[:, None, None] * self.expression_scale
        normalised: Tensor = self.input_norm(self.gene_table() + expression)
        return normalised

    def forward(self, values: Tensor, observed: Tensor) -> Tensor:
        """Return gene vectors (N, G, D) of samples (N, G)."""
        hidden = self.graph_block(self.tokens(values, observed), self.adjacency())
        normalised: Tensor = self.output_norm(self.performer(self.pre_performer_norm(hidden)))
        return normalised

    def predict(self, hidden: Tensor, values: Tensor, observed: Tensor) -> Tensor:
        """Return predicted ln(TPM+1), (N, G); unconstrained, so it may be negative."""
        predicted: Tensor = self.expression_head(hidden).squeeze(-1)
        return predicted
