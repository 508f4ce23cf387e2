from __future__ import annotations

from itertools import pairwise

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import bulkformer_tl as bf
from bulkformer_tl._anndata import write_results
from bulkformer_tl.metrics import Protocol


@pytest.fixture(autouse=True)
def _figures():
    mpl.use("agg")
    yield
    plt.close("all")


@pytest.fixture
def adata() -> ad.AnnData:
    """Six samples, written as classification and regression write them; one abstention, one unknown class."""
    adata = ad.AnnData(np.ones((6, 2), dtype=np.float32), obs=pd.DataFrame(index=list("uvwxyz")))
    adata.obs["kind"] = pd.Categorical(["a", "a", "b", "b", "c", None])
    adata.obs["age"] = [1.0, 2.0, 3.0, 4.0, np.nan, np.nan]
    shares = np.array([[7, 2, 1], [3, 6, 1], [1, 8, 1], [1, 8, 1], [3, 3, 4], [8, 1, 1]]) / 10
    table = pd.DataFrame(
        [
            ("X_one", "auroc", "fold", 0.8, 0.7, 0.9, 5, 0.1),
            ("pca", "auroc", "fold", 0.85, 0.8, 0.95, 5, 0.1),
            ("X_two", "auroc", "fold", 0.9, 0.8, 0.95, 5, 0.1),
            ("majority", "auroc", "fold", 0.5, 0.5, 0.5, 5, 0.0),
            ("X_one", "brier", "fold", 0.3, 0.2, 0.4, 5, 0.1),
            ("pca", "brier", "fold", 0.4, 0.3, 0.5, 5, 0.1),
        ],
        columns=["representation", "metric", "axis", "mean", "low", "high", "n", "fold_sd"],
    )
    params = {"task": "classification", "label": "kind", "representation": "X_one", "baselines": ["majority", "pca"]}
    params["protocol"] = {"level": 0.9}
    results = {
        "obs/kind_pred": pd.Categorical(["a", "b", "b", "b", None, "a"], categories=["a", "b", "c"]),
        "obsm/kind_proba": shares,
    }
    extra = {"scores": table, "classes": np.array(["a", "b", "c"])}
    write_results(adata, "classify_kind", results, params, extra)
    numbers = {
        "obs/age_pred": np.array([1.0, 2.5, 3.0, 5.0, 1.0, 1.0]),
        "obs/age_low": np.array([0.0, 1.5, 2.0, -np.inf, 0.0, 0.0]),
        "obs/age_high": np.array([2.0, 3.5, 4.0, np.inf, 2.0, 2.0]),
        "obs/age_out_of_distribution": np.array([False, True, False, False, False, False]),
    }
    write_results(adata, "regress_age", numbers, {"task": "regression", "label": "age", "representation": "X_one"})
    return adata


def test_scores_put_baselines_below_and_apart(adata):
    axes = bf.pl.scores(adata, "classify_kind")
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["X_two", "X_one", "pca", "majority"]
    assert axes.get_xlabel() == "AUROC (mean over test folds; 90 % interval)"
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == [0.9, 0.8, 0.85, 0.5]
    assert [line.get_markerfacecolor() == "white" for line in points] == [False, False, True, True]
    spans = [line.get_xdata() for line in axes.lines if line.get_marker() != "o" and len(line.get_xdata()) == 2]
    assert [0.7, 0.9] in [list(span) for span in spans]
    assert [0.85, 0.85] in [list(span) for span in spans], "the best baseline is marked"
    assert axes.get_ylim() == (3.5, -0.5)


def test_scores_of_which_less_is_better_are_ordered_the_other_way(adata):
    axes = bf.pl.scores(adata, "classify_kind", metric="brier")
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["X_one", "pca"]
    assert "less is better" in axes.get_xlabel()


def test_confusion_counts_by_hand(adata):
    axes = bf.pl.confusion(adata, "classify_kind")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["a", "b", "c", "no answer"]
    counts = np.array([int(text.get_text()) for text in axes.texts]).reshape(3, 4)
    np.testing.assert_array_equal(counts, [[1, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(axes.images[0].get_array()[0], [0.5, 0.5, 0, 0])


def test_roc_areas_by_hand(adata):
    axes = bf.pl.roc(adata, "classify_kind")
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    # a: 0.7 and 0.3 against 0.1, 0.1, 0.3: five pairs right and one tied of six
    assert labels == ["a (0.92)", "b (1.00)", "c (1.00)"]
    axes = bf.pl.roc(adata, "classify_kind", kind="precision_recall")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("recall", "precision")


def test_calibration_points_by_hand(adata):
    axes = bf.pl.calibration(adata, "classify_kind", n_bins=2)
    (line,) = [line for line in axes.lines if line.get_marker() == "o"]
    # confidence 0.4 is right (1 of 1), 0.7, 0.6, 0.8, 0.8 are right in three of four
    np.testing.assert_allclose(line.get_xdata(), [0.4, 0.725])
    np.testing.assert_allclose(line.get_ydata(), [1, 0.75])
    assert [text.get_text() for text in axes.texts] == ["1", "4"]
    assert "calibration error 0.140" in axes.get_title()


def test_regression_points_and_intervals(adata):
    axes = bf.pl.regression(adata, "regress_age")
    inside, outside = (collection.get_offsets() for collection in axes.collections[-2:])
    np.testing.assert_allclose(inside, [[1, 1], [3, 3], [4, 5]])
    np.testing.assert_allclose(outside, [[2, 2.5]])
    assert len(axes.collections[0].get_segments()) == 3, "an infinite interval is not drawn"
    assert "RMSE = 0.559" in axes.get_title()
    assert len(bf.pl.regression(adata, "regress_age", intervals=False).collections) == 2


@pytest.mark.parametrize("name", ["scores", "confusion", "roc", "calibration"])
def test_plots_draw_on_the_axes_given_and_change_nothing(adata, name):
    before = adata.copy()
    _, ax = plt.subplots()
    assert getattr(bf.pl, name)(adata, "classify_kind", ax=ax) is ax
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert list(adata.uns) == list(before.uns)


@pytest.mark.parametrize("name", ["scores", "confusion", "roc", "calibration", "regression"])
def test_results_that_are_not_there_are_named(adata, name):
    with pytest.raises(KeyError, match=r"uns\['other'\] is no result of"):
        getattr(bf.pl, name)(adata, "other")


def test_bad_input_is_refused(adata):
    with pytest.raises(KeyError, match=r"no score 'f1' in .* choose among \['auroc', 'brier'\]"):
        bf.pl.scores(adata, "classify_kind", metric="f1")
    with pytest.raises(KeyError, match="no label was known to score"):
        bf.pl.scores(adata, "regress_age")
    with pytest.raises(ValueError, match="kind is 'det'; choose among"):
        bf.pl.roc(adata, "classify_kind", kind="det")
    with pytest.raises(KeyError, match=r"is no result of bf\.tl\.regress"):
        bf.pl.regression(adata, "classify_kind")
    adata.obs["kind"] = None
    with pytest.raises(ValueError, match="names the class of no sample"):
        bf.pl.confusion(adata, "classify_kind")
    adata.obs["age"] = np.nan
    with pytest.raises(ValueError, match="known of 0 samples; two are needed"):
        bf.pl.regression(adata, "regress_age")


def test_labels_do_not_overlap_after_a_real_run():
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(2, 1, (48, 12))).astype(np.float32)
    kinds = np.array(["active tuberculosis", "latent tuberculosis", "control, healthy"])
    real = ad.AnnData(values, obs=pd.DataFrame({"kind": kinds[np.arange(48) % 3]}, index=map(str, range(48))))
    real.obsm["X_emb"] = values[:, :5]
    protocol = Protocol(n_splits=2, n_bootstrap=100, duplicates=None)
    bf.tl.classify(real, "kind", use_rep="X_emb", protocol=protocol, key_added="mine")
    for axes in (bf.pl.confusion(real, "mine"), bf.pl.scores(real, "mine"), bf.pl.calibration(real, "mine")):
        axes.figure.canvas.draw()
        for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
            boxes = [tick.get_window_extent() for tick in ticks if tick.get_text() and not tick.get_rotation()]
            assert not any(one.overlaps(other) for one, other in pairwise(boxes))
