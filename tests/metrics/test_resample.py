from __future__ import annotations

import numpy as np
import pytest

from bulkformer_tl.metrics import resample


def test_each_resample_has_the_size_of_the_data():
    weights = resample(20, n_bootstrap=50)
    assert weights.shape == (50, 20)
    assert (weights.sum(axis=1) == 20).all()
    assert (weights == weights.astype(int)).all()
    assert (weights == resample(20, n_bootstrap=50, rng=np.random.default_rng(0))).all()
    assert (weights != resample(20, n_bootstrap=50, rng=1)).any()


def test_the_mean_varies_as_theory_says():
    values = np.random.default_rng(0).normal(size=200)
    means = resample(200, n_bootstrap=4000) @ values / 200
    assert means.std() == pytest.approx(values.std() / np.sqrt(200), rel=0.05)


def test_groups_are_drawn_as_a_whole():
    groups = np.repeat(["a", "b", "c", "d"], [1, 5, 2, 2])
    weights = resample(10, n_bootstrap=30, groups=groups)
    for group in "abcd":
        assert (np.ptp(weights[:, groups == group], axis=1) == 0).all()
    assert (weights[:, [0, 1, 6, 8]].sum(axis=1) == 4).all()


def test_draws_stay_within_folds():
    folds = np.repeat([0, 1], [4, 6])
    weights = resample(10, n_bootstrap=30, folds=folds)
    assert (weights[:, :4].sum(axis=1) == 4).all()
    assert np.ptp(weights[:, :4], axis=1).any()


def test_folds_of_one_group_are_drawn_as_a_whole():
    folds = np.repeat([0, 1, 2], [4, 3, 3])
    weights = resample(10, n_bootstrap=30, folds=folds, groups=folds)
    assert (np.ptp(weights[:, :4], axis=1) == 0).all()
    assert (weights[:, [0, 4, 7]].sum(axis=1) == 3).all()


def test_refusals():
    with pytest.raises(ValueError, match="groups has 2 values for 3 samples"):
        resample(3, groups=[0, 1])
    with pytest.raises(ValueError, match="folds holds 1 missing"):
        resample(2, folds=[0, None])
