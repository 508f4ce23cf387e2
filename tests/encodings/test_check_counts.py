"""What cannot be counts is found, and what can is not."""

from __future__ import annotations

import numpy as np
import pytest

from bulkformer_tl.encodings import find_count_fault

COUNTS = np.array([[0, 5, 120], [3, np.nan, 40]], dtype=np.float32)


@pytest.mark.parametrize(
    "block",
    [COUNTS, COUNTS.astype(np.float64) + 0.25, np.zeros((2, 3)), np.full((2, 3), np.nan), np.array([[1.0, 0, 2]])],
    ids=["whole", "estimated", "zeros", "missing", "few"],
)
def test_counts_pass(block):
    assert find_count_fault(block) is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, -1.5, 3], r"holds negative values \(down to -1.5\), which counts are not"),
        ([0, np.inf, 3], "holds infinite values"),
        ([0.5, 2.25, 12], "is fractional and at most 12, as logarithms are"),
        ([250_000.5, 749_999.5, 0], "sums to a million, as TPM and CPM do"),
    ],
)
def test_the_first_fault_is_named(row, message):
    fault = find_count_fault(np.vstack([COUNTS, [row], [row]]))
    assert fault is not None
    assert fault[0] == 2
    with pytest.raises(ValueError, match=message):
        raise ValueError(fault[1])


def test_other_values_need_not_be_counts():
    assert find_count_fault(np.array([[0.5, 2.25, 12]]), counts=False) is None
    fault = find_count_fault(np.array([[0.5, -2.25, 12]]), counts=False)
    assert fault == (0, "holds negative values (down to -2.25), and bins begin at 0")
