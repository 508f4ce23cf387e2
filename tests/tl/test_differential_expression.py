from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

import bulkformer_tl as bf

#: Of the genes, how many differ.
PLANTED = 10


def make(n: int = 40, genes: int = 200, *, effect: float = 1.0, seed: int = 0) -> ad.AnnData:
    """ln(TPM+1) whose first genes are higher in the sick, and counts."""
    rng = np.random.default_rng(seed)
    sick = np.arange(n) % 2 == 0
    values = np.abs(rng.normal(3, rng.uniform(0.3, 1, genes), (n, genes))).astype(np.float32)
    values[:, :PLANTED] += effect * sick[:, None]
    obs = pd.DataFrame(
        {
            "disease": np.where(sick, "sick", "healthy"),
            "sex": rng.choice(["f", "m"], n),
            "age": rng.normal(50, 10, n),
            "patient": [f"p{i // 2}" for i in range(n)],
        },
        index=[f"s{i}" for i in range(n)],
    )
    adata = ad.AnnData(values, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(genes)]))
    adata.layers["counts"] = rng.negative_binomial(10, 10 / (10 + np.expm1(values) * 20))
    return adata


def screen(adata: ad.AnnData, **options: object) -> pd.DataFrame:
    key = str(options.get("key_added", "differential_expression"))
    bf.tl.differential_expression(adata, "disease", **{"case": "sick", **options})
    return adata.uns[key]["genes"]


def hide(adata: ad.AnnData, *, right: bool) -> None:
    """Hide most entries of every second gene; fill them in with the truth, or with values of other samples."""
    rng = np.random.default_rng(1)
    truth = np.asarray(adata.X).copy()
    hidden = (rng.random(adata.shape) < 0.8) & (np.arange(adata.n_vars) % 2 == 0)
    adata.layers["log_tpm"] = np.where(hidden, np.nan, truth).astype(np.float32)
    filled = truth if right else rng.permuted(truth, axis=0)
    adata.layers["imputed"] = np.where(hidden, filled, truth).astype(np.float32)


def test_welch_is_that_of_scipy():
    adata = make(30, 6)
    adata.X[:4, 2] = np.nan
    table = screen(adata, method="welch")
    sick = (adata.obs["disease"] == "sick").to_numpy()
    for gene, row in zip(adata.X.T.astype(float), table.to_dict("records"), strict=True):
        found = stats.ttest_ind(gene[sick], gene[~sick], equal_var=False, nan_policy="omit")
        assert (row["statistic"], row["p"]) == pytest.approx((found.statistic, found.pvalue))
        interval = found.confidence_interval()
        assert (row["low"], row["high"]) == pytest.approx(tuple(np.array(interval) / np.log(2)))
        difference = np.nanmean(gene[sick]) - np.nanmean(gene[~sick])
        assert row["log2_fold_change"] == pytest.approx(difference / np.log(2))
        assert (row["n_case"], row["n_control"]) == ((~np.isnan(gene[sick])).sum(), (~np.isnan(gene[~sick])).sum())


def test_rank_is_that_of_scipy():
    adata = make(30, 6)
    adata.X[:, 1] = np.round(adata.X[:, 1])
    adata.X[:4, 2] = np.nan
    table = screen(adata, method="rank")
    sick = (adata.obs["disease"] == "sick").to_numpy()
    for gene, row in zip(adata.X.T.astype(float), table.to_dict("records"), strict=True):
        one, other = (gene[part & ~np.isnan(gene)] for part in (sick, ~sick))
        found = stats.mannwhitneyu(one, other, method="asymptotic")
        assert row["p"] == pytest.approx(found.pvalue)
        assert row["auroc"] == pytest.approx(found.statistic / (len(one) * len(other)))
        assert row["statistic"] == pytest.approx(np.sign(row["auroc"] - 0.5) * stats.norm.isf(row["p"] / 2))


def test_moderated_effect_is_that_of_a_linear_model():
    adata = make(30, 6)
    table = screen(adata, covariates=["age", "sex"])
    obs = adata.obs
    columns = np.column_stack([obs["disease"] == "sick", np.ones(30), obs["age"], obs["sex"] == "m"]).astype(float)
    for gene, row in zip(adata.X.T.astype(float), table.to_dict("records"), strict=True):
        assert row["log2_fold_change"] == pytest.approx(sm.OLS(gene, columns).fit().params[0] / np.log(2))
    assert (table["low"] < table["log2_fold_change"]).all()


@pytest.mark.parametrize("method", ["moderated", "welch", "rank"])
def test_planted_genes_are_found_and_few_others(method):
    adata = make(60)
    found = screen(adata, method=method)["fdr"] <= 0.05
    assert found[:PLANTED].mean() >= 0.8
    assert found[PLANTED:].mean() < 0.03
    assert (adata.uns["differential_expression"]["genes"]["statistic"][:PLANTED] > 0).all()


@pytest.mark.parametrize("method", ["moderated", "welch", "rank"])
def test_null_is_calibrated(method):
    table = screen(make(24, 3000, effect=0), method=method)
    assert (table["p"] <= 0.05).mean() == pytest.approx(0.05, abs=0.012)
    assert (table["p"] <= 0.5).mean() == pytest.approx(0.5, abs=0.04)
    assert (table["fdr"] <= 0.05).sum() <= 1


def test_moderation_finds_more_among_few_samples():
    adata = make(8, 500, effect=1.5)
    moderated = screen(adata)["fdr"] <= 0.1
    welch = screen(adata, method="welch")["fdr"] <= 0.1
    assert moderated[:PLANTED].sum() > welch[:PLANTED].sum()


# fitting a curve to few genes may fail, which pydeseq2 mends and says
@pytest.mark.filterwarnings("ignore:The dispersion trend curve fitting did not converge:UserWarning")
def test_counts_by_pydeseq2():
    pytest.importorskip("pydeseq2", reason='pip install "bulkformer-tl[de]"')
    adata = make(24, 80)
    adata.layers["counts"][:, 50] = 0
    table = screen(adata, method="deseq2", layer="counts", covariates=["sex"])
    assert (table["fdr"][:PLANTED] <= 0.05).mean() >= 0.8
    assert (table["fdr"][PLANTED:] <= 0.05).mean() < 0.06
    assert (table["log2_fold_change"][:PLANTED] > 0).all()
    assert np.isnan(table.loc["g50", "p"])
    assert table["low"].dropna().lt(table["high"].dropna()).all()
    twice = ad.concat([adata, adata], index_unique="-")
    twice.obs["patient"] = np.tile([f"p{i}" for i in range(24)], 2)
    twice.layers["counts"] = np.vstack(
        [adata.layers["counts"] // 2, adata.layers["counts"] - adata.layers["counts"] // 2]
    )
    pd.testing.assert_frame_equal(
        screen(twice, method="deseq2", layer="counts", covariates=["sex"], groups="patient"), table, rtol=1e-3
    )


def test_confounding_goes_to_the_covariate():
    adata = make(80, 50, effect=0)
    adata.obs["batch"] = np.where(np.arange(80) % 8 < 3, "a", "b")
    adata.X[:, :5] += 2 * (adata.obs["batch"] == "a").to_numpy()[:, None]
    adata.obs["disease"] = np.where(
        np.random.default_rng(0).random(80) < np.where(adata.obs["batch"] == "a", 0.8, 0.2), "sick", "healthy"
    )
    assert (screen(adata)["fdr"][:5] <= 0.05).all()
    assert (screen(adata, covariates=["batch"])["fdr"] <= 0.05).sum() == 0


def test_pairs_and_averages():
    adata = make(40, 100, effect=0.5)
    person = np.repeat(np.random.default_rng(3).normal(0, 1, (20, 100)), 2, axis=0)
    adata.X = np.clip(adata.X + 2 + person, 0, 11).astype(np.float32)
    unpaired, paired = screen(adata), screen(adata, covariates=["patient"])
    assert (paired["p"][:PLANTED] < unpaired["p"][:PLANTED]).mean() > 0.8
    with pytest.raises(ValueError, match=r"group 'p0' .* differ in disease, .* pass covariates=\['patient'\]"):
        screen(adata, groups="patient")
    adata.obs["donor"] = [f"d{i // 4}{i % 2}" for i in range(40)]
    assert (screen(adata, groups="donor")[["n_case", "n_control"]] == 10).all(axis=None)


def test_three_classes_and_unknown_ones():
    adata = make(60, 20)
    adata.obs["disease"] = ["sick", "healthy", "latent"] * 19 + [None, "", np.nan]
    assert (screen(adata)[["n_case", "n_control"]].to_numpy() == [19, 38]).all()
    assert (screen(adata, control="latent")[["n_case", "n_control"]].to_numpy() == 19).all()
    assert adata.uns["differential_expression"]["params"]["n_left_out"] == 22


def test_right_imputation_gains_genes_beyond_the_null_and_wrong_does_not(caplog):
    adata = make(60, 100)
    hide(adata, right=True)
    options = {"layer": "log_tpm", "imputed": "imputed", "rng": 1}
    before = screen(adata, **options)
    result = adata.uns["differential_expression"]
    gained = (result["imputed"]["fdr"] <= 0.05) & ~(before["fdr"] <= 0.05)
    changes = result["changes"].set_index("change")
    assert changes.loc["gained", "n"] == gained.sum() >= 3
    assert gained[:PLANTED].sum() >= 3
    assert changes.loc["gained", "p"] == pytest.approx(1 / 21)
    hide(adata, right=False)
    with caplog.at_level(logging.WARNING, "bulkformer_tl"):
        screen(adata, **options)
    changes = adata.uns["differential_expression"]["changes"].set_index("change")
    assert changes.loc["gained", "n"] <= changes.loc["gained", "null_high"]
    assert "no more than permuted imputation gains" in caplog.text


def test_null_of_the_slow_way_is_the_same():
    """Only touched genes are tested anew, and variances of all are moderated together."""
    from bulkformer_tl.tl._expression_tests import moderated_screen
    from bulkformer_tl.tl._screen import _change, permute_filled, run_screen

    adata = make(40, 60)
    hide(adata, right=True)
    values, imputed = adata.layers["log_tpm"], adata.layers["imputed"]
    case = (adata.obs["disease"] == "sick").to_numpy()
    test = moderated_screen(case, np.empty((40, 0)))
    tables = run_screen(
        test,
        values,
        imputed,
        adata.var_names,
        alpha=0.2,
        n_permutations=3,
        rng=np.random.default_rng(7),
        description="x",
    )
    rng, counts = np.random.default_rng(7), []
    touched = np.isnan(values).any(axis=0)
    for _ in range(3):
        again = imputed.copy()
        again[:, touched] = permute_filled(imputed[:, touched], np.isnan(values)[:, touched], rng)
        after = test.table(test.find(again), adata.var_names)
        counts.append((_change(tables["genes"], after, 0.2) == "gained").sum())
    assert tables["changes"]["null_mean"][0] == pytest.approx(np.mean(counts))
    assert max(counts) > 0


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_tables_survive_a_file(form, tmp_path):
    adata = make(20, 8)
    hide(adata, right=True)
    screen(adata, layer="log_tpm", imputed="imputed", n_permutations=2)
    path = tmp_path / f"a.{form}"
    (adata.write_h5ad if form == "h5ad" else adata.write_zarr)(path)
    again = (ad.read_h5ad if form == "h5ad" else ad.read_zarr)(path)
    for name in ("genes", "imputed", "changes"):
        pd.testing.assert_frame_equal(
            again.uns["differential_expression"][name],
            adata.uns["differential_expression"][name],
            check_dtype=False,
            check_index_type=False,
        )
    screen(again, method="welch", layer="log_tpm")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"case": "ill"},
            ValueError,
            r"obs\['disease'\] has no class 'ill' \(case\); its classes are \['sick', 'healthy'\]",
        ),
        ({"control": "well"}, ValueError, r"no class 'well' \(control\)"),
        ({"control": "sick"}, ValueError, "case and control are both 'sick'"),
        ({"method": "anova"}, ValueError, r"method is 'anova'; choose among \['moderated'"),
        ({"method": "rank", "covariates": ["age"]}, ValueError, "method='rank' adjusts for no covariates"),
        ({"method": "deseq2", "imputed": "imputed"}, ValueError, "reads counts and imputed values are ln"),
        ({"method": "deseq2"}, ValueError, r"adata.X holds .* in sample 's0', gene 'g0', which is no count"),
        ({"covariates": ["copy"]}, ValueError, r"follows from the covariates \['copy'\]"),
        ({"covariates": ["own"]}, ValueError, "follows from the covariates"),
        ({"covariates": ["nothing"]}, KeyError, r"no column 'nothing' \(covariates\)"),
        ({"alpha": 0}, ValueError, "alpha is 0"),
        ({"layer": "counts"}, ValueError, r"layers\['counts'\] is not ln|holds whole numbers only"),
        ({"key_added": "mine"}, ValueError, r"uns\['mine'\] exists"),
    ],
)
@pytest.mark.filterwarnings("ignore:The dispersion trend curve fitting did not converge:UserWarning")
def test_bad_options_are_refused_and_nothing_written(options, error, message):
    adata = make(20, 6)
    hide(adata, right=True)
    adata.obs["copy"] = adata.obs["disease"] + "!"
    adata.obs["own"] = adata.obs_names
    adata.uns["mine"] = 1
    with pytest.raises(error, match=message):
        screen(adata, **options)
    assert list(adata.uns) == ["mine"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["sick"] * 20, r"has 0 samples \(or groups\) of other classes"),
        (["sick"] + ["healthy"] * 19, "has 1 samples .* of 'sick' without missing covariates; at least 2 are needed"),
    ],
)
def test_classes_that_are_too_small_are_refused(labels, message):
    adata = make(20, 6)
    adata.obs["disease"] = labels
    with pytest.raises(ValueError, match=message):
        screen(adata)


def test_too_many_covariates_are_refused():
    adata = make(8, 6)
    for name in "abcdef":
        adata.obs[name] = np.random.default_rng(ord(name)).normal(size=8)
    with pytest.raises(ValueError, match=r"8 columns .* for 8 samples leave nothing to estimate variances from"):
        screen(adata, covariates=list("abcdef"))


def test_pydeseq2_is_named_where_it_is_absent(monkeypatch):
    monkeypatch.setattr("bulkformer_tl._optional.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r'needs pydeseq2: pip install "bulkformer-tl\[de\]"'):
        screen(make(20, 6), method="deseq2", layer="counts")
