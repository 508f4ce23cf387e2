from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bulkformer_tl.metrics import Split, inner_folds, k_fold, leave_one_group_out, leave_pair_out

GROUPS = np.repeat(list("abcdefgh"), [1, 2, 3, 4, 5, 6, 7, 12])


def check(splits, n):
    """Every sample is tested once and never trained on where it is tested."""
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(n))
    for split in splits:
        assert isinstance(split, Split)
        assert sorted([*split.train, *split.test]) == list(range(n))


def test_folds_test_every_sample_once_and_are_even():
    splits = k_fold(23, n_splits=5)
    check(splits, 23)
    assert sorted(len(split.test) for split in splits) == [4, 4, 5, 5, 5]
    assert [split.name for split in splits] == [f"fold {i}" for i in range(5)]


def test_rng_decides_the_folds_and_only_it():
    one, same, other = (k_fold(30, rng=rng) for rng in (0, np.random.default_rng(0), 1))
    assert all((a.test == b.test).all() for a, b in zip(one, same, strict=True))
    assert any((a.test != b.test).any() for a, b in zip(one, other, strict=True))


def test_groups_stay_together_and_balance():
    splits = k_fold(len(GROUPS), n_splits=4, groups=GROUPS)
    check(splits, len(GROUPS))
    assert not any(set(GROUPS[split.train]) & set(GROUPS[split.test]) for split in splits)
    # 40 samples: the group of 12 fills one fold, the others share the 28 that are left
    assert sorted(len(split.test) for split in splits) == [9, 9, 10, 12]


def test_classes_are_spread():
    labels = np.repeat(["x", "y"], [40, 10])
    for split in k_fold(50, labels=labels):
        assert (labels[split.test] == "y").sum() == 2


def test_classes_are_spread_over_groups():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 3)
    labels = np.repeat(rng.permutation(np.repeat(["x", "y"], 10)), 3)
    splits = k_fold(60, labels=labels, groups=groups)
    check(splits, 60)
    for split in splits:
        assert not set(groups[split.train]) & set(groups[split.test])
        assert (labels[split.test] == "x").sum() == 6


def test_leave_one_group_out_names_what_it_holds_out():
    splits = leave_one_group_out(GROUPS)
    check(splits, len(GROUPS))
    for split in splits:
        assert set(GROUPS[split.test]) == {split.name}


def test_pairs_are_tested_once_with_both_partners_unseen():
    drug, line = (part.ravel() for part in np.meshgrid(np.arange(6), np.arange(9)))
    splits = leave_pair_out(drug, line, n_splits=3)
    assert len(splits) == 9
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(54))
    for split in splits:
        assert not set(drug[split.train]) & set(drug[split.test])
        assert not set(line[split.train]) & set(line[split.test])
        # of 6 x 9 pairs, 2 x 3 are held out and 4 x 6 share neither partner
        assert (len(split.test), len(split.train)) == (6, 24)


def test_inner_folds_stay_within_the_training_samples():
    labels = np.tile(["x", "y"], 30)
    groups = np.repeat(np.arange(20), 3)
    for outer in k_fold(60, labels=labels, groups=groups):
        inner = inner_folds(outer, n_splits=3, labels=labels, groups=groups)
        assert sorted(np.concatenate([split.test for split in inner])) == outer.train.tolist()
        for split in inner:
            assert not set(split.train) & set(split.test)
            assert not set(groups[split.train]) & set(groups[split.test])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": np.repeat([0, 1, 2], 4)}, "3 groups cannot fill 5 folds; set n_splits to 3"),
        ({"n_splits": 13}, "12 samples cannot fill 13 folds"),
        ({"n_splits": 1}, "at least 2 folds"),
        ({"labels": ["x"] * 12}, "labels holds only 'x'; at least two classes"),
        ({"labels": ["x"] * 9 + ["y"] * 3}, r"fewer than 5 samples: \{'y': 3\}"),
        ({"labels": ["x"] * 11}, "labels has 11 values for 12 samples"),
        ({"labels": [np.nan] + ["x"] * 11}, "labels holds 1 missing values of 12, the first at position 0"),
        ({"groups": pd.Series(["a"] * 11 + [None])}, "groups holds 1 missing values of 12, the first at position 11"),
        (
            {"labels": ["x", "y"] * 6, "groups": [0] * 6 + [1, 2, 3, 4, 5, 6], "n_splits": 8},
            "7 groups cannot fill 8 folds",
        ),
        (
            {"labels": ["x"] * 6 + ["y"] * 6, "groups": [0, 1, 2, 3, 4, 5] + [6] * 6},
            r"fewer than 2 groups: \{'y': 1\}",
        ),
    ],
)
def test_refusals_say_what_was_found(arguments, message):
    with pytest.raises(ValueError, match=message):
        k_fold(12, **arguments)


def test_mixed_labels_are_refused():
    with pytest.raises(TypeError, match=r"labels mixes int and str; make them one type"):
        k_fold(4, n_splits=2, labels=np.array([1, "x", 1, "x"], dtype=object))


def test_one_group_cannot_be_left_out():
    with pytest.raises(ValueError, match="groups holds only 'a'"):
        leave_one_group_out(["a", "a"])


def test_a_study_with_all_of_a_class_cannot_be_left_out():
    with pytest.raises(ValueError, match=r"fewer than 2 groups: \{'y': 1\}"):
        leave_one_group_out(["a", "a", "b", "b"], labels=["x", "y", "x", "x"])


def test_the_groups_of_a_rare_class_are_parted():
    # two groups of class y are parted, whatever the seed, as large as the others may be
    groups = np.r_[np.repeat(np.arange(6), 5), [6] * 3, [7] * 3]
    labels = np.array(["x"] * 30 + ["y"] * 6)
    for rng in range(5):
        for split in k_fold(36, n_splits=2, labels=labels, groups=groups, rng=rng):
            assert (labels[split.test] == "y").sum() == 3


def test_rare_classes_of_mixed_groups_are_spread():
    rng = np.random.default_rng(0)
    groups = rng.integers(60, size=400)
    labels = rng.choice(["x", "y", "z"], size=400, p=[0.7, 0.2, 0.1])
    for split in k_fold(400, labels=labels, groups=groups):
        assert not set(groups[split.train]) & set(groups[split.test])
        for label in "xyz":
            assert abs((labels[split.test] == label).mean() - (labels == label).mean()) < 0.03
        assert 74 <= len(split.test) <= 86


def test_too_few_partners_are_refused():
    with pytest.raises(ValueError, match="2 distinct values of second cannot fill 3 folds"):
        leave_pair_out([0, 1, 2, 3], [0, 1, 0, 1])


def test_pairs_without_anything_to_train_on_are_refused():
    with pytest.raises(ValueError, match="no pair is left to train on"):
        leave_pair_out([0, 0, 1], [0, 1, 1], n_splits=2)
