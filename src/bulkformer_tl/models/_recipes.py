"""What the families do around their layers: tokens before them, gene vectors and predictions behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from bulkformer_tl.models._latest import LatestNetwork
from bulkformer_tl.models._layers import MISSING
from bulkformer_tl.models._mini import MiniNetwork
from bulkformer_tl.models._paper import PaperNetwork
from bulkformer_tl.models._preprint import PreprintNetwork
from bulkformer_tl.models._products import chain
from bulkformer_tl.models._stages import BottleneckGraph, graph_performers, performers

if TYPE_CHECKING:
    from bulkformer_tl.models._engine_options import EngineOptions
    from bulkformer_tl.models._stages import Rows, Stage


@dataclass(frozen=True)
class Sample:
    """A sample, and what its family computes of it as a whole.

    Parameters
    ----------
    values
        ln(TPM+1), 0 where missing, (G,).
    observed
        Shape (G,).
    whole
        What all tokens share, or, of the embedded network, the tokens themselves.
    beside
        What vectors or predictions are joined with.
    """

    values: Tensor
    observed: Tensor
    whole: Tensor
    beside: Tensor = field(default_factory=lambda: torch.empty(0))


class Recipe(Protocol):
    """A network's layers as stages, and what is around them."""

    stages: list[Stage]
    #: Width of the stream between layers.
    width: int

    def begin(self, values: Tensor, observed: Tensor) -> Sample:
        """Compute what all tokens of a sample, (G,), share."""

    def tokens(self, sample: Sample, rows: slice) -> Tensor:
        """Return the tokens of a block of genes, (T, D), float32."""

    def vectors(self, sample: Sample, rows: Rows, x: Tensor) -> Tensor:
        """Return gene vectors, (T, D), from what leaves the last stage."""

    def predict(self, sample: Sample, rows: Rows, vectors: Tensor) -> Tensor:
        """Return predictions, (T,), from gene vectors."""

    def correct(self, sample: Sample, predicted: Tensor) -> Tensor:
        """Return predictions, (G,), after what needs those of all genes."""


class _FirstGenerations:
    """Tokens from value, gene and whole sample, of the first two generations."""

    def __init__(self, network: Any, whole: Any, head: Any, options: EngineOptions) -> None:
        self.network = network
        self.width = network.config.dim
        self.whole = whole
        self.project = chain(network.x_proj, options)
        self.head = chain(head, options)
        self.stages = graph_performers(network.gb_formers, network, options)
        # who a gene is does not depend on the sample
        table = network.gene_table().split(1024)
        self.identity = torch.cat([network.gene_emb_proj(block) for block in table])

    def begin(self, values: Tensor, observed: Tensor) -> Sample:
        whole = self.whole(torch.where(observed, values, MISSING)[None])[0]
        return Sample(values, observed, whole)

    def tokens(self, sample: Sample, rows: slice) -> Tensor:
        tokens: Tensor = self.network.expr_emb(sample.values[rows], sample.observed[rows])
        return self.project(tokens.add_(self.identity[rows]).add_(sample.whole)).float()

    def vectors(self, sample: Sample, rows: Rows, x: Tensor) -> Tensor:
        normalised: Tensor = self.network.layernorm(x)
        return normalised

    def predict(self, sample: Sample, rows: Rows, vectors: Tensor) -> Tensor:
        return self.head(vectors).squeeze(-1)

    def correct(self, sample: Sample, predicted: Tensor) -> Tensor:
        return predicted


class PreprintRecipe(_FirstGenerations):
    """First generation."""

    def __init__(self, network: PreprintNetwork, options: EngineOptions) -> None:
        super().__init__(network, network.ae_enc, network.head, options)


class PaperRecipe(_FirstGenerations):
    """Second generation: the head sees the sample's summaries, and predictions are corrected by their mean."""

    def __init__(self, network: PaperNetwork, options: EngineOptions) -> None:
        super().__init__(network, network.global_expr_proj, network.head, options)

    def begin(self, values: Tensor, observed: Tensor) -> Sample:
        sample = super().begin(values, observed)
        return replace(sample, beside=self.network.summaries(values[None], observed[None]))

    def predict(self, sample: Sample, rows: Rows, vectors: Tensor) -> Tensor:
        wide = torch.cat([vectors, sample.beside.expand(len(vectors), -1)], dim=-1)
        return super().predict(sample, rows, wide)

    def correct(self, sample: Sample, predicted: Tensor) -> Tensor:
        if not self.network.config.mean_correction:
            return predicted
        corrected: Tensor = self.network.correct_mean(predicted[None], sample.values[None], sample.observed[None])[0]
        return corrected


class LatestRecipe:
    """Third generation."""

    def __init__(self, network: LatestNetwork, options: EngineOptions) -> None:
        self.network = network
        self.width = network.config.dim
        self.identity = network.gene_table()
        self.head = chain(network.expression_head, options)
        graph = BottleneckGraph(network.graph_block, network.pre_performer_norm, network, options)
        self.stages = [graph, *performers(network.performer, options)]

    def begin(self, values: Tensor, observed: Tensor) -> Sample:
        network = self.network
        return Sample(
            values, observed, math.sqrt(2.0) * network.visible_scale(observed[None]) * network.expression_scale
        )

    def tokens(self, sample: Sample, rows: slice) -> Tensor:
        tokens: Tensor = self.network.value_encoding(sample.values[rows], sample.observed[rows])
        normalised: Tensor = self.network.input_norm(tokens.mul_(sample.whole).add_(self.identity[rows]))
        return normalised

    def vectors(self, sample: Sample, rows: Rows, x: Tensor) -> Tensor:
        normalised: Tensor = self.network.output_norm(x)
        return normalised

    def predict(self, sample: Sample, rows: Rows, vectors: Tensor) -> Tensor:
        return self.head(vectors).squeeze(-1)

    def correct(self, sample: Sample, predicted: Tensor) -> Tensor:
        return predicted


class MiniRecipe:
    """The embedded network: its linear models run as they are, and its vectors start with what they say."""

    def __init__(self, network: MiniNetwork, options: EngineOptions) -> None:
        self.network = network
        self.width = network.config.context
        self.stages = graph_performers([network.block], network, options)

    def begin(self, values: Tensor, observed: Tensor) -> Sample:
        tokens, beside = self.network.tokens(values[None], observed[None])
        return Sample(values, observed, tokens[0], beside[0])

    def tokens(self, sample: Sample, rows: slice) -> Tensor:
        return sample.whole[rows]

    def vectors(self, sample: Sample, rows: Rows, x: Tensor) -> Tensor:
        return torch.cat([sample.beside[rows], self.network.norm(x)], dim=-1)

    def predict(self, sample: Sample, rows: Rows, vectors: Tensor) -> Tensor:
        return self.network.predict(vectors, sample.values[rows], sample.observed[rows])

    def correct(self, sample: Sample, predicted: Tensor) -> Tensor:
        return predicted


_RECIPES: dict[type[Any], type[Any]] = {
    PreprintNetwork: PreprintRecipe,
    PaperNetwork: PaperRecipe,
    LatestNetwork: LatestRecipe,
    MiniNetwork: MiniRecipe,
}


def find_recipe(network: Any, options: EngineOptions) -> Recipe | None:
    """Make the recipe of a network; ``None`` for a network of another family, or not in float32."""
    made = _RECIPES.get(type(network))
    if made is None or any(p.dtype != torch.float32 for p in network.parameters()):
        return None
    recipe: Recipe = made(network, options)
    return recipe
