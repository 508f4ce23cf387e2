from __future__ import annotations

import logging

import anndata as ad
import dask.array as da
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from safetensors.numpy import load_file

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import GeneVocabulary


def embedded(adata: ad.AnnData, model: bf.models.BulkFormer, **options) -> np.ndarray:
    return bf.tl.embed(adata, model=model, copy=True, **options).obsm["X_bulkformer"]


def test_equals_the_reference(cohort, latest, expected):
    bf.tl.embed(cohort, model=latest)
    assert cohort.obsm["X_bulkformer"].dtype == np.float32
    np.testing.assert_allclose(cohort.obsm["X_bulkformer"], expected["pipeline.sample_level"], atol=2e-5, rtol=0)


def test_pools_over_a_subset_as_the_reference_does(cohort, latest, expected):
    chosen = np.isin(cohort.var_names, latest.vocabulary.ids[expected["interested_gene_idx"]])
    rows = expected["pipeline.rows_with_visible_subset"]
    cohort.var["chosen"] = chosen
    for mask in (chosen, "chosen"):
        found = embedded(cohort[rows].copy(), latest, mask_var=mask)
        np.testing.assert_allclose(found, expected["pipeline.sample_level_subset"], atol=2e-5, rtol=0)


def test_paper_generation_with_summary_columns_equals_the_reference(golden, tmp_path):
    io = load_file(golden / "config_a_io.safetensors")
    ids = np.array([f"ENSG{i:011}" for i in range(64)])
    GeneVocabulary(ids).to_csv(tmp_path / "genes.csv")
    for name in ("edge_index", "edge_weight"):
        torch.save(torch.from_numpy(io[name]), tmp_path / f"{name}.pt")
    model = bf.models.load(
        golden / "config_a_dataparallel.pt",
        graph=(tmp_path / "edge_index.pt", tmp_path / "edge_weight.pt"),
        genes=tmp_path / "genes.csv",
        mask_prob=float(io["mask_prob"]),
        device="cpu",
    )
    values = np.where(io["x"] == -10, np.nan, io["x"])
    adata = ad.AnnData(values.astype(np.float32), var=pd.DataFrame(index=ids))
    subset = np.isin(np.arange(64), io["gene_idx"])
    for pooling in ("mean", "max", "median", "all"):
        everything = embedded(adata, model, pooling=pooling, summary_columns=True)
        np.testing.assert_allclose(everything, io[f"sample_{pooling}_allgenes"], atol=5e-5, rtol=0)
        some = embedded(adata, model, pooling=pooling, summary_columns=True, mask_var=subset)
        np.testing.assert_allclose(some, io[f"sample_{pooling}"], atol=5e-5, rtol=0)
    assert embedded(adata, model).shape == (3, 32)


def test_order_of_genes_versions_and_extra_genes_do_not_matter(cohort, latest):
    plain = embedded(cohort, latest)
    rng = np.random.default_rng(0)
    extra = ad.AnnData(
        np.hstack([np.asarray(cohort.X), rng.random((cohort.n_obs, 3), dtype=np.float32)]),
        obs=cohort.obs,
        var=pd.DataFrame(index=[*(f"{g}.7" for g in cohort.var_names), "ENSG99999999991", "MY_GENE", "3"]),
    )
    shuffled = extra[:, rng.permutation(extra.n_vars)].copy()
    np.testing.assert_array_equal(embedded(shuffled, latest), plain)


def test_bit_equal_over_batch_size_order_and_subset_of_samples(cohort, latest):
    plain = embedded(cohort, latest)
    order = [4, 0, 5]
    np.testing.assert_array_equal(embedded(cohort[order].copy(), latest), plain[order])
    for size in (1, 2, 100):
        np.testing.assert_array_equal(embedded(cohort, latest, batch_size=size), plain)


STORAGES = {
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
    "csr_array": sp.csr_array,
    "dask": lambda x: da.from_array(x, chunks=(2, 50)),
    "float64": lambda x: x.astype(np.float64),
    "fortran": np.asfortranarray,
}


@pytest.mark.parametrize("storage", STORAGES)
def test_any_storage_gives_the_same(cohort, latest, storage):
    stored = cohort.copy()
    stored.X = STORAGES[storage](np.asarray(cohort.X))
    np.testing.assert_array_equal(embedded(stored, latest), embedded(cohort, latest))


@pytest.mark.parametrize("fmt", ["h5ad", "zarr"])
def test_results_survive_writing_and_a_rerun_replaces_them(cohort, latest, tmp_path, fmt):
    bf.tl.embed(cohort, model=latest)
    path = tmp_path / f"cohort.{fmt}"
    getattr(cohort, f"write_{fmt}")(path)
    again = getattr(ad, f"read_{fmt}")(path)
    np.testing.assert_array_equal(again.obsm["X_bulkformer"], cohort.obsm["X_bulkformer"])
    bf.tl.embed(again, model=latest, pooling="max")
    assert again.uns["bulkformer"]["params"]["pooling"] == "max"


def test_backed_data_are_read_from_disk(cohort, latest, tmp_path):
    cohort.write_h5ad(tmp_path / "cohort.h5ad")
    backed = ad.read_h5ad(tmp_path / "cohort.h5ad", backed="r")
    bf.tl.embed(backed, model=latest)
    np.testing.assert_array_equal(backed.obsm["X_bulkformer"], embedded(cohort, latest))
    backed.file.close()


def test_a_view_is_written_like_scanpy_does(cohort, latest):
    view = cohort[[1, 2]]
    bf.tl.embed(view, model=latest)
    np.testing.assert_array_equal(view.obsm["X_bulkformer"], embedded(cohort, latest)[[1, 2]])
    assert "X_bulkformer" not in cohort.obsm


# mudata 0.4 drops columns in a way that pandas 3.1 deprecates
@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_a_modality_of_a_mudata(cohort, latest):
    mdata = mudata.MuData({"rna": cohort})
    bf.tl.embed(mdata["rna"], model=latest)
    assert mdata["rna"].obsm["X_bulkformer"].shape == (6, 32)
    with pytest.raises(TypeError, match=r"mdata\['rna'\]"):
        bf.tl.embed(mdata, model=latest)


def test_params_say_how_it_was_made(cohort, latest):
    bf.tl.embed(cohort, model=latest, key_added="k")
    params = cohort.uns["k"]["params"]
    assert params["model"] == latest.name
    assert params["checksum"] == latest.checksum
    assert (params["layer"], params["identifiers"], params["pooling"]) == ("X", "ensembl", "mean")
    assert params["observed_only"] is True
    assert params["n_vocabulary"] == 96
    assert params["n_found"] == cohort.n_vars
    assert params["coverage"] == cohort.n_vars / 96
    assert cohort.var["k_in_vocabulary"].all()
    assert cohort.obsm["X_k"].shape == (6, 32)


def test_copy_leaves_the_input_alone(cohort, latest):
    before = cohort.copy()
    result = bf.tl.embed(cohort, model=latest, copy=True)
    assert "X_bulkformer" in result.obsm
    assert not cohort.obsm
    assert not cohort.uns
    assert cohort.var.equals(before.var)
    assert bf.tl.embed(cohort, model=latest) is None


def test_model_by_folder(cohort, latest, golden):
    by_path = embedded(cohort, golden / "bulkformer_latest" / "bundle")
    np.testing.assert_array_equal(by_path, embedded(cohort, latest))


def test_the_model_is_named_in_the_log(cohort, latest, caplog):
    with caplog.at_level(logging.INFO, logger="bulkformer_tl"):
        bf.tl.embed(cohort, model=latest)
    assert f"{cohort.n_vars} of 96 genes found" in caplog.text
    assert latest.name in caplog.text


@pytest.mark.parametrize("key", ["X_bulkformer"])
def test_what_is_not_ours_stays(cohort, latest, key):
    cohort.obsm[key] = np.zeros((6, 2))
    with pytest.raises(ValueError, match="pass another key_added"):
        bf.tl.embed(cohort, model=latest)
    assert cohort.obsm[key].shape == (6, 2)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ("absent", KeyError, "adata.var has no column 'absent'"),
        (np.ones(3, dtype=bool), ValueError, "mask_var must be boolean with 89 entries, found bool of shape"),
        (np.ones(89), ValueError, "found float64"),
        (np.zeros(89, dtype=bool), ValueError, "mask_var selects 0 genes"),
    ],
)
def test_bad_masks(cohort, latest, mask, error, message):
    assert cohort.n_vars == 89
    with pytest.raises(error, match=message):
        bf.tl.embed(cohort, model=latest, mask_var=mask)


def test_a_sample_that_measures_no_gene_of_the_mask_is_named(cohort, latest):
    cohort.X[3, :2] = np.nan
    mask = np.arange(cohort.n_vars) < 2
    cohort.X[[0, 1, 2, 4, 5], 0] = 1
    with pytest.raises(ValueError, match="sample 's3' measures none of the 2 genes of mask_var"):
        bf.tl.embed(cohort, model=latest, mask_var=mask)


def test_the_embedded_models_own_vector_has_no_choice_of_genes():
    adata = bf.datasets.toy(2)
    bf.pp.log_tpm(adata)
    mask = np.arange(adata.n_vars) < 5000
    for options in ({"mask_var": mask}, {"observed_only": True}):
        with pytest.raises(ValueError, match=r"bulkformer-mini \('scores'\) uses all measured genes; with mask_var"):
            bf.tl.embed(adata, layer="log_tpm", **options)
    bf.tl.embed(adata, layer="log_tpm", mask_var=mask, pooling="mean")
    assert adata.obsm["X_bulkformer"].shape == (2, 34)


def test_ctrl_c_in_the_middle_leaves_everything_as_it_was(cohort, latest, monkeypatch):
    before = cohort.copy()
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    original = latest.encode
    monkeypatch.setattr(latest, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bf.tl.embed(cohort, model=latest)
    assert len(calls) == 3
    assert not cohort.obsm
    assert not cohort.uns
    np.testing.assert_array_equal(cohort.X, before.X)
    assert cohort.var.equals(before.var)
