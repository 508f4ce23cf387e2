from __future__ import annotations

import logging
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol, paper_protocol

QUICK = Protocol(n_splits=3, n_bootstrap=100, duplicates=None)
N, M = 48, 10
SMILES = ["CCO", "CCN", "CCC", "c1ccccc1", "CC(=O)O", "CCCl", "CCBr", "c1ccncc1", "CC#N", "OCCO"]


def make(*, signal: float = 1.0, seed: int = 0) -> tuple[ad.AnnData, pd.DataFrame, pd.DataFrame]:
    """Lines whose embedding decides, drug by drug, how they respond; drugs differ far more than lines do."""
    rng = np.random.default_rng(seed)
    embedding, features = rng.normal(size=(N, 5)), rng.normal(size=(M, 3))
    values = rng.uniform(0.1, 3, (N, 30)).astype(np.float32)
    line = embedding @ rng.normal(size=(5, 3)) @ features.T
    table = signal * line / line.std() + rng.normal(0, 0.5, (N, M)) + rng.normal(0, 5, M)
    table[rng.random((N, M)) < 0.1] = np.nan
    names = [f"line {i}" for i in range(N)]
    adata = ad.AnnData(values, obs=pd.DataFrame({"patient": [f"p{i // 3}" for i in range(N)]}, index=names))
    adata.obsm["X_emb"] = embedding.astype(np.float32)
    drugs = [f"drug {i}" for i in range(M)]
    return adata, pd.DataFrame(table, index=names, columns=drugs), pd.DataFrame(features, index=drugs)


@pytest.fixture
def cohort():
    return make()


def run(adata, table, **options):
    bf.tl.drug_response(adata, table, **{"use_rep": "X_emb", "protocol": QUICK, **options})
    return adata.uns[options.get("key_added", "drug_response")]


def score(result, name, axis="per_drug", metric="pearson"):
    table = result["scores"]
    rows = (table["representation"] == name) & (table["metric"] == metric) & (table["axis"] == axis)
    (found,) = table.loc[rows, "mean"]
    return found


def test_what_was_planted_is_found_drug_by_drug(cohort):
    adata, table, _ = cohort
    result = run(adata, table)
    assert score(result, "X_emb") > 0.75
    assert score(result, "raw") < 0.3
    worse = result["differences"].query("metric == 'rmse' and axis == 'per_drug'")
    assert (worse["better"] == "X_emb").all()
    assert set(worse["baseline"]) == {"drug_mean", "raw", "pca"}
    np.testing.assert_array_equal(result["drugs"], table.columns)


def test_null_is_not_found_and_the_global_correlation_hides_it():
    found, shown = [], []
    for seed in range(4):
        adata, table, _ = make(signal=0.0, seed=seed)
        result = run(adata, table)
        found.append(score(result, "X_emb"))
        shown.append(score(result, "X_emb", "global"))
        assert score(result, "drug_mean", "global") > 0.9
        assert np.isnan(score(result, "drug_mean"))
    assert abs(np.mean(found)) < 0.15
    assert min(shown) > 0.9


@pytest.mark.parametrize("unseen", ["line", "drug", "both"])
@pytest.mark.parametrize("n_inner", [0, 2])
def test_a_prediction_does_not_know_what_is_unseen(cohort, unseen, n_inner):
    """Shift all that is measured of one line and one drug: predictions of what is unseen there must not move."""
    adata, table, features = cohort
    protocol = replace(QUICK, n_splits=2, n_inner=n_inner, baselines=("drug_mean",))
    options = {"drugs": features, "unseen": unseen, "protocol": protocol, "copy": True, "use_rep": "X_emb"}
    before = bf.tl.drug_response(adata, table, **options).obsm["drug_response_pred"]
    changed = table.copy()
    if unseen in ("line", "both"):
        changed.iloc[7] += 100
    if unseen in ("drug", "both"):
        changed.iloc[:, 4] -= 100
    after = bf.tl.drug_response(adata, changed, **options).obsm["drug_response_pred"]
    lines = slice(7, 8) if unseen == "line" else slice(None)
    drugs = slice(4, 5) if unseen == "drug" else slice(None)
    at = (7, 4) if unseen == "both" else (lines, drugs)
    known = table.notna().to_numpy()[at]
    np.testing.assert_allclose(before[at][known], after[at][known], rtol=1e-6)


def test_new_drugs_are_predicted_from_their_features(cohort):
    adata, table, features = cohort
    result = run(adata, table, drugs=features, unseen="drug")
    assert score(result, "X_emb") > 0.4
    # by default, what knows the line, what knows the drug, and neither
    assert set(result["params"]["baselines"]) == {"drug_mean", "additive", "nearest_drug", "raw", "pca"}
    assert result["params"]["folds"] == 3
    result = run(adata, table, drugs=features, unseen="both", key_added="both")
    assert result["params"]["folds"] == 9
    assert score(result, "X_emb") > 0.2


def test_two_names_of_one_compound_stay_together(cohort):
    adata, table, features = cohort
    table["again"] = table["drug 0"] + 0.01
    features.loc["again"] = features.loc["drug 0"]
    result = run(adata, table, drugs=features, unseen="drug")
    per_drug = result["per_drug"].query("representation == 'nearest_drug'").set_index("drug")
    # its double would be the nearest drug, and right
    assert per_drug.loc["again", "pearson"] < 0.95


def test_samples_of_a_line_of_a_patient_and_near_duplicates_stay_together(cohort):
    adata, table, _ = cohort
    adata.obs["line"] = [f"line {i // 2}" for i in range(N)]
    params = run(adata, table, lines="line")["params"]
    assert (params["n_lines"], params["n_groups"]) == (N, N // 2)
    assert run(adata, table, lines="line", groups="patient", key_added="b")["params"]["n_groups"] == N // 6
    adata.X[5] = adata.X[40]
    found = run(adata, table, protocol=replace(QUICK, duplicates=0.998), key_added="c")["params"]
    assert found["n_groups"] == N - 1


def test_classes_are_scored_by_auroc(cohort):
    adata, table, _ = cohort
    classes = (table < table.median()).astype("boolean").mask(table.isna())
    result = run(adata, classes, protocol=replace(QUICK, baselines=("drug_mean", "raw")))
    assert result["params"]["target"] == "classes"
    assert score(result, "X_emb", metric="auroc") > 0.8
    assert score(result, "drug_mean", metric="auroc") == 0.5
    assert score(result, "X_emb", metric="brier") < score(result, "drug_mean", metric="brier")
    rare = table < table.quantile(0.9).median()
    result = run(adata, rare.astype(object).mask(table.isna()), key_added="rare")
    assert score(result, "drug_mean", "global", "auroc") > 0.8


def test_what_is_not_measured_is_predicted_by_the_head_that_is_kept(cohort, tmp_path):
    adata, table, features = cohort
    result = run(adata, table.drop(index="line 3"), drugs=features)
    assert result["params"]["n_unlabelled"] == 1
    head = bf.tl.fitted_head(adata, "drug_response")
    head.save(tmp_path / "head")
    again = bf.tl.PairHead.load(tmp_path / "head")
    found = again.predict(adata)
    unknown = table.isna().to_numpy().copy()
    unknown[3] = True
    np.testing.assert_array_equal(found.to_numpy()[unknown], adata.obsm["drug_response_pred"][unknown])
    assert np.corrcoef(found.iloc[3], table.iloc[3].fillna(found.iloc[3]))[0, 1] > 0.9
    one = again.predict(adata[:4], features.iloc[2:4])
    assert one.shape == (4, 2)
    assert list(one.columns) == ["drug 2", "drug 3"]


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_results_survive_a_file(cohort, form, head, tmp_path):
    adata, table, _ = cohort
    protocol = replace(QUICK, head_options={"max_iter": 5} if head == "mlp" else {}, head=head)
    run(adata, table.rename(columns={"drug 1": "A/B"}), protocol=protocol)
    path = tmp_path / f"a.{form}"
    (adata.write_h5ad if form == "h5ad" else adata.write_zarr)(path)
    again = (ad.read_h5ad if form == "h5ad" else ad.read_zarr)(path)
    pd.testing.assert_frame_equal(
        again.uns["drug_response"]["per_drug"],
        adata.uns["drug_response"]["per_drug"],
        check_dtype=False,
        check_index_type=False,
        check_column_type=False,
    )
    heads = [bf.tl.fitted_head(one, "drug_response") for one in (adata, again)]
    assert heads[1].facts["columns"][1] == "A/B"
    pd.testing.assert_frame_equal(*(one.predict(adata) for one in heads))
    run(again, table.rename(columns={"drug 1": "A/B"}), protocol=protocol)


def test_reruns_add_rows_and_other_pairs_begin_anew(cohort, caplog):
    adata, table, _ = cohort
    run(adata, table)
    adata.obsm["X_bad"] = np.random.default_rng(1).normal(size=(N, 4)).astype(np.float32)
    with caplog.at_level(logging.INFO, "bulkformer_tl"):
        result = run(adata, table, use_rep="X_bad")
    assert "X_bad reaches pearson" in caplog.text
    assert {"X_emb", "X_bad"} <= set(result["scores"]["representation"])
    assert {"X_emb", "X_bad"} <= set(result["per_drug"]["representation"])
    caplog.clear()
    with caplog.at_level(logging.INFO, "bulkformer_tl"):
        result = run(adata, table.iloc[:, :8])
    assert "its rows are dropped" in caplog.text
    assert "X_bad" not in set(result["scores"]["representation"])


def test_a_reference_is_trained_on(cohort):
    adata, table, _ = cohort
    here, there = adata[:16].copy(), adata[16:].copy()
    result = run(here, table, reference=there, groups="patient")
    # patient 5 is on both sides
    assert result["params"]["trained_on"] == "reference"
    assert result["params"]["folds"] == 1
    assert score(result, "X_emb") > 0.5
    assert here.obsm["drug_response_pred"].shape == (16, M)
    alone = bf.tl.drug_response(
        here,
        table.drop(index=here.obs_names),
        use_rep="X_emb",
        reference=there,
        protocol=QUICK,
        key_added="b",
        copy=True,
    )
    assert "scores" not in alone.uns["b"]
    found = alone.obsm["b_pred"]
    assert np.corrcoef(found.ravel(), table.iloc[:16].fillna(table.mean()).to_numpy().ravel())[0, 1] > 0.9


def test_the_paper_splits_pairs_and_warns(cohort, caplog):
    adata, table, features = cohort
    paper = replace(paper_protocol("drug_response"), n_bootstrap=100, n_splits=3)
    paper = replace(paper, head_options={**paper.head_options, "max_iter": 30})
    result = run(adata, table, drugs=features, protocol=paper)
    assert "drawn over pairs" in caplog.text
    assert result["params"]["unseen"] == "pair"
    assert result["params"]["head"] == "mlp"
    assert "assumed" in result["params"]["protocol"]
    assert score(result, "X_emb (mlp)", "global") > 0.7
    assert run(adata, table, unseen="line", protocol=paper, key_added="line")["params"]["unseen"] == "line"


def test_obsm_and_expression_itself(cohort):
    adata, table, _ = cohort
    adata.obsm["ic50"] = table
    result = run(adata, "ic50", use_rep=None, groups="patient")
    assert "expression" in set(result["scores"]["representation"])
    head = bf.tl.fitted_head(adata, "drug_response")
    assert head.predict(adata[:2]).shape == (2, M)
    with pytest.raises(KeyError, match="adata lacks 1 of the head's 30 genes"):
        head.predict(adata[:, 1:])


def test_smiles_become_fingerprints(cohort):
    pytest.importorskip("rdkit", reason="needs the extra drugs")
    adata, table, _ = cohort
    smiles = dict(zip(table.columns, SMILES, strict=True))
    result = run(adata, table, drugs=smiles, fingerprint=(1, 64), unseen="drug")
    assert json_features(adata) == ["morgan", "1", "64"]
    head = bf.tl.fitted_head(adata, "drug_response")
    assert head.predict(adata, {"new": "CCCO"}).shape == (N, 1)
    assert result["params"]["n_drugs"] == M
    with pytest.raises(ValueError, match=r"the head reads fingerprints; pass SMILES by name of each drug"):
        head.predict(adata, pd.DataFrame([[1.0]], index=["new"]))
    with pytest.raises(ValueError, match=r"no molecule can be read from the SMILES of 'drug 3' \('C\(C'\)"):
        run(adata, table, drugs={**smiles, "drug 3": "C(C"}, key_added="other")
    assert "other" not in adata.uns


def json_features(adata):
    return bf.tl.fitted_head(adata, "drug_response").facts["features"]


def spoil(table, at, value):
    found = table.astype(object)
    found.iloc[at] = value
    return found


WRONG = {
    "no table": (lambda t: t.to_numpy(), TypeError, "response is ndarray; pass a data frame of lines by drugs"),
    "twice": (lambda t: pd.concat([t, t.iloc[:1]]), ValueError, r"lists lines twice, such as 'line 0'; average them"),
    "drugs twice": (lambda t: pd.concat([t, t.iloc[:, :1]], axis=1), ValueError, "lists drugs twice, such as 'drug 0'"),
    "long": (
        lambda t: t.melt(ignore_index=False, var_name="drug").reset_index(),
        TypeError,
        r'holds \'line 0\'; .* \.pivot\(index="line", columns="drug", values="value"\)',
    ),
    "mixed": (lambda t: spoil(t, (0, 0), True), TypeError, "response mixes booleans with numbers"),
    "infinite": (lambda t: spoil(t, (2, 1), np.inf), ValueError, "infinite for 'line 2' and 'drug 1'"),
    "0 and 1": (lambda t: (t > 0).astype(float), TypeError, r'nothing but 0 and 1; pass response.astype\("boolean"\)'),
    "other lines": (
        lambda t: t.rename(index=str.upper),
        ValueError,
        r"none of 48 samples is in the index of response: .*'line 0'.*'LINE 0'.*Pass lines=",
    ),
    "nothing": (lambda t: t * np.nan, ValueError, "response holds no value for any sample"),
    "constant": (lambda t: t * 0 + 3.0, ValueError, r"response is constant \(3\); there is nothing to predict"),
    "one class": (lambda t: t.notna().mask(t.isna()), ValueError, r"response is constant \(1\)"),
    "one drug": (lambda t: t[["drug 0"]], ValueError, "has one drug with values; bf.tl.regress"),
    "few lines": (
        lambda t: t.assign(rare=[1.0, 2.0] + [np.nan] * (N - 2)),
        ValueError,
        r"1 of 11 drugs are measured in too few lines, such as \['rare'\]: .*notna\(\).sum\(\) >= 6",
    ),
    "absent key": (lambda t: "ic50", KeyError, r"adata.obsm has no 'ic50'; it holds \['X_emb'\]"),
    "array": (lambda t: "X_emb", TypeError, "is an array without names of drugs; make it a data frame"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_responses_are_refused(cohort, case):
    adata, table, _ = cohort
    change, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        run(adata, change(table))
    assert list(adata.uns) == []
    assert list(adata.obsm) == ["X_emb"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"unseen": "cell"}, ValueError, r"unseen is 'cell'; choose among \['line', 'drug', 'both', 'pair'\]"),
        ({"unseen": "drug"}, ValueError, "by their features; pass drugs=, SMILES by name or a data frame"),
        ({"head": "forest"}, ValueError, r"no head 'forest' of pairs; choose among \['linear', 'mlp'\]"),
        ({"protocol": replace(QUICK, baselines=("knn",))}, ValueError, "no baseline 'knn' for pairs; choose among"),
        ({"protocol": replace(QUICK, baselines=("nearest_drug",))}, ValueError, "for drugs that were not trained on"),
        ({"protocol": "papers"}, TypeError, "protocol is 'papers'"),
        ({"protocol": replace(QUICK, head="mlp", head_options={"depth": 1})}, ValueError, "has no option 'depth'"),
        ({"lines": "cell"}, KeyError, r"no column 'cell' \(lines\)"),
        ({"groups": "donor"}, KeyError, r"no column 'donor' \(groups\)"),
        ({"use_rep": "X_pca"}, KeyError, "adata.obsm has no 'X_pca'"),
        ({"key_added": "a/b"}, ValueError, "cannot be written to a file because of its '/'"),
        ({"drugs": 3}, TypeError, "drugs is int; pass SMILES by name"),
        ({"drugs": {"drug 0": "CCO"}}, KeyError, r"describes 1 of 10 drugs and lacks \['drug 1'"),
    ],
)
def test_wrong_options_are_refused(cohort, options, error, message):
    adata, table, _ = cohort
    with pytest.raises(error, match=message):
        run(adata, table, **options)
    assert list(adata.uns) == []


def test_features_are_checked(cohort):
    adata, table, features = cohort
    for wrong, error, message in [
        (features.assign(x=np.nan), ValueError, "are NaN or infinite, such as those of 'drug 0'"),
        (features.assign(x="text"), TypeError, "features of drugs must be numbers"),
        (pd.concat([features, features.iloc[:1]]), ValueError, "lists 'drug 0' twice"),
    ]:
        with pytest.raises(error, match=message):
            run(adata, table, drugs=wrong)
    run(adata, table, drugs=features)
    head = bf.tl.fitted_head(adata, "drug_response")
    with pytest.raises(KeyError, match="lack 1 that the head reads, such as"):
        head.predict(adata, features.iloc[:, 1:])
    with pytest.raises(ValueError, match=r"reads 3 features, such as .* and no SMILES"):
        head.predict(adata, {"new": "CCO"})
    adata.obsm["X_emb"] = adata.obsm["X_emb"][:, 1:]
    with pytest.raises(ValueError, match=r"the head reads 5 columns and the matrix has the shape \(48, 4\)"):
        head.predict(adata)
    run(adata, table, key_added="plain")
    with pytest.raises(ValueError, match="was fitted without features of drugs and knows its own drugs alone"):
        bf.tl.fitted_head(adata, "plain").predict(adata, features)


def test_hostile_heads_are_refused(cohort, tmp_path):
    adata, table, _ = cohort
    run(adata, table)
    head = bf.tl.fitted_head(adata, "drug_response")
    for change, message in [
        ({"task": "survival"}, "the facts of such a head are"),
        ({"columns": ["a"]}, "the array 'codes'"),
        ({"kind": "mlp"}, "cannot consist of the arrays"),
        ({"classes": "yes"}, r"\['classes'\] do not fit"),
        ({"genes": ["a"]}, "the head names 1 genes and weighs 5"),
        ({"more": 1}, r"\['more'\] do not fit"),
    ]:
        with pytest.raises(ValueError, match=message):
            bf.tl.PairHead({**head.facts, **change}, head.arrays)
    adata.uns["drug_response"]["params"]["task"] = "other"
    with pytest.raises(KeyError, match="is no result of"):
        bf.tl.fitted_head(adata, "drug_response")


def test_covariates_are_a_baseline_of_their_own(cohort):
    """What follows from tissue and age alone is predicted by them, a missing age by the mean, and not by expression."""
    adata, table, _ = cohort
    rng = np.random.default_rng(0)
    adata.obs["tissue"] = np.resize(["lung", "skin", "blood"], N)
    adata.obs["age"] = rng.uniform(20, 80, N)
    adata.obs.loc["line 4", "age"] = np.nan
    shift = pd.get_dummies(adata.obs["tissue"]).to_numpy(float) @ rng.normal(size=(3, M)) * 3
    shift += np.outer(adata.obs["age"].fillna(50) / 15, rng.normal(size=M))
    table = pd.DataFrame(shift + rng.normal(0, 0.3, (N, M)), index=table.index, columns=table.columns)
    result = run(adata, table, covariates=["tissue", "age"])
    assert score(result, "covariates") > 0.9
    assert score(result, "raw") < 0.4
    assert result["params"]["covariates"] == ["tissue", "age"]
    assert "covariates" in set(result["differences"]["baseline"])


def test_covariates_by_hand(cohort):
    adata, table, _ = cohort
    adata.obs["tissue"] = np.resize(["lung", "skin", "blood"], N)
    adata.obsm["X_tissue"] = pd.get_dummies(adata.obs["tissue"]).to_numpy(np.float32)
    result = run(adata, table, use_rep="X_tissue", covariates=["tissue"])
    # levels of nearly one share have nearly one variance, so that both ways of scaling agree
    assert score(result, "covariates") == pytest.approx(score(result, "X_tissue"), abs=0.01)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"covariates": "patient"}, TypeError, "pass a list of columns"),
        ({"covariates": []}, TypeError, "pass a list of columns"),
        ({"covariates": ["stage"]}, KeyError, "stage"),
        ({"protocol": replace(QUICK, baselines=("covariates",))}, ValueError, "needs covariates="),
    ],
)
def test_covariates_that_are_not_there(cohort, options, error, says):
    adata, table, _ = cohort
    with pytest.raises(error, match=says):
        run(adata, table, **options)
    assert "drug_response" not in adata.uns
