from __future__ import annotations

import shutil
import tempfile

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
        ({"identifiers": "symbol"}, "is a known human symbol; leave out identifiers="),
        ({"min_share": 1, "min_detected": 1}, "no gene is held by 100% of the 2 cohorts"),
        ({"lengths": "nothing"}, "neither a var column nor a file"),
    ],
)
def test_bad_options(cohorts, options, message):
    if "min_detected" in options:
        cohorts[1].X[0] = np.where(np.arange(21) == 3, 90, 0)
    with pytest.raises((ValueError, KeyError), match=message):
        bf.pp.build_vocabulary(cohorts, **options)


def test_bad_cohorts(cohorts):
    with pytest.raises(ValueError, match="no AnnData was passed"):
        bf.pp.build_vocabulary([])
    with pytest.raises(TypeError, match="expected an AnnData"):
        bf.pp.build_vocabulary([cohorts[0], "path"])
    with pytest.raises(ValueError, match="pass unit='log_tpm' if they are"):
        bf.pp.build_vocabulary(ad.AnnData(np.random.default_rng(0).random((4, 3))))
    with pytest.raises(ValueError, match=r"cohort 1 of 2 shares no gene with the others: its genes are called \['Y00'"):
        bf.pp.build_vocabulary([cohorts[0][:, :10], cohorts[1]])


def test_errors_say_which_cohort(cohorts):
    cohorts[1].X[1] = 0
    with pytest.raises(ValueError, match=r"1 of 9 samples \(s1\) hold no count") as found:
        bf.pp.build_vocabulary(cohorts)
    assert found.value.__notes__ == ["in cohort 2 of 2"]
    with pytest.raises(ValueError, match="hold no count") as found:
        bf.pp.build_vocabulary(cohorts[1])
    assert not hasattr(found.value, "__notes__")


def test_duplicates_are_refused_and_merged_as_the_message_says(cohorts):
    cohorts[0].var_names = ["Y01", *cohorts[0].var_names[1:]]
    with pytest.raises(ValueError, match=r"\['Y01', 'Y01'\] are all Y01; call adata = bf.pp.merge_duplicates\(adata\)"):
        bf.pp.build_vocabulary(cohorts)
    human = ad.AnnData(np.full((4, 3), 50.0))
    human.var_names = ["TP53", "EGFR", "TP53"]
    with pytest.raises(ValueError, match=r"merge_duplicates\(adata, identifiers='symbol'\)"):
        bf.pp.build_vocabulary(human, identifiers="symbol")
    merged = bf.pp.merge_duplicates(human, identifiers="symbol")
    found = bf.pp.build_vocabulary(merged, identifiers="symbol")
    assert found.symbols.tolist() == ["TP53", "EGFR"]
    assert found.ids.tolist() == ["ENSG00000141510", "ENSG00000146648"]
    np.testing.assert_allclose(found.medians, [1e4 * 2 / 3, 1e4 / 3])


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_the_temporary_file_goes(cohorts, temporary, monkeypatch):
    bf.pp.build_vocabulary(cohorts)
    assert list(temporary.iterdir()) == []

    def interrupted(*_):
        assert list(temporary.iterdir()) != []
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "median", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bf.pp.build_vocabulary(cohorts)
    assert list(temporary.iterdir()) == []


def test_a_full_disk_is_noticed_before(cohorts, temporary, monkeypatch):
    usage = shutil.disk_usage(temporary)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="set TMPDIR to a folder of a larger disk"):
        bf.pp.build_vocabulary(cohorts)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("storage", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_files_are_read_in_pieces(cohorts, tmp_path, storage):
    expected = bf.pp.build_vocabulary(cohorts)
    for i, adata in enumerate(cohorts):
        adata.X = storage(adata.X)
        adata.write_h5ad(tmp_path / f"{i}.h5ad")
    stored = [bf.read(tmp_path / f"{i}.h5ad", backed=True) for i in range(2)]
    assert all(adata.isbacked for adata in stored)
    found = bf.pp.build_vocabulary(stored)
    np.testing.assert_array_equal(found.medians, expected.medians)
    for adata in stored:
        adata.file.close()


def test_shares_are_exact():
    counts = np.zeros((100, 2))
    counts[:55, 0] = 1
    counts[:, 1] = 5
    assert len(bf.pp.build_vocabulary(ad.AnnData(counts), min_detected=0.55)) == 2


def test_lengths_of_an_annotation(cohorts, tmp_path):
    exons = [f'I\tx\texon\t1\t{100 + i}\t.\t+\t.\tgene_id "Y{i:02}";' for i in range(31)]
    (tmp_path / "yeast.gtf").write_text("\n".join(exons))
    found = bf.pp.build_vocabulary(cohorts, lengths=tmp_path / "yeast.gtf", min_share=0)
    assert found.lengths.tolist() == [*range(100, 131)]


@pytest.mark.parametrize("name", ["nan", "NA", "007"])
def test_any_name_survives_a_file(name, tmp_path):
    adata = ad.AnnData(np.full((3, 2), 40.0), var=pd.DataFrame(index=[name, "x"]))
    bf.pp.build_vocabulary(adata).to_csv(tmp_path / "genes.csv")
    assert name in GeneVocabulary.from_csv(tmp_path / "genes.csv").ids
