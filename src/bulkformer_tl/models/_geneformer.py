"""Geneformer: BERT over genes in the order of their rank, behind the protocol of all encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from bulkformer_tl._rank_vocabulary import CLS, EOS, PAD
from bulkformer_tl._vocabulary import GeneVocabulary
from bulkformer_tl.encodings import RankTable, rank_genes
from bulkformer_tl.models._attention import Attention, attention_weights
from bulkformer_tl.models._encoder import Encoded, Encoder, samples_at_once, state_checksum
from bulkformer_tl.models._pooling import Pooling, pool
from bulkformer_tl.models._rank_request import RankRequest, check_counts, check_rank_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from bulkformer_tl._rank_vocabulary import RankVocabulary


class Geneformer(Encoder):
    """A pretrained Geneformer together with its genes, tokens and medians (Theodoris et al. 2023).

    Parameters
    ----------
    network
        ``BertForMaskedLM`` of transformers.
    dictionary
        Genes with tokens and medians.
    name
        Name for logs and results.
    emb_layer
        Which layer vectors come from: 0 the last, -1 the one before it, as published.
    checksum
        SHA-256 of the file that the weights came from; ``None`` computes one from the weights.
    provenance
        Where the parts came from.

    Raises
    ------
    ValueError
        If network and tokens do not belong together, or there is no such layer.
    """

    #: What :meth:`encode` takes.
    input_unit = "counts"
    encoding = "ranks"
    family = "geneformer"
    #: Counts have no denominator, and a share of missing genes means nothing to an order.
    denominator = None
    trained_missing = None
    #: Genes that are not expressed have no token, so that there is nothing else to pool.
    pooling_observed_only = True
    protein = None

    def __init__(
        self,
        network: Any,
        dictionary: RankVocabulary,
        *,
        name: str,
        emb_layer: int = -1,
        checksum: str | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        rows = int(network.get_input_embeddings().weight.shape[0])
        last = max(dictionary.numbered.values())
        if len(dictionary.numbered) != rows or last >= rows:
            message = (
                f"the token dictionary has {len(dictionary.numbered):,} entries up to {last:,}, the network a table of "
                f"{rows:,}; they do not belong together. Pass the dictionary that was published with these "
                "weights: bf.models.load_geneformer(folder, tokens=...)"
            )
            raise ValueError(message)
        self.network: Any = network.eval()
        self.dictionary = dictionary
        self.name = name
        self.emb_layer = self._check_layer(emb_layer)
        self.vocabulary = GeneVocabulary(
            dictionary.ids, name=name, medians=dictionary.medians, renamed=dictionary.renamed
        )
        self.default_pooling = "cls" if self.has_specials else "mean"
        self.checksum = checksum or state_checksum(network)
        self.provenance = provenance or {}
        self._table = RankTable(dictionary.medians, dictionary.tokens)
        #: Gene of each token, -1 of those that are none.
        self.gene_of = np.full(rows, -1, dtype=np.int64)
        self.gene_of[dictionary.tokens] = np.arange(len(dictionary.ids))

    def __repr__(self) -> str:
        """Name, sizes and checksum."""
        size = f"{len(self.vocabulary):,} genes, {self.context:,} tokens, D={self.width}"
        return f"Geneformer({self.name!r}, {size}, {self.checksum[:12]})"

    @property
    def has_specials(self) -> bool:
        """Whether genes stand between ``<cls>`` and ``<eos>``, as in V2."""
        return CLS in self.dictionary.specials and EOS in self.dictionary.specials

    @property
    def context(self) -> int:
        """Tokens of a sample at most, specials included."""
        return int(self.config.max_position_embeddings)

    @property
    def precision(self) -> str:
        """Precision of the weights, ``"float32"``, or ``"8bit"`` or ``"4bit"`` if it was loaded so."""
        return str(self.provenance.get("quantize") or "float32")

    @property
    def width(self) -> int:
        """Width D of the vectors."""
        return int(self.config.hidden_size)

    @torch.no_grad()
    def gene_table(self) -> Tensor:
        """Return the static vector of each gene, (G, D), float32 on the CPU."""
        table: Tensor = self.network.get_input_embeddings().weight
        return table[torch.from_numpy(self.dictionary.tokens).long().to(table.device)].float().cpu()

    def tokenize(self, values: ArrayLike | Tensor) -> list[NDArray[np.int64]]:
        """Rank the genes of samples, as :func:`bulkformer_tl.pp.rank_value_encode` does.

        A common factor of a sample's counts, such as the size of its library, does not change the order.

        Parameters
        ----------
        values
            Counts in vocabulary order, (N, G); ``NaN`` where missing.

        Returns
        -------
        Tokens of each sample, with ``<cls>`` and ``<eos>`` where the model has them.

        Raises
        ------
        ValueError
            If the values are not (N, G), negative or infinite, or a sample has no gene above zero.
        """
        counts = check_counts(self, values)
        ends = ([self.dictionary.specials[CLS]], [self.dictionary.specials[EOS]]) if self.has_specials else ([], [])
        length = self.context - len(ends[0]) - len(ends[1])
        columns = np.arange(len(self.vocabulary))
        found = []
        for row in counts:
            own, _ = rank_genes(row, columns, self._table, total=float(row.sum(dtype=np.float64)), length=length)
            found.append(np.concatenate([ends[0], own, ends[1]]).astype(np.int64))
        return found

    def encode(
        self,
        values: ArrayLike | Tensor,
        *,
        genes: Sequence[int] | NDArray[np.integer] | Tensor | None = None,
        outputs: Sequence[str] = ("pooled",),
        pooling: str | None = None,
        pool_genes: Sequence[int] | NDArray[np.integer] | Tensor | None = None,
        observed_only: bool | None = None,
        summary_columns: bool = False,
        protein: bool = False,
        emb_layer: int | None = None,
        batch_size: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Encoded:
        """Run the network on samples.

        On the CPU samples go one at a time, so that the numbers do not depend on the batch or its order; on other
        devices ``batch_size`` go at once.

        Parameters
        ----------
        values
            Counts in vocabulary order, (N, G); ``NaN`` where missing.
        genes
            Positions in the vocabulary of the genes whose vectors are wanted, (k,); ``None`` takes all.
        outputs
            What to return: ``"pooled"``, ``"genes"``.
        pooling
            ``"mean"``, ``"max"``, ``"median"`` or ``"all"`` over the genes of a sample, specials left out; ``"cls"``,
            the vector of ``<cls>``. ``None`` takes ``"cls"`` where there is one (V2), else ``"mean"``.
        pool_genes
            Positions of the genes to pool over; ``None`` takes all that have a token.
        observed_only
            Must not be ``False``: a gene without counts has no token.
        summary_columns
            Must not be ``True``: this model has none.
        protein
            Must not be ``True``: this model has no protein table.
        emb_layer
            Which layer vectors come from, as for the class; ``None`` takes the model's.
        batch_size
            Samples per forward pass off the CPU; ``None`` takes :attr:`bulkformer_tl.settings.batch_size`.
        progress
            Called with the number of samples after each forward pass.

        Returns
        -------
        What was asked for. Vectors of genes without a token in a sample are ``NaN``.

        Raises
        ------
        ValueError
            If the values are not counts (N, G), a sample has no gene above zero (among those to pool over), or an
            output, pooling, layer or gene does not exist.
        """
        request = check_rank_request(
            self,
            genes=genes,
            outputs=outputs,
            pooling=pooling,
            pool_genes=pool_genes,
            observed_only=observed_only,
            extra=summary_columns or protein,
        )
        return self._run(self.tokenize(values), request, emb_layer=emb_layer, batch_size=batch_size, progress=progress)

    def _run(
        self,
        tokens: Sequence[NDArray[np.int64]],
        request: RankRequest,
        *,
        emb_layer: int | None = None,
        batch_size: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Encoded:
        """Run the network on lists of tokens, in batches, and summarise each; see :meth:`encode`."""
        step = samples_at_once(self.device, batch_size)
        parts: list[Encoded] = []
        for start in range(0, len(tokens), step):
            batch = tokens[start : start + step]
            vectors = self.token_vectors(batch, emb_layer=emb_layer)
            for row, (own, found) in enumerate(zip(batch, vectors, strict=True), start=start):
                parts.append(self._summarize(found, self.gene_of[own], row, request))
            if progress is not None:
                progress(len(batch))
        return Encoded(
            pooled=torch.stack([part.pooled for part in parts if part.pooled is not None])
            if "pooled" in request.outputs
            else None,
            genes=torch.stack([part.genes for part in parts if part.genes is not None])
            if "genes" in request.outputs
            else None,
        )

    @torch.inference_mode()
    def token_vectors(
        self, tokens: Sequence[NDArray[np.integer] | Sequence[int]], *, emb_layer: int | None = None
    ) -> list[Tensor]:
        """Run the network on lists of tokens, all at once.

        Parameters
        ----------
        tokens
            Of each sample, as :meth:`tokenize` gives them, or changed.
        emb_layer
            Which layer vectors come from, as for the class; ``None`` takes the model's.

        Returns
        -------
        Vectors of each sample's tokens, (L, D), float32 on the CPU.

        Raises
        ------
        ValueError
            If a list is empty or longer than the context, a token is outside the vocabulary, or there is no such layer.
        """
        chosen = self.emb_layer if emb_layer is None else self._check_layer(emb_layer)
        lists = [np.asarray(own, dtype=np.int64) for own in tokens]
        self._check_tokens(lists)
        ids = torch.full((len(lists), max(len(own) for own in lists)), self.dictionary.specials[PAD])
        mask = torch.zeros_like(ids)
        for row, own in enumerate(lists):
            ids[row, : len(own)] = torch.from_numpy(own)
            mask[row, : len(own)] = 1
        # the head would compute logits of every token
        found = self.network.base_model(
            input_ids=ids.to(self.device), attention_mask=mask.to(self.device), output_hidden_states=True
        )
        hidden = found.hidden_states[len(found.hidden_states) - 1 + chosen].float().cpu()
        return [vectors[: len(own)] for vectors, own in zip(hidden, lists, strict=True)]

    def _check_tokens(self, lists: list[NDArray[np.int64]]) -> None:
        lengths = [len(own) for own in lists]
        if not lists or not min(lengths) or max(lengths) > self.context:
            message = f"{self.name} takes lists of 1 to {self.context} tokens, found {sorted(set(lengths))[:5]}"
            raise ValueError(message)
        everything = np.concatenate(lists)
        outside = everything[(everything < 0) | (everything >= len(self.gene_of))]
        if len(outside):
            message = (
                f"the tokens {outside[:5].tolist()} are outside the vocabulary of {self.name}, which ends at "
                f"{len(self.gene_of) - 1}; rank with its own dictionaries (model.tokenize)"
            )
            raise ValueError(message)

    def attention(self, values: ArrayLike | Tensor, *, layer: int = -1) -> Iterator[Attention]:
        """Yield what the tokens of each sample attend to in a layer.

        One sample goes at a time; with 4,096 tokens and 12 heads its weights take 0.8 GB.

        Parameters
        ----------
        values
            Counts in vocabulary order, (N, G); ``NaN`` where missing.
        layer
            Number of the layer, from 0, or from the end as -1, -2, ...

        Yields
        ------
        The weights of one sample.

        Raises
        ------
        ValueError
            If the values are not counts, or there is no such layer.
        """
        n_layers = int(self.config.num_hidden_layers)
        if not -n_layers <= layer < n_layers:
            message = f"{self.name} has the layers 0 to {n_layers - 1}, found {layer}"
            raise ValueError(message)
        for own in self.tokenize(values):
            ids = torch.from_numpy(own)[None].to(self.device)
            yield Attention(self.gene_of[own], attention_weights(self.network, ids)[layer][0].float().cpu())

    def _check_layer(self, emb_layer: int) -> int:
        n_layers = int(self.config.num_hidden_layers)
        if not -n_layers <= emb_layer <= 0:
            message = f"emb_layer is 0 for the last layer, -1 for the one before, ... {-n_layers}; found {emb_layer}"
            raise ValueError(message)
        return emb_layer

    def _summarize(self, vectors: Tensor, genes: NDArray[np.int64], row: int, request: RankRequest) -> Encoded:
        """Pool the tokens of one sample, (L, D), and put them at their genes."""
        pooled = placed = None
        if "pooled" in request.outputs and request.pooling == "cls":
            pooled = vectors[0].clone()
        elif "pooled" in request.outputs:
            wanted = genes >= 0
            if request.pool_genes is not None:
                wanted &= np.isin(genes, request.pool_genes.numpy())
            if not wanted.any():
                message = f"none of the genes to pool over has a token in row {row}; drop it or choose other genes"
                raise ValueError(message)
            pooled = pool(vectors[torch.from_numpy(wanted)], cast("Pooling", request.pooling))
        if "genes" in request.outputs:
            everything = torch.full((len(self.vocabulary), self.width), torch.nan)
            everything[torch.from_numpy(genes[genes >= 0])] = vectors[torch.from_numpy(genes >= 0)]
            placed = everything if request.genes is None else everything[request.genes]
        return Encoded(pooled=pooled, genes=placed)
