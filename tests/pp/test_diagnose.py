from __future__ import annotations

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import GeneVocabulary, gene_table, load_vocabulary
from bulkformer_tl.encodings._units import GeneFacts, length_slope, smallest_steps

# anndata 0.13 sets a pandas option that pandas 3.1 deprecates whenever a view is taken
pytestmark = pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option is deprecated")

RNG = np.random.default_rng(1)


@pytest.fixture(scope="module")
def toy():
    adata = bf.datasets.toy(12)
    adata.X = adata.X.toarray()
    return adata


@pytest.fixture(scope="module")
def log_tpm(toy):
    return bf.pp.log_tpm(toy, copy=True).layers["log_tpm"]


def linear(adata, quantity):
    """Turn counts into another linear quantity, written out independently of the package."""
    counts = np.asarray(adata.X, dtype=np.float64)
    lengths = gene_table()["length"].reindex(adata.var_names).fillna(1000).to_numpy()
    total = counts.sum(axis=1, keepdims=True)
    rate = counts / lengths
    factors = np.exp(np.random.default_rng(0).normal(0, 0.3, (len(counts), 1)))
    return {
        "counts": counts,
        "expected_counts": counts
        + (np.random.default_rng(0).random(counts.shape) < 0.4)
        * (counts > 0)
        * np.random.default_rng(2).random(counts.shape),
        "scaled_counts": counts * factors,
        "normalize_total": counts / total * np.median(total),
        "cpm": counts / total * 1e6,
        "fpkm": rate / total * 1e9,
        "tpm": rate / rate.sum(axis=1, keepdims=True) * 1e6,
        "tpm_2_decimals": np.round(rate / rate.sum(axis=1, keepdims=True) * 1e6, 2),
    }[quantity]


def with_values(adata, values):
    return ad.AnnData(np.asarray(values, dtype=np.float32), obs=adata.obs.copy(), var=adata.var.copy())


def find(report, check, where=None):
    rows = report.findings[report.findings["check"] == check]
    rows = rows if where is None else rows[rows["where"] == where]
    assert len(rows) == 1, report.findings
    return rows.iloc[0]


def run(report, adata):
    """Do what the report says; return the AnnData that results."""
    scope = {"adata": adata, "bf": bf, "np": np}
    for call in report.calls:
        if not call.startswith("bf.tl."):
            exec(call, scope)
    return scope["adata"]


LOGS = {"": (lambda x: x), "log_": np.log1p, "log2_": lambda x: np.log2(x + 1), "log10_": lambda x: np.log10(x + 1)}
UNITS = {
    "counts": "counts",
    "expected_counts": "expected_counts",
    "scaled_counts": "scaled_counts",
    "normalize_total": "scaled_counts",
    "cpm": "cpm",
    "fpkm": "tpm_or_fpkm",
    "tpm": "tpm",
    "tpm_2_decimals": "tpm",
}


@pytest.mark.parametrize("prefix", LOGS)
@pytest.mark.parametrize("quantity", UNITS)
def test_units_are_recognised_and_the_call_leads_to_the_same_log_tpm(toy, log_tpm, quantity, prefix):
    adata = with_values(toy, LOGS[prefix](linear(toy, quantity)))
    report = bf.pp.diagnose(adata)
    assert report.unit == prefix + UNITS[quantity]
    assert report.layer is None
    assert report.ok
    made = run(report, adata)
    made = made.X if report.calls == ["bf.tl.embed(adata)"] else made.layers["log_tpm"]
    # expected counts add up to one read, two decimals lose what is below
    tolerance = {"expected_counts": 0.7, "tpm_2_decimals": 0.02}.get(quantity, 2e-3)
    np.testing.assert_allclose(made, log_tpm, atol=tolerance)


@pytest.mark.parametrize("prefix", LOGS)
def test_tpm_of_which_genes_were_dropped_cannot_be_told_from_fpkm(toy, prefix):
    kept = RNG.random(toy.n_vars) < 0.7
    adata = with_values(toy, LOGS[prefix](linear(toy, "tpm")))[:, kept].copy()
    report = bf.pp.diagnose(adata)
    assert report.unit == prefix + "tpm_or_fpkm"
    row = find(report, "unit")
    assert row["severity"] == "note"
    assert "whether they are TPM or FPKM" in row["found"].split("Ask the data's author")[1]
    assert f'unit="{prefix}fpkm"' in find(report, "next step")["call"]


def test_log_tpm_over_the_vocabulary_goes_to_the_model(toy):
    adata = toy.copy()
    bf.pp.log_tpm(adata)
    report = bf.pp.diagnose(adata)
    assert (report.layer, report.unit) == ("log_tpm", "log_tpm")
    assert report.calls == ['bf.tl.embed(adata, layer="log_tpm")']
    assert bf.pp.diagnose(with_values(toy, adata.layers["log_tpm"])).calls == ["bf.tl.embed(adata)"]


def test_log_tpm_over_all_genes_is_scaled_to_the_vocabulary(toy):
    rest = gene_table().index.difference(toy.var_names)[:2000]
    more = np.random.default_rng(0).poisson(2000, (toy.n_obs, len(rest)))
    var = pd.DataFrame(index=toy.var_names.append(rest))
    adata = ad.AnnData(np.hstack([toy.X, more]).astype(np.float32), obs=toy.obs, var=var)
    adata = with_values(adata, np.log1p(linear(adata, "tpm")))
    report = bf.pp.diagnose(adata)
    assert report.unit == "log_tpm"
    assert report.calls == ['bf.pp.to_log_tpm(adata, unit="log_tpm")']


def test_large_counts_may_be_coverage_sums(toy, log_tpm):
    adata = with_values(toy, toy.X * 101)
    report = bf.pp.diagnose(adata)
    assert report.unit == "counts"
    assert "the most frequent value is 101, a read length?" in find(report, "unit")["found"]
    assert "base-pair coverage sums (recount2)" in find(report, "unit")["found"]
    np.testing.assert_allclose(run(report, adata).layers["log_tpm"], log_tpm, atol=1e-5)


@pytest.mark.parametrize(
    ("base", "name", "pseudocount"), [(2.0, "log2_", 0.001), (10.0, "log10_", 0.01), (np.e, "log_", 0.1)]
)
def test_other_pseudocounts_are_found(toy, log_tpm, base, name, pseudocount):
    values = np.log(linear(toy, "tpm") + pseudocount) / np.log(base)
    adata = with_values(toy, values)
    report = bf.pp.diagnose(adata)
    assert report.unit == name + "tpm"
    assert f"pseudocount={pseudocount}" in report.calls[-1]
    made = run(report, adata).layers["log_tpm"]
    np.testing.assert_allclose(made, log_tpm, atol=2e-3)


def test_voom_values_are_log2_cpm(toy, log_tpm):
    counts = linear(toy, "counts")
    adata = with_values(toy, np.log2((counts + 0.5) / (counts.sum(axis=1, keepdims=True) + 1) * 1e6))
    report = bf.pp.diagnose(adata)
    assert report.unit == "log2_cpm"
    np.testing.assert_allclose(run(report, adata).layers["log_tpm"], log_tpm, atol=0.6)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (lambda t: (t - t.mean(axis=0)) / (t.std(axis=0) + 1), "centred per gene"),
        (lambda t: t - 0.3 * np.arange(len(t))[:, None], "log ratios and batch-corrected"),
        (lambda t: np.sqrt(t**2 + 16), "variance-stabilised"),
        (np.round, "bins, ranks, calls"),
        (lambda t: t * 0, "no value differs from zero"),
    ],
    ids=["z-scores", "shifted", "vst", "bins", "zeros"],
)
def test_units_that_lead_nowhere_are_said_so(toy, values, reason):
    report = bf.pp.diagnose(with_values(toy, values(np.log2(linear(toy, "tpm") + 1))))
    assert report.unit == "unknown"
    assert reason in find(report, "unit")["found"]
    assert find(report, "next step")["severity"] == "error"
    assert not report.ok


def test_few_genes_leave_the_base_open(toy):
    panel = toy.var["symbol"].isin(["ALB", "GFAP", "MB", "HBB"]).to_numpy() | (np.arange(toy.n_vars) < 80)
    adata = with_values(toy, np.log2(linear(toy, "fpkm") + 1))[:, panel].copy()
    report = bf.pp.diagnose(adata)
    assert "known genes are too few to tell" in find(report, "unit")["found"]
    assert find(report, "coverage")["severity"] == "warning"


def test_the_best_layer_is_proposed(toy):
    adata = with_values(toy, np.log2(linear(toy, "tpm") + 1))
    adata.layers["scaled"] = (adata.X - adata.X.mean(axis=0)) / (adata.X.std(axis=0) + 1)
    adata.layers["reads"] = sp.csr_matrix(toy.X)
    report = bf.pp.diagnose(adata)
    assert (report.layer, report.unit) == ("reads", "counts")
    assert find(report, "unit", "layers['scaled']")["severity"] == "warning"
    assert find(report, "unit", "X")["found"].startswith("log2_tpm")
    assert report.calls == ['bf.pp.log_tpm(adata, layer="reads")']
    assert report.ok


def test_counts_in_raw_are_found(toy, log_tpm):
    adata = toy.copy()
    adata.raw = adata
    adata.X = (adata.X - adata.X.mean(axis=0)) / (adata.X.std(axis=0) + 1)
    report = bf.pp.diagnose(adata)
    assert report.layer == "raw"
    made = run(report, adata).layers["log_tpm"]
    np.testing.assert_array_equal(made, log_tpm)


def test_masks_are_no_expression(toy):
    adata = toy.copy()
    adata.layers["hidden"] = np.zeros(adata.shape, dtype=bool)
    row = find(bf.pp.diagnose(adata), "unit", "layers['hidden']")
    assert row["found"] == "unknown: bool, not expression"
    assert row["severity"] == "ok"


def test_only_values_and_names_are_read(toy):
    adata = toy.copy()
    adata.uns["unit"] = "log2(TPM+1)"
    adata.layers["log_tpm"] = np.log1p(adata.X)
    bare = adata.copy()
    bare.uns = {}
    bare.obs = pd.DataFrame(index=bare.obs_names)
    bare.var = pd.DataFrame(index=bare.var_names)
    pd.testing.assert_frame_equal(bf.pp.diagnose(adata).findings, bf.pp.diagnose(bare).findings)


def test_nothing_is_written(toy):
    adata = toy.copy()
    bf.pp.diagnose(adata, groups="tissue")
    assert list(adata.uns) == []
    assert [key for key in adata.layers if key is not None] == []
    pd.testing.assert_frame_equal(adata.obs, toy.obs)
    pd.testing.assert_frame_equal(adata.var, toy.var)
    np.testing.assert_array_equal(adata.X, toy.X)


def test_symbols_are_recognised_and_named_in_the_call(toy):
    adata = toy.copy()
    adata.var_names = adata.var["symbol"].astype(str)
    adata = bf.pp.merge_duplicates(adata, identifiers="symbol") if not adata.var_names.is_unique else adata
    report = bf.pp.diagnose(adata)
    assert report.identifiers == "symbol"
    assert report.calls[-1] == 'bf.pp.log_tpm(adata, identifiers="symbol")'
    assert report.coverage > 0.95


def test_versions_are_noted(toy):
    adata = toy.copy()
    adata.var_names = [f"{name}.{i % 9 + 1}" for i, name in enumerate(adata.var_names)]
    report = bf.pp.diagnose(adata)
    assert f"{adata.n_vars:,} ids carry a version" in find(report, "versions")["found"]
    assert report.calls == ["bf.pp.log_tpm(adata)"]
    assert report.coverage == bf.pp.diagnose(toy).coverage


@pytest.mark.parametrize("prefix", LOGS)
def test_duplicates_after_versions_are_dropped_are_merged(toy, prefix):
    adata = with_values(toy, LOGS[prefix](linear(toy, "counts")))
    adata.var_names = [f"{name}.1" for name in adata.var_names]
    again = adata[:, :50].copy()
    again.var_names = [f"{name[:-1]}2" for name in again.var_names]
    adata = ad.concat([adata, again], axis=1, merge="first")
    report = bf.pp.diagnose(adata)
    row = find(report, "duplicates")
    assert "100 columns share 50 genes, 50 of them in the vocabulary" in row["found"]
    assert row["severity"] == "error"
    doubled = toy.copy()
    doubled.X = doubled.X.copy()
    doubled.X[:, :50] *= 2
    expected = bf.pp.log_tpm(doubled, copy=True)
    made = run(report, adata)
    np.testing.assert_allclose(made[:, expected.var_names].layers["log_tpm"], expected.layers["log_tpm"], atol=2e-3)


@pytest.mark.parametrize(
    ("rename", "call"),
    [
        (
            lambda a: a.var["symbol"].astype(str) + "|" + pd.Series(range(a.n_vars), a.var_names).astype(str),
            "split('|').str[0]",
        ),
        (lambda a: a.var_names + "_" + a.var["symbol"].astype(str), "split('_').str[0]"),
        (lambda a: pd.Index([str(10**9 + i) for i in range(a.n_vars)]), "adata.var['symbol'].astype(str)"),
    ],
    ids=["symbol|number", "ensembl_symbol", "var column"],
)
def test_better_names_are_found(toy, rename, call):
    adata = toy.copy()
    adata.var_names = pd.Index(np.asarray(rename(toy), dtype=object))
    report = bf.pp.diagnose(adata)
    row = find(report, "identifiers")
    assert row["severity"] == "error"
    assert row["call"].endswith(call)
    assert report.identifiers is None
    exec(row["call"], {"adata": adata})
    assert bf.pp.diagnose(adata).coverage > 0.95


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (lambda n: [f"ENSMUSG{i:011d}" for i in range(n)], "mouse genes; the model is human"),
        (lambda n: [f"ENSRNOG{i:011d}" for i in range(n)], "another species"),
        (lambda n: [f"ENST{i:011d}.2" for i in range(n)], "transcripts"),
        (
            lambda n: gene_table().query("symbol != ''")["symbol"].str.capitalize().iloc[:n].tolist(),
            "as mouse and rat write",
        ),
        (lambda n: gene_table().query("symbol != ''")["symbol"].str.lower().iloc[:n].tolist(), "in small letters"),
        (lambda n: [f"probe{i}" for i in range(n)], "neither gene ids nor symbols"),
    ],
    ids=["mouse ids", "rat ids", "transcripts", "mouse symbols", "lower case", "probes"],
)
def test_names_that_the_vocabulary_does_not_know(names, what):
    n = 2000
    adata = ad.AnnData(
        RNG.poisson(50, (5, n)).astype(np.float32), var=pd.DataFrame(index=pd.Index(names(n)).astype(str))
    )
    report = bf.pp.diagnose(adata)
    assert what in find(report, "identifiers")["found"]
    assert report.coverage == 0
    assert find(report, "coverage")["severity"] == "error"


def test_dates_instead_of_symbols(toy):
    adata = toy.copy()
    names = adata.var["symbol"].astype(str).tolist()
    names[:2] = ["1-Mar", "2-Sep"]
    adata.var_names = names
    adata = adata[:, ~adata.var_names.duplicated()].copy()
    assert "2 symbols are dates" in find(bf.pp.diagnose(adata), "dates")["found"]


def test_genes_in_rows_are_turned(toy, log_tpm):
    report = bf.pp.diagnose(toy.T)
    assert find(report, "orientation")["severity"] == "error"
    assert report.calls == ["adata = adata.T", "bf.pp.log_tpm(adata)"]
    np.testing.assert_array_equal(run(report, toy.T).layers["log_tpm"], log_tpm)


@pytest.mark.parametrize("sparse", [False, True])
def test_missing_infinite_and_marked_entries_are_counted_and_mended(toy, sparse):
    values = linear(toy, "tpm")
    values[0, 3], values[1, 5:7] = np.nan, np.inf
    adata = with_values(toy, values)
    adata.X = sp.csr_matrix(adata.X) if sparse else adata.X
    report = bf.pp.diagnose(adata)
    assert "1 entries are NaN" in find(report, "missing")["found"]
    assert "2 entries are infinite" in find(report, "infinite")["found"]
    assert not report.ok
    made = run(report, adata)
    assert np.isnan(made.layers["log_tpm"]).sum() == 3
    assert bf.pp.diagnose(made).ok


def test_the_published_marker_is_named(toy):
    adata = with_values(toy, np.log1p(linear(toy, "tpm")))
    adata.X[:, :100] = -10
    report = bf.pp.diagnose(adata)
    assert f"{100 * adata.n_obs:,} entries are -10" in find(report, "marker")["found"]
    assert report.unit == "log_tpm"
    assert np.isnan(run(report, adata).X).sum() == 100 * adata.n_obs


def test_negative_counts_are_counted(toy):
    values = linear(toy, "counts")
    values[0, :3] = -1
    report = bf.pp.diagnose(with_values(toy, values))
    assert "3 entries are negative, down to -1" in find(report, "negative")["found"]
    assert not report.ok


@pytest.mark.parametrize("sparse", [False, True])
def test_empty_samples_are_named_and_dropped(toy, sparse):
    adata = toy.copy()
    adata.X = adata.X.copy()
    adata.X[2] = 0
    adata.X = sp.csr_matrix(adata.X) if sparse else adata.X
    report = bf.pp.diagnose(adata)
    row = find(report, "empty samples")
    assert f"1 samples hold nothing but zeros or NaN ({adata.obs_names[2]})" in row["found"]
    assert run(report, adata).n_obs == toy.n_obs - 1


def test_repeated_sample_names(toy):
    adata = toy.copy()
    adata.obs_names = ["a", *adata.obs_names[1:-1], "a"]
    row = find(bf.pp.diagnose(adata), "sample names")
    assert row["call"] == "adata.obs_names_make_unique()"
    assert "'a'" in row["found"]


def test_coverage_is_that_of_the_vocabulary(toy):
    genes = GeneVocabulary(ids=np.array([*toy.var_names[:30], *[f"ENSG9{i:010d}" for i in range(10)]]), name="mine")
    report = bf.pp.diagnose(toy, vocabulary=genes)
    assert report.coverage == 0.75
    assert "30 of the 40 genes of 'mine' are here, 25.0% are missing" in find(report, "coverage")["found"]
    assert find(report, "coverage")["severity"] == "warning"


def test_missing_entries_count_as_missing_genes(toy):
    adata = with_values(toy, linear(toy, "counts"))
    adata.X[:, ::2] = np.nan
    known = np.isin(adata.var_names, load_vocabulary().ids)
    share = 1 - known[1::2].sum() / len(load_vocabulary())
    assert f"{share:.1%} are missing" in find(bf.pp.diagnose(adata), "coverage")["found"]


def test_the_named_vocabulary_is_in_the_calls(toy, tmp_path):
    path = tmp_path / "genes.csv"
    GeneVocabulary(ids=toy.var_names.to_numpy(dtype=str)).to_csv(path)
    assert bf.pp.diagnose(toy, vocabulary=path).calls == [f'bf.pp.log_tpm(adata, vocabulary="{path}")']


def test_units_are_compared_between_named_groups(toy):
    values = linear(toy, "counts")
    first = (toy.obs["tissue"] == "liver").to_numpy()
    values[first] = linear(toy, "tpm")[first]
    adata = with_values(toy, values)
    row = find(bf.pp.diagnose(adata, groups="tissue"), "units of groups")
    assert "liver: tpm" in row["found"]
    assert "brain: counts" in row["found"]
    assert row["severity"] == "error"
    assert find(bf.pp.diagnose(toy, groups="sex"), "units of groups")["severity"] == "ok"


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, lambda x: x.astype(np.int64)])
def test_storage_does_not_matter(toy, make):
    adata = toy.copy()
    adata.X = make(toy.X)
    pd.testing.assert_frame_equal(bf.pp.diagnose(adata).findings, bf.pp.diagnose(toy).findings)


def test_backed_files_and_views_give_the_same_report(toy, tmp_path):
    toy.write_h5ad(tmp_path / "toy.h5ad")
    backed = ad.read_h5ad(tmp_path / "toy.h5ad", backed="r")
    expected = bf.pp.diagnose(toy).findings
    pd.testing.assert_frame_equal(bf.pp.diagnose(backed).findings, expected)
    backed.file.close()
    pd.testing.assert_frame_equal(bf.pp.diagnose(toy[:, :]).findings, expected)


def test_samples_are_drawn_with_a_seed(toy):
    report = bf.pp.diagnose(toy, n_samples=5)
    assert "values of 5 samples drawn at random were looked at" in find(report, "orientation")["found"]
    pd.testing.assert_frame_equal(report.findings, bf.pp.diagnose(toy, n_samples=5).findings)
    assert not report.findings.equals(bf.pp.diagnose(toy, n_samples=5, rng=7).findings)


def test_the_report_reads_as_text_and_as_a_table(toy):
    adata = toy.copy()
    adata.layers["a<b"] = toy.X
    report = bf.pp.diagnose(adata)
    text = str(report)
    assert text.splitlines()[-1] == "        >>> bf.pp.log_tpm(adata)"
    assert max(map(len, text.splitlines())) <= 110
    html = report._repr_html_()
    assert "a&lt;b" in html
    assert "a<b" not in html
    assert html.count("<tr>") == len(report.findings) + 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"sex": "Gender"},
            KeyError,
            "sex: adata.obs has no column 'Gender'; its columns are ['tissue', 'donor', 'sex']",
        ),
        ({"groups": "study"}, KeyError, "no column 'study'; its columns are ['tissue', 'donor', 'sex']"),
        ({"n_samples": 0}, ValueError, "n_samples must be at least 1, found 0"),
        ({"vocabulary": "nothing"}, ValueError, "no file, folder or model is called 'nothing'"),
    ],
)
def test_bad_arguments(toy, change, error, message):
    with pytest.raises(error, match=re.escape(message)):
        bf.pp.diagnose(toy, **change)


def test_no_data_is_an_error(toy):
    with pytest.raises(ValueError, match="adata is empty: 0 samples"):
        bf.pp.diagnose(toy[:0])
    with pytest.raises(ValueError, match="adata holds no matrix"):
        bf.pp.diagnose(ad.AnnData(obs=toy.obs, var=toy.var))
    with pytest.raises(TypeError, match="expected an AnnData"):
        bf.pp.diagnose(pd.DataFrame(toy.X))


def test_steps_are_those_of_one_read():
    reads = np.random.default_rng(0).integers(1, 90, (3, 200)).astype(float)
    factors = np.array([[0.3], [2.5], [0.07]])
    np.testing.assert_allclose(smallest_steps(reads * factors), factors[:, 0])
    # whole multiples of 0.01 in all samples are decimals, not reads
    assert smallest_steps(reads / 100) is None
    assert smallest_steps(np.random.default_rng(0).lognormal(0, 2, (3, 200))) is None


def test_length_slope_is_the_power_of_length():
    lengths = np.linspace(500, 9000, 300)
    expected = np.random.default_rng(0).uniform(6, 900, 300)
    genes = GeneFacts(lengths, expected, np.ones(300, dtype=bool))
    assert length_slope(3 * (expected * lengths**0.8)[None], genes) == pytest.approx(0.8)
    assert length_slope(expected[None, :], genes) == pytest.approx(0, abs=1e-9)
    assert length_slope(expected[None, :50], GeneFacts(lengths[:50], expected[:50], genes.vocabulary[:50])) == 0


COHORTS = {
    "covid_platelets_gse176480_counts": "counts",
    "covid_pregnancy_gse185557_counts": "counts",
    "brain_mdd_gse102556_counts": "counts",
    "tb_gse107991_counts": "counts",
    "lcl_geuvadis6_counts": "counts",
    "lung_ehf_srp049988_counts": "counts",
    "cellline_hpa21_tpm": "tpm_or_fpkm",
    "pbmc12_tpm": "tpm_or_fpkm",
    "pdxe_fpkm": "tpm_or_fpkm",
}


def read(folder, name):
    adata = ad.read_h5ad(folder / f"{name}.h5ad")[:10].copy()
    adata.X = adata.X.astype(np.float64)
    return adata


@pytest.mark.parametrize("name", COHORTS)
def test_real_cohorts_as_they_are(cohorts, name):
    adata = read(cohorts, name)
    found = {prefix: bf.pp.diagnose(with_values(adata, log(adata.X))).unit for prefix, log in LOGS.items()}
    assert found == {prefix: prefix + COHORTS[name] for prefix in LOGS}


@pytest.mark.parametrize("quantity", ["cpm", "tpm", "fpkm", "normalize_total"])
@pytest.mark.parametrize("name", [name for name, unit in COHORTS.items() if unit == "counts"])
def test_real_cohorts_turned_into_other_units(cohorts, name, quantity):
    adata = read(cohorts, name)
    values = linear(adata, quantity)
    # sums beyond a million cannot be TPM; FPKM of blood full of globin reach them
    beyond = quantity == "fpkm" and values.sum(axis=1).max() > 1.05e6
    found = {prefix: bf.pp.diagnose(with_values(adata, log(values))).unit for prefix, log in LOGS.items()}
    assert found == {prefix: prefix + ("fpkm" if beyond else UNITS[quantity]) for prefix in LOGS}


@pytest.mark.parametrize("name", COHORTS)
def test_real_symbols_and_transposed_tables(cohorts, name):
    adata = read(cohorts, name)
    adata.var_names = adata.var["gene_symbol"].astype(str)
    adata = adata[:, ~adata.var_names.duplicated()].copy()
    turned = bf.pp.diagnose(adata.T)
    assert (turned.unit, turned.identifiers, turned.calls[0]) == (COHORTS[name], "symbol", "adata = adata.T")


def test_coverage_sums_are_suspected(cohorts):
    adata = ad.read_h5ad(cohorts / "crc_metastasis_srp029880_counts.h5ad")
    assert "the most frequent value is 202, a read length?" in find(bf.pp.diagnose(adata), "unit")["found"]
