from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import bulkformer_tl as bf

mpl.use("agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


@pytest.fixture
def adata() -> ad.AnnData:
    adata = ad.AnnData(np.ones((2, 4), dtype=np.float32), var=pd.DataFrame(index=list("abcd")))
    adata.var["symbol"] = ["A", "B", None, "D"]
    table = pd.DataFrame({"perturbation": ["a", "b", "c", "a+b"], "effect": [0.1, -0.3, np.nan, 0.2]})
    table = table.assign(group="all", output="toward well", n=[5, 5, 0, 5])
    table = table.assign(low=table["effect"] - 0.05, high=table["effect"] + 0.05, null=0.01)
    table = table.assign(fdr=[0.2, 0.01, np.nan, 0.01], expected=[np.nan, np.nan, np.nan, 0.15], first_order=0.02)
    params = {"package": "bulkformer_tl", "change_kind": "delete", "groupby": ""}
    adata.uns["perturb"] = {"params": params, "table": table}
    return adata


def labels(axes) -> list[str]:
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    return [label.get_text() for _, label in sorted(ticks, key=lambda pair: -pair[0])]


def test_draws_the_largest_effects_on_top(adata):
    axes = bf.pl.perturbation(adata)
    assert labels(axes) == ["b", "a+b", "a"]
    assert axes.get_xlabel() == "toward well"
    assert axes.get_title() == "delete: 3 of 4 perturbations, 5 samples"
    effects = axes.collections[1]
    np.testing.assert_allclose(effects.get_offsets()[:, 0], [-0.3, 0.2, 0.1])
    # what is not below the false discovery rate is hollow
    assert [colour[:3].min() for colour in effects.get_facecolors()][2] == 1
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "effect",
        "matched null",
        "first order",
        "without synergy",
    ]


def test_names_and_number(adata):
    assert labels(bf.pl.perturbation(adata, n_top=2, gene_symbols="symbol")) == ["B", "A+B"]


def test_draws_on_given_axes(adata):
    from matplotlib import pyplot as plt

    _, ax = plt.subplots()
    assert bf.pl.perturbation(adata, ax=ax) is ax


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key": "other"}, KeyError, r"call bf\.tl\.perturb\(adata\) first"),
        ({"group": "liver"}, KeyError, r"no group 'liver'; it has \['all'\]"),
        ({"output": "risk"}, KeyError, r"no output 'risk'; it has \['toward well'\]"),
        ({"n_top": 0}, ValueError, "n_top is 0; use 1 or more"),
        ({"gene_symbols": "name"}, KeyError, "no column 'name'"),
    ],
)
def test_refuses(adata, options, error, message):
    with pytest.raises(error, match=message):
        bf.pl.perturbation(adata, **options)


def test_refuses_estimates_alone(adata):
    adata.uns["perturb"]["table"]["effect"] = np.nan
    with pytest.raises(ValueError, match="holds estimates alone"):
        bf.pl.perturbation(adata)
