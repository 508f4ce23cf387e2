"""What no tool of ours computes with: each message says what was found and which call mends it."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import bulkformer_tl as bf

TOOLS = {
    "embed": bf.tl.embed,
    "impute": bf.tl.impute,
    "gene_embeddings": lambda adata, **options: bf.tl.gene_embeddings(adata, contextual=True, **options),
}


@pytest.fixture(params=TOOLS)
def tool(request):
    return TOOLS[request.param]


def counts(values):
    return np.round(np.expm1(np.nan_to_num(values)))


def one(values, value):
    values = values.copy()
    values[2, 5] = value
    return values


FAULTS = {
    "counts": (counts, r"sample 's0' holds whole numbers .* call bf\.pp\.log_tpm\(adata\) first"),
    "small counts": (lambda x: np.minimum(counts(x), 9), r"all its values are whole numbers, as counts are"),
    "tpm": (np.expm1, r'for TPM call bf\.pp\.to_log_tpm\(adata, unit="tpm"\)'),
    "log2": (lambda x: np.minimum(x / np.log(2), 13.8), r'million TPM.* unit="log2_tpm"'),
    "negative": (lambda x: one(x, -0.5), r"sample 's2' holds negative values \(down to -0\.5\)"),
    "the authors' marker": (
        lambda x: one(x, -10),
        r"holds -10, the marker of missing genes .* set those entries to NaN",
    ),
    "infinite": (lambda x: one(x, np.inf), r"sample 's2' holds infinite values"),
    "minus infinite": (lambda x: one(x, -np.inf), r"sample 's2' holds infinite values"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_values_that_cannot_be_log_tpm(tool, cohort, latest, fault):
    change, message = FAULTS[fault]
    cohort.X = change(np.asarray(cohort.X)).astype(np.float32)
    before = cohort.copy()
    with pytest.raises(ValueError, match=message):
        tool(cohort, model=latest)
    assert_unchanged(cohort, before)


def test_a_sample_without_any_value(tool, cohort, latest):
    cohort.X[4] = np.nan
    with pytest.raises(ValueError, match="sample 's4' has no measured gene of the vocabulary"):
        tool(cohort, model=latest)


def test_the_layer_to_pass_is_named(tool, cohort, latest):
    cohort.layers["log_tpm"] = cohort.X.copy()
    cohort.X = counts(cohort.X)
    with pytest.raises(ValueError, match=r"or pass layer='log_tpm'"):
        tool(cohort, model=latest)


def test_an_absent_layer(tool, cohort, latest):
    with pytest.raises(KeyError, match="adata has no layer 'tpm'"):
        tool(cohort, model=latest, layer="tpm")


def test_symbols_where_ensembl_was_declared(tool, cohort, latest):
    symbols = bf._vocabulary.symbol_table()
    known = symbols[symbols.isin(latest.vocabulary.ids)]
    assert len(known) > 3
    adata = ad.AnnData(np.ones((2, len(known)), dtype=np.float32) * 0.5, var=pd.DataFrame(index=known.index))
    with pytest.raises(
        ValueError, match=r"taken as 'ensembl', but .* are of the kind 'symbol'; pass identifiers='symbol'"
    ):
        tool(adata, model=latest)


def test_genes_of_nowhere(tool, cohort, latest):
    cohort.var_names = [f"g{i}" for i in range(cohort.n_vars)]
    with pytest.raises(ValueError, match=r"no gene of .* found among \['g0', 'g1', 'g2'\].*bf\.pp\.diagnose"):
        tool(cohort, model=latest)


def test_too_few_genes(tool, cohort, latest):
    few = cohort[:, :9].copy()
    few.X = np.nan_to_num(np.asarray(few.X)) + 0.5
    with pytest.raises(ValueError, match=r"only 9 of the 96 genes .* at least 20% are needed.* smaller min_coverage"):
        tool(few, model=latest)
    tool(few, model=latest, min_coverage=0.05)


def test_several_columns_for_one_gene(tool, cohort, latest):
    names = cohort.var_names.to_list()
    names[1] = f"{names[0]}.3"
    cohort.var_names = names
    with pytest.raises(ValueError, match=rf"\['{names[0]}', '{names[1]}'\] are all {names[0]}.*merge_duplicates"):
        tool(cohort, model=latest)


@pytest.mark.parametrize("shape", [(0, 89), (6, 0)])
def test_empty_data(tool, cohort, latest, shape):
    with pytest.raises(ValueError, match="adata is empty"):
        tool(cohort[: shape[0], : shape[1]].copy(), model=latest)


def test_no_anndata(tool, latest):
    with pytest.raises(TypeError, match="expected an AnnData"):
        tool(pd.DataFrame(np.ones((2, 2))), model=latest)


def test_an_unknown_model(tool, cohort):
    with pytest.raises(ValueError, match="no file, folder or model is called 'bulkformer-9000M'; the models are"):
        tool(cohort, model="bulkformer-9000M")


def test_a_model_that_is_not_on_this_machine(tool, cohort, tmp_path):
    with (
        bf.settings.override(cache_dir=tmp_path),
        pytest.raises(FileNotFoundError, match=r"is not on this machine\. Get"),
    ):
        tool(cohort, model="bulkformer-147M")


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_samples_that_share_a_name(tool, cohort, latest):
    cohort.obs_names = ["a", "b", "c", "b", "d", "e"]
    with pytest.raises(ValueError, match=r"not unique, 'b' occurs again; call adata\.obs_names_make_unique\(\) first"):
        tool(cohort, model=latest)


@pytest.mark.filterwarnings("ignore:.* are outside what .* was trained with:UserWarning")
def test_another_denominator_is_warned_of(tool, cohort, latest):
    cohort.layers["log_tpm"] = cohort.X.copy()
    params = {"package": "bulkformer_tl", "wrote": ["layers/log_tpm"], "denominator": "all", "identifiers": "ensembl"}
    cohort.uns["log_tpm"] = {"params": params}
    with pytest.warns(UserWarning, match="denominator='vocabulary'") as caught:
        tool(cohort, model=latest, layer="log_tpm")
    assert caught[0].filename.endswith(("test_bad_input.py", "_bad_input.py"))


def assert_unchanged(adata: ad.AnnData, before: ad.AnnData) -> None:
    np.testing.assert_array_equal(adata.X, before.X)
    assert adata.obs.equals(before.obs)
    assert adata.var.equals(before.var)
    assert not (adata.uns)
    assert not (adata.obsm)
    assert not (adata.varm)
    assert not ([k for k in adata.layers if k is not None])
