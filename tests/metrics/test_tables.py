from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bulkformer_tl.metrics import add_rows, holm
from bulkformer_tl.metrics._tables import SCORES, interval, sign_p


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, never falling
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert holm([]).shape == (0,)


def test_holm_leaves_out_what_is_undefined():
    assert holm([0.02, np.nan, 0.5]) == pytest.approx([0.04, np.nan, 0.5], nan_ok=True)
    assert np.isnan(holm([np.nan])).all()


def test_holm_refuses_what_is_no_p():
    with pytest.raises(ValueError, match=r"p runs from 0.5 to 1.5"):
        holm([0.5, 1.5])


def test_interval_is_that_of_quantiles():
    draws = np.r_[np.arange(101.0), np.nan]
    assert interval(draws, 0.9) == pytest.approx((5, 95))
    assert np.isnan(interval(np.array([np.nan]), 0.9)).all()


def test_sign_p_follows_the_normal():
    draws = np.random.default_rng(0).normal(1.5, 1, size=20_000)
    assert sign_p(draws) == pytest.approx(2 * stats.norm.sf(1.5), rel=0.1)
    assert sign_p(np.zeros(99)) == 1
    assert sign_p(np.ones(99)) == pytest.approx(0.02)
    assert np.isnan(sign_p(np.array([np.nan])))


def table(*rows):
    return pd.DataFrame(
        [(name, metric, "fold", mean, 0.0, 1.0, 10, 0.1) for name, metric, mean in rows], columns=SCORES
    )


def test_reruns_add_and_replace_rows():
    old = table(("pca", "auroc", 0.7), ("raw", "auroc", 0.8), ("pca", "brier", 0.2))
    new = table(("pca", "auroc", 0.9), ("mine", "auroc", 0.6))
    found = add_rows(old, new)
    assert found[["representation", "metric", "mean"]].to_numpy().tolist() == [
        ["raw", "auroc", 0.8],
        ["pca", "brier", 0.2],
        ["pca", "auroc", 0.9],
        ["mine", "auroc", 0.6],
    ]
    assert len(old) == 3
    assert add_rows(None, new).equals(new)
    assert add_rows(new, new).equals(new)


def test_other_columns_are_refused():
    with pytest.raises(ValueError, match="they must agree"):
        add_rows(table(("pca", "auroc", 0.7)), pd.DataFrame({"metric": ["auroc"]}))
