"""`bulkformer graph` gives what the function behind it gives."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import bulkformer_tl as bf


@pytest.fixture
def adata(counts):
    adata = bf.read(counts)
    bf.pp.log_tpm(adata, denominator="all")
    adata.obs["study"] = "one"
    adata.write_h5ad("cohort.h5ad")
    bf.pp.coexpression_graph(adata, layer="log_tpm", n_neighbors=4)
    return adata


def test_a_bundles_file(run, adata, folder):
    ended = run("graph", "cohort.h5ad", "--layer", "log_tpm", "--n-neighbors", 4, "-o", "graph.safetensors", "--json")
    assert ended.code == 0
    found = load_file(folder / "graph.safetensors")
    edges, weights = bf.pp.graph_edges(adata)
    np.testing.assert_array_equal(found["edge_index"], edges)
    np.testing.assert_array_equal(found["edge_weight"], weights)
    assert ended.json["params"]["n_edges"] == edges.shape[1]
    assert sorted(path.name for path in folder.iterdir()) == ["cohort.h5ad", "counts.csv", "graph.safetensors"]


def test_from_counts(run, counts, adata, folder):
    assert run("graph", counts, "--counts", "--n-neighbors", 4, "-o", "out.h5ad").code == 0
    found = anndata.read_h5ad(folder / "out.h5ad")
    np.testing.assert_array_equal(found.varp["coexpression"].toarray(), adata.varp["coexpression"].toarray())


def test_a_table_of_edges(run, adata):
    assert run("graph", "cohort.h5ad", "--layer", "log_tpm", "--n-neighbors", 4, "-o", "edges.csv").code == 0
    found = pd.read_csv("edges.csv")
    edges, weights = bf.pp.graph_edges(adata)
    assert found["receiver"].tolist() == adata.var_names[edges[0]].tolist()
    assert found["sender"].tolist() == adata.var_names[edges[1]].tolist()
    np.testing.assert_allclose(found["weight"], weights, rtol=1e-6)


def test_pairs_of_ones_own(run, adata, folder):
    pairs = pd.DataFrame([adata.var_names[:2]], columns=["a", "b"])
    pairs.to_csv("pairs.tsv", sep="\t", index=False)
    assert run("graph", "cohort.h5ad", "--edges", "pairs.tsv", "-o", "graph.safetensors").code == 0
    assert load_file(folder / "graph.safetensors")["edge_index"].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--n-neighbors", 90], 3, "--n-neighbors must lie between 1 and 89"),
        (["--groups", "nothing"], 3, "no column 'nothing'"),
        (["--edges", "absent.csv"], 4, "there is no file absent.csv"),
        (["--min-samples", 5], 3, "needs at least 5 samples, found 4"),
    ],
)
def test_refused(run, adata, folder, words, code, message):
    ended = run("graph", "cohort.h5ad", "-o", "graph.safetensors", *words)
    assert ended.code == code
    assert message in ended.err
    assert not (folder / "graph.safetensors").exists()


def test_endings(run, adata):
    assert ".safetensors" in run("graph", "cohort.h5ad", "-o", "graph.txt").err
    assert run("convert", "cohort.h5ad", "graph.safetensors").code == 2
