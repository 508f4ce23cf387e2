from __future__ import annotations

import numpy as np
import pytest

from bulkformer_tl.metrics import _duplicates, near_duplicates


@pytest.fixture
def values():
    """Ten unrelated profiles, then near copies of number 2 and 7, and a copy of that copy of 7."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(10, 400))
    copies = base[[2, 7]] + 0.02 * rng.normal(size=(2, 400))
    chain = copies[1:] + 0.02 * rng.normal(size=(1, 400))
    return np.concatenate([base, copies, chain])


def test_copies_join_their_originals(values):
    expected = [*range(10), 2, 7, 7]
    assert near_duplicates(values).tolist() == expected


def test_equals_the_graph_of_all_correlations(values):
    found = near_duplicates(values, threshold=0.05)
    adjacency = np.corrcoef(values) >= 0.05
    for _ in range(len(values)):
        adjacency = adjacency @ adjacency
    assert ((found[:, None] == found) == adjacency).all()


@pytest.mark.parametrize("block", [1, 3, 7])
def test_blocks_do_not_matter(values, block, monkeypatch):
    expected = near_duplicates(values, threshold=0.05)
    monkeypatch.setattr(_duplicates, "BLOCK", block)
    assert (near_duplicates(values, threshold=0.05) == expected).all()


def test_groups_are_kept_and_joined(values):
    groups = ["p", "p", "q", *[f"r{i}" for i in range(4)], "s", "t", "u", "v", "w", "w"]
    found = near_duplicates(values, groups=groups)
    # 10 joins q (2) to v; 11 and 12 join w to s (7); p (0, 1) stays
    assert found.tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 6, 6]


def test_scale_and_identity(values):
    twice = np.concatenate([values[:3], values[:3] * 5 + 1])
    assert near_duplicates(twice, threshold=1).tolist() == [0, 1, 2, 0, 1, 2]


def test_constant_profiles_stay_alone(values):
    values[:2] = 1.0
    assert len(np.unique(near_duplicates(values)[:2])) == 2


def test_genes_missing_somewhere_are_left_out(values):
    values[0, :300] = np.nan
    assert near_duplicates(values).tolist() == [*range(10), 2, 7, 7]


def test_refusals():
    with pytest.raises(ValueError, match=r"threshold is 1.5"):
        near_duplicates(np.ones((2, 5)), threshold=1.5)
    with pytest.raises(ValueError, match="2 of 5 genes are measured in all samples"):
        near_duplicates(np.where(np.arange(5) < 3, np.nan, 1.0) * np.ones((2, 1)))
    with pytest.raises(ValueError, match="samples by genes"):
        near_duplicates(np.ones(5))
    with pytest.raises(ValueError, match="groups has 3 values for 2 samples"):
        near_duplicates(np.random.default_rng(0).normal(size=(2, 5)), groups=[1, 2, 3])
