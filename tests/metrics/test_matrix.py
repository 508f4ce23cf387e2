from __future__ import annotations

import numpy as np
import pytest

from bulkformer_tl.metrics import Protocol, auroc, pearson, rmse, spearman
from bulkformer_tl.metrics._complete import additive, column_mean, nearest_column
from bulkformer_tl.metrics._matrix import Weights, compare_matrices, draw_weights

AXES = ("per_drug", "per_line")


@pytest.fixture
def given():
    """Return a truth with gaps, and a prediction of it."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(30, 5)) + rng.normal(0, 3, 5)
    predicted = truth + rng.normal(size=truth.shape)
    truth[rng.random(truth.shape) < 0.2] = np.nan
    return truth, predicted


def compare(truth, predictions, folds, weights=None, *, classes=False, baselines=()):
    if weights is None:
        weights = Weights(*(np.ones((2, n)) for n in truth.shape))
    return compare_matrices(
        truth, predictions, folds=folds, weights=weights, axes=AXES, classes=classes, baselines=baselines, level=0.95
    )


def value(scores, metric, axis, name="model"):
    row = (scores["representation"] == name) & (scores["metric"] == metric) & (scores["axis"] == axis)
    (found,) = scores.loc[row, "mean"]
    return found


def test_one_fold_gives_the_plain_scores(given):
    truth, predicted = given
    scores, _, units = compare(truth, {"model": predicted}, np.where(np.isnan(truth), -1, 0))
    for name, score in (("pearson", pearson), ("spearman", spearman), ("rmse", rmse)):
        each = score(truth, predicted, axis="per_gene")
        np.testing.assert_allclose(units["per_drug"][name], each)
        assert value(scores, name, "per_drug") == pytest.approx(each.mean())
        assert value(scores, name, "per_line") == pytest.approx(np.nanmean(score(truth, predicted, axis="per_sample")))
        assert value(scores, name, "global") == pytest.approx(score(truth, predicted))
    assert scores.set_index("axis")["n"].to_dict() == {
        "per_drug": 5,
        "per_line": 30,
        "global": (~np.isnan(truth)).sum(),
    }
    np.testing.assert_array_equal(units["per_drug"]["n"], (~np.isnan(truth)).sum(axis=0))


def test_entries_are_compared_within_their_fold(given):
    truth, predicted = given
    folds = np.where(np.isnan(truth), -1, np.arange(30)[:, None] % 3)
    # another fit has another level, which is no merit and no fault of a correlation within folds
    shifted = predicted + 10 * (np.arange(30)[:, None] % 3)
    plain, _, _ = compare(truth, {"model": predicted}, folds)
    other, _, units = compare(truth, {"model": shifted}, folds)
    for name in ("pearson", "spearman"):
        assert value(plain, name, "per_drug") == pytest.approx(value(other, name, "per_drug"))
    drug, fold = 2, folds[:, 2]
    one, two = truth[:, drug].copy(), predicted[:, drug].copy()
    for part in range(3):
        here = fold == part
        one[here] -= one[here].mean()
        two[here] -= two[here].mean()
    known = fold >= 0
    assert units["per_drug"]["pearson"][drug] == pytest.approx(np.corrcoef(one[known], two[known])[0, 1])
    assert value(other, "pearson", "global") == pytest.approx(pearson(truth, shifted))


def test_a_mean_of_other_folds_has_no_correlation(given):
    truth, _ = given
    folds = np.where(np.isnan(truth), -1, np.arange(30)[:, None] % 3)
    means = np.empty_like(truth)
    for fold in range(3):
        rows = np.arange(30) % 3 == fold
        means[rows] = column_mean(np.where(rows[:, None], np.nan, truth))[rows]
    scores, differences, _ = compare(truth, {"model": truth, "drug_mean": means}, folds, baselines=["drug_mean"])
    assert np.isnan(value(scores, "pearson", "per_drug", "drug_mean"))
    # the artefact: nothing is known of a line, and the correlation over all pairs is high
    assert value(scores, "pearson", "global", "drug_mean") > 0.7
    assert differences.loc[differences["metric"] == "rmse", "difference"].lt(0).all()
    assert list(differences["n"].unique()) == [5, 30, (~np.isnan(truth)).sum()]


@pytest.mark.parametrize("classes", [False, True])
def test_a_weight_is_a_repetition(given, classes):
    truth, predicted = given
    if classes:
        truth = np.where(np.isnan(truth), np.nan, truth > np.nanmedian(truth))
    folds = np.where(np.isnan(truth), -1, np.arange(30)[:, None] % 2)
    rng = np.random.default_rng(1)
    rows, columns = rng.integers(0, 3, 30), rng.integers(1, 3, 5)
    weights = Weights(np.stack([np.ones(30), rows, rows]), np.stack([np.ones(5), columns, columns]))
    scores, _, _ = compare(truth, {"model": predicted}, folds, weights, classes=classes)
    again = np.ix_(np.repeat(np.arange(30), rows), np.repeat(np.arange(5), columns))
    expected, _, _ = compare(truth[again], {"model": predicted[again]}, folds[again], classes=classes)
    keep = scores["metric"] != "spearman"  # its ranks are those of the data as they are
    np.testing.assert_allclose(scores["low"][keep], expected["mean"][keep])


def test_classes_count_pairs_within_folds(given):
    truth, predicted = given
    truth = np.where(np.isnan(truth), np.nan, truth > np.nanmedian(truth, axis=0))
    one = np.where(np.isnan(truth), -1, 0)
    scores, _, units = compare(truth, {"model": predicted}, one, classes=True)
    known = one[:, 0] >= 0
    assert units["per_drug"]["auroc"][0] == pytest.approx(auroc(truth[known, 0] > 0, predicted[known, 0]))
    assert value(scores, "brier", "global") == pytest.approx(np.nanmean((truth - predicted) ** 2))
    folds = np.where(np.isnan(truth), -1, np.arange(30)[:, None] % 2)
    shifted = predicted + 10 * (np.arange(30)[:, None] % 2)
    plain, other = (compare(truth, {"model": found}, folds, classes=True)[0] for found in (predicted, shifted))
    assert value(plain, "auroc", "per_drug") == value(other, "auroc", "per_drug")


def test_what_is_unseen_is_resampled():
    protocol = Protocol(n_bootstrap=100)
    groups = np.repeat(np.arange(10), 3)
    rows, columns = draw_weights(groups, np.arange(4), protocol, which=["rows"])
    assert (rows[0] == 1).all()
    assert (columns == 1).all()
    assert (rows[:, ::3] == rows[:, 1::3]).all()
    both = draw_weights(groups, np.arange(4), protocol, which=["rows", "columns"])
    np.testing.assert_array_equal(both.rows, rows)
    assert (both.columns[1:] != 1).any()


def test_column_mean(given):
    truth, _ = given
    truth[:, 3] = np.nan
    found = column_mean(truth)
    np.testing.assert_allclose(found[0, :3], np.nanmean(truth[:, :3], axis=0))
    np.testing.assert_allclose(found[:, 3], np.nanmean(truth[:, [0, 1, 2, 4]], axis=0).mean())


def test_additive_is_least_squares(given):
    truth, _ = given
    rows, columns = np.nonzero(~np.isnan(truth))
    design = np.hstack([np.eye(30)[rows], np.eye(5)[columns]])
    effects = np.linalg.lstsq(design, truth[rows, columns], rcond=None)[0]
    np.testing.assert_allclose(additive(truth), effects[:30, None] + effects[30:], atol=1e-6)


def test_additive_keeps_the_mean_of_the_line_where_the_drug_is_new(given):
    truth, _ = given
    truth[:, 4] = np.nan
    found = additive(truth)
    assert np.corrcoef(found[:, 4], found[:, 0])[0, 1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("features", "nearest"),
    [
        # Tanimoto: 2 of 3 bits shared beat 2 of 6, at the same number of bits in common
        ([[1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 1, 1, 1, 1]], 1),
        ([[0.0, 1.0], [5.0, 1.0], [0.5, 1.1]], 2),
    ],
)
def test_nearest_column(features, nearest):
    known = np.array([[np.nan, 1.0, 4.0], [np.nan, 2.0, 6.0], [np.nan, 3.0, np.nan]])
    found = nearest_column(known, np.array(features, dtype=np.float32))
    np.testing.assert_allclose(found[:2, 0], known[:2, nearest])
    assert np.isfinite(found).all()
