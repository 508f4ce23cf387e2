"""Against scikit-survival and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sksurv.metrics import brier_score, cumulative_dynamic_auc, integrated_brier_score
from sksurv.util import Surv

from bulkformer_tl.metrics import integrated_brier, survival_brier, time_dependent_auc

# older scikit-survival integrates with a name that numpy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*trapz.* is deprecated:DeprecationWarning")


@pytest.fixture(params=[0, 1])
def cohorts_of_two(request):
    """Training outcomes; test outcomes with a risk with ties and survival at five times; the times."""
    rng = np.random.default_rng(request.param)
    risk = np.round(rng.normal(size=80), 1)
    time, event = np.ceil(20 * rng.exponential(np.exp(-risk))), rng.random(80) < 0.6
    train = np.ceil(rng.exponential(30, size=100)), rng.random(100) < 0.5
    train[0][-1], train[1][-1] = 10_000, False
    times = np.array([4.0, 9.5, 12.0, 20.0, 30.0])
    survival = np.exp(-times / 25 * np.exp(risk)[:, None])
    return train, (time, event), risk, survival, times


def structured(outcome):
    return Surv.from_arrays(outcome[1], outcome[0])


def test_auc_equals_scikit_survival(cohorts_of_two):
    train, (time, event), risk, survival, times = cohorts_of_two
    for estimate in (risk, 1 - survival):
        expected, mean = cumulative_dynamic_auc(structured(train), structured((time, event)), estimate, times)
        found, found_mean = time_dependent_auc(time, event, estimate, times, train=train)
        np.testing.assert_allclose(found, expected)
        assert found_mean == pytest.approx(mean)


def test_brier_equals_scikit_survival(cohorts_of_two):
    train, (time, event), _, survival, times = cohorts_of_two
    expected = brier_score(structured(train), structured((time, event)), survival, times)[1]
    np.testing.assert_allclose(survival_brier(time, event, survival, times, train=train), expected)
    integrated = integrated_brier_score(structured(train), structured((time, event)), survival, times)
    assert integrated_brier(time, event, survival, times, train=train) == pytest.approx(integrated)


def test_by_hand_without_censoring():
    time, event = [1, 2, 3, 4], [1, 1, 1, 1]
    # at 2.5 two had the event; one of four pairs of case and control is lost
    areas, mean = time_dependent_auc(time, event, [4, 2, 3, 1], [2.5])
    assert areas.tolist() == [0.75]
    assert mean == 0.75
    assert survival_brier(time, event, np.full((4, 1), 0.5), [2.5]).tolist() == [0.25]
    perfect = np.array([[0, 0], [0, 0], [1, 0], [1, 1]])
    assert integrated_brier(time, event, perfect, [2.5, 3.5]) == 0


def test_censored_samples_leave_after_their_time():
    # the one censored at 1 counts nowhere at 2, and the others count 1 / G(2) = 3 / 2 for it in the mean over three
    found = survival_brier([1, 2, 3], [0, 1, 1], np.full((3, 1), 0.5), [2], train=([1, 2, 3], [0, 1, 1]))
    assert found == pytest.approx([0.25])


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([2, 1], "times must increase"),
        ([0.5], "at 0.5 0 had the event and 4 are still without it; choose times between 1 and 4"),
        ([4], "at 4 4 had the event and 0 are still without it"),
        ([np.nan], "times holds 1 missing"),
    ],
)
def test_times_are_checked(times, message):
    with pytest.raises(ValueError, match=message):
        time_dependent_auc([1, 2, 3, 4], [1, 1, 1, 1], [1, 2, 3, 4], times)


@pytest.mark.parametrize(
    ("survival", "times", "message"),
    [
        (np.ones((2, 1)), [1], r"shape \(2, 1\) for 3 samples and 1 times"),
        (np.full((3, 1), 1.2), [1], "survival runs from 1.2 to 1.2; probabilities are needed"),
        (np.full((3, 1), np.nan), [1], "survival holds 3 missing"),
        (np.ones((3, 1)), [1], "no range to integrate over"),
    ],
)
def test_survival_is_checked(survival, times, message):
    with pytest.raises(ValueError, match=message):
        integrated_brier([1, 2, 3], [1, 1, 0], survival, times) if "range" in message else survival_brier(
            [1, 2, 3], [1, 1, 0], survival, times
        )


def test_all_censored_is_refused():
    with pytest.raises(ValueError, match="all 2 samples are censored"):
        survival_brier([1, 2], [0, 0], np.ones((2, 1)), [1])


def test_risk_columns_are_checked():
    with pytest.raises(ValueError, match="risk has 2 columns for 3 times"):
        time_dependent_auc([1, 2, 3, 4], [1, 1, 1, 1], np.ones((4, 2)), [1, 2, 3])
