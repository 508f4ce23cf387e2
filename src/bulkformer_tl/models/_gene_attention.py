"""How much chosen genes of a sample attend to others, layer by layer, without a matrix of all genes by all genes.

A Performer's weight of a key for a query is ``phi(q) . phi(k) / phi(q) . sum phi``, with the random features phi and
the sum over all keys, which the engine has anyway (Choromanski et al. 2021, equation 4). So the rows of chosen queries
and the columns of chosen keys are one small product, and what each gene receives from all chosen queries is another.
Softmax attention is computed for the rows of chosen queries alone, from what enters each layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bulkformer_tl.models._bins_input import check_bins, check_external
from bulkformer_tl.models._bioformer import ABSENT
from bulkformer_tl.models._engine import Engine
from bulkformer_tl.models._engine_options import EngineOptions
from bulkformer_tl.models._linear_attention import EPSILON
from bulkformer_tl.models._random_features import KeyValueSums
from bulkformer_tl.models._request import Request, check_values
from bulkformer_tl.models._stages import Attention

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bulkformer_tl.models._bioformer_model import BioFormer
    from bulkformer_tl.models._bulkformer import BulkFormer
    from bulkformer_tl.models._encoder import Encoder
    from bulkformer_tl.models._geneformer import Geneformer

    Numbers = NDArray[np.float32]
    Positions = NDArray[np.int64]

#: Queries whose weights on all tokens are held at a time.
ROWS = 256
#: What is asked of a network beside its attention.
_NOTHING = Request(
    outputs=frozenset(),
    genes=None,
    pooling="",
    pool_genes=None,
    observed_only=False,
    summary_columns=False,
    protein=False,
)


@dataclass(frozen=True)
class GeneAttention:
    """What genes of one sample attend to, mean over heads; of all tokens a row sums to 1.

    Parameters
    ----------
    weights
        Of Q queries on K keys in each of L layers, (L, Q, K), float32; ``NaN`` where one of both has no token.
    received
        What each gene receives of an average query, (L, G); ``NaN`` without a token.
    level
        Expression by which tokens can be ranked, (G,): ln(TPM+1), a bin, or minus the place in the order of genes.
    n_tokens
        Number of tokens, so that ``1 / n_tokens`` is uniform attention.
    """

    weights: Numbers
    received: Numbers
    level: Numbers
    n_tokens: int


class AttentionReader(Protocol):
    """Reads the attention of one model."""

    n_layers: int

    def __call__(
        self, values: Numbers, external: Mapping[str, Any], queries: Positions, keys: Positions, layers: Sequence[int]
    ) -> GeneAttention:
        """Read it in one sample, (G,), for queries (Q,) and keys (K,) by their positions in the vocabulary."""


def attention_reader(model: Encoder) -> AttentionReader:
    """Return what reads the attention of a model.

    Raises
    ------
    ValueError
        If it has none.
    """
    reader: AttentionReader = _READERS[model.encoding](model)
    if not reader.n_layers:
        message = f"{model.name} has no layer of attention; take edges from gene vectors, method='cosine'"
        raise ValueError(message)
    return reader


class _WatchedSums(KeyValueSums):
    """Sums over keys that also tell what chosen queries make of each key."""

    def __init__(self, features: Any, heads: int, width: int, *, queries: Tensor, keys: Tensor) -> None:
        super().__init__(features, heads, width)
        #: Place of each gene among the queries, -1 for others, (G,); and the positions of keys, (K,).
        self.places, self.chosen = queries, keys
        self.n_queries = int((queries >= 0).sum())
        self.blocks: list[Tensor] = []
        self.position = 0
        self.weights = self.sums.new_empty(self.n_queries, len(keys))
        self.spent = torch.zeros_like(self.sums[:, -1])
        self.received = self.sums.new_empty(len(queries))

    def add(self, keys: Tensor, values: Tensor) -> None:
        super().add(keys, values)
        self.blocks.append(keys)

    def finish(self, out: Any) -> None:
        super().finish(out)
        self.mapped = self._map_keys(torch.cat(self.blocks, dim=1)[:, self.chosen])

    def read(self, queries: Tensor) -> Tensor:
        rows = slice(self.position, self.position + queries.shape[1])
        self.position = rows.stop
        places = self.places[rows]
        here = (places >= 0).nonzero().flatten()
        if len(here):
            grown, lacking, top = self.features(queries[:, here], together=False)
            mapped = grown.mul_((lacking - top).exp_()).add_(EPSILON)
            mapped /= torch.einsum("hmq,hm->hq", mapped, self.sums[:, -1])[:, None]
            self.weights[places[here]] = torch.einsum("hmq,hmk->qk", mapped, self.mapped) / len(mapped)
            self.spent += mapped.sum(dim=-1)
        if self.position == len(self.places):
            share = self.spent / (len(self.spent) * self.n_queries)
            parts = [torch.einsum("hm,hmk->k", share, self._map_keys(block)) for block in self.blocks]
            self.received = torch.cat(parts)
            # of all layers they would be as large as the network's own stream
            self.blocks.clear()
        return super().read(queries)

    def _map_keys(self, keys: Tensor) -> Tensor:
        grown, lacking, _ = self.features(keys, together=True)
        return grown.mul_((lacking - self.top).exp_()).add_(EPSILON)


class _PerformerReader:
    """Attention of a network of BulkFormer."""

    def __init__(self, model: BulkFormer) -> None:
        engine = Engine.make(model.network, EngineOptions())
        if engine is None:
            message = f"{model.name} is not in float32, in which attention is read; load it again"
            raise ValueError(message)
        self.model, self.engine = model, engine
        self.stages = [stage for stage in engine.recipe.stages if isinstance(stage, Attention)]
        self.n_layers = len(self.stages)

    @torch.inference_mode()
    def __call__(
        self, values: Numbers, external: Mapping[str, Any], queries: Positions, keys: Positions, layers: Sequence[int]
    ) -> GeneAttention:
        x, observed = check_values(self.model, values[None], _NOTHING)
        device = self.model.device
        places = torch.full((len(values),), -1, device=device)
        places[torch.from_numpy(queries)] = torch.arange(len(queries), device=device)
        watched: list[_WatchedSums] = []
        watch = partial(_WatchedSums, queries=places, keys=torch.from_numpy(keys).to(device))

        def start(*sizes: Any) -> KeyValueSums:
            watched.append(watch(*sizes))
            return watched[-1]

        for number, stage in enumerate(self.stages):
            stage.sums = start if number in layers else KeyValueSums
        self.engine.run(x[0].to(device), observed[0].to(device))
        # in the order of the network; the caller's may be another
        order = [sorted(layers).index(layer) for layer in layers]
        weights = torch.stack([watched[i].weights for i in order])
        received = torch.stack([watched[i].received for i in order])
        return GeneAttention(weights.cpu().numpy(), received.cpu().numpy(), values, len(values))


def softmax_rows(tokens: Tensor, query: Any, key: Any, heads: int, rows: Tensor) -> Tensor:
    """Return what some tokens attend to, mean over heads, (R, L), from what enters the layer, (L, D)."""
    width = tokens.shape[-1] // heads
    keys = key(tokens).float().view(len(tokens), heads, width).transpose(0, 1)
    asked = query(tokens[rows]).float().view(len(rows), heads, width).transpose(0, 1) / width**0.5
    return torch.cat([(part @ keys.mT).softmax(dim=-1).mean(dim=0) for part in asked.split(ROWS, dim=1)])


def _place(layers: Sequence[Tensor], genes: Positions, queries: Positions, keys: Positions, level: Numbers) -> Any:
    """Put rows of queries that have a token, in their order, (R, L) for each layer, where they belong."""
    token_of = np.full(len(level), -1)
    token_of[genes[genes >= 0]] = np.flatnonzero(genes >= 0)
    rows, columns = token_of[queries] >= 0, token_of[keys] >= 0
    weights = np.full((len(layers), len(queries), len(keys)), np.nan, dtype=np.float32)
    received = np.full((len(layers), len(level)), np.nan, dtype=np.float32)
    for found, own, all_of in zip(layers, weights, received, strict=True):
        table = found.cpu().numpy()
        own[np.ix_(rows, columns)] = table[:, token_of[keys[columns]]]
        if len(table):
            all_of[genes[genes >= 0]] = table.mean(axis=0)[genes >= 0]
    return GeneAttention(weights, received, level, len(genes))


def _rows_of(genes: Positions, queries: Positions) -> Tensor:
    """Return the tokens of those queries that have one, in the order of queries."""
    order = {gene: token for token, gene in enumerate(genes.tolist()) if gene >= 0}
    return torch.tensor([order[gene] for gene in queries.tolist() if gene in order], dtype=torch.int64)


class _RankReader:
    """Attention of a Geneformer."""

    def __init__(self, model: Geneformer) -> None:
        self.model = model
        self.blocks = model.network.base_model.encoder.layer
        self.n_layers = len(self.blocks)

    @torch.inference_mode()
    def __call__(
        self, values: Numbers, external: Mapping[str, Any], queries: Positions, keys: Positions, layers: Sequence[int]
    ) -> GeneAttention:
        model = self.model
        (own,) = model.tokenize(values[None])
        ids = torch.from_numpy(own)[None].to(model.device)
        entered = model.network.base_model(
            input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
        ).hidden_states
        genes = model.gene_of[own]
        rows = _rows_of(genes, queries).to(model.device)
        heads = int(model.config.num_attention_heads)
        found = []
        for layer in layers:
            core = self.blocks[layer].attention.self
            found.append(softmax_rows(entered[layer][0], core.query, core.key, heads, rows))
        level = np.full(len(values), np.nan, dtype=np.float32)
        level[genes[genes >= 0]] = -np.flatnonzero(genes >= 0)
        placed: GeneAttention = _place(found, genes, queries, keys, level)
        return placed


class _BinReader:
    """Attention of a BioFormer."""

    def __init__(self, model: BioFormer) -> None:
        self.model = model
        self.blocks = model.network.blocks
        self.n_layers = len(self.blocks)

    @torch.inference_mode()
    def __call__(
        self, values: Numbers, external: Mapping[str, Any], queries: Positions, keys: Positions, layers: Sequence[int]
    ) -> GeneAttention:
        model = self.model
        bins = check_bins(model, values[None])
        codes = check_external(model, external, bins.shape)
        features = (bins[0] != ABSENT).nonzero().flatten()
        entered: dict[int, Tensor] = {}

        def keep(number: int, _: Any, given: tuple[Tensor, Any]) -> None:
            entered[number] = given[0][0]

        handles = [
            self.blocks[layer].attention.register_forward_pre_hook(partial(keep, layer)) for layer in set(layers)
        ]
        try:
            shown = None if codes is None else codes[:, features].to(model.device)
            model.network(bins[:, features].to(model.device), None, shown, features=features.to(model.device))
        finally:
            for handle in handles:
                handle.remove()
        genes = np.r_[[-1] * int(model.network.has_cls), features.numpy()].astype(np.int64)
        rows = _rows_of(genes, queries).to(model.device)
        found = []
        for layer in layers:
            core = self.blocks[layer].attention
            found.append(softmax_rows(entered[layer], core.query, core.key, core.heads, rows))
        level = np.where(bins[0] == ABSENT, np.nan, bins[0]).astype(np.float32)
        placed: GeneAttention = _place(found, genes, queries, keys, level)
        return placed


#: By how a sample becomes tokens.
_READERS: dict[str, Any] = {"magnitudes": _PerformerReader, "ranks": _RankReader, "bins": _BinReader}
