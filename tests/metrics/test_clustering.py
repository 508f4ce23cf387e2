"""Against scikit-learn and scib-metrics."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn import metrics as sk

from bulkformer_tl.metrics import ari, asw, avg_bio, batch_mixing, nmi


@pytest.fixture
def blobs():
    """Three blobs of 30, each half from either of two batches."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["x", "y", "z"], 30)
    points = rng.normal(size=(90, 5)) + 6 * np.eye(5)[np.repeat([0, 1, 2], 30)]
    return points, labels, np.tile(["a", "b"], 45)


def test_partitions_equal_scikit_learn(blobs):
    rng = np.random.default_rng(1)
    clusters = rng.integers(4, size=90)
    assert nmi(blobs[1], clusters) == pytest.approx(sk.normalized_mutual_info_score(blobs[1], clusters))
    assert ari(blobs[1], clusters) == pytest.approx(sk.adjusted_rand_score(blobs[1], clusters))
    assert nmi(blobs[1], blobs[1]) == pytest.approx(1)


def test_asw_equals_scikit_learn(blobs):
    points, labels, _ = blobs
    assert asw(points, labels) == pytest.approx((sk.silhouette_score(points, labels) + 1) / 2)


def test_avg_bio_is_the_mean_of_three(blobs):
    points, labels, _ = blobs
    clusters = np.random.default_rng(1).integers(3, size=90)
    expected = (nmi(labels, clusters) + ari(labels, clusters) + asw(points, labels)) / 3
    assert avg_bio(points, labels, clusters=clusters) == pytest.approx(expected)
    # well parted blobs are found by k-means
    assert avg_bio(points, labels) == pytest.approx((2 + asw(points, labels)) / 3)


def test_batch_mixing_tells_mixed_from_parted(blobs):
    points, labels, batches = blobs
    mixed = batch_mixing(points, labels, batches, n_neighbors=20)
    parted = batch_mixing(points + 8 * (batches == "a")[:, None] * np.eye(5)[3], labels, batches, n_neighbors=20)
    assert set(mixed) == {"silhouette_batch", "ilisi", "kbet", "graph_connectivity"}
    assert all(0 <= value <= 1 for value in mixed.values())
    assert all(mixed[name] > parted[name] for name in ("silhouette_batch", "ilisi", "kbet"))
    assert mixed["graph_connectivity"] == pytest.approx(1)


def test_missing_extra_is_named(blobs, monkeypatch):
    monkeypatch.setitem(sys.modules, "scib_metrics", None)
    with pytest.raises(ImportError, match=r"bulkformer-tl\[metrics\]"):
        batch_mixing(*blobs)


def test_refusals(blobs):
    points, labels, _ = blobs
    with pytest.raises(ValueError, match="labels holds only 'x'"):
        asw(points, ["x"] * 90)
    with pytest.raises(ValueError, match="all 90 labels are different"):
        asw(points, np.arange(90))
    with pytest.raises(ValueError, match="batches holds only 'a'"):
        batch_mixing(points, labels, ["a"] * 90)
    with pytest.raises(ValueError, match="samples by dimensions"):
        asw(points[:, 0], labels)
    with pytest.raises(ValueError, match="clusters has 3 values for 90 samples"):
        nmi(labels, [0, 1, 2])
    points[0, 0] = np.nan
    with pytest.raises(ValueError, match="embedding holds 1 missing"):
        avg_bio(points, labels)
