"""Regression of a matrix: proteins from RNA, all at once, scored one by one."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from mudata import MuData
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol, k_fold, pearson
from bulkformer_tl.metrics._scale import one_scale

QUICK = Protocol(n_splits=3, n_bootstrap=100, duplicates=None, baselines=("mean",))


def make(n: int = 90, *, seed: int = 0) -> ad.AnnData:
    """Proteins A to C follow a gene each, on very different scales; D and E follow nothing."""
    rng = np.random.default_rng(seed)
    values = np.abs(rng.normal(2, 0.7, (n, 20))).astype(np.float32)
    noise = rng.normal(size=(n, 5))
    proteins = np.column_stack(
        [values[:, 0], 1000 * values[:, 1] + 5000, -values[:, 2], noise[:, 3], 1000 * noise[:, 4]]
    )
    proteins[:, :3] += noise[:, :3] * np.array([0.2, 200, 0.2])
    names = [f"s{i}" for i in range(n)]
    adata = ad.AnnData(values, obs=pd.DataFrame(index=names), var=pd.DataFrame(index=[f"g{i}" for i in range(20)]))
    adata.obsm["X_emb"] = values[:, :10].copy()
    adata.obsm["protein"] = pd.DataFrame(proteins, index=names, columns=list("ABCDE"))
    return adata


@pytest.fixture
def adata():
    return make()


def per_column(adata, name="X_emb", key="regress_protein"):
    table = adata.uns[key]["per_column"]
    return table[table["representation"] == name].set_index("column")


def score(adata, name, axis="per_column", metric="pearson", key="regress_protein"):
    table = adata.uns[key]["scores"].set_index(["representation", "axis", "metric"])["mean"]
    return table[name, axis, metric]


def test_predictions_equal_scikit_learn_by_hand(adata):
    bf.tl.regress(adata, "protein", use_rep="X_emb", protocol=QUICK)
    found, truth = adata.obsm["protein_pred"], adata.obsm["protein"].to_numpy()
    assert found.columns.tolist() == list("ABCDE")
    for train, test, _ in k_fold(90, n_splits=3, rng=0):
        scale, target = one_scale()().fit(adata.obsm["X_emb"][train]), StandardScaler().fit(truth[train])
        head = Ridge(alpha=100.0).fit(scale.transform(adata.obsm["X_emb"][train]), target.transform(truth[train]))
        expected = target.inverse_transform(head.predict(scale.transform(adata.obsm["X_emb"][test])))
        np.testing.assert_allclose(found.to_numpy()[test], expected, rtol=1e-4)


def test_planted_proteins_are_found_and_others_are_not(adata):
    bf.tl.regress(adata, "protein", use_rep="X_emb", protocol=QUICK)
    table = per_column(adata)
    assert (table.loc[list("ABC"), "pearson"] > 0.8).all()
    assert (table.loc[list("DE"), "pearson"].abs() < 0.35).all()
    assert score(adata, "X_emb") == pytest.approx(table["pearson"].mean())
    assert set(adata.uns["regress_protein"]["scores"]["axis"]) == {"per_column", "per_sample", "global"}
    differences = adata.uns["regress_protein"]["differences"]
    (row,) = differences[(differences["axis"] == "per_column") & (differences["metric"] == "rmse")].to_dict("records")
    assert (row["baseline"], row["better"]) == ("mean", "X_emb")


def test_scores_of_a_column_by_hand(adata):
    bf.tl.regress(adata, "protein", use_rep="X_emb", protocol=QUICK)
    truth, found = adata.obsm["protein"]["B"].to_numpy(), adata.obsm["protein_pred"]["B"].to_numpy()
    one, other = truth.copy(), found.copy()
    for _, test, _ in k_fold(90, n_splits=3, rng=0):
        one[test] -= one[test].mean()
        other[test] -= other[test].mean()
    assert per_column(adata).loc["B", "pearson"] == pytest.approx(pearson(one, other))
    # in standard deviations of the column
    assert per_column(adata).loc["B", "rmse"] == pytest.approx(np.sqrt(np.mean((truth - found) ** 2)) / truth.std())


def test_units_of_a_column_change_nothing(adata):
    other = adata.copy()
    other.obsm["protein"]["A"] = 1e6 * other.obsm["protein"]["A"] - 3
    for each in (adata, other):
        bf.tl.regress(each, "protein", use_rep="X_emb", head="elastic_net", protocol=QUICK)
    name = "X_emb (elastic_net)"
    left, right = (per_column(each, name).drop(columns="representation") for each in (adata, other))
    pd.testing.assert_frame_equal(left, right, rtol=1e-6)


def test_missing_values_of_a_column_leave_the_others_alone(adata):
    whole = bf.tl.regress(adata, "protein", use_rep="X_emb", protocol=QUICK, copy=True)
    table = adata.obsm["protein"].copy()
    table.loc[table.index[::4], "A"] = np.nan
    table.loc["s5"] = np.nan
    adata.obsm["protein"] = table
    bf.tl.regress(adata, "protein", use_rep="X_emb", protocol=QUICK)
    assert per_column(adata).loc["A", "n"] == table["A"].notna().sum()
    assert per_column(adata).loc["A", "pearson"] > 0.75
    # a sample without any value is predicted by all others
    assert adata.obsm["protein_pred"].loc["s5"].notna().all()
    adata.obsm["protein"] = table.assign(A=whole.obsm["protein"]["A"]).drop(index="s5").reindex(table.index)
    bf.tl.regress(adata, "protein", use_rep="X_emb", protocol=QUICK)
    assert per_column(adata).loc["B", "n"] == 89


@pytest.mark.parametrize("head", ["linear", "random_forest", "knn", "mlp"])
def test_every_head_predicts_all_columns(adata, head):
    options = {"random_forest": {"n_estimators": 10}, "mlp": {"tol": 1e-2}}.get(head, {})
    adata.obsm["protein"].iloc[0, 2] = np.nan
    protocol = replace(QUICK, n_inner=2, head=head, head_options=options)
    bf.tl.regress(adata, "protein", use_rep="X_emb", protocol=protocol)
    assert adata.obsm["protein_pred"].shape == (90, 5)
    assert not adata.obsm["protein_pred"].isna().any(axis=None)


def test_arrays_and_files(adata, tmp_path):
    adata.obsm["amounts"] = adata.obsm["protein"].to_numpy()
    bf.tl.regress(adata, "amounts", use_rep="X_emb", protocol=QUICK)
    assert adata.obsm["amounts_pred"].columns.tolist() == list("01234")
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    bf.tl.regress(again, "amounts", use_rep=None, protocol=QUICK)
    assert set(again.uns["regress_amounts"]["per_column"]["representation"]) == {"X_emb", "mean", "expression"}
    bf.pl.scores(again, "regress_amounts", metric="spearman")


def test_a_modality_from_another(adata):
    protein = ad.AnnData(
        adata.obsm["protein"].to_numpy(), obs=pd.DataFrame(index=adata.obs_names), var=pd.DataFrame(index=list("ABCDE"))
    )
    expected = bf.tl.regress(adata, "protein", use_rep="X_emb", protocol=QUICK, copy=True)
    rna = adata.copy()
    del rna.obsm["protein"]
    mdata = MuData({"rna": rna, "protein": protein[::-1].copy()})
    bf.tl.regress(mdata, "protein", use_rep="X_emb", protocol=QUICK)
    np.testing.assert_allclose(mdata.obsm["protein_pred"], expected.obsm["protein_pred"], rtol=1e-4)
    assert per_column(mdata).loc["A", "pearson"] > 0.8


def test_a_reference_predicts_others(adata):
    new = make(30, seed=1)
    truth = new.obsm["protein"].copy()
    del new.obsm["protein"]
    bf.tl.regress(new, "protein", use_rep="X_emb", reference=adata, protocol=QUICK)
    assert np.corrcoef(new.obsm["protein_pred"]["B"], truth["B"])[0, 1] > 0.8
    assert "scores" not in new.uns["regress_protein"]
    new.obsm["protein"] = truth[list("EDCBA")]
    with pytest.raises(ValueError, match=r"obsm\['protein'\] has other columns in adata than in the reference"):
        bf.tl.regress(new, "protein", use_rep="X_emb", reference=adata, protocol=QUICK)


def change(column, value):
    def apply(table):
        table = table.astype(object)
        table.iloc[:, column] = value
        return table

    return apply


WRONG = {
    "text": (change(0, "high"), TypeError, r"adata.obsm\['protein'\]"),
    "infinite": (change(0, np.inf), ValueError, "holds 90 infinite values; missing ones are NaN"),
    "constant": (change(1, 3.0), ValueError, "1 of 5 columns .* such as 'B', are constant or hold no value"),
    "empty": (change(2, np.nan), ValueError, "1 of 5 columns .* such as 'C', are constant or hold no value"),
}


@pytest.mark.parametrize("case", WRONG)
def test_matrices_that_cannot_be_predicted(adata, case):
    apply, error, message = WRONG[case]
    table = apply(adata.obsm["protein"])
    adata.obsm["protein"] = table if case == "text" else table.astype(float)
    with pytest.raises(error, match=message):
        bf.tl.regress(adata, "protein", use_rep="X_emb", protocol=QUICK)
    assert not adata.uns


def test_names_of_both_a_column_and_a_matrix(adata):
    adata.obs["protein"] = 1.0
    with pytest.raises(ValueError, match="'protein' names a column of obs and a matrix of obsm; rename"):
        bf.tl.regress(adata, "protein", use_rep="X_emb", protocol=QUICK)


def test_slots_of_others(adata):
    adata.obsm["protein_pred"] = np.ones((90, 2))
    with pytest.raises(ValueError, match="pass another key_added"):
        bf.tl.regress(adata, "protein", use_rep="X_emb", protocol=QUICK)


@pytest.mark.parametrize("head", ["linear", "elastic_net", "random_forest", "mlp"])
@pytest.mark.parametrize("gaps", [False, True])
def test_kept_head_predicts_the_same_bits(adata, head, gaps, tmp_path):
    truth = adata.obsm["protein"]
    truth.iloc[80:] = np.nan
    if gaps:
        # a part of two columns, one of its own, and two that all know
        truth.iloc[:9, [0, 2]] = np.nan
        truth.iloc[9:20, 1] = np.nan
    options = {"n_estimators": 5} if head == "random_forest" else {}
    protocol = replace(QUICK, head=head, head_options=options)
    bf.tl.regress(adata, "protein", use_rep="X_emb", protocol=protocol)
    bf.tl.fitted_head(adata, "regress_protein").save(tmp_path / "head")
    head = bf.tl.MatrixHead.load(tmp_path / "head")
    found = head.predict(adata)
    pd.testing.assert_frame_equal(found.iloc[80:], adata.obsm["protein_pred"].iloc[80:])
    assert max(head.facts["parts"]) == (2 if gaps else 0)
    pd.testing.assert_frame_equal(found.iloc[[85, 3]], head.predict(adata[[85, 3]]))


def test_kept_head_equals_scikit_learn_fitted_to_everything(adata):
    bf.tl.regress(adata, "protein", use_rep="X_emb", protocol=QUICK)
    scale, target = one_scale()().fit(adata.obsm["X_emb"]), StandardScaler().fit(adata.obsm["protein"].to_numpy())
    matrix = scale.transform(adata.obsm["X_emb"])
    ridge = Ridge(alpha=100.0).fit(matrix, target.transform(adata.obsm["protein"].to_numpy()))
    found = bf.tl.fitted_head(adata, "regress_protein").predict(adata)
    np.testing.assert_allclose(found, target.inverse_transform(ridge.predict(matrix)), rtol=1e-4)


def test_column_that_the_reference_hardly_knows_is_left_out_of_the_head(adata):
    reference, own = make(seed=1), adata[:10].copy()
    reference.obs_names = "r" + reference.obs_names
    reference.obs["patient"] = ["shared"] * 45 + [f"r{i}" for i in range(45)]
    own.obs["patient"] = ["shared"] + [f"o{i}" for i in range(9)]
    reference.obsm["protein"].loc[reference.obs["patient"] != "shared", "B"] = np.nan
    bf.tl.regress(own, "protein", use_rep="X_emb", groups="patient", protocol=QUICK, reference=reference)
    head = bf.tl.fitted_head(own, "regress_protein")
    assert head.facts["columns"] == list("ACDE")
    assert own.obsm["protein_pred"]["B"].isna().all()
    pd.testing.assert_frame_equal(head.predict(own), own.obsm["protein_pred"][list("ACDE")])


@pytest.mark.parametrize(
    ("facts", "arrays", "says"),
    [
        ({"kind": "tree"}, {}, "the kind 'tree'"),
        ({"parts": [0, 0, 0, 0, 2]}, {}, "the parts"),
        ({"label": 3}, {}, "label"),
        ({}, {"level": np.zeros(4)}, "'level'"),
        ({}, {"0.coef": np.zeros((4, 10))}, "'coef'"),
        ({}, {"1.coef": np.zeros((5, 10))}, "1 parts"),
        ({"genes": ["a"]}, {}, "names 1 genes"),
    ],
)
def test_changed_head_is_refused(adata, facts, arrays, says):
    bf.tl.regress(adata, "protein", use_rep="X_emb", protocol=QUICK)
    head = bf.tl.fitted_head(adata, "regress_protein")
    with pytest.raises(ValueError, match=says):
        bf.tl.MatrixHead({**head.facts, **facts}, {**head.arrays, **arrays})
    with pytest.raises(ValueError, match="reads 10 columns"):
        head.predict_array(np.zeros((2, 3)))
