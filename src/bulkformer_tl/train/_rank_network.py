"""A BERT over lists of genes as training sees it: some of them are masked, and asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bulkformer_tl._rank_vocabulary import CLS, EOS, MASK, PAD

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Of the tokens that are asked for, how many are masked, and how many of the others are another token (Devlin et al.
#: 2019); the rest stays as it is.
MASKED, OTHER = 0.8, 0.1


class RankNetwork(nn.Module):
    """A network of transformers, and the tokens of its genes.

    Parameters
    ----------
    bert
        ``BertForMaskedLM``.
    tokens
        Of each gene of the corpus' vocabulary, (G,).
    specials
        Tokens of ``<pad>`` and ``<mask>``, and where there are such ``<cls>`` and ``<eos>``.
    """

    def __init__(self, bert: Any, tokens: Tensor, specials: Mapping[str, int]) -> None:
        super().__init__()
        self.bert: Any = bert
        self.tokens: Tensor
        self.register_buffer("tokens", tokens.long(), persistent=False)
        self.specials = dict(specials)

    @property
    def ends(self) -> int:
        """1 where lists stand between ``<cls>`` and ``<eos>``, else 0."""
        return int(CLS in self.specials and EOS in self.specials)

    @property
    def length(self) -> int:
        """Genes of a list at most."""
        return int(self.bert.config.max_position_embeddings) - 2 * self.ends

    def forward(self, genes: Tensor, hidden: Tensor, *, fast: bool = True) -> tuple[Tensor, Tensor]:
        """Score all tokens at the places of hidden genes.

        Parameters
        ----------
        genes
            Genes of each sample in the order of their rank, (N, L); -1 behind the last.
        hidden
            Which of them are asked for, (N, L). In training 80 % of them are masked, 10 % another token and 10 % as
            they are; else all are masked.
        fast
            Whether only they go through the head.

        Returns
        -------
        Scores, (K, V), and the tokens that stood there, (K,), in the order of ``hidden.nonzero()``.
        """
        absent = genes < 0
        tokens = self.tokens[genes.clamp(min=0)].masked_fill(absent, self.specials[PAD])
        asked = tokens[hidden]
        tokens[hidden] = self._corrupted(asked)
        if self.ends:
            last = (~absent).sum(dim=1, keepdim=True) + 1
            room = tokens.new_full((len(tokens), 1), self.specials[PAD])
            tokens = torch.cat([room, tokens, room], dim=1)
            tokens[:, 0] = self.specials[CLS]
            tokens.scatter_(1, last, self.specials[EOS])
        found = self.bert.bert(input_ids=tokens, attention_mask=(tokens != self.specials[PAD]).long())
        vectors = found.last_hidden_state[:, self.ends : self.ends + genes.shape[1]]
        return (self.bert.cls(vectors[hidden]) if fast else self.bert.cls(vectors)[hidden]), asked

    def _corrupted(self, tokens: Tensor) -> Tensor:
        masked = torch.full_like(tokens, self.specials[MASK])
        if not self.training:
            return masked
        # drawn from torch's own state, which depends on the seed and the samples' place in the order
        share = torch.rand(len(tokens), device=tokens.device)
        others = torch.randint_like(tokens, int(self.bert.config.vocab_size))
        return torch.where(share < MASKED, masked, torch.where(share < MASKED + OTHER, others, tokens))
