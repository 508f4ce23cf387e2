from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bulkformer_tl as bf


def positions(cohort, latest) -> np.ndarray:
    return pd.Index(latest.vocabulary.ids).get_indexer(cohort.var_names)


def test_static_vectors_are_the_models_table(cohort, latest):
    shuffled = cohort[:, np.random.default_rng(0).permutation(cohort.n_vars)].copy()
    bf.tl.gene_embeddings(shuffled, model=latest)
    table = latest.gene_table().numpy()
    np.testing.assert_array_equal(shuffled.varm["bulkformer_genes"], table[positions(shuffled, latest)])


def test_contextual_vectors_are_averages_of_the_reference(cohort, latest, expected):
    bf.tl.gene_embeddings(cohort, model=latest, contextual=True)
    reference = expected["pipeline.gene_level_all"].mean(axis=0)[positions(cohort, latest)]
    np.testing.assert_allclose(cohort.varm["bulkformer_genes"], reference, atol=2e-5, rtol=0)


def test_groups_are_averaged_apart(cohort, latest, expected):
    cohort.obs["state"] = ["a", "a", "b", "b", "b", "a"]
    bf.tl.gene_embeddings(cohort, model=latest, contextual=True, groupby="state")
    for state in ("a", "b"):
        rows = (cohort.obs["state"] == state).to_numpy()
        reference = expected["pipeline.gene_level_all"][rows].mean(axis=0)[positions(cohort, latest)]
        np.testing.assert_allclose(cohort.varm[f"bulkformer_genes_{state}"], reference, atol=2e-5, rtol=0)
    assert "bulkformer_genes" not in cohort.varm


def test_only_the_genes_asked_for(cohort, latest):
    chosen = np.arange(cohort.n_vars) % 7 == 0
    bf.tl.gene_embeddings(cohort, model=latest, contextual=True, key_added="all")
    for contextual in (True, False):
        bf.tl.gene_embeddings(cohort, model=latest, contextual=contextual, mask_var=chosen)
        found = cohort.varm["bulkformer_genes"]
        assert np.isnan(found[~chosen]).all()
        assert not np.isnan(found[chosen]).any()
    bf.tl.gene_embeddings(cohort, model=latest, contextual=True, mask_var=chosen)
    np.testing.assert_array_equal(cohort.varm["bulkformer_genes"][chosen], cohort.varm["all"][chosen])


def test_genes_outside_the_vocabulary_are_missing(cohort, latest):
    cohort.var_names = ["UNKNOWN", *cohort.var_names[1:]]
    bf.tl.gene_embeddings(cohort, model=latest)
    missing = np.isnan(cohort.varm["bulkformer_genes"]).all(axis=1)
    assert missing.tolist() == [True] + [False] * (cohort.n_vars - 1)


def test_protein_vectors_are_appended(cohort, latest):
    protein = pd.DataFrame({"p": [1.0, 2.0]}, index=cohort.var_names[[3, 1]])
    bf.tl.gene_embeddings(cohort, model=latest, protein=protein)
    vectors = cohort.varm["bulkformer_genes"]
    assert vectors.shape == (cohort.n_vars, 33)
    assert (vectors[3, -1], vectors[1, -1]) == (1, 2)
    assert np.isnan(vectors[[0, 2], -1]).all()
    assert cohort.uns["bulkformer_genes"]["params"]["protein_columns"] == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"groupby": "state"}, ValueError, "pass contextual=True"),
        ({"groupby": "state", "contextual": True}, KeyError, "adata.obs has no column 'state'"),
        ({"groupby": "gaps", "contextual": True}, ValueError, r"is missing for 1 samples"),
        ({"groupby": "slash", "contextual": True}, ValueError, "because of its '/'; pass another key_added"),
        ({"protein": pd.DataFrame({"p": [1.0]}, index=["x"])}, ValueError, "no gene of adata is in protein's index"),
        ({"protein": pd.DataFrame({"p": [1.0, 2.0]}, index=["x", "x"])}, ValueError, "protein lists genes twice"),
        ({"mask_var": "absent"}, KeyError, "adata.var has no column 'absent'"),
    ],
)
def test_bad_input(cohort, latest, options, error, message):
    cohort.obs["gaps"] = [None, "a", "a", "a", "a", "a"]
    cohort.obs["slash"] = "a/b"
    with pytest.raises(error, match=message):
        bf.tl.gene_embeddings(cohort, model=latest, **options)
    assert not cohort.varm
    assert not cohort.uns


def test_copy(cohort, latest):
    copied = bf.tl.gene_embeddings(cohort, model=latest, copy=True)
    assert "bulkformer_genes" in copied.varm
    assert not cohort.varm
