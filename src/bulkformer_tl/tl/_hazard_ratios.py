"""Hazard ratios of the out-of-fold risk and of covariates, each alone and all beside each other."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._optional import require

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bulkformer_tl.tl._patients import Patients

logger = logging.getLogger(__name__)

COLUMNS = ["term", "model", "hazard_ratio", "low", "high", "p", "p_proportional", "n", "events"]
HIGH, RISK = "high risk group", "risk (per SD)"
#: Levels of a covariate with fewer samples are left in the reference level.
LEAST = 5
#: A standard error of a log hazard ratio beyond this says that one side has no event and the ratio no bound.
UNBOUNDED = 10.0


def hazard_ratios(
    patients: Patients,
    rows: NDArray[np.intp],
    high: NDArray[np.bool_],
    risk: NDArray[np.float64],
    *,
    covariates: pd.DataFrame | None,
    groups: NDArray[np.intp] | None,
    level: float,
) -> pd.DataFrame | None:
    """Fit Cox models without a penalty, stratified as the task is.

    Parameters
    ----------
    patients
        Outcomes.
    rows
        Positions of the samples that are scored.
    high
        Whether each sample is in the high risk group, shape (N,).
    risk
        Out-of-fold risk, shape (N,).
    covariates
        N rows, or ``None``.
    groups
        What is kept together, shape (N,); where groups have several samples, errors are robust to it.
    level
        Of the intervals.

    Returns
    -------
    One row per term and model; ``NaN`` where the likelihood has no maximum. ``None`` without lifelines; a log message
    says what to install.
    """
    try:
        require("lifelines", extra="survival", purpose="hazard ratios with intervals")
    except ImportError as error:
        logger.warning("%s; there will be no hazard ratios", error)
        return None
    codes = patients.codes[rows]
    spread = float(np.std(_within(pd.DataFrame(risk[rows]), codes).to_numpy())) or 1.0
    marks = pd.DataFrame({HIGH: high[rows].astype(float), RISK: risk[rows] / spread})
    frame = pd.DataFrame({"time": patients.time[rows], "event": patients.event[rows], "stratum": codes})
    if groups is not None and len(np.unique(groups[rows])) < len(rows):
        frame["cluster"] = groups[rows]
    found = [_fit(frame, marks[[mark]], "alone", level) for mark in marks]
    designs = {} if covariates is None else _designs(covariates.iloc[rows].reset_index(drop=True), codes)
    if designs:
        found += [_fit(frame, design, "alone", level) for design in designs.values()]
        others = pd.concat(designs.values(), axis=1)
        beside = {mark: _fit(frame, pd.concat([marks[[mark]], others], axis=1), "adjusted", level) for mark in marks}
        # covariates are told once, beside the group
        found += [beside[HIGH], beside[RISK][beside[RISK]["term"] == RISK]]
    return pd.concat(found, ignore_index=True)


def _within(values: pd.DataFrame, codes: NDArray[np.intp]) -> pd.DataFrame:
    """Subtract the mean of each stratum."""
    return values - values.groupby(codes).transform("mean")


def _designs(covariates: pd.DataFrame, codes: NDArray[np.intp]) -> dict[str, pd.DataFrame]:
    """Return the columns of each covariate: its numbers, or its levels against the most frequent one.

    What does not vary within strata cannot be told from them and is left out.
    """
    found = {}
    for name in covariates:
        values = covariates[name]
        if pd.api.types.is_numeric_dtype(values):
            design = pd.DataFrame({str(name): values.astype(float)})
        else:
            counts = values.value_counts()
            usual = counts.index[0]
            levels = sorted(level for level in counts.index[1:] if counts[level] >= LEAST)
            design = pd.DataFrame(
                {f"{name}: {level} (vs {usual})": (values == level).astype(float) for level in levels}
            )
        design = design.loc[:, _within(design, codes).abs().max() > 1e-9]
        if design.shape[1]:
            found[str(name)] = design
    return found


def _fit(outcome: pd.DataFrame, design: pd.DataFrame, model: str, level: float) -> pd.DataFrame:
    """Fit one model to the samples whose covariates are known."""
    frame = pd.concat([outcome, design], axis=1).dropna()
    n, events = len(frame), int(frame["event"].sum())
    table = pd.DataFrame({"term": list(design.columns), "model": model, "n": n, "events": events})
    for name, values in _estimates(frame, list(design.columns), level).items():
        table[name] = values
    return table[COLUMNS]


def _estimates(frame: pd.DataFrame, terms: list[str], level: float) -> dict[str, Any]:
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError
    from lifelines.statistics import proportional_hazard_test

    unknown = np.full(len(terms), np.nan)
    nothing = dict.fromkeys(("hazard_ratio", "low", "high", "p", "p_proportional"), unknown)
    if (frame[terms].nunique() < 2).any() or not frame["event"].any():
        return nothing
    cluster = "cluster" if "cluster" in frame else None
    with warnings.catch_warnings():
        # lifelines warns of what shows in the table: levels with few events, and errors without a bound
        warnings.simplefilter("ignore")
        try:
            fitter = CoxPHFitter(alpha=1 - level)
            fitter.fit(frame, "time", "event", strata=["stratum"], cluster_col=cluster)
            p = proportional_hazard_test(fitter, frame, time_transform="rank").summary["p"]
        except (ConvergenceError, np.linalg.LinAlgError, ValueError) as error:
            logger.info("no hazard ratio of %s: %s", terms, str(error).splitlines()[0])
            return nothing
    found = fitter.summary.loc[terms]
    known = found["se(coef)"].to_numpy() < UNBOUNDED
    low, high = (column for column in found if str(column).startswith("exp(coef) "))
    estimates = {
        "hazard_ratio": found["exp(coef)"],
        "low": found[low],
        "high": found[high],
        "p": found["p"],
        "p_proportional": p.loc[terms],
    }
    return {name: np.where(known, values.to_numpy(dtype=np.float64), np.nan) for name, values in estimates.items()}
