"""Scores of predicted responses, each within a perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl.metrics import pearson, rmse, spearman

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bulkformer_tl.tl._perturbation_pairs import Pairs

    Numbers = NDArray[np.float64]

#: Genes that change most, of which responses are scored by themselves.
N_TOP = 20
SUFFIX = f"_top{N_TOP}"
OVER_ALL = ("pearson_delta", "spearman_delta", "pearson", "spearman", "rmse")
METRICS = (*OVER_ALL, *(f"{metric}{SUFFIX}" for metric in OVER_ALL))


def conditions(pairs: Pairs) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """Group pairs of the same perturbation, dose and held-out unit.

    Returns
    -------
    A row per condition: codes of ``perturbation`` and ``unit``, ``dose`` (0 without) and ``n`` pairs; and the condition
    of each pair, shape (M,), -1 for those of a reference.
    """
    doses = np.zeros(len(pairs.rows)) if pairs.doses is None else pairs.doses
    own = pairs.own
    table = pd.DataFrame({"perturbation": pairs.codes[own], "dose": doses[own], "unit": pairs.units[own]})
    grouped = table.groupby(["perturbation", "dose", "unit"], sort=True)
    found = grouped.size().rename("n").reset_index()
    return found, np.concatenate([np.full(pairs.n_reference, -1), grouped.ngroup()]).astype(np.intp)


def score_responses(profiles: tuple[Numbers, Numbers], changes: tuple[Numbers, Numbers]) -> dict[str, Numbers]:
    """Score profiles and changes of conditions, over all genes and over those whose true change is largest.

    Parameters
    ----------
    profiles
        True and predicted mean profiles of Q conditions, ln(TPM+1), each (Q, G).
    changes
        True and predicted mean changes, each (Q, G).

    Returns
    -------
    Name and value of each score, shape (Q,); ``NaN`` where a constant leaves it undefined.
    """
    top = np.argsort(-np.abs(changes[0]), axis=1, kind="stable")[:, :N_TOP]
    found: dict[str, Numbers] = {}
    for suffix, pick in (("", slice(None)), (SUFFIX, top)):
        true, predicted = (_pick(matrix, pick) for matrix in profiles)
        moved, expected = (_pick(matrix, pick) for matrix in changes)
        found |= {
            f"pearson_delta{suffix}": _defined(pearson, moved, expected),
            f"spearman_delta{suffix}": _defined(spearman, moved, expected),
            f"pearson{suffix}": _defined(pearson, true, predicted),
            f"spearman{suffix}": _defined(spearman, true, predicted),
            f"rmse{suffix}": rmse(true, predicted, axis="per_sample"),
        }
    return {metric: found[metric] for metric in METRICS}


def _defined(score: Any, truth: Numbers, predicted: Numbers) -> Numbers:
    """Correlate within rows; ``NaN`` where the truth of all of them is constant, as without any change."""
    if not np.ptp(truth, axis=1).any():
        return np.full(len(truth), np.nan)
    found: Numbers = score(truth, predicted, axis="per_sample")
    return found


def _pick(matrix: Numbers, columns: slice | NDArray[np.intp]) -> Numbers:
    return matrix if isinstance(columns, slice) else np.take_along_axis(matrix, columns, axis=1)


def average(values: Numbers, codes: NDArray[np.intp]) -> Numbers:
    """Average rows with the same code, codes ascending."""
    return np.stack([values[codes == code].mean(axis=0) for code in np.unique(codes)])


def over_units(table: pd.DataFrame, scores: Mapping[str, Mapping[str, Numbers]]) -> dict[str, dict[str, Numbers]]:
    """Average the scores of conditions within each held-out unit, undefined ones left out."""
    unit = table["unit"].to_numpy()
    return {
        name: {
            metric: np.asarray(pd.Series(values).groupby(unit, sort=True).mean(), dtype=np.float64)
            for metric, values in found.items()
        }
        for name, found in scores.items()
    }
