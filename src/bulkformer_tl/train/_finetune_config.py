"""What is adapted of an encoder, and how."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from bulkformer_tl.train._check import refuse_unless

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Method = Literal["probe", "freeze", "lora", "full"]
METHODS: tuple[Method, ...] = ("probe", "freeze", "lora", "full")
#: Peak learning rates of the encoder: adapters start from nothing, trained weights are only moved a little.
RATES: dict[str, float] = {"probe": 0.0, "freeze": 1e-4, "lora": 1e-3, "full": 1e-4}

#: What all trials of a search share: the search itself, the samples, and the loss that they are compared by.
FIXED = {"n_trials", "space", "pooling", "validation", "loss_weights", "class_weights"}


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything that decides how an encoder is adapted, beside the samples and the seed.

    Parameters
    ----------
    method
        What is trained beside the heads: nothing (``"probe"``), the last ``layers`` of the encoder (``"freeze"``),
        low-rank additions to the projections of attention and feed-forward parts (``"lora"``; Hu et al. 2021,
        arXiv:2106.09685), or all weights that sample vectors depend on (``"full"``).
    rank
        Of the additions of ``"lora"``.
    alpha
        Their scale: a product is multiplied by ``alpha / rank``.
    lora_dropout
        Share of their inputs that is dropped in training.
    layers
        How many layers ``"freeze"`` trains, from the last.
    pooling
        How gene vectors become a sample vector, as of the model's ``encode``; ``None`` takes its published rule. Where
        that is no summary of gene vectors (``bulkformer-mini``), heads read it, which stays as it is, and the mean of
        the gene vectors.
    hidden
        Width of a hidden layer in each head; 0 makes heads linear.
    class_weights
        ``"balanced"`` gives all classes the same weight in the loss, ``None`` all samples.
    loss_weights
        Weight of a target's loss by its name, 1 where it is not given.
    learning_rate
        Of the encoder; ``None`` takes 1e-3 for ``"lora"`` and 1e-4 for ``"freeze"`` and ``"full"``.
    head_learning_rate
        Of the heads.
    weight_decay
        Of AdamW, for heads and encoder.
    epochs
        Passes over the training samples through the encoder, at most.
    head_epochs
        Steps of the heads alone before, on all training samples at once, at most.
    patience
        Epochs without a better validation loss after which training ends.
    batch_size
        Samples of a step.
    micro_batch_size
        Samples that go through the encoder at once. ``None`` takes 4 on a CPU and ``batch_size`` elsewhere; it is
        halved whenever memory runs out, which changes no loss.
    validation
        Share of the training samples, whole groups, that decides when to stop.
    n_trials
        How many configurations out of ``space`` are tried, by Optuna's tree-structured Parzen estimator (Akiba et al.
        2019, arXiv:1907.10902); the one whose validation loss is least is kept. 0 takes this one as it is.
    space
        Names of fields and the values to choose among, such as ``{"rank": (4, 16), "learning_rate": (1e-4, 1e-3)}``.
        Weights of classes and losses, pooling and validation are the same in all trials, whose losses are compared.
    precision
        ``"32"``, or ``"bf16"`` for products in bfloat16 with weights in float32.

    Raises
    ------
    ValueError
        If a field is out of its range.
    """

    method: Method = "lora"
    rank: int = 8
    alpha: int = 16
    lora_dropout: float = 0.0
    layers: int = 1
    pooling: str | None = None
    hidden: int = 0
    class_weights: Literal["balanced"] | None = None
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    learning_rate: float | None = None
    head_learning_rate: float = 1e-2
    weight_decay: float = 1e-2
    epochs: int = 20
    head_epochs: int = 200
    patience: int = 5
    batch_size: int = 16
    micro_batch_size: int | None = None
    validation: float = 0.2
    n_trials: int = 0
    space: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    precision: Literal["32", "bf16"] = "32"

    def __post_init__(self) -> None:
        refuse_unless(self.method in METHODS, f"method must be one of {list(METHODS)}, found {self.method!r}")
        counts = {name: getattr(self, name) for name in ("rank", "alpha", "layers", "epochs", "patience", "batch_size")}
        for name, found in counts.items():
            refuse_unless(
                isinstance(found, int) and found >= 1, f"{name} must be a whole number from 1, found {found!r}"
            )
        for name in ("hidden", "head_epochs", "n_trials"):
            found = getattr(self, name)
            refuse_unless(
                isinstance(found, int) and found >= 0, f"{name} must be a whole number from 0, found {found!r}"
            )
        micro = self.micro_batch_size
        refuse_unless(
            micro is None or (isinstance(micro, int) and micro >= 1),
            f"micro_batch_size must be a whole number from 1 or None, found {micro!r}",
        )
        for name in ("head_learning_rate",):
            refuse_unless(getattr(self, name) > 0, f"{name} must be above 0, found {getattr(self, name)!r}")
        rate = self.learning_rate
        refuse_unless(rate is None or rate > 0, f"learning_rate must be above 0 or None, found {rate!r}")
        refuse_unless(self.weight_decay >= 0, f"weight_decay must not be negative, found {self.weight_decay!r}")
        for name, low in (("lora_dropout", -1e-12), ("validation", 0.0)):
            found = getattr(self, name)
            refuse_unless(low < found < 1, f"{name} is a share between 0 and 1, found {found!r}")
        refuse_unless(
            self.class_weights in {None, "balanced"},
            f"class_weights must be 'balanced' or None, found {self.class_weights!r}",
        )
        refuse_unless(
            all(weight > 0 for weight in self.loss_weights.values()),
            f"loss_weights must be above 0, found {dict(self.loss_weights)!r}",
        )
        self._check_space()
        refuse_unless(self.precision in {"32", "bf16"}, f"precision must be '32' or 'bf16', found {self.precision!r}")

    def _check_space(self) -> None:
        """Refuse a search without choices, and choices that are none."""
        refuse_unless(
            bool(self.space) == bool(self.n_trials),
            f"n_trials={self.n_trials} and space={dict(self.space)!r} go together: pass both, or neither",
        )
        known = [item.name for item in fields(self) if item.name not in FIXED]
        for name, values in self.space.items():
            refuse_unless(name in known, f"space names {name!r}; there are the fields {known}")
            refuse_unless(
                isinstance(values, tuple | list) and len(values) > 0,
                f"space[{name!r}] is {values!r}; pass a list of values",
            )
            for value in values:
                replace(self, n_trials=0, space={}, **{name: value})

    @property
    def encoder_rate(self) -> float:
        """Peak learning rate of the encoder."""
        return RATES[self.method] if self.learning_rate is None else self.learning_rate

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, without those that are ``None``.

        Returns
        -------
        Field names and values.
        """
        return {name: value for name, value in asdict(self).items() if value is not None}
