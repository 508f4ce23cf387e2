"""Pooling against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bulkformer_tl.models._pooling import POOLINGS, pool


@pytest.mark.parametrize("n", [1, 2, 7, 8])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pool_against_numpy(n, pooling):
    vectors = np.random.default_rng(n).normal(size=(n, 5)).astype(np.float32)
    rules = {"mean": np.mean, "max": np.max, "median": np.median}
    names = rules if pooling == "all" else [pooling]
    expected = sum(rules[name](vectors, axis=0) for name in names)
    assert np.allclose(pool(torch.from_numpy(vectors), pooling), expected, atol=1e-6)


def test_median_averages_the_two_middle_values():
    assert pool(torch.tensor([[4.0], [1.0], [2.0], [100.0]]), "median").tolist() == [3.0]
