from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import bulkformer_tl as bf
from bulkformer_tl.tl._held_back import bin_errors

# the goldens' samples miss more than the model was trained with
pytestmark = pytest.mark.filterwarnings("ignore:.* are outside what .* was trained with:UserWarning")


def test_missing_values_equal_the_reference_cut_at_zero(cohort, latest, expected):
    bf.tl.impute(cohort, model=latest, blend=False)
    columns = pd.Index(latest.vocabulary.ids).get_indexer(cohort.var_names)
    reference = expected["pipeline.expr_level"][:, columns].clip(min=0)
    missing = np.isnan(cohort.X)
    assert missing.any()
    np.testing.assert_allclose(cohort.layers["imputed"][missing], reference[missing], atol=2e-5, rtol=0)


def test_align_genes_adds_the_absent_ones(cohort, latest, expected):
    full = bf.pp.align_genes(cohort, vocabulary=latest.vocabulary)
    bf.tl.impute(full, model=latest, blend=False)
    missing = np.isnan(full.X)
    assert missing.all(axis=0).sum() == 96 - cohort.n_vars
    reference = expected["pipeline.expr_level"].clip(min=0)
    np.testing.assert_allclose(full.layers["imputed"][missing], reference[missing], atol=2e-5, rtol=0)
    assert not np.isnan(full.layers["imputed"]).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_measured_values_come_back_bit_for_bit(cohort, latest, dtype):
    values = np.asarray(cohort.X).astype(dtype) + dtype(1e-9)
    wide = ad.AnnData(
        np.hstack([values, np.array([[1 / 3], [np.nan], [0], [2], [3], [4]], dtype=dtype)]),
        obs=cohort.obs,
        var=pd.DataFrame(index=[*cohort.var_names, "ENSG99999999999"]),
    )
    before = wide.X.copy()
    bf.tl.impute(wide, model=latest)
    imputed = wide.layers["imputed"]
    assert imputed.dtype == dtype
    measured = ~np.isnan(before)
    assert imputed[measured].tobytes() == before[measured].tobytes()
    assert wide.X.tobytes() == before.tobytes()
    # a gene that the model does not know keeps its values and its gaps
    assert np.isnan(imputed[1, -1])
    assert not wide.var["imputed_in_vocabulary"].iloc[-1]
    assert not np.isnan(imputed[:, :-1]).any()


def test_standard_deviations_stand_where_something_was_predicted(cohort, latest):
    bf.tl.impute(cohort, model=latest, blend=False)
    deviation = cohort.layers["imputed_sd"]
    missing = np.isnan(cohort.X)
    assert deviation.dtype == np.float32
    assert (deviation[missing] > 0).all()
    assert np.isnan(deviation[~missing]).all()
    assert cohort.uns["imputed"]["params"]["n_predicted"] == missing.sum()
    residuals = cohort.uns["imputed"]["residuals"]
    found = np.interp(cohort.layers["imputed"][missing], residuals["expression"], residuals["sd"])
    np.testing.assert_allclose(deviation[missing], found, rtol=1e-5)


def test_residuals_are_root_mean_squares_within_bins():
    predicted = np.repeat([1.0, 5.0], 30)
    measured = predicted + np.r_[np.tile([0.5, -0.5], 15), np.tile([2.0, -2.0], 15)]
    table = bin_errors(predicted, measured)
    np.testing.assert_allclose(table["expression"], [1, 5])
    np.testing.assert_allclose(table["sd"], [0.5, 2])


def test_residuals_need_enough_entries():
    with pytest.raises(ValueError, match="only 5 measured entries could be hidden"):
        bin_errors(np.zeros(5), np.zeros(5))


def test_order_of_samples_does_not_matter(cohort, latest):
    order = [3, 5, 0, 1, 4, 2]
    moved = cohort[order].copy()
    bf.tl.impute(cohort, model=latest)
    bf.tl.impute(moved, model=latest)
    for layer in ("imputed", "imputed_sd"):
        np.testing.assert_array_equal(moved.layers[layer], cohort.layers[layer][order])


def test_hidden_entries_are_not_seen(cohort, latest):
    bf.pp.hide(cohort, fraction=0.3, rng=1)
    hidden = cohort.layers["hidden"]
    gone = cohort.copy()
    gone.X[hidden] = np.nan
    bf.tl.impute(gone, model=latest)
    bf.tl.impute(cohort, model=latest, mask="hidden")
    np.testing.assert_array_equal(cohort.layers["imputed"], gone.layers["imputed"])
    assert not np.isnan(cohort.X[hidden]).any()
    assert cohort.uns["imputed"]["params"]["mask"] == "hidden"


def test_sparse_masks_and_values(cohort, latest):
    bf.pp.hide(cohort, fraction=0.3, rng=1)
    sparse = cohort.copy()
    sparse.X, sparse.layers["hidden"] = sp.csr_matrix(cohort.X), sp.csr_matrix(cohort.layers["hidden"])
    bf.tl.impute(cohort, model=latest, mask="hidden")
    bf.tl.impute(sparse, model=latest, mask="hidden")
    np.testing.assert_array_equal(sparse.layers["imputed"], cohort.layers["imputed"])


def test_predictions_everywhere_on_request(cohort, latest, expected):
    bf.tl.impute(cohort, model=latest, predicted=True, blend=False)
    columns = pd.Index(latest.vocabulary.ids).get_indexer(cohort.var_names)
    reference = expected["pipeline.expr_level"][:, columns].clip(min=0)
    np.testing.assert_allclose(cohort.layers["imputed_predicted"], reference, atol=2e-5, rtol=0)


def test_nothing_missing_needs_no_work(cohort, latest, monkeypatch, caplog):
    cohort.X[np.isnan(cohort.X)] = 1
    before = cohort.X.copy()
    monkeypatch.setattr(latest, "encode", lambda *a, **k: pytest.fail("the model ran"))
    with caplog.at_level(logging.INFO, logger="bulkformer_tl"):
        bf.tl.impute(cohort, model=latest)
    np.testing.assert_array_equal(cohort.layers["imputed"], before)
    assert np.isnan(cohort.layers["imputed_sd"]).all()
    assert "nothing is missing" in caplog.text
    assert "7 genes of" in caplog.text
    assert "bf.pp.align_genes" in caplog.text


def test_views_copies_and_other_keys(cohort, latest):
    copied = bf.tl.impute(cohort[:3], model=latest, copy=True, key_added="mine")
    assert {"mine", "mine_sd"} <= set(copied.layers)
    assert not cohort.layers
    again = bf.tl.impute(cohort[:3].copy(), model=latest, copy=True)
    np.testing.assert_array_equal(copied.layers["mine"], again.layers["imputed"])


def test_mask_has_to_be_boolean_and_there(cohort, latest):
    cohort.layers["m"] = np.ones(cohort.shape)
    with pytest.raises(ValueError, match=r"adata.layers\['m'\] holds float64; a mask is boolean"):
        bf.tl.impute(cohort, model=latest, mask="m")
    with pytest.raises(KeyError, match="no layer 'hidden'"):
        bf.tl.impute(cohort, model=latest, mask="hidden")


@pytest.mark.parametrize("fmt", ["h5ad", "zarr"])
def test_results_can_be_written(cohort, latest, tmp_path, fmt):
    bf.tl.impute(cohort, model=latest, predicted=True)
    getattr(cohort, f"write_{fmt}")(tmp_path / f"c.{fmt}")
    again = getattr(ad, f"read_{fmt}")(tmp_path / f"c.{fmt}")
    np.testing.assert_array_equal(again.layers["imputed"], cohort.layers["imputed"])
    bf.tl.impute(again, model=latest, predicted=True)


def test_ctrl_c_leaves_everything_as_it_was(cohort, latest, monkeypatch):
    bf.tl.impute(cohort, model=latest)
    before = cohort.copy()

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(latest, "encode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bf.tl.impute(cohort, model=latest, predicted=True)
    assert set(cohort.layers) == set(before.layers)
    np.testing.assert_array_equal(cohort.layers["imputed"], before.layers["imputed"])
    assert cohort.uns["imputed"]["params"]["n_predicted"] == before.uns["imputed"]["params"]["n_predicted"]
