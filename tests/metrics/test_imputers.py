from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.impute import KNNImputer

from bulkformer_tl.metrics import fit_imputer, imputer_names


@pytest.fixture
def low_rank() -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 40)) + 5
    return values + 0.05 * rng.normal(size=values.shape)


def hide(values: np.ndarray, rate: float) -> np.ndarray:
    return np.where(np.random.default_rng(1).random(values.shape) < rate, np.nan, values)


def test_gene_mean_leaves_missing_values_out():
    train = np.array([[1.0, np.nan, np.nan], [3.0, 4.0, np.nan]])
    predicted = fit_imputer("gene_mean", train)(np.full((2, 3), np.nan))
    np.testing.assert_array_equal(predicted, [[2, 4, np.nan], [2, 4, np.nan]])


def test_knn_equals_scikit_learn_where_entries_are_hidden(low_rank):
    train, test = low_rank[:40], hide(low_rank[40:], 0.3)
    reference = KNNImputer(n_neighbors=10).fit(train).transform(test)
    predicted = fit_imputer("knn", train)(test)
    np.testing.assert_allclose(predicted[np.isnan(test)], reference[np.isnan(test)], rtol=1e-10)


def test_pca_of_complete_samples_is_the_projection(low_rank):
    train, test = low_rank[:40], low_rank[40:]
    pca = PCA(n_components=20, svd_solver="full").fit(train)
    reference = pca.inverse_transform(pca.transform(test))
    np.testing.assert_allclose(fit_imputer("pca", train)(test), reference, atol=1e-3)


def test_factor_analysis_is_the_posterior_mean(low_rank):
    train, test = low_rank[:40], hide(low_rank[40:], 0.5)
    from bulkformer_tl.metrics._imputers import fit_factors

    means, loadings, left = fit_factors(train)
    assert loadings.shape == (40, 39)
    noise = left + left.mean() + 1e-12
    seen = ~np.isnan(test[0])
    # conditional mean of a normal distribution, by its full covariance
    covariance = loadings @ loadings.T + np.diag(noise)
    gain = covariance[:, seen] - np.diag(noise)[:, seen]
    expected = means + gain @ np.linalg.solve(covariance[np.ix_(seen, seen)], test[0][seen] - means[seen])
    np.testing.assert_allclose(fit_imputer("factor_analysis", train)(test)[0], expected, rtol=1e-8)


@pytest.mark.parametrize("name", ["knn", "pca", "factor_analysis"])
def test_structure_is_better_than_the_mean(low_rank, name):
    train, test = low_rank[:40], hide(low_rank[40:], 0.3)
    hidden = np.isnan(test)
    error = {
        method: np.sqrt(np.mean((fit_imputer(method, train)(test) - low_rank[40:])[hidden] ** 2))
        for method in (name, "gene_mean")
    }
    assert error[name] < 0.6 * error["gene_mean"]


@pytest.mark.parametrize("name", imputer_names())
def test_samples_do_not_depend_on_each_other(low_rank, name):
    train, test = low_rank[:40], hide(low_rank[40:], 0.3)
    impute = fit_imputer(name, train)
    np.testing.assert_allclose(impute(test)[3:5], impute(test[3:5]), rtol=1e-12)


def test_bad_requests(low_rank):
    with pytest.raises(ValueError, match=r"no imputation method 'magic'; choose among \['gene_mean'"):
        fit_imputer("magic", low_rank)
    with pytest.raises(ValueError, match="'knn' needs at least 2 training samples, found 1"):
        fit_imputer("knn", low_rank[:1])
