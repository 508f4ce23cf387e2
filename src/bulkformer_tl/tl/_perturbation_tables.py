"""Tables, head and stored arrays of a judged response."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import get_params
from bulkformer_tl.metrics import add_rows
from bulkformer_tl.metrics._units import compare_units
from bulkformer_tl.tl._judge import OF_HEAD, _better, _corpus, merged
from bulkformer_tl.tl._perturbation_head import TASK, PerturbationHead
from bulkformer_tl.tl._perturbation_scores import over_units
from bulkformer_tl.tl._samples import embedding_params

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._keys import ResponseKeys
    from bulkformer_tl.tl._perturbation_judge import Responses, Study
    from bulkformer_tl.tl._perturbation_model import Arrays
    from bulkformer_tl.tl._perturbation_pairs import Pairs

AXIS = "per_perturbation"


def describe(adata: AnnData, study: Study, use_rep: str | None, n_conditions: int) -> dict[str, Any]:
    """Return what is known of the model, the numbers of everything, and the protocol, as plain values."""
    pairs = study.pairs
    controls = [pairs.controls[i] for i in np.unique(pairs.control_of[pairs.own])]
    made = embedding_params(adata, use_rep)
    return {
        "model": str(made.get("model", "")),
        "checksum": str(made.get("checksum", "")),
        "pretraining_corpus": _corpus(made),
        "axis": AXIS,
        "n": len(pairs.rows[pairs.own]),
        "n_perturbations": len(np.unique(pairs.codes[pairs.own])),
        "n_conditions": n_conditions,
        "n_held_out": len(np.unique(pairs.units[pairs.own])),
        "n_controls": len(np.unique(np.concatenate(controls))),
        "n_control_sets": len(controls),
        "trained_on": "reference" if pairs.n_reference else "the other folds",
        "n_reference": len(pairs.train) if pairs.n_reference else 0,
        "n_genes": len(study.profiles.genes),
        "n_sharing_one_control": _lifted(pairs),
        "features": study.features.kind,
        "protocol": study.protocol.params(),
    }


def _lifted(pairs: Pairs) -> int:
    """Count treated samples whose only control serves other held-out units too."""
    alone = pairs.shared & np.array([len(rows) == 1 for rows in pairs.controls])
    return int(alone[pairs.control_of].sum())


def mark_of(params: dict[str, Any], pairs: Pairs, features: NDArray[np.float64], folds: NDArray[np.intp]) -> str:
    """Hash what has to agree before rows of two runs may stand in one table."""
    same = ["perturbation", "control", "match", "dose", "layer", "groups", "features", "n_genes", "baselines"]
    same += ["covariates"]
    protocol = {name: value for name, value in params["protocol"].items() if name not in OF_HEAD}
    plain = {**{name: params[name] for name in same}, "protocol": protocol}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for array in (pairs.rows, pairs.codes, pairs.control_of, features, folds):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def tabulate_responses(
    study: Study, table: pd.DataFrame, found: Responses, params: dict[str, Any]
) -> dict[str, pd.DataFrame]:
    """Return scores, differences, and the scores of each condition."""
    pairs, own = study.pairs, study.pairs.own
    first = np.unique(pairs.units[own], return_index=True)[1]
    scores, differences = compare_units(
        over_units(table, found.scores),
        axis=AXIS,
        folds=found.folds[own][first],
        n_samples=len(pairs.rows[own]),
        baselines=params["baselines"],
        protocol=study.protocol,
    )
    differences["better"] = _better(differences)
    plain = {"perturbation": np.array(pairs.names, dtype=object)[table["perturbation"]]}
    if params["dose"]:
        plain["dose"] = table["dose"].to_numpy()
    if params["groups"]:
        plain["held_out"] = np.array(pairs.unit_names, dtype=object)[table["unit"]]
    parts = [
        pd.DataFrame({"representation": name, **plain, "n": table["n"].to_numpy(), **values})
        for name, values in found.scores.items()
    ]
    return {
        "scores": scores,
        "differences": differences,
        "perturbations": pd.concat(parts, ignore_index=True),
    }


def merge_responses(adata: AnnData, key: str, mark: str, tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    kept: dict[str, pd.DataFrame] = merged(adata, key, mark, tables["scores"], tables["differences"])
    each = tables["perturbations"]
    if get_params(adata, key).get("fingerprint") == mark:
        each = add_rows(adata.uns[key]["perturbations"], each)
    return {**kept, "perturbations": each}


def response_head(study: Study, arrays: Arrays, params: dict[str, Any]) -> PerturbationHead:
    known, dose = study.features, study.dose
    facts = {
        "task": TASK,
        "perturbation": params["perturbation"],
        "control": params["control"],
        "kind": params["head"],
        "use_rep": params["use_rep"],
        "checksum": params["checksum"],
        "genes": study.profiles.genes,
        "features": known.kind,
        "names": known.names,
        "columns": known.columns,
        "dose": [] if dose is None else [dose.center, dose.scale],
    }
    return PerturbationHead(facts, {**arrays, "table": known.matrix})


def as_results(adata: AnnData, keys: ResponseKeys, study: Study, found: Responses) -> dict[str, Any]:
    """Put profiles and changes where their samples and genes are, ``NaN`` elsewhere."""
    columns = adata.var_names.get_indexer(pd.Index(study.profiles.genes))
    profiles = np.full(adata.shape, np.nan, dtype=np.float32)
    own = study.pairs.own
    profiles[np.ix_(study.pairs.rows[own] - study.pairs.offset, columns)] = found.predicted[own]
    results = {keys.profiles: profiles}
    for slot, changes in ((keys.predicted, found.expected), (keys.measured, found.measured)):
        results[slot] = np.full((adata.n_vars, len(changes)), np.nan, dtype=np.float32)
        results[slot][columns] = changes.T
    return results
