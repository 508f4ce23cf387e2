"""Tools on a BioFormer: counts in, its own bins made on the way."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from mudata import MuData

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import GeneVocabulary, match_genes
from bulkformer_tl.models._bioformer import BioformerConfig, BioformerNetwork

N_GENES = 30


@pytest.fixture(scope="module")
def counts():
    return bf.datasets.simulate(6, n_vars=N_GENES + 10, n_differential=2, rng=0)


def make(names, external=None):
    """An untrained network on these features; 10 of the genes of the data are none of them."""
    torch.manual_seed(0)
    n_modalities = len({name.split(":")[0] if ":" in name else "rna" for name in names})
    sizes = {"n_bins": 40, "dim": 16, "layers": 1, "heads": 2, "feed_forward": 32, "n_modalities": n_modalities}
    codes = tuple(len(values) for values in (external or {}).values())
    network = BioformerNetwork(BioformerConfig(n_genes=len(names), external=codes, **sizes))
    return bf.models.BioFormer(
        network,
        GeneVocabulary(np.array(names), name="thirty"),
        name="bioformer-tiny",
        family="bioformer",
        binnings={"rna": {"target_sum": 5000.0}},
        external=external,
    )


@pytest.fixture(scope="module")
def model(counts):
    return make(list(counts.var_names[:N_GENES][::-1]))


def test_embedding_is_that_of_its_bins_by_the_library_of_all_genes(counts, model):
    adata = counts.copy()
    adata.layers["counts"] = sp.csr_matrix(adata.X)
    bf.tl.embed(adata, model=model, layer="counts", key_added="bioformer")
    library = counts.X.sum(axis=1, dtype=np.float64)[:, None]
    bins = bf.encodings.value_bins(counts.X.astype(np.float64) * 5000.0 / library)[:, :N_GENES][:, ::-1]
    expected = model.encode(np.minimum(bins, 39)).pooled.numpy()
    assert np.array_equal(adata.obsm["X_bioformer"], expected)
    params = adata.uns["bioformer"]["params"]
    assert (params["model"], params["pooling"], params["n_found"]) == ("bioformer-tiny", "cls", N_GENES)


def test_absent_genes_have_no_token(counts, model):
    adata = counts.copy()
    adata.X[0, :5] = np.nan
    bf.tl.embed(adata, model=model)
    assert not np.array_equal(adata.obsm["X_bulkformer"][0], _embedded(counts, model)[0])
    assert np.array_equal(adata.obsm["X_bulkformer"][1:], _embedded(counts, model)[1:])


def _embedded(adata, model, **options):
    return bf.tl.embed(adata, model=model, copy=True, **options).obsm["X_bulkformer"]


def test_streaming_changes_nothing(counts, model, tmp_path):
    import anndata

    bf.tl.embed(counts, model=model, output=tmp_path / "out.zarr")
    stored = anndata.read_zarr(tmp_path / "out.zarr")
    assert np.array_equal(stored.obsm["X_bulkformer"], _embedded(counts, model))


def test_gene_vectors(counts, model):
    adata = counts.copy()
    bf.tl.gene_embeddings(adata, model=model)
    assert np.array_equal(adata.varm["bulkformer_genes"][:N_GENES][::-1], model.gene_table().numpy())
    assert np.isnan(adata.varm["bulkformer_genes"][N_GENES:]).all()
    adata.X[0, 3] = np.nan
    bf.tl.gene_embeddings(adata, model=model, contextual=True, key_added="context")
    bins = model.reader(adata.var_names, match_genes(adata.var_names, model.vocabulary))(adata.X)
    vectors = model.encode(bins, outputs=("genes",)).genes.numpy()[:, ::-1]
    np.testing.assert_allclose(adata.varm["context"][:N_GENES], np.nanmean(vectors, axis=0), atol=1e-6)


def test_bundle_folder_is_a_model(counts, model, tmp_path):
    folder = bf.models.convert(model, tmp_path / "bundle")
    assert np.array_equal(_embedded(counts, folder), _embedded(counts, model))


def test_external_tokens_come_from_obs(counts):
    known = make(list(counts.var_names[:N_GENES]), {"obs/condition": ("case", "control")})
    adata = counts.copy()
    adata.obs["condition"] = ["case", "control", None, "case", "control", None]
    found = _embedded(adata, known)
    bins = known.reader(adata.var_names, match_genes(adata.var_names, known.vocabulary))(adata.X)
    codes = {"obs/condition": np.array([[1], [2], [0], [1], [2], [0]])}
    assert np.array_equal(found, known.encode(bins, external=codes).pooled.numpy())
    adata.obs["condition"] = "treated"
    with pytest.raises(ValueError, match=r"holds \['treated'\], of which bioformer-tiny has no token; it knows"):
        bf.tl.embed(adata, model=known)
    del adata.obs["condition"]
    with pytest.raises(KeyError, match=r"reads adata.obs.* as a token, and there is no such column"):
        bf.tl.embed(adata, model=known)


def test_several_modalities(counts):
    protein = counts[:, :3].copy()
    protein.var_names = ["CD3", "CD4", "CD8"]
    mdata = MuData({"rna": counts.copy(), "protein": protein})
    mdata.obs["age"] = 40.0
    table = bf.pp.stack_modalities(mdata, obs=["age"])
    joint = make([*counts.var_names[:N_GENES], "protein:CD3", "protein:CD4", "protein:CD8", "obs:age"])
    assert _embedded(table, joint).shape == (6, 16)
    with pytest.raises(ValueError, match="none of its features of 'protein' is among the 40 columns"):
        bf.tl.embed(counts, model=joint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (np.log1p, "is fractional and at most .* as logarithms are, not counts; pass layer="),
        (lambda x: x - 1e6, "holds negative values"),
        (lambda x: np.where(np.arange(6)[:, None] == 2, np.inf, x), "infinite values"),
        (lambda x: np.where(np.arange(6)[:, None] == 2, np.nan, x), "measures nothing that bioformer-tiny knows"),
    ],
)
def test_values_that_are_no_counts_are_refused(counts, model, change, message):
    adata = counts.copy()
    adata.X = change(adata.X).astype(np.float32)
    with pytest.raises(ValueError, match=message):
        bf.tl.embed(adata, model=model)
    assert "X_bulkformer" not in adata.obsm


def test_it_predicts_no_expression(counts, model):
    with pytest.raises(ValueError, match=r"predicts no ln\(TPM\+1\)"):
        bf.tl.impute(counts, model=model)
