from __future__ import annotations

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import bulkformer_tl as bf
from bulkformer_tl.encodings import segment_bins, value_bins


@pytest.fixture(scope="module")
def scaled(golden):
    return dict(np.load(golden / "bioformers" / "normalization.npz"))


def cohort(values, **parts):
    return ad.AnnData(values, var=pd.DataFrame(index=[f"g{i}" for i in range(values.shape[1])]), **parts)


@pytest.fixture
def adata() -> ad.AnnData:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.lognormal(0, 2, 40), (12, 40)).astype(np.float32)
    obs = pd.DataFrame(
        {
            "batch": ["b", "a", None] * 4,
            "age": [*np.arange(11.0), np.nan],
            "treated": [True, False] * 6,
            "nothing": [np.nan] * 12,
        },
        index=[f"s{i}" for i in range(12)],
    )
    return cohort(counts, obs=obs)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, "eq4"), ({"target_sum": 1500, "max_fraction": 0.05}, "published_normalize_total")],
)
@pytest.mark.parametrize("storage", [np.asarray, sp.csr_matrix])
def test_golden_libraries(scaled, options, expected, storage):
    # bins as fine as this tell values apart to 1e-9, relatively
    bf.pp.bin_expression(adata := cohort(storage(scaled["counts"])), bin_size=1e-8, cutoff=1e-3, **options)
    found = adata.layers["binned"]
    found = found.toarray() if sp.issparse(found) else found
    wanted = value_bins(scaled[expected], bin_size=1e-8, cutoff=1e-3)
    assert wanted.max() > 1e9
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1)


def test_value_bins_of_counts(adata):
    bf.pp.bin_expression(adata)
    totals = adata.X.sum(axis=1, keepdims=True, dtype=np.float64)
    np.testing.assert_array_equal(adata.layers["binned"], value_bins(adata.X * (totals.mean() / totals)))
    params = adata.uns["binned"]["params"]
    assert params["target_sum"] == pytest.approx(totals.mean())
    assert params["n_bins"] == adata.layers["binned"].max()


def test_segments(adata):
    bf.pp.bin_expression(adata, method="segment", n_bins=4)
    np.testing.assert_array_equal(adata.layers["binned"], [segment_bins(row, 4) for row in adata.X.astype(float)])
    ten = bf.pp.bin_expression(adata, method="segment", copy=True)
    assert ten.layers["binned"].max() == 10


def test_highest_bin_and_forms(adata):
    bf.pp.bin_expression(adata, n_bins=5, target_sum=None)
    assert adata.layers["binned"].max() == 5
    for form in ("printed", "published", "published_linear"):
        own = bf.pp.bin_expression(adata, form=form, target_sum=None, copy=True)
        expected = value_bins(adata.X.astype(np.float64), form=form)
        np.testing.assert_array_equal(own.layers["binned"], expected)


@pytest.mark.parametrize("method", ["segment", "value"])
@pytest.mark.parametrize("missing", [False, True])
def test_storage_does_not_matter(adata, tmp_path, method, missing):
    if missing:
        adata.X[2:5, 3:9] = np.nan
    bf.pp.bin_expression(adata, method=method)
    dense = adata.layers.pop("binned")
    del adata.uns["binned"]
    adata.write_h5ad(tmp_path / "a.h5ad")
    others = [adata.copy(), adata.copy(), ad.read_h5ad(tmp_path / "a.h5ad", backed="r"), adata.copy()]
    others[3].X = da.from_array(adata.X, chunks=(5, 40))
    others[0].X, others[1].X = sp.csr_matrix(adata.X), sp.csc_matrix(adata.X)
    before = others[0].X.copy()
    for other in others:
        found = bf.pp.bin_expression(other, method=method, copy=True).layers["binned"]
        assert sp.issparse(found) == sp.issparse(other.X)
        np.testing.assert_array_equal(found.toarray() if sp.issparse(found) else found, dense)
    np.testing.assert_array_equal(others[0].X.indices, before.indices)
    assert dense.dtype == np.int32
    np.testing.assert_array_equal(dense == -1, np.isnan(adata.X))
    others[2].file.close()


def test_external_tokens(adata, tmp_path):
    adata.var["tf"] = np.arange(40) % 2 == 0
    adata.layers["perturbed"] = sp.csr_matrix(np.eye(12, 40, dtype=np.int8))
    external = ["obs/batch", "obs/age", "obs/treated", "var/tf", "layers/perturbed"]
    bf.pp.bin_expression(adata, external=external)
    assert adata.obs["binned_batch"].tolist() == [2, 1, 0] * 4
    assert adata.obs["binned_age"].tolist() == [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0]
    assert adata.obs["binned_treated"].tolist() == [2, 1] * 6
    assert adata.var["binned_tf"].tolist() == [2, 1] * 20
    np.testing.assert_array_equal(adata.layers["binned_perturbed"], np.eye(12, 40) + 1)
    meaning = adata.uns["binned"]["params"]["external"]
    assert meaning["obs"]["batch"] == ["a", "b"]
    assert meaning["layers"]["perturbed"] == [0, 1]
    assert meaning["obs"]["age"] == pytest.approx(np.arange(1, 10))
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert list(again.uns["binned"]["params"]["external"]["obs"]["batch"]) == ["a", "b"]


def test_masks_of_bins(adata):
    bf.pp.bin_expression(adata)
    bf.pp.hide(adata, layer="binned", fraction=0.4, nonzero=0.75)
    hidden, above = adata.layers["hidden"], adata.layers["binned"] > 0
    np.testing.assert_array_equal((hidden & above).sum(axis=1), np.minimum(12, above.sum(axis=1)))
    np.testing.assert_array_equal((hidden & ~above).sum(axis=1), np.minimum(4, (~above).sum(axis=1)))


BAD = {
    "logarithms": ({"layer": "log"}, ValueError, "as logarithms are, not counts.*layer="),
    "normalized": ({"layer": "normalized"}, ValueError, "sum to 100 in every sample"),
    "negative": ({"layer": "negative"}, ValueError, "go down to -5"),
    "negative segments": ({"layer": "negative", "method": "segment"}, ValueError, "bins begin at zero.*layer="),
    "infinite": ({"layer": "infinite", "method": "segment"}, ValueError, "hold infinities"),
    "method": ({"method": "other"}, ValueError, "method must be one of"),
    "n_bins": ({"n_bins": 1}, ValueError, "n_bins must be at least 2, found 1"),
    "bin_size": ({"bin_size": 0}, ValueError, "bin_size must be above 0"),
    "cutoff": ({"cutoff": -1}, ValueError, "cutoff must be above 0"),
    "form": ({"form": "nice"}, ValueError, "form must be one of"),
    "target_sum": ({"target_sum": "median"}, ValueError, "target_sum must be 'mean', above 0 or None"),
    "max_fraction": ({"max_fraction": 1}, ValueError, "max_fraction must be between 0 and 1"),
    "no slot": ({"external": ["batch"]}, ValueError, "external tokens are named 'obs/<column>'"),
    "no column": ({"external": ["obs/site"]}, KeyError, "adata.obs has no column 'site'"),
    "no layer": ({"external": ["layers/site"]}, KeyError, "no layer 'site'"),
    "nothing known": ({"external": ["obs/nothing"]}, ValueError, "obs/nothing holds nothing but missing"),
    "fractions": ({"external": ["layers/log"]}, ValueError, "holds fractional numbers; external tokens are"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(adata, case):
    adata.layers["log"] = np.log1p(adata.X)
    adata.layers["normalized"] = adata.X / adata.X.sum(axis=1, keepdims=True) * 100
    adata.layers["negative"] = adata.X - 5
    adata.layers["infinite"] = np.where(adata.X > 3, np.inf, 0)
    options, error, match = BAD[case]
    with pytest.raises(error, match=match):
        bf.pp.bin_expression(adata, **options)
    assert "binned" not in adata.layers
    assert "binned" not in adata.uns


def test_taken_slots(adata):
    adata.obs["binned_batch"] = 1
    with pytest.raises(ValueError, match="pass another key_added"):
        bf.pp.bin_expression(adata, external=["obs/batch"])
