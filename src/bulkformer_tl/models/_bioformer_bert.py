"""BioFormers' network as its authors published it in code: BERT over joint tokens of gene and bin."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bulkformer_tl.models._bioformer import ABSENT
from bulkformer_tl.models._transformer import EPSILON, Block, token_head

if TYPE_CHECKING:
    from pathlib import Path

#: BERT's two kinds of segments, of which only the first is used.
_SEGMENTS = 2
_WORDS = "Bert.embeddings.word_embeddings.weight"
_NAMES = (
    (r"^Bert\.embeddings\.word_embeddings\.", "word."),
    (r"^Bert\.embeddings\.position_embeddings\.", "position."),
    (r"^Bert\.embeddings\.token_type_embeddings\.", "segment."),
    (r"^Bert\.embeddings\.LayerNorm\.", "norm."),
    (r"^Bert\.encoder\.layer\.(\d+)\.attention\.self\.", r"blocks.\1.attention."),
    (r"^Bert\.encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attention.out."),
    (r"^Bert\.encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.", r"blocks.\1.norm_attention."),
    (r"^Bert\.encoder\.layer\.(\d+)\.intermediate\.dense\.", r"blocks.\1.feed_forward.0."),
    (r"^Bert\.encoder\.layer\.(\d+)\.output\.dense\.", r"blocks.\1.feed_forward.2."),
    (r"^Bert\.encoder\.layer\.(\d+)\.output\.LayerNorm\.", r"blocks.\1.norm_feed_forward."),
    (r"^ClassificationHead\.1\.", "head.1."),
    (r"^ClassificationHead\.3\.", "head.2."),
)
#: In the published state and never used: BERT's pooler, and a constant that older versions stored.
_UNUSED = ("Bert.pooler.", "Bert.embeddings.position_ids")


@dataclass(frozen=True)
class BioformerBertConfig:
    """Sizes of the published network; the defaults are those of its settings.

    Parameters
    ----------
    n_genes
        Genes G.
    n_bins
        Bins, that of zero included.
    dim
        Width D.
    layers
        Transformer layers.
    heads
        Attention heads.
    feed_forward
        Inner width of the feed-forward part.
    dropout
        In training.
    """

    n_genes: int
    n_bins: int
    dim: int = 768
    layers: int = 12
    heads: int = 12
    feed_forward: int = 3072
    dropout: float = 0.1


class BioformerBertNetwork(nn.Module):
    """BERT whose words are pairs of gene and bin, ``gene * n_bins + bin``, after which the mask comes.

    It has neither ``<cls>`` nor external tokens, and the places of genes have learned vectors of their own.

    Parameters
    ----------
    config
        Sizes.
    """

    #: Whether there is a vector of the sample itself.
    has_cls = False

    def __init__(self, config: BioformerBertConfig) -> None:
        super().__init__()
        self.config = config
        n_words = config.n_genes * config.n_bins + 1
        self.word = nn.Embedding(n_words, config.dim)
        self.position = nn.Embedding(config.n_genes, config.dim)
        self.segment = nn.Embedding(_SEGMENTS, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=EPSILON)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.feed_forward, config.dropout) for _ in range(config.layers)
        )
        self.head = token_head(config.dim, n_words)

    def forward(
        self,
        bins: Tensor,
        hidden: Tensor | None = None,
        external: Tensor | None = None,
        *,
        features: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:
        """Return ``None`` and the vectors of genes; see :meth:`BioformerNetwork.forward`."""
        config = self.config
        chosen = torch.arange(config.n_genes, device=bins.device) if features is None else features
        words = chosen * config.n_bins + bins.clamp(min=0)
        if hidden is not None:
            words = words.masked_fill(hidden, config.n_genes * config.n_bins)
        tokens = self.drop(self.norm(self.word(words) + self.segment.weight[0] + self.position(chosen)))
        present = bins != ABSENT
        allowed = None if bool(present.all()) else present[:, None, None]
        for block in self.blocks:
            tokens = block(tokens, allowed)
        return None, tokens

    def word_logits(self, vectors: Tensor) -> Tensor:
        """Score all words, (N, T, G * B + 1), as the published objective does."""
        found: Tensor = self.head(vectors)
        return found

    def bin_logits(self, vectors: Tensor, features: Tensor | None = None) -> Tensor:
        """Score the bins of each gene itself, (..., T, B), from vectors (..., T, D), without other genes' words."""
        config = self.config
        chosen = torch.arange(config.n_genes, device=vectors.device) if features is None else features
        normed = self.head[:-1](vectors)
        last: Any = self.head[-1]
        weight = last.weight[:-1].view(config.n_genes, config.n_bins, -1)[chosen]
        bias = last.bias[:-1].view(config.n_genes, config.n_bins)[chosen]
        found: Tensor = torch.einsum("...td,tbd->...tb", normed, weight) + bias
        return found

    def gene_table(self) -> Tensor:
        """Return the mean of the vectors of a gene's words, (G, D)."""
        config = self.config
        return self.word.weight[:-1].view(config.n_genes, config.n_bins, -1).mean(dim=1)


def read_published(
    state: dict[str, Tensor], n_genes: int, heads: int, path: Path
) -> tuple[BioformerBertConfig, dict[str, Tensor]]:
    """Turn the published module's state into that of :class:`BioformerBertNetwork`, and read its sizes.

    Parameters
    ----------
    state
        Names and tensors.
    n_genes
        Genes of the vocabulary.
    heads
        Attention heads, which no tensor tells.
    path
        For messages.

    Raises
    ------
    ValueError
        If it is another network, or its tables do not fit the vocabulary.
    """
    if _WORDS not in state:
        message = f"{path} is not the network that BioFormers published: it has no {_WORDS}, but {sorted(state)[:3]}"
        raise ValueError(message)
    n_words, dim = state[_WORDS].shape
    n_bins, rest = divmod(n_words - 1, n_genes)
    if rest or not n_bins:
        message = (
            f"the embedding table of {path} has {n_words:,} rows, one for the mask and the others for pairs of gene "
            f"and bin; {n_genes:,} genes do not divide {n_words - 1:,}. Pass the genes that it was trained on"
        )
        raise ValueError(message)
    if dim % heads:
        message = f"the vectors of {path} have the width {dim}, which {heads} heads do not divide; pass heads="
        raise ValueError(message)
    own = {}
    for name, tensor in state.items():
        if not name.startswith(_UNUSED):
            for pattern, replacement in _NAMES:
                name = re.sub(pattern, replacement, name)  # noqa: PLW2901  one pattern applies
            own[name] = tensor
    layers = len({name.split(".")[1] for name in own if name.startswith("blocks.")})
    inner = own["blocks.0.feed_forward.0.weight"].shape[0] if "blocks.0.feed_forward.0.weight" in own else 4 * dim
    sizes = {"dim": dim, "layers": layers, "heads": heads, "feed_forward": inner}
    return BioformerBertConfig(n_genes=n_genes, n_bins=n_bins, **sizes), own
