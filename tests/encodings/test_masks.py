from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bulkformer_tl.encodings import hide_balanced, hide_share


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("fraction", [0.05, 0.15, 0.5, 0.9, 1.0])
def test_share_of_the_candidates(fraction):
    candidates = rng().random(1000) < 0.7
    marks = hide_share(candidates, fraction, rng())
    assert not (marks & ~candidates).any()
    assert marks.sum() == min(round(fraction * candidates.sum()), candidates.sum() - 1)


def test_every_candidate_has_the_same_chance():
    candidates = np.r_[np.zeros(10, bool), np.ones(90, bool)]
    generator = rng()
    frequency = np.mean([hide_share(candidates, 0.2, generator) for _ in range(4000)], axis=0)
    assert not frequency[:10].any()
    assert abs(frequency[10:] - 0.2).max() < 0.03


def test_nothing_to_hide():
    assert not hide_share(np.zeros(5, bool), 0.5, rng()).any()
    assert not hide_balanced(np.full(5, np.nan), 0.5, 0.5, rng()).any()


def test_balanced_counts_are_the_published_ones(golden):
    table = pd.read_csv(golden / "bioformers" / "masking_counts.csv")
    assert len(table) > 3
    for row in table.itertuples():
        values = np.zeros(row.n_genes)
        values[: row.n_nonzero] = 1.0
        marks = hide_balanced(rng().permutation(values), row.mask_ratio, row.nonzero_share, rng())
        shuffled = rng().permutation(values)
        assert (marks & (shuffled != 0)).sum() == row.masked_nonzero
        assert (marks & (shuffled == 0)).sum() == row.masked_zero


def test_balanced_leaves_missing_genes_alone():
    values = np.r_[np.full(50, np.nan), np.zeros(100), np.ones(100)]
    marks = hide_balanced(values, 0.1, 0.5, rng())
    assert (marks[:50].sum(), marks[50:150].sum(), marks[150:].sum()) == (0, 10, 10)
