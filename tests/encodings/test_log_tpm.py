from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from bulkformer_tl import encodings


def test_tpm_by_hand():
    # rates per kb: 10, 20, 10 -> shares 1/4, 1/2, 1/4
    found = encodings.tpm([[10, 10, 40]], [1000, 500, 4000])
    np.testing.assert_allclose(found, [[250_000, 500_000, 250_000]], rtol=1e-15)


def test_denominator_and_missing_values_by_hand():
    counts = [[10.0, 10.0, np.nan, 5.0, 7.0]]
    lengths = [1000, 500, 100, np.nan, 100]
    found = encodings.tpm(counts, lengths, denominator=[True, True, True, True, False])
    # rates 10 and 20 make up the million; the last gene is scaled by it without being part of it
    np.testing.assert_allclose(found, [[1e6 / 3, 2e6 / 3, np.nan, np.nan, 70e6 / 30]], rtol=1e-15)


def test_zeros_stay_zeros():
    np.testing.assert_array_equal(encodings.log_tpm(np.zeros((1, 3)), [1, 2, 3]), np.zeros((1, 3)))


def test_without_lengths_only_scales():
    np.testing.assert_allclose(encodings.tpm([[1, 3]]), [[250_000, 750_000]], rtol=1e-15)


def test_preprint_golden_in_double_precision(golden):
    folder = golden / "bulkformer_preprint"
    counts = pd.read_csv(folder / "counts.csv", index_col=0)
    lengths = pd.read_csv(folder / "gene_length.csv", index_col=0)["length"].reindex(counts.columns).fillna(1000)
    expected = load_file(folder / "expected.safetensors")["normalized_ln_tpm"]
    assert not expected[-1].any(), "the last sample is all zero"
    np.testing.assert_allclose(encodings.log_tpm(counts, lengths), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("base", "function"), [("e", np.log), ("2", np.log2), ("10", np.log10)])
@pytest.mark.parametrize("pseudocount", [1.0, 0.001, 0.5])
def test_logarithms_agree_with_numpy_and_are_undone(base, function, pseudocount):
    values = np.array([0, 0.3, 1, 17, 5e4, np.nan])
    found = encodings.to_log(values, base=base, pseudocount=pseudocount)
    np.testing.assert_allclose(found, function(values + pseudocount), rtol=1e-12, atol=1e-14)
    back = encodings.from_log(found, base=base, pseudocount=pseudocount)
    np.testing.assert_allclose(back, values, rtol=1e-12, atol=1e-12)
    assert np.nanmin(back) == 0


def test_parts_fit_together():
    rates = encodings.per_length([[10, 10, np.nan]], [1000, 500, 100])
    np.testing.assert_array_equal(rates, [[10, 20, np.nan]])
    np.testing.assert_array_equal(encodings.denominator_sums(rates), [30])
    np.testing.assert_array_equal(encodings.denominator_sums(rates, [True, False, True]), [10])
