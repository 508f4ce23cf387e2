from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import GeneVocabulary

GENES = [f"ENSG{i:011d}" for i in range(30)]
VOCABULARY = GeneVocabulary(np.array(GENES[:20]), name="twenty")
LENGTHS = pd.Series(np.random.default_rng(5).integers(300, 9000, 30).astype(float), index=GENES)
OPTIONS = {"vocabulary": VOCABULARY}
LOGS = {
    "": lambda values: values,
    "log_": np.log1p,
    "log2_": lambda v: np.log2(v + 1),
    "log10_": lambda v: np.log10(v + 1),
}


def table(values) -> ad.AnnData:
    obs = pd.DataFrame(index=[f"s{i}" for i in range(len(values))])
    return ad.AnnData(np.asarray(values, dtype=np.float64), obs=obs, var=pd.DataFrame(index=GENES))


@pytest.fixture
def counts() -> ad.AnnData:
    return table(np.random.default_rng(3).negative_binomial(1, 0.001, (6, 30)))


def linear(counts: ad.AnnData, quantity: str) -> np.ndarray:
    """Return a quantity from its textbook definition."""
    depth = counts.X.sum(axis=1, keepdims=True)
    per_length = counts.X / LENGTHS.to_numpy()
    return {
        "tpm": per_length / per_length.sum(axis=1, keepdims=True) * 1e6,
        "fpkm": per_length / depth * 1e9,
        "cpm": counts.X / depth * 1e6,
    }[quantity]


def expected(counts: ad.AnnData, denominator: str) -> np.ndarray:
    copy = bf.pp.log_tpm(counts, lengths=LENGTHS, denominator=denominator, copy=True, **OPTIONS)
    return copy.layers["log_tpm"]


@pytest.mark.parametrize("denominator", ["vocabulary", "all"])
@pytest.mark.parametrize("quantity", ["tpm", "fpkm", "cpm"])
@pytest.mark.parametrize("prefix", LOGS)
def test_every_unit_leads_to_what_counts_give(counts, prefix, quantity, denominator):
    adata = table(LOGS[prefix](linear(counts, quantity)))
    lengths = LENGTHS if quantity == "cpm" else None
    bf.pp.to_log_tpm(adata, unit=prefix + quantity, lengths=lengths, denominator=denominator, **OPTIONS)
    np.testing.assert_allclose(adata.layers["log_tpm"], expected(counts, denominator), atol=1e-6)
    params = adata.uns["log_tpm"]["params"]
    assert (params["from_unit"], params["unit"], params["denominator"]) == (prefix + quantity, "ln(TPM+1)", denominator)


@pytest.mark.parametrize("target_sum", [None, 1e4, 1e6])
@pytest.mark.parametrize("sparse", [False, True])
def test_scanpy_normalisation_is_undone(counts, target_sum, sparse):
    adata = counts.copy()
    if sparse:
        adata.X = sp.csr_matrix(adata.X)
    sc.pp.normalize_total(adata, target_sum=target_sum)
    sc.pp.log1p(adata)
    bf.pp.to_log_tpm(adata, unit="normalized_log1p", lengths=LENGTHS, **OPTIONS)
    np.testing.assert_allclose(adata.layers["log_tpm"], expected(counts, "vocabulary"), atol=1e-6)


@pytest.mark.parametrize("pseudocount", [0.001, 0.5, 2.0])
def test_pseudocount(counts, pseudocount):
    adata = table(np.log2(linear(counts, "tpm") + pseudocount))
    bf.pp.to_log_tpm(adata, unit="log2_tpm", pseudocount=pseudocount, denominator="all")
    np.testing.assert_allclose(adata.layers["log_tpm"], np.log1p(linear(counts, "tpm")), atol=1e-6)


def test_tpm_over_all_genes_are_left_unscaled(counts):
    half = table(linear(counts, "tpm"))[:, :15].copy()
    bf.pp.to_log_tpm(half, unit="tpm", denominator="all")
    np.testing.assert_allclose(half.layers["log_tpm"], np.log1p(half.X), atol=1e-6)
    bf.pp.to_log_tpm(half, unit="fpkm", denominator="all")
    np.testing.assert_allclose(np.expm1(half.layers["log_tpm"].astype(float)).sum(axis=1), 1e6, rtol=1e-5)


def test_missing_stays_missing_and_measured_zero_a_value(counts):
    values = np.log2(linear(counts, "tpm") + 1)
    values[0, :3], values[0, 3] = np.nan, 0
    adata = table(values)
    copy = bf.pp.to_log_tpm(adata, unit="log2_tpm", key_added="x", copy=True, **OPTIONS)
    assert "x" not in adata.layers
    assert np.isnan(copy.layers["x"][0]).tolist() == [True] * 3 + [False] * 27
    assert copy.layers["x"][0, 3] == 0
    sums = np.expm1(copy.layers["x"][:, :20].astype(float))
    np.testing.assert_allclose(np.nansum(sums, axis=1), 1e6, rtol=1e-5)


@pytest.mark.parametrize(
    ("unit", "values", "message"),
    [
        ("log2_tpm", np.full((1, 30), 20.2), r"reach 20\.2, and log2_tpm ends at 20\.07"),
        ("log10_tpm", np.full((1, 30), 13.0), r"reach 13, and log10_tpm ends at 6\.04"),
        ("log_tpm", np.full((1, 30), 13.0), r"sum to 13\.3 million TPM, and TPM sum to one million"),
        ("log_tpm", np.full((1, 30), 5000.0), r"reach 5,000, and log_tpm ends at 13\.9"),
        ("tpm", np.full((1, 30), 2e6), r"reach 2e\+06, and tpm ends at 1\.1e\+06"),
        ("tpm", np.full((1, 30), 1e5), "sum to 3.0 million TPM"),
        ("tpm", np.full((1, 30), 3.25), 'at most 3.25, as logarithms are, not tpm; pass unit="log2_tpm"'),
        ("cpm", np.full((1, 30), 3.25), 'not cpm; pass unit="log2_cpm"'),
        ("log2_fpkm", np.full((1, 30), 27.0), "reach 27, and log2_fpkm ends at 26.58"),
        ("normalized_log1p", np.full((1, 30), 40.0), "reach 40, and normalized_log1p ends at 23.03"),
        ("log2_cpm", np.full((1, 30), -1.5), "go down to -1.5, below the 0 of a gene that is not expressed"),
        ("log2_tpm", np.full((1, 30), np.nan), "hold nothing but NaN"),
        ("log2_tpm", np.full((1, 30), np.inf), "hold infinities"),
        ("log2_tpm", np.zeros((1, 30)), "sum to zero in 1 of 1 samples"),
        ("counts", np.ones((1, 30)), "unit must be one of .* raw counts go to bf.pp.log_tpm"),
    ],
)
def test_what_cannot_be_the_unit_is_refused(unit, values, message):
    adata = table(values)
    needs = unit in {"cpm", "log2_cpm", "normalized_log1p"}
    with pytest.raises(ValueError, match=message):
        bf.pp.to_log_tpm(adata, unit=unit, lengths=LENGTHS if needs else None, **OPTIONS)
    assert not adata.uns


def test_values_below_the_pseudocount_are_refused(counts):
    values = np.log2(linear(counts, "tpm") + 0.001)
    values[0, 0] = -10
    with pytest.raises(ValueError, match="published marker"):
        bf.pp.to_log_tpm(table(values), unit="log2_tpm", pseudocount=0.001, **OPTIONS)
    values[0, 0] = -10.5
    with pytest.raises(ValueError, match=r"below the -9\.966"):
        bf.pp.to_log_tpm(table(values), unit="log2_tpm", pseudocount=0.001, **OPTIONS)


def test_useless_arguments_are_refused(counts):
    with pytest.raises(ValueError, match="tpm is per length already"):
        bf.pp.to_log_tpm(counts, unit="tpm", lengths=LENGTHS, **OPTIONS)
    with pytest.raises(ValueError, match="fpkm is per length already"):
        bf.pp.to_log_tpm(counts, unit="fpkm", default_length=1000, **OPTIONS)
    with pytest.raises(ValueError, match="pseudocount must be positive, found 0"):
        bf.pp.to_log_tpm(counts, unit="log2_tpm", pseudocount=0, **OPTIONS)


def test_the_wrong_base_is_mentioned(caplog):
    rng = np.random.default_rng(0)
    tpm = rng.lognormal(1, 2, (3, 12_000))
    tpm *= 1e6 / tpm.sum(axis=1, keepdims=True)
    adata = ad.AnnData(np.log(tpm + 1), var=pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(12_000)]))
    bf.pp.to_log_tpm(adata, unit="log_tpm", denominator="all", key_added="right")
    assert caplog.text == ""
    bf.pp.to_log_tpm(adata, unit="log2_tpm", denominator="all", key_added="wrong")
    assert "far from a million: is the base of the logarithm another?" in caplog.text


def test_real_fpkm_and_tpm(cohorts):
    vocabulary = GeneVocabulary.from_csv(cohorts / "resources" / "bulkformer_vocab_candidate.csv.gz")
    for file, unit in (("crc_metastasis_gse50760_fpkm.h5ad", "fpkm"), ("pbmc12_tpm.h5ad", "tpm")):
        adata = ad.read_h5ad(cohorts / file)
        bf.pp.to_log_tpm(adata, unit=unit, vocabulary=vocabulary)
        genes = adata.var_names.isin(vocabulary.ids)
        sums = np.expm1(adata.layers["log_tpm"][:, genes].astype(np.float64)).sum(axis=1)
        np.testing.assert_allclose(sums, 1e6, rtol=1e-6)
