"""What every encoder of the package is: a network with its genes, behind one set of calls."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from bulkformer_tl._settings import settings
from bulkformer_tl.models._device import choose_device

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from torch import Tensor

    from bulkformer_tl._vocabulary import GeneVocabulary


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


class Encoder(ABC):
    """A pretrained network together with its genes and what is known of it.

    :class:`BulkFormer`, :class:`Geneformer` and :class:`BioFormer` are encoders; the tools take any of them, and ask
    them only for what stands here.
    """

    #: What a table has to hold, ``"log_tpm"`` for ln(TPM+1) or ``"counts"``.
    input_unit: ClassVar[Literal["log_tpm", "counts"]]
    #: How a sample becomes tokens, ``"magnitudes"``, ``"ranks"`` or ``"bins"``.
    encoding: ClassVar[Literal["magnitudes", "ranks", "bins"]]
    #: The network; its modules are those of its family.
    network: Any
    #: Its genes, in its order.
    vocabulary: GeneVocabulary
    #: Name for logs and results.
    name: str
    #: Family of the network.
    family: str
    #: Genes over which TPM was summed in training; ``None`` for counts.
    denominator: Literal["all", "vocabulary"] | None
    #: What ``pooling=None`` means.
    default_pooling: str
    #: Whether only measured genes are pooled where nothing else is asked for.
    pooling_observed_only: bool
    #: Least and largest share of missing genes that it was trained with; ``None`` where unknown.
    trained_missing: tuple[float, float] | None
    #: SHA-256 of the weights.
    checksum: str
    #: Where the parts came from.
    provenance: dict[str, Any]
    #: Table of protein embeddings, (G, P), of models that append one.
    protein: Tensor | None

    @property
    def config(self) -> Any:
        """Sizes of the network."""
        return self.network.config

    @property
    @abstractmethod
    def width(self) -> int:
        """Width D of the vectors, without summary columns."""

    @property
    @abstractmethod
    def precision(self) -> str:
        """Precision of weights, or of matrix products."""

    @property
    def n_summary(self) -> int:
        """Number of summary columns that can follow the D columns."""
        return 0

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
        The same model. One that was loaded in 8 or 4 bits stays where it is.
        """
        if getattr(self.network, "quantization_method", None) is None:
            self.network.to(choose_device(device))
        return self

    @abstractmethod
    def gene_table(self) -> Tensor:
        """Return the static vector of each gene, (G, D or the width of its table), float32 on the CPU."""

    @abstractmethod
    def encode(
        self,
        values: Any,
        *,
        genes: Any = None,
        outputs: Sequence[Any] = ("pooled",),
        pooling: str | None = None,
        pool_genes: Any = None,
        observed_only: bool | None = None,
        summary_columns: bool = False,
        protein: bool = False,
        batch_size: int | None = None,
        progress: Any = None,
    ) -> Encoded:
        """Run the network on samples.

        Parameters
        ----------
        values
            The encoder's own input in vocabulary order, (N, G); ``NaN`` where missing.
        genes
            Positions in the vocabulary of the genes whose vectors are wanted, (k,); ``None`` takes all.
        outputs
            What to return, names of :class:`Encoded`; each encoder says which of them it has.
        pooling
            How gene vectors become the sample vector; ``None`` takes ``default_pooling``.
        pool_genes
            Positions of the genes to pool over; ``None`` takes all.
        observed_only
            Pool over measured genes only; ``None`` takes ``pooling_observed_only``.
        summary_columns
            Append the summary columns of encoders that have such.
        protein
            Append the rows of the protein table to gene vectors, where there is one.
        batch_size
            Samples at a time off the CPU; ``None`` takes :attr:`bulkformer_tl.settings.batch_size`.
        progress
            Called with the number of samples after each forward pass.

        Returns
        -------
        What was asked for.
        """


def samples_at_once(device: torch.device, batch_size: int | None) -> int:
    """Return how many samples go through a network together; ``None`` takes the settings' number off the CPU."""
    # batches do not help a CPU, and one sample at a time makes results independent of them
    return 1 if device.type == "cpu" else batch_size or settings.batch_size


def join(parts: list[Encoded]) -> Encoded:
    """Put what was said of some samples after each other."""

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
