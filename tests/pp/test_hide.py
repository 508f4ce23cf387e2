from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import bulkformer_tl as bf


@pytest.fixture
def adata() -> ad.AnnData:
    rng = np.random.default_rng(0)
    values = rng.poisson(3, (40, 100)).astype(np.float32)
    values[rng.random(values.shape) < rng.random((40, 1)) * 0.6] = np.nan
    return ad.AnnData(values, var=pd.DataFrame({"coding": np.arange(100) < 30}, index=[f"g{i}" for i in range(100)]))


@pytest.mark.parametrize("fraction", [0.05, 0.15, 0.5, 0.99])
def test_share_of_each_sample(adata, fraction):
    bf.pp.hide(adata, fraction=fraction)
    hidden = adata.layers["hidden"]
    measured = ~np.isnan(adata.X)
    assert hidden.dtype == bool
    assert not (hidden & ~measured).any()
    n = measured.sum(axis=1)
    expected = [min(round(fraction * k), k - 1) for k in n]
    assert hidden.sum(axis=1).tolist() == expected
    assert adata.uns["hidden"]["params"]["n_hidden"] == sum(expected)


def test_every_measured_entry_has_the_same_chance(adata):
    adata = adata[:1].copy()
    adata.X[0, :50] = np.nan
    adata.X[0, 50:] = np.arange(50) % 2
    times = np.zeros(100)
    generator = np.random.default_rng(1)
    for i in range(2000):
        bf.pp.hide(adata, fraction=0.2, rng=generator, key_added=f"h{i % 2}")
        times += adata.layers[f"h{i % 2}"][0]
    assert not times[:50].any()
    # binomial with mean 400 and deviation 18; zeros are drawn like other values
    assert np.abs(times[50:] - 400).max() < 5 * 18


def test_whole_genes(adata):
    bf.pp.hide(adata, fraction=0.2, by="gene")
    measured = ~np.isnan(adata.X)
    genes = adata.layers["hidden"].any(axis=0)
    assert genes.sum() == 20
    np.testing.assert_array_equal(adata.layers["hidden"], measured & genes)


def test_mask_var(adata):
    bf.pp.hide(adata, fraction=0.5, mask_var="coding")
    measured = ~np.isnan(adata.X[:, :30])
    assert not adata.layers["hidden"][:, 30:].any()
    assert adata.layers["hidden"].sum(axis=1).tolist() == [min(round(0.5 * k), k - 1) for k in measured.sum(axis=1)]
    copy = bf.pp.hide(adata, fraction=0.5, mask_var=adata.var["coding"].to_numpy(), copy=True)
    np.testing.assert_array_equal(copy.layers["hidden"], adata.layers["hidden"])


def test_seed_and_storage(adata, tmp_path):
    bf.pp.hide(adata)
    first = adata.layers["hidden"].copy()
    bf.pp.hide(adata, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(adata.layers["hidden"], first)
    bf.pp.hide(adata, rng=1)
    assert (adata.layers["hidden"] != first).any()
    stored = ad.AnnData(sp.csc_matrix(adata.X), var=adata.var)
    bf.pp.hide(stored)
    np.testing.assert_array_equal(stored.layers["hidden"], first)
    stored.write_h5ad(tmp_path / "a.h5ad")
    stored.write_zarr(tmp_path / "a.zarr")
    read = ad.read_h5ad(tmp_path / "a.h5ad")
    assert read.layers["hidden"].dtype == bool
    assert read.uns["hidden"]["params"]["rng"] == 0


def test_layer_decides_what_is_measured(adata):
    adata.layers["other"] = np.ones(adata.shape)
    bf.pp.hide(adata, layer="other", fraction=0.5, key_added="x")
    assert (adata.layers["x"].sum(axis=1) == 50).all()
    assert adata.uns["x"]["params"]["layer"] == "other"


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, np.nan])
def test_fraction_outside_its_range(adata, fraction):
    with pytest.raises(ValueError, match="fraction must lie between 0 and 1"):
        bf.pp.hide(adata, fraction=fraction)


def test_bad_arguments(adata):
    with pytest.raises(ValueError, match="less than one entry"):
        bf.pp.hide(adata, fraction=1e-4)
    with pytest.raises(ValueError, match="by must be 'entry' or 'gene', found 'sample'"):
        bf.pp.hide(adata, by="sample")
    with pytest.raises(KeyError, match=r"no column 'protein'; its columns are \['coding'\]"):
        bf.pp.hide(adata, mask_var="protein")
    with pytest.raises(ValueError, match="boolean with 100 entries, found int64"):
        bf.pp.hide(adata, mask_var=np.arange(100))
    adata.layers["hidden"] = np.zeros(adata.shape)
    with pytest.raises(ValueError, match="pass another key_added"):
        bf.pp.hide(adata)


def test_share_of_marks_on_zeros(adata):
    bf.pp.hide(adata, fraction=0.3, nonzero=0.8)
    hidden, measured = adata.layers["hidden"], ~np.isnan(adata.X)
    wanted = np.trunc(measured.sum(axis=1) * 0.3)
    zeros = (adata.X == 0).sum(axis=1)
    np.testing.assert_array_equal((hidden & (adata.X > 0)).sum(axis=1), np.trunc(wanted * 0.8))
    np.testing.assert_array_equal(
        (hidden & (adata.X == 0)).sum(axis=1), np.minimum(np.trunc(wanted * (1 - 0.8)), zeros)
    )
    assert adata.uns["hidden"]["params"]["nonzero"] == 0.8


@pytest.mark.parametrize("options", [{"nonzero": 1.2}, {"nonzero": 0.5, "by": "gene"}])
def test_share_on_zeros_is_refused(adata, options):
    with pytest.raises(ValueError, match="nonzero is a share from 0 to 1 of the marks by='entry'"):
        bf.pp.hide(adata, **options)
