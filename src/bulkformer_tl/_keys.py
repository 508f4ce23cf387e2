"""Which slots of an AnnData each result occupies; the only place that spells them.

A slot is written as ``"<container>/<key>"``, for example ``"obsm/X_bulkformer"``, and every result keeps
its parameters in ``uns[key]["params"]``.
"""

from __future__ import annotations

from dataclasses import dataclass

HIDDEN = "hidden"
LOG_TPM = "log_tpm"


@dataclass(frozen=True)
class LogTpmKeys:
    """Slots of :func:`bulkformer_tl.pp.log_tpm` and of the conversions to ln(TPM+1)."""

    key: str = LOG_TPM

    @property
    def layer(self) -> str:
        """Expression, ln(TPM+1)."""
        return f"layers/{self.key}"


@dataclass(frozen=True)
class EmbedKeys:
    """Slots of :func:`bulkformer_tl.tl.embed`."""

    key: str = "bulkformer"

    @property
    def embedding(self) -> str:
        """Sample vectors."""
        return f"obsm/X_{self.key}"

    @property
    def in_vocabulary(self) -> str:
        """Whether the model knows the gene."""
        return f"var/{self.key}_in_vocabulary"


@dataclass(frozen=True)
class GeneEmbeddingKeys:
    """Slots of :func:`bulkformer_tl.tl.gene_embeddings`."""

    key: str = "bulkformer_genes"

    def vectors(self, group: str | None = None) -> str:
        """Gene vectors, of all samples or of one group."""
        return f"varm/{self.key}" if group is None else f"varm/{self.key}_{group}"


@dataclass(frozen=True)
class ImputeKeys:
    """Slots of :func:`bulkformer_tl.tl.impute`."""

    key: str = "imputed"

    @property
    def expression(self) -> str:
        """Measured values kept, missing ones predicted."""
        return f"layers/{self.key}"

    @property
    def deviation(self) -> str:
        """Standard deviation of each predicted entry."""
        return f"layers/{self.key}_sd"

    @property
    def predicted(self) -> str:
        """Predictions at every position of a vocabulary gene."""
        return f"layers/{self.key}_predicted"

    @property
    def in_vocabulary(self) -> str:
        """Whether the model knows the gene."""
        return f"var/{self.key}_in_vocabulary"


def params(key: str) -> str:
    """Return the slot that holds how a result was made."""
    return f"uns/{key}"
