from __future__ import annotations

import logging

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from rnanorm import TPM

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import GeneVocabulary, gene_table, load_vocabulary

GENES = ["ENSG00000141510", "ENSG00000111640", "ENSG00000075624", "ENSG00000000003", "ENSG00000000419"]
LENGTHS = pd.Series([2000.0, 1000.0, 500.0, 4000.0, 250.0], index=GENES)
VOCABULARY = GeneVocabulary(np.array(GENES[:3]), lengths=LENGTHS.to_numpy()[:3], name="three")


def counts(values=None, *, genes=GENES, dtype=np.float32) -> ad.AnnData:
    if values is None:
        values = np.random.default_rng(0).poisson(40, (7, len(genes)))
    values = np.asarray(values, dtype=dtype)
    obs = pd.DataFrame(index=[f"s{i}" for i in range(len(values))])
    return ad.AnnData(values, obs=obs, var=pd.DataFrame(index=list(genes)))


def normalised(adata, **options) -> np.ndarray:
    bf.pp.log_tpm(adata, **{"vocabulary": VOCABULARY, "lengths": LENGTHS, **options})
    return adata.layers["log_tpm"]


def test_by_hand():
    # rates per kb 1, 2 and 2 in the vocabulary; the others are scaled alike
    adata = counts([[2, 2, 1, 8, 0]])
    found = normalised(adata)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.expm1(found), [[2e5, 4e5, 4e5, 4e5, 0]], rtol=1e-5)


@pytest.mark.parametrize("denominator", ["vocabulary", "all"])
def test_agrees_with_rnanorm(denominator, tmp_path):
    adata = counts(np.random.default_rng(1).negative_binomial(1, 0.01, (20, 5)))
    gtf = "".join(
        f'1\tx\texon\t1\t{length:.0f}\t.\t+\t.\tgene_id "{gene}"; gene_version "1";\n'
        for gene, length in LENGTHS.items()
    )
    (tmp_path / "genes.gtf").write_text(gtf)
    genes = GENES if denominator == "all" else GENES[:3]
    expected = TPM(gtf=tmp_path / "genes.gtf").set_output(transform="pandas").fit_transform(adata[:, genes].to_df())
    found = normalised(adata, denominator=denominator, lengths=tmp_path / "genes.gtf")
    np.testing.assert_allclose(found[:, : len(genes)], np.log1p(expected), atol=1e-6)


def test_preprocess_golden(golden):
    expected = np.load(golden / "preprocess_expected.npz")
    adata = ad.AnnData(pd.read_csv(golden / "preprocess_counts.csv", index_col=0))
    lengths = pd.read_csv(golden / "preprocess_gene_length.csv", index_col=0)["length"]
    found = normalised(adata, vocabulary=None, denominator="all", lengths=lengths, default_length=1000)
    np.testing.assert_allclose(found, expected["log_tpm"], atol=1e-6, rtol=0)
    assert not found[list(expected["sample_ids"]).index("S4")].any()
    params = adata.uns["log_tpm"]["params"]
    assert sorted(params["missing_lengths"]) == expected["no_length_genes"].tolist()
    assert (params["n_missing_lengths"], params["default_length"]) == (14, 1000.0)


def test_preprint_golden(golden):
    from safetensors.numpy import load_file

    folder = golden / "bulkformer_preprint"
    adata = ad.AnnData(pd.read_csv(folder / "counts.csv", index_col=0))
    lengths = pd.read_csv(folder / "gene_length.csv", index_col=0)["length"]
    found = normalised(adata, vocabulary=None, denominator="all", lengths=lengths, default_length=1000)
    expected = load_file(folder / "expected.safetensors")["normalized_ln_tpm"]
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def test_latest_golden(golden):
    folder = golden / "bulkformer_latest"
    adata = ad.AnnData(pd.read_csv(folder / "counts.csv", index_col=0))
    found = normalised(adata, vocabulary=folder / "bundle", lengths=None)
    expected = pd.read_csv(folder / "expected_normalized.csv", index_col=0)
    unversioned = adata.var_names.str.split(".").str[0]
    table = pd.DataFrame(found, adata.obs_names, unversioned)[expected.columns]
    np.testing.assert_allclose(table, expected, atol=1e-6, rtol=0)
    assert table.isna().to_numpy().any()
    assert table.to_numpy()[0].min() == 0, "a measured zero is a value"


STORAGE = {
    "csr": lambda adata: ad.AnnData(sp.csr_matrix(adata.X), obs=adata.obs, var=adata.var),
    "csc": lambda adata: ad.AnnData(sp.csc_array(adata.X), obs=adata.obs, var=adata.var),
    "integer": lambda adata: ad.AnnData(adata.X.astype(np.int32), obs=adata.obs, var=adata.var),
    "dask": lambda adata: ad.AnnData(da.from_array(adata.X, chunks=(3, 5)), obs=adata.obs, var=adata.var),
    "dask of csr": lambda adata: ad.AnnData(
        da.from_array(adata.X, chunks=(3, 5)).map_blocks(sp.csr_matrix), obs=adata.obs, var=adata.var
    ),
    "view": lambda adata: ad.concat([adata, adata], index_unique="-")[: adata.n_obs],
}


@pytest.mark.parametrize("storage", STORAGE)
def test_storage_does_not_matter(storage):
    values = np.random.default_rng(2).poisson(1.5, (150, 5))
    values[:, 0] += 1
    adata = counts(values)
    expected = normalised(adata.copy())
    stored = STORAGE[storage](adata)
    found = normalised(stored)
    np.testing.assert_array_equal(found, expected)
    assert isinstance(found, np.ndarray)


@pytest.mark.parametrize("sparse", [False, True])
def test_backed(tmp_path, sparse):
    adata = counts()
    expected = normalised(adata.copy())
    if sparse:
        adata.X = sp.csr_matrix(adata.X)
    adata.write_h5ad(tmp_path / "counts.h5ad")
    backed = ad.read_h5ad(tmp_path / "counts.h5ad", backed="r")
    np.testing.assert_array_equal(normalised(backed), expected)
    copy = bf.pp.log_tpm(backed, vocabulary=VOCABULARY, lengths=LENGTHS, copy=True, key_added="other")
    assert not copy.isbacked
    np.testing.assert_array_equal(copy.layers["other"], expected)
    assert "other" not in backed.layers
    backed.file.close()


def test_layer_copy_and_key():
    adata = counts()
    adata.layers["raw"] = adata.X * 2
    adata.X = -adata.X
    copy = bf.pp.log_tpm(adata, layer="raw", vocabulary=VOCABULARY, lengths=LENGTHS, key_added="x", copy=True)
    assert list(adata.layers) in (["raw"], ["raw", None], [None, "raw"])
    assert not adata.uns
    np.testing.assert_array_equal(copy.layers["x"], normalised(counts()))
    assert copy.uns["x"]["params"]["layer"] == "raw"


def test_params_can_be_written(tmp_path):
    adata = counts()
    normalised(adata, lengths=LENGTHS[:4])
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for read in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        params = read.uns["log_tpm"]["params"]
        assert params["unit"] == "ln(TPM+1)"
        assert params["from_unit"] == "counts"
        assert params["denominator"] == "vocabulary"
        assert params["vocabulary"] == "three"
        assert params["vocabulary_checksum"] == VOCABULARY.checksum
        assert params["identifiers"] == "ensembl"
        assert params["lengths"] == "given"
        assert params["n_missing_lengths"] == 1
        assert list(params["missing_lengths"]) == GENES[4:]
        np.testing.assert_array_equal(read.layers["log_tpm"], adata.layers["log_tpm"])
        bf.pp.log_tpm(read, vocabulary=VOCABULARY, lengths=LENGTHS)
        assert read.uns["log_tpm"]["params"]["n_missing_lengths"] == 0


def test_missing_length_is_reported_and_kept_out(caplog):
    adata = counts([[10, 10, 20, 0, 0]])
    with caplog.at_level(logging.INFO):
        found = normalised(adata, lengths=LENGTHS[[GENES[0], GENES[1], GENES[3], GENES[4]]])
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1
    assert "1 of 5 genes, with 50 % of all counts, have no length in given (ENSG00000075624)" in warned[0]
    assert "default_length=1000" in warned[0]
    np.testing.assert_allclose(np.expm1(found), [[1e6 / 3, 2e6 / 3, np.nan, 0, 0]], rtol=1e-5)


def test_default_length_is_taken_on_request():
    found = normalised(counts([[2, 1, 1, 0, 0]]), lengths=LENGTHS[:2], default_length=1000)
    np.testing.assert_allclose(np.expm1(found), [[1e6 / 3, 1e6 / 3, 1e6 / 3, 0, 0]], rtol=1e-5)


def test_missing_counts_stay_missing():
    found = normalised(counts([[2, np.nan, 0.5, np.nan, 30]]))
    np.testing.assert_allclose(np.expm1(found), [[5e5, np.nan, 5e5, np.nan, 6e7]], rtol=1e-4)


def test_symbols():
    adata = counts(genes=["TP53", "GAPDH", "ACTB", "not a gene", "DPM1"])
    found = normalised(adata, identifiers="symbol")
    np.testing.assert_array_equal(np.delete(found, 3, axis=1), np.delete(normalised(counts()), 3, axis=1))
    assert np.isnan(found[:, 3]).all()
    assert adata.uns["log_tpm"]["params"]["missing_lengths"] == ["not a gene"]


def test_expected_counts_need_not_be_whole():
    assert np.isfinite(normalised(counts([[100.37, 3.2, 50, 1.01, 7]]))).all()


def test_zero_sample():
    zero = np.ones((2, 5))
    zero[1] = 0
    with pytest.raises(ValueError, match=r"sum to zero in 1 of 2 samples \(s1\)"):
        normalised(counts(zero))
    np.testing.assert_array_equal(normalised(counts(zero), denominator="all")[1], np.zeros(5))


FAULTS = {
    "negative": ([[1, -2, 3, 4, 5]], r"go down to -2, .* scaled or batch-corrected"),
    "marker": ([[1, -10, 3, 4, 5]], "hold -10, the published marker"),
    "infinite": ([[1, np.inf, 3, 4, 5]], "hold infinities"),
    "all NaN": ([[1, 2, 3, 4, 5], [np.nan] * 5], r"1 of 2 samples \(s1\) hold nothing but NaN"),
    "logarithms": ([[1.5, 2.5, 3.5, 4.5, 13]], r"at most 13, as logarithms are.*bf\.pp\.to_log_tpm.*log2_tpm"),
    "TPM": ([[0.5, 999_999.5, 0, 0, 0]], r"sum to a million in every sample.*unit=\"tpm\""),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("denominator", ["vocabulary", "all"])
def test_what_is_not_counts_is_refused(fault, denominator):
    values, message = FAULTS[fault]
    adata = counts(values, dtype=np.float64)
    with pytest.raises(ValueError, match=message):
        normalised(adata, denominator=denominator)
    assert not adata.uns
    assert "log_tpm" not in adata.layers


def test_a_part_of_tpm_is_mentioned(caplog):
    normalised(counts([[0.5, 800_000, 0, 0, 0], [0.5, 900_000, 0, 0, 0]]))
    assert "sum to 0.80 to 0.90 million, as TPM of a part of the genes do" in caplog.text


def test_wrong_names_lengths_and_keys_are_refused():
    with pytest.raises(ValueError, match="pass identifiers='symbol'"):
        normalised(counts(genes=["TP53", "GAPDH", "ACTB", "A", "B"]))
    with pytest.raises(ValueError, match=r"share a gene.*merge_duplicates"):
        normalised(counts(genes=[GENES[0], f"{GENES[0]}.3", *GENES[2:]]))
    with pytest.raises(ValueError, match="no gene has a length"):
        normalised(counts(genes=list("abcde")), denominator="all", vocabulary=None, lengths=None)
    with pytest.raises(ValueError, match="must be positive"):
        normalised(counts(), lengths=LENGTHS * 0)
    with pytest.raises(ValueError, match="default_length must be positive"):
        normalised(counts(), default_length=0)
    with pytest.raises(ValueError, match="denominator must be 'vocabulary' or 'all', found 'genes'"):
        normalised(counts(), denominator="genes")
    with pytest.raises(KeyError, match="neither a var column nor a file"):
        normalised(counts(), lengths="bp")
    with pytest.raises(KeyError, match="no layer 'counts'"):
        normalised(counts(), layer="counts")
    taken = counts()
    taken.layers["log_tpm"] = np.zeros((7, 5))
    with pytest.raises(ValueError, match="pass another key_added"):
        normalised(taken)


def test_default_is_the_embedded_vocabulary():
    known = load_vocabulary()
    adata = counts(genes=known.ids[:5])
    bf.pp.log_tpm(adata)
    params = adata.uns["log_tpm"]["params"]
    assert (params["vocabulary"], params["vocabulary_checksum"]) == ("bulkformer-mini", known.checksum)
    np.testing.assert_allclose(np.expm1(adata.layers["log_tpm"].astype(float)).sum(axis=1), 1e6, rtol=1e-5)


@pytest.mark.parametrize("denominator", ["vocabulary", "all"])
def test_real_cohort_sums_to_a_million(cohorts, denominator):
    adata = ad.read_h5ad(cohorts / "lung_adenocarcinoma_gse40419_counts.h5ad")
    vocabulary = GeneVocabulary.from_csv(cohorts / "resources" / "bulkformer_vocab_candidate.csv.gz")
    normalised(adata, vocabulary=vocabulary, lengths=None, denominator=denominator)
    known = gene_table()["length"].reindex(adata.var_names).notna().to_numpy()
    genes = known & (adata.var_names.isin(vocabulary.ids) | (denominator == "all"))
    assert genes.sum() > 17_000
    sums = np.expm1(adata.layers["log_tpm"][:, genes].astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(sums, 1e6, rtol=1e-6)
    assert np.isnan(adata.layers["log_tpm"]).any(axis=0).tolist() == (~known).tolist()
