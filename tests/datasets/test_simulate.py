from __future__ import annotations

import numpy as np
import pytest

from bulkformer_tl._vocabulary import gene_table
from bulkformer_tl.datasets._simulate import simulate


def log_cpm(adata) -> np.ndarray:
    values = np.asarray(adata.X, dtype=float)
    return np.log2(values / values.sum(axis=1, keepdims=True) * 1e6 + 1)


def test_shape_and_names():
    adata = simulate(24, n_vars=400, n_tissues=3, n_batches=2, n_differential=40)
    assert adata.shape == (24, 400)
    assert adata.X.dtype == np.float32
    assert np.array_equal(adata.X, np.round(adata.X))
    assert adata.X.min() >= 0
    known = gene_table().loc[adata.var_names]
    assert (known["biotype"] == "protein_coding").all()
    np.testing.assert_array_equal(known["length"], adata.var["length"])
    assert adata.obs["tissue"].value_counts().tolist() == [8, 8, 8]
    assert adata.obs["batch"].value_counts().tolist() == [12, 12]
    assert adata.obs.groupby("donor", observed=True)[["age", "condition"]].nunique().to_numpy().max() == 1
    assert not adata.layers.keys() - {None}


def test_same_seed_same_data():
    first, again, other = simulate(10, n_vars=200), simulate(10, n_vars=200), simulate(10, n_vars=200, rng=1)
    np.testing.assert_array_equal(first.X, again.X)
    assert first.var.equals(again.var)
    assert (first.X != other.X).any()
    generated = simulate(10, n_vars=200, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(first.X, generated.X)


def test_library_sizes_lie_in_the_stated_range():
    reads = simulate(60, n_vars=1000).X.sum(axis=1)
    assert reads.min() > 0.9 * 500 * 1000
    assert reads.max() < 1.1 * 2000 * 1000


def test_planted_fold_changes_are_recovered():
    adata = simulate(400, n_vars=600, effect=1.5, n_differential=100, batch_effect=0.1)
    case = (adata.obs["condition"] == "case").to_numpy()
    found = log_cpm(adata)[case].mean(axis=0) - log_cpm(adata)[~case].mean(axis=0)
    strong = np.asarray(adata.X).mean(axis=0) > 50
    planted = adata.var["log2_fold_change"].to_numpy()
    assert adata.var["differential"].sum() == 100
    assert set(np.abs(planted)) == {0.0, 1.5}
    centred = found - np.median(found[planted == 0])
    np.testing.assert_allclose(centred[strong & (planted != 0)], planted[strong & (planted != 0)], atol=0.6)
    assert np.abs(centred[strong & (planted == 0)]).mean() < 0.15


def test_planted_age_slopes_are_recovered():
    adata = simulate(400, n_vars=600, age_effect=0.5, batch_effect=0.1, n_differential=100)
    decades = (adata.obs["age"].to_numpy() - 50) / 10
    slopes = np.polyfit(decades, log_cpm(adata), 1)[0]
    planted = adata.var["log2_per_decade"].to_numpy()
    strong = np.asarray(adata.X).mean(axis=0) > 50
    assert np.corrcoef(slopes[strong], planted[strong])[0, 1] > 0.95
    assert not (adata.var["differential"] & adata.var["age_associated"]).any()


@pytest.mark.parametrize(("column", "key"), [("tissue", "tissue_log2"), ("batch", "batch_log2")])
def test_planted_factors_are_recovered(column, key):
    adata = simulate(400, n_vars=600, batch_effect=0.7, n_tissues=2, n_batches=2)
    first, second = (adata.obs[column] == level for level in adata.obs[column].cat.categories)
    found = log_cpm(adata)[second].mean(axis=0) - log_cpm(adata)[first].mean(axis=0)
    planted = adata.varm[key][:, 1] - adata.varm[key][:, 0]
    strong = np.asarray(adata.X).mean(axis=0) > 50
    assert np.corrcoef(found[strong], planted[strong])[0, 1] > 0.95


@pytest.mark.parametrize("dispersion", [0.0, 0.4])
def test_dispersion(dispersion):
    """Within a sample, counts scatter around their mean as NB says; two samples of one donor share nearly all else."""
    adata = simulate(2, n_vars=15_000, n_tissues=1, n_batches=1, n_differential=0, dispersion=dispersion)
    first, second = np.asarray(adata.X, dtype=float)
    second = second * first.sum() / second.sum()
    mean = (first + second) / 2
    strong = mean > 500
    found = np.mean((first - second)[strong] ** 2 / 2 / mean[strong] ** 2)
    # E[mean^2] = mu^2 (1 + dispersion / 2)
    np.testing.assert_allclose(found, dispersion / (1 + dispersion / 2), atol=0.05)


def test_hidden_entries():
    adata = simulate(20, n_vars=500, missing=0.2)
    hidden = np.isnan(adata.X)
    assert 0.17 < hidden.mean() < 0.23
    np.testing.assert_array_equal(adata.X[~hidden], adata.layers["complete"][~hidden])
    np.testing.assert_array_equal(adata.layers["complete"], simulate(20, n_vars=500).X)


def test_it_can_be_written(tmp_path):
    adata = simulate(8, n_vars=200, missing=0.1)
    adata.write_h5ad(tmp_path / "x.h5ad")
    adata.write_zarr(tmp_path / "x.zarr")
    assert adata.uns["simulate"]["params"]["missing"] == 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_obs": 0}, "n_obs must be a whole number of at least 1, found 0"),
        ({"n_vars": 2.5}, r"n_vars must be a whole number of at least 1, found 2\.5"),
        ({"n_tissues": True}, "n_tissues must be a whole number"),
        ({"n_vars": 10**6}, "n_vars is 1,000,000, but there are"),
        ({"n_vars": 100}, "n_differential is 100: .* pass at most 50"),
        ({"dispersion": -1}, "dispersion must be a number of at least 0, found -1"),
        ({"effect": float("nan")}, "effect must be a number"),
        ({"missing": 1.0}, "missing is the share of hidden entries, below 1"),
    ],
)
def test_impossible_requests(options, message):
    with pytest.raises(ValueError, match=message):
        simulate(**{"n_obs": 10, **options})
