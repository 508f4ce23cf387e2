"""Every encoder of the house as one that gradients go through: what it reads of a sample, and vectors of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from bulkformer_tl._progress import Progress
from bulkformer_tl._rank_vocabulary import PAD
from bulkformer_tl.models import BioFormer, BulkFormer, Geneformer
from bulkformer_tl.models._bins_input import check_bins, check_external
from bulkformer_tl.models._bioformer import ABSENT
from bulkformer_tl.models._pooling import POOLINGS, pool
from bulkformer_tl.models._request import check_request, check_values
from bulkformer_tl.train import _fast_pass
from bulkformer_tl.train._check import refuse_unless

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    #: Tensors of samples; the first axis of each runs over them.
    Inputs = dict[str, Tensor]


class Backbone:
    """An encoder and the way from a sample's values to its vectors, differentiably.

    Parameters
    ----------
    model
        The model; its network is used as it is.
    pooling
        How gene vectors are pooled; ``None`` takes the published rule.
    """

    #: Names of the linear layers of attention and feed-forward parts.
    projections: ClassVar[str]

    def __init__(self, model: Any, pooling: str | None) -> None:
        self.model = model
        self.network: Any = model.network
        self.pooling = pooling or model.default_pooling

    def on(self, network: Any) -> Self:
        """Return the same with another network of the same shape."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__, network=network)
        return other

    @property
    def parts(self) -> list[int]:
        """Widths of what a sample vector is made of, side by side."""
        return [self.model.width]

    def inputs(self, values: Any, external: Mapping[str, Any] | None) -> Inputs:
        """Check values (N, G) and make the tensors that :meth:`vectors` reads."""
        raise NotImplementedError

    def vectors(self, batch: Inputs, genes: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return sample vectors (n, D), and those of k genes (n, k, D), ``NaN`` where a sample lacks one."""
        raise NotImplementedError

    def path(self, batch: Inputs, baseline: Tensor) -> tuple[Tensor, Tensor, nn.Module | None]:
        """Return what attributions of one sample run over: its input, that of the baseline, and the layer in between.

        The layer, whose output is interpolated, is ``None`` where the input itself can be.
        """
        raise NotImplementedError

    def from_values(self, batch: Inputs, x: Tensor) -> Tensor:
        """Return sample vectors (n, D) of an input of :meth:`path`, the rest being that of ``batch``."""
        raise NotImplementedError

    def to_genes(self, batch: Inputs, found: Tensor) -> Tensor:
        """Put what was attributed to the input of one sample at the genes of the model, (G,)."""
        raise NotImplementedError

    def layers(self) -> list[list[nn.Module]]:
        """Return the layers that can be trained from the last one on, in order, with what follows each."""
        raise NotImplementedError

    def targets(self) -> list[str]:
        """Return the names of the projections that low-rank additions go to."""
        used = {id(module) for layer in self.layers() for part in layer for module in part.modules()}
        pattern = re.compile(self.projections)
        return [
            name
            for name, module in self.network.named_modules()
            if id(module) in used and pattern.search(name) and hasattr(module, "in_features")
        ]


class _OfBulkFormer(Backbone):
    """All generations of BulkFormer."""

    projections = r"\.fn\.to_(q|k|v|out)$|\.fn\.fn\.w[12]$"

    def __init__(self, model: Any, pooling: str | None) -> None:
        super().__init__(model, pooling)
        options: dict[str, Any] = dict.fromkeys(("genes", "pool_genes", "observed_only"))
        self.request = check_request(
            model, outputs=("pooled",), pooling=pooling, summary_columns=False, protein=False, **options
        )

    @property
    def parts(self) -> list[int]:
        own = [] if self.pooling in POOLINGS else [self.model.config.n_scores]
        return [*own, self.model.width]

    def inputs(self, values: Any, external: Mapping[str, Any] | None) -> Inputs:
        refuse_unless(not external, f"{self.model.name} reads no external tokens; leave external out")
        x, observed = check_values(self.model, values, self.request)
        made = {"values": x, "observed": observed}
        return made | self._linear(x, observed) if hasattr(self.network, "contextualise") else made

    @torch.no_grad()
    def _linear(self, values: Tensor, observed: Tensor) -> Inputs:
        """Work out what no training changes: the linear models of the embedded checkpoint."""
        found: dict[str, list[Tensor]] = {"sample": [], "mean": [], "gap": [], "spread": []}
        network = self.model.network
        with Progress(len(values), "linear models") as progress:
            for row in range(len(values)):
                one = values[row : row + 1].to(self.model.device), observed[row : row + 1].to(self.model.device)
                mean, gap, spread = network.linear(*one)
                parts = (network.sample_vector(*one), mean + network.neighbour_share * gap, gap, spread)
                for name, part in zip(found, parts, strict=True):
                    found[name].append(part.cpu())
                progress.update(1)
        return {name: torch.cat(rows) for name, rows in found.items()}

    def vectors(self, batch: Inputs, genes: Tensor | None) -> tuple[Tensor, Tensor | None]:
        values, observed = batch["values"], batch["observed"]
        if "mean" in batch:
            hidden = self.network.contextualise(values, observed, batch["mean"], batch["gap"], batch["spread"])
        else:
            hidden = _fast_pass.gene_vectors(self.network, values, observed)
        if self.pooling in POOLINGS:
            masks = self.request.pool_mask(observed)
            rows = [own if bool(mask.all()) else own[mask] for own, mask in zip(hidden, masks, strict=True)]
            pooled = torch.stack([pool(row, self.pooling) for row in rows])
        else:
            pooled = torch.cat([batch["sample"], hidden.mean(dim=1)], dim=1)
        return pooled, None if genes is None else hidden[:, genes]

    def path(self, batch: Inputs, baseline: Tensor) -> tuple[Tensor, Tensor, nn.Module | None]:
        # what is not observed stays so
        return batch["values"], torch.where(batch["observed"], baseline, 0.0), None

    def from_values(self, batch: Inputs, x: Tensor) -> Tensor:
        found = {"values": x, "observed": batch["observed"]}
        if "mean" in batch:
            mean, gap, spread = self.network.linear(x, batch["observed"])
            sample = self.network.sample_vector(x, batch["observed"])
            found |= {"sample": sample, "mean": mean + self.network.neighbour_share * gap, "gap": gap, "spread": spread}
        return self.vectors(found, None)[0]

    def to_genes(self, batch: Inputs, found: Tensor) -> Tensor:
        return found[0]

    def layers(self) -> list[list[nn.Module]]:
        network = self.network
        if hasattr(network, "graph_block"):
            found = [list(layer) for layer in network.performer.net.layers]
            return [*found[:-1], [*found[-1], network.output_norm]]
        if hasattr(network, "gb_formers"):
            found = [list(layer) for block in network.gb_formers for part in block.f for layer in part.net.layers]
            return [*found[:-1], [*found[-1], network.layernorm]]
        return [[network.block, network.norm]]


class _OfGeneformer(Backbone):
    projections = r"\.(query|key|value)$|\.(attention\.output|intermediate|output)\.dense$"

    def inputs(self, values: Any, external: Mapping[str, Any] | None) -> Inputs:
        refuse_unless(not external, f"{self.model.name} reads no external tokens; leave external out")
        rows = self.model.tokenize(values)
        ids = torch.full((len(rows), max(map(len, rows))), self.model.dictionary.specials[PAD])
        length = torch.tensor([len(row) for row in rows])
        for row, own in enumerate(rows):
            ids[row, : len(own)] = torch.from_numpy(own)
        return {"ids": ids, "length": length}

    def vectors(self, batch: Inputs, genes: Tensor | None) -> tuple[Tensor, Tensor | None]:
        longest = int(batch["length"].max())
        ids, read = batch["ids"][:, :longest], batch.get("read", batch["ids"])[:, :longest]
        present = torch.arange(longest, device=ids.device) < batch["length"][:, None]
        found = self.network.base_model(input_ids=read, attention_mask=present.long(), output_hidden_states=True)
        hidden = found.hidden_states[len(found.hidden_states) - 1 + self.model.emb_layer]
        gene = torch.from_numpy(self.model.gene_of).to(ids.device)[ids].where(present, -1)
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            rows = zip(hidden, gene >= 0, strict=True)
            pooled = torch.stack([pool(own[mask], self.pooling) for own, mask in rows])  # type: ignore[arg-type]
        return pooled.float(), None if genes is None else _placed(hidden, gene, genes, len(self.model.vocabulary))

    def path(self, batch: Inputs, baseline: Tensor) -> tuple[Tensor, Tensor, nn.Module | None]:
        start = torch.full_like(batch["ids"], self.model.dictionary.specials[PAD])
        return batch["ids"], start, self.network.get_input_embeddings()

    def from_values(self, batch: Inputs, x: Tensor) -> Tensor:
        return self.vectors({"ids": batch["ids"], "length": batch["length"], "read": x}, None)[0]

    def to_genes(self, batch: Inputs, found: Tensor) -> Tensor:
        gene = torch.from_numpy(self.model.gene_of).to(found.device)[batch["ids"][0, : found.shape[1]]]
        total = found[0].sum(dim=-1)
        placed = total.new_zeros(len(self.model.vocabulary))
        return placed.index_add(0, gene[gene >= 0], total[gene >= 0])

    def layers(self) -> list[list[nn.Module]]:
        every = list(self.network.bert.encoder.layer)
        return [[layer] for layer in every[: len(every) + self.model.emb_layer]]


class _OfBioFormer(Backbone):
    projections = r"\.attention\.(query|key|value|out)$|\.feed_forward\.[02]$"

    def inputs(self, values: Any, external: Mapping[str, Any] | None) -> Inputs:
        bins = check_bins(self.model, values)
        codes = check_external(self.model, external, bins.shape)
        return {"bins": bins} if codes is None else {"bins": bins, "external": codes}

    def vectors(self, batch: Inputs, genes: Tensor | None) -> tuple[Tensor, Tensor | None]:
        features = (batch["bins"] != ABSENT).any(dim=0).nonzero().flatten()
        bins = batch["bins"][:, features]
        codes = batch["external"][:, features] if "external" in batch else None
        cls, hidden = self.network(bins, None, codes, features=features)
        measured = bins != ABSENT
        if self.pooling == "cls":
            pooled = cls
        else:
            rows = zip(hidden, measured, strict=True)
            pooled = torch.stack([pool(own[mask], self.pooling) for own, mask in rows])  # type: ignore[arg-type]
        gene = features.expand_as(bins).where(measured, -1)
        return pooled, None if genes is None else _placed(hidden, gene, genes, len(self.model.vocabulary))

    def path(self, batch: Inputs, baseline: Tensor) -> tuple[Tensor, Tensor, nn.Module | None]:
        bins = batch["bins"]
        if not hasattr(self.network, "value"):
            # words are pairs of gene and bin
            return bins, bins.clamp(max=0), self.network.word
        return bins, bins.clamp(max=0), self.network.value

    def from_values(self, batch: Inputs, x: Tensor) -> Tensor:
        return self.vectors({**batch, "bins": x}, None)[0]

    def to_genes(self, batch: Inputs, found: Tensor) -> Tensor:
        features = (batch["bins"][0] != ABSENT).nonzero().flatten()
        total = found[0].sum(dim=-1)
        return total.new_zeros(batch["bins"].shape[1]).index_copy(0, features, total)

    def layers(self) -> list[list[nn.Module]]:
        return [[block] for block in self.network.blocks]


def _placed(hidden: Tensor, gene: Tensor, genes: Tensor, n_genes: int) -> Tensor:
    """Take the vectors of some genes, (n, k, D), out of tokens (n, L, D) whose genes are known, -1 for none."""
    place = torch.full((len(hidden), n_genes + 1), -1, device=hidden.device)
    at = torch.arange(hidden.shape[1], device=hidden.device).expand_as(gene)
    # tokens without a gene go to a column that no gene reads
    place.scatter_(1, gene.where(gene >= 0, n_genes), at)
    wanted = place[:, genes]
    rows = torch.arange(len(hidden), device=hidden.device)[:, None]
    return hidden[rows, wanted.clamp(min=0)].masked_fill((wanted < 0)[..., None], torch.nan)


def backbone(model: Any, pooling: str | None) -> Backbone:
    """Return the way through a model.

    Raises
    ------
    ValueError
        If it has no such pooling.
    TypeError
        If it is no model of this package.
    """
    kinds: dict[type, type[Backbone]] = {BulkFormer: _OfBulkFormer, Geneformer: _OfGeneformer, BioFormer: _OfBioFormer}
    kind = next((own for cls, own in kinds.items() if isinstance(model, cls)), None)
    if kind is None:
        message = f"expected a model of bf.models.load, found {type(model).__name__}"
        raise TypeError(message)
    known = [*POOLINGS, *({model.default_pooling} - set(POOLINGS))]
    refuse_unless(
        pooling is None or pooling in known, f"pooling must be one of {known} for {model.name}, found {pooling!r}"
    )
    return kind(model, pooling)


def take(inputs: Inputs, rows: NDArray[np.intp] | Tensor, device: torch.device) -> Inputs:
    """Return some samples on a device."""
    chosen = torch.as_tensor(rows)
    return {name: tensor[chosen].to(device) for name, tensor in inputs.items()}
