"""Against scipy and scikit-learn along every axis, by hand, and under resampling weights."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score, root_mean_squared_error

from bulkformer_tl.metrics import pearson, r2, rmse, spearman
from bulkformer_tl.metrics._regression import regression_scores

REFERENCE = {
    pearson: lambda y, p: stats.pearsonr(y, p).statistic,
    spearman: lambda y, p: stats.spearmanr(y, p).statistic,
    rmse: root_mean_squared_error,
    r2: r2_score,
}
each_score = pytest.mark.parametrize("score", REFERENCE)


@pytest.fixture
def pair():
    """Truth and prediction of 30 samples and 8 genes with ties and missing entries."""
    rng = np.random.default_rng(0)
    truth = np.round(rng.normal(size=(30, 8)), 1) + np.arange(8) * 3
    prediction = truth + rng.normal(size=(30, 8))
    truth[rng.random((30, 8)) < 0.1] = np.nan
    prediction[rng.random((30, 8)) < 0.1] = np.nan
    return truth, prediction


def known(truth, prediction):
    keep = ~(np.isnan(truth) | np.isnan(prediction))
    return truth[keep], prediction[keep]


@each_score
def test_global(score, pair):
    assert score(*pair) == pytest.approx(REFERENCE[score](*known(*pair)))
    assert score(*pair).shape == ()


@each_score
def test_per_gene_and_per_sample(score, pair):
    truth, prediction = pair
    genes = [REFERENCE[score](*known(truth[:, g], prediction[:, g])) for g in range(8)]
    np.testing.assert_allclose(score(truth, prediction, axis="per_gene"), genes)
    samples = [REFERENCE[score](*known(truth[i], prediction[i])) for i in range(30)]
    np.testing.assert_allclose(score(truth, prediction, axis="per_sample"), samples)


@each_score
def test_per_group(score, pair):
    truth, prediction = pair
    drugs = np.repeat(["b", "a", "c"], 10)
    expected = [REFERENCE[score](*known(truth[drugs == d], prediction[drugs == d])) for d in "abc"]
    np.testing.assert_allclose(score(truth, prediction, axis="per_group", groups=drugs), expected)
    one = score(truth[:, 0], prediction[:, 0], axis="per_group", groups=drugs)
    assert one.shape == (3,)


def test_the_axis_decides():
    """Gene means alone give a high global correlation and none within genes, as audits found."""
    rng = np.random.default_rng(0)
    mean = np.linspace(0, 10, 50)
    truth = mean + rng.normal(size=(40, 50))
    prediction = mean + rng.normal(size=(40, 50))
    assert pearson(truth, prediction) > 0.85
    assert abs(pearson(truth, prediction, axis="per_gene").mean()) < 0.1


def test_by_hand():
    truth, prediction = [1.0, 2.0, 3.0, 6.0], [1.0, 3.0, 2.0, 6.0]
    # squared errors 0, 1, 1, 0; squared distances from the mean 3 are 4, 1, 0, 9
    assert rmse(truth, prediction) == pytest.approx(np.sqrt(0.5))
    assert r2(truth, prediction) == pytest.approx(1 - 2 / 14)
    assert spearman(truth, prediction) == pytest.approx(0.8)


def test_units_that_define_nothing_are_nan(pair):
    truth, prediction = pair
    truth[:, 0] = 2.0
    prediction[:, 1] = 0.3
    truth[:, 2] = np.nan
    truth[1:, 3] = np.nan
    assert np.isnan(pearson(truth, prediction, axis="per_gene")).tolist() == [True] * 4 + [False] * 4
    assert np.isnan(r2(truth, prediction, axis="per_gene")).tolist() == [True, False, True, True] + [False] * 4
    assert np.isnan(rmse(truth, prediction, axis="per_gene")).tolist() == [False, False, True] + [False] * 5


def test_constant_prediction_has_no_correlation():
    assert np.isnan(pearson([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]))
    assert r2([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]) == 0


def test_perfect_correlation_is_one():
    truth = np.array([0.1, 0.2, 0.7])
    assert pearson(truth, truth * 3) == pytest.approx(1)
    assert pearson(truth, truth * 3) <= 1


def test_weights_are_repetitions(pair):
    truth, prediction = known(*pair)
    weights = np.random.default_rng(1).multinomial(len(truth), np.full(len(truth), 1 / len(truth)), 4).astype(float)
    found = regression_scores(truth, prediction, weights)
    for row, weight in enumerate(weights.astype(int)):
        drawn = np.repeat(truth, weight), np.repeat(prediction, weight)
        expected = {function.__name__: reference(*drawn) for function, reference in REFERENCE.items()}
        assert {name: values[row] for name, values in found.items()} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("truth", "prediction", "options", "message"),
    [
        ([1.0, 2.0], [1.0], {}, r"shape \(2,\) and prediction \(1,\)"),
        ([1.0, 2.0], [1.0, 2.0], {"axis": "per_gene"}, "needs samples by genes"),
        ([1.0, 2.0], [1.0, 2.0], {"axis": "per_group"}, "groups do not fit"),
        ([1.0, 2.0], [1.0, 2.0], {"groups": [0, 1]}, "groups do not fit"),
        ([1.0, 2.0], [1.0, 2.0], {"axis": "rows"}, "axis is 'rows'"),
        ([3.0, 3.0], [1.0, 2.0], {}, r"truth is constant \(3\)"),
        ([np.nan, 3.0], [1.0, np.nan], {}, "no entry is known in both"),
        ([1.0, 2.0], [1.0, 2.0], {"axis": "per_group", "groups": ["a", None]}, "groups holds 1 missing"),
    ],
)
def test_refusals(truth, prediction, options, message):
    with pytest.raises(ValueError, match=message):
        pearson(truth, prediction, **options)


def test_categories_are_refused():
    with pytest.raises(TypeError, match="truth must be numbers and holds 'high'; for categories"):
        rmse(["high", "low"], [1.0, 2.0])


def test_rmse_needs_an_entry():
    with pytest.raises(ValueError, match="no entry is known"):
        rmse([np.nan], [1.0])
