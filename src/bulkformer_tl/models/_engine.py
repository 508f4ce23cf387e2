"""The inference engine: the numbers of the networks' own modules, sooner and in less memory.

Samples go through one at a time, and each in blocks of genes, so that the numbers do not depend on how many samples
there are or in what order. What makes it fast is in the layers (``_stages.py``), in attention
(``_random_features.py``), in the products (``_products.py``), and in what is not done: gene identity and the graph are
the same in all samples and are worked out once; behind the last attention only those genes go on that were asked for;
and of these nothing but what was asked for is kept.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from bulkformer_tl.models._machine import cache_bytes
from bulkformer_tl.models._pooling import Pooling, pool
from bulkformer_tl.models._recipes import Recipe, Sample, find_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bulkformer_tl.models._engine_options import EngineOptions
    from bulkformer_tl.models._request import Request
    from bulkformer_tl.models._stages import Rows, Stage

logger = logging.getLogger(__name__)

#: Smaller blocks are no answer to too little memory.
_SMALLEST = 16
#: Genes of a block are a multiple of this.
_ALIGNED = 64
#: Numbers in the widest tensor of a block off the CPU, where larger blocks are better until memory ends.
_NUMBERS = 2**28


class Engine:
    """A network, prepared.

    Parameters
    ----------
    network
        Network of one of the families.
    recipe
        Its layers as stages, and what is around them.
    options
        How it computes.
    """

    def __init__(self, network: Any, recipe: Recipe, options: EngineOptions) -> None:
        self.network = network
        self.recipe = recipe
        self.options = options
        self.block = options.block or _choose_block(recipe, next(network.parameters()).device)
        self._made_of = _state(network)

    @classmethod
    @torch.inference_mode()
    def make(cls, network: Any, options: EngineOptions) -> Engine | None:
        """Prepare a network; ``None`` where only its own modules can compute it."""
        recipe = find_recipe(network, options)
        return None if recipe is None else cls(network, recipe, options)

    def is_of(self, network: Any, options: EngineOptions) -> bool:
        """Whether this is the engine of a network as it is now."""
        return self.network is network and self.options == options and self._made_of == _state(network)

    def compute(self, values: Tensor, observed: Tensor, request: Request) -> dict[str, Tensor]:
        """Compute samples (N, G), as :func:`bulkformer_tl.models._reference.compute` does."""
        found = [self._compute(x, mask, request) for x, mask in zip(values, observed, strict=True)]
        return {name: torch.stack([one[name] for one in found]) for name in found[0]}

    def run(self, values: Tensor, observed: Tensor) -> None:
        """Send one sample, (G,), through all stages in blocks that follow one another, and keep nothing of it."""
        for _ in self._vectors(self.recipe.begin(values, observed), torch.ones_like(observed)):
            pass

    def _compute(self, values: Tensor, observed: Tensor, request: Request) -> dict[str, Tensor]:
        while True:
            try:
                return self._one(self.recipe.begin(values, observed), request)
            except (RuntimeError, MemoryError) as error:
                if not _is_memory(error) or self.block <= _SMALLEST:
                    raise
                self.block //= 2
                logger.warning("out of memory; going on with blocks of %d genes", self.block)

    def _one(self, sample: Sample, request: Request) -> dict[str, Tensor]:
        network, recipe = self.network, self.recipe
        to_pool = request.pool_mask(sample.observed[None])[0] if request.pools else torch.zeros_like(sample.observed)
        kept, predicted = _kept(request, to_pool), request.outputs & {"expression", "deviation"}
        found = {name: torch.empty_like(sample.values) for name in predicted}
        vectors = sample.values.new_empty(int(kept.sum()), network.config.dim)
        filled = 0
        everything = predicted or not self.options.requested_only
        for rows, block in self._vectors(sample, torch.ones_like(kept) if everything else kept):
            if "expression" in found:
                found["expression"][rows] = recipe.predict(sample, rows, block)
            if "deviation" in found:
                found["deviation"][rows] = network.deviation(block, sample.values[rows], sample.observed[rows])
            part = block[kept[rows]] if everything else block
            vectors[filled : filled + len(part)] = part
            filled += len(part)
        if "expression" in found:
            found["expression"] = recipe.correct(sample, found["expression"])
        if request.pools:
            found["pooled"] = pool(_of(vectors, to_pool, kept), cast("Pooling", request.pooling))
        if "genes" in request.outputs:
            places = kept.cumsum(0) - 1
            found["genes"] = vectors if request.genes is None else vectors[places[request.genes.to(places.device)]]
        return found

    def _vectors(self, sample: Sample, wanted: Tensor) -> Iterator[tuple[Rows, Tensor]]:
        """Yield the wanted genes, (G,), block by block, and their vectors, (T, D)."""
        genes = len(wanted)
        before: Callable[[Any], Tensor] = partial(self.recipe.tokens, sample)
        stream = sample.values.new_empty(genes, self.recipe.width)
        for stage in self.recipe.stages:
            found = stage.start(genes)
            for rows in self._blocks(genes):
                stream[rows] = stage.collect(found, rows, before(rows))
            stage.finish(found, stream)
            before = partial(_spread, stage, found, stream)
        last: Iterable[Rows] = self._blocks(genes)
        if not bool(wanted.all()):
            last = torch.split(wanted.nonzero()[:, 0], self.block)
        for chosen in last:
            yield chosen, self.recipe.vectors(sample, chosen, before(chosen))

    def _blocks(self, genes: int) -> Iterator[slice]:
        size = math.ceil(genes / math.ceil(genes / self.block))
        if self.block >= _ALIGNED:
            # genes come last in some tensors, whose rows then begin where the processor reads fastest
            size = min(math.ceil(size / _ALIGNED), self.block // _ALIGNED) * _ALIGNED
        return (slice(start, min(start + size, genes)) for start in range(0, genes, size))


def _choose_block(recipe: Recipe, device: torch.device) -> int:
    """Return how many genes' widest tensor takes half of the cache, the other half being for what it is made of."""
    numbers = torch.get_num_threads() * cache_bytes() // 8 if device.type == "cpu" else _NUMBERS
    return max(_SMALLEST, numbers // max(stage.widest for stage in recipe.stages))


def _spread(stage: Stage, found: Any, stream: Tensor, rows: Rows) -> Tensor:
    return stage.spread(found, rows, stream[rows])


def _kept(request: Request, to_pool: Tensor) -> Tensor:
    """Return the genes whose vectors are asked for, or pooled, (G,)."""
    if "genes" not in request.outputs:
        return to_pool
    if request.genes is None:
        return torch.ones_like(to_pool)
    return to_pool.index_fill(0, request.genes.to(to_pool.device), value=True)


def _of(vectors: Tensor, some: Tensor, kept: Tensor) -> Tensor:
    """Select the vectors of some of the kept genes."""
    inside = some[kept]
    return vectors if bool(inside.all()) else vectors[inside]


def _is_memory(error: BaseException) -> bool:
    words = ("out of memory", "not enough memory", "allocate memory", "can't allocate")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in words)


def _state(network: Any) -> tuple[tuple[int, int], ...]:
    """Tell the tensors that an engine is made of, and their versions, apart from later ones."""
    random = (buffer for name, buffer in network.named_buffers() if name.endswith("projection_matrix"))
    tensors = (*network.parameters(), *random, network.graph_rows, network.graph_columns, network.graph_values)
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
