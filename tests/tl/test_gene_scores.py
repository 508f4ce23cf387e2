from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol, k_fold, probe
from bulkformer_tl.metrics._logrank_screen import martingale_residuals
from bulkformer_tl.metrics._paper import FOREST
from bulkformer_tl.metrics._scale import one_scale
from bulkformer_tl.tl._gene_scores import _score
from bulkformer_tl.tl._outcome import Outcome

QUICK = Protocol(n_splits=3, duplicates=None)


@pytest.fixture
def patients(cohort: ad.AnnData) -> ad.AnnData:
    """The goldens' samples four times with noise, and when they died."""
    rng = np.random.default_rng(0)
    parts = [cohort.copy() for _ in range(4)]
    for part in parts:
        part.X = np.clip(part.X + rng.normal(0, 0.3, part.shape), 0, 13.5).astype(np.float32)
    adata = ad.concat(parts, index_unique="-")
    adata.obs["days"] = rng.exponential(100, adata.n_obs)
    adata.obs["died"] = np.arange(adata.n_obs) % 2 == 0
    adata.obs["patient"] = [f"p{i // 2}" for i in range(adata.n_obs)]
    adata.var["chosen"] = np.arange(adata.n_vars) < 3
    return adata


def run(adata: ad.AnnData, model: bf.models.BulkFormer, **options: object) -> np.ndarray:
    options = {"event": "died", "mask_var": "chosen", "protocol": QUICK, "model": model} | options
    bf.tl.gene_scores(adata, "days", **options)
    return adata.layers[str(options.get("key_added", "gene_scores"))]


def test_scores_are_out_of_fold_predictions_of_residuals(patients, latest):
    found = run(patients, latest)
    assert np.isnan(found[:, 3:]).all()
    known = ~np.isnan(found[:, :3]).all(axis=0)
    assert known.any()
    assert (found[:, :3][:, known] > 0).all()
    assert patients.uns["gene_scores"]["params"]["target"] == "martingale residual"


def test_one_gene_by_hand():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 4)).astype(np.float32)
    time, event = rng.exponential(10, 30), rng.random(30) < 0.6
    splits = k_fold(30, n_splits=3)
    found = _score(
        vectors,
        Outcome(time, event, np.ones(30, dtype=bool)),
        splits,
        lambda shape: probe(task="regression", shape=shape),
        paper=False,
    )
    for train, test, _ in splits:
        scale = one_scale()().fit(vectors[train])
        ridge = Ridge(alpha=100.0).fit(scale.transform(vectors[train]), martingale_residuals(time[train], event[train]))
        np.testing.assert_allclose(found[test], np.exp(ridge.predict(scale.transform(vectors[test]))), rtol=1e-5)


def test_a_planted_vector_is_found_and_noise_is_not():
    rng = np.random.default_rng(0)
    risk = rng.normal(size=200)
    time, event = rng.exponential(np.exp(-1.5 * risk)), rng.random(200) < 0.7
    outcome = Outcome(time, event, np.ones(200, dtype=bool))
    found = []
    for vectors in (np.column_stack([risk, rng.normal(size=(200, 5))]), *(rng.normal(size=(200, 6)) for _ in range(5))):
        splits = k_fold(200, n_splits=5)
        found.append(_score(vectors, outcome, splits, lambda shape: probe(task="regression", shape=shape), paper=False))
    obs = pd.DataFrame({"t": time, "e": event}, index=[f"s{i}" for i in range(200)])
    adata = ad.AnnData(np.column_stack(found).astype(np.float32), obs=obs)
    bf.tl.biomarkers(adata, "t", event="e", split="median")
    table = adata.uns["biomarkers"]["genes"]
    assert table["p"].iloc[0] < 1e-6
    assert table["hazard_ratio"].iloc[0] > 2
    assert (table["p"].iloc[1:] > 0.01).all()


def test_samples_without_outcome_are_predicted_and_groups_stay_together(patients, latest):
    patients.obs.loc[patients.obs_names[:2], "days"] = np.nan
    found = run(patients, latest, groups="patient")
    assert not np.isnan(found[:2]).all()
    assert patients.uns["gene_scores"]["params"]["folds"] == 3
    with pytest.raises(ValueError, match="11 groups cannot fill 12 folds"):
        run(patients, latest, groups="patient", protocol=Protocol(n_splits=12, duplicates=None))


def test_the_papers_forest_gives_probabilities(patients, latest, caplog, monkeypatch):
    monkeypatch.setitem(FOREST, "n_estimators", 3)
    paper = bf.metrics.paper_protocol("biomarkers")
    assert paper.head == "random_forest"
    patients.var["chosen"] = patients.var_names == next(g for g in latest.vocabulary.ids if g in patients.var_names)
    found = run(patients, latest, protocol="paper")
    known = found[~np.isnan(found)]
    assert len(known) == patients.n_obs
    assert 0 <= known.min() <= known.max() <= 1
    assert "one cut at the median of out-of-fold scores" in caplog.text
    assert patients.uns["gene_scores"]["params"]["target"] == "event"


def test_blocks_of_genes_make_no_difference_but_rounding(patients, latest, monkeypatch):
    once = run(patients, latest).copy()
    monkeypatch.setattr("bulkformer_tl.tl._gene_scores.LARGEST", 1)
    # sums over other numbers of genes round otherwise
    np.testing.assert_allclose(run(patients, latest), once, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"head": "oracle"}, ValueError, "there is no head 'oracle'; choose among"),
        ({"mask_var": "nothing"}, KeyError, "adata.var has no column 'nothing'"),
        ({"mask_var": "none"}, ValueError, "mask_var selects no gene that .* knows"),
        ({"event": "status"}, KeyError, r"no column 'status' \(event\)"),
        ({"groups": "person"}, KeyError, r"no column 'person' \(groups\)"),
        ({"protocol": "ours"}, TypeError, "protocol is 'ours'"),
        ({"key_added": "mine"}, ValueError, r"layers\['mine'\] exists"),
    ],
)
def test_bad_input_is_refused(patients, latest, options, error, message):
    patients.var["none"] = False
    patients.layers["mine"] = patients.X.copy()
    with pytest.raises(error, match=message):
        run(patients, latest, **options)
    assert not len(patients.uns)
