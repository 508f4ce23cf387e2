from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import GeneVocabulary


def cohort(genes, seed):
    counts = np.random.default_rng(seed).poisson(40, (9, len(genes))).astype(np.float32)
    counts[np.random.default_rng(seed + 1).random(counts.shape) < 0.3] = 0
    obs = pd.DataFrame(index=[f"s{i}" for i in range(9)])
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame({"bp": 500.0}, index=genes))


@pytest.fixture
def cohorts():
    """Two cohorts of yeast that share some genes."""
    first, second = cohort([f"Y{i:02}" for i in range(20)], 0), cohort([f"Y{i:02}" for i in range(30, 9, -1)], 5)
    first.var["bp"] = np.arange(500, 520)
    second.X[2, 3] = np.nan
    return [first, second]


def test_equals_numpy(cohorts):
    cohorts[1].X = sp.csr_matrix(cohorts[1].X)
    found = bf.pp.build_vocabulary(cohorts, lengths="bp", min_share=0)
    assert found.ids.tolist() == [f"Y{i:02}" for i in range(31)]
    tables = [pd.DataFrame(c.X.toarray() if sp.issparse(c.X) else c.X, columns=c.var_names) for c in cohorts]
    counts = pd.concat(tables).reindex(columns=found.ids).to_numpy(dtype=float)
    scaled = counts / np.nansum(counts, axis=1, keepdims=True) * 1e4
    expected = [np.median(gene[gene > 0]) for gene in scaled.T]
    np.testing.assert_allclose(found.medians, expected, rtol=1e-12)
    assert found.lengths[[0, 19, 20]].tolist() == [500, 519, 500]
    rates = counts / found.lengths
    log_tpm = np.log1p(rates / np.nansum(rates, axis=1, keepdims=True) * 1e6)
    np.testing.assert_allclose(found.means, np.nanmean(log_tpm, axis=0), rtol=1e-12)
    assert found.symbols is None


def test_shares_decide(cohorts):
    assert len(bf.pp.build_vocabulary(cohorts, min_share=1)) == 10
    assert len(bf.pp.build_vocabulary(cohorts)) == 31
    cohorts[0].X[:, 0] = 0
    cohorts[0].X[1:, 1] = 0
    assert bf.pp.build_vocabulary(cohorts).ids[0] == "Y01"
    assert bf.pp.build_vocabulary(cohorts, min_detected=0.2).ids[0] == "Y02"


def test_without_lengths_there_are_no_means(cohorts):
    found = bf.pp.build_vocabulary(cohorts[0])
    assert found.lengths is None
    assert found.means is None
    assert found.medians is not None


def test_human_genes_know_symbols_and_lengths():
    adata = bf.datasets.toy()[:, :50].copy()
    found = bf.pp.build_vocabulary(adata, min_share=0)
    assert found.symbols is not None
    bf.pp.log_tpm(adata, vocabulary=found)
    of_log = bf.pp.build_vocabulary(adata, layer="log_tpm", unit="log_tpm")
    assert of_log.medians is None
    np.testing.assert_allclose(of_log.means, found.means, rtol=1e-6)


def test_written_and_read_back(cohorts, tmp_path):
    found = bf.pp.build_vocabulary(cohorts, lengths="bp")
    found.to_csv(tmp_path / "genes.csv")
    back = GeneVocabulary.from_csv(tmp_path / "genes.csv")
    for name in ("ids", "lengths", "means", "medians"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))
    pd.DataFrame({"ensembl_id": ["a"], "mean": [1.0]}).to_csv(tmp_path / "old.csv")
    assert GeneVocabulary.from_csv(tmp_path / "old.csv").medians is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "tpm"}, "unit must be 'counts' or 'log_tpm'"),
        ({"unit": "log_tpm"}, "pass unit='counts' for raw counts"),
        ({"min_share": 2}, "min_share must lie between 0 and 1"),
        ({"min_detected": -1}, "min_detected must lie between 0 and 1"),
        ({"layer": "nothing"}, "no layer 'nothing'"),
        ({"identifiers": "symbol"}, "no gene is held"),
    ],
)
def test_bad_options(cohorts, options, message):
    with pytest.raises((ValueError, KeyError), match=message):
        bf.pp.build_vocabulary(cohorts, **options)


def test_bad_cohorts(cohorts):
    with pytest.raises(ValueError, match="no AnnData was passed"):
        bf.pp.build_vocabulary([])
    with pytest.raises(TypeError, match="expected an AnnData"):
        bf.pp.build_vocabulary([cohorts[0], "path"])
    empty = cohorts[0].copy()
    empty.X[1] = 0
    with pytest.raises(ValueError, match=r"drop them: \['s1'\]"):
        bf.pp.build_vocabulary(empty)
    cohorts[0].var_names = ["Y01", *cohorts[0].var_names[1:]]
    with pytest.raises(ValueError, match=r"are all Y01; call adata = bf.pp.merge_duplicates"):
        bf.pp.build_vocabulary(cohorts)
    with pytest.raises(ValueError, match="logarithms"):
        bf.pp.build_vocabulary(ad.AnnData(np.random.default_rng(0).random((4, 3))))
