"""Against lifelines and scipy, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import CensoredData, logrank

from bulkformer_tl.metrics import log_rank, survival_curves
from bulkformer_tl.metrics._partial_likelihood import partial_likelihood


@pytest.fixture
def cohort():
    rng = np.random.default_rng(0)
    group = rng.integers(3, size=90)
    time = np.ceil(10 * rng.exponential(1 + group / 2))
    return time, rng.random(90) < 0.6, group


def test_curves_equal_lifelines(cohort):
    lifelines = pytest.importorskip("lifelines", reason="needs pandas 2")
    time, event, group = cohort
    table = survival_curves(time, event, group, level=0.9)
    for code in range(3):
        own = table[table["group"] == code]
        fitter = lifelines.KaplanMeierFitter(alpha=0.1).fit(time[group == code], event[group == code])
        np.testing.assert_allclose(own["survival"], fitter.survival_function_["KM_estimate"])
        expected = fitter.confidence_interval_.to_numpy()
        np.testing.assert_allclose(own[["low", "high"]][1:], expected[1:], atol=1e-12)
        events = fitter.event_table
        np.testing.assert_array_equal(own[["events", "censored"]], events[["observed", "censored"]])
        np.testing.assert_array_equal(own["at_risk"], events["at_risk"])


def test_curve_by_hand():
    table = survival_curves([1, 2, 2, 4], [1, 0, 1, 0], ["a", "a", "a", "a"])
    assert table["time"].tolist() == [0, 1, 2, 4]
    assert table["at_risk"].tolist() == [4, 4, 3, 1]
    assert table["events"].tolist() == [0, 1, 1, 0]
    assert table["censored"].tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(table["survival"], [1, 0.75, 0.5, 0.5])
    assert (table["low"] <= table["survival"]).all()


def test_log_rank_equals_scipy(cohort):
    time, event, group = cohort
    two = group < 2
    parts = [CensoredData(uncensored=time[(group == k) & event], right=time[(group == k) & ~event]) for k in (0, 1)]
    expected = logrank(*parts)
    statistic, p = log_rank(time[two], event[two], group[two])
    assert statistic == pytest.approx(expected.statistic**2)
    assert p == pytest.approx(expected.pvalue)


def test_stratified_log_rank_is_the_score_test_of_the_stratified_cox_model(cohort):
    time, event, group = cohort
    time = time + np.random.default_rng(1).random(90)  # without ties the two agree
    strata, high = np.arange(90) % 3, (group > 0).astype(float)
    step = 1e-4

    def slope(at):
        return partial_likelihood(high * at, time, event, strata)[1] @ high

    information = (slope(step) - slope(-step)) / (2 * step)
    statistic, _ = log_rank(time, event, high, strata=strata)
    assert statistic == pytest.approx(slope(0) ** 2 / information, rel=1e-5)


def test_strata_that_explain_everything_leave_nothing():
    rng = np.random.default_rng(0)
    strata = np.repeat([0, 1], 100)
    time = rng.exponential(np.where(strata, 10, 1))
    group = np.where(rng.random(200) < 0.8, strata, 1 - strata)
    event = np.ones(200, dtype=bool)
    assert log_rank(time, event, group)[1] < 1e-6
    assert log_rank(time, event, group, strata=strata)[1] > 0.05
    assert np.isnan(log_rank([1, 2], [1, 1], [0, 1], strata=[0, 1])).all()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"group holds \['a'\]; the test compares two groups"):
        log_rank([1, 2], [1, 1], ["a", "a"])
    with pytest.raises(ValueError, match="all 2 samples are censored"):
        survival_curves([1, 2], [0, 0], ["a", "b"])
