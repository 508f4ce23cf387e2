"""The transformer of BERT: attention and feed-forward, each followed by a layer norm over the residual sum."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

#: What BERT adds to a variance.
EPSILON = 1e-12


class Attention(nn.Module):
    """Softmax attention of several heads.

    Parameters
    ----------
    dim
        Width D.
    heads
        Number of heads, a divisor of D.
    dropout
        Of attention weights in training.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, tokens: Tensor, allowed: Tensor | None) -> Tensor:
        """Mix tokens, (N, T, D); ``allowed`` says who attends to whom, boolean, broadcast to (N, heads, T, T)."""
        n, length, dim = tokens.shape
        query, key, value = (
            part(tokens).view(n, length, self.heads, -1).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout)
        found: Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, dim))
        return found


class Block(nn.Module):
    """One layer.

    Parameters
    ----------
    dim
        Width D.
    heads
        Attention heads.
    feed_forward
        Width between the two linear maps of the feed-forward part.
    dropout
        In training, of attention weights and of what is added to the residual.
    """

    def __init__(self, dim: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, dropout)
        self.norm_attention = nn.LayerNorm(dim, eps=EPSILON)
        self.feed_forward = nn.Sequential(nn.Linear(dim, feed_forward), nn.GELU(), nn.Linear(feed_forward, dim))
        self.norm_feed_forward = nn.LayerNorm(dim, eps=EPSILON)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, allowed: Tensor | None) -> Tensor:
        """Map tokens (N, T, D) to tokens."""
        tokens = self.norm_attention(tokens + self.drop(self.attention(tokens, allowed)))
        found: Tensor = self.norm_feed_forward(tokens + self.drop(self.feed_forward(tokens)))
        return found


def token_head(dim: int, n_classes: int) -> nn.Sequential:
    """Make the head over classes: GELU, layer norm, linear."""
    return nn.Sequential(nn.GELU(), nn.LayerNorm(dim, eps=EPSILON), nn.Linear(dim, n_classes))
