"""Layers as the engine runs them: what flows from blocks of genes to the whole sample, and from there back to genes.

Genes meet one another in graph convolutions and in attention alone; everything else treats each gene for itself. So a
network is a row of stages. A stage *collects* from one block of genes after another, *finishes* when it has seen all,
and *spreads* what it found to one block after another. Between two stages a block goes through all operations at once,
while it is in the processor's cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from bulkformer_tl.models._products import linear
from bulkformer_tl.models._random_features import KeyValueSums, RandomFeatures

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulkformer_tl.models._engine_options import EngineOptions
    from bulkformer_tl.models._latest import GraphBottleneck
    from bulkformer_tl.models._layers import Encoder, GraphPerformer

    #: Some genes, by a range or by their positions.
    Rows = slice | Tensor


class Stage(Protocol):
    """A layer; what it collects of a sample is kept by the caller."""

    #: Width of the widest tensor in it.
    widest: int

    def start(self, genes: int) -> Any:
        """Return what an empty sample of so many genes has collected."""

    def collect(self, found: Any, rows: Rows, x: Tensor) -> Tensor:
        """Collect from a block of genes (T, D), and return what to keep of it until it is spread to, (T, D)."""

    def finish(self, found: Any, kept: Tensor) -> None:
        """Work out what is spread; may add to what was kept of all genes, (G, D)."""

    def spread(self, found: Any, rows: Rows, x: Tensor) -> Tensor:
        """Return genes (T, D) with what the whole sample gives them; may overwrite them."""


class Attention:
    """A Performer layer: attention, then the feed-forward network.

    Parameters
    ----------
    attend, feed_forward
        The layer's two halves, as performer-pytorch builds them.
    options
        Precision of products.
    """

    def __init__(self, attend: Any, feed_forward: Any, options: EngineOptions) -> None:
        core, inner = attend.fn, feed_forward.fn.fn
        self.dtype = options.dtype
        self.heads = core.heads
        self.width = core.to_q.out_features // core.heads
        self.features = RandomFeatures(core.fast_attention.projection_matrix, options)
        #: What sums over keys; one that also watches may take its place.
        self.sums: Callable[..., KeyValueSums] = KeyValueSums
        self.norms = attend.norm, feed_forward.norm
        self.to_queries, self.to_keys = linear(core.to_q, options), linear(core.to_k, options)
        self.to_values, self.to_out = linear(core.to_v, options), linear(core.to_out, options, bias=False)
        self.share_out = core.to_out
        self.widest = max(inner.w1.out_features, core.heads * len(core.fast_attention.projection_matrix))
        self.widen, self.narrow = linear(inner.w1, options, activation="gelu"), linear(inner.w2, options)

    def start(self, genes: int) -> KeyValueSums:
        """Return empty sums."""
        return self.sums(self.features, self.heads, self.width)

    def collect(self, found: KeyValueSums, rows: Rows, x: Tensor) -> Tensor:
        """Add keys and values of a block."""
        normalised = self._norm(0, x)
        found.add(self._split(self.to_keys(normalised)), self._split(self.to_values(normalised)))
        return x

    def finish(self, found: KeyValueSums, kept: Tensor) -> None:
        """Complete the sums.

        What all genes read in common goes out in float32, once for the sample: rounded, it would be rounded alike in
        all genes, and no average over genes would take that error out again.
        """
        found.finish(self.share_out)

    def spread(self, found: KeyValueSums, rows: Rows, x: Tensor) -> Tensor:
        """Add what a block's queries read, then its feed-forward network."""
        read = found.read(self._split(self.to_queries(self._norm(0, x))))
        x += self.to_out(read.flatten(0, 1).to(self.dtype).t().contiguous())
        x += found.shared
        x += self.narrow(self.widen(self._norm(1, x)))
        return x

    def _norm(self, which: int, x: Tensor) -> Tensor:
        # float32 inside, in any precision
        normalised: Tensor = self.norms[which](x)
        return normalised.to(self.dtype)

    def _split(self, x: Tensor) -> Tensor:
        """Put heads first, (T, H * E) to (H, T, E)."""
        return x.view(len(x), self.heads, self.width).transpose(0, 1).contiguous().to(self.features.dtype)


class Graph:
    """Mixing of genes along the edges of the gene graph, which was normalised when the network took it.

    Parameters
    ----------
    network
        Holds the graph.
    width
        Width of what is mixed.
    """

    def __init__(self, network: Encoder, width: int) -> None:
        self.adjacency = network.adjacency()
        self.device = network.adjacency()[-1].device
        self.widest = self.width = width
        if len(self.adjacency) == 1 and self.device.type == "cpu":
            # the products' own type of indices, which would be converted each time
            (graph,) = self.adjacency
            parts = graph.crow_indices().int(), graph.col_indices().int(), graph.values()
            self.adjacency = (torch.sparse_csr_tensor(*parts, graph.shape, check_invariants=False),)

    def table(self, genes: int) -> Tensor:
        """Return an empty table of what genes send."""
        return torch.empty(genes, self.width, device=self.device)

    def add_neighbours(self, x: Tensor, sent: Tensor) -> None:
        """Add to each gene of x (G, W) the weighted sum of what its neighbours sent, (G, W)."""
        if len(self.adjacency) == 1:
            x.addmm_(self.adjacency[0], sent)
        else:
            (senders, receivers), weights = self.adjacency
            x.index_add_(0, receivers, sent[senders] * weights[:, None])


class ResidualGraph(Graph):
    """Graph convolution of the first two generations: the normalised input plus what its neighbours make of it."""

    def __init__(self, block: GraphPerformer, network: Encoder, options: EngineOptions) -> None:
        convolution: Any = block.g
        super().__init__(network, convolution.lin.out_features)
        self.norm = block.layernorm
        self.project = linear(convolution.lin, options)
        self.bias: Tensor = convolution.bias.detach()

    def start(self, genes: int) -> Tensor:
        """Return an empty table of what genes send."""
        return self.table(genes)

    def collect(self, found: Tensor, rows: Rows, x: Tensor) -> Tensor:
        """Normalise a block, and project it."""
        normalised: Tensor = self.norm(x)
        found[rows] = self.project(normalised)
        return normalised.add_(self.bias)

    def finish(self, found: Tensor, kept: Tensor) -> None:
        """Add what the neighbours sent."""
        self.add_neighbours(kept, found)

    def spread(self, found: Tensor, rows: Rows, x: Tensor) -> Tensor:
        """Return the block, which has it all."""
        return x


class BottleneckGraph(Graph):
    """Graph convolution of the third generation, in a narrow space, and the norm behind it."""

    def __init__(self, block: GraphBottleneck, norm: nn.LayerNorm, network: Encoder, options: EngineOptions) -> None:
        super().__init__(network, block.input_projection.out_features)
        self.norms = block.norm, norm
        self.project = linear(block.input_projection, options)
        self.convolve = linear(block.convolution.lin, options)
        self.activate = block.activation
        self.widen = linear(block.output_projection, options)
        self.scale = block.residual_scale.detach()

    def start(self, genes: int) -> tuple[Tensor, Tensor]:
        """Return empty tables of what genes send, and receive."""
        return self.table(genes), self.table(genes).zero_()

    def collect(self, found: tuple[Tensor, Tensor], rows: Rows, x: Tensor) -> Tensor:
        """Project a block."""
        found[0][rows] = self.convolve(self.project(self.norms[0](x)))
        return x

    def finish(self, found: tuple[Tensor, Tensor], kept: Tensor) -> None:
        """Send."""
        self.add_neighbours(found[1], found[0])

    def spread(self, found: tuple[Tensor, Tensor], rows: Rows, x: Tensor) -> Tensor:
        """Add what the neighbours sent, and normalise."""
        x += self.scale * self.widen(self.activate(found[1][rows])).float()
        normalised: Tensor = self.norms[1](x)
        return normalised


def performers(layers: Any, options: EngineOptions) -> list[Stage]:
    """Return the stages of a Performer of performer-pytorch."""
    return [Attention(attend, feed_forward, options) for attend, feed_forward in layers.net.layers]


def graph_performers(blocks: Any, network: Encoder, options: EngineOptions) -> list[Stage]:
    """Return the stages of blocks of the first two generations."""
    stages: list[Stage] = []
    for block in blocks:
        stages.append(ResidualGraph(block, network, options))
        for layers in block.f:
            stages += performers(layers, options)
    return stages
