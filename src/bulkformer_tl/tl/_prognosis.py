"""Fit the log hazard by each candidate in each split, and put risks of all strata on one scale."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._progress import Progress
from bulkformer_tl.metrics._cox import GRID, as_outcome, elastic_net_cox, fit_hazard, survival_probability
from bulkformer_tl.metrics._cox_network import NETWORK_GRID, cox_network
from bulkformer_tl.metrics._fit import _choose
from bulkformer_tl.metrics._heads import N_COMPONENTS, components, feature_steps, pipeline, rotation, set_options
from bulkformer_tl.metrics._partial_likelihood import partial_likelihood
from bulkformer_tl.metrics._scale import one_scale
from bulkformer_tl.tl._probe import N_CALIBRATION, Candidate, Plan, _inner, _rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Split
    from bulkformer_tl.metrics._scale import Scale
    from bulkformer_tl.tl._patients import Patients

    Numbers = NDArray[np.float64]

#: What inner folds choose among for each head.
GRIDS = {"cox": GRID, "mlp": NETWORK_GRID}
#: How much a log hazard may be shrunken or stretched by what inner folds say of it; never so that it turns round.
SLOPES = (0.01, 3.0)


def survival_probe(
    head: str,
    *,
    shape: tuple[int, int],
    scale: Scale = "common",
    whole: bool = False,
    rng: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Build an unfitted pipeline that predicts log hazards.

    Parameters
    ----------
    head
        ``"cox"`` or ``"mlp"``.
    shape
        Training samples and columns.
    scale
        As of :func:`bulkformer_tl.metrics.probe`.
    whole
        Take all columns, rotated into the space of the samples, and not the leading 50 components.
    rng
        Seed.
    options
        Parameters of the head, and ``n_components``.

    Raises
    ------
    ValueError
        If an option is unknown.
    """
    chosen = dict(options or {})
    n_components = chosen.pop("n_components", None if whole else N_COMPONENTS)
    estimator = elastic_net_cox()() if head == "cox" else cox_network()(rng=rng)
    # a rotation leaves a ridge as it is
    turned = rotation("all", "linear", shape) if whole else []
    steps = turned if n_components is None else [("pca", components(n_components, shape, rng))]
    made = pipeline([*feature_steps("all", shape, rng), *steps, ("head", set_options(estimator, head, chosen))])
    if scale == "each":
        return made
    return made.set_params(scale=one_scale()(() if scale == "common" else scale))


def covariate_model(shape: tuple[int, int]) -> Any:
    """Build the unfitted Cox model of covariates."""
    return pipeline([*feature_steps("covariates", shape, 0), ("head", elastic_net_cox()(l1_ratio=0.0))])


@dataclass(eq=False)
class Fit:
    """Log hazards of one candidate in one split, 0 at the training mean.

    Parameters
    ----------
    trained
        Of training samples.
    held
        Of training samples, by inner folds that were not fitted to them; one column per part of a sum.
    test
        Of test samples, with the same columns.
    model
        What was fitted.
    """

    trained: Numbers
    held: Numbers
    test: Numbers
    model: Any = None


@dataclass(eq=False)
class Prognosis:
    """What a candidate says of the samples that it was not fitted to.

    Parameters
    ----------
    risk
        Log hazard relative to the average training sample, shape (N,).
    survival
        Probability of no event by each of the times, shape (N, T).
    high
        Whether the risk is above the median of the training samples of the same stratum, shape (N,).
    slopes
        Of each split.
    model, offsets, medians
        Of what was fitted last: its model, and for each stratum what is added to the log hazard, and the median.
    """

    risk: Numbers
    survival: Numbers
    high: NDArray[np.bool_]
    slopes: list[float] = field(default_factory=list)
    model: Any = None
    offsets: Numbers = field(default_factory=lambda: np.zeros(1))
    medians: Numbers = field(default_factory=lambda: np.zeros(1))


def prognose(
    plan: Plan, patients: Patients, found: Mapping[str, Candidate], name: str, times: Numbers, *, joint: str = ""
) -> dict[str, Prognosis]:
    """Fit every candidate in every split, and the one that is named also to all training samples.

    Parameters
    ----------
    plan
        How samples are split.
    patients
        Outcomes.
    found
        What is judged.
    name
        Which of it is fitted to all training samples, too.
    times
        At which survival is wanted, shape (T,).
    joint
        Name of the sum of the one that is named and ``"covariates"``, each weighted by inner folds; empty for none.
    """
    n = len(patients.outcome)
    names = [*found, joint] if joint else list(found)
    results = {
        other: Prognosis(np.full(n, np.nan), np.full((n, len(times)), np.nan), np.zeros(n, dtype=bool))
        for other in names
    }
    last = plan.final is not plan.scored[-1]
    with Progress(len(plan.scored) * len(found) + last, "survival") as progress:
        for position, split in enumerate(plan.scored):
            fits = {}
            for other, candidate in found.items():
                fits[other] = _fit(plan, patients, candidate, split, position)
                progress.update(1)
            if joint:
                parts = fits[name], fits["covariates"]
                fits[joint] = Fit(
                    *(np.hstack([getattr(p, part) for p in parts]) for part in ("trained", "held", "test"))
                )
            for other, fit in fits.items():
                _settle(results[other], patients, split, fit, times)
        if last:
            fit = _fit(plan, patients, found[name], plan.final, len(plan.scored))
            _settle(results[name], patients, plan.final, fit, times)
            progress.update(1)
    return results


def _fit(plan: Plan, patients: Patients, candidate: Candidate, split: Split, position: int) -> Fit:
    from sklearn.base import clone

    if candidate.trivial:
        nothing = np.zeros((len(split.train), 1))
        return Fit(nothing, nothing, np.zeros((len(split.test), 1)))
    matrix, target, n_inner = candidate.matrix, patients.outcome, plan.protocol.n_inner
    chosen = _inner(plan, split, position, n_inner) if n_inner else []
    smallest = min(len(part.train) for part in (split, *chosen))
    model = candidate.make((smallest, matrix.shape[1]))
    if chosen:
        model[-1].set_params(**_choose(model, matrix, target, chosen, GRIDS[candidate.head]))
    features = model[:-1].fit_transform(_rows(matrix, split.train), target[split.train])
    model[-1].fit(features, target[split.train])
    trained = model[-1].predict(features)
    held = trained.copy()
    for part in _inner(plan, split, position, N_CALIBRATION):
        seen, rest = np.searchsorted(split.train, part.train), np.searchsorted(split.train, part.test)
        held[rest] = clone(model[-1]).fit(features[seen], target[part.train]).predict(features[rest])
    test: Numbers = model.predict(_rows(matrix, split.test)) if len(split.test) else np.empty(0)
    return Fit(trained[:, None], held[:, None], test[:, None], model)


def _settle(result: Prognosis, patients: Patients, split: Split, fit: Fit, times: Numbers) -> None:
    """Weigh log hazards and add those of strata as inner folds say, and fill in the test samples of the split."""
    slopes = fit_slopes(fit.held, patients.outcome[split.train])
    train, test = patients.codes[split.train], patients.codes[split.test]
    n_strata = len(patients.strata)
    own = patients.time[split.train], patients.event[split.train]
    result.offsets, baseline = fit_hazard(fit.held @ slopes, *own, train, n_strata)
    trained = fit.trained @ slopes
    result.medians = np.full(n_strata, np.median(trained))
    for code in np.unique(train):
        result.medians[code] = np.median(trained[train == code])
    log_hazard = fit.test @ slopes
    result.risk[split.test] = log_hazard + result.offsets[test]
    result.survival[split.test] = survival_probability(result.risk[split.test], baseline, times)
    result.high[split.test] = log_hazard > result.medians[test]
    result.slopes.append(float(slopes[0]))
    result.model = fit.model


def fit_slopes(held: Numbers, target: Numbers) -> Numbers:
    """Find the multiples of held-out log hazards (N, K) that make the outcome most likely, shape (K,)."""
    from scipy.optimize import minimize

    if not np.ptp(held, axis=0).all():
        return np.ones(held.shape[1])
    outcome = as_outcome(target)

    def objective(slopes: Numbers) -> tuple[float, Numbers]:
        loss, gradient = partial_likelihood(held @ slopes, *outcome)
        return loss, gradient @ held

    start = np.ones(held.shape[1])
    found: Any = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=[SLOPES] * held.shape[1])
    slopes: Numbers = found.x
    return slopes
