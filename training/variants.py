"""Variants of the embedded network, and small networks of the published types, to be trained alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from mini import RATES
from torch import Tensor, nn

from bulkformer_tl.models._latest import LatestConfig, LatestNetwork
from bulkformer_tl.models._mini import MiniConfig, MiniNetwork
from bulkformer_tl.models._paper import PaperConfig, PaperNetwork
from bulkformer_tl.train._corpus import Moments
from bulkformer_tl.train._network import centre

if TYPE_CHECKING:
    from collections.abc import Callable

    from factors import Factors

    from bulkformer_tl.models._layers import Encoder

#: Widest table of loadings, and leading factors that the embedded network sees.
N_FACTORS = 64
#: Width and attention heads of all networks that are not said to be wider or narrower.
WIDTH, HEADS = 32, 4
WIDTHS = (16, WIDTH, 64)
#: Shares of genes that are hidden in training, by the schedules that are not those of the embedded network.
WIDE_RATES = (0.05, 0.15, 0.5, 0.9)


@dataclass(frozen=True)
class Materials:
    """What networks are built from; nothing of it knows the left-out studies.

    Parameters
    ----------
    factors
        Factor model of the genes, its first 64 factors.
    graph
        Edges (2, E), receiver first, and weights (E,).
    unseen
        Squared error of the linear models on studies that they had not seen, (G,).
    variance
        Variance of each gene, (G,).
    """

    factors: Factors
    graph: tuple[Tensor, Tensor]
    unseen: Tensor
    variance: Tensor


class Contestant(nn.Module):
    """Predicts ln(TPM+1), starting from the linear models or, without them, from the gene means."""

    #: Whether the input and the loss are relative to where the network starts from.
    residual: ClassVar[bool] = True

    def __init__(self, network: Encoder, materials: Materials, *, low_rank: bool) -> None:
        super().__init__()
        self.network = network
        self.low_rank = low_rank
        self.gene_mean: Tensor
        self.variance: Tensor
        self.register_buffer("gene_mean", torch.from_numpy(materials.factors.mean))
        self.register_buffer("variance", materials.unseen if low_rank else materials.variance)

    def forward(
        self, values: Tensor, visible: Tensor, mean: Tensor, gap: Tensor, spread: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return where the network starts from and what it makes of it, both (N, G).

        Parameters
        ----------
        values
            ln(TPM+1), (N, G); read only where visible.
        visible
            Shape (N, G).
        mean, gap, spread
            What the linear models say of the samples, as in :class:`bank.Block`, (N, G).
        """
        if not self.low_rank:
            mean, gap, spread = self.gene_mean.expand_as(mean), torch.zeros_like(gap), torch.zeros_like(spread)
        return mean, self.predict(values, visible, mean, gap, spread)

    def predict(self, values: Tensor, visible: Tensor, mean: Tensor, gap: Tensor, spread: Tensor) -> Tensor:
        """Return predicted ln(TPM+1), (N, G)."""
        raise NotImplementedError

    def size(self) -> int:
        """Return the number of trained weights."""
        return sum(part.numel() for part in self.parameters() if part.requires_grad)


class Embedded(Contestant):
    """The embedded network: adds a correction to where it starts from."""

    def predict(self, values: Tensor, visible: Tensor, mean: Tensor, gap: Tensor, spread: Tensor) -> Tensor:
        """See :class:`Contestant`."""
        vectors = self.network.contextualise(values, visible, mean, gap, spread)
        return mean + self.network.correct(vectors)[0]


class Published(Contestant):
    """A network of a published type as it is: sees expression, predicts expression."""

    def predict(self, values: Tensor, visible: Tensor, mean: Tensor, gap: Tensor, spread: Tensor) -> Tensor:
        """See :class:`Contestant`."""
        return self.network.predict(self.network(values, visible), values, visible)


class PublishedResidual(Contestant):
    """A network of a published type that sees and predicts deviations from where it starts."""

    def predict(self, values: Tensor, visible: Tensor, mean: Tensor, gap: Tensor, spread: Tensor) -> Tensor:
        """See :class:`Contestant`."""
        shown = torch.where(visible, (values - mean) * (self.variance + spread).rsqrt(), 0.0)
        return mean + self.network.predict(self.network(shown, visible), shown, visible)


class Silent(nn.Module):
    """Takes the place of a residual branch and adds nothing."""

    def forward(self, hidden: Tensor, *_: object, **__: object) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(hidden)


def embedded(
    materials: Materials,
    *,
    width: int = WIDTH,
    graph: bool = True,
    attention: bool = True,
    low_rank: bool = True,
    random_table: bool = False,
) -> Contestant:
    """Build the embedded network, or what is left of it without a part."""
    factors = materials.factors
    sizes = {"n_genes": len(factors.mean), "n_factors": N_FACTORS, "n_scores": N_FACTORS, "n_entries": 0}
    network = MiniNetwork(MiniConfig(**sizes, context=width, n_global=N_FACTORS, heads=HEADS))
    fitted = (factors.mean, factors.loadings, factors.variances, factors.noise)
    network.factors.set_model(*(torch.from_numpy(part) for part in fitted))
    network.unseen.copy_(materials.unseen if low_rank else materials.variance)
    network.set_graph(*materials.graph)
    if random_table:
        # stands where the scaled loadings would be kept
        network.gene_vectors = torch.randn_like(network.gene_table())
    if not graph:
        network.block.g = Silent()
    if not attention:
        (attention_layer,) = network.block.f[0].net.layers
        attention_layer[0] = Silent()
    return Embedded(network, materials, low_rank=low_rank)


def paper(materials: Materials, *, correct: bool = True) -> Contestant:
    """Build a small network of the second generation, with its correction of the mean or without."""
    config = PaperConfig(len(materials.factors.mean), WIDTH, heads=HEADS, mean_correction=correct)
    network = PaperNetwork(config)
    return _published(network, materials)


def latest(materials: Materials) -> Contestant:
    """Build a small network of the third generation."""
    return _published(_latest(materials), materials)


def latest_residual(materials: Materials, *, low_rank: bool = True, loadings: bool = False) -> Contestant:
    """Build a small network of the third generation that predicts deviations, starting at none."""
    network = _latest(materials)
    nn.init.zeros_(network.expression_head[-1].weight)
    nn.init.zeros_(network.expression_head[-1].bias)
    if loadings:
        network.gene_embedding.weight.data.copy_(embedded(materials).network.gene_table())
    return PublishedResidual(network, materials, low_rank=low_rank)


def _latest(materials: Materials) -> LatestNetwork:
    config = LatestConfig(
        len(materials.factors.mean),
        WIDTH,
        depth=1,
        heads=HEADS,
        dim_head=WIDTH // HEADS,
        nb_features=2 * WIDTH // HEADS,
        graph_hidden_dim=WIDTH // 4,
    )
    network = LatestNetwork(config)
    edges, weights = materials.graph
    network.set_graph(edges.flip(0), weights)
    return network


def _published(network: PaperNetwork | LatestNetwork, materials: Materials) -> Contestant:
    if isinstance(network, PaperNetwork):
        network.set_graph(*materials.graph)
    # where pretraining in the package starts, too
    centre(network, Moments(materials.factors.mean, materials.variance.numpy()))
    return Published(network, materials, low_rank=False)


def shipped(_: float) -> tuple[float, ...]:
    """Return the rates of the embedded network, the same all along."""
    return RATES


def fixed(_: float) -> tuple[float, ...]:
    """Return 15 %, as in the publications."""
    return RATES[:1]


def wide(_: float) -> tuple[float, ...]:
    """Return 5 to 90 %, the same all along."""
    return WIDE_RATES


def growing(progress: float) -> tuple[float, ...]:
    """Return a curriculum: 5 % first, up to 90 % after four fifths of the training."""
    return tuple(rate for rate in WIDE_RATES if rate <= 0.1 + progress)


@dataclass(frozen=True)
class Variant:
    """A network and how its training masks genes.

    Parameters
    ----------
    build
        Builds it, with weights drawn from torch's generator.
    schedule
        Rates to draw from, given the share of the training that is done.
    """

    build: Callable[[Materials], Contestant]
    schedule: Callable[[float], tuple[float, ...]] = shipped


FULL = "full network, width 32"
VARIANTS: dict[str, Variant] = {
    FULL: Variant(embedded),
    "without graph": Variant(partial(embedded, graph=False)),
    "without attention": Variant(partial(embedded, attention=False)),
    "without graph and attention": Variant(partial(embedded, graph=False, attention=False)),
    "without low-rank context": Variant(partial(embedded, low_rank=False)),
    "random gene table": Variant(partial(embedded, random_table=True)),
    "masks of 15 %": Variant(embedded, fixed),
    "masks of 5 to 90 %": Variant(embedded, wide),
    "masks growing to 90 %": Variant(embedded, growing),
    **{f"width {width}": Variant(partial(embedded, width=width)) for width in WIDTHS if width != WIDTH},
    "G2 as published": Variant(paper),
    "G2 without mean correction": Variant(partial(paper, correct=False)),
    "G3 as published": Variant(latest),
    "G3, deviations from gene means": Variant(partial(latest_residual, low_rank=False)),
    "G3, low-rank context": Variant(latest_residual),
    "G3, low-rank context, table of loadings": Variant(partial(latest_residual, loadings=True)),
}
