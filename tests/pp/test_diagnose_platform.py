from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import gene_table, load_vocabulary
from bulkformer_tl.encodings._scaling import have_one_distribution, recognise_scaling

# anndata 0.13 sets a pandas option that pandas 3.1 deprecates whenever a view is taken
pytestmark = pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option is deprecated")


@pytest.fixture(scope="module")
def toy():
    adata = bf.datasets.toy(24)
    adata.X = adata.X.toarray()
    return adata


def table(values, names):
    return ad.AnnData(np.asarray(values, dtype=np.float32), var=pd.DataFrame(index=pd.Index(names)))


def finding(report, check):
    rows = report.findings[report.findings["check"] == check]
    assert len(rows) == 1, report.findings
    return rows.iloc[0]


def cells(toy, reads):
    share = toy.X / toy.X.sum(axis=1, keepdims=True)
    return np.random.default_rng(0).poisson(share * reads)


def intensities(toy):
    rng = np.random.default_rng(0)
    level = np.log2(100 + 10 * (toy.X / toy.X.sum(axis=1, keepdims=True) * 1e6) ** 0.7)
    return level + rng.normal(0, 0.1, level.shape)


LOGS = [lambda x: x, lambda x: np.log1p(x / x.sum(axis=1, keepdims=True) * 1e4), lambda x: np.log2(x + 0.5)]


@pytest.mark.parametrize("change", LOGS, ids=["counts", "log", "pseudocount 0.5"])
def test_bulk(toy, change):
    report = bf.pp.diagnose(table(change(toy.X), toy.var_names))
    assert report.platform == "bulk"
    assert finding(report, "platform")["severity"] == "ok"


@pytest.mark.parametrize("change", LOGS, ids=["counts", "log", "pseudocount 0.5"])
@pytest.mark.parametrize("reads", [1000, 8000])
def test_single_cells(toy, reads, change):
    row = finding(bf.pp.diagnose(table(change(cells(toy, reads)), toy.var_names)), "platform")
    assert row["found"].startswith("single-cell: a sample misses")
    assert "sum the counts of many cells" in row["found"]
    assert row["severity"] == "warning"


def test_scaled_single_cells_keep_their_floor(toy):
    log = np.log1p(np.vstack([cells(toy, 3000), cells(toy, 4000)]))
    scaled = (log - log.mean(axis=0)) / np.where(log.std(axis=0) > 0, log.std(axis=0), 1)
    assert bf.pp.diagnose(table(scaled, toy.var_names)).platform == "single-cell"


def test_between_bulk_and_cells_the_report_asks(toy):
    share = 0.3
    values = toy.X * (np.random.default_rng(0).random(toy.shape) > share)
    row = finding(bf.pp.diagnose(table(values, toy.var_names)), "platform")
    assert row["found"].startswith("unknown: a sample misses 3")
    assert "shallow bulk, deep single-cell or pseudobulk" in row["found"]


def test_cells_of_unknown_genes_are_told_by_all_genes(toy):
    names = [f"ENSMUSG{i:011d}" for i in range(toy.n_vars)]
    report = bf.pp.diagnose(table(cells(toy, 5000), names))
    assert (report.platform, report.species) == ("single-cell", "mouse")
    assert "of all genes" in finding(report, "platform")["found"]


@pytest.mark.parametrize("log", [True, False])
def test_arrays(toy, log):
    values = intensities(toy)
    row = finding(bf.pp.diagnose(table(values if log else 2**values, toy.var_names)), "platform")
    assert row["found"].startswith("microarray: ")
    assert "rlog values look alike" in row["found"]
    assert row["severity"] == "warning"


def test_quantile_normalised_values_have_no_unit(toy):
    values = intensities(toy)
    normalised = np.sort(values, axis=1).mean(axis=0)[values.argsort(axis=1).argsort(axis=1)]
    report = bf.pp.diagnose(table(normalised, toy.var_names))
    assert (report.unit, report.platform) == ("unknown", "microarray")
    assert "one distribution, as quantile normalisation makes" in finding(report, "unit")["found"]


def test_variance_stabilised_sequencing_has_a_floor(toy):
    values = np.sqrt(np.log2(toy.X + 1) ** 2 + 16)
    assert bf.pp.diagnose(table(values, toy.var_names)).platform != "microarray"


@pytest.mark.parametrize("n", [500, 1000])
def test_panels(toy, n):
    highest = np.argsort(-toy.X.mean(axis=0))[:n]
    report = bf.pp.diagnose(table(np.log2(toy.X[:, highest] + 1), toy.var_names[highest]))
    assert report.platform == "panel"
    assert "a targeted panel or a selection" in finding(report, "platform")["found"]
    # the embedded model was trained with up to 95 % missing, which 1,000 of its 18,730 genes just keep
    assert finding(report, "coverage")["severity"] == ("warning" if n == 500 else "ok")
    assert "the model was trained with up to 95% missing" in finding(report, "coverage")["found"]


def test_few_corrected_samples_do_not_tell(toy):
    log = np.log2(toy.X + 1)
    centred = (log - log.mean(axis=0))[:8]
    assert bf.pp.diagnose(table(centred, toy.var_names)).platform == "unknown"


def test_cells_that_scanpy_ships():
    import scanpy as sc

    adata = sc.datasets.pbmc68k_reduced()
    report = bf.pp.diagnose(adata)
    assert (report.platform, report.layer, report.unit) == ("single-cell", "raw", "log_scaled_counts")
    units = report.findings.query("check == 'unit' and where == 'X'")["found"].iloc[0]
    assert "standard deviation 1, as z-scores are" in units


def test_scalings_by_hand():
    rng = np.random.default_rng(0)
    log = rng.normal(rng.uniform(1, 9, 300), 0.7, (12, 300))
    centred = log - log.mean(axis=0)
    assert recognise_scaling(centred / log.std(axis=0)) == "z-scores"
    assert recognise_scaling(centred / log.std(axis=0, ddof=1)) == "z-scores"
    assert recognise_scaling(centred) == "centred"
    assert recognise_scaling(log - 3) == "shifted"
    own = (log - log.mean(axis=1, keepdims=True)) / log.std(axis=1, keepdims=True)
    assert recognise_scaling(own) == "sample z-scores"
    assert recognise_scaling(centred[:2]) == "unknown"


def test_draws_of_z_scores_are_z_scores():
    log = np.random.default_rng(0).normal(5, 1.3, (400, 300))
    scaled = (log - log.mean(axis=0)) / log.std(axis=0)
    assert recognise_scaling(scaled[:40]) == "z-scores"


def test_one_distribution_by_hand():
    values = np.array([[1.0, 2, 3, 4], [4, 3, 2, 1], [2, 1, 4, 3]])
    assert have_one_distribution(values)
    assert not have_one_distribution(np.vstack([values, values[:1] * 1.1]))
    # copies have one distribution, too
    assert not have_one_distribution(values[[0, 0, 0]])


@pytest.mark.parametrize("turned", [False, True])
def test_entrez_ids_lead_to_the_same_log_tpm(toy, turned):
    known = gene_table()["entrez"].reindex(toy.var_names)
    kept = ((known != "") & ~known.duplicated()).to_numpy()
    adata = table(toy.X[:, kept], known[kept].to_numpy())
    expected = bf.pp.log_tpm(table(toy.X[:, kept], toy.var_names[kept]), copy=True)
    report = bf.pp.diagnose(adata.T if turned else adata)
    assert (report.identifiers, report.species) == ("entrez", "human")
    assert report.calls[-1] == 'bf.pp.log_tpm(adata, identifiers="entrez")'
    bf.pp.log_tpm(adata, identifiers="entrez")
    np.testing.assert_array_equal(adata.layers["log_tpm"], expected.layers["log_tpm"])


def test_entrez_ids_that_became_decimals_are_mended(toy):
    known = gene_table()["entrez"].reindex(toy.var_names)
    kept = ((known != "") & ~known.duplicated()).to_numpy()
    adata = table(toy.X[:, kept], known[kept].to_numpy() + ".0")
    call = finding(bf.pp.diagnose(adata), "identifiers")["call"]
    exec(call, {"adata": adata})
    assert bf.pp.diagnose(adata).identifiers == "entrez"


def test_numbered_rows_and_small_numbers_are_no_entrez_ids(toy):
    numbers = np.sort(np.random.default_rng(0).choice(19_000, toy.n_vars, replace=False)).astype(str)
    assert bf.pp.diagnose(table(toy.X, numbers)).identifiers is None
    adata = table(toy.X, [f"probe{i}" for i in range(toy.n_vars)])
    adata.var["exons"] = [str(i % 20 + 1) for i in range(toy.n_vars)]
    assert finding(bf.pp.diagnose(adata), "identifiers")["call"] == ""


def test_mouse_ids_among_human_ones_are_noted(toy):
    mouse = [f"ENSMUSG{i:011d}" for i in range(300)]
    adata = table(np.hstack([toy.X, toy.X[:, :300]]), [*toy.var_names, *mouse])
    report = bf.pp.diagnose(adata)
    assert report.species == "human"
    assert "300 ids are of mouse, as of a xenograft" in finding(report, "species")["found"]


def test_sparse_integers_are_told_alike(toy):
    adata = table(cells(toy, 3000), toy.var_names)
    adata.X = sp.csr_matrix(adata.X)
    assert bf.pp.diagnose(adata).platform == "single-cell"
    assert len(load_vocabulary()) > adata.n_vars - 10
