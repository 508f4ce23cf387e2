"""Fitted heads: kept as arrays in ``uns``, predicting from them, checked whenever they are read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, get_params, is_mudata
from bulkformer_tl._kept_files import KeptHead, of_entry
from bulkformer_tl.metrics._temperature import sharpen
from bulkformer_tl.tl._extract import KEPT, check_arrays, forward
from bulkformer_tl.tl._head_input import head_matrix
from bulkformer_tl.tl._matrix_head import TASK as MATRIX
from bulkformer_tl.tl._matrix_head import MatrixHead
from bulkformer_tl.tl._mudata import as_anndata
from bulkformer_tl.tl._pair_heads import TASKS as PAIR_TASKS
from bulkformer_tl.tl._pair_heads import PairHead
from bulkformer_tl.tl._patients import RISK_GROUPS, read_strata
from bulkformer_tl.tl._perturbation_head import TASK as PERTURBATION
from bulkformer_tl.tl._perturbation_head import PerturbationHead
from bulkformer_tl.train import Adapter

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

#: What the facts say, and of which type.
FIELDS: dict[str, type | tuple[type, ...]] = {
    "task": str,
    "label": str,
    "kind": str,
    "link": str,
    "use_rep": str,
    "checksum": str,
    "classes": list,
    "genes": list,
    "calibration": (int, float),
}
#: What :func:`bulkformer_tl.tl.finetune` notes.
FINETUNE = "finetune"
TASKS = ("classification", "regression", "survival")
#: What those of a survival head say beside: the column of strata, empty if there are none, and their names.
OF_SURVIVAL: dict[str, type | tuple[type, ...]] = {"strata": str, "levels": list}


class Head(KeptHead):
    """A fitted head that predicts a label from a representation.

    Parameters
    ----------
    facts
        Label, task, classes, representation and its model, kind of head and calibration, as plain values.
    arrays
        Its weights.
    """

    def __post_init__(self) -> None:
        _check_facts(self.facts)
        n_classes, genes = len(self.facts["classes"]), self.facts["genes"]
        n_features = len(self.arrays.get("fill", ()))
        n_strata = len(self.facts.get("levels", ()))
        check_arrays(self.facts["kind"], self.arrays, n_features, n_classes, n_strata=n_strata)
        if genes and len(genes) != n_features:
            message = f"the head names {len(genes)} genes and weighs {n_features}"
            raise ValueError(message)

    def predict(self, adata: AnnData, *, layer: str | None = None) -> pd.DataFrame:
        """Predict the label of samples.

        Parameters
        ----------
        adata
            Samples with the representation that the head was fitted to, made by the same model.
        layer
            Where expression is, for a head on expression itself; ``None`` reads ``X``.

        Returns
        -------
        One row per sample. Classification: ``prediction`` and a column of calibrated probabilities per class.
        Regression: ``prediction``, and ``low`` and ``high`` of its interval. Survival: ``risk``, the log hazard
        relative to the average training sample, and ``group``, ``"high"`` above the median of the training samples.

        Raises
        ------
        KeyError
            If the representation, a gene or the column of strata is not there.
        ValueError
            If it has another width or comes from another model, or a stratum is not known.
        """
        adata = as_anndata(adata, {self.facts["use_rep"]}) if is_mudata(adata) else adata
        check_anndata(adata)
        found = self.predict_array(head_matrix(adata, layer, self.facts))
        if self.facts["task"] == "regression":
            width = self.facts["calibration"]
            numbers = {"prediction": found, "low": found - width, "high": found + width}
            return pd.DataFrame(numbers, index=adata.obs_names)
        if self.facts["task"] == "survival":
            risk, high = self.place(found, self._strata(adata))
            groups = pd.Categorical.from_codes(high.astype(int).tolist(), categories=pd.Index(RISK_GROUPS))
            return pd.DataFrame({"risk": risk, "group": groups}, index=adata.obs_names)
        classes = self.facts["classes"]
        shares = pd.DataFrame(found, index=adata.obs_names, columns=[str(name) for name in classes])
        chosen = pd.Categorical.from_codes(found.argmax(axis=1).tolist(), categories=pd.Index(classes))
        return pd.concat([pd.Series(chosen, index=adata.obs_names, name="prediction"), shares], axis=1)

    def predict_array(self, matrix: NDArray[np.floating]) -> NDArray[np.float64]:
        """Predict from the representation itself.

        Parameters
        ----------
        matrix
            Shape (N, D).

        Returns
        -------
        Calibrated probabilities (N, K), or numbers (N,); of survival, log hazards that strata add to.

        Raises
        ------
        ValueError
            If it has another width.
        """
        n_features = len(self.arrays["fill"])
        if np.ndim(matrix) != 2 or np.shape(matrix)[1] != n_features:
            message = f"the head reads {n_features} columns and the matrix has the shape {np.shape(matrix)}"
            raise ValueError(message)
        found = forward(self.facts["kind"], self.facts["link"], self.arrays, np.asarray(matrix))
        if self.facts["task"] == "survival":
            return np.asarray(found * self.facts["calibration"])
        return found if self.facts["task"] == "regression" else sharpen(found, self.facts["calibration"])

    def place(
        self, log_hazard: NDArray[np.float64], strata: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Put log hazards of a survival head on the scale of all strata, and compare them with the median of their own.

        Parameters
        ----------
        log_hazard
            As of :meth:`predict_array`, shape (N,).
        strata
            Positions in the names of strata, shape (N,).

        Returns
        -------
        Risk, and whether it is above the median of the training samples of the stratum, each of shape (N,).
        """
        return log_hazard + self.arrays["offset"][strata], log_hazard > self.arrays["median"][strata]

    def _strata(self, adata: AnnData) -> NDArray[np.intp]:
        name, levels = self.facts["strata"], self.facts["levels"]
        if not name:
            return np.zeros(adata.n_obs, dtype=np.intp)
        found = read_strata(adata, name)
        codes = pd.Index(levels).get_indexer(pd.Index(found))
        if (codes < 0).any():
            message = f"adata.obs[{name!r}] holds {sorted(set(found[codes < 0]))}; the head knows {levels}"
            raise ValueError(message)
        return np.asarray(codes, dtype=np.intp)


def fitted_head(adata: AnnData, key: str) -> Head | MatrixHead | PairHead | PerturbationHead | Adapter:
    """Return the head that a task fitted to all training samples.

    Parameters
    ----------
    adata
        Samples after :func:`bulkformer_tl.tl.classify`, :func:`bulkformer_tl.tl.regress`,
        :func:`bulkformer_tl.tl.survival`, :func:`bulkformer_tl.tl.drug_response`,
        :func:`bulkformer_tl.tl.essentiality`, :func:`bulkformer_tl.tl.perturbation_response` or
        :func:`bulkformer_tl.tl.finetune`; also when read back from a file.
    key
        Name of the result, such as ``"classify_disease"``.

    Returns
    -------
    The head of the latest run under that name, fitted to all labelled samples (or to the reference): a :class:`Head`,
    a :class:`MatrixHead` of a matrix, a :class:`PairHead` of drugs or genes, a :class:`PerturbationHead`, or the
    :class:`~bulkformer_tl.train.Adapter` of an encoder.

    Raises
    ------
    KeyError
        If there is no such result.
    ValueError
        If the head was of a kind that is not kept.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> bf.tl.classify(adata, "tissue", use_rep=None, layer="log_tpm")
    >>> bf.tl.fitted_head(adata, "classify_tissue").save("tissue_head")
    >>> table = bf.tl.Head.load("tissue_head").predict(adata, layer="log_tpm")
    >>> table.shape == (adata.n_obs, 1 + adata.obs["tissue"].nunique())
    True
    """
    check_anndata(adata, or_mudata=True)
    params = get_params(adata, key)
    if params.get("task") == FINETUNE:
        return _adapter(adata, key)
    if params.get("task") not in (*TASKS, *PAIR_TASKS, MATRIX, PERTURBATION):
        message = f"adata.uns[{key!r}] is no result of bf.tl.classify, bf.tl.regress or bf.tl.survival; call one first"
        raise KeyError(message)
    entry: Any = adata.uns[key]
    if "head" not in entry:
        message = f"head={params['head']!r} is not kept, since it would hold its training samples; use one of {KEPT}"
        raise ValueError(message)
    kinds: dict[str, type[Head | MatrixHead | PairHead | PerturbationHead]] = {
        **dict.fromkeys(PAIR_TASKS, PairHead),
        MATRIX: MatrixHead,
        PERTURBATION: PerturbationHead,
    }
    return of_entry(kinds.get(params["task"], Head), entry["head"])


def _adapter(adata: AnnData, key: str) -> Adapter:
    entry: Any = adata.uns[key]
    if "adapter" not in entry:
        message = f"the adapter of {key!r} was written to a folder (output=); bf.train.Adapter.load(folder) reads it"
        raise ValueError(message)
    return of_entry(Adapter, entry["adapter"])


def _check_facts(facts: dict[str, Any]) -> None:
    fields = FIELDS | (OF_SURVIVAL if facts.get("task") == "survival" else {})
    wrong = [name for name, kind in fields.items() if not isinstance(facts.get(name), kind)]
    if wrong or set(facts) != set(fields):
        message = f"the facts of a head are {sorted(fields)}; {wrong or sorted(set(facts) ^ set(fields))} do not fit"
        raise ValueError(message)
    task, classes, calibration = facts["task"], facts["classes"], float(facts["calibration"])
    plain = all(isinstance(name, str | int | float | bool) for name in classes)
    counts = len(classes) >= 2 if task == "classification" else task in TASKS and not classes
    known = plain and counts and len(set(classes)) == len(classes)
    positive = calibration >= 0 if task == "regression" else calibration > 0
    levels = facts.get("levels", [""])
    known &= bool(levels) and all(isinstance(name, str) for name in levels) and len(set(levels)) == len(levels)
    if not known or not positive or facts["link"] not in _links(facts["kind"], len(classes)):
        message = f"no {facts['kind']!r} head has the task {task!r}, {len(classes)} classes, the link "
        raise ValueError(f"{message}{facts['link']!r} and the calibration {calibration}")


def _links(kind: str, n_classes: int) -> tuple[str, ...]:
    """Return what may turn the output of a head into probabilities."""
    if kind == "forest":
        return ("mean",)
    if n_classes < 3:
        return ("sigmoid",) if n_classes else ("identity",)
    return ("softmax", "one_versus_rest")
