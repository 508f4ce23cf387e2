"""Scores and their intervals against the functions of the package, entry by entry."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bulkformer_tl.metrics import pearson, rmse


@pytest.fixture
def scores(script):
    return script("scores")


@pytest.fixture
def predicted():
    rng = np.random.default_rng(0)
    truth = rng.normal(5, 1, (24, 30))
    mean = truth + rng.normal(0, 0.5, truth.shape)
    mean[:, 3] = 5.0  # a method that knows nothing of this gene
    truth[rng.random(truth.shape) < 0.3] = np.nan
    truth[:18, 4] = np.nan  # too few entries for a correlation
    return truth, mean, np.full(truth.shape, 0.5)


def reference(truth, mean, deviation):
    known = ~np.isnan(truth)
    per_gene = pearson(truth, mean, axis="per_gene")
    per_gene[3] = 0
    error = np.abs(mean - truth)[known]
    return {
        "r_sample": pearson(truth, mean, axis="per_sample").mean(),
        "r_gene": np.delete(per_gene, 4).mean(),
        "r_global": float(pearson(truth, mean)),
        "rmse": float(rmse(truth, mean)),
        "coverage90": (error <= 1.6449 * deviation[known]).mean(),
    }


def test_scores_are_those_of_the_package(scores, predicted):
    found = scores.draws(*predicted, np.ones((1, 24)))
    assert {name: values[0] for name, values in found.items()} == pytest.approx(reference(*predicted))


def test_a_weight_is_a_repetition(scores, predicted):
    weights = np.array([np.r_[2.0, 0.0, np.ones(22)]])
    chosen = np.r_[0, 0, 2:24]
    found = scores.draws(*predicted, weights)
    expected = reference(*(part[chosen] for part in predicted))
    assert {name: values[0] for name, values in found.items()} == pytest.approx(expected)


def test_a_constant_prediction_correlates_with_nothing(scores, predicted):
    truth = predicted[0]
    found = scores.draws(truth, np.full(truth.shape, 5.0), None, np.ones((1, 24)))
    assert found["r_sample"] == found["r_gene"] == found["r_global"] == 0
    assert "coverage90" not in found


def test_whole_files_and_seeds_are_drawn(scores):
    files, seeds = np.repeat(list("abcd"), 4), np.tile([0, 1], 8)
    weights = scores.row_weights(files, seeds)
    assert weights.shape == (1 + scores.N_BOOTSTRAP, 16)
    assert (weights[0] == 1).all()
    for file in "abcd":
        for seed in (0, 1):
            assert np.ptp(weights[:, (files == file) & (seeds == seed)], axis=1).max() == 0
    assert (np.ptp(weights[1:], axis=1) > 0).mean() > 0.9


@pytest.fixture
def parts():
    rows = {}
    rng = np.random.default_rng(0)
    for fold in (0, 1):
        noise = rng.normal(0, 0.3, 101)
        for name, error in {"gene mean": 0.9, "PCA 60": 0.6 + fold / 10, "ridge 300": 0.62, "mini": 0.5}.items():
            rows[fold, "genes", 0.5, name, "rmse"] = np.r_[error, (error + noise)[1:]]
            rows[fold, "genes", 0.5, name, "r_gene"] = np.r_[1 - error, (1 - error + noise)[1:]]
    index = pd.MultiIndex.from_tuples(rows, names=["fold", "setting", "hidden", "method", "score"])
    return pd.DataFrame(np.stack(list(rows.values())), index=index)


def test_summary_compares_with_the_best_linear_method(scores, parts):
    table = scores.summarise(parts, ("PCA 60", "ridge 300")).set_index(["fold", "method"])
    assert table.loc[0, "baseline"].unique() == ["PCA 60"]
    assert table.loc[1, "baseline"].unique() == ["ridge 300"]
    whole = table.loc["all"]
    assert whole["baseline"].unique() == ["ridge 300"]
    assert whole.loc["mini", "rmse"] == 0.5
    assert whole.loc["PCA 60", "rmse"] == 0.65
    # differences are paired: what all methods share in a resample leaves no width
    assert whole.loc["mini", ["difference", "difference_low", "difference_high"]].to_list() == [-0.12] * 3
    assert whole.loc["mini", "rmse_low"] < 0.45 < 0.55 < whole.loc["mini", "rmse_high"]
    assert np.isnan(whole.loc["ridge 300", "difference"])


def test_tables_show_all_folds_together(scores, parts):
    text = scores.render(scores.summarise(parts, ("PCA 60", "ridge 300")))
    lines = text.splitlines()
    assert sum(line.startswith("**") for line in lines) == 3
    assert "| method | 50% |" in lines
    assert sum(line.startswith("| mini | 0.500 [") for line in lines) == 2
    assert "| mini | -0.120 [-0.120, -0.120] |" in lines
    assert "nan" not in text
