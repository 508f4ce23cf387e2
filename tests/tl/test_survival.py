from __future__ import annotations

import json
import logging
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol, harrell_c, k_fold
from bulkformer_tl.metrics._cox import elastic_net_cox

#: Few resamples, no search for near-duplicates.
QUICK = Protocol(n_splits=3, n_bootstrap=100, duplicates=None)
PLAIN = Protocol(n_splits=3, n_bootstrap=100, duplicates=None, baselines=("strata",))


def make(n: int = 150, *, effect: float = 1.2, seed: int = 0) -> ad.AnnData:
    """Three cancers that differ in hazard, and a factor that raises hazard and eight genes in all of them."""
    rng = np.random.default_rng(seed)
    cancer, factor = np.arange(n) % 3, rng.normal(size=n)
    values = np.abs(rng.normal(3, 0.4, (n, 40)) + 0.6 * np.outer(factor, np.arange(40) < 8)).astype(np.float32)
    time = np.ceil(400 * rng.exponential(np.exp(-effect * factor - 0.9 * cancer))) + 1
    followed = np.ceil(rng.uniform(100, 900, n))
    obs = pd.DataFrame(
        {
            "days": np.minimum(time, followed),
            "died": time <= followed,
            "cancer": np.array(["A", "B", "C"])[cancer],
            "patient": [f"p{i // 2}" for i in range(n)],
            "age": np.round(rng.normal(60, 8, n) + 6 * factor),
            "sex": rng.choice(["f", "m"], n),
        },
        index=[f"s{i}" for i in range(n)],
    )
    adata = ad.AnnData(values, obs=obs, var=pd.DataFrame(index=[f"g{j}" for j in range(40)]))
    adata.obsm["X_emb"] = np.column_stack([values[:, :12], cancer]).astype(np.float32)
    return adata


def score(adata: ad.AnnData, name: str, metric: str = "harrell_c_within", key: str = "survival") -> float:
    table = adata.uns[key]["scores"]
    (found,) = table.loc[(table["representation"] == name) & (table["metric"] == metric), "mean"]
    return found


@pytest.fixture(scope="module")
def done() -> ad.AnnData:
    adata = make()
    bf.tl.survival(
        adata, "days", event="died", strata="cancer", use_rep="X_emb", covariates=["age", "sex"], protocol=QUICK
    )
    return adata


@pytest.mark.parametrize("head", ["cox", "mlp"])
def test_a_planted_effect_is_found(head):
    adata = make()
    bf.tl.survival(adata, "days", event="died", strata="cancer", use_rep="X_emb", head=head, protocol=PLAIN)
    name = "X_emb" if head == "cox" else "X_emb (mlp)"
    assert score(adata, name) > 0.68
    assert score(adata, "strata") == 0.5
    differences = adata.uns["survival"]["differences"].set_index("metric")
    assert (differences["better"] == name).all(), "by every score"
    assert adata.uns["survival"]["log_rank"]["p"] < 1e-3


def test_no_effect_is_not_found():
    """Strata differ, and the representation knows them: pooled scores rise, those within strata do not."""
    within, p, better = [], [], []
    for seed in range(4):
        adata = make(effect=0, seed=seed)
        bf.tl.survival(adata, "days", event="died", strata="cancer", use_rep="X_emb", protocol=PLAIN)
        within.append(score(adata, "X_emb"))
        p.append(adata.uns["survival"]["log_rank"]["p"])
        assert score(adata, "X_emb", "harrell_c") > 0.55
        better.append(adata.uns["survival"]["differences"].set_index("metric").loc["harrell_c_within", "better"])
    assert np.mean(within) == pytest.approx(0.5, abs=0.05)
    assert better.count("X_emb") <= 1
    assert max(p) > 0.1


def test_risk_and_groups_are_out_of_fold():
    """By hand: each fold's Cox model, and the median of its own training samples."""
    adata = make(90)
    protocol = Protocol(n_splits=3, n_bootstrap=100, duplicates=None, baselines=(), head_options={"n_components": 13})
    bf.tl.survival(adata, "days", event="died", use_rep="X_emb", protocol=protocol)
    values = adata.obsm["X_emb"].astype(float)
    target = np.column_stack([adata.obs["days"], adata.obs["died"], np.zeros(90)])
    for train, test, _ in k_fold(90, n_splits=3, labels=adata.obs["died"].to_numpy(), rng=0):
        model = elastic_net_cox()().fit(values[train], target[train])
        expected, median = model.predict(values[test]), np.median(model.predict(values[train]))
        found = adata.obs["survival_risk"].to_numpy()[test]
        # components are a rotation, which the small lasso sees; one slope per fold is left
        assert np.corrcoef(found, expected)[0, 1] > 0.99
        high = adata.obs["survival_group"].to_numpy()[test] == "high"
        far = np.abs(expected - median) > 0.3 * expected.std()
        np.testing.assert_array_equal(high[far], expected[far] > median)


def test_scores_are_those_of_what_is_written(done):
    folds = np.empty(150, dtype=int)
    for fold, split in enumerate(k_fold(150, n_splits=3, labels=done.obs["died"].to_numpy(), rng=0)):
        folds[split.test] = fold
    cells = pd.factorize(done.obs["cancer"])[0] + 3 * folds
    outcome = done.obs["days"], done.obs["died"]
    assert score(done, "X_emb") == pytest.approx(harrell_c(*outcome, done.obs["survival_risk"], strata=cells))
    assert score(done, "X_emb", "harrell_c") == pytest.approx(
        harrell_c(*outcome, done.obs["survival_risk"], strata=folds)
    )
    each = done.uns["survival"]["strata"]
    assert each["stratum"].tolist() == ["A", "B", "C"]
    assert each["c"].mean() == pytest.approx(score(done, "X_emb", "harrell_c_macro"))
    assert (done.uns["survival"]["scores"].groupby("metric", sort=False).size() == 6).all()


def test_tables_of_the_result(done):
    entry = done.uns["survival"]
    names = ["X_emb", "strata", "raw", "pca", "covariates", "X_emb + covariates"]
    assert entry["scores"]["representation"].unique().tolist() == names
    assert entry["scores"]["metric"].iloc[0] == "harrell_c_within"
    assert set(entry["differences"]["baseline"]) == {"strata", "raw", "pca", "covariates"}
    assert done.obs["survival_group"].cat.categories.tolist() == ["low", "high"]
    share = (done.obs["survival_group"] == "high").groupby(done.obs["cancer"], observed=True).mean()
    assert share.between(0.3, 0.7).all(), "the median is that of the stratum"
    start = entry["curves"].groupby("group")["at_risk"].first()
    assert start.sum() == 150
    assert entry["params"]["axis"] == "stratum_pairs"
    assert score(done, "X_emb", "integrated_brier") < score(done, "strata", "integrated_brier") < 0.25


def test_hazard_ratios(done):
    lifelines = pytest.importorskip("lifelines", reason="needs pandas 2")
    table = done.uns["survival"]["hazard_ratios"].set_index(["term", "model"])
    frame = done.obs.assign(high=(done.obs["survival_group"] == "high").astype(float))
    columns = ["days", "died", "cancer", "high"]
    fitter = lifelines.CoxPHFitter().fit(frame[columns], "days", "died", strata=["cancer"])
    row = table.loc[("high risk group", "alone")]
    assert row["hazard_ratio"] == pytest.approx(fitter.hazard_ratios_["high"])
    np.testing.assert_allclose(row[["low", "high"]].astype(float), np.exp(fitter.confidence_intervals_.iloc[0]))
    assert row["hazard_ratio"] > 2
    assert row["events"] == done.obs["died"].sum()
    usual = done.obs["sex"].mode()[0]
    terms = {"high risk group", "risk (per SD)", "age", f"sex: {'m' if usual == 'f' else 'f'} (vs {usual})"}
    assert set(table.index) == {(term, model) for term in terms for model in ("alone", "adjusted")}
    assert table.loc[("risk (per SD)", "adjusted"), "p"] < 0.01
    assert table["p_proportional"].between(0, 1).all()


def test_covariates_that_strata_explain_have_no_hazard_ratio():
    pytest.importorskip("lifelines", reason="needs pandas 2")
    adata = make(90)
    adata.obs["site"] = adata.obs["cancer"] + "1"
    adata.obs["constant"] = 3.0
    bf.tl.survival(
        adata,
        "days",
        event="died",
        strata="cancer",
        groups="patient",
        use_rep="X_emb",
        covariates=["site", "constant"],
        protocol=PLAIN,
    )
    table = adata.uns["survival"]["hazard_ratios"]
    assert table["term"].tolist() == ["high risk group", "risk (per SD)"]
    assert table["hazard_ratio"].notna().all(), "with errors robust to patients of two samples"


def test_without_lifelines_only_hazard_ratios_are_left_out(monkeypatch, caplog):
    import matplotlib.pyplot as plt

    monkeypatch.setattr("bulkformer_tl._optional.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "lifelines", None)
    adata = make(90)
    with caplog.at_level(logging.WARNING):
        bf.tl.survival(adata, "days", event="died", use_rep="X_emb", head="mlp", protocol=QUICK)
    assert 'needs lifelines: pip install "bulkformer-tl[survival]"' in caplog.text
    assert "hazard_ratios" not in adata.uns["survival"]
    bf.pl.kaplan_meier(adata)
    with pytest.raises(ImportError, match=r'pip install "bulkformer-tl\[survival\]"'):
        bf.pl.forest(adata)
    monkeypatch.undo()
    if bf._optional.find_spec("lifelines"):
        with pytest.raises(KeyError, match=r"lifelines was absent; call bf\.tl\.survival again"):
            bf.pl.forest(adata)
    plt.close("all")


@pytest.mark.parametrize("head", ["cox", "mlp"])
@pytest.mark.parametrize("use_rep", ["X_emb", None])
def test_heads_are_kept_and_predict_the_same_bits(head, use_rep, tmp_path):
    adata = make(96)
    blank = np.arange(96) % 8 == 0
    adata.obs.loc[blank, "days"] = np.nan
    protocol = Protocol(n_splits=3, n_bootstrap=100, duplicates=None, baselines=())
    bf.tl.survival(adata, "days", event="died", strata="cancer", use_rep=use_rep, head=head, protocol=protocol)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    bf.tl.fitted_head(again, "survival").save(tmp_path / "head")
    loaded = bf.tl.Head.load(tmp_path / "head")
    table = loaded.predict(adata)
    assert table.columns.tolist() == ["risk", "group"]
    np.testing.assert_array_equal(table["risk"][blank], adata.obs["survival_risk"][blank])
    assert table["group"][blank].tolist() == adata.obs["survival_group"][blank].tolist()
    np.testing.assert_array_equal(loaded.predict(adata[5:6].copy())["risk"], table["risk"][5:6])
    assert adata.uns["survival"]["params"]["n_unlabelled"] == blank.sum()
    assert np.corrcoef(table["risk"], adata.obs["survival_risk"])[0, 1] > 0.7


def test_heads_that_do_not_fit_are_refused(done, tmp_path):
    head = bf.tl.fitted_head(done, "survival")
    other = done.copy()
    other.obs["cancer"] = "D"
    with pytest.raises(ValueError, match=r"obs\['cancer'\] holds \['D'\]; the head knows \['A', 'B', 'C'\]"):
        head.predict(other)
    del other.obs["cancer"]
    with pytest.raises(KeyError, match=r"no column 'cancer' \(strata\)"):
        head.predict(other)
    with pytest.raises(ValueError, match=r"'offset' is float64 \(2,\); expected the shape \(3,\)"):
        bf.tl.Head(head.facts, {**head.arrays, "offset": head.arrays["offset"][:2]})
    with pytest.raises(ValueError, match="no 'linear' head has the task 'survival'"):
        bf.tl.Head({**head.facts, "levels": ["A", "A", "B"]}, head.arrays)
    head.save(tmp_path / "head")
    facts = json.loads((tmp_path / "head" / "head.json").read_text())["facts"]
    assert (facts["task"], facts["link"], facts["strata"]) == ("survival", "identity", "cancer")


def test_inner_folds_choose_the_penalty():
    adata = make(90)
    options = {"n_splits": 3, "n_bootstrap": 100, "duplicates": None, "baselines": ("constant",)}
    bf.tl.survival(adata, "days", event="died", use_rep="X_emb", protocol=Protocol(**options, n_inner=3))
    nested = score(adata, "X_emb", "harrell_c")
    bad = Protocol(**options, head_options={"penalty": 1e6, "l1_ratio": 0.9})
    bf.tl.survival(adata, "days", event="died", use_rep="X_emb", protocol=bad)
    assert score(adata, "X_emb", "harrell_c") == 0.5, "everything is shrunken to nothing"
    assert nested > 0.6
    with pytest.raises(ValueError, match="the head 'cox' has no option 'depth'; its options are"):
        bf.tl.survival(
            adata, "days", event="died", use_rep="X_emb", protocol=Protocol(**options, head_options={"depth": 3})
        )


def test_reruns_add_rows_on_the_same_samples():
    adata = make(90)
    run = {"event": "died", "protocol": PLAIN, "strata": "cancer"}
    bf.tl.survival(adata, "days", use_rep="X_emb", **run)
    adata.obsm["X_other"] = adata.obsm["X_emb"][:, :4]
    bf.tl.survival(adata, "days", use_rep="X_other", **run)
    assert adata.uns["survival"]["scores"]["representation"].unique().tolist() == ["X_emb", "X_other", "strata"]
    adata.obs["died"] = ~adata.obs["died"]
    bf.tl.survival(adata, "days", use_rep="X_other", **run)
    assert adata.uns["survival"]["scores"]["representation"].unique().tolist() == ["X_other", "strata"]


def test_a_reference_is_trained_on():
    reference, adata = make(120), make(60, seed=1)
    bf.tl.survival(adata, "days", event="died", strata="cancer", use_rep="X_emb", protocol=PLAIN, reference=reference)
    assert score(adata, "X_emb") > 0.6
    assert adata.uns["survival"]["params"]["trained_on"] == "reference"
    blank = adata.copy()
    del blank.uns["survival"], blank.obs["survival_risk"], blank.obs["survival_group"], blank.obs["days"]
    bf.tl.survival(blank, "days", event="died", strata="cancer", use_rep="X_emb", protocol=PLAIN, reference=reference)
    np.testing.assert_array_equal(blank.obs["survival_risk"], adata.obs["survival_risk"])
    assert "scores" not in blank.uns["survival"]
    with pytest.raises(KeyError, match="has no curves, since no outcome was known to score"):
        bf.pl.kaplan_meier(blank)
    adata.obs["cancer"] = "D"
    with pytest.raises(ValueError, match=r"\(strata\) holds \['D'\], of which no sample .* is trained on"):
        bf.tl.survival(
            adata, "days", event="died", strata="cancer", use_rep="X_emb", reference=reference, key_added="again"
        )


def test_all_events_and_copies():
    adata = make(60)
    adata.obs["died"] = 1
    found = bf.tl.survival(adata, "days", event="died", use_rep="X_emb", protocol=QUICK, key_added="mine", copy=True)
    assert not adata.uns
    assert {"mine_risk", "mine_group"} <= set(found.obs)
    assert found.uns["mine"]["params"]["baselines"] == ["constant", "raw", "pca"]


def test_the_paper_classifies_alive_or_dead_and_warns(monkeypatch, caplog):
    # two dozen forests of 500 trees would take a minute
    monkeypatch.setitem(bf.metrics._paper.TASKS["survival"]["head_options"], "n_estimators", 5)
    adata = make(60)
    protocol = bf.metrics.paper_protocol("survival")
    with caplog.at_level(logging.WARNING):
        bf.tl.survival(adata, "days", event="died", use_rep="X_emb", protocol="paper")
    assert "alive or dead at the end of follow-up counts who was followed briefly as alive" in caplog.text
    entry = adata.uns["survival"]
    assert {"auroc", "auprc"} <= set(entry["scores"]["metric"])
    assert (entry["scores"]["axis"] == "pooled").all()
    assert entry["params"]["protocol"]["caveat"] == protocol.caveat
    assert adata.obs["survival_risk"].between(0, 1).all()
    assert (adata.obs["survival_group"] == "high").mean() == pytest.approx(0.5, abs=0.1)
    assert {"curves", "log_rank"} <= set(entry)


def spoil(column, value, rows=slice(0, 1)):
    def change(adata):
        adata.obs[column] = adata.obs[column].astype(object)
        adata.obs.iloc[rows, adata.obs.columns.get_loc(column)] = value

    return change


def drop(column):
    return lambda adata: adata.obs.pop(column)


FAULTS = {
    "time 0": (
        spoil("days", 0.0),
        ValueError,
        r"obs\['days'\] holds 1 values such as 0, the first in sample 's0'; times",
    ),
    "time below 0": (spoil("days", -3), ValueError, r"obs\['days'\] holds 1 values such as -3"),
    "time infinite": (spoil("days", np.inf), ValueError, r"obs\['days'\] holds 1 values such as inf"),
    "time text": (spoil("days", "x"), TypeError, r"obs\['days'\] \(time\) holds the text 'x'"),
    "no time": (spoil("days", np.nan, slice(None)), ValueError, r"no sample has both adata\.obs\['days'\] and"),
    "event text": (
        spoil("died", "Dead"),
        TypeError,
        r"obs\['died'\] \(event\) holds the text 'Dead'; it must be booleans",
    ),
    "event 2": (spoil("died", 2), ValueError, r"obs\['died'\] holds 1 values such as 2, .* use True or 1 for an event"),
    "no event": (spoil("died", False, slice(None)), ValueError, r"obs\['died'\] \(event\) holds no event among 60"),
    "absent event": (drop("died"), KeyError, r"no column 'died' \(event\); its columns are"),
    "absent time": (drop("days"), KeyError, r"no column 'days' \(time\); its columns are"),
    "absent strata": (drop("cancer"), KeyError, r"no column 'cancer' \(strata\); its columns are"),
    "missing stratum": (
        spoil("cancer", None),
        ValueError,
        r"obs\['cancer'\] \(strata\) is missing in 1 samples, the first 's0'",
    ),
    "stratum of one": (
        spoil("cancer", "D"),
        ValueError,
        r"\(strata\) has strata with one sample or without an event: \{'D': '1 samples.*merge the strata",
    ),
    "few groups": (
        spoil("patient", "p0", slice(0, 58)),
        ValueError,
        r"obs\['patient'\] \(groups\) holds 2 groups .* too few for 3 folds; pass protocol=.*n_splits=2",
    ),
    "absent groups": (drop("patient"), KeyError, r"no column 'patient' \(groups\)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_outcomes_are_refused_and_nothing_is_written(fault):
    change, kind, message = FAULTS[fault]
    adata = make(60)
    change(adata)
    before = adata.copy()
    with pytest.raises(kind, match=message):
        bf.tl.survival(adata, "days", event="died", strata="cancer", groups="patient", use_rep="X_emb", protocol=QUICK)
    assert adata.obs.equals(before.obs)
    assert not adata.uns


def test_strata_without_an_event_are_named():
    adata = make(60)
    adata.obs.loc[adata.obs["cancer"] == "B", "died"] = False
    with pytest.raises(ValueError, match=r"\{'B': '20 samples, 0 events'\}; leave these samples out, or merge"):
        bf.tl.survival(adata, "days", event="died", strata="cancer", use_rep="X_emb", protocol=QUICK)


def test_events_too_few_for_the_folds_are_refused():
    adata = make(60)
    adata.obs["died"] = np.arange(60) < 4
    run = {"event": "died", "use_rep": "X_emb"}
    with pytest.raises(ValueError, match=r"obs\['died'\] \(event\) holds events in 4 samples, too few for 5 folds"):
        bf.tl.survival(adata, "days", **run)
    with pytest.raises(ValueError, match=r"holds events in 2 groups of 'patient', too few for 3 folds"):
        bf.tl.survival(adata, "days", **run, groups="patient", protocol=QUICK)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"head": "forest"}, ValueError, r"no head 'forest' for survival; choose among \['cox', 'mlp'\]"),
        ({"head": "random_forest"}, ValueError, "no head 'random_forest' for survival"),
        ({"use_rep": "X_none"}, KeyError, "obsm has no 'X_none'"),
        ({"protocol": "papers"}, TypeError, "protocol is 'papers'"),
        (
            {"protocol": Protocol(baselines=("majority",))},
            ValueError,
            r"no baseline 'majority' for survival; choose among \['constant', 'raw', 'pca', 'covariates', ",
        ),
        ({"protocol": Protocol(baselines=("covariates",))}, ValueError, "'covariates' needs covariates="),
        ({"key_added": "a/b"}, ValueError, "cannot be written to a file"),
    ],
)
def test_bad_options_are_refused(options, kind, message):
    adata = make(60)
    with pytest.raises(kind, match=message):
        bf.tl.survival(adata, "days", **{"event": "died", "use_rep": "X_emb", **options})
    assert not adata.uns


def test_slots_of_others_are_left_alone():
    adata = make(60)
    adata.obs["survival_risk"] = 1.0
    with pytest.raises(ValueError, match=r"obs\['survival_risk'\] exists and was not written by this call"):
        bf.tl.survival(adata, "days", event="died", use_rep="X_emb")
