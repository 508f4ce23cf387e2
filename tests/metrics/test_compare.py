from __future__ import annotations

import numpy as np
import pytest

from bulkformer_tl.metrics import Protocol, auroc, compare, pearson
from bulkformer_tl.metrics import _compare as module

QUICK = Protocol(n_bootstrap=300)


@pytest.fixture
def binary():
    """Truth, five folds, and shares of a good, a fair and a constant prediction."""
    rng = np.random.default_rng(0)
    truth = np.tile([0, 1], 100)
    folds = np.repeat(np.arange(5), 40)
    signals = {"good": 2.0 * truth, "fair": 0.7 * truth, "constant": np.zeros(200)}
    noise = {"good": rng.normal(size=200), "fair": rng.normal(size=200), "constant": np.zeros(200)}
    shares = {name: 1 / (1 + np.exp(-signals[name] - noise[name])) for name in signals}
    return truth, folds, {name: np.stack([1 - share, share], axis=1) for name, share in shares.items()}


def row(table, **keys):
    found = table[np.logical_and.reduce([table[name] == value for name, value in keys.items()])]
    assert len(found) == 1
    return found.iloc[0]


def test_scores_are_means_over_folds(binary):
    truth, folds, predictions = binary
    scores, _ = compare(truth, predictions, folds=folds, protocol=QUICK)
    each = [auroc(truth[folds == f], predictions["good"][folds == f]) for f in range(5)]
    found = row(scores, representation="good", metric="auroc")
    assert found["axis"] == "fold"
    assert found["mean"] == pytest.approx(np.mean(each))
    assert found["fold_sd"] == pytest.approx(np.std(each, ddof=1))
    assert found["low"] < found["mean"] < found["high"]
    assert found["n"] == 200
    assert list(scores.columns) == ["representation", "metric", "axis", "mean", "low", "high", "n", "fold_sd"]


def test_constant_predictions_score_chance_over_folds(binary):
    """Pooled, a prior that follows the training folds would rank against the truth."""
    truth, folds, predictions = binary
    prior = np.repeat([0.1, 0.3, 0.5, 0.7, 0.9], 40)
    predictions["prior"] = np.stack([1 - prior, prior], axis=1)
    scores, _ = compare(truth, predictions, folds=folds, protocol=QUICK)
    found = row(scores, representation="prior", metric="auroc")
    assert (found["mean"], found["low"], found["high"]) == (0.5, 0.5, 0.5)


def test_folds_without_every_class_are_pooled(binary):
    truth, _, predictions = binary
    scores, _ = compare(truth, predictions, folds=truth, protocol=QUICK)
    found = row(scores, representation="good", metric="auroc")
    assert found["axis"] == "pooled"
    assert found["mean"] == pytest.approx(auroc(truth, predictions["good"]))
    assert np.isnan(found["fold_sd"])


def test_differences_are_paired_and_corrected(binary):
    truth, folds, predictions = binary
    predictions["copy"] = predictions["good"]
    _, differences = compare(truth, predictions, folds=folds, baselines=["fair", "copy", "constant"], protocol=QUICK)
    assert set(differences["representation"]) == {"good"}
    found = differences[differences["metric"] == "auroc"].set_index("baseline")
    assert found.loc["copy", ["difference", "low", "high"]].tolist() == [0, 0, 0]
    assert found.loc["copy", "p"] == 1
    assert found.loc["fair", "low"] > 0
    assert found.loc["constant", "p"] == pytest.approx(2 / 301)
    assert found.loc["constant", "p_holm"] == pytest.approx(3 * 2 / 301)
    # an interval for each of three baselines is wider than one for a single baseline
    _, single = compare(truth, predictions, folds=folds, baselines=["fair"], protocol=QUICK)
    alone = row(single, representation="good", metric="auroc")
    assert alone["low"] > found.loc["fair", "low"]


def test_what_is_undefined_is_nan(binary):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=50)
    predictions = {"model": truth + rng.normal(size=50), "mean": np.zeros(50)}
    scores, differences = compare(truth, predictions, baselines=["mean"], protocol=QUICK)
    assert row(scores, representation="model", metric="pearson")["mean"] == pytest.approx(
        float(pearson(truth, predictions["model"]))
    )
    assert np.isnan(row(scores, representation="mean", metric="pearson")[["mean", "low", "high"]].astype(float)).all()
    assert np.isnan(row(differences, metric="pearson")[["difference", "low", "p", "p_holm"]].astype(float)).all()
    assert row(differences, metric="rmse")["difference"] < 1


def test_groups_widen_intervals():
    """Ten copies of each sample carry no more than one."""
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.normal(size=30), 10)
    predictions = {"model": np.repeat(truth[::10] + rng.normal(size=30), 10)}
    width = {}
    for name, groups in (("samples", None), ("groups", np.repeat(np.arange(30), 10))):
        found = row(compare(truth, predictions, groups=groups, protocol=QUICK)[0], metric="pearson")
        width[name] = found["high"] - found["low"]
    assert width["groups"] == pytest.approx(np.sqrt(10) * width["samples"], rel=0.25)


def test_leave_one_group_out_draws_folds():
    rng = np.random.default_rng(0)
    folds = np.repeat(np.arange(8), 10)
    truth = rng.normal(size=80)
    predictions = {"model": truth + rng.normal(size=80)}
    found = row(compare(truth, predictions, folds=folds, groups=folds, protocol=QUICK)[0], metric="pearson")
    each = [float(pearson(truth[folds == f], predictions["model"][folds == f])) for f in range(8)]
    assert found["mean"] == pytest.approx(np.mean(each))
    assert min(each) < found["low"] < found["mean"] < found["high"] < max(each)


def test_blocks_do_not_matter(binary, monkeypatch):
    truth, folds, predictions = binary
    expected, _ = compare(truth, predictions, folds=folds, protocol=QUICK)
    monkeypatch.setattr(module, "BLOCK", 2000)
    found, _ = compare(truth, predictions, folds=folds, protocol=QUICK)
    np.testing.assert_allclose(found["low"], expected["low"])


def test_coverage_of_intervals():
    """Of 95 % intervals of a correlation of 0.6, about as many hold it."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        truth = rng.normal(size=80)
        noise = rng.normal(size=80)
        predictions = {"model": 0.6 * truth + 0.8 * noise}
        found = row(compare(truth, predictions, protocol=QUICK)[0], metric="pearson")
        held += found["low"] < 0.6 < found["high"]
    assert 87 <= held <= 99


@pytest.mark.parametrize(
    ("predictions", "options", "message"),
    [
        ({"a": np.zeros(3)}, {"baselines": ["pca"]}, r"baselines \['pca'\] are not among the predictions \['a'\]"),
        ({"a": np.zeros(2)}, {}, r"'a' has the shape \(2,\) with 0 NaN for 3 samples"),
        ({"a": np.array([0, 1, np.nan])}, {}, "with 1 NaN for 3 samples"),
        ({"a": np.zeros(3), "b": np.zeros((3, 2))}, {}, "all of them numbers or all of them probabilities"),
        ({"a": np.zeros(3)}, {"folds": [0, 1]}, "folds has 2 values for 3 samples"),
    ],
)
def test_refusals(predictions, options, message):
    with pytest.raises(ValueError, match=message):
        compare([0.0, 1.0, 2.0], predictions, protocol=QUICK, **options)
