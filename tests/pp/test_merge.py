from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import bulkformer_tl as bf

TP53, GAPDH = "ENSG00000141510", "ENSG00000111640"


def table(values, names, **kwargs) -> ad.AnnData:
    values = np.asarray(values)
    obs = pd.DataFrame({"sex": ["f"] * len(values)}, index=[f"s{i}" for i in range(len(values))])
    var = pd.DataFrame({"row": range(len(names))}, index=list(names))
    return ad.AnnData(values, obs=obs, var=var, **kwargs)


NAMES = [f"{TP53}.1", GAPDH, f"{TP53}.18", "other", f"{TP53}.19_PAR_Y"]


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_by_hand_with_missing_values():
    nan = np.nan
    adata = table([[1, 2, 40, 5, 7], [nan, nan, 3, 4, nan], [nan, 1, nan, 2, nan]], NAMES)
    merged = bf.pp.merge_duplicates(adata)
    assert merged.var_names.tolist() == [TP53, GAPDH, "other"]
    np.testing.assert_array_equal(merged.X, [[48, 2, 5], [3, nan, 4], [nan, 1, 2]])
    assert merged.var["row"].tolist() == [0, 1, 3]
    assert merged.obs["sex"].tolist() == ["f"] * 3
    params = merged.uns["merge_duplicates"]["params"]
    assert (params["n_columns"], params["n_genes"], params["merged"]) == (5, 3, [TP53])
    assert adata.shape == (3, 5)
    assert not adata.uns


@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix, sp.csc_array])
@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
def test_agrees_with_pandas_in_any_storage(container, dtype):
    values = np.random.default_rng(0).poisson(2, (90, 40)).astype(dtype)
    names = [f"ENSG{i % 25:011d}.{i}" for i in range(40)]
    adata = ad.AnnData(container(values), var=pd.DataFrame(index=names))
    merged = bf.pp.merge_duplicates(adata)
    expected = pd.DataFrame(values.T, index=[name[:15] for name in names]).groupby(level=0, sort=False).sum().T
    assert merged.var_names.tolist() == expected.columns.tolist()
    assert merged.X.dtype == dtype
    assert sp.issparse(merged.X) == sp.issparse(adata.X)
    found = merged.X.toarray() if sp.issparse(merged.X) else merged.X
    np.testing.assert_array_equal(found, expected)


def test_sums_beyond_the_integers_of_the_table():
    adata = table(np.full((1, 2), 2**31 - 1, dtype=np.int32), [f"{TP53}.1", f"{TP53}.2"])
    assert bf.pp.merge_duplicates(adata).X.tolist() == [[2**32 - 2]]


def test_symbols_of_one_gene_and_unknown_names():
    adata = table([[1, 2, 3, 4]], ["TP53", "x", "GAPDH", "y"])
    merged = bf.pp.merge_duplicates(adata, identifiers="symbol")
    assert merged.var_names.tolist() == ["TP53", "x", "GAPDH", "y"]
    with pytest.warns(UserWarning, match="not unique"):
        twice = ad.AnnData(np.ones((1, 3)), var=pd.DataFrame(index=["TP53", "x", "TP53"]))
    merged = bf.pp.merge_duplicates(twice, identifiers="symbol")
    assert merged.var_names.tolist() == ["TP53", "x"]
    assert merged.X.tolist() == [[2, 1]]


def test_linear_layers_follow_and_others_are_left_out(caplog):
    counts = np.arange(10).reshape(2, 5)
    layers = {"double": counts * 2, "log": np.log1p(counts), "mask": counts > 3, "scaled": counts - 5.0}
    merged = bf.pp.merge_duplicates(table(counts, NAMES, layers=layers))
    np.testing.assert_array_equal(merged.layers["double"], merged.X * 2)
    assert set(merged.layers) - {None} == {"double"}
    for name in ("log", "mask", "scaled"):
        assert f"layers['{name}'] is left out" in caplog.text


def test_nothing_to_merge_keeps_everything():
    adata = table(np.log1p([[1.0, 2.0]]), [f"{TP53}.1", GAPDH])
    adata.varm["loadings"] = np.ones((2, 3))
    merged = bf.pp.merge_duplicates(adata)
    assert merged.var_names.tolist() == [TP53, GAPDH]
    np.testing.assert_array_equal(merged.X, adata.X)
    assert "loadings" in merged.varm
    assert adata.var_names.tolist() == [f"{TP53}.1", GAPDH]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.log1p([[1, 2, 3, 4, 5]]), "as logarithms are; those do not add up; merge the columns of counts or TPM"),
        ([[1, 2, -3, 4, 5]], "go down to -3; scaled values do not add up"),
    ],
)
def test_what_does_not_add_up_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        bf.pp.merge_duplicates(table(values, NAMES))


def test_counts_in_a_layer_suffice():
    counts = np.arange(5)[None]
    merged = bf.pp.merge_duplicates(table(np.log1p(counts), NAMES, layers={"counts": counts}), layer="counts")
    assert merged.X is None
    assert merged.layers["counts"].tolist() == [[6, 1, 3]]


def test_backed_and_view(tmp_path):
    adata = table(np.arange(10).reshape(2, 5), NAMES)
    expected = bf.pp.merge_duplicates(adata[1:]).X
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    np.testing.assert_array_equal(bf.pp.merge_duplicates(backed).X[1:], expected)
    backed.file.close()


def test_merged_table_is_ready_for_log_tpm(tmp_path):
    adata = table(np.full((1, 5), 30), [f"{TP53}.1", GAPDH, f"{TP53}.18", "ENSG00000000003", "ENSG00000000419"])
    with pytest.raises(ValueError, match="merge_duplicates"):
        bf.pp.log_tpm(adata)
    merged = bf.pp.merge_duplicates(adata)
    bf.pp.log_tpm(merged)
    merged.write_h5ad(tmp_path / "a.h5ad")
    assert np.isfinite(merged.layers["log_tpm"]).all()


def test_retired_names_join_those_that_took_their_place():
    names = ["ENSG00000000001", "ENSG00000000002.4", "ENSG00000000003"]
    adata = ad.AnnData(np.array([[1.0, 2.0, 4.0], [0.0, 3.0, 5.0]], dtype=np.float32))
    adata.var_names = names
    merged = bf.pp.merge_duplicates(adata, renamed={"ENSG00000000002": "ENSG00000000001"})
    assert merged.var_names.tolist() == ["ENSG00000000001", "ENSG00000000003"]
    np.testing.assert_array_equal(merged.X, [[3, 4], [3, 5]])
    assert merged.uns["merge_duplicates"]["params"]["merged"] == ["ENSG00000000001"]
