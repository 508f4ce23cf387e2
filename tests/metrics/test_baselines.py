from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

from bulkformer_tl.metrics import Split, baseline, baseline_names, fit_predict, inner_folds, k_fold, probe
from bulkformer_tl.metrics._heads import grid_of

SPLIT = Split(np.arange(0, 60), np.arange(60, 80), "hand")


@pytest.fixture
def cohort():
    """Expression of 80 samples with one informative gene, classes and a number that follow it, and covariates."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(80, 30))
    number = 3 * values[:, 0] + 0.3 * rng.normal(size=80)
    covariates = pd.DataFrame({"age": 50 + 5 * number, "sex": rng.choice(["F", "M"], 80)})
    return values, (number > 0).astype(int), number, covariates


def share_right(shares, codes):
    return (shares.argmax(axis=1) == codes[SPLIT.test]).mean()


def test_trivial_baselines_know_nothing(cohort):
    values, codes, number, _ = cohort
    majority = baseline("majority", task="classification", shape=(60, 30))
    shares = fit_predict(majority, values, codes, SPLIT, n_classes=2)
    assert np.allclose(shares[:, 1], codes[:60].mean())
    mean = fit_predict(baseline("mean", task="regression", shape=(60, 30)), values, number, SPLIT)
    assert np.allclose(mean, number[:60].mean())


@pytest.mark.parametrize("name", ["raw", "hvg", "pca", "elastic_net", "random_forest", "knn"])
def test_baselines_learn_from_expression(cohort, name):
    values, codes, number, _ = cohort
    values[:, 0] *= 5
    if name in ("pca", "knn"):
        # components and distances see what many genes share
        values[:, 1:20] = values[:, :1] / 5 + 0.5 * values[:, 1:20]
    values[0, 1] = np.nan
    classify = baseline(name, task="classification", shape=(60, 30))
    assert share_right(fit_predict(classify, values, codes, SPLIT, n_classes=2), codes) >= 0.8
    regress = baseline(name, task="regression", shape=(60, 30))
    assert np.corrcoef(fit_predict(regress, values, number, SPLIT), number[60:])[0, 1] > 0.7


def test_covariates_are_read_from_a_frame(cohort):
    _, codes, number, covariates = cohort
    covariates.loc[3, "age"] = np.nan
    covariates.loc[79, "sex"] = "unseen"
    classify = baseline("covariates", task="classification", shape=(60, 2))
    assert share_right(fit_predict(classify, covariates, codes, SPLIT, n_classes=2), codes) >= 0.8
    regress = baseline("covariates", task="regression", shape=(60, 2))
    assert np.corrcoef(fit_predict(regress, covariates, number, SPLIT), number[60:])[0, 1] > 0.9


@pytest.mark.parametrize("head", ["linear", "elastic_net", "random_forest", "knn", "mlp"])
def test_heads_learn_from_an_embedding(cohort, head):
    _, codes, number, _ = cohort
    embedding = np.stack([number, number**2, np.ones(80)], axis=1)
    classify = probe(head, task="classification", shape=(60, 3))
    assert share_right(fit_predict(classify, embedding, codes, SPLIT, n_classes=2), codes) >= 0.75
    regress = probe(head, task="regression", shape=(60, 3))
    assert np.corrcoef(fit_predict(regress, embedding, number, SPLIT), number[60:])[0, 1] > 0.7


def test_raw_is_a_scaled_linear_model(cohort):
    values, codes, number, _ = cohort
    scaler = StandardScaler().fit(values[:60])
    train, test = scaler.transform(values[:60]), scaler.transform(values[60:])
    logistic = LogisticRegression(C=0.1, max_iter=2000).fit(train, codes[:60])
    found = fit_predict(baseline("raw", task="classification", shape=(60, 30)), values, codes, SPLIT, n_classes=2)
    np.testing.assert_allclose(found, logistic.predict_proba(test), atol=1e-6)
    ridge = Ridge(alpha=100.0).fit(train, number[:60])
    found = fit_predict(baseline("raw", task="regression", shape=(60, 30)), values, number, SPLIT)
    np.testing.assert_allclose(found, ridge.predict(test), atol=1e-8)


def test_an_embedding_keeps_its_proportions(cohort):
    """Columns are divided by one number: the root of their mean variance."""
    values, codes, _, _ = cohort
    embedding = values[:, :3] * np.array([10.0, 1.0, 0.01])
    centred = embedding - embedding[:60].mean(axis=0)
    scaled = centred / np.sqrt(embedding[:60].var(axis=0).mean())
    logistic = LogisticRegression(C=0.1, max_iter=2000).fit(scaled[:60], codes[:60])
    found = fit_predict(probe(task="classification", shape=(60, 3)), embedding, codes, SPLIT, n_classes=2)
    np.testing.assert_allclose(found, logistic.predict_proba(scaled[60:]), atol=1e-6)
    with pytest.raises(ValueError, match='scale is \'rows\'; use "common" or "each"'):
        probe(task="classification", shape=(60, 3), scale="rows")


def test_rotation_changes_nothing():
    """With more genes than samples the penalised fit is the same in the space of the samples."""
    rng = np.random.default_rng(0)
    values, codes = rng.normal(size=(80, 200)), rng.integers(3, size=80)
    rotated = baseline("raw", task="classification", shape=(60, 200))
    assert "rotate" in rotated.named_steps
    plain = probe(task="classification", shape=(60, 10), scale="each")
    assert "rotate" not in plain.named_steps
    expected = fit_predict(plain, values, codes, SPLIT, n_classes=3)
    np.testing.assert_allclose(fit_predict(rotated, values, codes, SPLIT, n_classes=3), expected, atol=1e-3)


def test_pca_is_fitted_on_training_samples(cohort):
    values, _, number, _ = cohort
    shape = (60, 30)
    scaled = StandardScaler().fit(values[:60])
    pca = PCA(30).fit(scaled.transform(values[:60]))
    train, test = (pca.transform(scaled.transform(part)) for part in (values[:60], values[60:]))
    expected = Ridge(alpha=100.0).fit(train, number[:60]).predict(test)
    found = fit_predict(baseline("pca", task="regression", shape=shape), values, number, SPLIT)
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_hvg_keeps_the_most_variable(cohort, monkeypatch):
    values, codes, _, _ = cohort
    monkeypatch.setattr("bulkformer_tl.metrics._heads.N_GENES", 3)
    values[:, [4, 9, 11]] *= 10
    # variable among the samples that are held out only
    values[60:, 20] *= 1000
    model = baseline("hvg", task="classification", shape=(60, 30)).fit(values[:60], codes[:60])
    assert np.flatnonzero(model.named_steps["hvg"].get_support()).tolist() == [4, 9, 11]


def test_inner_folds_choose_the_penalty(cohort):
    rng = np.random.default_rng(0)
    values, number = rng.normal(size=(80, 30)), rng.normal(size=80)
    inner = inner_folds(SPLIT, n_splits=3)
    model = probe(task="regression", shape=(40, 30))
    found = fit_predict(model, values, number, SPLIT, inner=inner, grid=grid_of("linear", "regression"))
    # of noise the largest penalty predicts best
    model.set_params(head__alpha=1e4)
    assert grid_of("linear", "regression")["alpha"][-1] == 1e4
    np.testing.assert_allclose(found, fit_predict(model, values, number, SPLIT))


def test_inner_folds_may_lack_a_class(cohort):
    values, *_ = cohort
    groups = np.repeat(np.arange(20), 4)
    codes = np.repeat([0, 0, 0, 0, 1, 1, 1, 1, 2, 2] * 2, 4)
    split = k_fold(80, n_splits=2, groups=groups)[0]
    codes[split.train] = np.arange(len(split.train)) % 3
    inner = inner_folds(split, n_splits=3, groups=groups)
    inner[0] = inner[0]._replace(test=inner[0].test[codes[inner[0].test] < 2])
    model = probe(task="classification", shape=(20, 30))
    shares = fit_predict(
        model, values, codes, split, inner=inner, grid=grid_of("linear", "classification"), n_classes=3
    )
    assert np.allclose(shares.sum(axis=1), 1)


def test_classes_without_training_samples_get_no_probability(cohort):
    values, codes, _, _ = cohort
    shares = fit_predict(probe(task="classification", shape=(60, 30)), values, codes * 2, SPLIT, n_classes=3)
    assert (shares[:, 1] == 0).all()
    assert np.allclose(shares.sum(axis=1), 1)


def test_the_given_estimator_stays_unfitted(cohort):
    values, _, number, _ = cohort
    model = Ridge()
    fit_predict(model, values, number, SPLIT)
    assert not hasattr(model, "coef_")


def test_names():
    assert baseline_names("classification")[0] == "majority"
    assert baseline_names("regression")[0] == "mean"
    with pytest.raises(ValueError, match="there is no baseline 'mean' for classification; choose among"):
        baseline("mean", task="classification", shape=(5, 5))
    with pytest.raises(ValueError, match="there is no head 'svm'"):
        probe("svm", task="regression", shape=(5, 5))
    with pytest.raises(ValueError, match="task is 'survival'"):
        baseline_names("survival")


def test_choice_equals_a_grid_search(cohort):
    values, codes, _, _ = cohort
    inner = inner_folds(SPLIT, n_splits=3, labels=codes)
    model, grid = probe(task="classification", shape=(40, 30)), grid_of("linear", "classification")
    search = GridSearchCV(
        model,
        {f"head__{name}": choices for name, choices in grid.items()},
        cv=[(split.train, split.test) for split in inner],
        scoring="neg_log_loss",
    ).fit(values[:60], codes[:60])
    assert search.best_params_["head__C"] != model.named_steps["head"].C
    found = fit_predict(model, values, codes, SPLIT, inner=inner, grid=grid, n_classes=2)
    np.testing.assert_allclose(found, search.predict_proba(values[60:]))
