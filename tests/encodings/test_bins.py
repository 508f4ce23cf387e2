from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bulkformer_tl.encodings import segment_bins, value_bins

#: Columns of the golden table and the form that makes them.
FORMS = {
    "published_code_bin": "published",
    "published_code_linear_bin": "published_linear",
    "eq5_printed": "printed",
}


@pytest.fixture(scope="module")
def values(golden):
    return pd.read_csv(golden / "bioformers" / "value_binning.csv")


@pytest.mark.parametrize("column", FORMS)
def test_golden_value_bins(values, column):
    for (b, c), part in values.groupby(["b", "c"]):
        found = value_bins(part["value"].to_numpy(), bin_size=b, cutoff=c, form=FORMS[column])
        exact = (part["on_bin_boundary"] == 0).to_numpy()
        np.testing.assert_array_equal(found[exact], part[column].to_numpy()[exact])


def by_setting(values, column):
    """Our printed form beside another reading of equation 5, where no last bit decides."""
    for (b, c), part in values[values["on_bin_boundary"] == 0].groupby(["b", "c"]):
        yield (
            b,
            value_bins(part["value"].to_numpy(), bin_size=b, cutoff=c, form="printed"),
            part[column].to_numpy(),
            part,
        )


def test_printed_form_rounds_half_to_even(values):
    n_halves = 0
    for _, found, other, part in by_setting(values, "eq5_printed_round_half_up"):
        value = part["value"].to_numpy()
        half = (value % 1 == 0.5) & (value < part["c"]) & (np.floor(value) % 2 == 0) & (value > 1)
        np.testing.assert_array_equal(other - found, half)
        n_halves += half.sum()
    assert n_halves == (values["eq5_printed"] != values["eq5_printed_round_half_up"]).sum() > 0


def test_overlapping_cases_of_the_printed_form_agree_in_the_settings_of_the_paper(values):
    assert values["in_overlap_of_cases_2_and_4"].sum() > 0
    for _, found, other, _ in by_setting(values, "eq5_printed_log_case_wins_overlap"):
        np.testing.assert_array_equal(found, other)
    # elsewhere the case that is printed first wins
    assert value_bins(np.array([0.9]), bin_size=2.0, cutoff=0.25, form="printed").tolist() == [1]


def test_printed_form_multiplies_by_b(values):
    """Read as the length of a bin, b would divide; above the cutoff the other forms do."""
    for b, found, other, part in by_setting(values, "eq5_printed_but_divided_by_b"):
        value, c = part["value"].to_numpy(), part["c"].iloc[0]
        high = value > max(c, 1)
        np.testing.assert_array_equal(found[~high], other[~high])
        assert (found[high] != other[high]).any() == (b != 1)
        divided = value_bins(value, bin_size=b, cutoff=c)
        np.testing.assert_array_equal(divided[high] - max(1, np.rint(c)), other[high])


def test_published_form_is_truncated(values):
    column = "published_before_integer_truncation"
    fraction = values[column] % 1 != 0
    assert fraction.any()
    for (b, c), part in values[values["on_bin_boundary"] == 0].groupby(["b", "c"]):
        found = value_bins(part["value"].to_numpy(), bin_size=b, cutoff=c, form="published")
        np.testing.assert_array_equal(found, np.trunc(part[column]))


def test_golden_value_bins_in_single_precision(values):
    for (b, c), part in values.groupby(["b", "c"]):
        found = value_bins(part["value"].to_numpy(dtype=np.float32), bin_size=b, cutoff=c, form="published")
        exact = (part["on_bin_boundary"] == 0).to_numpy()
        np.testing.assert_array_equal(found[exact], part["published_code_bin_float32_input"].to_numpy()[exact])


@pytest.mark.parametrize(("b", "c"), [(1 / 3, 8), (0.1, 0.5), (0.025, 0.75), (0.1, 2.5), (2, 0.1)])
def test_default_never_falls_and_keeps_zero_apart(b, c):
    values = np.concatenate([[0], np.geomspace(1e-3, 1e5, 20_001), np.nextafter(c, 1e9, dtype=float)[None]])
    bins = value_bins(np.sort(values), bin_size=b, cutoff=c)
    assert (np.diff(bins) >= 0).all()
    assert bins[0] == 0
    assert bins[1] == 1


def test_default_is_the_published_code_above_a_whole_cutoff(values):
    part = values[(values["c"] == 8) & (values["value"] > 8) & (values["on_bin_boundary"] == 0)]
    for b, own in part.groupby("b"):
        found = value_bins(own["value"].to_numpy(), bin_size=b, cutoff=8)
        np.testing.assert_array_equal(found, own["published_code_bin"])


def test_default_rounds_below_the_cutoff():
    assert value_bins(np.array([0.0, 0.2, 1.4, 1.6, 2.5, 7.9, 8.0, 8.1])).tolist() == [0, 1, 1, 2, 2, 8, 8, 9]


def test_printed_form_falls_at_the_cutoff():
    assert value_bins(np.array([8.0, 8.001]), bin_size=3, form="printed").tolist() == [8, 1]


def test_golden_segments(golden):
    table = pd.read_csv(golden / "bioformers" / "segment_binning.csv")
    for (_, n_bins), part in table.groupby(["vector", "B"]):
        found = segment_bins(part["value"].to_numpy(), n_bins)
        np.testing.assert_array_equal(found, part["bin_right_closed"])
        agreed = (part["all_conventions_agree"] == 1).to_numpy()
        np.testing.assert_array_equal(found[agreed], part["bin_average_rank"].to_numpy()[agreed])
        # left-closed, a value that lies on an edge is one bin further up
        left = part["bin_left_closed"].to_numpy()
        known = part["value"].to_numpy()
        known = known[known > 0]
        edges = np.quantile(known, np.arange(1, n_bins) / n_bins) if len(known) else known
        further = [(edges == value).sum() if value > 0 else 0 for value in part["value"]]
        np.testing.assert_array_equal(left - found, further)
    assert (table["bin_left_closed"] > table["bin_right_closed"]).any()


def test_segments_hold_equal_numbers():
    values = np.random.default_rng(0).permutation(np.arange(120.0))
    bins = segment_bins(values, 7)
    assert bins[values == 0].tolist() == [0]
    assert np.ptp(np.bincount(bins)[1:]) <= 1
    assert (np.diff(bins[np.argsort(values)]) >= 0).all()
