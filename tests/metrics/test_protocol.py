from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from bulkformer_tl.metrics import Protocol


def test_splits_as_it_says():
    labels, groups = np.tile(["x", "y"], 10), np.repeat(["a", "b", "c", "d"], 5)
    assert len(Protocol(n_splits=4).split(20)) == 4
    stratified = Protocol(n_splits=5).split(20, labels=labels)
    assert all((labels[split.test] == "x").sum() == 2 for split in stratified)
    studies = Protocol(scheme="leave_one_group_out").split(20, labels=labels, groups=groups)
    assert [split.name for split in studies] == ["a", "b", "c", "d"]


def test_stratify_false_ignores_classes():
    labels = ["x"] * 19 + ["y"]
    assert len(Protocol(stratify=False, n_splits=2).split(20, labels=labels)) == 2
    with pytest.raises(ValueError, match="classes in fewer than 2 samples"):
        Protocol(n_splits=2).split(20, labels=labels)


def test_grouping_joins_near_duplicates():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 50))
    values[3] = values[0]
    assert Protocol().grouping(values).tolist() == [0, 1, 2, 0]
    assert Protocol(duplicates=None).grouping(values, ["a", "b", "c", "d"]) == ["a", "b", "c", "d"]


def test_params_are_plain():
    assert json.loads(json.dumps(Protocol(baselines=("pca",), duplicates=None).params())) == {
        "scheme": "k_fold",
        "n_splits": 5,
        "stratify": True,
        "n_inner": 0,
        "baselines": ["pca"],
        "n_bootstrap": 2000,
        "level": 0.95,
        "rng": 0,
    }


def test_params_of_a_head_are_plain():
    protocol = Protocol(head="mlp", head_options={"hidden_layer_sizes": (8, 4)}, assumed=("width",), caveat="leaks")
    found = protocol.params()
    assert json.loads(json.dumps(found)) == found
    assert found["head_options"] == {"hidden_layer_sizes": [8, 4]}
    assert (found["head"], found["assumed"], found["caveat"]) == ("mlp", ["width"], "leaks")


def test_heads_that_are_named_go_first():
    protocol = Protocol(head="mlp", head_options={"alpha": 0.1})
    assert protocol.resolve_head() == ("mlp", {"alpha": 0.1})
    assert protocol.resolve_head("mlp") == ("mlp", {"alpha": 0.1})
    assert protocol.resolve_head("linear") == ("linear", {})
    assert Protocol().resolve_head(default="cox") == ("cox", {})


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Protocol().rng = 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scheme": "loo"}, "scheme is 'loo'"),
        ({"n_splits": 1}, "n_splits is 1"),
        ({"n_inner": 1}, "n_inner is 1"),
        ({"level": 95}, "level is 95; use a share"),
        ({"n_bootstrap": 10}, "at least 100 resamples"),
        ({"duplicates": 0}, "duplicates is 0"),
        ({"baselines": "pca"}, "baselines is 'pca'; use a tuple"),
        ({"axis": "sample"}, "axis is 'sample'; use"),
        ({"assumed": "nothing"}, "assumed is 'nothing'; use a tuple"),
        ({"head_options": ["n_components"]}, r"head_options is \['n_components'\]; use a mapping"),
        ({"head_options": {"n_components": None}}, "use a mapping of names to numbers, texts or tuples"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**fields)


def test_leaving_groups_out_needs_groups():
    with pytest.raises(ValueError, match="needs groups"):
        Protocol(scheme="leave_one_group_out").split(10)
