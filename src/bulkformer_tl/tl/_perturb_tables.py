"""Effects of perturbations as a tidy table, with their statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl.tl._screen import false_discovery_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bulkformer_tl.tl._perturb_sets import Perturbation

    Numbers = NDArray[np.float64]

#: Perturbations that a mixture is fitted to at least.
LEAST_FOR_MIXTURE = 20
#: Relative differences that networks in single precision do not resolve.
PRECISION = 1e-5
#: Coverage of the intervals.
LEVEL = 0.95


def effect_table(
    perturbations: Sequence[Perturbation],
    values: Numbers,
    expected: Numbers,
    estimates: Numbers | None,
    null: tuple[Numbers, list[NDArray[np.intp]]] | None,
    *,
    signed: bool,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Describe one output of one group of samples.

    Parameters
    ----------
    perturbations
        What was perturbed, P of them.
    values, expected
        Effects and those of combinations without interaction, (N, P).
    estimates
        Of the screen, (N, P), or ``None``.
    null
        Effects of M others, (N, M), and for each perturbation which of them to compare it with; or ``None``.
    signed
        Whether effects have a sign. Those that do not are tested for being larger than the null.
    rng
        Starts the mixture.

    Returns
    -------
    One row for each perturbation, in their order.
    """
    mean, low, high, count = interval(values)
    table = pd.DataFrame(
        {
            "perturbation": [item.name for item in perturbations],
            "kind": [item.kind for item in perturbations],
            "n_genes": [len(item.genes) for item in perturbations],
            "n": count,
            "effect": mean,
            "low": low,
            "high": high,
        }
    )
    if estimates is not None:
        table["first_order"] = interval(estimates)[0]
    if null is not None:
        table = table.assign(**_against_null(values, *null, signed=signed))
        table["fdr"] = false_discovery_rate(table["p"].to_numpy())
    if np.isfinite(mean).sum() >= LEAST_FOR_MIXTURE:
        table["impact"] = impact(mean, rng)
    combined = table["kind"].to_numpy() == "combination"
    if combined.any():
        table = table.assign(**_synergy(values, expected, combined))
    return table


def interval(values: Numbers) -> tuple[Numbers, Numbers, Numbers, NDArray[np.int64]]:
    """Return mean, Student's interval and number of the finite values of each column of (N, P), each (P,)."""
    from scipy.stats import t

    known = np.isfinite(values)
    count = known.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, values, 0.0).sum(axis=0) / count
        spread = np.sqrt(np.where(known, np.square(values - mean), 0.0).sum(axis=0) / (count - 1))
        half = t.ppf((1 + LEVEL) / 2, np.maximum(count - 1, 1)) * spread / np.sqrt(count)
    half[count < 2] = np.nan
    return mean, mean - half, mean + half, count.astype(np.int64)


def _against_null(
    values: Numbers, others: Numbers, chosen: list[NDArray[np.intp]], *, signed: bool
) -> dict[str, Numbers]:
    """Compare each perturbation with its null by the rank-sum test; those with the same null at once."""
    found = {name: np.full(values.shape[1], np.nan) for name in ("null", "auc", "p")}
    same: dict[tuple[bytes, bytes], list[int]] = {}
    for position, members in enumerate(chosen):
        known = np.isfinite(values[:, position])
        if known.any() and len(members):
            same.setdefault((members.tobytes(), known.tobytes()), []).append(position)
    for positions in same.values():
        rows = np.isfinite(values[:, positions[0]])
        null = others[np.ix_(rows, chosen[positions[0]])].ravel()
        null = null[np.isfinite(null)]
        if len(null):
            own = values[np.ix_(rows, positions)]
            found["null"][positions] = null.mean()
            found["auc"][positions], found["p"][positions] = _rank_sum(own, null, signed=signed)
    return found


def _rank_sum(own: Numbers, null: Numbers, *, signed: bool) -> tuple[Numbers, Numbers]:
    """Return, for each column of (n, k), the share of pairs in which it exceeds the null, and the p-value."""
    from scipy.stats import mannwhitneyu

    alternative = "two-sided" if signed else "greater"
    tested: Any = mannwhitneyu(own, null[:, None], axis=0, method="asymptotic", alternative=alternative)
    # where all values are equal there is nothing to tell
    p = np.where(np.isnan(tested.pvalue), 1.0, tested.pvalue)
    return tested.statistic / (len(own) * len(null)), p


def impact(mean: Numbers, rng: np.random.Generator) -> Numbers:
    """Return how likely each perturbation belongs to the upper of two components of log10 |effect|, (P,)."""
    from sklearn.mixture import GaussianMixture

    found, known = np.full(len(mean), np.nan), np.isfinite(mean)
    size = np.abs(mean[known])
    if not size.any():
        return found
    logs = np.log10(np.maximum(size, size[size > 0].min()))[:, None]
    # equal effects have no components
    if np.ptp(logs) < PRECISION:
        return found
    mixture = GaussianMixture(2, random_state=int(rng.integers(2**31)), n_init=3).fit(logs)
    found[known] = mixture.predict_proba(logs)[:, int(np.argmax(mixture.means_))]
    return found


def _synergy(values: Numbers, expected: Numbers, combined: NDArray[np.bool_]) -> dict[str, Numbers]:
    """Compare combinations with what their genes do alone, added up, in the same samples."""
    from scipy.stats import wilcoxon

    beyond = values - expected
    # what single precision leaves of two equal numbers is no synergy
    beyond[np.abs(beyond) <= PRECISION * np.maximum(np.abs(values), np.abs(expected))] = 0.0
    found = {"expected": interval(expected)[0]}
    found |= dict(zip(("synergy", "synergy_low", "synergy_high"), interval(beyond)[:3], strict=True))
    p = np.full(values.shape[1], np.nan)
    for position in np.flatnonzero(combined):
        own = beyond[np.isfinite(beyond[:, position]), position]
        if len(own) > 1:
            p[position] = wilcoxon(own).pvalue if own.any() else 1.0
    return found | {"synergy_p": p, "synergy_fdr": false_discovery_rate(p)}
