"""Against the goldens of the BioFormers evaluation."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bulkformer_tl.metrics import hel_sensitivity, lowest_bin, npv_50, sensitivity


@pytest.fixture
def cases(golden):
    return json.loads((golden / "bioformers" / "metrics.json").read_text(encoding="utf-8"))


def test_definitions_equal_the_goldens(cases):
    assert cases
    for case in cases:
        truth, prediction, mask = (np.array(case[name]) for name in ("truth", "prediction", "mask"))
        assert sensitivity(truth, prediction, mask=mask) == pytest.approx(case["sensitivity"])
        hel = hel_sensitivity(truth, prediction, cutoff=case["c_bin"], mask=mask)
        assert hel == pytest.approx(case["hel_sensitivity"])
        assert npv_50(truth, prediction, mask=mask) == pytest.approx(case["npv_50"])
        split = lowest_bin(truth, prediction, mask=mask)
        assert split == pytest.approx({name: case[f"truth_one_predicted_{name}"] for name in split})
        assert set(split) == {"one", "zero", "above_one"}


def test_published_deviations_are_not_reproduced(cases):
    for case in cases:
        truth, prediction, mask = (np.array(case[name]) for name in ("truth", "prediction", "mask"))
        # the published code prints the recall of zeros for their predictive value
        assert case["zero_recall"] == pytest.approx(
            case["published_code_printed"]["Zero tokens predicted correctly"], abs=1e-4
        )
        assert npv_50(truth, prediction, mask=mask) != pytest.approx(case["zero_recall"], abs=1e-3)
        # and counts highly expressed genes twice
        counted = ((truth > case["c_bin"]) & (mask == 1)).sum()
        printed = case["published_code_printed"]["Total token with ground truth greater than bin_cutoff"]
        assert printed == counted + ((truth > 8) & (mask == 1)).sum()


def test_bins_of_another_gene_are_no_neighbours(cases):
    """The published code compares joint indices, in which bin 0 of the next gene follows the highest bin."""
    for case in cases:
        truth, prediction, mask = (np.array(case[name]) for name in ("truth", "prediction", "mask"))
        printed = case["published_code_printed"]
        wrong = case["published_code_printed_with_wrong_gene_predictions"]
        highest = case["n_bins"] - 1
        rows, genes = np.array(case["wrong_gene_predictions"]).T
        assert mask[rows, genes].all()
        assert (truth[rows, genes] == highest).all()
        assert (prediction[rows, genes] >= highest - 1).all()
        # within a gene its bin 0 is as far from the highest bin as can be
        own = prediction.copy()
        own[rows, genes] = 0
        for name in ("Nonzero tokens predicted off by one", "HEL tokens predicted off by one"):
            assert wrong[name] == printed[name]
        right = hel_sensitivity(truth, prediction, cutoff=case["c_bin"], mask=mask)
        lost = len(rows) / case["n_masked_above_c"]
        assert hel_sensitivity(truth, own, cutoff=case["c_bin"], mask=mask) == pytest.approx(right - lost)


def test_by_hand_without_mask():
    truth, prediction = [0, 0, 1, 5, 9, 12], [0, 3, 1, 4, 10, 9]
    assert sensitivity(truth, prediction) == 1 / 4
    assert hel_sensitivity(truth, prediction, cutoff=4) == 2 / 3
    assert npv_50(truth, prediction) == 1.0
    assert lowest_bin([1, 1, 1, 1, 0, 2], [0, 1, 1, 7, 1, 1]) == {"one": 0.5, "zero": 0.25, "above_one": 0.25}


@pytest.mark.parametrize(
    ("truth", "prediction", "mask", "message"),
    [
        ([0, 1], [0], None, "they must agree"),
        ([0, 0], [0, 1], None, "none of the 2 genes in the mask is expressed"),
        ([0, 1], [0, 1], [1, 0], "none of the 1 genes in the mask is expressed"),
        ([0, 1.5], [0, 1], None, "truth holds 1.5, which is no bin"),
        ([0, 1], [0, -10], None, "prediction holds -10.0, which is no bin"),
        ([0, np.nan], [0, 1], None, "truth holds nan"),
    ],
)
def test_refusals(truth, prediction, mask, message):
    with pytest.raises(ValueError, match=message):
        sensitivity(truth, prediction, mask=mask)


def test_undefined_shares_are_refused():
    with pytest.raises(ValueError, match=r"highly expressed \(true bin above 8\)"):
        hel_sensitivity([0, 8], [0, 8], cutoff=8)
    with pytest.raises(ValueError, match="predicted unexpressed"):
        npv_50([0, 8], [1, 8])
    with pytest.raises(ValueError, match=r"barely expressed \(true bin 1\)"):
        lowest_bin([0, 8], [0, 8])
