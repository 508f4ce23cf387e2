"""A BioFormers network with its features and the way they are binned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from bulkformer_tl._modalities import modalities_of, modality_of
from bulkformer_tl._vocabulary import GeneMatch
from bulkformer_tl.models._binning import BinReader, as_binnings
from bulkformer_tl.models._bins_input import check_bins, check_external
from bulkformer_tl.models._bioformer import ABSENT
from bulkformer_tl.models._bioformer_generate import generate
from bulkformer_tl.models._encoder import Encoded, Encoder, join, samples_at_once, state_checksum
from bulkformer_tl.models._pooling import Pooling, pool
from bulkformer_tl.models._request import Request, check_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneVocabulary
    from bulkformer_tl.models._binning import Binning

#: Rounds of generation where none are named: an encoder predicts at once, as it was trained.
ROUNDS = {False: 1, True: 8}


class BioFormer(Encoder):
    """A BioFormers network together with its features and how their values become bins.

    A feature is a gene or anything else that has a value in a sample. Its modality stands before a colon in its
    identifier (``protein:CD3``, ``obs:age``); identifiers without one are genes, modality ``"rna"``.

    Parameters
    ----------
    network
        The paper's network, or the one that its authors published in code.
    vocabulary
        Its features, in its order.
    name
        Name for logs and results.
    family
        ``"bioformer"`` (the paper's), or ``"bioformer-bert"`` (published in code).
    binnings
        How each modality is binned; what is not given has its default.
    external
        Name of each external token and what its codes 1, 2, ... stand for.
    trained_missing
        Least and largest share of hidden genes that it was trained with; ``None`` where unknown.
    checksum
        SHA-256 of the file that the weights came from; ``None`` computes one from the weights.
    provenance
        Where the parts came from.

    Raises
    ------
    ValueError
        If network, features, modalities and external tokens do not belong together.
    """

    #: What a table has to hold that :meth:`reader` turns into bins.
    input_unit = "counts"
    encoding = "bins"
    #: Counts have no denominator.
    denominator = None
    #: What was not measured has no token, so that there is nothing else to pool.
    pooling_observed_only = True
    protein = None

    def __init__(
        self,
        network: Any,
        vocabulary: GeneVocabulary,
        *,
        name: str,
        family: str,
        binnings: Mapping[str, Any] | None = None,
        external: Mapping[str, Sequence[str]] | None = None,
        trained_missing: tuple[float, float] | None = None,
        checksum: str | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        config = network.config
        self.modalities = modalities_of(vocabulary.ids)
        self.external = {slot: tuple(map(str, categories)) for slot, categories in (external or {}).items()}
        self.binnings = as_binnings(binnings or {}, self.modalities)
        sizes = tuple(len(categories) for categories in self.external.values())
        for fine, message in (
            (
                len(vocabulary) == config.n_genes,
                f"the vocabulary {vocabulary.name!r} lists {len(vocabulary):,} features, and the network's embedding "
                f"table has {config.n_genes:,}; they do not belong together. Pass the genes that it was trained on",
            ),
            (
                len(self.modalities) == getattr(config, "n_modalities", 1),
                f"the features are of the modalities {self.modalities}, and the network embeds "
                f"{getattr(config, 'n_modalities', 1)}",
            ),
            (
                sizes == getattr(config, "external", ()),
                f"the external tokens have {list(sizes)} codes, and the network's tables "
                f"{list(getattr(config, 'external', ()))}",
            ),
            (
                all(binning.target_sum != "mean" for binning in self.binnings.values()),
                "target_sum='mean' is a number once a model is trained; pass binnings={'rna': Binning(target_sum=...)}",
            ),
        ):
            if not fine:
                raise ValueError(message)
        if hasattr(network, "modalities"):
            codes = [self.modalities.index(modality) for modality in modality_of(vocabulary.ids)]
            network.modalities.copy_(torch.tensor(codes))
        self.network: Any = network.eval()
        self.vocabulary = vocabulary
        self.name = name
        self.family = family
        self.default_pooling = "cls" if network.has_cls else "mean"
        self.trained_missing = trained_missing
        self.checksum = checksum or state_checksum(network)
        self.provenance = provenance or {}

    def __repr__(self) -> str:
        """Name, family, sizes and checksum."""
        size = f"{len(self.vocabulary):,} features, {self.config.n_bins} bins, D={self.width}"
        return f"BioFormer({self.name!r}, {self.family}, {size}, {self.checksum[:12]})"

    @property
    def width(self) -> int:
        """Width D of the vectors."""
        return int(self.config.dim)

    @property
    def precision(self) -> str:
        """Precision of the weights, ``"float32"``."""
        return str(next(self.network.parameters()).dtype).removeprefix("torch.")

    @torch.no_grad()
    def gene_table(self) -> Tensor:
        """Return the static vector of each feature, (G, D), float32 on the CPU."""
        table: Tensor = self.network.gene_table()
        return table.float().cpu().clone()

    def reader(self, names: Sequence[str], match: GeneMatch) -> BinReader:
        """Return what turns rows of a table into bins.

        Parameters
        ----------
        names
            Of the columns of the table, which tell their modality; a library is the sum of all columns of one.
        match
            Where the features stand among the columns.

        Returns
        -------
        A function of values (N, n_vars).

        Raises
        ------
        ValueError
            If no column is of one of the model's modalities.
        """
        columns, features = modality_of(names), modality_of(self.vocabulary.ids)
        for modality in self.modalities:
            if not match.found[features == modality].any():
                message = (
                    f"{self.name} reads the modalities {self.modalities}, and none of its features of {modality!r} is "
                    f"among the {match.n_columns:,} columns, which are of {modalities_of(names)}; "
                    "bf.pp.stack_modalities(mdata) puts the modalities of a MuData side by side"
                )
                raise ValueError(message)
        return BinReader(match, columns, features, self.binnings, self.config.n_bins)

    def bin(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Cut counts, or what else the modalities hold, into bins.

        Parameters
        ----------
        values
            In vocabulary order, (N, G), ``NaN`` where missing. A library is the sum of what is here; where a table
            has more genes, use :meth:`reader`.

        Returns
        -------
        Bins, (N, G), ``NaN`` where missing.
        """
        names = self.vocabulary.ids.tolist()
        return self.reader(names, GeneMatch(np.arange(len(names)), len(names)))(np.asarray(values))

    def encode(
        self,
        values: NDArray[Any] | Tensor,
        *,
        external: Mapping[str, Any] | None = None,
        genes: Sequence[int] | NDArray[np.integer] | Tensor | None = None,
        outputs: Sequence[str] = ("pooled",),
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
            Bins in vocabulary order, (N, G), as :meth:`bin` and :meth:`reader` make them; ``NaN``, or -1 in whole
            numbers, where missing.
        external
            Codes of external tokens by name, whole numbers that broadcast to (N, G), 0 where unknown; what is not
            given is unknown.
        genes
            Positions in the vocabulary of the features whose vectors are wanted, (k,); ``None`` takes all.
        outputs
            What to return: ``"pooled"``, ``"genes"``.
        pooling
            ``"mean"``, ``"max"``, ``"median"`` or ``"all"`` over the measured features of a sample; ``"cls"``, the
            vector of ``<cls>``. ``None`` takes ``"cls"`` where there is one, else ``"mean"``.
        pool_genes
            Positions of the features to pool over; ``None`` takes all that are measured.
        observed_only
            Must not be ``False``: what is not measured has no token.
        summary_columns
            Must not be ``True``: this model has none.
        protein
            Must not be ``True``: this model has no such table.
        batch_size
            Samples per forward pass off the CPU; ``None`` takes :attr:`bulkformer_tl.settings.batch_size`.
        progress
            Called with the number of samples after each forward pass.

        Returns
        -------
        What was asked for. Vectors of features that a sample does not measure are ``NaN``.

        Raises
        ------
        ValueError
            If the values are no bins of this model, a sample measures nothing (among the features to pool over), or an
            output, pooling, external token or feature does not exist.
        """
        if observed_only is False:
            message = f"{self.name} has vectors of measured features only; leave out observed_only=False"
            raise ValueError(message)
        request = check_request(
            cast("Any", self),
            genes=genes,
            outputs=outputs,
            pooling=pooling,
            pool_genes=pool_genes,
            # <cls> is asked for without pooling, where the option would be refused
            observed_only=None,
            summary_columns=summary_columns,
            protein=protein,
        )
        bins = check_bins(self, values)
        codes = check_external(self, external, bins.shape)
        _check_pooled(bins, request)
        step = samples_at_once(self.device, batch_size)
        parts = []
        for start in range(0, len(bins), step):
            rows = slice(start, start + step)
            parts.append(self._run(bins[rows], None if codes is None else codes[rows], request))
            if progress is not None:
                progress(len(bins[rows]))
        return join(parts)

    @torch.inference_mode()
    def predict_bins(
        self, values: NDArray[Any] | Tensor, *, external: Mapping[str, Any] | None = None, rounds: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Predict the bins of what is missing.

        Parameters
        ----------
        values
            As for :meth:`encode`; what is missing is predicted.
        external
            As for :meth:`encode`.
        rounds
            How often the network is asked: each time the most certain of its predictions become known, and the others
            are predicted anew. ``None`` asks an encoder once and a decoder eight times.

        Returns
        -------
        Bins of all features, (N, G), measured ones as they are; and the probability that the network gave each, 1 for
        measured ones.

        Raises
        ------
        ValueError
            If the values are no bins of this model, or a sample measures nothing.
        """
        if rounds is not None and rounds < 1:
            message = f"rounds must be at least 1, found {rounds}"
            raise ValueError(message)
        bins = check_bins(self, values).to(self.device)
        codes = check_external(self, external, bins.shape)
        n_rounds = rounds or ROUNDS[getattr(self.config, "decoder", False)]
        features = torch.arange(len(self.vocabulary), device=self.device)
        found = [
            generate(
                self.network,
                row.clamp(min=0),
                row == ABSENT,
                None if codes is None else codes[i].to(self.device),
                features,
                rounds=n_rounds,
            )
            for i, row in enumerate(bins)
        ]
        predicted, certainty = (torch.stack(part).cpu().numpy() for part in zip(*found, strict=True))
        return predicted, certainty

    @torch.inference_mode()
    def _run(self, bins: Tensor, external: Tensor | None, request: Request) -> Encoded:
        features = (bins != ABSENT).any(dim=0).nonzero().flatten()
        chosen = bins[:, features].to(self.device)
        codes = None if external is None else external[:, features].to(self.device)
        cls, vectors = self.network(chosen, None, codes, features=features.to(self.device))
        pooled = placed = None
        if request.pools:
            wanted = request.pool_mask(bins != ABSENT)[:, features].to(self.device)
            rows = [
                pool(own[mask], cast("Pooling", request.pooling)) for own, mask in zip(vectors, wanted, strict=True)
            ]
            pooled = torch.stack(rows).float().cpu()
        elif "pooled" in request.outputs:
            pooled = cls.float().cpu()
        if "genes" in request.outputs:
            everything = torch.full((len(bins), bins.shape[1], self.width), torch.nan)
            everything[:, features] = vectors.float().cpu().masked_fill((chosen == ABSENT).cpu()[..., None], torch.nan)
            placed = everything if request.genes is None else everything[:, request.genes]
        return Encoded(pooled=pooled, genes=placed)


def _check_pooled(bins: Tensor, request: Request) -> None:
    if request.pools:
        empty = (~request.pool_mask(bins != ABSENT).any(dim=1)).nonzero().flatten().tolist()
        if empty:
            message = f"none of the genes to pool over was measured in row {empty[0]}; drop it or choose other genes"
            raise ValueError(message)


def binnings_as_plain(binnings: Mapping[str, Binning]) -> dict[str, dict[str, Any]]:
    """Return how modalities are binned as plain values."""
    return {modality: dict(vars(binning)) for modality, binning in binnings.items()}
