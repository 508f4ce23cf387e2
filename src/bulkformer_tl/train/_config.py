"""What determines the outcome of a pretraining run, and nothing else: plain values that a YAML file can hold."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from bulkformer_tl.train._check import refuse_unless
from bulkformer_tl.train._masks import Masking

if TYPE_CHECKING:
    from collections.abc import Mapping

Family = Literal["g2", "g3", "bioformer", "geneformer"]
Objective = Literal["mse", "gaussian_nll", "cross_entropy", "masked_genes"]

FAMILIES: tuple[Family, ...] = get_args(Family)
#: Objectives of each family, the default first.
OBJECTIVES_OF: dict[str, tuple[Objective, ...]] = {
    "g2": ("mse", "gaussian_nll"),
    "g3": ("mse", "gaussian_nll"),
    "bioformer": ("cross_entropy",),
    "geneformer": ("masked_genes",),
}
#: What is hidden where nothing else is said: 15 % of the tokens for Geneformer, as published.
MASKING_OF = {family: Masking(0.15) if family == "geneformer" else Masking() for family in FAMILIES}


@dataclass(frozen=True)
class Optimizer:
    """AdamW with a linear warm-up.

    Parameters
    ----------
    learning_rate
        Peak.
    weight_decay
        Of matrices; vectors (biases, norms) do not decay.
    betas
        Decay of AdamW's two moments.
    warmup
        Share of the run during which the learning rate rises from 0.
    decay
        How it falls afterwards: along a cosine or in a straight line.
    floor
        Where it ends, as a share of the peak.
    clip
        Largest norm of the gradient; ``None`` does not clip.
    """

    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = 0.05
    decay: Literal["cosine", "linear"] = "cosine"
    floor: float = 0.0
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        refuse_unless(self.learning_rate > 0, f"learning_rate must be above 0, found {self.learning_rate!r}")
        refuse_unless(self.weight_decay >= 0, f"weight_decay must not be negative, found {self.weight_decay!r}")
        refuse_unless(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            f"betas are two numbers from 0 to below 1, found {self.betas!r}",
        )
        refuse_unless(0 <= self.warmup < 1, f"warmup is a share of the run, from 0 to below 1; found {self.warmup!r}")
        refuse_unless(self.decay in {"cosine", "linear"}, f"decay must be 'cosine' or 'linear', found {self.decay!r}")
        refuse_unless(0 <= self.floor <= 1, f"floor is a share of the peak, from 0 to 1; found {self.floor!r}")
        refuse_unless(self.clip is None or self.clip > 0, f"clip must be above 0, found {self.clip!r}")
        object.__setattr__(self, "betas", tuple(self.betas))

    def factor(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, as a share of the peak.

        Parameters
        ----------
        step
            Counted from 0.
        steps
            Of the whole run.

        Returns
        -------
        Between 0 and 1.
        """
        warm = round(self.warmup * steps)
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(steps - warm, 1)
        fallen = (1 + math.cos(math.pi * done)) / 2 if self.decay == "cosine" else 1 - done
        return self.floor + (1 - self.floor) * max(fallen, 0.0)


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that determines the outcome of a run beside the corpus, the genes and their graph.

    Defaults follow what the authors state of the third generation: 5-15 % of the measured genes hidden, masked mean
    squared error, AdamW, linear warm-up and cosine, 96 samples per step. They state the peak of the learning rate and
    the share of the warm-up of the first generation only (1e-4, 5 %; 15 % hidden); weight decay, betas, clipping and
    the number of epochs for your corpus are this package's assumptions.

    Parameters
    ----------
    family
        ``"g2"``, the networks of the paper, ``"g3"``, that of ``bulkformer-latest``, ``"bioformer"``, that of the
        BioFormers paper, which reads counts as bins, or ``"geneformer"``, a BERT that reads genes in the order of their
        counts.
    network
        Sizes, as the models name them in ``model.config``; what is not given has the family's default. The second
        generation needs at least ``dim``. Those of a ``"bioformer"`` are ``n_bins``, ``dim``, ``layers``, ``heads``,
        ``feed_forward``, ``value`` (``"table"`` or ``"linear"``), ``decoder`` and ``dropout``; those of a
        ``"geneformer"`` ``version`` (``"V1"``, or ``"V2"`` with ``<cls>`` and ``<eos>``), ``hidden_size``,
        ``num_hidden_layers``, ``num_attention_heads``, ``intermediate_size``, ``max_position_embeddings`` (tokens of a
        sample at most), ``hidden_act``, ``hidden_dropout_prob`` and ``attention_probs_dropout_prob``. Empty when
        training goes on from a checkpoint.
        ``{"mean_correction": False}`` leaves out the authors' correction of the second generation's predictions by
        the mean error of the observed genes, for which every gene has to go through the last layer and the head: steps
        are faster, and more of them are needed. A checkpoint keeps its own setting.
    objective
        ``"mse"``, or ``"gaussian_nll"``, which also learns each prediction's standard deviation; of a ``"bioformer"``
        ``"cross_entropy"`` of the hidden bins, of a ``"geneformer"`` ``"masked_genes"``, cross-entropy over all tokens.
        ``None`` takes the family's first.
    binning
        How each modality of a ``"bioformer"`` becomes bins: fields of :class:`~bulkformer_tl.models.Binning` by
        modality. What is not given: expression has value binning of samples that are scaled to the mean library of the
        training samples, columns of ``obs`` the same without a library, and other modalities ten bins of equal size in
        each sample.
    external
        Columns of ``obs`` that a ``"bioformer"`` reads as external tokens, by category; one that is missing in a sample
        adds nothing.
    masking
        Which genes are hidden; ``None`` takes 5-15 % of the measured ones, of a ``"geneformer"`` 15 % of the tokens.
    optimizer
        How weights change.
    epochs
        Passes over the training samples; rounded up to whole intervals of ``checkpoint_every``.
    batch_size
        Samples of a step, over all devices.
    micro_batch_size
        Samples that a device holds at once; a step sums as many as it takes. ``None`` takes ``batch_size`` shared
        among the devices.
    precision
        ``"32"``, or ``"bf16"`` for products in bfloat16 with weights in float32.
    compile
        Whether torch compiles the network's own modules; needs ``fast=False``. Where torch cannot, the log says so and
        the modules run as they are. Bits of a resumed run are then those of the same compiler only.
    fast
        Whether only hidden genes go through the last layer and the head (of bins and ranks, through the head), and
        attention goes through genes in blocks: the gradients of the networks' own modules, to 1e-4, in less time and
        memory. ``False`` trains these modules.
    validation
        Studies that are left out of training: their names, or the share of the samples to aim at.
    validation_samples
        Largest number of their samples that is scored, drawn evenly.
    checkpoint_every
        Steps between validations, each followed by a checkpoint.
    patience
        Validations without improvement after which training ends; ``None`` never ends it early.
    read_together
        Samples that lie side by side in a file and stay together in the order of training. 1 shuffles fully; more
        reads faster from disk and suits files whose samples are in random order.
    seed
        Of weights, order, masks, dropout and the choice of studies.
    """

    family: Family = "g3"
    network: Mapping[str, Any] = field(default_factory=dict)
    objective: Objective | None = None
    binning: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    external: tuple[str, ...] = ()
    # never None once it is made
    masking: Masking = None  # type: ignore[assignment]
    optimizer: Optimizer = field(default_factory=Optimizer)
    epochs: float = 20.0
    batch_size: int = 96
    micro_batch_size: int | None = None
    precision: Literal["32", "bf16"] = "32"
    compile: bool = False
    fast: bool = True
    validation: float | tuple[str, ...] = 0.1
    validation_samples: int = 4096
    checkpoint_every: int = 500
    patience: int | None = None
    read_together: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        refuse_unless(
            self.family in FAMILIES, f"family must be one of {list(FAMILIES)} to be pretrained, found {self.family!r}"
        )
        objectives = OBJECTIVES_OF[self.family]
        object.__setattr__(self, "objective", self.objective or objectives[0])
        refuse_unless(
            self.objective in objectives,
            f"objective must be one of {list(objectives)} for the family {self.family!r}, found {self.objective!r}",
        )
        object.__setattr__(self, "external", _as_tuple(self.external))
        object.__setattr__(self, "masking", self.masking or MASKING_OF[self.family])
        refuse_unless(
            self.family != "geneformer" or "balanced" not in self.masking.kinds,
            "masks of kind 'balanced' hide zeros, and a gene without counts has no token; leave it out of kinds",
        )
        refuse_unless(
            self.family == "bioformer" or not (self.binning or self.external),
            f"binning and external are of the family 'bioformer'; leave them out for {self.family!r}",
        )
        refuse_unless(self.precision in {"32", "bf16"}, f"precision must be '32' or 'bf16', found {self.precision!r}")
        refuse_unless(
            not (self.compile and self.fast),
            "torch compiles the network's own modules, which the fast pass does not call; pass fast=False, or "
            "compile=False",
        )
        refuse_unless(self.epochs > 0, f"epochs must be above 0, found {self.epochs!r}")
        optional = ("micro_batch_size", "patience")
        for name in ("batch_size", "validation_samples", "checkpoint_every", "read_together", *optional):
            given = getattr(self, name)
            whole = isinstance(given, int) and not isinstance(given, bool) and given >= 1
            refuse_unless(
                whole or (given is None and name in optional), f"{name} must be a whole number above 0, found {given!r}"
            )
        studies: Any = self.validation
        if isinstance(studies, int | float):
            refuse_unless(0 < studies < 1, f"validation is a share, between 0 and 1, or names; found {studies!r}")
        else:
            named = _as_tuple(studies)
            refuse_unless(bool(named), "validation names no study; pass the studies to leave out, or their share")
            object.__setattr__(self, "validation", named)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that :meth:`from_dict` reads.

        Returns
        -------
        Nested dictionaries of numbers, strings and lists.
        """
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a configuration from plain values.

        Parameters
        ----------
        values
            By field; ``masking`` and ``optimizer`` are dictionaries themselves. What is absent has its default.

        Returns
        -------
        The configuration.

        Raises
        ------
        ValueError
            If a field is unknown or a value impossible.
        """
        given = dict(values)
        for name, kind in (("masking", Masking), ("optimizer", Optimizer)):
            if isinstance(given.get(name), dict):
                given[name] = _make(kind, given[name])
        made: Self = _make(cls, given)
        return made

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a configuration from a YAML or JSON file.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        The configuration.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not YAML, a field is unknown or a value impossible.
        """
        import yaml

        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            message = f"{path} is not YAML: {error}"
            raise ValueError(message) from error
        refuse_unless(isinstance(values, dict), f"{path} should hold fields and values, found {values!r:.60}")
        return cls.from_dict(values)

    def write(self, path: str | Path) -> None:
        """Write the configuration as YAML.

        Parameters
        ----------
        path
            The file.
        """
        import yaml

        Path(path).write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")


def _as_tuple(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _make(kind: Any, values: Mapping[str, Any]) -> Any:
    known = [item.name for item in fields(kind)]
    unknown = sorted(set(map(str, values)) - set(known))
    refuse_unless(not unknown, f"the configuration has the unknown fields {unknown}; {kind.__name__} has {known}")
    numeric = {item.name for item in fields(kind) if item.type in {"float", "float | None"}}
    try:
        # YAML reads 1e-4, without a point, as text
        return kind(
            **{
                name: float(given) if name in numeric and isinstance(given, str) else given
                for name, given in values.items()
            }
        )
    except TypeError as error:
        message = f"a value of {kind.__name__} is of the wrong kind: {error}"
        raise ValueError(message) from error
