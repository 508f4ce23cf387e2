"""Evaluation end to end: right numbers, nothing fitted outside the fold, chance on permuted labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from bulkformer_tl.metrics import Protocol, Split, cross_validate, leave_one_group_out

QUICK = Protocol(n_bootstrap=200)


@pytest.fixture
def cohort():
    """Expression of 90 samples of 30 patients, three classes, and an embedding that knows them."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 3)
    labels = np.array(["x", "y", "z"])[groups % 3]
    embedding = rng.normal(size=(90, 4)) + 2 * np.eye(4)[groups % 3]
    return rng.normal(size=(90, 25)), labels, groups, embedding


def mean_of(evaluation, name, metric):
    scores = evaluation.scores
    return scores[(scores["representation"] == name) & (scores["metric"] == metric)]["mean"].item()


def test_equals_the_same_by_hand(cohort):
    _, labels, groups, embedding = cohort
    found = cross_validate({"model": embedding}, labels, groups=groups, protocol=QUICK)
    assert found.classes.tolist() == ["x", "y", "z"]
    for split in QUICK.split(90, labels=labels, groups=groups):
        train = embedding[split.train]
        scaled = (embedding - train.mean(axis=0)) / np.sqrt(train.var(axis=0).mean())
        model = LogisticRegression(C=0.1, max_iter=2000).fit(scaled[split.train], labels[split.train])
        expected = model.predict_proba(scaled[split.test])
        np.testing.assert_allclose(found.predictions["model"][split.test], expected, atol=1e-6)
        assert len(set(found.folds[split.test])) == 1
    assert mean_of(found, "model", "auroc") > 0.9
    assert mean_of(found, "majority", "auroc") == 0.5


def test_default_baselines_follow_what_is_given(cohort):
    values, labels, groups, embedding = cohort
    covariates = pd.DataFrame({"age": np.arange(90.0)})
    found = cross_validate(
        {"model": embedding}, labels, values=values, covariates=covariates, groups=groups, protocol=QUICK
    )
    assert set(found.predictions) == {"model", "majority", "raw", "pca", "covariates"}
    assert set(found.differences["baseline"]) == {"majority", "raw", "pca", "covariates"}
    better = found.differences.query("metric == 'auroc' and baseline == 'raw'").iloc[0]
    assert better["low"] > 0
    assert better["p_holm"] < 0.05


def test_regression(cohort):
    values, _, groups, embedding = cohort
    number = embedding @ [1.0, 2.0, 0.0, 0.0] + 0.1 * values[:, 0]
    protocol = Protocol(n_bootstrap=200, baselines=("mean", "knn"))
    found = cross_validate(
        {"model": embedding}, number, task="regression", values=values, groups=groups, protocol=protocol
    )
    assert mean_of(found, "model", "r2") > 0.5
    assert mean_of(found, "mean", "r2") <= 0
    assert found.predictions["knn"].shape == (90,)
    assert set(found.scores["metric"]) == {"pearson", "spearman", "rmse", "r2"}


def test_reruns_see_the_same_folds_and_resamples(cohort):
    _, labels, groups, embedding = cohort
    alone = cross_validate({"model": embedding}, labels, groups=groups, protocol=QUICK)
    among = cross_validate({"other": embedding[:, :2], "model": embedding}, labels, groups=groups, protocol=QUICK)
    pd.testing.assert_frame_equal(
        alone.scores.query("representation == 'model'").reset_index(drop=True),
        among.scores.query("representation == 'model'").reset_index(drop=True),
    )


def test_nested_folds_choose_within_the_training_set(cohort):
    values, labels, groups, _ = cohort
    protocol = Protocol(n_bootstrap=100, n_inner=2, n_splits=3, baselines=("majority", "raw"))
    found = cross_validate({"noise": values}, labels, values=values, groups=groups, protocol=protocol)
    # on noise inner folds prefer the strongest penalty, which is close to the prior
    assert mean_of(found, "raw", "brier") == pytest.approx(mean_of(found, "majority", "brier"), abs=0.03)


def test_permuted_labels_score_chance():
    """Whatever is fitted outside of folds would show here."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(120, 200))
    protocol = Protocol(n_bootstrap=100, baselines=("raw", "hvg", "pca", "knn"))
    reached = []
    for _ in range(4):
        labels = rng.permutation(np.repeat(["x", "y"], 60))
        found = cross_validate({"model": values[:, :50]}, labels, values=values, protocol=protocol)
        reached.append([mean_of(found, name, "auroc") for name in ("model", "raw", "hvg", "pca", "knn")])
    # the standard error of one area over 120 samples is 0.053
    assert np.abs(np.mean(reached, axis=0) - 0.5).max() < 0.1
    assert np.abs(np.mean(reached) - 0.5) < 0.06


def test_selection_on_all_samples_would_be_found():
    """The planted leak: of 3,000 noise genes the ten that follow the labels best."""
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(60, 3000)), np.tile(["x", "y"], 30)
    select = SelectKBest(f_classif, k=10)
    leaking = select.fit_transform(values, labels)
    found = cross_validate(
        {"leaking": leaking, "honest": select},
        labels,
        values=values,
        protocol=Protocol(n_bootstrap=100, baselines=("majority",)),
    )
    assert mean_of(found, "leaking", "auroc") > 0.9
    assert abs(mean_of(found, "honest", "auroc") - 0.5) < 0.2


class Spy(TransformerMixin, BaseEstimator):
    """Remember which samples it was fitted on; the first column of values is their position."""

    seen: list[np.ndarray] = []  # noqa: RUF012

    def fit(self, values, target=None):
        Spy.seen.append(values[:, 0].astype(int))
        self.fitted_ = True
        return self

    def transform(self, values):
        return values[:, 1:]


def test_transformers_see_training_samples_only(cohort):
    values, labels, groups, _ = cohort
    Spy.seen = []
    numbered = np.column_stack([np.arange(90), values])
    cross_validate(
        {"spy": Spy()},
        labels,
        values=numbered,
        groups=groups,
        protocol=Protocol(n_bootstrap=100, baselines=("majority",)),
    )
    splits = QUICK.split(90, labels=labels, groups=groups)
    assert [seen.tolist() for seen in Spy.seen] == [split.train.tolist() for split in splits]


def test_estimators_take_the_place_of_the_head(cohort):
    _, labels, groups, embedding = cohort
    model = LogisticRegression(C=10, max_iter=1000)
    found = cross_validate({"own": model}, labels, values=embedding, groups=groups, protocol=QUICK)
    split = QUICK.split(90, labels=labels, groups=groups)[0]
    expected = LogisticRegression(C=10, max_iter=1000).fit(embedding[split.train], labels[split.train])
    np.testing.assert_allclose(
        found.predictions["own"][split.test], expected.predict_proba(embedding[split.test]), atol=1e-6
    )


def test_given_splits_are_used(cohort):
    _, labels, _, embedding = cohort
    split = Split(np.arange(60), np.arange(60, 80), "hand")
    found = cross_validate({"model": embedding}, labels, splits=[split], protocol=QUICK)
    assert np.isnan(found.predictions["model"][:60]).all()
    assert (found.folds >= 0).sum() == 20
    assert set(found.scores["n"]) == {20}
    studies = leave_one_group_out(np.repeat(["s", "t", "u"], 30), labels=labels)
    assert set(cross_validate({"model": embedding}, labels, splits=studies, protocol=QUICK).scores["axis"]) == {"fold"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"representations": {}}, "there is no representation to judge"),
        ({"representations": {"majority": np.zeros((90, 2))}}, r"\['majority'\] name both"),
        ({"representations": {"m": np.zeros((80, 2))}}, r"'m' reads a matrix of the shape \(80, 2\) for 90 samples"),
        ({"representations": {"m": np.zeros(90)}}, r"'m' reads a matrix of the shape \(90,\)"),
        ({"representations": {"m": StandardScaler()}}, "'m' is fitted in each fold and needs values="),
        ({"target": ["x"] * 90}, "target holds only 'x'"),
        ({"target": [None] + ["x"] * 89}, "target holds 1 missing values of 90"),
        ({"target": np.ones(90), "task": "regression"}, r"target is constant \(1\)"),
        ({"protocol": Protocol(baselines=("pca",))}, "baseline 'pca' needs values="),
        ({"protocol": Protocol(baselines=("covariates",))}, "baseline 'covariates' needs covariates="),
        ({"protocol": Protocol(baselines=("svm",))}, "there is no baseline 'svm'"),
        ({"groups": np.repeat([0, 1, 2], 30)}, "3 groups cannot fill 5 folds"),
        ({"splits": [Split(np.arange(60), np.arange(50, 90), "s")]}, "'s' trains on 10 of its test samples"),
        ({"splits": [Split(np.arange(60), np.arange(60, 90), "s")] * 2}, "'s' tests 30 samples again"),
        ({"head": "svm"}, "there is no head 'svm'"),
    ],
)
def test_refusals(cohort, change, message):
    _, labels, _, embedding = cohort
    arguments = {"representations": {"model": embedding}, "target": labels, "protocol": QUICK} | change
    with pytest.raises(ValueError, match=message):
        cross_validate(arguments.pop("representations"), arguments.pop("target"), **arguments)


def test_text_is_no_number(cohort):
    with pytest.raises(TypeError, match="target must be numbers and holds 'x'"):
        cross_validate({"model": cohort[3]}, cohort[1], task="regression", protocol=QUICK)
