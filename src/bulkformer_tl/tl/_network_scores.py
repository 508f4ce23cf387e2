"""What a network recovers of known regulators and targets, beside co-expression and expression level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl.metrics import Protocol, auroc
from bulkformer_tl.metrics._units import compare_units
from bulkformer_tl.tl._network_edges import strongest
from bulkformer_tl.tl._network_weights import pearson_weights
from bulkformer_tl.tl._screen import false_discovery_rate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bulkformer_tl.tl._network_input import Plan

    Numbers = NDArray[np.float64]
    Mask = NDArray[np.bool_]

COEXPRESSION, LEVEL = "coexpression", "level"
#: Known targets that a regulator needs for an area of its own, and regulators for an interval.
LEAST_TARGETS, LEAST_REGULATORS = 5, 2


def recovery(
    plan: Plan,
    known: Mask,
    strengths: Numbers,
    values: NDArray[np.float32],
    names: NDArray[np.str_],
    *,
    method: str,
    n_edges: int,
    n_null: int,
    rng: np.random.Generator,
) -> dict[str, pd.DataFrame]:
    """Compare the network of each group with known pairs, beside co-expression and expression level.

    Parameters
    ----------
    plan
        Genes and groups.
    known
        Whether a pair is known, (K, Q).
    strengths
        How strong each pair is, (groups, K, Q).
    values
        Expression of ``plan.genes``, (N, k).
    names
        Of the columns of the cohort.
    method
        What the network is called.
    n_edges
        Edges of each target.
    n_null
        Networks of the same degrees to compare with.
    rng
        Draws them.

    Returns
    -------
    Tables by name: ``"recovery"``, ``"regulators"``, and, where regulators have enough targets, ``"scores"`` and
    ``"differences"``.
    """
    parts: dict[str, list[pd.DataFrame]] = {"recovery": [], "regulators": [], "scores": [], "differences": []}
    for group, name in enumerate(plan.groups):
        inside = values[plan.codes == group]
        found = {method: strengths[group]}
        if method != COEXPRESSION:
            found[COEXPRESSION] = np.abs(pearson_weights(plan, inside))
        found[LEVEL] = _level(plan, inside)
        masks = {one: strongest(own, plan, n_edges, directed=True) for one, own in found.items()}
        rows = [
            {"group": name, "edges": one, **_overall(plan.same, known, own, masks[one], n_null=n_null, rng=rng)}
            for one, own in found.items()
        ]
        parts["recovery"].append(pd.DataFrame(rows))
        areas = {one: _areas(plan.same, known, own) for one, own in found.items()}
        table = _by_regulator(plan.same, known, masks[method], names[plan.sources])
        parts["regulators"].append(table.assign(group=name, auroc=areas[method]))
        for key, own_table in _compare(areas, method).items():
            parts[key].append(own_table.assign(group=name))
    return {key: pd.concat(tables, ignore_index=True) for key, tables in parts.items() if tables}


def _level(plan: Plan, values: NDArray[np.float32]) -> Numbers:
    """Return how high both genes are expressed, as the sum of their ranks, (K, Q)."""
    number = (~np.isnan(values)).sum(axis=0)
    rank = pd.Series(np.nansum(values, axis=0) / np.maximum(number, 1)).rank().to_numpy(dtype=np.float64)
    source, target = (rank[np.searchsorted(plan.genes, genes)] for genes in (plan.sources, plan.targets))
    summed: Numbers = source[:, None] + target
    return summed


def _overall(
    same: Mask, known: Mask, strength: Numbers, mask: Mask, *, n_null: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Return what edges have in common with known pairs, over all pairs of two genes."""
    from scipy.stats import hypergeom

    truth, ranked = known[~same], np.nan_to_num(strength[~same], nan=-2.0)
    n_pairs, n_known, n_edges, n_found = len(truth), int(truth.sum()), int(mask.sum()), int(mask[known].sum())
    drawn = np.array([(other & known).sum() for other in rewired(mask, same, n_null, rng)], dtype=np.float64)
    spread = float(drawn.std(ddof=1)) if len(drawn) > 1 else 0.0
    return {
        "n_pairs": n_pairs,
        "n_known": n_known,
        "auroc": auroc(truth, ranked) if 0 < n_known < n_pairs else np.nan,
        "n_edges": n_edges,
        "n_found": n_found,
        "odds_ratio": float(_odds_ratio(n_found, n_edges, n_known, n_pairs)),
        "p": float(hypergeom.sf(n_found - 1, n_pairs, n_known, n_edges)),
        "null": float(drawn.mean()) if len(drawn) else np.nan,
        "null_z": (n_found - float(drawn.mean())) / spread if spread > 0 else np.nan,
        "null_p": float((1 + (drawn >= n_found).sum()) / (1 + len(drawn))) if len(drawn) else np.nan,
    }


def _odds_ratio(found: Any, edges: Any, known: Any, pairs: Any) -> Any:
    """Return the odds ratio, half a pair added to each cell (Haldane and Anscombe), so that none is infinite."""
    return (found + 0.5) * (pairs - edges - known + found + 0.5) / ((edges - found + 0.5) * (known - found + 0.5))


def rewired(mask: Mask, same: Mask, n: int, rng: np.random.Generator) -> list[Mask]:
    """Draw networks in which every gene has as many edges as in this one.

    Two sources trade the targets that they do not share, over and over (the curveball of Strona et al. 2014): five
    trades for each source at first and one between draws.

    Parameters
    ----------
    mask
        Edges, (K, Q).
    same
        Where both ends are one gene, which no edge joins, (K, Q).
    n
        How many to draw.
    rng
        Draws them.
    """
    state, found = mask.copy(), []
    n_sources = len(state)
    if n_sources < 2:
        return []
    for draw in range(n):
        for _ in range(n_sources if draw else 5 * n_sources):
            one, other = rng.choice(n_sources, 2, replace=False)
            apart = np.flatnonzero((state[one] != state[other]) & ~same[one] & ~same[other])
            own = int(state[one, apart].sum())
            apart = rng.permutation(apart)
            state[one, apart[:own]], state[other, apart[:own]] = True, False
            state[one, apart[own:]], state[other, apart[own:]] = False, True
        found.append(state.copy())
    return found


def _by_regulator(same: Mask, known: Mask, mask: Mask, names: NDArray[np.str_]) -> pd.DataFrame:
    """Test the targets of each regulator, by Fisher's exact test for more known ones than by chance."""
    from scipy.stats import hypergeom

    n_pairs, n_known, n_edges = ((~same).sum(axis=1), known.sum(axis=1), mask.sum(axis=1))
    n_found = (mask & known).sum(axis=1)
    tested = (n_known > 0) & (n_edges > 0)
    p = np.where(tested, hypergeom.sf(n_found - 1, n_pairs, n_known, n_edges), np.nan)
    return pd.DataFrame(
        {
            "regulator": names,
            "n_known": n_known,
            "n_edges": n_edges,
            "n_found": n_found,
            "odds_ratio": np.where(tested, _odds_ratio(n_found, n_edges, n_known, n_pairs), np.nan),
            "p": p,
            "fdr": false_discovery_rate(p),
        }
    )


def _areas(same: Mask, known: Mask, strength: Numbers) -> Numbers:
    """Return the area of each regulator over its possible targets; ``NaN`` where too few are known, (K,)."""
    areas = np.full(len(known), np.nan)
    for row, other in enumerate(~same):
        truth = known[row, other]
        if LEAST_TARGETS <= truth.sum() < len(truth):
            areas[row] = auroc(truth, np.nan_to_num(strength[row, other], nan=-2.0))
    return areas


def _compare(areas: Mapping[str, Numbers], method: str) -> dict[str, pd.DataFrame]:
    """Average areas over regulators, with intervals, and compare the network with what stands beside it."""
    units = {name: own[~np.isnan(own)] for name, own in areas.items()}
    n_units = len(units[method])
    if n_units < LEAST_REGULATORS:
        return {}
    scores, differences = compare_units(
        {name: {"auroc": own} for name, own in units.items()},
        axis="per_regulator",
        folds=np.zeros(n_units, dtype=np.intp),
        n_samples=n_units,
        baselines=[name for name in units if name != method],
        protocol=Protocol(),
    )
    return {"scores": scores, "differences": differences}
