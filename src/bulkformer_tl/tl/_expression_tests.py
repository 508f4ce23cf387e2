"""Tests of a gene between two classes on ln(TPM+1): moderated t, Welch's t and ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl.metrics._linear_screen import linear_screen, moderate
from bulkformer_tl.tl._screen import Screen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bulkformer_tl.tl._screen import Found

    Numbers = NDArray[np.float64]

#: Values are natural logarithms, changes are told in doublings.
DOUBLING = float(np.log(2))
#: Of the intervals.
LEVEL = 0.95
CLASSES = ("n_case", "n_control", "mean_case", "mean_control")


def moderated_screen(case: NDArray[np.bool_], design: Numbers) -> Screen:
    """Test by a linear model and variances moderated across genes.

    Parameters
    ----------
    case
        Which rows are cases, shape (N,).
    design
        Covariates, shape (N, P).
    """

    def test(values: Numbers, rows: NDArray[np.intp]) -> Found:
        columns = np.column_stack([case[rows], np.ones(len(rows)), design[rows]]).astype(np.float64)
        coefficient, variance, factor, df = linear_screen(values, columns[:, [0, 1, *_varying(columns)]])
        found = _describe(values, case[rows])
        return found | {"effect": coefficient, "variance": variance, **_constant(values, factor=factor, df=df)}

    def finish(found: Found) -> pd.DataFrame:
        posterior, df = moderate(found["variance"], np.nan_to_num(found["df"]))
        return _t_table(found, np.sqrt(found["factor"] * posterior), df)

    return Screen((*CLASSES, "effect", "variance", "factor", "df"), test, finish)


def welch_screen(case: NDArray[np.bool_]) -> Screen:
    """Test by Welch's t, which lets variances of a gene differ between the classes."""

    def test(values: Numbers, rows: NDArray[np.intp]) -> Found:
        here = case[rows]
        found = _describe(values, here)
        if min(here.sum(), (~here).sum()) < 2:
            return found
        one, other = (values[part].var(axis=0, ddof=1) / part.sum() for part in (here, ~here))
        with np.errstate(invalid="ignore", divide="ignore"):
            df = (one + other) ** 2 / (one**2 / (here.sum() - 1) + other**2 / ((~here).sum() - 1))
        return found | {"effect": found["mean_case"] - found["mean_control"], "error": np.sqrt(one + other), "df": df}

    def finish(found: Found) -> pd.DataFrame:
        return _t_table(found, found["error"], found["df"])

    return Screen((*CLASSES, "effect", "error", "df"), test, finish)


def rank_screen(case: NDArray[np.bool_]) -> Screen:
    """Test by ranks (Mann and Whitney 1947), corrected for ties and continuity."""

    def test(values: Numbers, rows: NDArray[np.intp]) -> Found:
        from scipy.stats import mannwhitneyu

        here = case[rows]
        found = _describe(values, here)
        if not 0 < here.sum() < len(here):
            return found
        u, p = mannwhitneyu(values[here], values[~here], method="asymptotic", axis=0)
        return found | {"auroc": u / (here.sum() * (~here).sum()), "p": p}

    def finish(found: Found) -> pd.DataFrame:
        from scipy.stats import norm

        statistic = np.sign(found["auroc"] - 0.5) * norm.isf(found["p"] / 2)
        table = _start(found, found["mean_case"] - found["mean_control"])
        return pd.DataFrame(table | {"auroc": found["auroc"], "statistic": statistic, "p": found["p"]})

    return Screen((*CLASSES, "auroc", "p"), test, finish)


def _varying(columns: Numbers) -> list[int]:
    return [j for j in range(2, columns.shape[1]) if np.ptp(columns[:, j]) > 0]


def _constant(values: Numbers, **numbers: float) -> Found:
    return {name: np.full(values.shape[1], float(number)) for name, number in numbers.items()}


def _describe(values: Numbers, case: NDArray[np.bool_]) -> Found:
    unknown = np.full(values.shape[1], np.nan)
    return {
        **_constant(values, n_case=float(case.sum()), n_control=float((~case).sum())),
        "mean_case": values[case].mean(axis=0) if case.any() else unknown,
        "mean_control": values[~case].mean(axis=0) if not case.all() else unknown,
    }


def _start(found: Found, effect: Numbers) -> dict[str, Any]:
    counts = {name: np.nan_to_num(found[name]).astype(np.int64) for name in CLASSES[:2]}
    return counts | {name: found[name] for name in CLASSES[2:]} | {"log2_fold_change": effect / DOUBLING}


def _t_table(found: Found, error: Numbers, df: Numbers) -> pd.DataFrame:
    from scipy.stats import t

    effect = found["effect"]
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = np.where(error > 0, effect / error, np.nan)
        half = t.isf((1 - LEVEL) / 2, df) * error
        p = 2 * t.sf(np.abs(statistic), df)
    table = _start(found, effect)
    table |= {"low": (effect - half) / DOUBLING, "high": (effect + half) / DOUBLING, "statistic": statistic, "p": p}
    return pd.DataFrame(table)
