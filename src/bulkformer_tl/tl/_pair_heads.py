"""Fitted heads of pairs, such as line and drug: for new lines, and for new drugs or genes by their features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from bulkformer_tl._anndata import check_anndata, is_mudata
from bulkformer_tl._kept_files import KeptHead
from bulkformer_tl.tl._head_input import head_matrix
from bulkformer_tl.tl._mudata import as_anndata
from bulkformer_tl.tl._pair_features import FINGERPRINT, read_features
from bulkformer_tl.tl._pair_model import PairModel, check_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

#: What the facts say, and of which type.
FIELDS: dict[str, type] = {
    "task": str,
    "kind": str,
    "classes": bool,
    "columns": list,
    "features": list,
    "use_rep": str,
    "checksum": str,
    "genes": list,
}
#: Tasks, and what their columns are.
TASKS = {"drug_response": "drug", "essentiality": "gene"}


class PairHead(KeptHead):
    """A fitted head that predicts the response of lines to drugs, or how much they depend on genes.

    Parameters
    ----------
    facts
        Task, kind of head, names of the columns and of their features, representation and its model, as plain values.
    arrays
        Its weights.
    """

    def __post_init__(self) -> None:
        facts = self.facts
        wrong = [name for name, kind in FIELDS.items() if not isinstance(facts.get(name), kind)]
        if wrong or set(facts) != set(FIELDS) or facts["task"] not in TASKS:
            message = (
                f"the facts of such a head are {sorted(FIELDS)}; {wrong or sorted(set(facts) ^ set(FIELDS))} do not fit"
            )
            raise ValueError(message)
        check_model(facts["kind"], self.arrays, len(facts["columns"]))
        counts = {"genes": len(self.arrays["row_fill"]), "features": len(self.arrays.get("column_fill", ()))}
        for name, n in counts.items():
            hashed = name == "features" and facts[name][:1] == [FINGERPRINT]
            if facts[name] and not hashed and len(facts[name]) != n:
                message = f"the head names {len(facts[name])} {name} and weighs {n}"
                raise ValueError(message)

    def predict(
        self,
        adata: AnnData,
        columns: Mapping[str, str] | pd.DataFrame | None = None,
        *,
        layer: str | None = None,
    ) -> pd.DataFrame:
        """Predict all pairs of some samples and of drugs or genes.

        Parameters
        ----------
        adata
            Samples with the representation that the head was fitted to, made by the same model.
        columns
            Other drugs or genes, by what the head was fitted to: SMILES by name, or a data frame of their features.
            They are predicted from that alone. ``None`` takes those that the head was fitted to.
        layer
            Where expression is, for a head on expression itself; ``None`` reads ``X``.

        Returns
        -------
        Samples by drugs or genes, in the unit of the response; for classes a score, about 0 for no and 1 for yes.

        Raises
        ------
        KeyError
            If the representation, a gene or a feature is not there.
        ValueError
            If it has another width, comes from another model, or the head knows nothing of features.
        """
        adata = as_anndata(adata, {self.facts["use_rep"]}) if is_mudata(adata) else adata
        check_anndata(adata)
        model = PairModel(self.facts["kind"], self.arrays)
        matrix = head_matrix(adata, layer, self.facts)
        if matrix.shape[1] != len(self.arrays["row_fill"]):
            message = (
                f"the head reads {len(self.arrays['row_fill'])} columns and the matrix has the shape {matrix.shape}"
            )
            raise ValueError(message)
        if columns is None:
            return pd.DataFrame(model.predict(matrix), index=adata.obs_names, columns=self.facts["columns"])
        kind = TASKS[self.facts["task"]]
        if "map" not in self.arrays:
            message = (
                f"the head was fitted without features of {kind}s and knows its own {kind}s alone; fit it with them"
            )
            raise ValueError(message)
        features = read_features(columns, kind=kind, names=self.facts["features"])
        found = model.predict(matrix, features.matrix)
        return pd.DataFrame(found, index=adata.obs_names, columns=features.columns)
