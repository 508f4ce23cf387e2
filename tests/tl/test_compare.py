"""Several models on one set of folds."""

from __future__ import annotations

import json
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import GeneVocabulary
from bulkformer_tl.metrics import Protocol

QUICK = Protocol(n_splits=3, n_bootstrap=200, duplicates=None, baselines=("majority", "pca"))
GOOD_AND_BAD = {"good": "X_good", "bad": "X_bad"}


def make(n: int = 90, *, seed: int = 0) -> ad.AnnData:
    """Two classes that one representation knows and another does not; expression knows them less well."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 2
    values = np.abs(rng.normal(2, 0.7, (n, 30))).astype(np.float32)
    obs = pd.DataFrame(
        {"kind": np.array(["a", "b"])[codes], "number": codes + rng.normal(0, 0.1, n), "donor": np.arange(n) // 2},
        index=[f"s{i}" for i in range(n)],
    ).astype({"donor": str})
    adata = ad.AnnData(values, obs=obs)
    adata.obsm["X_good"] = (codes[:, None] + rng.normal(0, 0.4, (n, 4))).astype(np.float32)
    adata.obsm["X_bad"] = rng.normal(size=(n, 4)).astype(np.float32)
    return adata


def run(adata: ad.AnnData, label: str = "kind", **options: object) -> dict[str, object]:
    bf.tl.compare(adata, label, **{"models": GOOD_AND_BAD, "protocol": QUICK, **options})
    return adata.uns[f"compare_{label}"]


@pytest.mark.parametrize(("label", "metric"), [("kind", "auroc"), ("number", "rmse")])
def test_every_model_is_compared_with_every_other_and_with_baselines(label, metric):
    trivial = "majority" if label == "kind" else "mean"
    found = run(make(), label, protocol=replace(QUICK, baselines=(trivial, "pca")))
    table = found["differences"]
    table = table[table["metric"] == metric].set_index(["representation", "baseline"])
    assert table.loc[("good", "bad"), "better"] == "good"
    assert table.loc[("bad", "good"), "better"] == "good"
    assert table.loc[("good", "bad"), "difference"] == -table.loc[("bad", "good"), "difference"]
    assert table.loc[("good", trivial), "better"] == "good"
    assert set(found["scores"]["representation"]) == {"good", "bad", trivial, "pca"}
    assert found["params"]["models"] == ["good", "bad"]


def test_scores_are_those_of_the_task_by_itself():
    adata = make()
    together = run(adata, groups="donor")["scores"]
    for name, key in GOOD_AND_BAD.items():
        bf.tl.classify(adata, "kind", use_rep=key, groups="donor", protocol=QUICK, key_added=name)
        alone = adata.uns[name]["scores"].replace({"representation": {key: name}})
        both = together.merge(alone, on=["representation", "metric", "axis"])
        assert set(both["representation"]) == {name, "majority", "pca"}
        for column in ("mean", "low", "high"):
            np.testing.assert_array_equal(both[f"{column}_x"], both[f"{column}_y"])


def test_models_are_run_and_their_vectors_kept(cohort, latest, tmp_path):
    cohort = ad.concat([cohort] * 5, index_unique="-")
    rng = np.random.default_rng(0)
    cohort.X = np.where(np.isnan(cohort.X), np.nan, np.abs(cohort.X - rng.random(cohort.shape) / 10))
    cohort.obs["kind"] = np.resize(["a", "b"], cohort.n_obs)
    cohort.obsm["X_bad"] = rng.normal(size=(cohort.n_obs, 3)).astype(np.float32)
    found = run(cohort, models={"magnitude": {"model": latest}, "noise": "X_bad"})
    bf.tl.embed(cohort, model=latest, key_added="again")
    np.testing.assert_array_equal(cohort.obsm["X_magnitude"], cohort.obsm["X_again"])
    assert found["params"]["use_reps"] == ["X_magnitude", "X_bad"]
    assert found["params"]["checksums"][0]
    cohort.write_h5ad(tmp_path / "cohort.h5ad")
    pd.testing.assert_frame_equal(
        ad.read_h5ad(tmp_path / "cohort.h5ad").uns["compare_kind"]["scores"], found["scores"], check_dtype=False
    )


def test_ranks_bins_and_magnitudes_in_one_call(golden, geneformer_folders, geneformer_cells, latest):
    """A Geneformer, a BioFormer and a BulkFormer, each on what it reads of the same samples."""
    pytest.importorskip("transformers")
    folder = golden / "bioformers"
    heads = json.loads((folder / "model_config.json").read_text())["num_attention_heads"]
    genes = GeneVocabulary(geneformer_cells.var_names[:12].to_numpy(dtype=str), name="twelve")
    bins = bf.models.load_bioformers(folder / "model_weights.safetensors", genes=genes, heads=heads, device="cpu")
    others = np.random.default_rng(0).poisson(20, (geneformer_cells.n_obs, len(latest.vocabulary)))
    adata = ad.AnnData(
        np.hstack([geneformer_cells.X.toarray(), others]).astype(np.float32),
        obs=geneformer_cells.obs[["state"]],
        var=pd.DataFrame(index=[*geneformer_cells.var_names, *latest.vocabulary.ids]),
    )
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X / adata.X.sum(axis=1, keepdims=True) * 1e3)
    models = {
        "ranks": {"model": f"geneformer:{geneformer_folders['v2']}", "layer": "counts"},
        "bins": {"model": bins, "layer": "counts"},
        "magnitudes": {"model": latest},
    }
    found = run(adata, "state", models=models, protocol=replace(QUICK, n_splits=2))
    for name, options in models.items():
        alone = bf.tl.embed(adata, **options, key_added="alone", copy=True)
        np.testing.assert_array_equal(adata.obsm[f"X_{name}"], alone.obsm["X_alone"])
    assert len(set(found["params"]["checksums"])) == 3
    assert set(found["scores"]["representation"]) == {*models, "majority", "pca"}
    pairs = set(zip(found["differences"]["representation"], found["differences"]["baseline"], strict=True))
    assert {(one, other) for one in models for other in models if one != other} <= pairs
    axes = bf.pl.scores(adata, "compare_state")
    assert set(models) <= {label.get_text() for label in axes.get_yticklabels()}
    plt.close(axes.figure)


def test_copy_and_picture():
    adata = make()
    found = bf.tl.compare(adata, "kind", models=GOOD_AND_BAD, protocol=QUICK, copy=True)
    assert not adata.uns
    axes = bf.pl.scores(found, "compare_kind")
    assert {label.get_text() for label in axes.get_yticklabels()} == {"good", "bad", "majority", "pca"}
    plt.close(axes.figure)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"models": {"one": "X_good"}}, ValueError, "at least two"),
        ({"models": ["X_good", "X_bad"]}, ValueError, "at least two by name"),
        ({"models": {"a": "X_good", "b": "X_else"}}, KeyError, "'b' is 'X_else', which adata.obsm does not hold"),
        ({"models": {"a": "X_good", "b": 3}}, TypeError, "'b' is int"),
        ({"models": {"a": "X_good", "b": {"key_added": "x"}}}, ValueError, "names key_added, copy or output"),
        ({"models": {"a": "X_good", "b": {"output": "x.zarr"}}}, ValueError, "names key_added, copy or output"),
        ({"models": {"pca": "X_good", "b": "X_bad"}}, ValueError, "both called 'pca'"),
        ({"task": "survival"}, ValueError, "task is 'survival'"),
        ({"head": "svm"}, ValueError, "there is no head 'svm'"),
        ({"groups": "patient"}, KeyError, "patient"),
    ],
)
def test_bad_input_is_refused_before_any_work(options, error, says):
    adata = make()
    with pytest.raises(error, match=says):
        run(adata, **options)
    assert not adata.uns
    assert set(adata.obsm) == {"X_good", "X_bad"}


def test_unknown_label_is_refused():
    with pytest.raises(KeyError, match="no column 'sort'"):
        run(make(), "sort")


@pytest.mark.parametrize(
    ("second", "error", "says"),
    [
        ({"two": {"layer": "absent"}}, KeyError, "adata has no layer 'absent'"),
        ({"pca": {}}, ValueError, "both called 'pca'"),
    ],
)
def test_a_model_that_fails_takes_the_others_with_it(cohort, latest, second, error, says):
    cohort.obs["kind"] = ["a", "b"] * 3
    bf.tl.embed(cohort, model=latest, key_added="kept", pooling="max")
    before = cohort.copy()
    models = {
        "one": {"model": latest},
        "kept": {"model": latest},
        **{k: {"model": latest, **v} for k, v in second.items()},
    }
    with pytest.raises(error, match=says):
        run(cohort, models=models, protocol=replace(QUICK, n_splits=2))
    assert list(cohort.obsm) == ["X_kept"]
    assert list(cohort.uns) == ["kept"]
    np.testing.assert_array_equal(cohort.obsm["X_kept"], before.obsm["X_kept"])
    assert cohort.uns["kept"]["params"]["pooling"] == "max"
    pd.testing.assert_frame_equal(cohort.var, before.var)
