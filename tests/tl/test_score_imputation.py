from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pytest
from matplotlib import pyplot as plt

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol, fit_imputer, k_fold


@pytest.fixture
def many(cohort: ad.AnnData) -> ad.AnnData:
    """Twenty-four complete samples around the golden ones."""
    rng = np.random.default_rng(0)
    values = np.nan_to_num(np.tile(np.asarray(cohort.X), (4, 1)), nan=3.0)
    noisy = (values + 0.3 * rng.normal(size=values.shape)).clip(0, 12).astype(np.float32)
    adata = ad.AnnData(noisy, var=cohort.var)
    adata.obs_names = [f"s{i}" for i in range(24)]
    adata.obs["patient"] = [f"p{i % 6}" for i in range(24)]
    return adata


def scores(adata, **options):
    return bf.tl.score_imputation(adata, copy=True, **options).uns["score_imputation"]["scores"]


def test_table_holds_every_method_rate_metric_and_axis(many, latest):
    table = scores(many, model=latest, rates=(0.15, 0.5))
    models = [latest.name, f"{latest.name}, encoder alone"]
    assert set(table["method"]) == {*models, "gene_mean", "knn", "pca", "factor_analysis"}
    assert set(table["rate"]) == {0.15, 0.5}
    per_method = table[(table["method"] == "knn") & (table["rate"] == 0.5)]
    assert {*zip(per_method["metric"], per_method["axis"], strict=True)} == {
        (metric, axis) for metric in ("pearson", "rmse") for axis in ("global", "per_gene", "per_sample")
    }
    assert table[table["metric"] == "coverage_90"]["method"].unique().tolist() == models


def test_baselines_see_training_samples_only_and_hidden_values_never(many, latest):
    """Recompute the global error of kNN by hand."""
    protocol = Protocol(baselines=("knn",), n_splits=3)
    table = scores(many, model=latest, rates=(0.3,), protocol=protocol)
    found = table[(table["method"] == "knn") & (table["metric"] == "rmse") & (table["axis"] == "global")]["mean"].item()
    values = np.asarray(many.X, dtype=np.float64)
    order = np.argsort([latest.vocabulary.ids.tolist().index(gene) for gene in many.var_names])
    values = values[:, order]
    hidden = np.random.default_rng([0, 300000]).random(values.shape) < 0.3
    predicted = np.empty_like(values)
    for split in k_fold(24, n_splits=3, rng=0):
        impute = fit_imputer("knn", values[split.train])
        predicted[split.test] = impute(np.where(hidden, np.nan, values)[split.test])
    expected = np.sqrt(np.mean((predicted - values)[hidden] ** 2))
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_models_error_is_that_of_impute(many, latest):
    table = scores(many, model=latest, rates=(0.3,), protocol=Protocol(baselines=("gene_mean",)))
    order = np.argsort([latest.vocabulary.ids.tolist().index(gene) for gene in many.var_names])
    hidden = np.zeros(many.shape, dtype=bool)
    hidden[:, order] = np.random.default_rng([0, 300000]).random(many.shape) < 0.3
    many.layers["hidden"] = hidden
    with pytest.warns(UserWarning, match="outside what"):
        bf.tl.impute(many, model=latest, mask="hidden", blend=False)
    error = np.sqrt(np.mean((many.layers["imputed"] - many.X)[hidden].astype(float) ** 2))
    alone = table["method"] == f"{latest.name}, encoder alone"
    own = table[alone & (table["metric"] == "rmse") & (table["axis"] == "global")]
    assert own["mean"].item() == pytest.approx(error, rel=1e-4)


def test_groups_stay_together(many, latest, monkeypatch):
    seen = []

    def spy(name, train):
        seen.append(len(train))
        return fit_imputer(name, train)

    monkeypatch.setattr(bf.metrics, "fit_imputer", spy)
    scores(many, model=latest, rates=(0.3,), groups="patient", protocol=Protocol(baselines=("gene_mean",), n_splits=6))
    assert seen == [20] * 6


def test_whole_genes_and_panels(many, latest):
    genes = scores(many, model=latest, rates=(0.5,), by="gene")
    assert genes["n"].unique().tolist() == [24 * round(0.5 * many.n_vars)]
    many.var["panel"] = np.arange(many.n_vars) < 30
    panel = scores(many, model=latest, by="panel", mask_var="panel")
    assert panel["n"].unique().tolist() == [24 * (many.n_vars - 30)]
    assert panel["rate"].unique() == pytest.approx([1 - 30 / many.n_vars])


def test_seeds_give_a_spread_and_reruns_add_rows(many, latest):
    protocol = Protocol(baselines=("gene_mean",))
    bf.tl.score_imputation(many, model=latest, rates=(0.3,), rng=(1, 2, 3), protocol=protocol)
    table = many.uns["score_imputation"]["scores"]
    assert (table["seed_sd"] > 0).all()
    bf.tl.score_imputation(many, model=latest, rates=(0.3, 0.6), rng=1, protocol=protocol)
    again = many.uns["score_imputation"]["scores"]
    assert set(again["rate"]) == {0.3, 0.6}
    assert not again.duplicated(["method", "by", "rate", "metric", "axis"]).any()


@pytest.mark.parametrize("fmt", ["h5ad", "zarr"])
def test_table_can_be_written_and_extended(many, latest, tmp_path, fmt):
    protocol = Protocol(baselines=("gene_mean",))
    bf.tl.score_imputation(many, model=latest, rates=(0.3,), protocol=protocol)
    getattr(many, f"write_{fmt}")(tmp_path / f"m.{fmt}")
    again = getattr(ad, f"read_{fmt}")(tmp_path / f"m.{fmt}")
    bf.tl.score_imputation(again, model=latest, rates=(0.6,), protocol=protocol)
    assert set(again.uns["score_imputation"]["scores"]["rate"]) == {0.3, 0.6}


def test_the_log_says_where_a_simple_method_wins(many, latest, caplog, monkeypatch):
    """A blend that is kept from its factors falls behind them."""
    from bulkformer_tl.tl._blend import Blend

    def stale(self, values, guess, seeds):
        return guess.expression[0], np.ones_like(guess.expression[0])

    monkeypatch.setattr(Blend, "__call__", stale)
    with caplog.at_level(logging.WARNING, logger="bulkformer_tl"):
        scores(many, model=latest, rates=(0.3,))
    assert f"knn predicts hidden values better than {latest.name} at a rate of 0.30: its RMSE is less by" in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rates": (0.3, 1.0)}, ValueError, r"rates must lie between 0 and 1, found \[0.3, 1.0\]"),
        ({"rates": ()}, ValueError, "rates must lie between 0 and 1"),
        ({"by": "row"}, ValueError, "by must be 'entry', 'gene' or 'panel', found 'row'"),
        ({"by": "panel"}, ValueError, "by='panel' needs mask_var"),
        ({"mask_var": np.ones(89, dtype=bool)}, ValueError, "pass by='panel' with it"),
        ({"rng": ()}, ValueError, "rng holds no seed"),
        ({"groups": "donor"}, KeyError, "adata.obs has no column 'donor'"),
        ({"protocol": Protocol(baselines=("magic",))}, ValueError, r"no imputation methods \['magic'\]"),
        ({"by": "panel", "mask_var": np.zeros(89, dtype=bool)}, ValueError, "without any visible value"),
        ({"by": "panel", "mask_var": np.ones(89, dtype=bool)}, ValueError, "hides nothing"),
    ],
)
def test_bad_requests(many, latest, options, error, message):
    with pytest.raises(error, match=message):
        bf.tl.score_imputation(many, model=latest, **options)
    assert not many.uns


def test_curve_draws_the_table(many, latest):
    plt.switch_backend("agg")
    with pytest.raises(KeyError, match=r"no result of bf\.tl\.score_imputation"):
        bf.pl.imputation_curve(many)
    bf.tl.score_imputation(many, model=latest, rates=(0.15, 0.5), protocol=Protocol(baselines=("gene_mean",)))
    axes = bf.pl.imputation_curve(many, metric="pearson", axis="per_sample")
    table = many.uns["score_imputation"]["scores"]
    chosen = table[(table["metric"] == "pearson") & (table["axis"] == "per_sample")]
    for container in axes.containers:
        rows = chosen[chosen["method"] == container.get_label()]
        np.testing.assert_allclose(container.lines[0].get_ydata().astype(float), rows["mean"])
    assert "mean over samples" in axes.get_ylabel()
    with pytest.raises(KeyError, match="there is no score of metric='rmse', axis='global', by='gene'"):
        bf.pl.imputation_curve(many, by="gene")
    plt.close("all")
