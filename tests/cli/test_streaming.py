"""--stream and --resume: the same numbers in pieces."""

from __future__ import annotations

import shutil

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import zarr

import bulkformer_tl as bf

pytestmark = pytest.mark.filterwarnings("ignore:.* are outside what .* was trained with:UserWarning")


@pytest.fixture(scope="session")
def made(table, bundle):
    adata = ad.AnnData(table)
    bf.pp.log_tpm(adata, vocabulary=bf.models.load(bundle, device="cpu").vocabulary)
    adata.layers["log_tpm"][:, 3:9] = np.nan
    return adata


@pytest.fixture
def cohort(made):
    """The counts as ln(TPM+1), with gaps."""
    return made.copy()


@pytest.fixture(scope="session")
def stores(made, tmp_path_factory):
    """The cohort, the cohort turned, and what is no cohort."""
    folder = tmp_path_factory.mktemp("stores")
    made.write_zarr(folder / "x.zarr")
    ad.AnnData(made.X.T, obs=made.var[[]], var=made.obs[[]]).write_zarr(folder / "turned.zarr")
    zarr.open_group(folder / "other.zarr", mode="w")
    return folder


@pytest.fixture
def store(stores, folder):
    shutil.copytree(stores, folder, dirs_exist_ok=True)
    return "x.zarr"


def test_embed_and_impute(run, cohort, store, bundle, folder):
    common = ("--layer", "log_tpm", "--model", bundle)
    ended = run("embed", store, *common, "--stream", "-o", "e.zarr", "--json", "--debug")
    assert ended.code == 0, ended.err
    assert ended.json["params"]["layer"] == "log_tpm"
    assert run("impute", store, *common, "--resume", "-o", "i.zarr", "--predicted", "--json").json["n_predicted"] == 24
    bf.tl.embed(cohort, model=bundle, layer="log_tpm", device="cpu")
    bf.tl.impute(cohort, model=bundle, layer="log_tpm", device="cpu", predicted=True)
    embedded, imputed = ad.read_zarr(folder / "e.zarr"), ad.read_zarr(folder / "i.zarr")
    np.testing.assert_array_equal(embedded.obsm["X_bulkformer"], cohort.obsm["X_bulkformer"])
    for layer in ("imputed", "imputed_sd", "imputed_predicted"):
        np.testing.assert_array_equal(imputed.layers[layer], cohort.layers[layer])
    assert {path.name for path in folder.iterdir()} == {"e.zarr", "i.zarr", "other.zarr", "turned.zarr", "x.zarr"}


def test_h5ad_of_csr_goes_on_where_it_stopped(run, cohort, bundle, folder, monkeypatch):
    adata = ad.AnnData(sp.csr_matrix(cohort.layers["log_tpm"]), obs=cohort.obs, var=cohort.var)
    adata.write_h5ad(folder / "x.h5ad")
    words = ("embed", "x.h5ad", "--model", bundle, "-o", "e.zarr")

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bf.models.BulkFormer, "encode", interrupt)
        assert run(*words, "--resume").code == 130
    ended = run(*words, "--stream")
    assert ended.code == 2
    assert "holds an unfinished run; pass --resume to go on with it, or --force to begin anew" in ended.err
    ended = run(*words, "--resume", "--pooling", "max")
    assert ended.code == 3
    assert "pooling was mean and is max); repeat that call, or pass --force to drop it" in ended.err
    assert run(*words, "--resume").code == 0
    bf.tl.embed(adata, model=bundle, device="cpu")
    np.testing.assert_array_equal(ad.read_zarr(folder / "e.zarr").obsm["X_bulkformer"], adata.obsm["X_bulkformer"])
    assert run(*words, "--resume").code == 2
    assert run(*words, "--stream", "--force").code == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("embed", "x.zarr", "-o", "e.h5ad"), 3, "--stream writes .zarr, and e.h5ad is not one"),
        (("embed", "x.zarr", "-o", "e.zarr", "--counts"), 3, "convert first: bulkformer convert IN --to-log-tpm"),
        (("embed", "x.zarr", "-o", "e.zarr", "--merge-duplicates"), 3, "--stream reads h5ad and zarr of ln"),
        (("embed", "x.zarr", "-o", "e.zarr", "--metadata", "m.csv"), 3, "--stream reads h5ad and zarr of ln"),
        (("embed", "x.zarr", "-o", "x.zarr", "--force"), 3, "x.zarr cannot be replaced while it is read"),
        (("embed", "absent.zarr", "-o", "e.zarr"), 4, "there is no file or folder absent.zarr"),
        (("embed", "counts.csv", "-o", "e.zarr"), 3, "counts.csv is neither h5ad nor zarr, and only these are read in"),
        (("embed", "turned.zarr", "-o", "e.zarr"), 3, "turned.zarr holds genes in rows"),
        (("embed", "other.zarr", "-o", "e.zarr"), 3, "other.zarr holds no AnnData"),
        (("impute", "x.zarr", "-o", "e.zarr", "--align"), 3, "--align needs all of IN in memory"),
    ],
)
def test_what_cannot_be_streamed(run, store, counts, bundle, folder, words, code, message):
    before = sorted(path.name for path in folder.iterdir())
    ended = run(*words, "--model", bundle, "--stream")
    assert (ended.code, message in ended.err) == (code, True), ended.err
    assert sorted(path.name for path in folder.iterdir()) == before
