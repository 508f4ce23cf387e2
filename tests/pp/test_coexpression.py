from __future__ import annotations

import logging

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import spearmanr

import bulkformer_tl as bf


@pytest.fixture
def adata() -> ad.AnnData:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 30)) + rng.normal(size=(50, 30))
    values = np.maximum(values + 1, 0).astype(np.float32)
    obs = pd.DataFrame({"study": ["a"] * 20 + ["b", "c"] * 15}, index=[f"s{i}" for i in range(50)])
    return ad.AnnData(values, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(30)]))


def dense_graph(r, n_neighbors, threshold):
    """The slow way: sort each row."""
    strength = np.abs(np.nan_to_num(r))
    np.fill_diagonal(strength, 0)
    strength[strength < threshold] = 0
    for row in strength:
        row[np.argsort(-row, kind="stable")[n_neighbors:]] = 0
    return strength


def test_equals_the_dense_computation(adata):
    bf.pp.coexpression_graph(adata, n_neighbors=5, threshold=0.3)
    graph = adata.varp["coexpression"]
    assert sp.issparse(graph)
    assert graph.format == "csr"
    assert graph.dtype == np.float32
    expected = dense_graph(np.corrcoef(adata.X.T.astype(float)), 5, 0.3)
    np.testing.assert_allclose(graph.toarray(), expected, atol=1e-6)
    assert (graph.toarray() != graph.toarray().T).any()
    params = adata.uns["coexpression"]["params"]
    assert params["n_edges"] == graph.nnz
    assert params["n_isolated"] == int((expected.sum(axis=1) == 0).sum())
    assert (params["method"], params["n_neighbors"], params["threshold"]) == ("pearson", 5, 0.3)


def test_defaults_are_those_of_the_paper(adata):
    bf.pp.coexpression_graph(adata)
    expected = dense_graph(np.corrcoef(adata.X.T.astype(float)), 20, 0.4)
    np.testing.assert_allclose(adata.varp["coexpression"].toarray(), expected, atol=1e-6)


def test_spearman_equals_scipy(adata):
    bf.pp.coexpression_graph(adata, method="spearman", n_neighbors=5)
    expected = dense_graph(spearmanr(adata.X).statistic, 5, 0.4)
    np.testing.assert_allclose(adata.varp["coexpression"].toarray(), expected, atol=1e-6)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_missing_values(adata, method):
    """Missing is not zero; Spearman ranks each gene once, over what was measured of it."""
    adata.X[np.random.default_rng(1).random(adata.shape) < 0.2] = np.nan
    bf.pp.coexpression_graph(adata, method=method, n_neighbors=29, threshold=0)
    table = pd.DataFrame(adata.X.astype(float))
    r = (table if method == "pearson" else table.rank()).corr().to_numpy()
    np.testing.assert_allclose(adata.varp["coexpression"].toarray(), dense_graph(r, 29, 0), atol=1e-6)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_groups_average_over_studies(adata, method):
    adata.X[adata.obs["study"] == "b"] += 20
    bf.pp.coexpression_graph(adata, method=method, groups="study", n_neighbors=29, threshold=0)
    table = pd.DataFrame(adata.X.astype(float))
    mean = np.mean([part.corr(method=method) for _, part in table.groupby(adata.obs["study"].to_numpy())], axis=0)
    np.testing.assert_allclose(adata.varp["coexpression"].toarray(), dense_graph(mean, 29, 0), atol=1e-6)
    assert adata.uns["coexpression"]["params"]["n_studies"] == 3


def test_groups_leave_out_small_studies_and_unnamed_samples(adata, caplog):
    adata.obs["study"] = adata.obs["study"].astype("category")
    adata.obs.loc[adata.obs_names[:19], "study"] = np.nan
    with caplog.at_level(logging.WARNING, "bulkformer_tl"):
        bf.pp.coexpression_graph(adata, groups="study")
    assert "1 of 3 studies have fewer than 3 samples, and 19 samples name no study" in caplog.text


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("storage", ["csr", "csc", "dask", "backed", "backed csr", "view"])
def test_storage_changes_nothing(adata, storage, method, tmp_path):
    expected = bf.pp.coexpression_graph(adata, groups="study", method=method, copy=True).varp["coexpression"]
    assert "coexpression" not in adata.varp
    if "csr" in storage or storage == "csc":
        adata.X = sp.csc_matrix(adata.X) if storage == "csc" else sp.csr_matrix(adata.X)
    elif storage == "dask":
        adata.X = da.from_array(adata.X, chunks=(7, 11))
    if "backed" in storage:
        adata.write_h5ad(tmp_path / "a.h5ad")
        adata = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    if storage == "view":
        adata = adata[:, adata.var_names]
    bf.pp.coexpression_graph(adata, groups="study", method=method)
    np.testing.assert_array_equal(adata.varp["coexpression"].toarray(), expected.toarray())


def test_constant_genes_get_no_edge_and_are_named(adata, caplog):
    adata.X[:, 3] = 0.1
    with caplog.at_level(logging.WARNING, "bulkformer_tl"):
        bf.pp.coexpression_graph(adata, threshold=0)
    graph = adata.varp["coexpression"].toarray()
    assert not graph[3].any()
    assert not graph[:, 3].any()
    assert "1 of 30 genes do not vary" in caplog.text
    assert "g3" in caplog.text


def test_equal_genes_tie_by_order(adata):
    adata.X[:, 10:14] = adata.X[:, [0]]
    bf.pp.coexpression_graph(adata, n_neighbors=3)
    for gene, expected in ((0, [10, 11, 12]), (12, [0, 10, 11])):
        assert adata.varp["coexpression"][gene].indices.tolist() == expected


def test_written_and_read_back(adata, tmp_path):
    bf.pp.coexpression_graph(adata, key_added="mine")
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(back.varp["mine"].toarray(), adata.varp["mine"].toarray())
    bf.pp.coexpression_graph(back, key_added="mine", n_neighbors=2)


def test_edges_of_ones_own(adata, tmp_path, caplog):
    edges = pd.DataFrame(
        [
            ["g0", "g1", 2.0],
            ["g1", "g0", 3.0],
            ["g4", "g4", 9.0],
            ["g2", "other", 1.0],
            ["g2", "g3", 0.0],
            ["g5", "g2", 1],
        ],
        columns=["protein1", "protein2", "score"],
    )
    with caplog.at_level(logging.INFO, "bulkformer_tl"):
        bf.pp.coexpression_graph(adata, edges=edges)
    expected = np.zeros((30, 30), dtype=np.float32)
    expected[0, 1] = expected[1, 0] = 3
    expected[2, 5] = expected[5, 2] = 1
    np.testing.assert_array_equal(adata.varp["coexpression"].toarray(), expected)
    params = adata.uns["coexpression"]["params"]
    assert (params["n_unknown"], params["n_loops"], params["n_repeated"]) == (1, 1, 1)
    assert "1 name genes that adata does not have, 1 connect a gene with itself, 1 are listed again" in caplog.text
    for name, separator in (("edges.csv", ","), ("edges.tsv.gz", "\t")):
        edges.to_csv(tmp_path / name, sep=separator, index=False)
        bf.pp.coexpression_graph(adata, edges=tmp_path / name)
        np.testing.assert_array_equal(adata.varp["coexpression"].toarray(), expected)
    bf.pp.coexpression_graph(adata, edges=edges.iloc[:, :2])
    assert set(adata.varp["coexpression"].data) == {1.0}
    assert adata.varp["coexpression"].nnz == 6


def test_edges_for_a_network(adata):
    bf.pp.coexpression_graph(adata, n_neighbors=3)
    before = adata.varp["coexpression"].copy()
    edges, weights = bf.pp.graph_edges(adata)
    assert (edges.dtype, weights.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(weights, before.toarray()[edges[0], edges[1]])
    assert (np.diff(edges[0]) >= 0).all()
    assert edges.shape == (2, before.nnz)
    adata.varp["dense"] = before.toarray()
    for one, other in zip(bf.pp.graph_edges(adata, key="dense"), (edges, weights), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_edges_for_a_network_are_checked(adata, bad):
    with pytest.raises(KeyError, match=r"no graph 'coexpression'.*call bf.pp.coexpression_graph"):
        bf.pp.graph_edges(adata)
    adata.varp["coexpression"] = sp.csr_matrix(np.full((30, 30), bad))
    with pytest.raises(ValueError, match="finite and not negative"):
        bf.pp.graph_edges(adata)


PAIR = ["g0", "g1"]
BAD = {
    "n_neighbors must lie between 1 and 29": {"n_neighbors": 30},
    "n_neighbors must lie between 1 and 29, .* found 0": {"n_neighbors": 0},
    "threshold must lie between 0 and 1, found 1.1": {"threshold": 1.1},
    "threshold must lie between 0 and 1, found nan": {"threshold": np.nan},
    "method must be": {"method": "kendall"},
    "min_samples must be at least 3": {"min_samples": 2},
    "needs at least 51 samples, found 50": {"min_samples": 51},
    "needs at least 21 samples of one study, found 20": {"min_samples": 21, "groups": "study"},
    "no column 'nothing'": {"groups": "nothing"},
    "no layer 'nothing'": {"layer": "nothing"},
    "two columns of genes": {"edges": pd.DataFrame({"a": ["g0"]})},
    "at least one row": {"edges": pd.DataFrame({"a": [], "b": []})},
    "1 are not, the first '-1'": {"edges": pd.DataFrame([[*PAIR, -1]])},
    "1 are not, the first 'x'": {"edges": pd.DataFrame([[*PAIR, "x"]])},
    "1 are not, the first 'nan'": {"edges": pd.DataFrame([[*PAIR, np.nan]])},
    "no edge connects two genes": {"edges": pd.DataFrame([["TP53", "MYC"]])},
    "there is no file": {"edges": "absent.csv"},
    "must be a DataFrame or a path": {"edges": [PAIR]},
    "leave out layer and groups": {"edges": pd.DataFrame([PAIR]), "groups": "study"},
    "pass another key_added": {"key_added": "taken"},
    "because of its '/'": {"key_added": "a/b"},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(adata, message):
    adata.varp["taken"] = np.eye(30)
    with pytest.raises((ValueError, KeyError, TypeError, FileNotFoundError), match=message):
        bf.pp.coexpression_graph(adata, **BAD[message])
    assert list(adata.varp) == ["taken"]
    assert not adata.uns


@pytest.mark.parametrize(("value", "message"), [(np.inf, "infinities"), (-10, "marker of missing")])
def test_bad_values(adata, value, message):
    adata.X[3, 4] = value
    with pytest.raises(ValueError, match=message):
        bf.pp.coexpression_graph(adata)


def test_genes_of_one_name(adata):
    adata.var_names = ["g0", *adata.var_names[:-1]]
    with pytest.raises(ValueError, match=r"'g0' occurs again; call adata = bf.pp.merge_duplicates"):
        bf.pp.coexpression_graph(adata)


def test_counts_warn(adata):
    adata.X = np.round(adata.X * 1000)
    with pytest.warns(UserWarning, match=r"call bf.pp.log_tpm\(adata\) first and pass layer='log_tpm'"):
        bf.pp.coexpression_graph(adata)
