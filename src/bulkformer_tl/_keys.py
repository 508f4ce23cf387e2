"""Which slots of an AnnData each result occupies; the only place that spells them.

A slot is written as ``"<container>/<key>"``, for example ``"obsm/X_bulkformer"``, and every result keeps
its parameters in ``uns[key]["params"]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

COEXPRESSION = "coexpression"
DIFFERENTIAL_EXPRESSION = "differential_expression"
BIOMARKERS = "biomarkers"
GENE_SCORES = "gene_scores"
HIDDEN = "hidden"
NETWORK = "network"
LOG_TPM = "log_tpm"
RANK, BINNED = "rank", "binned"


@dataclass(frozen=True)
class LogTpmKeys:
    """Slots of :func:`bulkformer_tl.pp.log_tpm` and of the conversions to ln(TPM+1)."""

    key: str = LOG_TPM

    @property
    def layer(self) -> str:
        """Expression, ln(TPM+1)."""
        return f"layers/{self.key}"


@dataclass(frozen=True)
class RankKeys:
    """Slots of :func:`bulkformer_tl.pp.rank_value_encode`."""

    key: str = RANK

    @property
    def tokens(self) -> str:
        """Tokens in the order of their rank, padded."""
        return f"obsm/{self.key}_tokens"

    @property
    def length(self) -> str:
        """Number of tokens."""
        return f"obs/{self.key}_length"

    @property
    def truncated(self) -> str:
        """Share of the genes above zero that the context cut off."""
        return f"obs/{self.key}_truncated"


@dataclass(frozen=True)
class BinKeys:
    """Slots of :func:`bulkformer_tl.pp.bin_expression`."""

    key: str = BINNED

    @property
    def layer(self) -> str:
        """Bins."""
        return f"layers/{self.key}"

    def external(self, container: str, name: str) -> str:
        """Codes of an external token."""
        return f"{container}/{self.key}_{name}"


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
class FuseKeys:
    """Slots of :func:`bulkformer_tl.tl.fuse`."""

    key: str = "fused"

    @property
    def embedding(self) -> str:
        """Representations of several modalities, side by side."""
        return f"obsm/X_{self.key}"


@dataclass(frozen=True)
class GeneEmbeddingKeys:
    """Slots of :func:`bulkformer_tl.tl.gene_embeddings`."""

    key: str = "bulkformer_genes"

    def vectors(self, group: str | None = None) -> str:
        """Gene vectors, of all samples or of one group."""
        return f"varm/{self.key}" if group is None else f"varm/{self.key}_{group}"


@dataclass(frozen=True)
class GeneScoreKeys:
    """Slots of :func:`bulkformer_tl.tl.gene_scores`."""

    key: str = GENE_SCORES

    @property
    def scores(self) -> str:
        """What the vector of each gene says about each sample."""
        return f"layers/{self.key}"


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


@dataclass(frozen=True)
class _OfLabel:
    """Slots that are named after a label; ``name`` starts those of the samples, or genes."""

    prefix: ClassVar[str]
    axis: ClassVar[str] = "obs"
    key: str
    name: str

    @classmethod
    def of(cls, label: str, key_added: str | None) -> Self:
        """Name slots after the label, or after ``key_added`` where it is given."""
        return cls(f"{cls.prefix}_{label}", label) if key_added is None else cls(key_added, key_added)

    @property
    def prediction(self) -> str:
        """Predicted class or number."""
        return f"{self.axis}/{self.name}_pred"

    @property
    def probabilities(self) -> str:
        """Calibrated probabilities, one column per class."""
        return f"{self.axis}m/{self.name}_proba"


@dataclass(frozen=True)
class ClassifyKeys(_OfLabel):
    """Slots of :func:`bulkformer_tl.tl.classify`; ``name`` starts those of the samples."""

    prefix: ClassVar[str] = "classify"

    @property
    def outlier(self) -> str:
        """Whether the sample is far from those that were trained on."""
        return f"obs/{self.name}_out_of_distribution"


@dataclass(frozen=True)
class ClassifyGenesKeys(_OfLabel):
    """Slots of :func:`bulkformer_tl.tl.classify_genes`; ``name`` starts those of the genes."""

    prefix: ClassVar[str] = "classify_genes"
    axis: ClassVar[str] = "var"


@dataclass(frozen=True)
class CompareKeys:
    """Slots of :func:`bulkformer_tl.tl.compare`: ``uns`` alone."""

    key: str


@dataclass(frozen=True)
class RegressKeys(_OfLabel):
    """Slots of :func:`bulkformer_tl.tl.regress`; ``name`` starts those of the samples."""

    prefix: ClassVar[str] = "regress"

    @property
    def matrix(self) -> str:
        """Predicted numbers of several columns."""
        return f"obsm/{self.name}_pred"

    @property
    def low(self) -> str:
        """Lower end of the interval."""
        return f"obs/{self.name}_low"

    @property
    def high(self) -> str:
        """Upper end of the interval."""
        return f"obs/{self.name}_high"

    @property
    def outlier(self) -> str:
        """Whether the sample is far from those that were trained on."""
        return f"obs/{self.name}_out_of_distribution"


@dataclass(frozen=True)
class TransferKeys:
    """Slots of :func:`bulkformer_tl.tl.transfer`."""

    key: str

    @classmethod
    def of(cls, label: str, key_added: str | None) -> TransferKeys:
        """Name slots after the label, or after ``key_added`` where it is given."""
        return cls(f"transfer_{label}" if key_added is None else key_added)

    @property
    def prediction(self) -> str:
        """Predicted class or number."""
        return f"obs/{self.key}_pred"

    @property
    def probabilities(self) -> str:
        """Shares of the vote, one column per class."""
        return f"obsm/{self.key}_proba"

    @property
    def p_value(self) -> str:
        """Conformal p-value of the distance."""
        return f"obs/{self.key}_ood_p"

    @property
    def ratio(self) -> str:
        """Distance beside those within the reference."""
        return f"obs/{self.key}_ood_ratio"

    @property
    def outlier(self) -> str:
        """Whether the sample is far from the reference."""
        return f"obs/{self.key}_out_of_distribution"

    @property
    def neighbors(self) -> str:
        """Names of the nearest samples of the reference."""
        return f"obsm/{self.key}_neighbors"

    @property
    def distances(self) -> str:
        """Their distances."""
        return f"obsm/{self.key}_distances"

    @property
    def slots(self) -> list[str]:
        """All that may be written."""
        found = [self.prediction, self.probabilities, self.p_value, self.ratio, self.outlier]
        return [*found, self.neighbors, self.distances]


@dataclass(frozen=True)
class DrugResponseKeys:
    """Slots of :func:`bulkformer_tl.tl.drug_response`."""

    key: str = "drug_response"

    @property
    def prediction(self) -> str:
        """Predicted response, a column per drug."""
        return f"obsm/{self.key}_pred"


@dataclass(frozen=True)
class EssentialityKeys:
    """Slots of :func:`bulkformer_tl.tl.essentiality`."""

    key: str = "essentiality"

    @property
    def prediction(self) -> str:
        """Predicted effect, genes as columns of ``var``."""
        return f"layers/{self.key}_pred"


@dataclass(frozen=True)
class FinetuneKeys:
    """Slots of :func:`bulkformer_tl.tl.finetune` and :func:`bulkformer_tl.tl.predict`, by name of the target."""

    key: str = "finetune"

    def slots(self, name: str, kind: str) -> list[str]:
        """What is written of a target of some kind: predictions, and where there are classes probabilities."""
        axis, what = "var" if kind == "genes" else "obs", "risk" if kind == "survival" else "pred"
        first = f"{axis}/{self.key}_{name}_{what}"
        return [first, f"{axis}m/{self.key}_{name}_proba"] if kind in {"class", "genes"} else [first]


@dataclass(frozen=True)
class AttributeKeys:
    """Slots of :func:`bulkformer_tl.tl.attribute`."""

    key: str = "attributions"

    @property
    def layer(self) -> str:
        """Attribution of each gene in each sample."""
        return f"layers/{self.key}"

    @property
    def mean(self) -> str:
        """Mean absolute attribution of each gene."""
        return f"var/{self.key}_mean"


@dataclass(frozen=True)
class ResponseKeys:
    """Slots of :func:`bulkformer_tl.tl.perturbation_response`."""

    key: str = "perturbation_response"

    @property
    def profiles(self) -> str:
        """Predicted profiles of treated samples."""
        return f"layers/{self.key}"

    @property
    def predicted(self) -> str:
        """Predicted mean change, one column per condition."""
        return f"varm/{self.key}_predicted"

    @property
    def measured(self) -> str:
        """True mean change, one column per condition."""
        return f"varm/{self.key}_measured"


@dataclass(frozen=True)
class PerturbKeys:
    """Slots of :func:`bulkformer_tl.tl.perturb`."""

    key: str = "perturb"

    @property
    def samples(self) -> str:
        """Effect of each perturbation on each sample."""
        return f"obsm/{self.key}"

    @property
    def genes(self) -> str:
        """Mean effect of each perturbation on each gene."""
        return f"varm/{self.key}"


@dataclass(frozen=True)
class SurvivalKeys:
    """Slots of :func:`bulkformer_tl.tl.survival`."""

    key: str = "survival"

    @property
    def risk(self) -> str:
        """Logarithm of the hazard, relative to the average sample."""
        return f"obs/{self.key}_risk"

    @property
    def group(self) -> str:
        """Whether the risk is above the median of the training samples."""
        return f"obs/{self.key}_group"


def params(key: str) -> str:
    """Return the slot that holds how a result was made."""
    return f"uns/{key}"


def gene_module(key: str) -> str:
    """Return the slot of the module of each gene, of :func:`bulkformer_tl.tl.gene_modules`."""
    return f"var/{key}"
