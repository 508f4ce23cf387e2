"""Against scikit-survival, by hand, and against lifelines where it is installed."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from sksurv.metrics import concordance_index_censored, concordance_index_ipcw
from sksurv.util import Surv

from bulkformer_tl.metrics import _concordance, concordance_by_stratum, harrell_c, uno_c


@pytest.fixture(params=[0, 1, 2])
def cohort(request):
    """Times with ties, half of them censored, a risk with ties that predicts a little, and strata."""
    rng = np.random.default_rng(request.param)
    risk = np.round(rng.normal(size=70), 1)
    time = np.ceil(10 * rng.exponential(np.exp(-risk))) + 0.0
    event = rng.random(70) < 0.5
    # scikit-survival wants the last one followed to be censored
    time[-1], event[-1] = time.max() + 5, False
    return time, event, risk, rng.integers(3, size=70)


def test_harrell_equals_scikit_survival(cohort):
    time, event, risk, _ = cohort
    assert harrell_c(time, event, risk) == pytest.approx(concordance_index_censored(event, time, risk)[0])


@pytest.mark.skipif(
    importlib.util.find_spec("lifelines") is None, reason="lifelines, a second oracle, is not installed"
)
def test_harrell_equals_lifelines(cohort):
    from lifelines.utils import concordance_index

    time, event, risk, _ = cohort
    assert harrell_c(time, event, risk) == pytest.approx(concordance_index(time, -risk, event))


def test_harrell_by_hand():
    # pairs: (1, 2) and (1, 3) of the first event, (2, 3) of the second; the third is censored
    assert harrell_c([1, 2, 3], [1, 1, 0], [3, 1, 2]) == pytest.approx(2 / 3)
    assert harrell_c([1, 2, 3], [1, 1, 0], [1, 1, 1]) == 0.5
    # censored before the first event: comparable with nothing
    assert harrell_c([0.5, 1, 2], [0, 1, 1], [0, 5, 1]) == 1
    # equal times: the event comes before the censoring, two events are not compared
    assert harrell_c([1, 1, 1], [1, 1, 0], [2, 0, 1]) == 0.5


@pytest.mark.parametrize("tau", [None, 12.0, 25.0])
def test_uno_equals_scikit_survival(cohort, tau):
    time, event, risk, _ = cohort
    rng = np.random.default_rng(9)
    train_time, train_event = np.ceil(rng.exponential(20, size=90)), rng.random(90) < 0.4
    train_time[-1], train_event[-1] = 500, False
    for train in ((time, event), (train_time, train_event)):
        expected = concordance_index_ipcw(
            Surv.from_arrays(train[1], train[0]), Surv.from_arrays(event, time), risk, tau=tau
        )[0]
        assert uno_c(time, event, risk, train=train, tau=tau) == pytest.approx(expected)
    assert uno_c(time, event, risk, tau=tau) == uno_c(time, event, risk, train=(time, event), tau=tau)


def test_uno_without_censoring_is_harrell(cohort):
    time, _, risk, _ = cohort
    event = np.ones(70, dtype=bool)
    assert uno_c(time, event, risk) == pytest.approx(harrell_c(time, event, risk))


def test_strata_pool_their_pairs(cohort):
    time, event, risk, strata = cohort
    table = concordance_by_stratum(time, event, risk, strata)
    for row in table.itertuples():
        here = strata == row.stratum
        c, concordant, discordant, tied, _ = concordance_index_censored(event[here], time[here], risk[here])
        assert (row.c, row.pairs) == (pytest.approx(c), concordant + discordant + tied)
        assert (row.events, row.n) == (event[here].sum(), here.sum())
    pooled = (table["c"] * table["pairs"]).sum() / table["pairs"].sum()
    assert harrell_c(time, event, risk, strata=strata) == pytest.approx(pooled)


def test_a_risk_that_only_knows_the_cancer_scores_chance_within_it():
    """Between cancers it looks useful: the reason for within-cancer evaluation."""
    rng = np.random.default_rng(0)
    cancer = np.repeat([0, 1], 100)
    time, event = rng.exponential(1 / (1 + 9 * cancer)), np.ones(200)
    assert harrell_c(time, event, cancer) > 0.65
    assert harrell_c(time, event, cancer, strata=cancer) == 0.5
    assert uno_c(time, event, cancer, strata=cancer) == 0.5


def test_blocks_do_not_matter(cohort, monkeypatch):
    time, event, risk, strata = cohort
    expected = harrell_c(time, event, risk, strata=strata)
    monkeypatch.setattr(_concordance, "BLOCK", 7)
    assert harrell_c(time, event, risk, strata=strata) == pytest.approx(expected)


def test_a_stratum_without_pairs_is_nan():
    table = concordance_by_stratum([1, 2, 3, 4], [1, 1, 0, 0], [2, 1, 1, 2], ["a", "a", "b", "b"])
    assert table["c"].tolist()[0] == 1
    assert np.isnan(table["c"].tolist()[1])


@pytest.mark.parametrize(
    ("time", "event", "risk", "message"),
    [
        ([1, 2], [0, 0], [1, 2], "all 2 samples are censored"),
        ([1, 2], [0, 1], [1, 2], "no pair is comparable"),
        ([1, np.nan], [1, 1], [1, 2], "time holds 1 missing values of 2, the first at position 1"),
        ([1, -2], [1, 1], [1, 2], "time goes down to -2"),
        ([1, 2], [1, 2], [1, 2], r"event holds \[2.0\]; use True or 1"),
        ([1, 2], [1, np.nan], [1, 2], "event holds 1 missing"),
        ([1, 2], [1, 1], [1, np.inf], "risk holds 1 infinite"),
        ([1, 2], [1, 1], [1], "risk has 1 values for 2 samples"),
    ],
)
def test_refusals(time, event, risk, message):
    with pytest.raises(ValueError, match=message):
        harrell_c(time, event, risk)


def test_uno_refusals():
    with pytest.raises(ValueError, match=r"no event happened before tau=1; the first one is at 2"):
        uno_c([2, 3], [1, 1], [1, 2], tau=1)
    with pytest.raises(ValueError, match="every training sample is censored by 3"):
        uno_c([2, 3, 4], [1, 1, 1], [1, 2, 3], train=([1, 3], [0, 0]))
