from __future__ import annotations

import logging
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol, auroc, compare, k_fold
from bulkformer_tl.metrics._paper import TASKS
from bulkformer_tl.metrics._temperature import fit_temperature, sharpen
from bulkformer_tl.tl import _untrained
from bulkformer_tl.tl._calibrate import conformal_width, far_from_training

#: Few resamples, no search for near-duplicates, the trivial baseline and one that reads expression.
QUICK = Protocol(n_splits=3, n_bootstrap=100, duplicates=None, baselines=("majority", "pca"))
#: A forest that tests can wait for.
SMALL = {"n_components": 5, "n_estimators": 10}
FAST = {"head_options": SMALL, "baselines": ("majority",), "n_bootstrap": 100}


def make(n: int = 60, *, effect: float = 1.5, seed: int = 0) -> ad.AnnData:
    """Three classes, two of which raise five genes each; expression in ``X`` and an embedding that sees all of it."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 3
    values = np.abs(rng.normal(2, 0.7, (n, 30))).astype(np.float32)
    values[:, :5] += effect * (codes == 1)[:, None]
    values[:, 5:10] += effect * (codes == 2)[:, None]
    obs = pd.DataFrame(
        {"kind": np.array(["a", "b", "c"])[codes], "donor": [f"d{i // 3}" for i in range(n)]},
        index=[f"s{i}" for i in range(n)],
    )
    adata = ad.AnnData(values, obs=obs)
    adata.obsm["X_emb"] = values[:, :12].copy()
    adata.obsm["X_bad"] = rng.normal(size=(n, 4)).astype(np.float32)
    return adata


def score(adata: ad.AnnData, name: str, metric: str = "auroc", key: str = "classify_kind") -> float:
    table = adata.uns[key]["scores"]
    (found,) = table.loc[(table["representation"] == name) & (table["metric"] == metric), "mean"]
    return found


def test_out_of_fold_predictions_equal_scikit_learn_by_hand():
    adata = make()
    bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=QUICK)
    codes = pd.factorize(adata.obs["kind"], sort=True)[0]
    found = adata.obsm["kind_proba"]
    for train, test, _ in k_fold(60, n_splits=3, labels=codes, rng=0):
        scale = StandardScaler().fit(adata.obsm["X_emb"][train])
        scale.scale_[:] = np.sqrt(scale.var_.mean())  # one number for all columns
        head = LogisticRegression(C=0.1, max_iter=2000).fit(scale.transform(adata.obsm["X_emb"][train]), codes[train])
        shares = head.predict_proba(scale.transform(adata.obsm["X_emb"][test]))
        # a temperature keeps the order of classes and scales the logarithms by one number per fold
        gap = np.log(shares[:, :1] / shares[:, 1:]) / np.log(found[test][:, :1] / found[test][:, 1:])
        np.testing.assert_allclose(gap, gap[0, 0], rtol=1e-3)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert adata.obs["kind_pred"].astype(str).tolist() == [str(np.array(["a", "b", "c"])[k]) for k in found.argmax(1)]
    assert adata.uns["classify_kind"]["classes"].tolist() == ["a", "b", "c"]


def test_table_equals_metrics_on_the_written_probabilities():
    adata = make()
    bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=QUICK)
    codes = pd.factorize(adata.obs["kind"], sort=True)[0]
    folds = np.empty(60, dtype=int)
    for fold, split in enumerate(k_fold(60, n_splits=3, labels=codes, rng=0)):
        folds[split.test] = fold
    expected, _ = compare(codes, {"X_emb": adata.obsm["kind_proba"]}, folds=folds, protocol=QUICK)
    table = adata.uns["classify_kind"]["scores"]
    own = table[table["representation"] == "X_emb"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, expected)
    each = [auroc(codes[folds == k], adata.obsm["kind_proba"][folds == k]) for k in range(3)]
    assert score(adata, "X_emb") == pytest.approx(np.mean(each))
    assert set(table["representation"]) == {"X_emb", "majority", "pca"}
    assert adata.uns["classify_kind"]["params"]["axis"] == "fold"


def test_permuted_labels_score_chance():
    adata = make(90)
    found = []
    for seed in range(6):
        adata.obs["kind"] = np.random.default_rng(seed).permutation(adata.obs["kind"].to_numpy())
        copy = bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=QUICK, copy=True)
        found.append([score(copy, "X_emb"), score(copy, "pca")])
    assert np.abs(np.mean(found, axis=0) - 0.5).max() < 0.06


def test_grouped_samples_do_not_leak():
    """Donors have a signature and a random label: only a split through donors can predict it."""
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(30), 4)
    adata = make(120, effect=0)
    adata.obsm["X_emb"] = (rng.normal(size=(30, 80))[donor] + rng.normal(0, 0.1, (120, 80))).astype(np.float32)
    adata.obs["donor"] = [f"d{k}" for k in donor]
    adata.obs["kind"] = np.where(rng.permutation(30)[donor] < 15, "x", "y")
    protocol = Protocol(n_splits=5, n_bootstrap=100, duplicates=None, baselines=("majority",))
    bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=protocol)
    bf.tl.classify(adata, "kind", use_rep="X_emb", groups="donor", protocol=protocol, key_added="grouped")
    assert score(adata, "X_emb") > 0.9
    assert abs(score(adata, "X_emb", key="grouped") - 0.5) < 0.25
    assert adata.uns["grouped"]["params"]["groups"] == "donor"


def test_near_duplicates_stay_in_one_fold():
    adata = make(30, effect=0)
    twice = ad.concat([adata, adata], index_unique="-")
    bf.tl.classify(twice, "kind", use_rep="X_emb", protocol=Protocol(n_splits=3, n_bootstrap=100, baselines=("pca",)))
    params = twice.uns["classify_kind"]["params"]
    assert params["n_joined"] == 30
    np.testing.assert_allclose(twice.obsm["kind_proba"][:30], twice.obsm["kind_proba"][30:], atol=1e-6)


@pytest.mark.parametrize("blank", [np.nan, ""])
def test_unlabelled_samples_are_predicted_and_not_scored(blank):
    adata = make()
    truth = adata.obs["kind"].copy()
    adata.obs["kind"] = pd.Categorical(truth.where(np.arange(60) % 10 != 0).replace({np.nan: blank}))
    bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=QUICK)
    unknown = ~adata.obs["kind"].isin(["a", "b", "c"]).to_numpy()
    params = adata.uns["classify_kind"]["params"]
    assert (params["n"], params["n_unlabelled"], unknown.sum()) == (54, 6, 6)
    assert (adata.uns["classify_kind"]["scores"]["n"] == 54).all()
    assert (adata.obs["kind_pred"][unknown].astype(str) == truth[unknown]).mean() > 0.8
    assert (~adata.obs["kind"].isin(["a", "b", "c"])).sum() == 6, "the label itself is left alone"


def test_abstains_below_a_probability_and_says_for_how_many():
    adata = make(effect=0.5)
    bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=QUICK, abstain=0.6)
    sure = adata.obsm["kind_proba"].max(axis=1) >= 0.6
    assert 0 < sure.sum() < 60
    np.testing.assert_array_equal(adata.obs["kind_pred"].notna(), sure)
    assert score(adata, "X_emb", "coverage") == pytest.approx(sure.mean())
    right = adata.obs["kind_pred"].astype(str) == adata.obs["kind"]
    assert score(adata, "X_emb", "accuracy_answered") == pytest.approx(right[sure].mean())
    assert score(adata, "majority", "coverage") == 0
    assert np.isnan(score(adata, "majority", "accuracy_answered"))


def test_flags_what_is_far_from_the_training_samples():
    adata = make()
    adata.obsm["X_emb"][[3, 40]] += 30
    bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=QUICK)
    flags = adata.obs["kind_out_of_distribution"]
    assert flags.dtype == bool
    assert flags[["s3", "s40"]].all()
    assert flags.sum() <= 6


def test_reference_trains_there_and_predicts_here():
    here, there = make(30, seed=1), make(60)
    expected = make(30, seed=1).obs["kind"]
    del here.obs["kind"]
    bf.tl.classify(here, "kind", use_rep="X_emb", reference=there, protocol=QUICK)
    assert (here.obs["kind_pred"].astype(str) == expected).mean() > 0.8
    assert "scores" not in here.uns["classify_kind"]
    assert here.uns["classify_kind"]["params"]["trained_on"] == "reference"
    assert "kind" not in here.obs
    assert list(there.obs) == ["kind", "donor"]
    here.obs["kind"] = expected
    bf.tl.classify(here, "kind", use_rep="X_emb", reference=there, protocol=QUICK)
    assert score(here, "X_emb") > 0.9
    assert (here.uns["classify_kind"]["scores"]["axis"] == "pooled").all()


def test_reference_is_stripped_of_what_is_also_here():
    adata, other = make(60), make(30, seed=1)
    other.obs_names = [f"o{i}" for i in range(30)]
    protocol = Protocol(n_bootstrap=100, baselines=("pca",))
    both = ad.concat([adata[:20], other])
    bf.tl.classify(adata, "kind", use_rep="X_emb", reference=both, protocol=protocol)
    assert adata.uns["classify_kind"]["params"]["n_trained"] == 30
    with pytest.raises(ValueError, match="0 samples of the reference with 0 distinct labels share no group"):
        bf.tl.classify(adata, "kind", use_rep="X_emb", reference=adata.copy(), protocol=protocol)


def test_reruns_add_their_rows():
    adata = make()
    bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=QUICK)
    first = adata.uns["classify_kind"]["scores"]
    bf.tl.classify(adata, "kind", use_rep="X_bad", protocol=QUICK)
    bf.tl.classify(adata, "kind", use_rep="X_bad", head="knn", protocol=QUICK)
    table = adata.uns["classify_kind"]["scores"]
    assert set(table["representation"]) == {"X_emb", "X_bad", "X_bad (knn)", "majority", "pca"}
    own = table["representation"] == "X_emb"
    pd.testing.assert_frame_equal(table[own].reset_index(drop=True), first[first["representation"] == "X_emb"])
    assert adata.uns["classify_kind"]["params"]["representation"] == "X_bad (knn)"
    assert not table.duplicated(["representation", "metric"]).any()


def test_reruns_on_other_folds_begin_anew(caplog):
    adata = make()
    bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=QUICK)
    with caplog.at_level(logging.INFO, "bulkformer_tl"):
        other = Protocol(n_splits=4, n_bootstrap=100, duplicates=None, baselines=("majority",))
        bf.tl.classify(adata, "kind", use_rep="X_bad", protocol=other)
    assert set(adata.uns["classify_kind"]["scores"]["representation"]) == {"X_bad", "majority"}
    assert "its rows are dropped" in caplog.text


def test_says_where_a_baseline_wins(caplog):
    adata = make()
    with caplog.at_level(logging.INFO, "bulkformer_tl"):
        bf.tl.classify(adata, "kind", use_rep="X_bad", protocol=QUICK)
    assert "classify_kind: the baseline pca WINS over X_bad" in caplog.text
    table = adata.uns["classify_kind"]["differences"].set_index(["baseline", "metric"])
    assert table.loc[("pca", "auroc"), "better"] == "pca"
    assert table.loc[("pca", "brier"), "better"] == "pca", "of this score less is better"
    assert table.loc[("majority", "auroc"), "better"] == "neither"


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_results_survive_a_file(form, tmp_path):
    adata = make()
    adata.obs["kind"] = adata.obs["kind"].replace({"b": "b/c"})
    bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=QUICK, abstain=0.6)
    path = tmp_path / f"a.{form}"
    (adata.write_h5ad if form == "h5ad" else adata.write_zarr)(path)
    again = (ad.read_h5ad if form == "h5ad" else ad.read_zarr)(path)
    np.testing.assert_array_equal(again.obsm["kind_proba"], adata.obsm["kind_proba"])
    assert again.uns["classify_kind"]["classes"].tolist() == ["a", "b/c", "c"]
    before = adata.uns["classify_kind"]["scores"].copy()
    after = again.uns["classify_kind"]["scores"]
    pd.testing.assert_frame_equal(after.reset_index(drop=True), before, check_dtype=False, check_index_type=False)
    bf.tl.classify(again, "kind", use_rep="X_bad", protocol=QUICK, abstain=0.6)
    assert {"X_emb", "X_bad"} <= set(again.uns["classify_kind"]["scores"]["representation"])


def test_numbers_and_booleans_can_be_classes(tmp_path):
    adata = make()
    codes = pd.factorize(adata.obs["kind"])[0]
    labels = {
        "code": (codes.astype(float) + 1, [1.0, 2.0, 3.0]),
        "is_a": (codes == 0, [False, True]),
        "category": (pd.Categorical(codes), [0, 1, 2]),
        "nullable": (pd.array(np.where(codes == 0, None, codes), dtype="Int64"), [1, 2]),
        "text": (pd.array(adata.obs["kind"], dtype="string"), ["a", "b", "c"]),
    }
    for label, (values, _) in labels.items():
        adata.obs[label] = values
        bf.tl.classify(adata, label, use_rep="X_emb", protocol=QUICK)
    # anndata 0.12 does not write columns of this type
    adata.obs["text"] = adata.obs["text"].astype(object)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    for label, (_, classes) in labels.items():
        assert again.uns[f"classify_{label}"]["classes"].tolist() == classes
        assert again.obs[f"{label}_pred"].cat.categories.tolist() == classes
        assert bf.tl.fitted_head(again, f"classify_{label}").facts["classes"] == classes
    adata.obs["day"] = pd.to_datetime(["2020-01-01", "2020-01-02"] * 30)
    with pytest.raises(TypeError, match="classes are text, numbers or booleans"):
        bf.tl.classify(adata, "day", use_rep="X_emb", protocol=QUICK)


def test_expression_itself_and_covariates():
    adata = make()
    adata.obs["leak"] = adata.obs["kind"].where(np.arange(60) > 5)
    adata.obs["number"] = np.r_[np.nan, np.arange(59.0)]
    protocol = Protocol(n_splits=3, n_bootstrap=100)
    bf.tl.classify(adata, "kind", use_rep=None, covariates=["leak", "number"], protocol=protocol)
    names = {"expression", "majority", "raw", "pca", "covariates"}
    assert set(adata.uns["classify_kind"]["scores"]["representation"]) == names
    assert score(adata, "expression") == pytest.approx(score(adata, "raw"), abs=1e-6)
    assert score(adata, "covariates") > 0.9


def test_columns_of_a_representation_keep_their_proportions():
    adata = make(effect=0)
    codes, rng = pd.factorize(adata.obs["kind"])[0], np.random.default_rng(0)
    signal = 20 * np.eye(3)[codes] + rng.normal(0, 10, (60, 3))
    adata.obsm["X_emb"] = np.hstack([signal, rng.normal(0, 0.1, (60, 300))]).astype(np.float32)
    adata.obsm["X_whitened"] = StandardScaler().fit_transform(adata.obsm["X_emb"])
    for use_rep in ("X_emb", "X_whitened"):
        bf.tl.classify(adata, "kind", use_rep=use_rep, protocol=QUICK)
    assert score(adata, "X_emb") > score(adata, "X_whitened") + 0.1


def test_inner_folds_choose_the_penalty():
    adata = make()
    nested = Protocol(n_splits=2, n_bootstrap=100, n_inner=2, duplicates=None, baselines=("majority",))
    bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=nested)
    assert score(adata, "X_emb") > 0.9
    assert adata.uns["classify_kind"]["params"]["protocol"]["n_inner"] == 2


def test_without_expression_only_the_majority_remains():
    adata = make()
    adata.X = None
    bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=Protocol(n_splits=3, n_bootstrap=100))
    assert set(adata.uns["classify_kind"]["scores"]["representation"]) == {"X_emb", "majority"}


def test_untrained_encoder_is_a_baseline(cohort, latest, monkeypatch):
    adata = ad.concat([cohort] * 4, index_unique="-")
    adata.obs["kind"] = np.resize(["a", "b"], adata.n_obs)
    bf.tl.embed(adata, model=latest)
    protocol = Protocol(n_splits=2, n_bootstrap=100, duplicates=None, baselines=("untrained",))
    with pytest.raises(ValueError, match=r"'untrained' needs use_rep= made by bf.tl.embed with a model"):
        bf.tl.classify(adata, "kind", protocol=protocol)
    monkeypatch.setattr(_untrained, "load_model", lambda _: latest)
    monkeypatch.setattr("bulkformer_tl.registry.available", lambda: [latest.name])
    monkeypatch.setattr("bulkformer_tl.tl._judge._corpus", lambda _: "nothing")
    bf.tl.classify(adata, "kind", protocol=protocol)
    assert set(adata.uns["classify_kind"]["differences"]["baseline"]) == {"untrained"}


def test_untrained_weights_are_seeded_and_of_the_same_shape(latest):
    import torch

    before = torch.random.get_rng_state()
    one, again, other = (_untrained.untrained(latest, rng=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert one.checksum == again.checksum
    assert len({one.checksum, other.checksum, latest.checksum}) == 3
    shapes = {name: tensor.shape for name, tensor in latest.network.state_dict().items()}
    assert {name: tensor.shape for name, tensor in one.network.state_dict().items()} == shapes


def change(adata: ad.AnnData, **columns) -> ad.AnnData:
    for name, values in columns.items():
        adata.obs[name] = values
    return adata


@pytest.mark.parametrize(
    ("edit", "options", "error", "message"),
    [
        (lambda a: change(a, kind="a"), {}, ValueError, r"obs\['kind'\] holds only 'a'; at least two classes"),
        (lambda a: change(a, kind=None), {}, ValueError, r"obs\['kind'\] holds no value"),
        (
            lambda a: a,
            {"label": "kin"},
            KeyError,
            r"no column 'kin' \(the label\); its columns are \['kind', 'donor'\]",
        ),
        (
            lambda a: change(a, kind=["b"] + ["a"] * 59),
            {},
            ValueError,
            r"fewer than 3 samples: {'b': 1}; leave them out",
        ),
        (
            lambda a: change(a, kind=["x"] * 30 + ["y"] * 30, donor=["d"] * 30 + [f"e{i}" for i in range(30)]),
            {"groups": "donor"},
            ValueError,
            r"classes in fewer than 2 groups: {'x': 1}",
        ),
        (
            lambda a: change(a, donor=["p", "q"] * 30),
            {"groups": "donor"},
            ValueError,
            "2 groups cannot fill 3 folds; set n_splits to 2 or less",
        ),
        (
            lambda a: change(a, donor=[np.nan] + ["p", "q", "r"] * 19 + ["p", "q"]),
            {"groups": "donor"},
            ValueError,
            r"obs\['donor'\] \(groups\) is missing in 1 labelled samples, the first at position 0",
        ),
        (lambda a: change(a, kind=np.linspace(0.1, 1, 60)), {}, TypeError, "holds numbers such as 0.1; bf.tl.regress"),
        (lambda a: change(a, kind=[1, "a"] * 30), {}, TypeError, "mixes int and str"),
        (lambda a: a, {"use_rep": "X_umap"}, KeyError, r"no 'X_umap'; it holds \['X_bad', 'X_emb'\]. Call bf.tl.embed"),
        (lambda a: a, {"groups": "patient"}, KeyError, r"no column 'patient' \(groups\)"),
        (lambda a: a, {"covariates": "donor"}, TypeError, "pass a list of columns"),
        (lambda a: a, {"covariates": ["age"]}, KeyError, r"no column 'age' \(covariates\)"),
        (lambda a: a, {"layer": "log_tpm"}, KeyError, "no layer 'log_tpm'"),
        (lambda a: a, {"head": "svm"}, ValueError, "no head 'svm'; choose among"),
        (lambda a: a, {"abstain": 1.5}, ValueError, "abstain is 1.5"),
        (lambda a: a, {"protocol": Protocol(baselines=("svm",))}, ValueError, "no baseline 'svm' .* 'untrained'"),
        (lambda a: a, {"protocol": Protocol(baselines=("covariates",))}, ValueError, "needs covariates=, a list"),
        (lambda a: change(a, **{"k/d": a.obs["kind"]}), {"label": "k/d"}, ValueError, "'/'; pass another key_added"),
        (lambda a: change(a, kind_pred=1), {}, ValueError, r"obs\['kind_pred'\] exists .* pass another key_added"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(edit, options, error, message):
    adata = edit(make())
    before = adata.copy()
    arguments = {"label": "kind", "use_rep": "X_emb", "protocol": QUICK, **options}
    with pytest.raises(error, match=message):
        bf.tl.classify(adata, arguments.pop("label"), **arguments)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert list(adata.uns) == list(before.uns)
    assert list(adata.obsm) == list(before.obsm)


def test_expression_has_to_be_ln_tpm():
    adata = make()
    adata.X = np.round(np.asarray(adata.X) * 100)
    with pytest.raises(ValueError, match=r"whole numbers .* as raw counts do; call bf.pp.log_tpm"):
        bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=QUICK)
    adata.layers["log_tpm"] = make().X
    with pytest.raises(ValueError, match="or pass layer='log_tpm'"):
        bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=QUICK)
    bf.tl.classify(adata, "kind", use_rep="X_emb", layer="log_tpm", protocol=QUICK)


def test_embeddings_have_to_be_finite_and_alike():
    adata, other = make(), make(seed=1)
    other.obsm["X_emb"] = other.obsm["X_emb"][:, :4]
    with pytest.raises(ValueError, match=r"4 columns in the reference and 12 in adata"):
        bf.tl.classify(adata, "kind", use_rep="X_emb", reference=other, protocol=QUICK)
    other.obs["kind"] = other.obs["kind"].replace({"a": "z"})
    with pytest.raises(ValueError, match=r"holds \['a'\], which the reference does not; it knows \['b', 'c', 'z'\]"):
        bf.tl.classify(adata, "kind", use_rep="X_bad", reference=other, protocol=QUICK)
    other.var_names = [f"x{i}" for i in range(30)]
    other.obs["kind"] = make().obs["kind"]
    with pytest.raises(ValueError, match="share no gene"):
        bf.tl.classify(adata, "kind", use_rep="X_bad", reference=other, protocol=QUICK)
    adata.obsm["X_emb"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"\(60, 12\) with 1 values that are NaN or infinite"):
        bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=QUICK)


def test_a_slash_in_the_label_is_mended_by_key_added():
    adata = change(make(), **{"k/d": make().obs["kind"]})
    bf.tl.classify(adata, "k/d", use_rep="X_emb", protocol=QUICK, key_added="kd")
    assert {"kd_pred", "kd_out_of_distribution"} <= set(adata.obs)
    assert "kd_proba" in adata.obsm


def test_copy_leaves_the_original_alone():
    adata = make()
    copy = bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=QUICK, copy=True)
    assert "classify_kind" in copy.uns
    assert not len(adata.uns)


def test_temperature_finds_the_one_that_was_applied():
    rng = np.random.default_rng(0)
    honest = rng.dirichlet([0.5] * 3, 4000)
    codes = np.array([rng.choice(3, p=row) for row in honest])
    assert fit_temperature(sharpen(honest, 1 / 3), codes) == pytest.approx(3, rel=0.1)
    np.testing.assert_allclose(sharpen(np.array([[0.8, 0.2]]), 2.0), [[2 / 3, 1 / 3]])


def test_conformal_width_by_hand_and_by_coverage():
    assert conformal_width(np.arange(1.0, 20), 0.95) == 19
    assert conformal_width(np.arange(1.0, 19), 0.95) == np.inf
    assert conformal_width(np.arange(1.0, 100), 0.9) == 90


def test_distances_leave_a_samples_own_group_out():
    rng = np.random.default_rng(0)
    donors = np.repeat(np.arange(20), 5)
    train = rng.normal(size=(20, 8))[donors] + rng.normal(0, 0.01, (100, 8))
    fresh = rng.normal(size=(40, 8))
    assert far_from_training(train, fresh).mean() > 0.9, "replicates make everything else look far"
    assert far_from_training(train, fresh, donors).mean() < 0.3
    assert not far_from_training(train, fresh, np.zeros(100, dtype=int)).any(), "one group has no usual distance"


def test_the_papers_protocol_writes_what_it_assumes_and_warns(tmp_path, caplog):
    adata = make()
    paper = replace(bf.metrics.paper_protocol("classification"), **FAST)
    with caplog.at_level(logging.WARNING, logger="bulkformer_tl"):
        bf.tl.classify(adata, "kind", use_rep="X_emb", protocol=paper)
    assert "stand on both sides" in caplog.text
    (name,) = {*adata.uns["classify_kind"]["scores"]["representation"]} - {"majority"}
    assert name == "X_emb (random_forest)"
    assert score(adata, name, "f1_weighted") > score(adata, "majority", "f1_weighted")
    assert adata.uns["classify_kind"]["params"]["axis"] == "pooled"
    adata.write_h5ad(tmp_path / "a.h5ad")
    kept = ad.read_h5ad(tmp_path / "a.h5ad").uns["classify_kind"]["params"]["protocol"]
    assert list(kept["assumed"]) == list(paper.assumed)
    assert kept["caveat"] == paper.caveat
    # expression through the same pipeline stands in the same table
    bf.tl.classify(adata, "kind", use_rep=None, protocol=paper)
    assert score(adata, "expression (random_forest)", "f1_weighted") > 0.5
    assert score(adata, name, "f1_weighted") > 0


def test_the_paper_by_name(monkeypatch):
    monkeypatch.setitem(TASKS, "classification", TASKS["classification"] | FAST)
    adata = make()
    bf.tl.classify(adata, "kind", use_rep="X_emb", protocol="paper")
    assert adata.uns["classify_kind"]["params"]["protocol"]["n_splits"] == 10


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"protocol": "papers"}, TypeError, "protocol is 'papers'; pass a bf.metrics.Protocol, \"paper\""),
        (
            {"protocol": Protocol(head="linear", head_options={"depth": 3})},
            ValueError,
            "the head 'linear' has no option 'depth'; its options are .*'n_components', 'C'",
        ),
        (
            {"protocol": Protocol(head_options={"n_components": 0.5})},
            ValueError,
            "n_components is 0.5; use a whole number",
        ),
    ],
)
def test_protocols_that_cannot_be_are_refused(options, error, message):
    adata = make()
    with pytest.raises(error, match=message):
        bf.tl.classify(adata, "kind", use_rep="X_emb", **options)
    assert not adata.uns
