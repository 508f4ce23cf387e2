"""What adaptation leaves: heads and the few weights that changed, without pickle, applied to the same encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from bulkformer_tl._kept_files import KeptHead
from bulkformer_tl.metrics._temperature import sharpen
from bulkformer_tl.train._check import refuse_unless
from bulkformer_tl.train._finetune_config import FinetuneConfig
from bulkformer_tl.train._targets import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from numpy.typing import NDArray

    from bulkformer_tl.train._backbones import Backbone
    from bulkformer_tl.train._finetune_heads import Heads

FIELDS: dict[str, type] = {
    **{"model": str, "checksum": str, "family": str, "precision": str, "config": dict, "targets": dict},
    **{"seed": int, "history": list, "best": dict, "diverged": bool, "n_trained": int, "samples": int},
}
HEADS, ENCODER = "heads.", "encoder."
#: Precision of weights as they are published.
EXACT = "float32"


class Adapter(KeptHead):
    """An adapted encoder, as the difference from the pretrained one.

    Parameters
    ----------
    facts
        The model's name, SHA-256 and precision of weights, the configuration, the targets with their classes and
        calibration, and how training went, as plain values.
    arrays
        Weights of the heads, and those of the encoder that were trained.
    """

    what: ClassVar[str] = "adapter"

    def __post_init__(self) -> None:
        """Refuse facts and arrays that do not belong together."""
        wrong = [name for name, kind in FIELDS.items() if not isinstance(self.facts.get(name), kind)]
        refuse_unless(
            not wrong and set(self.facts) == set(FIELDS),
            f"the facts of an adapter are {sorted(FIELDS)}; {wrong or sorted(set(self.facts) ^ set(FIELDS))} "
            "do not fit",
        )
        for name, entry in self.facts["targets"].items():
            fine = isinstance(entry, dict) and set(entry) == {"kind", "classes", "calibration"}
            refuse_unless(
                fine and entry["kind"] in {"class", "regression", "survival", "genes"},
                f"the adapter's target {name!r} is not described by kind, classes and calibration",
            )
        refuse_unless(
            all(name.startswith((HEADS, ENCODER)) for name in self.arrays),
            f"the arrays of an adapter start with {HEADS!r} or {ENCODER!r}",
        )

    def __repr__(self) -> str:
        """Model, method, targets and size."""
        method = self.facts["config"].get("method")
        return (
            f"Adapter({self.facts['model']!r}, {method!r}, {list(self.facts['targets'])}, {self.n_bytes / 1e6:.2f} MB)"
        )

    @property
    def n_bytes(self) -> int:
        """Size of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def config(self) -> FinetuneConfig:
        """How it was trained."""
        return FinetuneConfig(**self.facts["config"])

    @property
    def history(self) -> pd.DataFrame:
        """Training and validation loss, one row per epoch of the heads alone and of the encoder."""
        return pd.DataFrame(self.facts["history"])

    def predict(
        self, model: Any, values: Any, *, genes: NDArray[np.integer] | None = None, external: Any = None
    ) -> dict[str, NDArray[np.float64]]:
        """Predict all targets of samples.

        On the CPU samples go one at a time, so that the numbers do not depend on the others or their order.

        Parameters
        ----------
        model
            The pretrained model that was adapted; it is not changed.
        values
            In the unit that it reads and in vocabulary order, (N, G); ``NaN`` where missing.
        genes
            Positions in the vocabulary of the genes that a target of genes is predicted for; ``None`` takes all.
        external
            Codes of external tokens, of models that have such.

        Returns
        -------
        By name: calibrated probabilities of classes, (N, K), numbers, (N,), log hazards, (N,), or probabilities of
        the classes of genes, (k, K), the mean over samples.

        Raises
        ------
        ValueError
            If it is another model than was adapted, or cannot read the values.
        """
        from bulkformer_tl.train._cohort import Cohort

        self.check_model(model)
        chosen = None
        if any(entry["kind"] == "genes" for entry in self.facts["targets"].values()):
            chosen = np.arange(len(model.vocabulary)) if genes is None else np.asarray(genes)
        cohort = Cohort(model, values, pooling=self.config.pooling, genes=chosen, external=external)
        way, heads = restore(self, cohort.backbone)
        return self.calibrate(cohort.predict(way, heads, np.arange(len(cohort))))

    def check_model(self, model: Any) -> None:
        """Refuse another model than the one that was adapted.

        Parameters
        ----------
        model
            A loaded model.

        Raises
        ------
        ValueError
            If its weights differ, or are rounded to other numbers of bits.
        """
        name, checksum = getattr(model, "name", type(model).__name__), str(getattr(model, "checksum", ""))
        refuse_unless(
            checksum == self.facts["checksum"],
            f"this adapter was trained on {self.facts['model']} (weights {self.facts['checksum'][:12]}), and {name} "
            f"has the weights {checksum[:12]}; pass that model",
        )
        found, wanted = held_in(model), self.facts["precision"]
        how = "without quantize=" if wanted == EXACT else f"with bf.models.load_geneformer(..., quantize={wanted!r})"
        refuse_unless(
            found == wanted,
            f"this adapter was trained on {self.facts['model']} with weights in {wanted}, and those of {name} are in "
            f"{found}; load it {how}",
        )

    def calibrate(self, found: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """Divide the logarithms of probabilities by the temperature of their target.

        Parameters
        ----------
        found
            By name, as the heads give them.

        Returns
        -------
        The same, probabilities calibrated.
        """
        return {
            name: sharpen(values, entry["calibration"])
            if (entry := self.facts["targets"][name])["kind"] == "class"
            else values
            for name, values in found.items()
        }

    def calibrated(self, temperatures: Mapping[str, float]) -> Adapter:
        """Return the adapter with temperatures of some targets of classes.

        Parameters
        ----------
        temperatures
            By name of the target.

        Returns
        -------
        A new adapter on the same arrays.
        """
        targets = {
            name: {**entry, "calibration": float(temperatures.get(name, entry["calibration"]))}
            for name, entry in self.facts["targets"].items()
        }
        return Adapter({**self.facts, "targets": targets}, self.arrays)


def held_in(model: Any) -> str:
    """Return in which precision a network's weights are held; that of an engine's products is no part of it."""
    rounded = getattr(getattr(model, "network", None), "quantization_method", None) is not None
    return str(model.precision) if rounded else EXACT


def restore(adapter: Adapter, backbone: Backbone) -> tuple[Backbone, Heads]:
    """Build the adapted encoder and the heads on it.

    Parameters
    ----------
    adapter
        What was trained.
    backbone
        Of the pretrained model, which stays as it is.

    Raises
    ------
    ValueError
        If an array has another shape than the model's.
    """
    from bulkformer_tl.train._finetune_heads import Heads
    from bulkformer_tl.train._trainable import fill, trainable_copy

    way = trainable_copy(backbone, adapter.config, seed=adapter.facts["seed"])
    targets = {
        name: Target(entry["kind"], np.empty(0), tuple(entry["classes"]))
        for name, entry in adapter.facts["targets"].items()
    }
    heads = Heads(targets, (sum(backbone.parts), backbone.model.width), adapter.config.hidden)
    fill(heads.state_dict(), _under(adapter, HEADS), whole=True)
    fill(dict(way.network.named_parameters()), _under(adapter, ENCODER), whole=False)
    return way, heads.to(backbone.model.device)


def _under(adapter: Adapter, prefix: str) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): np.asarray(array)
        for name, array in adapter.arrays.items()
        if name.startswith(prefix)
    }


def as_arrays(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, NDArray[Any]]:
    """Return tensors as arrays under a prefix."""
    return {f"{prefix}{name}": tensor.detach().float().cpu().numpy() for name, tensor in state.items()}
