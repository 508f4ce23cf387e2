from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol, compare, k_fold

QUICK = Protocol(n_splits=3, n_bootstrap=100, duplicates=None, baselines=("mean", "pca"))


def make(n: int = 80, *, seed: int = 0) -> ad.AnnData:
    """Expression whose first genes follow a number, and an embedding that sees them."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 80, n)
    values = np.abs(rng.normal(2, 0.5, (n, 30))).astype(np.float32)
    values[:, :6] += (age / 25)[:, None]
    adata = ad.AnnData(values, obs=pd.DataFrame({"age": age}, index=[f"s{i}" for i in range(n)]))
    adata.obs["donor"] = [f"d{i // 4}" for i in range(n)]
    adata.obsm["X_emb"] = values[:, :10].copy()
    adata.obsm["X_bad"] = rng.normal(size=(n, 4)).astype(np.float32)
    return adata


def score(adata: ad.AnnData, name: str, metric: str = "pearson", key: str = "regress_age") -> float:
    table = adata.uns[key]["scores"]
    (found,) = table.loc[(table["representation"] == name) & (table["metric"] == metric), "mean"]
    return found


def test_out_of_fold_predictions_equal_scikit_learn():
    adata = make()
    bf.tl.regress(adata, "age", use_rep="X_emb", protocol=QUICK)
    age, matrix = adata.obs["age"].to_numpy(), adata.obsm["X_emb"]
    folds = np.empty(80, dtype=int)
    for fold, (train, test, _) in enumerate(k_fold(80, n_splits=3, rng=0)):
        scale = StandardScaler().fit(matrix[train])
        scale.scale_[:] = np.sqrt(scale.var_.mean())  # one number for all columns
        head = Ridge(alpha=100.0).fit(scale.transform(matrix[train]), age[train])
        found = adata.obs["age_pred"].to_numpy()[test]
        np.testing.assert_allclose(found, head.predict(scale.transform(matrix[test])), rtol=1e-4)
        folds[test] = fold
    expected, _ = compare(age, {"X_emb": adata.obs["age_pred"].to_numpy()}, folds=folds, protocol=QUICK)
    table = adata.uns["regress_age"]["scores"]
    own = table[table["representation"] == "X_emb"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own.iloc[: len(expected)], expected)


def test_intervals_cover_what_they_promise():
    adata = make(200)
    bf.tl.regress(adata, "age", use_rep="X_emb", protocol=Protocol(n_bootstrap=100, level=0.8, baselines=("mean",)))
    obs = adata.obs
    inside = (obs["age_low"] <= obs["age"]) & (obs["age"] <= obs["age_high"])
    assert 0.7 < inside.mean() < 0.9
    assert score(adata, "X_emb", "interval_coverage") == pytest.approx(inside.mean())
    assert score(adata, "X_emb", "interval_width") == pytest.approx((obs["age_high"] - obs["age_low"]).mean())
    assert score(adata, "mean", "interval_width") > score(adata, "X_emb", "interval_width")
    np.testing.assert_allclose((obs["age_low"] + obs["age_high"]) / 2, obs["age_pred"])


def test_permuted_numbers_are_not_predicted():
    adata = make()
    found = []
    for seed in range(5):
        adata.obs["age"] = np.random.default_rng(seed).permutation(adata.obs["age"].to_numpy())
        copy = bf.tl.regress(adata, "age", use_rep="X_emb", protocol=QUICK, copy=True)
        found.append(score(copy, "X_emb"))
    assert abs(np.mean(found)) < 0.15


def test_grouped_samples_do_not_leak():
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(20), 4)
    adata = make()
    adata.obsm["X_emb"] = (rng.normal(size=(20, 60))[donor] + rng.normal(0, 0.1, (80, 60))).astype(np.float32)
    adata.obs["age"] = rng.uniform(20, 80, 20)[donor]
    bf.tl.regress(adata, "age", use_rep="X_emb", protocol=QUICK)
    bf.tl.regress(adata, "age", use_rep="X_emb", groups="donor", protocol=QUICK, key_added="grouped")
    assert score(adata, "X_emb") > 0.85
    assert score(adata, "X_emb", key="grouped") < 0.4


def test_unlabelled_reference_and_reruns(caplog):
    here, there = make(40, seed=1), make()
    truth = here.obs["age"].to_numpy(copy=True)
    here.obs.loc["s0":"s9", "age"] = np.nan
    bf.tl.regress(here, "age", use_rep="X_emb", protocol=QUICK)
    assert here.uns["regress_age"]["params"]["n_unlabelled"] == 10
    assert np.corrcoef(here.obs["age_pred"][:10], truth[:10])[0, 1] > 0.8
    with caplog.at_level(logging.INFO, "bulkformer_tl"):
        bf.tl.regress(here, "age", use_rep="X_bad", protocol=QUICK)
    assert "the baseline pca WINS over X_bad" in caplog.text
    assert {"X_emb", "X_bad"} <= set(here.uns["regress_age"]["scores"]["representation"])
    bf.tl.regress(here, "age", use_rep="X_emb", reference=there, protocol=QUICK, key_added="from_there")
    assert here.uns["from_there"]["params"]["n_trained"] == 80
    assert (here.uns["from_there"]["scores"]["n"] == 30).all()
    assert np.corrcoef(here.obs["from_there_pred"], truth)[0, 1] > 0.9


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_results_survive_a_file(form, tmp_path):
    adata = make()
    bf.tl.regress(adata, "age", use_rep="X_emb", protocol=QUICK)
    path = tmp_path / f"a.{form}"
    (adata.write_h5ad if form == "h5ad" else adata.write_zarr)(path)
    again = (ad.read_h5ad if form == "h5ad" else ad.read_zarr)(path)
    pd.testing.assert_frame_equal(
        again.uns["regress_age"]["differences"],
        adata.uns["regress_age"]["differences"],
        check_dtype=False,
        check_index_type=False,
    )
    bf.tl.regress(again, "age", use_rep="X_bad", protocol=QUICK)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (["young", "old"] * 40, TypeError, "must be numbers and holds 'young'; bf.tl.classify takes categories"),
        (pd.Categorical(["1", "2"] * 40), TypeError, "must be numbers and holds '1'"),
        ([True, False] * 40, TypeError, "must be numbers and holds True"),
        (3.0, ValueError, r"is constant \(3\); there is nothing to predict"),
        (np.nan, ValueError, "holds no value"),
        ([np.inf] + [1.0] * 79, ValueError, "1 infinite values"),
    ],
)
def test_bad_targets_are_refused_and_nothing_written(values, error, message):
    adata = make()
    adata.obs["age"] = values
    before = adata.obs.copy()
    with pytest.raises(error, match=message):
        bf.tl.regress(adata, "age", use_rep="X_emb", protocol=QUICK)
    pd.testing.assert_frame_equal(adata.obs, before)
    assert not len(adata.uns)


def test_other_bad_input():
    adata = make()
    with pytest.raises(KeyError, match=r"adata.obs has no column 'weight'"):
        bf.tl.regress(adata, "weight", use_rep="X_emb", protocol=QUICK)
    with pytest.raises(KeyError, match=r"no 'X_bulkformer'; it holds .* Call bf.tl.embed"):
        bf.tl.regress(adata, "age", protocol=QUICK)
    with pytest.raises(ValueError, match="20 groups cannot fill 30 folds; set n_splits to 20 or less"):
        bf.tl.regress(adata, "age", use_rep="X_emb", groups="donor", protocol=Protocol(n_splits=30, duplicates=None))
    with pytest.raises(ValueError, match="no baseline 'majority' for regression"):
        bf.tl.regress(adata, "age", use_rep="X_emb", protocol=Protocol(baselines=("majority",)))
    adata.obs["age_low"] = 1
    with pytest.raises(ValueError, match=r"obs\['age_low'\] exists .* pass another key_added"):
        bf.tl.regress(adata, "age", use_rep="X_emb", protocol=QUICK)
