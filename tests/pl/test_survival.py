from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import bulkformer_tl as bf
from bulkformer_tl.metrics import survival_curves

mpl.use("Agg")


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture
def adata():
    """A result with six samples in two groups, and hazard ratios of three terms."""
    time, event, group = [2, 4, 6, 1, 3, 8], [1, 0, 1, 1, 1, 0], ["low"] * 3 + ["high"] * 3
    ratios = pd.DataFrame(
        {
            "term": ["high risk group", "age", "high risk group", "age", "stage: IV (vs I)"],
            "model": ["alone", "alone", "adjusted", "adjusted", "adjusted"],
            "hazard_ratio": [2.0, 1.1, 1.5, 1.0, np.nan],
            "low": [1.2, 1.0, 0.8, 0.9, np.nan],
            "high": [3.4, 1.2, 2.8, 1.1, np.nan],
            "p": [1e-6, 0.04, 0.2, 0.9, np.nan],
            "n": 6,
            "events": 4,
        }
    )
    params = {"package": "bulkformer_tl", "task": "survival", "label": "days", "representation": "X_emb", "n": 6}
    params["protocol"] = {"level": 0.95}
    entry = {
        "curves": survival_curves(time, event, group),
        "log_rank": {"statistic": 1.0, "p": 0.3173, "stratified": True},
        "hazard_ratios": ratios,
        "params": params,
    }
    return ad.AnnData(obs=pd.DataFrame(index=list("abcdef")), uns={"survival": entry})


def test_curves_marks_and_numbers_at_risk(adata):
    axes = bf.pl.kaplan_meier(adata)
    low, low_marks, high, high_marks = axes.lines
    np.testing.assert_allclose(low.get_xdata(), [0, 2, 4, 6])
    np.testing.assert_allclose(low.get_ydata(), [1, 2 / 3, 2 / 3, 0])
    assert low.get_drawstyle() == "steps-post"
    assert low_marks.get_xdata().tolist() == [4]
    assert high_marks.get_xdata().tolist() == [8]
    np.testing.assert_allclose(high.get_ydata(), [1, 2 / 3, 1 / 3, 1 / 3])
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "low risk (3 samples, 2 events)",
        "high risk (3 samples, 2 events)",
    ]
    assert legend.get_title().get_text() == "log-rank within strata: p = 0.32"
    texts = [text.get_text() for text in axes.texts]
    ticks = axes.get_xticks().tolist()
    n = len(ticks)
    times = {"low": np.array([2, 4, 6]), "high": np.array([1, 3, 8])}
    for name, start in (("low", 1), ("high", 2 + n)):
        assert texts[start] == name
        assert texts[start + 1 : start + 1 + n] == [str((times[name] >= tick).sum()) for tick in ticks]


def test_numbers_stand_below_their_ticks_and_inside_the_figure(adata):
    axes = bf.pl.kaplan_meier(adata)
    figure = axes.figure
    figure.canvas.draw()
    frame = figure.bbox
    label = axes.xaxis.label.get_window_extent()
    for text in axes.texts:
        box = text.get_window_extent()
        assert frame.x0 <= box.x0, text
        assert box.x1 <= frame.x1, text
        assert frame.y0 <= box.y0, text
        assert not box.overlaps(label), text
    tick = axes.get_xticklabels()[1].get_window_extent()
    below = axes.texts[3].get_window_extent()
    assert abs((tick.x0 + tick.x1) - (below.x0 + below.x1)) < 4


def test_forest_shows_ratios_on_a_logarithmic_axis(adata):
    axes = bf.pl.forest(adata)
    assert axes.get_xscale() == "log"
    spans = [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert [1.2, 3.4] in spans
    points = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    assert [line.get_xdata()[0] for line in points] == [2.0, 1.5, 1.1, 1.0]
    assert [line.get_markerfacecolor() == "white" for line in points] == [True, False, True, False]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["high risk group", "age", "stage: IV (vs I)"]
    texts = [text.get_text() for text in axes.texts]
    assert "2.00 (1.20 to 3.40), < 0.0001" in texts
    assert "no estimate" in texts
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["alone", "adjusted"]
    axes.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert all(box.x1 <= axes.figure.bbox.x1 for box in boxes)


@pytest.mark.parametrize("name", ["kaplan_meier", "forest"])
def test_plots_draw_on_the_axes_given(adata, name):
    _, ax = plt.subplots()
    assert getattr(bf.pl, name)(adata, "survival", ax=ax) is ax
    with pytest.raises(KeyError, match=r"uns\['other'\] is no result of bf\.tl\.survival"):
        getattr(bf.pl, name)(adata, "other")


def test_small_p_values_and_groups_that_are_alone(adata):
    adata.uns["survival"]["log_rank"] = {"statistic": 30.0, "p": 1e-7, "stratified": False}
    assert bf.pl.kaplan_meier(adata).get_legend().get_title().get_text() == "log-rank: p < 0.0001"
    del adata.uns["survival"]["log_rank"]
    curves = adata.uns["survival"]["curves"]
    adata.uns["survival"]["curves"] = curves[curves["group"] == "high"]
    assert len(bf.pl.kaplan_meier(adata).lines) == 2
