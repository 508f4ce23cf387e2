from __future__ import annotations

import logging
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestNeighbors

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol, auroc
from bulkformer_tl.metrics._scale import one_scale

QUICK = Protocol(n_bootstrap=100, duplicates=None, baselines=("majority",))
NUMBER = replace(QUICK, baselines=("mean",))


def make(n: int = 60, *, seed: int = 0, shift: float = 0.0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 3
    values = np.abs(rng.normal(2, 0.5, (n, 40))).astype(np.float32)
    for k in range(3):
        values[:, 4 * k : 4 * k + 4] += 2 * (codes == k)[:, None]
    obs = pd.DataFrame(
        {
            "tissue": np.array(["brain", "liver", "lung"])[codes],
            "age": 30.0 * codes + rng.normal(0, 1, n),
            "study": [f"{seed}-{i // 10}" for i in range(n)],
        },
        index=[f"{seed}-s{i}" for i in range(n)],
    )
    adata = ad.AnnData(values, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(40)]))
    adata.obsm["X_emb"] = values[:, :15] + np.float32(shift)
    return adata


@pytest.fixture
def reference():
    return make()


@pytest.fixture
def new():
    return make(20, seed=1)


def score(adata, name, metric="auroc", key="transfer_tissue"):
    table = adata.uns[key]["scores"]
    (found,) = table.loc[(table["representation"] == name) & (table["metric"] == metric), "mean"]
    return found


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_and_votes_equal_scikit_learn_by_hand(reference, new, metric):
    options = {"n_neighbors": 5, "metric": metric}
    bf.tl.transfer(new, "tissue", reference=reference, use_rep="X_emb", protocol=QUICK, **options)
    scale = one_scale()().fit(reference.obsm["X_emb"])
    train, test = (scale.transform(part.obsm["X_emb"]) for part in (reference, new))
    distances, nearest = NearestNeighbors(n_neighbors=5, metric=metric).fit(train).kneighbors(test)
    names = new.obsm["transfer_tissue_neighbors"].to_numpy()
    np.testing.assert_array_equal(names, reference.obs_names.to_numpy()[nearest])
    np.testing.assert_allclose(new.obsm["transfer_tissue_distances"], distances, rtol=1e-5, atol=1e-6)
    voted = KNeighborsClassifier(weights="distance", **options).fit(train, reference.obs["tissue"])
    np.testing.assert_allclose(new.obsm["transfer_tissue_proba"], voted.predict_proba(test), rtol=1e-5)
    assert new.obs["transfer_tissue_pred"].tolist() == voted.predict(test).tolist()
    assert new.uns["transfer_tissue"]["classes"].tolist() == ["brain", "liver", "lung"]


def test_numbers_are_averaged(reference, new):
    bf.tl.transfer(new, "age", reference=reference, use_rep="X_emb", n_neighbors=3, metric="euclidean", protocol=NUMBER)
    scale = one_scale()().fit(reference.obsm["X_emb"])
    voted = KNeighborsRegressor(3, weights="distance").fit(
        scale.transform(reference.obsm["X_emb"]), reference.obs["age"]
    )
    np.testing.assert_allclose(
        new.obs["transfer_age_pred"], voted.predict(scale.transform(new.obsm["X_emb"])), rtol=1e-5
    )
    assert score(new, "X_emb (knn)", "r2", "transfer_age") > 0.9
    assert "transfer_age_proba" not in new.obsm
    assert "classes" not in new.uns["transfer_age"]


def test_scores_stand_beside_the_same_neighbours_of_genes_and_components(reference, new):
    protocol = Protocol(n_bootstrap=100)
    bf.tl.transfer(new, "tissue", reference=reference, use_rep="X_emb", protocol=protocol)
    table = new.uns["transfer_tissue"]["scores"]
    assert list(dict.fromkeys(table["representation"])) == ["X_emb (knn)", "majority", "raw (knn)", "pca (knn)"]
    codes = pd.factorize(new.obs["tissue"], sort=True)[0]
    assert score(new, "X_emb (knn)") == pytest.approx(auroc(codes, new.obsm["transfer_tissue_proba"]))
    assert set(new.uns["transfer_tissue"]["differences"]["baseline"]) == {"majority", "raw (knn)", "pca (knn)"}
    # another representation adds its rows, and expression itself is what its baseline is
    bf.tl.transfer(new, "tissue", reference=reference, use_rep=None, protocol=protocol)
    assert score(new, "expression (knn)") == score(new, "raw (knn)")
    assert score(new, "X_emb (knn)") > 0.9


def test_baselines_by_name(reference, new):
    protocol = replace(QUICK, baselines=("pca (knn)", "raw"))
    bf.tl.transfer(new, "tissue", reference=reference, use_rep="X_emb", protocol=protocol)
    assert set(new.uns["transfer_tissue"]["scores"]["representation"]) == {"X_emb (knn)", "raw", "pca (knn)"}


def test_labels_of_the_new_samples_change_nothing_but_scores(reference, new):
    blind = new.copy()
    del blind.obs["tissue"]
    for adata in (new, blind):
        bf.tl.transfer(adata, "tissue", reference=reference, use_rep="X_emb", protocol=QUICK)
    np.testing.assert_array_equal(new.obsm["transfer_tissue_proba"], blind.obsm["transfer_tissue_proba"])
    assert "scores" in new.uns["transfer_tissue"]
    assert "scores" not in blind.uns["transfer_tissue"]


def test_far_samples_are_told_from_near_ones(reference, caplog):
    near, far = make(20, seed=1), make(20, seed=2, shift=8)
    options = {"reference": reference, "use_rep": "X_emb", "metric": "euclidean", "protocol": QUICK}
    with caplog.at_level(logging.WARNING, logger="bulkformer_tl"):
        bf.tl.transfer(near, "tissue", **options)
        assert "nothing like" not in caplog.text
        bf.tl.transfer(far, "tissue", **options)
    assert "the reference holds nothing like 20 of 20 samples" in caplog.text
    assert not near.obs["transfer_tissue_out_of_distribution"].any()
    assert far.obs["transfer_tissue_out_of_distribution"].all()
    np.testing.assert_allclose(far.obs["transfer_tissue_ood_p"], 1 / 61)
    assert near.obs["transfer_tissue_ood_ratio"].median() < 1.5 < far.obs["transfer_tissue_ood_ratio"].min()


def test_p_values_of_samples_like_the_reference_are_uniform():
    """Planted null: whatever the level, hardly more than that share of new samples falls below it."""
    found = []
    for seed in range(10):
        new = make(60, seed=seed + 100)
        bf.tl.transfer(new, "tissue", reference=make(120, seed=seed), use_rep="X_emb", protocol=QUICK)
        found.append(new.obs["transfer_tissue_ood_p"].to_numpy())
    p = np.concatenate(found)
    assert all((p <= level).mean() < level + 0.05 for level in (0.05, 0.1, 0.25, 0.5))
    assert 0.4 < p.mean() < 0.6


def test_a_study_is_not_compared_with_itself():
    """Each study has a shift of its own: only distances between studies say what is usual."""
    rng = np.random.default_rng(0)
    reference, new = make(120), make(20, seed=1)
    shifts = np.repeat(rng.normal(0, 2, (12, 15)), 10, axis=0)
    reference.obsm["X_emb"] += shifts.astype(np.float32)
    new.obsm["X_emb"] += rng.normal(0, 2, (1, 15)).astype(np.float32)
    options = {"reference": reference, "use_rep": "X_emb", "metric": "euclidean", "protocol": QUICK}
    bf.tl.transfer(new, "tissue", **options)
    alone = new.obs["transfer_tissue_ood_p"].median()
    bf.tl.transfer(new, "tissue", groups="study", **options)
    assert alone < 0.05 < 0.2 < new.obs["transfer_tissue_ood_p"].median()


def test_near_duplicates_and_shared_groups_are_no_neighbours(reference):
    new = reference[:10].copy()
    bf.tl.transfer(new, "tissue", reference=reference, use_rep="X_emb", protocol=replace(QUICK, duplicates=0.998))
    assert not set(new.obs_names) & set(new.obsm["transfer_tissue_neighbors"].to_numpy().ravel())
    bf.tl.transfer(new, "tissue", reference=reference, use_rep="X_emb", groups="study", protocol=QUICK, key_added="t")
    assert not set(reference.obs_names[:10]) & set(new.obsm["t_neighbors"].to_numpy().ravel())
    assert new.uns["t"]["params"]["n_trained"] == 50


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_results_survive_a_file(reference, new, tmp_path, kind):
    bf.tl.transfer(new, "tissue", reference=reference, use_rep="X_emb", protocol=QUICK)
    path = tmp_path / f"a.{kind}"
    getattr(new, f"write_{kind}")(path)
    again = ad.read_h5ad(path) if kind == "h5ad" else ad.read_zarr(path)
    names = again.obsm["transfer_tissue_neighbors"]
    assert names.astype(str).to_numpy().tolist() == new.obsm["transfer_tissue_neighbors"].to_numpy().tolist()
    pd.testing.assert_series_equal(again.obs["transfer_tissue_ood_p"], new.obs["transfer_tissue_ood_p"])
    # a rerun overwrites its own slots, plots read them
    bf.tl.transfer(again, "tissue", reference=reference, use_rep="X_emb", protocol=QUICK)
    bf.pl.scores(again, "transfer_tissue")
    bf.pl.confusion(again, "transfer_tissue")


def test_copy_and_names(reference, new):
    found = bf.tl.transfer(
        new, "tissue", reference=reference, use_rep="X_emb", protocol=QUICK, key_added="organ", copy=True
    )
    assert {"organ_pred", "organ_ood_p", "organ_ood_ratio", "organ_out_of_distribution"} <= set(found.obs)
    assert {"organ_proba", "organ_neighbors", "organ_distances"} <= set(found.obsm)
    assert not new.uns


WRONG = {
    "metric": ({"metric": "manhattan"}, ValueError, r"metric is 'manhattan'; use one of \['cosine', 'euclidean'\]"),
    "too many": ({"n_neighbors": 61}, ValueError, "n_neighbors is 61; use a whole number from 1 to 60"),
    "none": ({"n_neighbors": 0}, ValueError, "n_neighbors is 0; use a whole number"),
    "half": ({"n_neighbors": 2.5}, ValueError, "n_neighbors is 2.5; use a whole number"),
    "label": ({"label": "organ"}, KeyError, r"no column 'organ' \(the label, of the reference\)"),
    "representation": ({"use_rep": "X_pca"}, KeyError, "no 'X_pca'"),
    "protocol": ({"protocol": "paper"}, ValueError, "the paper has no task 'transfer'"),
    "baseline": ({"protocol": replace(QUICK, baselines=("svm",))}, ValueError, "no baseline 'svm'"),
    "table": ({"reference": pd.DataFrame()}, TypeError, "expected an AnnData"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_transferred(reference, new, case):
    options, error, message = WRONG[case]
    options = {"label": "tissue", "reference": reference, "use_rep": "X_emb", "protocol": QUICK, **options}
    with pytest.raises(error, match=message):
        bf.tl.transfer(new, options.pop("label"), **options)
    assert not new.uns


def test_the_reference_itself(reference):
    with pytest.raises(ValueError, match="adata is the reference; bf"):
        bf.tl.transfer(reference, "tissue", reference=reference, use_rep="X_emb")


def test_embeddings_of_other_models(reference, new):
    for part, checksum in ((reference, "one"), (new, "other")):
        part.uns["emb"] = {"params": {"package": "bulkformer_tl", "model": "m", "checksum": checksum, "wrote": []}}
    with pytest.raises(ValueError, match="come from different models; embed both with one"):
        bf.tl.transfer(new, "tissue", reference=reference, use_rep="X_emb", protocol=QUICK)


def test_other_widths(reference, new):
    new.obsm["X_emb"] = new.obsm["X_emb"][:, :3]
    with pytest.raises(ValueError, match="has 15 columns in the reference and 3 in adata; embed both alike"):
        bf.tl.transfer(new, "tissue", reference=reference, use_rep="X_emb", protocol=QUICK)


def test_classes_that_the_reference_lacks(reference, new):
    new.obs.loc[new.obs_names[0], "tissue"] = "skin"
    with pytest.raises(ValueError, match=r"holds \['skin'\], which the reference does not"):
        bf.tl.transfer(new, "tissue", reference=reference, use_rep="X_emb", protocol=QUICK)
