from __future__ import annotations

import numpy as np
import pytest

from bulkformer_tl.encodings import RankTable, rank_genes, scale_by_median


def slowly(counts, columns, medians, tokens, total, length):
    """All values in double precision, sorted stably with genes in the order of their tokens."""
    keep = np.isfinite(medians[columns]) & (counts > 0)
    counts, columns = counts[keep], columns[keep]
    own = tokens[columns]
    order = np.argsort(own)
    values = scale_by_median(counts[order], medians[columns][order], total)
    return own[order][np.argsort(-values, kind="stable")][:length], len(own)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.float16])
@pytest.mark.parametrize("ties", ["none", "some", "most", "nearly"])
@pytest.mark.parametrize("n", [1, 40, 900])
def test_equal_to_a_stable_sort_of_everything(n, ties, dtype):
    rng = np.random.default_rng([n, len(ties)])
    n_columns = 1000
    medians = {
        "none": rng.lognormal(0, 2, n_columns),
        "some": rng.choice([0.5, 1.0, 2.0, 3.7], n_columns),
        "most": np.ones(n_columns),
        # equal but for the last bits, which the sorting keys leave to tokens
        "nearly": 1 + rng.integers(0, 4, n_columns) * 2.0**-50,
    }[ties]
    medians[rng.random(n_columns) < 0.2] = np.inf
    tokens = rng.permutation(n_columns) + 4
    table = RankTable(medians, tokens)
    for length in (1, 30, 100, 600, 2000):
        columns = rng.permutation(n_columns)[:n]
        counts = np.rint(rng.lognormal(0, 2, n)).clip(0, 2000).astype(dtype)
        expected, detected = slowly(counts, columns, medians, tokens, 3.7e5, length)
        found, n_found = rank_genes(counts, columns, table, total=3.7e5, length=length)
        np.testing.assert_array_equal(found, expected)
        assert n_found == detected


def test_nothing_and_negative_zero():
    table = RankTable(np.ones(3), np.arange(3))
    found, detected = rank_genes(np.array([], dtype=np.float32), np.array([], dtype=np.int32), table, total=1, length=5)
    assert (found.tolist(), detected) == ([], 0)
    found, detected = rank_genes(np.array([-0.0, 0.0, 2.0]), np.arange(3), table, total=2, length=5)
    assert (found.tolist(), detected) == ([2], 1)
