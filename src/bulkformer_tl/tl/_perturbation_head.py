"""The fitted response to perturbations: predicts treated profiles, written without pickle, checked when read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata
from bulkformer_tl._kept_files import KeptHead
from bulkformer_tl.tl._head_input import head_matrix
from bulkformer_tl.tl._perturbation_features import KINDS, Features
from bulkformer_tl.tl._perturbation_model import HEADS, Dose, design, forward_response

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.tl._perturbation_features import Known

TASK = "perturbation_response"
#: What the facts say, and of which type.
FIELDS: dict[str, type] = {
    "task": str,
    "perturbation": str,
    "control": str,
    "kind": str,
    "use_rep": str,
    "checksum": str,
    "genes": list,
    "features": str,
    "names": list,
    "columns": list,
    "dose": list,
}


class PerturbationHead(KeptHead):
    """A fitted head that predicts treated profiles from controls and what is known of a perturbation.

    Parameters
    ----------
    facts
        Label, control, representation and its model, genes, perturbations and their features, as plain values.
    arrays
        Its weights, and the features of the perturbations that it was fitted to.
    """

    def __post_init__(self) -> None:
        _check_facts(self.facts)
        _check_arrays(self.facts, self.arrays)

    @property
    def _features(self) -> Features:
        """What it knows of the perturbations that it was fitted to."""
        facts = self.facts
        return Features(facts["features"], facts["names"], facts["columns"], self.arrays["table"])

    def predict(
        self,
        adata: AnnData,
        perturbation: str,
        *,
        features: Known | None = None,
        dose: float | None = None,
        layer: str | None = None,
    ) -> pd.DataFrame:
        """Predict the treated profile of each of some controls.

        Parameters
        ----------
        adata
            Untreated samples, with the representation that the head was fitted to, made by the same model.
        perturbation
            One that the head was fitted to, or a name for another one.
        features
            Of another one, of the kind that the head was fitted to: its SMILES, its signed genes such as
            ``{"TP53": -1}``, or its row of the table.
        dose
            Amount, for a head that was fitted to doses.
        layer
            Where ln(TPM+1) is; ``None`` reads ``X``.

        Returns
        -------
        ln(TPM+1) of the treated samples, one row per sample of ``adata`` and one column per gene of the head, float32;
        ``NaN`` where the control is missing.

        Raises
        ------
        KeyError
            If the representation, a gene, or what is known of the perturbation is not there.
        ValueError
            If the representation comes from another model, or the dose is absent, superfluous or not positive.
        TypeError
            If features are of another kind.
        """
        check_anndata(adata)
        row = self._features.encode(perturbation, features)
        level = self._level(dose)
        control = head_matrix(adata, layer, self.facts).astype(np.float64)
        inputs = self._inputs(adata) if self.facts["use_rep"] else control
        n = len(control)
        doses = None if level is None else np.full((n, 1), level)
        change = forward_response(self.arrays, design(inputs, np.tile(row, (n, 1)), doses))
        return pd.DataFrame(
            treated(control, change).astype(np.float32), index=adata.obs_names, columns=pd.Index(self.facts["genes"])
        )

    def _level(self, dose: float | None) -> float | None:
        """Return the dose as the model reads it."""
        known = self.facts["dose"]
        if (dose is None) != (not known):
            text = "needs dose=, in the unit that it was fitted to" if known else "was fitted without doses"
            message = f"dose is {dose}; the head {text}"
            raise ValueError(message)
        if dose is None:
            return None
        if not (np.isfinite(dose) and dose > 0):
            message = f"dose is {dose}; pass a positive number"
            raise ValueError(message)
        return float(Dose(*known)(np.array([dose]))[0, 0])

    def _inputs(self, adata: AnnData) -> NDArray[np.float64]:
        use_rep = self.facts["use_rep"]
        found = head_matrix(adata, None, {**self.facts, "genes": []}).astype(np.float64)
        width = _width(self.facts, self.arrays)
        if found.shape[1] != width:
            message = f"adata.obsm[{use_rep!r}] has {found.shape[1]} columns and the head reads {width}"
            raise ValueError(message)
        return found


def treated(control: NDArray[np.float64], change: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add a change to a profile; no ln(TPM+1) is below zero."""
    return np.maximum(control + change, 0.0)


def _check_facts(facts: dict[str, Any]) -> None:
    wrong = [name for name, kind in FIELDS.items() if not isinstance(facts.get(name), kind)]
    if wrong or set(facts) != set(FIELDS):
        message = (
            f"the facts of such a head are {sorted(FIELDS)}; {wrong or sorted(set(facts) ^ set(FIELDS))} do not fit"
        )
        raise ValueError(message)
    plain = all(isinstance(name, str) for field in ("genes", "names", "columns") for name in facts[field])
    dose = facts["dose"]
    numbers = len(dose) in (0, 2) and all(isinstance(value, float) for value in dose) and (not dose or dose[1] > 0)
    known = facts["task"] == TASK and facts["kind"] in HEADS and facts["features"] in KINDS
    if not (plain and numbers and known):
        message = (
            f"no head of {TASK!r} has the task {facts['task']!r}, the kind {facts['kind']!r}, {facts['features']!r} "
            f"features and the dose {dose}"
        )
        raise ValueError(message)


def _width(facts: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> int:
    """Return the number of inputs that describe the control."""
    n_features = len(facts["columns"])
    return len(arrays["shift"]) - (2 * n_features + 1 if facts["dose"] else n_features)


def _check_arrays(facts: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    layers = sorted(name for name in arrays if name.startswith("coef"))
    named = {"table", "shift", "scale", "mean", "components", *layers}
    named |= {name.replace("coef", "intercept") for name in layers}
    wanted = [f"coef{i}" for i in range(len(layers))]
    if set(arrays) != named or layers != wanted or not layers or (facts["kind"] == "linear") != (len(layers) == 1):
        message = f"a head of the kind {facts['kind']!r} cannot consist of the arrays {sorted(arrays)}"
        raise ValueError(message)
    genes, inputs = len(facts["genes"]), arrays["shift"].size
    sizes = [inputs, *(arrays[f"intercept{i}"].size for i in range(len(layers)))]
    shapes: dict[str, tuple[int, ...]] = {
        "table": (len(facts["names"]), len(facts["columns"])),
        "shift": (inputs,),
        "scale": (inputs,),
        "mean": (genes,),
        "components": (sizes[-1], genes),
    }
    for i in range(len(layers)):
        shapes |= {f"coef{i}": (sizes[i + 1], sizes[i]), f"intercept{i}": (sizes[i + 1],)}
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
            message = f"the array {name!r} is {array.dtype} {array.shape}; expected finite float64 of the shape {shape}"
            raise ValueError(message)
    width = _width(facts, arrays)
    if not (arrays["scale"] > 0).all() or width < 1 or (not facts["use_rep"] and width != genes):
        message = f"the head reads {width} numbers of a control with {genes} genes, or divides by none above zero"
        raise ValueError(message)
