from __future__ import annotations

import numpy as np
import pytest

from bulkformer_tl.metrics import (
    Protocol,
    compare_survival,
    concordance_by_stratum,
    evaluation_times,
    harrell_c,
    integrated_brier,
    resample,
    time_dependent_auc,
    uno_c,
)

QUICK = Protocol(n_bootstrap=100)


@pytest.fixture
def cohort():
    """Outcomes with ties, a good risk with ties and a useless one, survival, strata and folds."""
    rng = np.random.default_rng(0)
    good = np.round(rng.normal(size=150), 1)
    time = np.ceil(20 * rng.exponential(np.exp(-good)))
    event = rng.random(150) < 0.6
    risks = {"good": good, "bad": rng.normal(size=150)}
    return time, event, risks, rng.integers(3, size=150), rng.integers(4, size=150)


def value(table, name, metric, column="mean"):
    (found,) = table.loc[(table["representation"] == name) & (table["metric"] == metric), column]
    return found


def test_scores_equal_those_of_one_call_each(cohort):
    time, event, risks, strata, folds = cohort
    at = evaluation_times(time, event)
    table, _ = compare_survival(time, event, risks, strata=strata, folds=folds, protocol=QUICK)
    for name, risk in risks.items():
        assert value(table, name, "harrell_c") == pytest.approx(harrell_c(time, event, risk, strata=folds))
        assert value(table, name, "uno_c") == pytest.approx(uno_c(time, event, risk, strata=folds, tau=at[-1]))
        cells = folds * 3 + strata
        assert value(table, name, "harrell_c_within") == pytest.approx(harrell_c(time, event, risk, strata=cells))
    alone, _ = compare_survival(time, event, risks, strata=strata, protocol=QUICK)
    each = concordance_by_stratum(time, event, risks["good"], strata)["c"]
    assert value(alone, "good", "harrell_c_macro") == pytest.approx(each.mean())
    # the area of one fold is that of the function, but for the censoring that both take from all samples
    assert value(alone, "good", "auc") == pytest.approx(time_dependent_auc(time, event, risks["good"], at)[1])
    axes = dict(zip(table["metric"], table["axis"], strict=True))
    assert axes == {
        "harrell_c_within": "stratum_pairs",
        "harrell_c_macro": "strata",
        "harrell_c": "fold_pairs",
        "uno_c": "fold_pairs",
        "auc": "fold_pairs",
    }


def test_brier_score_equals_the_function(cohort):
    time, event, risks, _, _ = cohort
    at = evaluation_times(time, event)
    survival = {name: np.exp(-at / 25 * np.exp(risk)[:, None]) for name, risk in risks.items()}
    table, _ = compare_survival(time, event, risks, survival=survival, times=at, protocol=QUICK)
    for name in risks:
        expected = integrated_brier(time, event, survival[name], at)
        assert value(table, name, "integrated_brier") == pytest.approx(expected)
    assert "harrell_c_within" not in set(table["metric"])


def test_draws_are_scores_of_the_resampled_samples(cohort):
    time, event, risks, strata, folds = cohort
    protocol = Protocol(n_bootstrap=100, level=0.5)
    table, differences = compare_survival(
        time, event, risks, strata=strata, folds=folds, baselines=["bad"], protocol=protocol
    )
    weights = resample(150, n_bootstrap=100, folds=folds, rng=0).astype(int)
    drawn = {}
    for name in risks:
        rows = [np.repeat(np.arange(150), counts) for counts in weights]
        drawn[name] = np.array(
            [harrell_c(time[r], event[r], risks[name][r], strata=(folds * 3 + strata)[r]) for r in rows]
        )
    low, high = np.quantile(drawn["good"], [0.25, 0.75])
    assert value(table, "good", "harrell_c_within", "low") == pytest.approx(low)
    assert value(table, "good", "harrell_c_within", "high") == pytest.approx(high)
    row = differences[differences["metric"] == "harrell_c_within"].iloc[0]
    low, high = np.quantile(drawn["good"] - drawn["bad"], [0.25, 0.75])
    assert (row["low"], row["high"]) == (pytest.approx(low), pytest.approx(high))
    assert (row["representation"], row["baseline"], row["axis"], row["n"]) == ("good", "bad", "stratum_pairs", 150)
    assert row["p"] == pytest.approx(2 / 101)


def test_times_end_where_few_are_followed():
    time, event = np.arange(1.0, 101), np.arange(100) % 2 == 0
    assert evaluation_times(time, event).max() <= 91
    assert (np.diff(evaluation_times(time, event)) > 0).all()
    censored_early = np.r_[np.ones(95), 50 * np.ones(5)], np.r_[np.ones(4), np.zeros(91), np.ones(5)]
    assert evaluation_times(*censored_early).tolist() == [1]


def test_bad_input_is_refused(cohort):
    time, event, risks, _, _ = cohort
    with pytest.raises(ValueError, match=r"baselines \['pca'\] are not among the risks"):
        compare_survival(time, event, risks, baselines=["pca"])
    with pytest.raises(ValueError, match="'bad' has no survival"):
        compare_survival(time, event, risks, survival={"good": np.ones((150, 9))})
    with pytest.raises(ValueError, match=r"shape \(150, 2\) for 150 samples and 1 times"):
        compare_survival(time, event, {"good": risks["good"]}, survival={"good": np.ones((150, 2))}, times=[9])
    with pytest.raises(ValueError, match="no pair is comparable"):
        compare_survival([1, 2, 3], [1, 1, 1], {"a": [1, 2, 3]}, folds=[0, 1, 2])
    with pytest.raises(ValueError, match="good holds 1 missing"):
        compare_survival(time, event, {"good": np.r_[np.nan, risks["good"][1:]]})
