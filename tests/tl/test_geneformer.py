from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

import bulkformer_tl as bf

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def files(golden):
    return golden / "geneformer"


@pytest.fixture(scope="module")
def name(geneformer_folders) -> str:
    """What names the model in a call."""
    return f"geneformer:{geneformer_folders['v2']}"


@pytest.fixture(scope="module")
def model(name) -> bf.models.Geneformer:
    return bf.models.load(name, device="cpu")


@pytest.fixture(scope="module")
def expected(files):
    return load_file(files / "expected_embeddings.safetensors")


@pytest.fixture
def adata(files) -> ad.AnnData:
    """Golden counts in a layer, and ln(TPM+1) as a layer that is not read."""
    read = ad.read_h5ad(files / "cells.h5ad")
    read.var_names = read.var["ensembl_id"].astype(str)
    read.var_names.name = None
    read.layers["counts"] = read.X.copy()
    read.layers["normalized"] = read.X.multiply(1e4 / read.X.sum(axis=1)).tocsr()
    read.layers["log"] = read.layers["normalized"].log1p() / 2
    return read


def test_embed_by_folder(adata, name, model, expected):
    bf.tl.embed(adata, model=name, layer="counts")
    np.testing.assert_allclose(adata.obsm["X_bulkformer"], expected["v2.layer-1.cls"], rtol=0, atol=2e-5)
    params = adata.uns["bulkformer"]["params"]
    assert (params["model"], params["pooling"], params["layer"]) == (model.name, "cls", "counts")
    assert params["checksum"] == model.checksum
    # retired identifiers count
    assert adata.var["bulkformer_in_vocabulary"].sum() == params["n_found"] == 56


def test_embed_other_poolings(adata, model, expected):
    bf.tl.embed(adata, model=model, layer="counts", pooling="mean", key_added="mean")
    np.testing.assert_allclose(adata.obsm["X_mean"], expected["v2.layer-1.cell"], rtol=0, atol=2e-5)
    bf.tl.embed(adata, model=model, layer="counts", pooling="cls", key_added="cls")
    np.testing.assert_allclose(adata.obsm["X_cls"], expected["v2.layer-1.cls"], rtol=0, atol=2e-5)
    half = np.arange(adata.n_vars) % 2 == 0
    bf.tl.embed(adata, model=model, layer="counts", pooling="mean", mask_var=half, key_added="half")
    assert not np.allclose(adata.obsm["X_half"], adata.obsm["X_mean"])
    with pytest.raises(ValueError, match=r"sample vector of geneformer:v2\d* \('cls'\) uses all measured genes"):
        bf.tl.embed(adata, model=model, layer="counts", mask_var=half)


def test_order_and_storage_do_not_matter(adata, model, tmp_path):
    bf.tl.embed(adata, model=model, layer="counts")
    expected = adata.obsm["X_bulkformer"]
    rng = np.random.default_rng(0)
    rows, genes = rng.permutation(40), rng.permutation(60)
    other = ad.AnnData(adata.X.toarray()[np.ix_(rows, genes)], var=adata.var.iloc[genes][["ensembl_id"]])
    bf.tl.embed(other, model=model, batch_size=7)
    np.testing.assert_array_equal(other.obsm["X_bulkformer"], expected[rows])


def test_gene_embeddings(adata, files, model, expected):
    bf.tl.gene_embeddings(adata, model=model, contextual=True, layer="counts")
    order = json.loads((files / "expected_order.json").read_text())["v2.gene_index"]
    wanted = pd.DataFrame(expected["v2.layer-1.gene_mean"].numpy(), index=order)
    mapping = json.loads((files / "ensembl_mapping_dictionary.json").read_text())
    ids = [mapping.get(gene, gene) for gene in adata.var_names]
    found = adata.varm["bulkformer_genes"]
    np.testing.assert_allclose(found, wanted.reindex(ids).to_numpy(), rtol=0, atol=2e-5, equal_nan=True)
    assert np.isnan(found).all(axis=1).sum() == 4
    bf.tl.gene_embeddings(adata, model=model, key_added="static")
    np.testing.assert_array_equal(np.isnan(adata.varm["static"]), np.isnan(found))
    rows = pd.DataFrame(model.gene_table().numpy(), index=model.vocabulary.ids).reindex(ids)
    np.testing.assert_array_equal(adata.varm["static"], rows.to_numpy())


def test_gene_embeddings_of_groups_without_the_gene(adata, model):
    counts = adata.X.toarray()
    gene = int(np.flatnonzero((counts > 0).any(axis=0) & np.isin(adata.var_names, model.vocabulary.ids))[0])
    counts[adata.obs["state"] == "nf", gene] = 0
    adata.layers["counts"] = counts
    bf.tl.gene_embeddings(adata, model=model, contextual=True, layer="counts", groupby="state")
    assert np.isnan(adata.varm["bulkformer_genes_nf"][gene]).all()
    assert np.isfinite(adata.varm["bulkformer_genes_dcm"][gene]).all()


def test_classify_on_it(adata, model):
    bf.tl.embed(adata, model=model, layer="counts")
    bf.tl.classify(
        adata, "state", use_rep="X_bulkformer", layer="log", protocol=bf.metrics.Protocol(n_splits=2, baselines=())
    )
    scores = adata.uns["classify_state"]["scores"]
    assert "X_bulkformer" in set(scores["representation"])


def test_compare_ranks_with_what_else_there_is(adata, model):
    candidates = {
        "ranks": {"model": model, "layer": "counts"},
        "mean": {"model": model, "layer": "counts", "pooling": "mean"},
    }
    protocol = bf.metrics.Protocol(n_splits=2, baselines=(), n_bootstrap=100)
    bf.tl.compare(adata, "state", models=candidates, layer="log", protocol=protocol)
    assert {"ranks", "mean"} <= set(adata.uns["compare_state"]["scores"]["representation"])


def test_imputation_needs_another_model(adata, model):
    with pytest.raises(ValueError, match=r"reads counts and predicts no ln\(TPM\+1\); pass a model of BulkFormer"):
        bf.tl.impute(adata, model=model, layer="counts")
    with pytest.raises(ValueError, match=r"predicts no ln\(TPM\+1\)"):
        bf.tl.score_imputation(adata, model=model, layer="counts")


def test_training_goes_on_in_its_own_family(adata, model, tmp_path):
    with pytest.raises(ValueError, match="the configuration of 'g3'; pass family='geneformer'"):
        bf.train.pretrain(adata, out=tmp_path / "run", start=model)


def _renamed_twice(adata):
    # a retired name of the first gene beside it
    adata.var_names = ["ENSG00000232141" if i == 3 else name for i, name in enumerate(adata.var_names)]


BAD = {
    "normalized": ("normalized", None, "sum to 10,000 in every sample.*layer= for raw counts"),
    "logarithms": ("log", None, "as logarithms are, not counts.*layer= for the one that holds raw counts"),
    "negative": ("negative", None, "go down to -5"),
    "empty sample": ("empty", None, r"sample 'cell07' has no count of any gene that geneformer:v2\d* knows.*drop"),
    "symbols": ("counts", lambda a: setattr(a, "var_names", [f"GENE{i}" for i in range(60)]), "no gene of .* found"),
    "few genes": (
        "counts",
        lambda a: setattr(a, "var_names", [*a.var_names[:3], *[f"x{i}" for i in range(57)]]),
        "of the 61 genes of",
    ),
    "two names of one gene": (
        "counts",
        _renamed_twice,
        r"are all ENSG\w+; call .*merge_duplicates\(adata, renamed=model.vocabulary.renamed\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(adata, model, case):
    layer, change, match = BAD[case]
    counts = adata.X.toarray()
    adata.layers["negative"] = counts - 5
    counts[7, np.isin(adata.var_names, [*model.vocabulary.ids, *model.vocabulary.renamed])] = 0
    adata.layers["empty"] = counts
    if change is not None:
        change(adata)
    with pytest.raises(ValueError, match=match):
        bf.tl.embed(adata, model=model, layer=layer)
    assert "X_bulkformer" not in adata.obsm


def test_two_names_of_one_gene_can_be_added(adata, model):
    _renamed_twice(adata)
    merged = bf.pp.merge_duplicates(adata, layer="counts", renamed=model.vocabulary.renamed)
    assert merged.n_vars == 59
    assert merged.layers["counts"].sum() == adata.layers["counts"].sum()
    bf.tl.embed(merged, model=model, layer="counts")
