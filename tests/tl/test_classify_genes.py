"""Labels of genes from their vectors."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol, auroc, k_fold

QUICK = Protocol(n_splits=3, n_bootstrap=200)
KEY = "classify_genes_kind"


def make(*, by: str = "vectors", n_genes: int = 120, seed: int = 0) -> ad.AnnData:
    """Genes of two kinds, which follow from their vectors, from their expression level, or from their variance."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n_genes) % 2
    spread = 0.2 + (0.5 * codes if by == "variance" else 0)
    level = 3 + (1.0 * codes if by == "level" else 0) + rng.normal(0, 0.3, n_genes)
    values = np.abs(level + spread * rng.normal(size=(30, n_genes))).astype(np.float32)
    var = pd.DataFrame(
        {"kind": np.array(["a", "b"])[codes], "family": [f"f{i // 4}" for i in range(n_genes)]},
        index=[f"g{i}" for i in range(n_genes)],
    )
    obs = pd.DataFrame({"sort": np.resize(["x", "y"], 30)}, index=[f"s{i}" for i in range(30)])
    adata = ad.AnnData(values, var=var, obs=obs)
    planted = codes if by == "vectors" else np.zeros(n_genes)
    adata.varm["genes"] = (planted[:, None] + rng.normal(0, 0.5, (n_genes, 5))).astype(np.float32)
    return adata


def run(adata: ad.AnnData, **options: object) -> dict[str, object]:
    bf.tl.classify_genes(adata, "kind", **{"vectors": "genes", "protocol": QUICK, **options})
    return adata.uns[KEY]


def score(found: dict[str, object], name: str) -> float:
    table = found["scores"].set_index(["representation", "metric"])["mean"]
    return table[name, "auroc"]


@pytest.mark.parametrize(("by", "winner"), [("vectors", "genes"), ("level", "level"), ("variance", "variance")])
def test_what_is_planted_is_found_where_it_is(by, winner):
    adata = make(by=by)
    found = run(adata)
    assert set(found["scores"]["representation"]) == {"genes", "majority", "level", "variance", "level_variance"}
    for name in ("genes", "level", "variance"):
        assert (score(found, name) > 0.9) == (name == winner)
    assert (score(found, "level_variance") > 0.9) == (by != "vectors")
    differences = found["differences"]
    row = differences[(differences["baseline"] == "level_variance") & (differences["metric"] == "auroc")].iloc[0]
    assert row["better"] == ("genes" if by == "vectors" else "level_variance")


def test_level_and_variance_by_hand():
    adata = make(by="level")
    adata.X[::3, 5] = np.nan
    found = run(adata, protocol=replace(QUICK, axis="fold"))
    codes = (adata.var["kind"] == "b").to_numpy().astype(int)
    for name, column in (("level", np.nanmean(adata.X, axis=0)), ("variance", np.nanvar(adata.X, axis=0))):
        each = []
        for train, test, _ in k_fold(120, n_splits=3, labels=codes, rng=0):
            head = LogisticRegression().fit(column[train][:, None] / column[train].std(), codes[train])
            each.append(auroc(codes[test], head.predict_proba(column[test][:, None] / column[train].std())))
        assert score(found, name) == pytest.approx(np.mean(each), abs=1e-9)


def test_families_stay_together_and_labels_do_not_leak():
    """Paralogs share a vector and a label that nothing else knows."""
    adata = make(by="nothing")
    rng = np.random.default_rng(0)
    family = pd.factorize(adata.var["family"])[0]
    adata.varm["genes"] = rng.normal(size=(30, 5))[family].astype(np.float32)
    adata.var["kind"] = np.array(["a", "b"])[rng.permutation(np.arange(30) % 2)[family]]
    forest = replace(QUICK, head="random_forest", head_options={"n_estimators": 20})
    assert score(run(adata, protocol=forest), "genes (random_forest)") > 0.9
    assert score(run(adata, protocol=forest, groups="family"), "genes (random_forest)") < 0.7


def test_genes_without_label_are_predicted_and_without_vector_left_out(tmp_path):
    adata = make()
    truth = adata.var["kind"].copy()
    adata.var.loc["g7", "kind"] = None
    adata.varm["genes"][3] = np.nan
    found = run(adata)
    assert found["params"]["n_without_vector"] == 1
    assert found["params"]["n_unlabelled"] == 1
    assert adata.var["kind_pred"].isna().sum() == 1
    assert adata.var.loc["g7", "kind_pred"] == truth["g7"]
    assert np.isnan(adata.varm["kind_proba"][3]).all()
    np.testing.assert_allclose(np.delete(adata.varm["kind_proba"], 3, axis=0).sum(axis=1), 1)
    adata.write_h5ad(tmp_path / "genes.h5ad")
    again = ad.read_h5ad(tmp_path / "genes.h5ad")
    again.varm["other"] = adata.varm["genes"][:, :2]
    both = run(again, vectors="other")["scores"]["representation"]
    assert {"genes", "other"} < set(both)


def test_vectors_in_the_context_of_samples_are_averaged():
    adata = make()
    rng = np.random.default_rng(1)
    shift = rng.normal(size=adata.varm["genes"].shape).astype(np.float32)
    adata.varm["context_x"], adata.varm["context_y"] = adata.varm["genes"] + shift, adata.varm["genes"] - shift
    adata.uns["context"] = {"params": {"package": "bulkformer_tl", "groupby": "sort"}}
    one, other = score(run(adata), "genes"), score(run(adata, vectors="context"), "context")
    assert other == pytest.approx(one, abs=1e-3)


@pytest.mark.parametrize(
    ("label", "options", "error", "says"),
    [
        ("sort", {}, KeyError, "adata.var has no column 'sort'"),
        ("kind", {"groups": "clan"}, KeyError, "adata.var has no column 'clan'"),
        ("kind", {"vectors": "none"}, KeyError, "bf.tl.gene_embeddings"),
        ("one", {}, ValueError, "one"),
        ("kind", {"protocol": replace(QUICK, baselines=("pca",))}, ValueError, "no baseline 'pca' for genes"),
        ("kind", {"layer": "counts"}, KeyError, "counts"),
        ("kind", {"layer": "large"}, ValueError, "is not ln"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(label, options, error, says):
    adata = make()
    adata.var["one"] = "same"
    adata.layers["large"] = adata.X * 1000
    with pytest.raises(error, match=says):
        bf.tl.classify_genes(adata, label, **{"vectors": "genes", **options})
    assert not adata.uns
    assert list(adata.varm) == ["genes"]
