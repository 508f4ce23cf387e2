"""Modules of genes from their vectors."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bulkformer_tl as bf

SIZES = (30, 20, 12)


def make(seed=0):
    """Three directions, one gene without a vector, and a gene set that is the second of them."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(range(3), SIZES)
    vectors = np.eye(3)[codes] * rng.uniform(0.5, 5, (len(codes), 1)) + rng.normal(0, 0.05, (len(codes), 3))
    names = [f"g{i}" for i in range(len(codes) + 1)]
    adata = ad.AnnData(np.ones((2, len(names)), dtype=np.float32), var=pd.DataFrame(index=names))
    adata.varm["genes"] = np.vstack([vectors, np.full((1, 3), np.nan)]).astype(np.float32)
    adata.var["symbol"] = [f"S{i}" for i in range(len(names))]
    return adata, codes


@pytest.mark.parametrize("options", [{"n_modules": 3}, {"method": "leiden", "n_neighbors": 8, "resolution": 0.2}])
def test_directions_are_found_and_numbered_by_size(options, tmp_path):
    adata, codes = make()
    bf.tl.gene_modules(adata, "genes", **options)
    module = adata.var["gene_modules"]
    assert module[:-1].tolist() == [str(code + 1) for code in codes]
    assert module.isna().sum() == 1
    table = adata.uns["gene_modules"]["modules"]
    assert table["n_genes"].tolist() == list(SIZES)
    own = adata.varm["genes"][:30].astype(float)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    center = own.mean(axis=0) / np.linalg.norm(own.mean(axis=0))
    assert table["cosine"].iloc[0] == pytest.approx((own @ center).mean())
    again, _ = make()
    bf.tl.gene_modules(again, "genes", **options)
    pd.testing.assert_series_equal(again.var["gene_modules"], module)
    adata.write_h5ad(tmp_path / "modules.h5ad")
    assert ad.read_h5ad(tmp_path / "modules.h5ad").uns["gene_modules"]["params"]["n_without_vector"] == 1


def test_small_modules_are_none():
    adata, codes = make()
    bf.tl.gene_modules(adata, "genes", n_modules=3, min_genes=15)
    assert adata.var["gene_modules"].isna().to_numpy()[:-1].tolist() == (codes == 2).tolist()
    assert adata.uns["gene_modules"]["params"]["n_without_module"] == 12


def test_enrichment_is_fishers_test_among_genes_with_a_vector():
    pytest.importorskip("decoupler", reason='pip install "bulkformer-tl[de]"')
    adata, codes = make()
    second = np.flatnonzero(codes == 1)
    sets = {"IN": [f"S{i}" for i in second[:9]], "OUT": [f"S{i}" for i in range(0, 60, 8)], "FEW": ["S1", "nothing"]}
    bf.tl.gene_modules(adata, "genes", n_modules=3, gene_sets=sets, symbols="symbol")
    table = adata.uns["gene_modules"]["enrichment"]
    assert table.iloc[0][["module", "set"]].tolist() == ["2", "IN"]
    assert table.iloc[0][["n_genes", "n_found"]].tolist() == [9, 9]
    expected = stats.fisher_exact([[9, 0], [11, 42]], alternative="greater").pvalue
    assert table.iloc[0]["p"] == pytest.approx(expected)
    np.testing.assert_allclose(table["fdr"], stats.false_discovery_control(table["p"]))
    assert set(table["set"]) == {"IN", "OUT"}
    assert len(table) == 6


def test_vectors_in_context_are_averaged_and_copies_made():
    adata, codes = make()
    adata.obs["kind"] = ["a", "b"]
    adata.varm["v_a"] = adata.varm["genes"] + 1
    adata.varm["v_b"] = adata.varm["genes"] - 1
    adata.uns["v"] = {"params": {"package": "bulkformer_tl", "groupby": "kind"}}
    made = bf.tl.gene_modules(adata, "v", n_modules=3, copy=True)
    assert made.var["gene_modules"][:-1].tolist() == [str(code + 1) for code in codes]
    assert "gene_modules" not in adata.var


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"vectors": "none"}, KeyError, "bf.tl.gene_embeddings"),
        ({"method": "louvain"}, ValueError, r"method is 'louvain'; choose among \['kmeans', 'leiden'\]"),
        ({"n_modules": 62}, ValueError, "n_modules is 62, and 62 genes have a vector"),
        ({"n_modules": 0}, ValueError, "n_modules is 0"),
        ({"method": "leiden", "n_neighbors": 80}, ValueError, "n_neighbors is 80"),
        ({"n_modules": 3, "min_genes": 50}, ValueError, "no module has 50 genes, the largest has 30"),
        ({"n_modules": 3, "gene_sets": {"A": ["x1"]}}, ValueError, "gene_sets names no gene of adata"),
        ({"n_modules": 3, "gene_sets": {"A": ["g1", "g2"]}}, ValueError, "no gene set has 5 genes with a vector"),
        ({"n_modules": 3, "gene_sets": {"A": ["g1"]}, "symbols": "name"}, KeyError, "no column 'name'"),
        ({"n_modules": 3, "gene_sets": "nowhere.gmt"}, FileNotFoundError, "nowhere.gmt"),
        ({"n_modules": 3, "key_added": "symbol"}, ValueError, "was not written by this call before"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(options, error, says):
    adata, _ = make()
    with pytest.raises(error, match=says):
        bf.tl.gene_modules(adata, **{"vectors": "genes", **options})
    assert not adata.uns
    assert adata.var.columns.tolist() == ["symbol"]


def test_missing_libraries_are_named(monkeypatch):
    adata, _ = make()
    monkeypatch.setattr("bulkformer_tl._optional.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"bulkformer-tl\[modules\]"):
        bf.tl.gene_modules(adata, "genes", method="leiden")
    with pytest.raises(ImportError, match=r"bulkformer-tl\[de\]"):
        bf.tl.gene_modules(adata, "genes", n_modules=3, gene_sets={"A": [f"g{i}" for i in range(9)]})
