from __future__ import annotations

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import GeneVocabulary, load_vocabulary

TP53, GAPDH, ACTB, TSPAN6 = "ENSG00000141510", "ENSG00000111640", "ENSG00000075624", "ENSG00000000003"
VOCABULARY = GeneVocabulary(np.array([TP53, GAPDH, ACTB]), symbols=np.array(["p53", "", ""]), name="three")


@pytest.fixture
def adata() -> ad.AnnData:
    var = pd.DataFrame(
        {"row": [0, 1, 2], "flag": [True, False, True], "kind": pd.Categorical(["a", "b", "a"]), "text": list("xyz")},
        index=[f"{ACTB}.3", TSPAN6, TP53],
    )
    obs = pd.DataFrame({"sex": ["f", "m"]}, index=["s0", "s1"])
    table = ad.AnnData(np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32), obs=obs, var=var)
    table.obsm["X_pca"] = np.ones((2, 2))
    table.obsp["distances"] = sp.csr_matrix(np.eye(2))
    table.uns["note"] = {"a": 1}
    return table


def test_by_hand(adata):
    adata.X[0, 2] = np.nan
    aligned = bf.pp.align_genes(adata, vocabulary=VOCABULARY)
    nan = np.nan
    np.testing.assert_array_equal(aligned.X, [[nan, nan, 1], [6, nan, 4]])
    assert aligned.X.dtype == np.float32
    assert aligned.var_names.tolist() == [TP53, GAPDH, ACTB]
    assert aligned.var["measured"].tolist() == [True, False, True]
    assert aligned.var["symbol"].tolist() == ["p53", "GAPDH", "ACTB"]
    assert aligned.var["row"].tolist()[::2] == [2, 0]
    assert aligned.var["text"].tolist()[::2] == ["z", "x"]
    assert aligned.var["flag"].isna().tolist() == [False, True, False]
    params = aligned.uns["align_genes"]["params"]
    assert (params["n_found"], params["n_genes"], params["coverage"]) == (2, 3, 2 / 3)
    assert (params["vocabulary"], params["vocabulary_checksum"]) == ("three", VOCABULARY.checksum)


# anndata sets a pandas option when it takes a view of categories
@pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option is deprecated")
def test_samples_are_kept_and_the_old_table_untouched(adata):
    before = adata.copy()
    aligned = bf.pp.align_genes(adata[:, ::-1], vocabulary=VOCABULARY)
    aligned.uns["note"]["a"] = 2
    aligned.obs["sex"] = "x"
    aligned.obsm["X_pca"][:] = 0
    assert adata.uns == before.uns
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    np.testing.assert_array_equal(adata.obsm["X_pca"], before.obsm["X_pca"])
    assert aligned.obsp["distances"].shape == (2, 2)
    np.testing.assert_array_equal(aligned.X[:, 0], [3, 6])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix, sp.csc_array, da.from_array])
def test_dtypes_and_storage(adata, dtype, container):
    adata.layers["x"] = container(adata.X.astype(dtype))
    aligned = bf.pp.align_genes(adata, vocabulary=VOCABULARY)
    found = aligned.layers["x"]
    assert isinstance(found, np.ndarray)
    assert found.dtype == (dtype if np.dtype(dtype).kind == "f" else np.float32)
    np.testing.assert_array_equal(found, aligned.X)


def test_masks_stay_masks_and_other_layers_are_left_out(adata, caplog):
    bf.pp.hide(adata, fraction=0.5)
    adata.layers["text"] = np.full(adata.shape, "a")
    aligned = bf.pp.align_genes(adata, vocabulary=VOCABULARY)
    assert aligned.layers["hidden"].dtype == bool
    np.testing.assert_array_equal(aligned.layers["hidden"][:, [2, 0]], adata.layers["hidden"][:, [0, 2]])
    assert not aligned.layers["hidden"][:, 1].any()
    assert "text" not in aligned.layers
    assert "layers['text'] holds <U1" in caplog.text


def test_preprocess_golden(golden):
    expected = np.load(golden / "preprocess_expected.npz")
    adata = ad.AnnData(pd.DataFrame(expected["log_tpm"], expected["sample_ids"], expected["gene_ids"]))
    aligned = bf.pp.align_genes(adata, vocabulary=golden / "preprocess_vocabulary.csv")
    assert aligned.X.dtype == np.float64
    np.testing.assert_array_equal(np.nan_to_num(aligned.X, nan=-10), expected["aligned"])
    assert aligned.var_names.tolist() == expected["vocabulary"].tolist()
    np.testing.assert_array_equal(~aligned.var["measured"], expected["mask"])
    assert sorted(aligned.var_names[~aligned.var["measured"]]) == expected["missing_genes"].tolist()
    assert 1 - aligned.uns["align_genes"]["params"]["coverage"] == pytest.approx(float(expected["mask_prob"]))


def test_latest_golden(golden):
    folder = golden / "bulkformer_latest"
    adata = ad.AnnData(pd.read_csv(folder / "counts.csv", index_col=0))
    bf.pp.log_tpm(adata, vocabulary=folder / "bundle")
    aligned = bf.pp.align_genes(adata, vocabulary=folder / "bundle")
    expected = np.load(folder / "expected_tables.npz")
    found = np.nan_to_num(aligned.layers["log_tpm"], nan=-10)
    np.testing.assert_array_equal(found == -10, expected["aligned"] == -10)
    np.testing.assert_allclose(found, expected["aligned"], atol=1e-6, rtol=0)
    np.testing.assert_array_equal(~aligned.var["measured"], expected["mask"])
    assert sorted(aligned.var_names[~aligned.var["measured"]]) == sorted(expected["missing_genes"])


def test_recorded_identifiers_are_used_and_brought_up_to_date():
    adata = ad.AnnData(np.full((1, 3), 50.0), var=pd.DataFrame(index=["ACTB", "TSPAN6", "TP53"]))
    bf.pp.log_tpm(adata, vocabulary=VOCABULARY, identifiers="symbol")
    aligned = bf.pp.align_genes(adata, vocabulary=VOCABULARY)
    assert aligned.var["measured"].tolist() == [True, False, True]
    assert aligned.uns["log_tpm"]["params"]["identifiers"] == "ensembl"
    assert adata.uns["log_tpm"]["params"]["identifiers"] == "symbol"
    again = bf.pp.align_genes(aligned, vocabulary=VOCABULARY)
    np.testing.assert_array_equal(again.layers["log_tpm"], aligned.layers["log_tpm"])
    assert again.var["measured"].tolist() == [True, False, True], "a column of NaN was not measured"


def test_files_and_backed(adata, tmp_path):
    adata.layers["counts"] = sp.csr_matrix(adata.X)
    expected = bf.pp.align_genes(adata, vocabulary=VOCABULARY)
    expected.write_h5ad(tmp_path / "aligned.h5ad")
    expected.write_zarr(tmp_path / "aligned.zarr")
    read = ad.read_h5ad(tmp_path / "aligned.h5ad")
    np.testing.assert_array_equal(read.X, expected.X)
    assert read.var["measured"].dtype == bool
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    aligned = bf.pp.align_genes(backed, vocabulary=VOCABULARY)
    assert not aligned.isbacked
    np.testing.assert_array_equal(aligned.X, expected.X)
    backed.file.close()


def test_without_x(adata):
    adata.layers["x"] = adata.X
    adata.X = None
    aligned = bf.pp.align_genes(adata, vocabulary=VOCABULARY)
    assert aligned.X is None
    assert aligned.layers["x"].shape == (2, 3)


def test_refusals(adata):
    with pytest.raises(ValueError, match=r"only 2 of the 3 genes .* at least 90% are needed"):
        bf.pp.align_genes(adata, vocabulary=VOCABULARY, min_coverage=0.9)
    with pytest.raises(ValueError, match="pass identifiers='ensembl'"):
        bf.pp.align_genes(adata, vocabulary=VOCABULARY, identifiers="symbol")
    adata.var_names = [TP53, f"{TP53}.3", ACTB]
    with pytest.raises(ValueError, match="merge_duplicates"):
        bf.pp.align_genes(adata, vocabulary=VOCABULARY)
    with pytest.raises(TypeError, match=r"expected an AnnData .* found DataFrame"):
        bf.pp.align_genes(adata.to_df(), vocabulary=VOCABULARY)


def test_default_is_the_embedded_vocabulary(adata):
    known = load_vocabulary()
    aligned = bf.pp.align_genes(adata)
    assert aligned.var_names.tolist() == known.ids.tolist()
    assert aligned.uns["align_genes"]["params"]["vocabulary"] == "bulkformer-mini"
