"""A network with its genes: what every task of the package talks to."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from bulkformer_tl._settings import settings
from bulkformer_tl.models import _reference
from bulkformer_tl.models._encoder import Encoded, Encoder, join, samples_at_once, state_checksum
from bulkformer_tl.models._engine import Engine
from bulkformer_tl.models._engine_options import EngineOptions, check_options
from bulkformer_tl.models._graph import check_graph
from bulkformer_tl.models._machine import no_idle_threads
from bulkformer_tl.models._request import Request, check_request, check_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneVocabulary
    from bulkformer_tl.models._layers import Encoder as Network

Output = Literal["pooled", "genes", "expression", "deviation"]


class BulkFormer(Encoder):
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
    encoding = "magnitudes"

    def __init__(
        self,
        network: Network,
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
        #: How it computes; ``None`` takes the fast way in the precision of :attr:`bulkformer_tl.settings.precision`.
        self.engine: EngineOptions | None = None
        self._prepared: Engine | None = None
        self.checksum = checksum or state_checksum(network)
        self.provenance = provenance or {}

    def __repr__(self) -> str:
        """Name, family, sizes and checksum."""
        size = f"{len(self.vocabulary):,} genes, D={self.width}"
        return f"BulkFormer({self.name!r}, {self.family}, {size}, {self.checksum[:12]})"

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made of the weights: a copy, or a worker, makes its own."""
        return {**self.__dict__, "_prepared": None}

    @property
    def options(self) -> EngineOptions:
        """How it computes now."""
        return self.engine or EngineOptions(precision=settings.precision)

    @property
    def precision(self) -> str:
        """Precision of matrix products."""
        return self.options.precision

    @property
    def width(self) -> int:
        """Width D of the vectors, without summary columns."""
        return int(self.config.dim)

    @property
    def n_summary(self) -> int:
        """Number of summary columns that can follow the D columns, 3 in the second generation and else 0."""
        return int(self.network.n_summary)

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

        Samples go through one at a time, so that the numbers do not depend on the batch or its order. How they are
        computed, ``model.engine`` says; the default is the fast way in float32.

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
            Samples that are sent to a device other than the CPU at a time; with ``EngineOptions(reference=True)`` they
            also go through the network at once there. ``None`` takes :attr:`bulkformer_tl.settings.batch_size`.
        progress
            Called with the number of samples after each forward pass.

        Returns
        -------
        What was asked for.

        Raises
        ------
        ValueError
            If the values are not (N, G), not ln(TPM+1), or a sample has no observed gene (among those to pool over);
            if genes repeat or do not exist; if an output, a pooling or summary columns do not exist in this model; if
            the device does not have the precision.
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
        check_options(self.options, self.device)
        step = samples_at_once(self.device, batch_size)
        parts = []
        with no_idle_threads():
            for start in range(0, len(x), step):
                rows = slice(start, start + step)
                # a copy, because at the odd address of a row within a matrix products round differently
                block = x[rows].to(self.device, copy=True)
                parts.append(self._run(block, observed[rows].to(self.device), request))
                if progress is not None:
                    progress(len(x[rows]))
        return join(parts)

    @torch.inference_mode()
    def _run(self, values: Tensor, observed: Tensor, request: Request) -> Encoded:
        network, engine = self.network, self._find_engine()
        found: dict[str, Tensor] = {}
        if request.outputs != {"pooled"} or request.pools:
            compute = partial(_reference.compute, network) if engine is None else engine.compute
            found = compute(values, observed, request)
        if "pooled" in request.outputs and not request.pools:
            found["pooled"] = network.sample_vector(values, observed)
        if request.summary_columns:
            summaries = network.summaries(values, observed)
            if "pooled" in found:
                added = summaries * (3 if request.pooling == "all" else 1)
                found["pooled"] = torch.cat([found["pooled"], added], dim=1)
            if "genes" in found:
                added = summaries[:, None].expand(-1, found["genes"].shape[1], -1)
                found["genes"] = torch.cat([found["genes"], added], dim=-1)
        found = {name: tensor.float().cpu() for name, tensor in found.items()}
        if "genes" in found and request.protein and self.protein is not None:
            table = self.protein if request.genes is None else self.protein[request.genes]
            found["genes"] = torch.cat([found["genes"], table.expand(len(values), -1, -1)], dim=-1)
        return Encoded(**found)

    def _find_engine(self) -> Engine | None:
        options = self.options
        if options.reference:
            return None
        if self._prepared is None or not self._prepared.is_of(self.network, options):
            # drop the old one first, so that there are never two
            self._prepared = None
            self._prepared = Engine.make(self.network, options)
        return self._prepared
