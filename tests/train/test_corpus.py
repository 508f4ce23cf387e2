"""What is read is what was stored, in an order that only the seed decides."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData

from bulkformer_tl.train import Source
from bulkformer_tl.train._corpus import Corpus, Order


@pytest.fixture
def memory(studies, vocabulary):
    return Corpus([Source(study, name=name) for name, study in studies.items()], vocabulary)


def test_files_equal_memory(memory, files, vocabulary):
    stored = Corpus(list(map(str, files)), vocabulary)
    rows = np.random.default_rng(0).permutation(len(memory))
    np.testing.assert_array_equal(stored.read(rows), memory.read(rows))
    np.testing.assert_array_equal(stored.read(np.arange(len(memory))), memory.read(np.arange(len(memory))))
    assert stored.checksum == memory.checksum


def test_order_of_files_does_not_matter(files, vocabulary):
    corpora = [Corpus(sources, vocabulary) for sources in (files, files[::-1])]
    assert len({corpus.checksum for corpus in corpora}) == 1
    rows = np.arange(0, 120, 7)
    np.testing.assert_array_equal(*(corpus.read(rows) for corpus in corpora))


def test_dask_and_backed(studies, vocabulary, tmp_path):
    import dask.array as da
    from anndata import read_h5ad

    study = studies["batch_1"]
    lazy = AnnData(da.from_array(study.X, chunks=(7, 60)), obs=study.obs, var=study.var)
    study.write_h5ad(tmp_path / "backed.h5ad")
    backed = read_h5ad(tmp_path / "backed.h5ad", backed="r")
    rows = np.array([3, 4, 5, 19, 0])
    for adata in (lazy, backed):
        np.testing.assert_array_equal(Corpus(adata, vocabulary).read(rows), study.X[rows])
    backed.file.close()


def test_absent_genes_are_missing_unless_the_annotation_knows_them(studies, vocabulary, caplog):
    study = studies["batch_3"]
    absent = vocabulary.ids[50:]
    with caplog.at_level(logging.INFO):
        plain = Corpus(study, vocabulary)
        plain.scan(np.ones(20, bool))
    assert "50 of 60 genes measured, 0 absent ones are zeros by its annotation, 10 missing" in caplog.text
    values = plain.read(np.arange(20))
    assert np.isnan(values[:, 50:]).all()
    np.testing.assert_array_equal(values[:, :50], study.X)

    annotation = [*(f"{gene}.3" for gene in absent[:4]), *study.var_names, "ENSG_other"]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        known = Corpus(Source(study, annotation=annotation), vocabulary)
        known.scan(np.ones(20, bool))
    assert "50 of 60 genes measured, 4 absent ones are zeros by its annotation, 6 missing" in caplog.text
    values = known.read(np.arange(20))
    assert (values[:, 50:54] == 0).all()
    assert np.isnan(values[:, 54:]).all()


def test_unstored_entries_are_zeros_and_nan_stays_missing(studies, vocabulary):
    study = studies["batch_1"].copy()
    study.X[0, 0], study.X[1, 1] = 0, np.nan
    study.X = sp.csr_matrix(study.X)
    values = Corpus(study, vocabulary).read(np.arange(2))
    assert values[0, 0] == 0
    assert np.isnan(values[1, 1])


def test_moments_are_those_of_training_samples(memory):
    training = memory.split(("batch_2", "batch_6"), 0)
    moments = memory.scan(training)
    values = memory.read(np.flatnonzero(training))
    np.testing.assert_allclose(moments.mean, np.nanmean(values, axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments.variance, np.nanvar(values, axis=0), rtol=1e-3, atol=1e-3)


def test_split_leaves_whole_studies_out(memory):
    named = memory.split(("batch_2",), 0)
    assert set(memory.studies[~named]) == {"batch_2"}
    for seed in range(10):
        drawn = memory.split(0.2, seed)
        assert 0.1 <= (~drawn).mean() <= 0.4
        assert not set(memory.studies[drawn]) & set(memory.studies[~drawn])
    assert (memory.split(0.2, 1) == memory.split(0.2, 1)).all()
    assert len({tuple(memory.split(0.2, seed)) for seed in range(10)}) > 1


def test_studies_from_a_column(studies, vocabulary):
    adata = studies["batch_1"].copy()
    adata.obs["study"] = np.repeat(["a", "b"], 10)
    corpus = Corpus([Source(adata, study="study", name="x"), Source(studies["batch_2"], name="b")], vocabulary)
    left_out = ~corpus.split(("b",), 0)
    # a study can lie in several sources
    assert left_out.sum() == 30


@pytest.mark.parametrize("together", [1, 4])
def test_order_visits_every_training_sample_once_per_epoch(together):
    training = np.ones(50, bool)
    training[[3, 20, 21]] = False
    order = Order(training, np.array([0, 10, 50]), together, 5)
    n = len(order.rows)
    epochs = [order.take(np.arange(i * n, (i + 1) * n)) for i in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.flatnonzero(training))
    assert (epochs[0] != epochs[1]).any()
    # wherever one begins
    np.testing.assert_array_equal(order.take(np.arange(n - 5, n + 5)), np.r_[epochs[0][-5:], epochs[1][:5]])
    assert (Order(training, np.array([0, 10, 50]), together, 6).take(np.arange(n)) != epochs[0]).any()


def test_neighbours_stay_together():
    order = Order(np.ones(64, bool), np.array([0, 64]), 8, 0).take(np.arange(64)).reshape(8, 8)
    assert (np.diff(order, axis=1) == 1).all()
    assert (order[:, 0] % 8 == 0).all()
    assert (np.diff(order[:, 0]) != 8).any()


def faulty(studies, change):
    adata = studies["batch_1"].copy()
    change(adata)
    return adata


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: setattr(a, "X", np.expm1(a.X).round() + 20), ValueError, r"whole numbers.*bf\.pp\.log_tpm\(adata\)"),
        (lambda a: setattr(a, "X", np.minimum(a.X.round(), 5)), ValueError, r"all its values are whole numbers"),
        (lambda a: setattr(a, "X", a.X - 5), ValueError, "row 0 holds negative values"),
        (lambda a: a.layers.update(log_tpm=a.X.copy(), bad=-a.X), ValueError, "or pass layer='log_tpm'"),
        (lambda a: setattr(a, "var_names", [f"gene{i}" for i in range(60)]), ValueError, "mine: no gene of 'sixty'"),
        (lambda a: setattr(a, "X", sp.csc_matrix(a.X)), ValueError, r"stored by columns.*tocsr"),
    ],
)
def test_faults_of_a_source(studies, vocabulary, change, error, message):
    adata = faulty(studies, change)
    layer = "bad" if "bad" in adata.layers else None
    with pytest.raises(error, match=message):
        Corpus(Source(adata, name="mine", layer=layer), vocabulary).scan(np.ones(20, bool))


def test_faults_of_files(studies, vocabulary, tmp_path):
    study = studies["batch_1"].copy()
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        Corpus(tmp_path / "absent.h5ad", vocabulary)
    (tmp_path / "table.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match="neither an h5ad file nor a zarr store"):
        Corpus(tmp_path / "table.csv", vocabulary)
    study.layers["columns"] = sp.csc_matrix(study.X)
    study.write_h5ad(tmp_path / "study.h5ad")
    with pytest.raises(ValueError, match=r"layers/columns is stored by columns \(CSC\).*tocsr"):
        Corpus(Source(tmp_path / "study.h5ad", layer="columns"), vocabulary)
    with pytest.raises(KeyError, match=r"no layers/other; its layers are \['columns'\]"):
        Corpus(Source(tmp_path / "study.h5ad", layer="other"), vocabulary)
    with pytest.raises(KeyError, match="obs has no column 'lab'"):
        Corpus(Source(tmp_path / "study.h5ad", study="lab"), vocabulary)


def test_faults_of_studies(studies, vocabulary, memory):
    study = studies["batch_1"].copy()
    with pytest.raises(ValueError, match="the corpus is empty"):
        Corpus([], vocabulary)
    with pytest.raises(ValueError, match=r"several sources are called 'x'; tell them apart"):
        Corpus([Source(study, name="x"), Source(study, name="x")], vocabulary)
    with pytest.raises(ValueError, match=r"single study, 'source_1'.*study='batch'"):
        Corpus(study, vocabulary).split(0.1, 0)
    with pytest.raises(ValueError, match=r"\['batch_9'\] are none of them"):
        memory.split(("batch_9",), 0)
    with pytest.raises(ValueError, match="all of them are left out"):
        memory.split(tuple(studies), 0)
    study.obs["lab"] = [None] + ["a"] * 19
    with pytest.raises(ValueError, match="1 samples have no study"):
        Corpus(Source(study, study="lab"), vocabulary)
