from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import bulkformer_tl as bf
from bulkformer_tl.encodings._profiles import constant_columns, constant_rows, find_duplicates
from bulkformer_tl.encodings._sex import XIST, Y_GENES, sex_of_clusters, sex_of_linear

# anndata 0.13 sets a pandas option that pandas 3.1 deprecates whenever a view is taken
pytestmark = pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option is deprecated")


@pytest.fixture(scope="module")
def toy():
    adata = bf.datasets.toy(24)
    adata.X = adata.X.toarray()
    return adata


def with_values(adata, values, obs=None):
    return ad.AnnData(np.asarray(values, dtype=np.float32), obs=adata.obs if obs is None else obs, var=adata.var.copy())


def appended(adata, sample):
    obs = pd.DataFrame(index=[*adata.obs_names, "added"])
    return with_values(adata, np.vstack([adata.X, sample]), obs)


def checks(report):
    return report.findings.set_index("check")


LOG = {"counts": lambda x: x, "log2": lambda x: np.log2(x / x.sum(axis=1, keepdims=True) * 1e6 + 1)}


@pytest.mark.parametrize("unit", LOG)
def test_copies_are_named_and_dropped(toy, unit):
    twice = appended(toy, toy.X[3])
    adata = with_values(twice, LOG[unit](twice.X), twice.obs)
    row = checks(bf.pp.diagnose(adata)).loc["duplicated samples"]
    assert f"1 samples are copies of others ({toy.obs_names[3]} = added)" in row["found"]
    assert row["severity"] == "warning"
    scope = {"adata": adata}
    exec(row["call"], scope)
    assert scope["adata"].obs_names.tolist() == toy.obs_names.tolist()
    assert not checks(bf.pp.diagnose(toy)).index.isin(["duplicated samples", "similar samples"]).any()


def test_a_library_at_another_depth_is_similar(toy):
    deeper = appended(toy, np.round(toy.X[3] * 1.7))
    row = checks(bf.pp.diagnose(deeper)).loc["similar samples"]
    assert f"1 pairs of samples correlate above 0.9995 ({toy.obs_names[3]} = added)" in row["found"]
    assert row["call"] == ""


def test_copies_are_found_beyond_the_drawn_samples(toy):
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.vstack([toy.X] * 10)).astype(np.float32)
    counts[-1] = counts[0]
    many = ad.AnnData(counts, obs=pd.DataFrame(index=[f"s{i}" for i in range(240)]), var=toy.var)
    assert "(s0 = s239)" in checks(bf.pp.diagnose(many, n_samples=5)).loc["duplicated samples", "found"]


def test_constant_samples_are_dropped(toy):
    values = toy.X.copy()
    values[2] = 7
    adata = with_values(toy, values)
    row = checks(bf.pp.diagnose(adata)).loc["constant samples"]
    assert row["found"] == f"1 samples hold one value in all genes ({toy.obs_names[2]})"
    assert row["severity"] == "error"
    scope = {"adata": adata}
    exec(row["call"], scope)
    assert scope["adata"].n_obs == toy.n_obs - 1


@pytest.mark.parametrize(("value", "severity", "text"), [(0, "note", "10% of the"), (3, "warning", "filled in")])
def test_constant_genes_are_counted(toy, value, severity, text):
    values = toy.X.copy()
    values[:, : toy.n_vars // 10] = value
    row = checks(bf.pp.diagnose(with_values(toy, values))).loc["constant genes"]
    assert row["severity"] == severity
    assert text in row["found"]


def test_profiles_by_hand():
    rows = np.array([[1, 1, 1], [0, 0, 0], [1, 2, np.nan], [5, np.nan, 5]])
    assert constant_rows(rows).tolist() == [True, False, False, True]
    assert constant_columns(np.array([[0.0, 2, 1, np.nan], [0, 2, 3, np.nan]])) == (1 / 3, 1 / 3)
    few = np.array([[1, 2, 3], [3, 2, 1], [1, 2, 3], [0, 0, 0], [0, 0, 0]], dtype=np.float32)
    assert find_duplicates(few) == ([(0, 2)], [])
    rng = np.random.default_rng(0)
    many = rng.normal(5, 2, (600, 6000)).astype(np.float32)
    many[599] = many[0] + rng.normal(0, 0.01, 6000)
    # further apart than one block of rows
    assert find_duplicates(many) == ([], [(0, 599)])


def intensities(counts):
    signal = 100 + 10 * counts / counts.sum(axis=1, keepdims=True) * 1e6
    return signal * np.exp(np.random.default_rng(0).normal(0, 0.1, signal.shape))


SCALES = {
    "counts": lambda x: x,
    "log2 CPM": lambda x: np.log2(x / x.sum(axis=1, keepdims=True) * 1e6 + 1),
    "z-scores": lambda x: (np.log1p(x) - np.log1p(x).mean(axis=0)) / (np.log1p(x).std(axis=0) + 1e-6),
    "log2 intensities": lambda x: np.log2(intensities(x)),
    "intensities": intensities,
    "floored intensities": lambda x: np.log2(np.maximum(intensities(x), 200)),
}


@pytest.mark.parametrize("with_xist", [True, False])
@pytest.mark.parametrize("scale", SCALES)
def test_swapped_labels_are_named(toy, scale, with_xist):
    obs = toy.obs.copy()
    spelled = obs["sex"].astype(str).map({"female": "F", "male": " Male"}).to_numpy()
    one = int(np.flatnonzero(spelled == "F")[0])
    spelled[one] = "male"
    obs["who"] = spelled
    adata = with_values(toy, SCALES[scale](toy.X), obs)
    adata = adata if with_xist else adata[:, adata.var_names != XIST].copy()
    report = bf.pp.diagnose(adata, sex="who")
    row = checks(report).loc["sex"]
    assert row["severity"] == "warning"
    assert f"contradict 1 of 24 labels ({adata.obs_names[one]}: male, looks female)" in row["found"]
    assert report.sex.tolist() == toy.obs["sex"].astype(str).tolist()


def test_right_labels_agree_and_others_are_left_out(toy):
    obs = toy.obs.copy()
    obs["sex"] = obs["sex"].astype(str)
    obs.iloc[0, obs.columns.get_loc("sex")] = "unknown"
    row = checks(bf.pp.diagnose(with_values(toy, toy.X, obs), sex="sex")).loc["sex"]
    assert (
        row["found"]
        == "XIST and Y genes agree with all 23 labels that they can tell; 0 undetermined, 1 without a label"
    )
    assert row["severity"] == "ok"


def test_some_y_genes_may_be_absent(toy):
    absent = list(Y_GENES)[1:]
    report = bf.pp.diagnose(toy[:, ~toy.var_names.isin(absent)].copy(), sex="sex")
    assert checks(report).loc["sex", "severity"] == "ok"
    none = bf.pp.diagnose(toy[:, ~toy.var_names.isin([*Y_GENES])].copy(), sex="sex")
    assert "cannot be checked" in checks(none).loc["sex", "found"]
    assert set(none.sex) == {"undetermined"}


def test_labels_that_are_no_sex_are_said_so(toy):
    row = checks(bf.pp.diagnose(toy, sex="tissue")).loc["sex"]
    assert "none of its values" in row["found"]
    assert row["severity"] == "warning"


def test_no_column_no_sex(toy):
    report = bf.pp.diagnose(toy)
    assert report.sex is None
    assert "sex" not in set(report.findings["check"])


def test_sex_by_hand():
    typical = np.array([60.0, 40.0])
    y = np.array([[50.0, 40.0], [1.0, 0.0], [5.0, 2.0], [np.nan, np.nan], [np.nan, 30.0]])
    assert sex_of_linear(y, typical, None).tolist() == ["male", "female", "undetermined", "undetermined", "male"]
    # XIST in a male, and none in a female without Y
    xist = np.array([90.0, 0.0, 0.0, 0.0, 0.0])
    assert sex_of_linear(y, typical, xist).tolist()[:2] == ["undetermined", "undetermined"]
    assert sex_of_linear(y[1:2], typical, np.array([80.0])).tolist() == ["female"]


def test_one_cluster_tells_no_sex():
    rng = np.random.default_rng(0)
    assert set(sex_of_clusters(rng.normal(0, 1, (50, 3)), None)) == {"undetermined"}
    two = rng.normal(0, 0.2, (50, 3)) + np.repeat([0, 4], 25)[:, None]
    assert sex_of_clusters(two, None).tolist() == ["female"] * 25 + ["male"] * 25
    assert set(sex_of_clusters(two[[0, 1, 2, 48, 49]], None)) == {"undetermined"}


def test_shallow_libraries_are_undetermined(toy):
    few = np.random.default_rng(0).binomial(toy.X.astype(int), 1e-3)
    assert bf.pp.diagnose(with_values(toy, few), sex="sex").sex.eq("undetermined").mean() > 0.5


def test_a_known_wrong_label_is_found(cohorts):
    adata = ad.read_h5ad(cohorts / "brain_mdd_gse102556_counts.h5ad")
    report = bf.pp.diagnose(adata, sex="sex")
    assert report.sex["GSM2740868"] == "male"
    assert adata.obs.loc["GSM2740868", "sex"] == "female"
    assert "contradict 1 of" in checks(report).loc["sex", "found"]


def test_only_the_named_column_is_read(toy):
    obs = pd.DataFrame({"sex": toy.obs["sex"].astype(str), "other": "female"}, index=toy.obs_names)
    named = bf.pp.diagnose(with_values(toy, toy.X, obs), sex="sex").findings
    alone = bf.pp.diagnose(with_values(toy, toy.X, obs[["sex"]]), sex="sex").findings
    pd.testing.assert_frame_equal(named, alone)
