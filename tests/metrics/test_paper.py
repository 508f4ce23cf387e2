from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier

from bulkformer_tl.metrics import Protocol, cross_validate, f1, k_fold, paper_protocol
from bulkformer_tl.metrics._paper import TASKS, resolve_protocol
from bulkformer_tl.metrics._scale import one_scale


@pytest.mark.parametrize("task", TASKS)
def test_every_task_says_what_it_assumes(task):
    found = paper_protocol(task)
    assert (found.n_splits, found.duplicates, found.axis) == (10, None, "pooled")
    assert found.caveat
    assert found.assumed
    assert json.loads(json.dumps(found.params())) == found.params()
    # a guess that names a field names one that can be changed
    named = {guess.split(":")[0].split("[")[0] for guess in found.assumed if ":" in guess.split(" ")[0]}
    assert named <= {field.name for field in fields(Protocol)}
    assert "head_options" in named


def test_classification_is_components_and_a_forest_scored_together():
    """The pipeline by hand: components and forest fitted on nine folds, weighted F1 of all samples together."""
    rng = np.random.default_rng(0)
    codes = np.arange(60) % 3
    matrix = rng.normal(size=(60, 12)) + np.eye(12)[codes] * 1.5
    options = {"n_components": 4, "n_estimators": 10, "max_depth": 16, "max_features": "sqrt", "min_samples_leaf": 2}
    paper = replace(paper_protocol("classification"), head_options=options, n_bootstrap=100, baselines=("majority",))
    found = cross_validate({"X": matrix}, codes, protocol=paper)
    shares = np.zeros((60, 3))
    for train, test, _ in k_fold(60, n_splits=10, labels=codes, rng=42):
        scale = one_scale()().fit(matrix[train])
        pca = PCA(4, svd_solver="full", random_state=42).fit(scale.transform(matrix[train]))
        forest = RandomForestClassifier(10, max_depth=16, min_samples_leaf=2, random_state=42)
        forest.fit(pca.transform(scale.transform(matrix[train])), codes[train])
        shares[test] = forest.predict_proba(pca.transform(scale.transform(matrix[test])))
    np.testing.assert_allclose(found.predictions["X"], shares)
    row = found.scores.set_index(["representation", "metric"]).loc[("X", "f1_weighted")]
    assert row["axis"] == "pooled"
    assert row["mean"] == pytest.approx(f1(codes, shares.argmax(axis=1), average="weighted"))


def test_resolving():
    own = Protocol(n_splits=3)
    assert resolve_protocol(None, "classification") == Protocol()
    assert resolve_protocol(own, "survival") is own
    assert resolve_protocol("paper", "survival") == paper_protocol("survival")


@pytest.mark.parametrize("wrong", ["papers", 5, {"n_splits": 5}, pd.DataFrame({"a": [1]})])
def test_what_is_no_protocol_is_refused(wrong):
    with pytest.raises(TypeError, match=r'pass a bf.metrics.Protocol, "paper", or None'):
        resolve_protocol(wrong, "classification")


def test_tasks_of_nobody_are_refused():
    with pytest.raises(ValueError, match=r"the paper has no task 'clustering'; it has \['classification'"):
        paper_protocol("clustering")
