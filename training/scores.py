"""Scores of hidden entries with bootstrap intervals, and the tables they make."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bulkformer_tl.metrics import pearson, resample
from bulkformer_tl.metrics._tables import interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]

SCORES = ("r_sample", "r_gene", "r_global", "rmse", "coverage90")
KEYS = ["fold", "setting", "hidden", "method"]
#: Two-sided 90 % interval of the normal distribution, in standard deviations.
Z90 = 1.6449
#: A correlation per gene needs this many hidden entries.
LEAST = 10
N_BOOTSTRAP, LEVEL, BLOCK = 300, 0.95, 2000


def row_weights(files: NDArray[np.object_], seeds: NDArray[np.int64]) -> Doubles:
    """Return how often each row counts: once, then in resamples of whole files and of mask seeds, (1 + B, R)."""
    drawn = [resample(len(files), n_bootstrap=N_BOOTSTRAP, groups=part, rng=0) for part in (files, seeds)]
    return np.concatenate([np.ones((1, len(files))), drawn[0] * drawn[1]])


def draws(truth: Doubles, mean: Doubles, deviation: Doubles | None, weights: Doubles) -> dict[str, Doubles]:
    """Score predictions under many weights of the samples.

    Parameters
    ----------
    truth
        ln(TPM+1), (R, G), ``NaN`` at entries that are not scored.
    mean, deviation
        Predictions, (R, G).
    weights
        Shape (B, R).

    Returns
    -------
    Name of each score and its values, (B,): mean of Pearson's r within samples, mean of Pearson's r within genes that
    have 10 hidden entries, Pearson's r and root mean squared error over all entries, and the share of entries within
    90 % intervals. A constant prediction of entries that vary has the correlation 0.
    """
    known = ~np.isnan(truth)
    per_sample = _zero_where_constant(pearson(truth, np.where(known, mean, np.nan), axis="per_sample"), truth.T)
    count = weights @ known.sum(axis=1)
    total, within = np.zeros((5, len(weights))), [np.zeros(len(weights)), np.zeros(len(weights))]
    # moments about the overall mean, which keeps their differences exact
    centre = truth[known].mean()
    for start in range(0, truth.shape[1], BLOCK):
        part = slice(start, start + BLOCK)
        seen = known[:, part]
        t, p = (np.where(seen, values[:, part] - centre, 0.0) for values in (truth, mean))
        moments = np.stack([weights @ values for values in (t, p, t * t, p * p, t * p)])
        total += moments.sum(axis=2)
        r = _correlation(moments, weights @ seen)[:, seen.sum(axis=0) >= LEAST]
        within[0] += np.nansum(r, axis=1)
        within[1] += (~np.isnan(r)).sum(axis=1)
    scores = {
        "r_sample": _ratio(weights @ np.nan_to_num(per_sample), weights @ ~np.isnan(per_sample)),
        "r_gene": _ratio(*within),
        "r_global": _correlation(total, count),
        "rmse": np.sqrt(_ratio(total[2] + total[3] - 2 * total[4], count)),
    }
    if deviation is not None:
        inside = known & (np.abs(np.nan_to_num(truth - mean)) <= Z90 * np.nan_to_num(deviation))
        scores["coverage90"] = _ratio(weights @ inside.sum(axis=1), count)
    return scores


def _correlation(moments: Doubles, count: Doubles) -> Doubles:
    """Return Pearson's r of weighted sums of t, p, t², p², tp: ``NaN`` where t is constant, 0 where only p is."""
    t, p, tt, pp, tp = moments
    count = np.maximum(count, 1)
    spread_t, spread_p, shared = tt - t * t / count, pp - p * p / count, tp - t * p / count
    flat = 1e-9 * count
    r = np.zeros_like(shared)
    np.divide(shared, np.sqrt(np.maximum(spread_t * spread_p, 0)), out=r, where=(spread_t > flat) & (spread_p > flat))
    return np.where(spread_t > flat, np.clip(r, -1, 1), np.nan)


def _zero_where_constant(r: Doubles, truth: Doubles) -> Doubles:
    return np.where(np.isnan(r) & (np.nanstd(truth, axis=0) > 0), 0.0, r)


def _ratio(above: Doubles, below: Doubles) -> Doubles:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


def summarise(parts: pd.DataFrame, linear: tuple[str, ...]) -> pd.DataFrame:
    """Turn draws into scores with intervals, and compare each method with the best linear one.

    Parameters
    ----------
    parts
        One row per fold, setting, share hidden, method and score, which are its index; columns are draws, the first
        one the data as they are.
    linear
        Methods among which the one of lowest error is the baseline of each setting and share.

    Returns
    -------
    One row per fold, setting, share hidden and method; of several folds also their mean, as the fold ``"all"``. Each
    score with its 95 % interval, ``_low`` and ``_high``; ``difference``, error minus that of the ``baseline``, in the
    same resamples.
    """
    levels = [*KEYS[1:], "score"]
    if len(parts.index.unique("fold")) > 1:
        whole = parts.groupby(level=levels, sort=False).mean()
        parts = pd.concat([parts, pd.concat({"all": whole}, names=["fold"])])
    rows = []
    for (fold, setting, hidden), group in parts.groupby(level=KEYS[:3], sort=False):
        found = group.droplevel(KEYS[:3])
        errors = found.xs("rmse", level="score")
        candidates = [name for name in linear if name in errors.index]
        baseline = errors.loc[candidates].iloc[:, 0].idxmin()
        for method in errors.index:
            row = {"fold": fold, "setting": setting, "hidden": hidden, "method": method}
            for score in SCORES:
                if (method, score) in found.index:
                    row |= _with_interval(score, found.loc[(method, score)].to_numpy(dtype=float))
            row["baseline"] = baseline
            if method != baseline:
                row |= _with_interval("difference", (errors.loc[method] - errors.loc[baseline]).to_numpy(dtype=float))
            rows.append(row)
    return pd.DataFrame(rows)


def _with_interval(name: str, drawn: Doubles) -> dict[str, float]:
    low, high = interval(drawn[1:], LEVEL)
    return {name: round(drawn[0], 4) + 0.0, f"{name}_low": round(low, 4), f"{name}_high": round(high, 4)}


def render(table: pd.DataFrame) -> str:
    """Return Markdown tables of all folds together: methods down, shares hidden across, one for each score."""
    together = table["fold"].astype(str) == "all"
    whole = table[together] if together.any() else table
    texts = []
    for settings in (("genes", "panel"), ("entries",)):
        chosen = whole[whole["setting"].isin(settings)]
        for score, title in TITLES.items():
            if score in chosen and chosen[score].notna().any():
                cells = chosen.assign(column=_columns(chosen), cell=_cells(chosen, score))
                wide = cells.pivot_table(index="method", columns="column", values="cell", aggfunc="first", sort=False)
                wide = wide[wide.ne("").any(axis=1)].reset_index().rename_axis(columns=None)
                texts.append(f"**{title}**, {HIDINGS[settings]}:\n\n{markdown(wide)}")
    return "\n\n".join(texts)


TITLES = {
    "rmse": "Root mean squared error, ln(TPM+1)",
    "difference": "Its difference from the best linear method",
    "r_sample": "Pearson correlation within samples",
    "r_gene": "Pearson correlation within genes",
    "r_global": "Pearson correlation over all entries",
    "coverage90": "Share of entries within 90 % intervals",
}
HIDINGS = {
    ("genes", "panel"): "genes hidden in all samples at random, or all but those of a panel",
    ("entries",): "other entries hidden in each sample",
}


def _columns(table: pd.DataFrame) -> list[str]:
    pairs = zip(table["setting"], table["hidden"], strict=True)
    return [f"panel of {hidden:,.0f}" if setting == "panel" else f"{hidden:.0%}" for setting, hidden in pairs]


def _cells(table: pd.DataFrame, score: str) -> list[str]:
    parts = table[[score, f"{score}_low", f"{score}_high"]].itertuples(index=False)
    return ["" if np.isnan(mean) else f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in parts]


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown; missing cells are empty."""
    cells = table.astype(object).where(table.notna(), "").astype(str)
    rows = [list(table.columns), ["---"] * table.shape[1], *cells.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
