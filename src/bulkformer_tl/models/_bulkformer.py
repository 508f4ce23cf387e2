"""A network with its genes: what every task of the package talks to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from bulkformer_tl._settings import settings
from bulkformer_tl.models._graph import check_graph
from bulkformer_tl.models._pooling import Pooling, pool
from bulkformer_tl.models._request import Request, check_request, check_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneVocabulary
    from bulkformer_tl.models._layers import Encoder

Output = Literal["pooled", "genes", "expression", "deviation"]


@dataclass(frozen=True)
class Encoded:
    """What a network says about N samples; float32 on the CPU, ``None`` where not asked for.

    Parameters
    ----------
    pooled
        One vector per sample, (N, D), or (N, D + 3) with summary columns.
    genes
        Contextual vectors of k genes, (N, k, D), or (N, k, D + 3), or (N, k, D + P) with protein embeddings.
    expression
        Predicted ln(TPM+1) of all vocabulary genes, (N, G); as the authors compute it, so it may be negative.
    deviation
        Predicted standard deviation of ``expression``, (N, G); ``None`` also where the network has none.
    """

    pooled: Tensor | None = None
    genes: Tensor | None = None
    expression: Tensor | None = None
    deviation: Tensor | None = None


class BulkFormer:
    """A pretrained encoder of bulk transcriptomes together with its genes, its graph and what is known of it.

    Parameters
    ----------
    network
        Network of one of the families.
    vocabulary
        Its genes, in its order.
    graph
        Gene graph: edges (2, E), integer, and positive weights (E,), as the authors' files store them.
    name
        Name for logs and results.
    family
        ``"g1"``, ``"g2"``, ``"g3"`` or ``"mini"``.
    denominator
        Genes over which the TPM of its training data ran: ``"all"`` measured ones or those of the ``"vocabulary"``.
    default_pooling
        Published rule for a sample's vector: ``"mean"``, ``"max"``, ``"median"``, ``"all"``, or a rule of the
        network's own.
    pooling_observed_only
        Whether that rule runs over the observed genes only.
    trained_missing
        Least and largest share of missing genes that it was trained with; ``None`` where unknown.
    checksum
        SHA-256 of the file that the weights came from; ``None`` computes one from the weights.
    provenance
        Where the parts came from, what was verified and what could not be.

    Raises
    ------
    ValueError
        If vocabulary, graph and network do not belong together.
    """

    #: What :meth:`encode` takes.
    input_unit = "log_tpm"

    def __init__(
        self,
        network: Encoder,
        vocabulary: GeneVocabulary,
        *,
        graph: tuple[Tensor, Tensor],
        name: str,
        family: str,
        denominator: Literal["all", "vocabulary"],
        default_pooling: str = "mean",
        pooling_observed_only: bool = False,
        trained_missing: tuple[float, float] | None = None,
        checksum: str | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        n_genes = network.config.n_genes
        if len(vocabulary) != n_genes:
            message = (
                f"the genes file {vocabulary.name!r} lists {len(vocabulary):,} genes, but the network has {n_genes:,}; "
                "they do not belong together. Pass the genes file that was published with these weights"
            )
            raise ValueError(message)
        check_graph(*graph, n_genes)
        network.set_graph(*graph)
        self.network: Any = network.eval()
        self.vocabulary = vocabulary
        self.graph = graph
        self.name = name
        self.family = family
        self.denominator = denominator
        self.default_pooling = default_pooling
        self.pooling_observed_only = pooling_observed_only
        self.trained_missing = trained_missing
        self.protein: Tensor | None = None
        self.checksum = checksum or state_checksum(network)
        self.provenance = provenance or {}

    def __repr__(self) -> str:
        """Name, family, sizes and checksum."""
        size = f"{len(self.vocabulary):,} genes, D={self.width}"
        return f"BulkFormer({self.name!r}, {self.family}, {size}, {self.checksum[:12]})"

    @property
    def config(self) -> Any:
        """Sizes of the network."""
        return self.network.config

    @property
    def width(self) -> int:
        """Width D of the vectors, without summary columns."""
        return int(self.config.dim)

    @property
    def n_summary(self) -> int:
        """Number of summary columns that can follow the D columns, 3 in the second generation and else 0."""
        return int(self.network.n_summary)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        parameter: Tensor = next(self.network.parameters())
        return parameter.device

    def to(self, device: str | torch.device | None) -> Self:
        """Move the network to a device.

        Parameters
        ----------
        device
            Torch device; ``None`` takes :attr:`bulkformer_tl.settings.device`.

        Returns
        -------
        The same model.
        """
        name = settings.device if device is None else device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        self.network.to(name)
        return self

    def set_protein(self, table: Tensor) -> None:
        """Take a table of protein embeddings, (G, P), that ``encode(protein=True)`` appends to gene vectors.

        Parameters
        ----------
        table
            One row per gene, in the order of ``model.vocabulary``.

        Raises
        ------
        ValueError
            If it has not one row per gene.
        """
        if table.ndim != 2 or len(table) != len(self.vocabulary) or not table.is_floating_point():
            message = (
                f"the protein table is {table.dtype} {tuple(table.shape)}; it needs one floating row for each of the "
                f"{len(self.vocabulary):,} genes of {self.name}, in the order of model.vocabulary"
            )
            raise ValueError(message)
        self.protein = table.detach().float().cpu()

    @torch.no_grad()
    def gene_table(self) -> Tensor:
        """Return the static vector of each gene, (G, D or the width of its table), float32 on the CPU."""
        table: Tensor = self.network.gene_table()
        return table.float().cpu().clone()

    def encode(
        self,
        values: NDArray[np.floating] | Tensor,
        *,
        genes: Sequence[int] | NDArray[np.integer] | Tensor | None = None,
        outputs: Sequence[Output] = ("pooled",),
        pooling: str | None = None,
        pool_genes: Sequence[int] | NDArray[np.integer] | Tensor | None = None,
        observed_only: bool | None = None,
        summary_columns: bool = False,
        protein: bool = False,
        batch_size: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Encoded:
        """Run the network on samples.

        On the CPU samples go one at a time, so that the numbers do not depend on the batch or its order; on other
        devices ``batch_size`` go at once.

        Parameters
        ----------
        values
            ln(TPM+1) in vocabulary order, (N, G), floating; ``NaN`` where missing.
        genes
            Positions in the vocabulary of the genes whose vectors are wanted, (k,); ``None`` takes all.
        outputs
            What to return: ``"pooled"``, ``"genes"``, ``"expression"``, ``"deviation"``.
        pooling
            ``"mean"``, ``"max"``, ``"median"`` (the two middle values averaged) or ``"all"`` (the sum of these three).
            ``None`` takes the model's published rule.
        pool_genes
            Positions of the genes to pool over; ``None`` takes all.
        observed_only
            Pool over observed genes only; ``None`` takes the model's published rule.
        summary_columns
            Append the per-sample summaries to all vectors (second generation only): missing share, mean of the
            observed values, share of values that are not zero. Pooling by ``"all"`` triples them, as published.
        protein
            Append the rows of the protein table to gene vectors.
        batch_size
            Samples per forward pass off the CPU; ``None`` takes :attr:`bulkformer_tl.settings.batch_size`.
        progress
            Called with the number of samples after each forward pass.

        Returns
        -------
        What was asked for.

        Raises
        ------
        ValueError
            If the values are not (N, G), not ln(TPM+1), or a sample has no observed gene (among those to pool over);
            if genes repeat or do not exist; if an output, a pooling or summary columns do not exist in this model.
        TypeError
            If the values are not floating.
        """
        request = check_request(
            self,
            genes=genes,
            outputs=outputs,
            pooling=pooling,
            pool_genes=pool_genes,
            observed_only=observed_only,
            summary_columns=summary_columns,
            protein=protein,
        )
        x, observed = check_values(self, values, request)
        step = _samples_at_once(self.device, batch_size)
        parts = []
        for start in range(0, len(x), step):
            rows = slice(start, start + step)
            # a copy, because at the odd address of a row within a matrix products round differently
            block = x[rows].to(self.device, copy=True)
            parts.append(self._run(block, observed[rows].to(self.device), request))
            if progress is not None:
                progress(len(x[rows]))
        return _join(parts)

    @torch.inference_mode()
    def _run(self, values: Tensor, observed: Tensor, request: Request) -> Encoded:
        network = self.network
        if request.outputs == {"pooled"} and not request.pools:
            return Encoded(pooled=network.sample_vector(values, observed).float().cpu())
        hidden = network(values, observed)
        summaries = network.summaries(values, observed) if request.summary_columns else None
        result = Encoded()
        if "pooled" in request.outputs:
            if request.pools:
                pooled = _pool(hidden, observed, summaries, request)
            else:
                pooled = network.sample_vector(values, observed)
            result = replace(result, pooled=pooled.float().cpu())
        if "genes" in request.outputs:
            chosen = hidden if request.genes is None else hidden[:, request.genes.to(hidden.device)]
            if summaries is not None:
                chosen = torch.cat([chosen, summaries[:, None].expand(-1, chosen.shape[1], -1)], dim=-1)
            chosen = chosen.float().cpu()
            if request.protein and self.protein is not None:
                table = self.protein if request.genes is None else self.protein[request.genes]
                chosen = torch.cat([chosen, table.expand(len(chosen), -1, -1)], dim=-1)
            result = replace(result, genes=chosen)
        if "expression" in request.outputs:
            result = replace(result, expression=network.predict(hidden, values, observed).float().cpu())
        if "deviation" in request.outputs:
            result = replace(result, deviation=network.deviation(hidden, values, observed).float().cpu())
        return result


def _pool(hidden: Tensor, observed: Tensor, summaries: Tensor | None, request: Request) -> Tensor:
    wanted = request.pool_mask(observed)
    # selecting by a full mask would copy all vectors for nothing
    full = bool(wanted.all())
    rows = [
        pool(vectors if full else vectors[mask], cast("Pooling", request.pooling))
        for vectors, mask in zip(hidden, wanted, strict=True)
    ]
    pooled = torch.stack(rows)
    if summaries is None:
        return pooled
    return torch.cat([pooled, summaries * (3 if request.pooling == "all" else 1)], dim=1)


def _samples_at_once(device: torch.device, batch_size: int | None) -> int:
    # batches do not help a CPU, and one sample at a time makes results independent of them
    return 1 if device.type == "cpu" else batch_size or settings.batch_size


def _join(parts: list[Encoded]) -> Encoded:
    def cat(name: str) -> Tensor | None:
        pieces = [getattr(part, name) for part in parts]
        return None if not pieces or pieces[0] is None else torch.cat(pieces)

    return Encoded(**{name: cat(name) for name in ("pooled", "genes", "expression", "deviation")})


def state_checksum(network: torch.nn.Module) -> str:
    """SHA-256 of a network's state: names, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
