"""Against lifelines and scikit-survival, and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import check_grad
from sklearn.base import clone
from sksurv.linear_model import CoxnetSurvivalAnalysis
from sksurv.util import Surv

from bulkformer_tl.metrics._cox import breslow, cumulative, elastic_net_cox, fit_hazard, survival_probability
from bulkformer_tl.metrics._partial_likelihood import partial_likelihood


@pytest.fixture(params=[0, 1])
def cohort(request):
    """Six columns with summed variance one, two of which matter; outcomes with ties, four strata."""
    rng = np.random.default_rng(request.param)
    values = rng.normal(size=(120, 6)) * [3, 1, 1, 2, 1, 0.5]
    values = (values - values.mean(axis=0)) / np.sqrt(values.var(axis=0).sum())
    time = np.ceil(8 * rng.exponential(np.exp(-2 * values[:, 0] + 2 * values[:, 3])))
    event = rng.random(120) < 0.7
    return values, np.column_stack([time, event, rng.integers(4, size=120)])


def columns(target):
    return target[:, 0], target[:, 1] == 1, target[:, 2].astype(int)


def test_gradient_is_that_of_the_likelihood(cohort):
    values, target = cohort
    outcome = columns(target)
    for eta in (values[:, 0] * 2, values @ np.ones(6) * 20):
        error = check_grad(
            lambda x: partial_likelihood(x, *outcome)[0], lambda x: partial_likelihood(x, *outcome)[1], eta
        )
        assert error < 1e-4
    shifted = partial_likelihood(values[:, 0] + 500, *outcome)[0]
    assert shifted == pytest.approx(partial_likelihood(values[:, 0], *outcome)[0])


def test_likelihood_by_hand():
    eta, one = np.log([1.0, 2.0, 3.0]), np.zeros(3, dtype=int)
    event = np.array([True, True, False])
    loss, _ = partial_likelihood(eta, np.array([1.0, 2.0, 3.0]), event, one)
    assert loss == pytest.approx(-np.log(1 / 6) - np.log(2 / 5))
    tied, _ = partial_likelihood(eta, np.array([1.0, 1.0, 3.0]), event, one)
    assert tied == pytest.approx(-np.log(2) + np.log(6) + np.log(6 - 3 / 2))
    apart, _ = partial_likelihood(eta, np.array([1.0, 2.0, 3.0]), event, np.array([0, 1, 1]))
    assert apart == pytest.approx(-np.log(2 / 5))


def test_ridge_equals_lifelines(cohort):
    lifelines = pytest.importorskip("lifelines", reason="needs pandas 2")
    values, target = cohort
    # lifelines standardises each column before it penalises
    values = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    frame = pd.DataFrame(values).rename(columns=str).assign(time=target[:, 0], event=target[:, 1], stratum=target[:, 2])
    spread = values.var(axis=0).sum()
    for penalty in (1.0, 10.0):
        # ours divides the columns by the root of the summed variances, lifelines divides the likelihood by n
        fitter = lifelines.CoxPHFitter(penalizer=penalty * spread / 120)
        fitter.fit(frame, "time", "event", strata=["stratum"])
        found = elastic_net_cox()(penalty=penalty, l1_ratio=0).fit(values, target)
        np.testing.assert_allclose(found.coef_, fitter.params_, atol=2e-4)
    fitter = lifelines.CoxPHFitter().fit(frame, "time", "event", strata=["stratum"])
    found = elastic_net_cox()(penalty=0, l1_ratio=0).fit(values, target)
    np.testing.assert_allclose(found.coef_, fitter.params_, atol=1e-4)
    assert -found.loss(values, target) == pytest.approx(fitter.log_likelihood_)


def test_elastic_net_equals_scikit_survival(cohort):
    values, target = cohort
    rng = np.random.default_rng(0)
    target = target.copy()
    target[:, 0] += rng.random(120)  # without ties, which scikit-survival counts otherwise
    target[:, 2] = 0
    structured = Surv.from_arrays(target[:, 1] == 1, target[:, 0])
    for alpha, ratio in [(0.02, 0.5), (0.05, 0.9), (0.01, 1.0)]:
        theirs = CoxnetSurvivalAnalysis(alphas=[alpha], l1_ratio=ratio, tol=1e-12, max_iter=100_000)
        expected = theirs.fit(values, structured).coef_[:, 0]
        found = elastic_net_cox()(penalty=alpha * 120, l1_ratio=ratio).fit(values, target).coef_
        np.testing.assert_allclose(found, expected, atol=2e-3)
        np.testing.assert_array_equal(found == 0, expected == 0)


def test_scale_and_shift_of_columns_do_not_matter(cohort):
    values, target = cohort
    model = elastic_net_cox()(penalty=3.0)
    one, other = clone(model).fit(values, target), clone(model).fit(values * 1000 + 7, target)
    np.testing.assert_allclose(other.predict(values * 1000 + 7), one.predict(values), atol=1e-4)
    assert one.predict(values).mean() == pytest.approx(0, abs=1e-10)
    nothing = clone(model).fit(np.zeros((120, 2)), target)
    assert nothing.predict(np.ones((3, 2))).tolist() == [0, 0, 0]


def test_baseline_hazard_equals_scikit_survival(cohort):
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    values, target = cohort
    theirs = CoxPHSurvivalAnalysis().fit(values, Surv.from_arrays(target[:, 1] == 1, target[:, 0]))
    eta = values @ theirs.coef_ - (values @ theirs.coef_).mean()
    baseline = breslow(eta, target[:, 0], target[:, 1] == 1)
    expected = theirs.predict_survival_function(values[:5], return_array=True)
    np.testing.assert_allclose(
        survival_probability(
            values[:5] @ theirs.coef_ - (values @ theirs.coef_).mean(), baseline, theirs.unique_times_
        ),
        expected,
        atol=1e-8,
    )
    assert cumulative(baseline, np.array([0.0])).tolist() == [0]


def test_hazards_of_strata_are_found_and_shrunken():
    rng = np.random.default_rng(0)
    strata = np.repeat([0, 1, 2], [300, 300, 2])
    time = rng.exponential(np.where(strata == 1, 1 / 4, 1.0))
    event = np.ones(602, dtype=bool)
    offsets, baseline = fit_hazard(np.zeros(602), time, event, strata, 4)
    unshrunken = elastic_net_cox()(penalty=0, l1_ratio=0)
    known = strata < 2
    target = np.column_stack([time, event, np.zeros(602)])[known]
    (expected,) = unshrunken.fit(strata[known, None] * 1.0, target).coef_
    assert offsets[1] - offsets[0] == pytest.approx(expected, abs=0.02)
    assert offsets[3] == 0, "a stratum without a sample is taken for an average one"
    assert np.average(offsets[:3], weights=[300, 300, 2]) == pytest.approx(0, abs=1e-12)
    assert abs(offsets[2]) < 1
    hazards = cumulative(baseline, time) * np.exp(offsets[strata])
    assert hazards[strata == 0].sum() == pytest.approx(300, rel=0.01)
    alone, _ = fit_hazard(np.zeros(602), time, event, np.zeros(602, dtype=int), 1)
    assert alone.tolist() == [0]
