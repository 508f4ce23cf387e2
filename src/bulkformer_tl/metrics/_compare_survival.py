"""Score tables of several predicted risks of the same samples under right censoring, and their differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bulkformer_tl.metrics._censoring import censoring_curve, check_outcome, check_times, step
from bulkformer_tl.metrics._check import as_labels, as_numbers, to_float
from bulkformer_tl.metrics._compare import difference_table
from bulkformer_tl.metrics._protocol import Protocol
from bulkformer_tl.metrics._resample import resample
from bulkformer_tl.metrics._survival_draws import Censored, draw_scores
from bulkformer_tl.metrics._tables import DIFFERENCES, SCORES, interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Numbers = NDArray[np.float64]

#: Quantiles of the times of events at which curves are scored.
QUANTILES = np.linspace(0.1, 0.9, 9)
#: Times are scored while at least this share of samples would not be censored yet, which bounds their weights.
FOLLOWED = 0.1


def evaluation_times(time: ArrayLike, event: ArrayLike) -> NDArray[np.float64]:
    """Choose times at which risks and survival are scored: deciles of the times of events.

    Parameters
    ----------
    time
        Until event or censoring, shape (N,).
    event
        Whether the event happened, shape (N,).

    Returns
    -------
    Increasing times, at most nine, up to the one from which on less than a tenth would still be followed.

    Raises
    ------
    ValueError
        If all are censored or values are missing.
    """
    times, events, _ = check_outcome(time, event, time)
    deciles = np.unique(np.quantile(times[events], QUANTILES, method="lower"))
    followed = step(*censoring_curve((times, events)), deciles) >= FOLLOWED
    found: NDArray[np.float64] = deciles[followed & (deciles < times.max())]
    return found if len(found) else deciles[:1]


def compare_survival(
    time: ArrayLike,
    event: ArrayLike,
    risks: Mapping[str, NDArray[np.float64]],
    *,
    survival: Mapping[str, NDArray[np.float64]] | None = None,
    times: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    folds: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    baselines: Sequence[str] = (),
    protocol: Protocol | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score risks of the same samples and compare them in pairs.

    Parameters
    ----------
    time
        Until event or censoring, shape (N,).
    event
        Whether the event happened, shape (N,).
    risks
        Name and risk, larger for an earlier event, shape (N,).
    survival
        Of each name the probability of no event by each of ``times``, shape (N, T); ``None`` leaves the Brier score
        out.
    times
        At which areas and survival are scored, shape (T,); ``None`` takes deciles of the times of events.
    strata
        Such as cancer types, shape (N,); adds the two within-stratum scores.
    folds
        Which test fold each sample was in, shape (N,); risks of two folds come from two fits and are never compared.
    groups
        What is resampled as a whole, shape (N,).
    baselines
        Names among ``risks`` that the others are compared with.
    protocol
        Number of resamples, level and seed; ``None`` takes ``Protocol()``.

    Returns
    -------
    Two tables with the columns of :func:`compare`. Metrics, and the axis of each: with strata, ``"harrell_c_within"``
    (``"stratum_pairs"``: pairs of one test fold and stratum) and ``"harrell_c_macro"`` (``"strata"``: the mean over
    strata); ``"harrell_c"``, ``"uno_c"`` and ``"auc"``, the time-dependent area averaged over times (``"fold_pairs"``:
    pairs of one test fold); ``"integrated_brier"`` (``"samples"``). Uno's C counts events before the last of ``times``;
    the censoring that it, area and Brier score correct for is that of all samples together.

    Raises
    ------
    ValueError
        If all are censored, no pair is comparable, numbers of samples differ or values are missing.
    """
    protocol = protocol or Protocol()
    observed, events, _ = check_outcome(time, event, time)
    n = len(observed)
    absent = [name for name in baselines if name not in risks]
    if absent:
        message = f"the baselines {absent} are not among the risks {list(risks)}"
        raise ValueError(message)
    known = {name: as_numbers(risk, name, n=n) for name, risk in risks.items()}
    at = evaluation_times(observed, events) if times is None else check_times(times)
    curves = {} if survival is None else _curves(survival, known, len(at))
    parts = np.zeros(n, dtype=np.intp) if folds is None else as_labels(folds, "folds", n=n)[0]
    levels = None if strata is None else as_labels(strata, "strata", n=n)[0]
    weights = resample(n, n_bootstrap=protocol.n_bootstrap, groups=groups, folds=parts, rng=protocol.rng)
    weights = np.concatenate([np.ones((1, n)), weights])
    data = Censored.of(observed, events, at)
    drawn, rows = {}, []
    for name, risk in known.items():
        scores = draw_scores(data, risk, weights, survival=curves.get(name), folds=parts, strata=levels)
        drawn[name] = {metric: draws for metric, (draws, _, _) in scores.items()}
        rows += [
            (name, metric, axis, draws[0], *interval(draws[1:], protocol.level), n, spread)
            for metric, (draws, axis, spread) in scores.items()
        ]
    table = pd.DataFrame(rows, columns=SCORES)
    axes = dict(zip(table["metric"], table["axis"], strict=True))
    differences = difference_table(drawn, baselines, protocol.level)
    differences.insert(DIFFERENCES.index("axis"), "axis", differences["metric"].map(axes))
    differences["n"] = n
    return table, differences


def _curves(survival: Mapping[str, Numbers], risks: Mapping[str, Numbers], n_times: int) -> dict[str, Numbers]:
    found = {}
    for name, risk in risks.items():
        if name not in survival:
            message = f"{name!r} has no survival; pass it for every risk, or for none"
            raise ValueError(message)
        found[name] = to_float(survival[name], name)
        if found[name].shape != (len(risk), n_times):
            message = (
                f"survival of {name!r} has the shape {found[name].shape} for {len(risk)} samples and {n_times} times"
            )
            raise ValueError(message)
    return found
