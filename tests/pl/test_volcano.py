from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

import bulkformer_tl as bf

mpl.use("agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


def make(*, p: float = 1e-6, gained: bool = False) -> ad.AnnData:
    """A result with two genes up, one down, one weak and one that was not tested."""
    names = ["up", "UP2", "down", "weak", "untested"]
    adata = ad.AnnData(np.ones((2, 5), dtype=np.float32), var=pd.DataFrame(index=names))
    adata.var["symbol"] = ["A", "B", "C", "D", None]
    table = pd.DataFrame(
        {"log2_fold_change": [2.0, 0.5, -1.5, 0.2, np.nan], "p": [p, 1e-4, 1e-3, 0.5, np.nan]},
        index=pd.Index(names, name="gene"),
    )
    table["fdr"] = [1e-5, 1e-3, 1e-2, 0.6, np.nan]
    after = table.assign(change=["kept", "gained", "kept", "none", "none"])
    params = {"package": "bulkformer_tl", "alpha": 0.05, "case": "sick", "control": ""}
    adata.uns["de"] = {"params": params, "genes": table, **({"imputed": after} if gained else {})}
    return adata


def labels(axes: mpl.axes.Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def colours(axes: mpl.axes.Axes) -> dict[tuple[float, float], str]:
    found = {}
    for points in axes.collections:
        for offset, edge in zip(points.get_offsets(), points.get_edgecolors(), strict=False):
            found[tuple(np.round(np.asarray(offset, dtype=float), 3).tolist())] = to_hex(edge)
    return found


def test_genes_are_placed_coloured_and_named():
    axes = bf.pl.volcano(make(), "de", n_labels=2)
    found = colours(axes)
    assert found == {(2.0, 6.0): "#d55e00", (0.5, 4.0): "#d55e00", (-1.5, 3.0): "#0072b2", (0.2, 0.301): "#b8b8b8"}
    assert labels(axes) == ["FDR 5 %", "up", "UP2"]
    assert axes.get_title() == "de, measured, 4 genes\n2 up and 1 down at FDR 5 %"
    assert axes.get_xlabel() == "log2 fold change (sick against all others)"


def test_least_effect_and_symbols():
    axes = bf.pl.volcano(make(), "de", min_effect=1, symbols="symbol")
    assert colours(axes)[(0.5, 4.0)] == "#b8b8b8"
    assert labels(axes) == ["FDR 5 %", "A", "C"]
    assert sorted(line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":") == [-1, 1]


def test_gained_genes_are_open():
    axes = bf.pl.volcano(make(gained=True), "de", values="imputed")
    faces = [
        to_hex(face)
        for points in axes.collections
        for offset, face in zip(points.get_offsets(), points.get_facecolors(), strict=False)
        if tuple(offset) == (0.5, 4.0)
    ]
    assert faces == ["#ffffff"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["gained by imputation"]


def test_hazard_ratios_are_doublings():
    adata = make()
    adata.uns["de"]["params"]["split"] = ""
    adata.uns["de"]["genes"] = adata.uns["de"]["genes"].assign(hazard_ratio=[4.0, 1, 0.5, 1, np.nan])
    axes = bf.pl.volcano(adata, "de")
    assert (2.0, 6.0) in colours(axes)
    assert axes.get_xlabel() == "log2 hazard ratio (per standard deviation)"


def test_smallest_p_values_are_drawn():
    assert (2.0, 300.0) in colours(bf.pl.volcano(make(p=0.0), "de"))


def test_names_do_not_cover_one_another():
    rng = np.random.default_rng(0)
    names = [f"GENE{i}" for i in range(60)]
    adata = ad.AnnData(np.ones((2, 60), dtype=np.float32), var=pd.DataFrame(index=names))
    table = pd.DataFrame(
        {"log2_fold_change": rng.normal(0, 2, 60), "p": 10.0 ** -rng.uniform(3, 8, 60)}, index=pd.Index(names)
    )
    params = {"package": "bulkformer_tl", "alpha": 0.05, "case": "a", "control": "b"}
    adata.uns["de"] = {"params": params, "genes": table.assign(fdr=table["p"])}
    axes = bf.pl.volcano(adata, "de", n_labels=20)
    axes.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts[1:]]
    overlaps = [
        1
        for i, one in enumerate(boxes)
        for other in boxes[:i]
        if min(one.x1, other.x1) - max(one.x0, other.x0) > 3 and min(one.y1, other.y1) - max(one.y0, other.y0) > 3
    ]
    assert len(boxes) == 20
    assert sum(overlaps) <= 3


def test_axes_are_used_and_data_left_alone():
    from matplotlib import pyplot as plt

    adata = make()
    before = adata.uns["de"]["genes"].copy()
    _, ax = plt.subplots()
    assert bf.pl.volcano(adata, "de", ax=ax) is ax
    pd.testing.assert_frame_equal(adata.uns["de"]["genes"], before)


def test_both_tasks_can_be_drawn():
    adata = bf.datasets.toy()[:, :300].copy()
    bf.pp.log_tpm(adata)
    adata.obs["days"], adata.obs["died"] = np.arange(1.0, adata.n_obs + 1), np.arange(adata.n_obs) % 2 == 0
    bf.tl.biomarkers(adata, "days", event="died", layer="log_tpm")
    bf.tl.differential_expression(adata, "tissue", case=adata.obs["tissue"].iloc[0], layer="log_tpm", method="rank")
    for key in ("biomarkers", "differential_expression"):
        assert key in bf.pl.volcano(adata, key).get_title()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key": "nothing"}, KeyError, r"uns\['nothing'\] holds no tested genes; call bf.tl.biomarkers or"),
        ({"values": "imputed"}, KeyError, r"knows measured genes only; pass imputed="),
        ({"values": "both"}, ValueError, r"values is 'both'; choose among \['measured', 'imputed'\]"),
        ({"symbols": "name"}, KeyError, r"adata.var has no column 'name' \(symbols\); its columns are \['symbol'\]"),
        ({"n_labels": -1}, ValueError, "n_labels is -1; use 0 or more"),
        ({"min_effect": -0.5}, ValueError, "min_effect is -0.5"),
    ],
)
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        bf.pl.volcano(make(), **({"key": "de"} | options))


def test_nothing_tested():
    adata = make()
    adata.uns["de"]["genes"]["p"] = np.nan
    with pytest.raises(ValueError, match="has no p-value of any gene"):
        bf.pl.volcano(adata, "de")
