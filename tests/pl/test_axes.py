from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
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
    """Three lines and two drugs, scored along three axes; the mean of a drug has no correlation within it."""
    adata = ad.AnnData(np.ones((3, 2), dtype=np.float32), obs=pd.DataFrame(index=list("uvw")))
    rows = []
    for name, values in {"X_one": (0.3, 0.8, 0.85), "drug_mean": (np.nan, 0.82, 0.8), "pca": (0.4, 0.7, 0.8)}.items():
        for axis, n, value in zip(("per_drug", "per_line", "global"), (2, 3, 6), values, strict=True):
            rows.append((name, "pearson", axis, value, value - 0.1, value + 0.1, n, 0.1))
            rows.append((name, "rmse", axis, 1 - value / 2, 0.5, 1.0, n, 0.1))
    columns = ["representation", "metric", "axis", "mean", "low", "high", "n", "fold_sd"]
    each = pd.DataFrame(
        {
            "representation": ["X_one", "X_one", "pca", "pca", "drug_mean", "drug_mean"],
            "drug": ["a", "b"] * 3,
            "n": 3,
            "pearson": [0.5, 0.1, 0.3, 0.5, np.nan, np.nan],
            "rmse": [1.0, 2.0, 1.5, 1.0, 1.2, 2.2],
        }
    )
    params = {
        "task": "drug_response",
        "representation": "X_one",
        "baselines": ["drug_mean", "pca"],
        "protocol": {"level": 0.9},
    }
    extra = {"scores": pd.DataFrame(rows, columns=columns), "per_drug": each}
    write_results(adata, "drug_response", {"obsm/drug_response_pred": np.zeros((3, 2))}, params, extra)
    return adata


def test_score_axes_shows_every_axis_and_marks_what_is_undefined(adata):
    axes = bf.pl.score_axes(adata, "drug_response")
    labels = [tick.get_text().split("\n") for tick in axes.get_xticklabels()]
    assert labels == [
        ["mean over drugs", "(2 drugs)"],
        ["mean over lines", "(3 lines)"],
        ["all pairs together", "(6 pairs)"],
    ]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["X_one", "drug_mean", "pca"]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert len(crosses) == 1
    assert axes.get_ylabel() == "Pearson's r"
    (own,) = [line for line in axes.lines if line.get_label() == "X_one"]
    np.testing.assert_array_equal(own.get_ydata(), [0.3, 0.8, 0.85])


def test_scores_take_one_axis(adata):
    axes = bf.pl.scores(adata, "drug_response")
    assert "mean over drugs" in axes.get_xlabel()
    assert axes.get_title() == "drug_response, 2 drugs"
    axes = bf.pl.scores(adata, "drug_response", axis="global", metric="rmse")
    assert axes.get_xlabel() == "RMSE, less is better (all pairs together; 90 % interval)"
    assert len(axes.get_yticks()) == 3
    with pytest.raises(
        KeyError, match=r"no axis 'per_gene' of this score; choose among \['per_drug', 'per_line', 'glob"
    ):
        bf.pl.scores(adata, "drug_response", axis="per_gene")


def test_per_column_sorts_drugs_beside_a_baseline(adata):
    axes = bf.pl.per_column(adata, "drug_response")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["b", "a"]
    drawn = {line.get_label(): line.get_ydata().tolist() for line in axes.lines if line.get_marker() == "o"}
    assert drawn == {"pca (baseline)": [0.5, 0.3], "X_one": [0.1, 0.5]}
    assert axes.get_title() == "drug_response: X_one is better in 1 of 2 drugs"
    axes = bf.pl.per_column(adata, "drug_response", metric="rmse", baseline="drug_mean")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["b", "a"]
    assert axes.get_title() == "drug_response: X_one is better in 2 of 2 drugs"
    # what a baseline leaves undefined has no point
    axes = bf.pl.per_column(adata, "drug_response", baseline="drug_mean")
    assert "better in 0 of 0" in axes.get_title()


def test_many_genes_have_no_names(adata):
    rng = np.random.default_rng(0)
    genes = [f"g{i}" for i in range(100)]
    parts = [
        pd.DataFrame({"representation": r, "gene": genes, "n": 9, "pearson": rng.random(100)}) for r in ("X", "pca")
    ]
    entry = {"params": {**adata.uns["drug_response"]["params"], "representation": "X"}, "per_gene": pd.concat(parts)}
    adata.uns["essentiality"] = entry
    axes = bf.pl.per_column(adata, "essentiality")
    assert axes.get_xlabel() == "100 genes, worst to best"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "other"}, r"has no scores of drugs or genes; call bf.tl.drug_response"),
        ({"metric": "auroc"}, r"no score 'auroc' of each drug .* choose among \['pearson', 'rmse'\]"),
        ({"baseline": "raw"}, r"has no rows of 'raw'; choose among \['X_one', 'pca', 'drug_mean'\]"),
        ({"representation": "X_two"}, "has no rows of 'X_two'"),
    ],
)
def test_per_column_says_what_is_there(adata, options, message):
    with pytest.raises(KeyError, match=message):
        bf.pl.per_column(adata, **{"key": "drug_response", **options})


def test_score_axes_says_what_is_there(adata):
    with pytest.raises(KeyError, match=r"is no result of this package"):
        bf.pl.score_axes(adata, "other")
    with pytest.raises(KeyError, match=r"there is no score 'auroc'"):
        bf.pl.score_axes(adata, "drug_response", metric="auroc")
