from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.duration.hazard_regression import PHReg
from statsmodels.duration.survfunc import survdiff

import bulkformer_tl as bf

#: Of the genes, how many go with survival.
PLANTED = 4


def make(n: int = 120, genes: int = 100, *, effect: float = 1.2, seed: int = 0) -> ad.AnnData:
    """ln(TPM+1) whose first genes shorten survival, in two cancers of different hazard."""
    rng = np.random.default_rng(seed)
    values = np.abs(rng.normal(3, 0.6, (n, genes))).astype(np.float32)
    cancer = rng.integers(0, 2, n)
    risk = effect * (values[:, :PLANTED] - 3).sum(axis=1) + 2 * cancer
    time = 400 * rng.exponential(np.exp(-risk))
    censored = rng.exponential(np.median(time) * 2, n)
    obs = pd.DataFrame(
        {
            "days": np.ceil(np.minimum(time, censored)),
            "died": time <= censored,
            "cancer": pd.Categorical.from_codes(cancer, ["mild", "severe"]),
            "age": rng.normal(60, 10, n),
            "patient": [f"p{i}" for i in range(n)],
        },
        index=[f"s{i}" for i in range(n)],
    )
    return ad.AnnData(values, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(genes)]))


def genes(adata: ad.AnnData, key: str = "biomarkers", table: str = "genes") -> pd.DataFrame:
    return adata.uns[key][table]


def hide(adata: ad.AnnData, share: float = 0.5, *, right: bool) -> None:
    """Hide entries of every second gene; fill them in with the truth, or with values of other samples."""
    rng = np.random.default_rng(1)
    truth = np.asarray(adata.X).copy()
    hidden = (rng.random(adata.shape) < share) & (np.arange(adata.n_vars) % 2 == 0)
    adata.layers["log_tpm"] = np.where(hidden, np.nan, truth).astype(np.float32)
    filled = truth if right else rng.permuted(truth, axis=0)
    adata.layers["imputed"] = np.where(hidden, filled, truth).astype(np.float32)


@pytest.mark.parametrize("stratified", [False, True])
def test_cox_screen_is_that_of_statsmodels(stratified):
    adata = make(60, 4)
    adata.X[:9, 1] = np.nan
    bf.tl.biomarkers(adata, "days", event="died", strata="cancer" if stratified else None, covariates=["age"])
    for name, row in genes(adata).iterrows():
        values = np.asarray(adata[:, name].X).ravel().astype(float)
        known = ~np.isnan(values)
        obs = adata.obs[known]
        columns = np.column_stack([values[known], obs["age"]])
        strata = obs["cancer"].cat.codes.to_numpy() if stratified else None
        fit = PHReg(
            obs["days"].to_numpy(), columns, status=obs["died"].to_numpy(int), strata=strata, ties="efron"
        ).fit()
        sd = values[known].std()
        assert row["n"] == known.sum()
        assert row["events"] == obs["died"].sum()
        assert row["hazard_ratio"] == pytest.approx(np.exp(fit.params[0] * sd), rel=1e-4)
        low, high = np.exp(fit.conf_int()[0] * sd)
        assert (row["low"], row["high"]) == pytest.approx((low, high), rel=1e-4)
        assert row["p"] == pytest.approx(fit.pvalues[0], rel=1e-3)


@pytest.mark.parametrize("stratified", [False, True])
def test_median_split_is_a_log_rank_test(stratified):
    adata = make(80, 3)
    bf.tl.biomarkers(adata, "days", event="died", split="median", strata="cancer" if stratified else None)
    obs, table = adata.obs, genes(adata)
    for name, row in table.iterrows():
        values = pd.Series(np.asarray(adata[:, name].X).ravel(), index=obs.index)
        median = values.groupby(obs["cancer"], observed=True).transform("median") if stratified else values.median()
        high = (values > median).to_numpy()
        strata = obs["cancer"].to_numpy() if stratified else None
        chi2, p = survdiff(obs["days"].to_numpy(), obs["died"].to_numpy(int), high, strata=strata)
        assert row["statistic"] ** 2 == pytest.approx(chi2)
        assert row["p"] == pytest.approx(p)
        assert row["n_high"] == high.sum()
        assert np.sign(row["statistic"]) == np.sign(np.log(row["hazard_ratio"]))
    assert ("cut" in table) == (not stratified)


@pytest.mark.parametrize("split", [None, "median"])
def test_planted_genes_are_found_and_few_others(split):
    adata = make(300, 200)
    bf.tl.biomarkers(adata, "days", event="died", split=split, strata="cancer")
    found = genes(adata)["fdr"] <= 0.05
    assert found[:PLANTED].mean() >= (0.9 if split is None else 0.6)
    assert found[PLANTED:].mean() < 0.02
    assert (genes(adata)["hazard_ratio"][:PLANTED] > 1).all()
    np.testing.assert_allclose(genes(adata)["fdr"], stats.false_discovery_control(genes(adata)["p"]))


@pytest.mark.parametrize("split", [None, "median", "optimal"])
@pytest.mark.filterwarnings("ignore:split=.optimal. cuts each gene:UserWarning")
def test_null_is_calibrated(split):
    adata = make(100, 1500, effect=0)
    bf.tl.biomarkers(adata, "days", event="died", split=split)
    p = genes(adata)["p"]
    # the formula behind corrected p-values is on the safe side
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.02 if split != "optimal" else 0.035)
    assert (p <= 0.5).mean() == pytest.approx(0.5, abs=0.06 if split != "optimal" else 0.15)
    assert (genes(adata)["fdr"] <= 0.05).sum() <= 1


def test_protocols_choose_the_level_and_the_papers_split():
    adata = make(80, 5)
    bf.tl.biomarkers(adata, "days", event="died", protocol="paper")
    bf.tl.biomarkers(adata, "days", event="died", split="median", key_added="median")
    pd.testing.assert_frame_equal(genes(adata), genes(adata, "median"))
    assert adata.uns["biomarkers"]["params"]["split"] == "median"
    bf.tl.biomarkers(adata, "days", event="died", protocol=bf.metrics.Protocol(level=0.5), split="median")
    assert (genes(adata)["low"] > genes(adata, "median")["low"]).all()
    assert (genes(adata)["high"] < genes(adata, "median")["high"]).all()


def test_optimal_cut_points_warn_and_give_no_interval():
    adata = make(150)
    with pytest.warns(UserWarning, match=r"hazard ratios are too large by construction .* corrected for the search"):
        bf.tl.biomarkers(adata, "days", event="died", split="optimal", key_added="best")
    bf.tl.biomarkers(adata, "days", event="died", split="median", key_added="median")
    best, median = genes(adata, "best"), genes(adata, "median")
    assert best[["low", "high"]].isna().all(axis=None)
    assert best["n_high"].between(15, 135).all()
    uncorrected = 2 * stats.norm.sf(best["statistic"].abs())
    assert (best["p"] > 2 * uncorrected).all()
    assert np.abs(np.log(best["hazard_ratio"])).mean() > np.abs(np.log(median["hazard_ratio"])).mean()


def test_right_imputation_gains_genes_beyond_the_null_and_wrong_does_not(caplog):
    adata = make(200, 40)
    hide(adata, 0.85, right=True)
    with caplog.at_level(logging.INFO, "bulkformer_tl"):
        bf.tl.biomarkers(adata, "days", event="died", strata="cancer", layer="log_tpm", imputed="imputed", rng=1)
    result = adata.uns["biomarkers"]
    after, changes = result["imputed"], result["changes"].set_index("change")
    gained = (after["fdr"] <= 0.05) & ~(result["genes"]["fdr"] <= 0.05)
    assert (after["change"] == "gained").equals(gained)
    assert changes.loc["gained", "n"] == gained.sum() >= 2
    assert changes.loc["gained", "null_mean"] < 0.5 * gained.sum()
    assert changes.loc["gained", "p"] < 0.1
    assert f"imputation gains {gained.sum()} genes; permuted imputation" in caplog.text
    assert (after["n_imputed"] > 0).equals(pd.Series(np.arange(40) % 2 == 0, index=after.index))
    untouched = after["n_imputed"] == 0
    pd.testing.assert_frame_equal(
        after.loc[untouched, ["hazard_ratio", "p"]], result["genes"].loc[untouched, ["hazard_ratio", "p"]]
    )

    hide(adata, 0.85, right=False)
    bf.tl.biomarkers(adata, "days", event="died", strata="cancer", layer="log_tpm", imputed="imputed")
    changes = adata.uns["biomarkers"]["changes"].set_index("change")
    assert changes.loc["gained", "n"] <= changes.loc["gained", "null_high"]
    assert "no more than permuted imputation gains" in caplog.text


def test_null_repeats_with_its_seed_and_can_be_left_out():
    adata = make(60, 20)
    hide(adata, right=True)
    options = {"event": "died", "layer": "log_tpm", "imputed": "imputed", "n_permutations": 3}
    one, two = (bf.tl.biomarkers(adata, "days", **options, rng=5, copy=True) for _ in range(2))
    pd.testing.assert_frame_equal(genes(one, table="changes"), genes(two, table="changes"))
    none = bf.tl.biomarkers(adata, "days", **(options | {"n_permutations": 0}), copy=True)
    assert genes(none, table="changes")[["null_mean", "null_high", "p"]].isna().all(axis=None)


def test_entries_that_impute_hid_count_as_imputed():
    adata = make(60, 6)
    adata.layers["hidden"] = np.zeros(adata.shape, dtype=bool)
    adata.layers["hidden"][::2, 0] = True
    adata.layers["imputed"] = adata.X.copy()
    adata.layers["imputed"][::2, 0] += 0.5
    with pytest.raises(ValueError, match=r"fills in nothing that X lacks; call bf.pp.align_genes"):
        bf.tl.biomarkers(adata, "days", event="died", imputed="imputed")
    adata.uns["imputed"] = {"params": {"package": "bulkformer_tl", "mask": "hidden"}}
    bf.tl.biomarkers(adata, "days", event="died", imputed="imputed", n_permutations=1)
    assert genes(adata)["n"].tolist() == [30, 60, 60, 60, 60, 60]
    assert genes(adata, table="imputed")["n_imputed"].tolist() == [30, 0, 0, 0, 0, 0]


def test_repeated_samples_of_a_patient_are_averaged():
    adata = make(60, 5)
    twice = ad.concat([adata, adata], index_unique="-")
    twice.X[:60] += 0.1
    twice.X[60:] -= 0.1
    for each in (adata, twice):
        bf.tl.biomarkers(each, "days", event="died", groups="patient", covariates=["age"])
    pd.testing.assert_frame_equal(genes(adata), genes(twice), rtol=1e-4)
    bf.tl.biomarkers(twice, "days", event="died", key_added="naive")
    assert (genes(twice, "naive")["p"] < genes(twice)["p"]).sum() >= 3


def test_samples_and_genes_that_lack_something_are_left_out():
    adata = make(80, 5)
    adata.obs.loc["s0", "days"] = np.nan
    adata.obs["died"] = adata.obs["died"].astype(object)
    adata.obs.loc["s1", "died"] = None
    adata.obs.loc["s2", "cancer"] = np.nan
    adata.obs.loc["s3", "age"] = np.nan
    adata.X[:, 1] = 2
    adata.X[3:, 2] = np.nan
    adata.X[:, 3] = 0
    adata.X[:5, 3] = 1
    bf.tl.biomarkers(adata, "days", event="died", strata="cancer", covariates=["age"], split="median")
    table = genes(adata)
    assert table["n"].tolist() == [76, 76, 0, 76, 76]
    assert table["p"].isna().tolist() == [False, True, True, True, False]
    assert table["fdr"].isna().equals(table["p"].isna())
    assert adata.uns["biomarkers"]["params"]["n_left_out"] == 4


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_tables_survive_a_file(form, tmp_path):
    adata = make(60, 8)
    hide(adata, right=True)
    bf.tl.biomarkers(adata, "days", event="died", layer="log_tpm", imputed="imputed", n_permutations=2)
    path = tmp_path / f"a.{form}"
    (adata.write_h5ad if form == "h5ad" else adata.write_zarr)(path)
    again = (ad.read_h5ad if form == "h5ad" else ad.read_zarr)(path)
    for name in ("genes", "imputed", "changes"):
        pd.testing.assert_frame_equal(
            genes(again, table=name), genes(adata, table=name), check_dtype=False, check_index_type=False
        )
    bf.tl.biomarkers(again, "days", event="died", layer="log_tpm")


BAD = {
    "time_zero": (
        {"days": [0.0] + [5.0] * 39},
        ValueError,
        r"obs\['days'\] holds 1 values such as 0, the first in sample 's0'",
    ),
    "time_negative": ({"days": [5.0] * 39 + [-2.0]}, ValueError, r"such as -2, .* 's39'; times run from above 0"),
    "time_infinite": ({"days": [np.inf] * 2 + [5.0] * 38}, ValueError, "2 values such as inf"),
    "time_text": ({"days": ["long"] * 40}, TypeError, r"obs\['days'\] \(time\) holds the text 'long'.*pd.to_numeric"),
    "event_text": (
        {"died": ["dead", "alive"] * 20},
        TypeError,
        r"the text 'dead'; it must be booleans, such as column ==",
    ),
    "event_number": (
        {"died": [1, 2] * 20},
        ValueError,
        r"obs\['died'\] holds 20 values such as 2, .* 's1'; use True or 1",
    ),
    "no_event": ({"died": False}, ValueError, r"holds no event among 40 samples; all are censored"),
    "nothing_known": ({"days": np.nan}, ValueError, "no sample has both"),
    "no_column": ({}, KeyError, "adata.obs has no column 'weeks' .time.; its columns are"),
    "group_differs": (
        {"patient": ["p0"] * 40},
        ValueError,
        "group 'p0' .* differ in days, so that they cannot be averaged",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_columns_are_refused_and_nothing_written(case):
    columns, error, message = BAD[case]
    adata = make(40, 3)
    adata.obs = adata.obs.assign(**columns)
    before = adata.obs.copy()
    with pytest.raises(error, match=message):
        bf.tl.biomarkers(adata, "weeks" if case == "no_column" else "days", event="died", groups="patient")
    pd.testing.assert_frame_equal(adata.obs, before)
    assert not len(adata.uns)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split": "best"}, ValueError, r"split is 'best'; choose among \[None, 'median', 'optimal'\]"),
        ({"split": "optimal", "strata": "cancer"}, ValueError, 'without strata only; use split="median"'),
        ({"split": "optimal", "covariates": ["age"]}, ValueError, "without covariates only"),
        ({"protocol": "ours"}, TypeError, "protocol is 'ours'"),
        ({"alpha": 5}, ValueError, "alpha is 5; use a false discovery rate between 0 and 1"),
        ({"n_permutations": -1}, ValueError, "n_permutations is -1"),
        ({"strata": "stage"}, KeyError, r"no column 'stage' \(strata\)"),
        ({"groups": "person"}, KeyError, r"no column 'person' \(groups\)"),
        ({"covariates": "age"}, TypeError, r"covariates is 'age'; pass a list"),
        ({"layer": "nothing"}, KeyError, "no layer 'nothing'"),
        ({"layer": "counts"}, ValueError, r"layers\['counts'\] is not ln\(TPM\+1\)"),
        (
            {"layer": "log_tpm", "imputed": "other"},
            ValueError,
            r"differs from log_tpm in 100.0% of the measured values",
        ),
        ({"key_added": "mine"}, ValueError, r"uns\['mine'\] exists .* pass another key_added"),
        ({"key_added": "a/b"}, ValueError, "'a/b' cannot be written"),
        ({"strata": "half", "groups": None}, ValueError, r"no event of adata.obs\['died'\] is left among the"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    adata = make(40, 6)
    hide(adata, right=True)
    adata.layers["counts"] = np.full(adata.shape, 30, dtype=np.int32)
    adata.layers["other"] = adata.layers["imputed"] + 1
    adata.obs["half"] = np.where(adata.obs["died"], None, "here")
    adata.uns["mine"] = 1
    with pytest.raises(error, match=message):
        bf.tl.biomarkers(adata, "days", event="died", **options)
    assert list(adata.uns) == ["mine"]


def test_genes_that_share_a_name_are_refused():
    adata = make(40, 3)
    adata.var_names = ["a", "b", "a"]
    with pytest.raises(ValueError, match=r"var_names are not unique, 'a' occurs again; call bf\.pp\.merge_duplicates"):
        bf.tl.biomarkers(adata, "days", event="died")
