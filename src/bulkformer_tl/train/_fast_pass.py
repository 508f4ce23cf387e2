"""The training pass: the networks' own numbers and gradients at hidden genes, sooner and in less memory.

In training a network is asked about the hidden genes alone, about one gene in seven. The plain way, that of
:mod:`bulkformer_tl.train._forward`, works all genes out through the last layer and the head, and keeps every
intermediate result for the backward pass. Here the same weights go through the same operations, apart from these
things, each of which :class:`Switches` turns off or on:

``hidden_only``
    Genes meet one another in graph convolutions and in attention only. Behind the last attention each gene goes its own
    way, and in it a gene meets the others through their keys and values. So the last layer needs keys and values of
    all genes, but queries, output projection, feed-forward network and head at the wanted genes alone; the others would
    get a gradient of zero. (The correction that the second generation's authors apply to predictions takes the mean
    over observed genes, so that these are wanted too; see ``PaperConfig.mean_correction``.)
``blocked_attention``
    :mod:`bulkformer_tl.models._linear_attention`: sums over keys add up in any grouping, and queries are independent,
    so random features, the widest tensors of all, exist for a block of tokens at a time and are computed again in the
    backward pass.
``blocked_tokens``
    The networks that make tokens and the feed-forward networks treat each token for itself, so they take a block at a
    time, which stays in the processor's cache. Gene identity does not depend on the sample: a block of tokens holds the
    same genes of all samples and computes it once.
``recompute_activations``
    Behind a feed-forward network's first layer come an activation and dropout, cheap but four times as wide as a
    token. They are computed again in the backward pass, with the same random draws, and not kept.
``recompute_tokens``
    The same for the networks that make tokens: a quarter less memory of a network with one layer, for a tenth more
    time. Off by default, because deep networks hardly notice.
``transposed_graph``
    The backward pass of a graph convolution multiplies by the transposed graph. It is the same in all samples and
    steps, so it is made once; torch makes it each time.

Dropout falls on the same distribution as in the plain way, but in a different order, so single draws differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.weak import WeakTensorKeyDictionary

from bulkformer_tl.models._latest import LatestNetwork
from bulkformer_tl.models._layers import MISSING, Encoder, propagate
from bulkformer_tl.models._linear_attention import attention
from bulkformer_tl.models._paper import PaperNetwork
from bulkformer_tl.train import _forward

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Switches:
    """What the fast pass does differently from the plain way; see the top of this file.

    Parameters
    ----------
    elements
        Numbers in the widest tensor of a block. ``None`` takes a million on a CPU, whose cache holds them, and 128
        million elsewhere.
    """

    hidden_only: bool = True
    blocked_attention: bool = True
    blocked_tokens: bool = True
    recompute_activations: bool = True
    recompute_tokens: bool = False
    transposed_graph: bool = True
    elements: int | None = None

    def block(self, width: int, device: torch.device) -> int:
        """Return how many tokens of a width make a block."""
        elements = self.elements or (2**20 if device.type == "cpu" else 2**27)
        return max(1, elements // width)


ALL = Switches()


def hidden_predictions(
    network: Encoder, values: Tensor, observed: Tensor, hidden: Tensor, *, switches: Switches = ALL
) -> Tensor:
    """Predict hidden values as ``network.predict`` does, differentiably.

    Parameters
    ----------
    network
        Of the second or third generation. Others go the plain way.
    values
        ln(TPM+1), (N, G); read only where observed and not hidden.
    observed
        Measured values, (N, G).
    hidden
        Values to hide from the network and to predict, (N, G).
    switches
        What to do differently from the plain way.

    Returns
    -------
    Predicted ln(TPM+1) in the order of ``values[hidden]``: shape (number of hidden values,).
    """
    values, shown = _shown(values, observed, hidden)
    if not isinstance(network, PaperNetwork | LatestNetwork):
        return _forward.hidden_predictions(network, values, shown, hidden)
    predicted, _ = _at_hidden(network, values, shown, hidden, switches)
    return predicted


def hidden_distribution(
    network: Encoder, values: Tensor, observed: Tensor, hidden: Tensor, *, switches: Switches = ALL
) -> tuple[Tensor, Tensor]:
    """Predict hidden values and the standard deviation of each prediction, both (number of hidden values,).

    Parameters are those of :func:`hidden_predictions`; the network has a learned deviation.
    """
    values, shown = _shown(values, observed, hidden)
    if not isinstance(network, PaperNetwork | LatestNetwork):
        return _forward.hidden_distribution(network, values, shown, hidden)
    predicted, vectors = _at_hidden(network, values, shown, hidden, switches)

    def deviation(rows: Tensor) -> Tensor:
        found: Tensor = network.deviation(rows, values, shown)
        return found

    return predicted, _over_rows(deviation, vectors, network.config.dim, switches)


def gene_vectors(network: Encoder, values: Tensor, observed: Tensor, *, switches: Switches = ALL) -> Tensor:
    """Return gene vectors (N, G, D) as the network itself does, differentiably, for a head of another kind.

    Parameters are those of :func:`hidden_predictions`; nothing is hidden.
    """
    if not isinstance(network, PaperNetwork | LatestNetwork):
        vectors: Tensor = network(values, observed)
        return vectors
    everything = torch.ones_like(observed)
    if isinstance(network, PaperNetwork):
        return _paper_vectors(network, values, observed, everything, switches).view(*values.shape, -1)
    return _latest_vectors(network, values, observed, everything, switches).view(*values.shape, -1)


def _shown(values: Tensor, observed: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    shown = observed & ~hidden
    return torch.where(shown, values, 0.0), shown


def _at_hidden(
    network: PaperNetwork | LatestNetwork, values: Tensor, shown: Tensor, hidden: Tensor, switches: Switches
) -> tuple[Tensor, Tensor]:
    """Return predictions (K,) and vectors (K, D) of the hidden genes."""
    if isinstance(network, PaperNetwork):
        return _paper(network, values, shown, hidden, switches)
    return _latest(network, values, shown, hidden, switches)


def _paper(
    network: PaperNetwork, values: Tensor, shown: Tensor, hidden: Tensor, switches: Switches
) -> tuple[Tensor, Tensor]:
    corrected = network.config.mean_correction
    wanted = _wanted(hidden | shown if corrected else hidden, switches)
    vectors = _paper_vectors(network, values, shown, wanted, switches)
    samples, genes = wanted.nonzero(as_tuple=True)
    wide = torch.cat([vectors, network.summaries(values, shown)[samples]], dim=-1)
    predicted = _over_rows(network.head, wide, network.config.dim, switches).squeeze(-1)
    if corrected:
        everywhere = predicted.new_zeros(values.shape).index_put((samples, genes), predicted)
        return network.correct_mean(everywhere, values, shown)[hidden], _only(vectors, hidden, wanted)
    return _only(predicted, hidden, wanted), _only(vectors, hidden, wanted)


def _paper_vectors(network: PaperNetwork, values: Tensor, shown: Tensor, wanted: Tensor, switches: Switches) -> Tensor:
    """Return the vectors of the wanted genes, (R, D)."""
    marked = torch.where(shown, values, MISSING)
    whole = network.global_expr_proj(marked)[:, None]

    def tokens(genes: slice) -> Tensor:
        identity = network.gene_emb_proj(network.gene_table()[genes])
        projected: Tensor = network.x_proj(network.expr_emb(marked[:, genes], shown[:, genes]) + identity + whole)
        return projected

    stream = _over_genes(tokens, values, 4 * network.config.dim, switches)
    blocks: Any = network.gb_formers
    last = blocks[-1].f[-1]
    for block in blocks:
        stream = block.layernorm(stream)
        stream = stream + _convolve(network, block.g, stream, switches)
        for layer in block.f:
            stream = _performer(layer, stream, wanted if layer is last else None, switches)
    normalised: Tensor = network.layernorm(stream)
    return normalised


def _latest(
    network: LatestNetwork, values: Tensor, shown: Tensor, hidden: Tensor, switches: Switches
) -> tuple[Tensor, Tensor]:
    wanted = _wanted(hidden, switches)
    vectors = _latest_vectors(network, values, shown, wanted, switches)
    predicted = _over_rows(network.expression_head, vectors, network.config.dim, switches).squeeze(-1)
    return _only(predicted, hidden, wanted), _only(vectors, hidden, wanted)


def _latest_vectors(
    network: LatestNetwork, values: Tensor, shown: Tensor, wanted: Tensor, switches: Switches
) -> Tensor:
    """Return the vectors of the wanted genes, (R, D)."""
    scale = network.visible_scale(shown)[:, None, None].to(values) * math.sqrt(2.0) * network.expression_scale
    table, graph = network.gene_table(), network.graph_block

    def tokens(genes: slice) -> Tensor:
        expression = network.value_encoding(values[:, genes], shown[:, genes]) * scale
        normalised: Tensor = network.input_norm(table[genes] + expression)
        return normalised

    stream = _over_genes(tokens, values, network.config.dim, switches)
    narrow = _convolve(network, graph.convolution, graph.input_projection(graph.norm(stream)), switches)
    stream = stream + graph.residual_scale * graph.output_projection(graph.dropout(graph.activation(narrow)))
    rows = _performer(network.performer, network.pre_performer_norm(stream), wanted, switches)
    normalised: Tensor = network.output_norm(rows)
    return normalised


def _wanted(genes: Tensor, switches: Switches) -> Tensor:
    return genes if switches.hidden_only else torch.ones_like(genes)


def _only(rows: Tensor, hidden: Tensor, wanted: Tensor) -> Tensor:
    """Take what belongs to hidden genes (K, ...) from rows of the wanted genes (R, ...)."""
    return rows if wanted is hidden else rows.index_select(0, hidden[wanted].nonzero().squeeze(1))


def _performer(performer: Any, stream: Tensor, wanted: Tensor | None, switches: Switches) -> Tensor:
    """Apply Performer layers to (N, G, D); where ``wanted`` (N, G) is given, return these genes' rows (R, D) alone."""
    layers = list(performer.net.layers)
    for attend, feed_forward in layers:
        stream = _attend(attend, stream, wanted if attend is layers[-1][0] else None, switches)
        rows, widest = stream.flatten(0, -2), feed_forward.fn.fn.w1.out_features
        behind = _over_rows(partial(_feed_forward, feed_forward, switches), rows, widest, switches)
        stream = stream + behind.view_as(stream)
    return stream


def _feed_forward(layer: Any, switches: Switches, rows: Tensor) -> Tensor:
    inner = layer.fn.fn
    wide = inner.w1(layer.norm(rows))

    def narrow(wide: Tensor) -> Tensor:
        found: Tensor = inner.w2(inner.dropout(inner.act(wide)))
        return found

    found: Tensor = checkpoint(narrow, wide, use_reentrant=False) if switches.recompute_activations else narrow(wide)
    return found


def _attend(layer: Any, stream: Tensor, wanted: Tensor | None, switches: Switches) -> Tensor:
    """Add attention to the stream (N, G, D), or to the rows (R, D) of the wanted genes alone."""
    normalised, core = layer.norm(stream), layer.fn
    asking, counts = normalised.flatten(0, 1), [stream.shape[1]] * len(stream)
    if wanted is not None:
        # rows by number: the gradient of rows chosen by a mask is several times slower
        rows, counts = wanted.flatten().nonzero().squeeze(1), wanted.sum(dim=1).tolist()
        asking, stream = asking.index_select(0, rows), stream.flatten(0, 1).index_select(0, rows)
    keys, values = (linear(normalised).unflatten(-1, (core.heads, -1)) for linear in (core.to_k, core.to_v))
    queries = core.to_q(asking).unflatten(-1, (core.heads, -1)).split(counts)
    one_sample = partial(_one_sample, core.fast_attention, switches)
    read = torch.cat([one_sample(*sample) for sample in zip(queries, keys, values, strict=True)])
    added: Tensor = core.dropout(core.to_out(read.flatten(1)))
    return stream + added.view_as(stream)


def _one_sample(core: Any, switches: Switches, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    if switches.blocked_attention:
        block = switches.block(keys.shape[1] * core.nb_features, keys.device)
        return attention(queries, keys, values, core.projection_matrix, block=block)
    read: Tensor = core(*(x.transpose(0, 1)[None] for x in (queries, keys, values)))
    return read[0].transpose(0, 1)


def _over_genes(function: Callable[[slice], Tensor], values: Tensor, width: int, switches: Switches) -> Tensor:
    """Join what a function returns of blocks of genes, each (N, T, D), whose widest tensor is ``width`` wide."""
    samples, genes = values.shape
    if not switches.blocked_tokens:
        return function(slice(None))
    block = switches.block(samples * width, values.device)
    make = partial(checkpoint, function, use_reentrant=False) if switches.recompute_tokens else function
    return torch.cat([make(slice(start, start + block)) for start in range(0, genes, block)], dim=1)


def _over_rows(function: Callable[[Tensor], Tensor], rows: Tensor, width: int, switches: Switches) -> Tensor:
    """Join what a function returns of blocks of rows (R, D), whose widest tensor is ``width`` wide."""
    if not switches.blocked_tokens:
        return function(rows)
    return torch.cat([function(block) for block in torch.split(rows, switches.block(width, rows.device))])


def _convolve(network: Encoder, convolution: Any, hidden: Tensor, switches: Switches) -> Tensor:
    """Apply a graph convolution to each sample of (N, G, D)."""
    adjacency = network.adjacency()
    if not switches.transposed_graph or len(adjacency) > 1:
        return propagate(convolution, hidden, adjacency)
    graph, transposed = adjacency[0], _transposed(network)
    mixed = torch.stack([_Propagate.apply(sample, graph, transposed) for sample in convolution.lin(hidden)])
    return mixed if convolution.bias is None else mixed + convolution.bias


#: The graph's values -> the transposed graph.
_TRANSPOSED = WeakTensorKeyDictionary()


def _transposed(network: Encoder) -> Tensor:
    values = network.graph_values
    if values not in _TRANSPOSED:
        columns = network.adjacency()[0].to_sparse_csc()
        parts = columns.ccol_indices(), columns.row_indices(), columns.values()
        _TRANSPOSED[values] = torch.sparse_csr_tensor(*parts, columns.shape, check_invariants=False)
    transposed: Tensor = _TRANSPOSED[values]
    return transposed


class _Propagate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, graph: Tensor, transposed: Tensor) -> Tensor:
        ctx.transposed = transposed
        # autocast would lower the dense side, which sparse products do not take
        with torch.autocast(hidden.device.type, enabled=False):
            return graph @ hidden.to(graph.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(gradient.device.type, enabled=False):
            return ctx.transposed @ gradient, None, None
