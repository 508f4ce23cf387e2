"""Plots of networks and of what attention goes to."""

from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

import bulkformer_tl as bf
from bulkformer_tl._anndata import write_results


@pytest.fixture(autouse=True)
def _figures():
    mpl.use("agg")
    yield
    plt.close("all")


def make(*, directed=True, models=("one",), named=True):
    adata = ad.AnnData(np.ones((2, 5), dtype=np.float32), var=pd.DataFrame(index=list("abcde")))
    adata.var["symbol"] = ["A", "B", "C", None, "E"]
    edges = pd.DataFrame(
        {
            "source": ["a", "a", "d", "a", "b"],
            "target": ["b", "c", "e", "b", "c"],
            "group": ["x", "x", "x", "y", "y"],
            "weight": [3.0, 2.0, -1.0, 1.5, 1.0],
            "frequency": [1.0, 0.5, 1.0, 1.0, 0.2],
            "known": [True, False, False, False, False],
        }
    )
    layers = pd.DataFrame(
        [(model, layer, group) for model in models for layer in (0, 1) for group in ("x", "y")],
        columns=["model", "layer", "group"],
    )
    layers["regulator_share"] = np.linspace(0.01, 0.3, len(layers)) if named else np.nan
    layers["uniform_share"] = 0.1 if named else np.nan
    layers["rank_correlation"] = np.linspace(-0.9, 0.9, len(layers))
    params = {"task": "network", "method": "attention", "directed": directed, "groupby": "kind", "groups": ["x", "y"]}
    write_results(adata, "network", {}, params, {"edges": edges, "layers": layers})
    return adata


def names(axes):
    return {text.get_text() for text in axes.texts}


def test_network_draws_the_edges_of_a_group():
    adata = make()
    axes = bf.pl.network(adata, gene_symbols="symbol")
    assert names(axes) == {"A", "B", "C", "d", "E"}
    assert axes.get_title() == "attention, kind x: 3 of 3 edges"
    arrows = [patch for patch in axes.patches if hasattr(patch, "get_arrowstyle")]
    assert len(arrows) == 3
    assert arrows[0].get_linewidth() > arrows[1].get_linewidth() > arrows[2].get_linewidth()
    assert to_hex(arrows[0].get_edgecolor()) == "#009e73"
    assert to_hex(arrows[2].get_edgecolor()) == "#cc79a7"
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert shown == ["source", "target only", "in the table", "negative"]
    assert names(bf.pl.network(adata, group="y", min_frequency=0.5)) == {"a", "b"}
    assert names(bf.pl.network(adata, n_edges=2)) == {"a", "b", "c"}


def test_network_without_direction_draws_lines():
    adata = make(directed=False)
    axes = bf.pl.network(adata, group="y")
    assert axes.get_legend() is None
    assert len(axes.collections[0].get_segments()) == 2


def test_attention_is_a_row_for_each_layer():
    adata = make()
    axes = bf.pl.attention(adata)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["layer 0", "layer 1"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["x", "y"]
    shares = adata.uns["network"]["layers"]["regulator_share"].to_numpy().reshape(2, 2)
    np.testing.assert_allclose(axes.images[0].get_array(), shares / 0.1)
    assert axes.get_title() == "attention on regulators, one"
    ranks = bf.pl.attention(adata, values="rank")
    np.testing.assert_allclose(ranks.images[0].get_array(), [[-0.9, -0.3], [0.3, 0.9]])
    assert ranks.images[0].get_clim() == (-1, 1)


def test_attention_of_several_models_and_without_regulators():
    axes = bf.pl.attention(make(models=("one", "two"), named=False))
    assert axes.get_title() == "attention and expression"
    assert axes.get_yticklabels()[2].get_text() == "two, layer 0"


def test_they_draw_on_given_axes():
    _, (left, right) = plt.subplots(1, 2)
    assert bf.pl.network(make(), ax=left) is left
    assert bf.pl.attention(make(), ax=right) is right


@pytest.mark.parametrize(
    ("function", "options", "error", "says"),
    [
        ("network", {"key": "other"}, KeyError, r"call bf\.tl\.network\(adata\) first"),
        ("network", {"group": "z"}, KeyError, r"no group 'z'; it has \['x', 'y'\]"),
        ("network", {"n_edges": 0}, ValueError, "n_edges is 0; use 1 or more"),
        ("network", {"gene_symbols": "name"}, KeyError, "no column 'name'"),
        ("network", {"min_frequency": 2.0}, ValueError, "is left with min_frequency=2.0"),
        ("attention", {"key": "other"}, KeyError, r"holds no attention; call bf\.tl\.network"),
        ("attention", {"values": "degree"}, ValueError, "values is 'degree'"),
    ],
)
def test_refusals(function, options, error, says):
    with pytest.raises(error, match=says):
        getattr(bf.pl, function)(make(), **options)


def test_attention_on_regulators_needs_some():
    with pytest.raises(ValueError, match="was made without regulators"):
        bf.pl.attention(make(named=False), values="regulators")
