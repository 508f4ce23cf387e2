from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bulkformer_tl.encodings import _correlate, correlate, nearest_genes


@pytest.fixture
def values() -> np.ndarray:
    """Samples of correlated genes far from zero."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 5)) @ rng.normal(size=(5, 40)) + rng.normal(size=(60, 40)) + 1000.0


def blocks(values, size):
    return [values[start : start + size] for start in range(0, len(values), size)]


@pytest.mark.parametrize("size", [1, 7, 60])
def test_equals_numpy(values, size):
    found = correlate([blocks(values, size)])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.corrcoef(values.T), atol=1e-7)


@pytest.mark.parametrize(("panel", "budget"), [(7, 10**9), (7, 1), (40, 1)])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_panels_and_passes_change_nothing(values, panel, budget, missing, monkeypatch):
    values[np.random.default_rng(1).random(values.shape) < missing] = np.nan
    whole = correlate([[values]])
    monkeypatch.setattr(_correlate, "PANEL", panel)
    monkeypatch.setattr(_correlate, "BUDGET", budget)
    np.testing.assert_allclose(correlate([[values]]), whole, atol=1e-7)


@pytest.mark.parametrize("least", [3, 30])
def test_missing_is_pairwise_complete(values, least):
    values[np.random.default_rng(1).random(values.shape) < 0.35] = np.nan
    expected = pd.DataFrame(values).corr(min_periods=least).to_numpy()
    assert np.isnan(expected).any() == (least == 30)
    np.testing.assert_allclose(correlate([blocks(values, 13)], min_samples=least), expected, atol=1e-6)


def test_constant_in_the_samples_of_a_pair(values):
    """A gene may vary, but not where the other one was measured."""
    values[:30, 0] = 5.0
    values[30:, 1] = np.nan
    found = correlate([[values]])
    assert np.isnan(found[0, 1])
    assert not np.isnan(found[0, 2:]).any()
    assert not np.isnan(found[1, 2:]).any()


def test_constant_and_absent_genes_are_undefined(values):
    values[:, 3] = 0.1
    values[:, 5] = np.nan
    found = correlate([[values]])
    assert np.isnan(found[[3, 5]]).all()
    assert np.isnan(found[:, [3, 5]]).all()
    assert np.isnan(found).sum() == 2 * 40 * 2 - 4


def test_each_study_counts_alike(values):
    """The mean of the correlations within studies, of those that define it."""
    studies = [values[:10].copy(), values[10:] * 50 + 3]
    studies[0][:, 0] = 7.0
    studies[1][:, 1] = np.nan
    studies[1][::3, 2] = np.nan
    found = correlate([blocks(study, 8) for study in studies])
    dense = [pd.DataFrame(study).corr().to_numpy(copy=True) for study in studies]
    dense[0][0], dense[0][:, 0] = np.nan, np.nan
    expected = np.where(np.isnan(dense[0]), dense[1], np.where(np.isnan(dense[1]), dense[0], (dense[0] + dense[1]) / 2))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.isnan(found[0, 1])


def test_nearest_equals_sorting():
    rng = np.random.default_rng(2)
    r = rng.uniform(-1, 1, (30, 30)).astype(np.float32)
    r[4] = np.nan
    found = nearest_genes(r, n_neighbors=3, threshold=0.7).toarray()
    for i, row in enumerate(np.abs(np.nan_to_num(r))):
        row[i] = 0
        expected = np.where(row >= np.float32(0.7), row, 0)
        expected[np.argsort(-expected, kind="stable")[3:]] = 0
        np.testing.assert_array_equal(found[i], expected)


def test_nearest_takes_the_first_of_equals():
    graph = nearest_genes(np.full((6, 6), -0.5, dtype=np.float32), n_neighbors=2, threshold=0.5)
    assert graph.indices.reshape(6, 2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]]
    assert graph.data.tolist() == [0.5] * 12


def test_nearest_never_connects_by_zero():
    assert nearest_genes(np.eye(4, dtype=np.float32), n_neighbors=2, threshold=0.0).nnz == 0
