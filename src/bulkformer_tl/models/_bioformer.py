"""BioFormers' network as its paper describes it (doi:10.1101/2023.11.29.569320): gene + value + external tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bulkformer_tl.models._transformer import EPSILON, Block, token_head

Value = Literal["table", "linear"]

#: Marks an entry that was not measured: it has no token.
ABSENT = -1


@dataclass(frozen=True)
class BioformerConfig:
    """Sizes of the network; the defaults for layers, heads and width are the paper's.

    Parameters
    ----------
    n_genes
        Features G: genes, and whatever else has a value in a sample.
    n_bins
        Bins, that of zero included; what is above the last one is in it.
    dim
        Width D.
    layers
        Transformer layers.
    heads
        Attention heads.
    feed_forward
        Inner width of the feed-forward part, which the paper does not state; four times D as in BERT.
    value
        How a bin becomes a vector: a ``"table"`` with one row for each, or ``"linear"`` in its number.
    decoder
        Whether hidden tokens see the known ones and themselves only, and known ones never see hidden ones, so that
        values can be generated one after the other; else every token sees every other.
    external
        Number of codes of each external token, in their order.
    n_modalities
        Kinds of features; with more than one, each has a vector of its own that is added.
    dropout
        In training.
    """

    n_genes: int
    n_bins: int = 64
    dim: int = 512
    layers: int = 8
    heads: int = 8
    feed_forward: int = 2048
    value: Value = "table"
    decoder: bool = False
    external: tuple[int, ...] = ()
    n_modalities: int = 1
    dropout: float = 0.1

    def __post_init__(self) -> None:
        # what a JSON file holds is a list
        object.__setattr__(self, "external", tuple(self.external))
        for fine, what in (
            (self.dim % self.heads == 0, f"dim={self.dim} is not a multiple of heads={self.heads}"),
            (self.n_bins >= 2, f"n_bins counts bins from that of zero, at least 2; found {self.n_bins}"),
            (self.value in {"table", "linear"}, f"value must be 'table' or 'linear', found {self.value!r}"),
        ):
            if not fine:
                raise ValueError(what)


class BioformerNetwork(nn.Module):
    """Tokens of a sample's features, a ``<cls>`` token before them, and a transformer over both.

    A token is the sum of the vector of its feature, of its bin (or of the mask), of its external codes and, where there
    are several, of its modality (equation 7), normalised.

    Parameters
    ----------
    config
        Sizes.
    """

    #: Whether there is a vector of the sample itself.
    has_cls = True

    def __init__(self, config: BioformerConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.gene = nn.Embedding(config.n_genes, dim)
        self.value: nn.Module = nn.Embedding(config.n_bins, dim) if config.value == "table" else nn.Linear(1, dim)
        self.mask, self.cls = (nn.Parameter(torch.empty(dim)) for _ in range(2))
        self.external = nn.ModuleList(nn.Embedding(n_codes + 1, dim, padding_idx=0) for n_codes in config.external)
        self.modality = nn.Embedding(config.n_modalities, dim) if config.n_modalities > 1 else None
        self.modalities: Tensor
        self.register_buffer("modalities", torch.zeros(config.n_genes, dtype=torch.int64))
        self.norm = nn.LayerNorm(dim, eps=EPSILON)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(dim, config.heads, config.feed_forward, config.dropout) for _ in range(config.layers)
        )
        self.head = token_head(dim, config.n_bins)
        self.reset()

    def reset(self) -> None:
        """Draw weights as BERT does: normal with deviation 0.02, biases zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])
        for vector in (self.mask, self.cls):
            nn.init.normal_(vector, std=0.02)

    def forward(
        self,
        bins: Tensor,
        hidden: Tensor | None = None,
        external: Tensor | None = None,
        *,
        features: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:
        """Return the vectors of samples and of their features.

        Parameters
        ----------
        bins
            Whole numbers, (N, T), int64; -1 where there is no token, whose vectors mean nothing.
        hidden
            What is replaced by the mask, (N, T); ``None`` hides nothing.
        external
            Codes of external tokens, (N, T, E), 0 where there is none; ``None`` where the network has no such tokens,
            or none is known.
        features
            Which features the T columns are, (T,); ``None`` takes all in their order.

        Returns
        -------
        The vectors of ``<cls>``, (N, D), and of the features, (N, T, D).
        """
        masked = torch.zeros_like(bins, dtype=torch.bool) if hidden is None else hidden
        tokens = self._embed(bins, masked, external, features)
        allowed = self._allowed(bins != ABSENT, masked)
        for block in self.blocks:
            tokens = block(tokens, allowed)
        return tokens[:, 0], tokens[:, 1:]

    def _embed(self, bins: Tensor, hidden: Tensor, external: Tensor | None, features: Tensor | None) -> Tensor:
        chosen = torch.arange(self.config.n_genes, device=bins.device) if features is None else features
        known = bins.clamp(min=0)
        if self.config.value == "table":
            value = self.value(known)
        else:
            value = self.value(known[..., None].to(self.cls) / (self.config.n_bins - 1))
        tokens = self.gene(chosen) + torch.where(hidden[..., None], self.mask, value)
        if external is not None:
            for codes, table in zip(external.unbind(-1), self.external, strict=True):
                tokens = tokens + table(codes)
        if self.modality is not None:
            tokens = tokens + self.modality(self.modalities[chosen])
        tokens = torch.cat([self.cls.expand(len(bins), 1, -1), tokens], dim=1)
        found: Tensor = self.drop(self.norm(tokens))
        return found

    def _allowed(self, present: Tensor, hidden: Tensor) -> Tensor | None:
        """Say which tokens each may attend to, (N, 1, 1 or T + 1, T + 1); ``None`` where all may attend to all."""
        known = present & ~hidden if self.config.decoder else present
        if bool(known.all()):
            return None
        known = torch.cat([known.new_ones(len(known), 1), known], dim=1)[:, None, None]
        if self.config.decoder:
            return known | torch.eye(known.shape[-1], dtype=torch.bool, device=known.device)
        return known

    def bin_logits(self, vectors: Tensor, features: Tensor | None = None) -> Tensor:
        """Score the bins of features, (..., T, B), from their vectors, (..., T, D)."""
        found: Tensor = self.head(vectors)
        return found

    def gene_table(self) -> Tensor:
        """Return the static vector of each feature, (G, D)."""
        return self.gene.weight
