"""What a survival task writes beside the risk: scores, curves, tests and hazard ratios."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.metrics import compare_survival, concordance_by_stratum, log_rank, survival_curves
from bulkformer_tl.tl._hazard_ratios import hazard_ratios
from bulkformer_tl.tl._judge import _better
from bulkformer_tl.tl._patients import RISK_GROUPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from bulkformer_tl.tl._patients import Patients
    from bulkformer_tl.tl._probe import Plan
    from bulkformer_tl.tl._prognosis import Prognosis

    Numbers = NDArray[np.float64]


def tabulate_survival(
    plan: Plan, patients: Patients, found: Mapping[str, Prognosis], times: Numbers, baselines: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score risks and compare them with the baselines, as :func:`bulkformer_tl.metrics.compare_survival` does."""
    tested = np.flatnonzero(plan.folds >= 0)
    scores, differences = compare_survival(
        patients.time[tested],
        patients.event[tested],
        {name: prognosis.risk[tested] for name, prognosis in found.items()},
        survival={name: prognosis.survival[tested] for name, prognosis in found.items()},
        times=times,
        strata=patients.codes[tested] if len(patients.strata) > 1 else None,
        folds=plan.folds[tested],
        groups=None if plan.groups is None else plan.groups[tested],
        baselines=baselines,
        protocol=plan.protocol,
    )
    differences["better"] = _better(differences)
    return scores, differences


def describe_groups(
    plan: Plan, patients: Patients, high: NDArray[np.bool_], risk: Numbers
) -> dict[str, pd.DataFrame | dict[str, Any]]:
    """Draw the curves of the two risk groups, test and measure how far they are apart, and score each stratum.

    Parameters
    ----------
    plan
        How samples are split; those that are scored are described.
    patients
        Outcomes.
    high
        Whether each sample is in the high risk group, shape (N,).
    risk
        Out-of-fold risk, shape (N,).

    Returns
    -------
    Entries of ``uns``; groups of which one is empty are not tested.
    """
    rows = np.flatnonzero((plan.folds >= 0) & ~np.isnan(patients.time))
    time, event, codes = patients.time[rows], patients.event[rows], patients.codes[rows]
    several = len(patients.strata) > 1
    names = np.array(RISK_GROUPS)[high[rows].astype(int)]
    level = plan.protocol.level
    entries: dict[str, pd.DataFrame | dict[str, Any]] = {
        "curves": survival_curves(time, event, names, level=level),
    }
    if len(set(names)) == len(RISK_GROUPS):
        statistic, p = log_rank(time, event, names, strata=codes if several else None)
        entries["log_rank"] = {"statistic": statistic, "p": p, "stratified": several}
    table = hazard_ratios(
        patients, rows, high, risk, covariates=plan.samples.covariates, groups=plan.groups, level=level
    )
    if table is not None:
        entries["hazard_ratios"] = table
    if several:
        strata = np.array(patients.strata)[codes]
        entries["strata"] = concordance_by_stratum(time, event, risk[rows], strata, folds=plan.folds[rows])
    return entries
