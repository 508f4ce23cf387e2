from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

import bulkformer_tl as bf
from bulkformer_tl._anndata import write_results


@pytest.fixture(autouse=True)
def _figures():
    mpl.use("agg")
    yield
    plt.close("all")


@pytest.fixture
def adata() -> ad.AnnData:
    values = np.array([[1, 0, np.nan, 2], [3, 1, 2, 9], [0, 0, 0, 1]], dtype=np.float32)
    adata = ad.AnnData(values, obs={"tissue": ["liver", "brain", "liver"]})
    adata.layers["hidden"] = np.array([[1, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]], dtype=bool)
    known = np.array([True, True, True, False])
    params = {"model": "tiny", "layer": "X", "n_vocabulary": 5, "coverage": 0.6, "mask": "hidden"}
    filled = values.copy()
    filled[0, 0], filled[1, 1], filled[1, 2], filled[1, 3] = 1.5, 0.5, 2.0, np.nan
    write_results(adata, "imputed", {"layers/imputed": filled, "var/imputed_in_vocabulary": known}, params)
    return adata


def heights(axes) -> dict[str, list[float]]:
    return {bars.get_label(): [bar.get_height() for bar in bars] for bars in axes.containers}


def test_coverage_bars_are_the_shares_by_hand(adata):
    axes = bf.pl.coverage(adata, key="imputed")
    found = heights(axes)
    # ordered by detected genes: sample 1 (3 of 5), 0 (1 of 5), 2 (none); the fourth column is not in the vocabulary
    assert found["detected"] == pytest.approx([0.6, 0.2, 0.0])
    assert found["measured zero"] == pytest.approx([0.0, 0.2, 0.6])
    assert found["missing value"] == pytest.approx([0.0, 0.2, 0.0])
    assert found["gene not in the table"] == pytest.approx([0.4, 0.4, 0.4])
    assert "60.0%" in axes.get_title()


def test_coverage_by_group_orders_and_draws_its_colours(adata):
    adata.uns["tissue_colors"] = ["#111111", "#222222"]
    axes = bf.pl.coverage(adata, key="imputed", groupby="tissue")
    assert heights(axes)["detected"] == pytest.approx([0.6, 0.2, 0.0])  # brain, then the liver samples
    strip = [bars[0].get_facecolor() for bars in axes.containers if len(bars) == 1]
    assert strip == [mpl.colors.to_rgba("#111111"), mpl.colors.to_rgba("#222222")]


def test_coverage_keeps_both_legends_in_the_picture(adata):
    axes = bf.pl.coverage(adata, key="imputed", groupby="tissue")
    axes.figure.canvas.draw()
    legends = [child for child in axes.get_children() if isinstance(child, mpl.legend.Legend)]
    assert len(legends) == 2
    picture = axes.figure.get_tightbbox().x1 * axes.figure.dpi
    assert all(legend.get_window_extent().x1 <= picture + 1 for legend in legends)


def test_plots_draw_on_the_axes_given_and_change_nothing(adata):
    before = adata.copy()
    _, ax = plt.subplots()
    assert bf.pl.coverage(adata, key="imputed", ax=ax) is ax
    _, ax = plt.subplots()
    assert bf.pl.imputation(adata, ax=ax) is ax
    np.testing.assert_array_equal(adata.layers["imputed"], before.layers["imputed"])
    assert adata.uns.keys() == before.uns.keys()
    assert adata.obs.equals(before.obs)


def test_coverage_asks_for_a_result(adata):
    with pytest.raises(KeyError, match=r"no result of bf.tl.embed or bf.tl.impute"):
        bf.pl.coverage(adata)


def test_imputation_states_correlation_and_error_of_hidden_entries(adata):
    axes = bf.pl.imputation(adata)
    measured, predicted = np.array([1.0, 1.0, 2.0]), np.array([1.5, 0.5, 2.0])
    r, rmse = np.corrcoef(measured, predicted)[0, 1], np.sqrt(np.mean((measured - predicted) ** 2))
    assert axes.get_title() == f"3 hidden entries\nglobal r = {r:.3f}, RMSE = {rmse:.3f}"
    assert axes.collections[0].get_array().sum() == 3


def test_imputation_without_hidden_entries_names_the_calls(adata):
    adata.uns["imputed"]["params"]["mask"] = ""
    with pytest.raises(ValueError, match=r'bf.pp.hide\(adata\), then bf.tl.impute\(adata, mask="hidden"\)'):
        bf.pl.imputation(adata)
    with pytest.raises(KeyError, match=r"no result of bf\.tl\.impute"):
        bf.pl.imputation(adata, key="other")


def test_imputation_with_nothing_to_compare(adata):
    adata.layers["hidden"][:] = False
    with pytest.raises(ValueError, match="no entry marked"):
        bf.pl.imputation(adata)


def test_palette_is_the_stored_one(adata):
    adata.uns["tissue_colors"] = np.array(["#111111", "#222222"])
    assert bf.pl.palette(adata, "tissue") == {"brain": "#111111", "liver": "#222222"}


@pytest.mark.parametrize("n", [2, 7, 8, 20, 28, 60])
def test_palette_has_a_colour_for_each_category(n):
    adata = ad.AnnData(np.ones((n, 1)), obs={"g": [f"c{i:03}" for i in range(n)]})
    colours = bf.pl.palette(adata, "g")
    assert list(colours) == sorted(adata.obs["g"])
    assert len(set(colours.values())) == n
    assert all(mpl.colors.is_color_like(c) for c in colours.values())


def test_palette_of_more_categories_than_colours_is_grey():
    adata = ad.AnnData(np.ones((120, 1)), obs={"g": [f"c{i:03}" for i in range(120)]})
    assert set(bf.pl.palette(adata, "g").values()) == {"#808080"}


def test_palette_without_the_column(adata):
    with pytest.raises(KeyError, match=r"no column 'age'; its columns are \['tissue'\]"):
        bf.pl.palette(adata, "age")
