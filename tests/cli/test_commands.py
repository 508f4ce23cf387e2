"""Commands give what the functions behind them give."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

import bulkformer_tl as bf


@pytest.fixture(scope="session")
def expected(table, bundle, tmp_path_factory):
    """The same cohort by the functions."""
    path = tmp_path_factory.mktemp("expected") / "counts.csv"
    table.to_csv(path)
    adata = bf.read(path)
    model = bf.models.load(bundle, device="cpu")
    bf.pp.log_tpm(adata, vocabulary=model.vocabulary, denominator="vocabulary")
    bf.tl.embed(adata, model=model, layer="log_tpm")
    aligned = bf.pp.align_genes(adata, vocabulary=model.vocabulary)
    bf.tl.impute(aligned, model=model, layer="log_tpm")
    return adata, aligned


@pytest.mark.parametrize("name", ["out.h5ad", "out.zarr"])
def test_embed(run, counts, bundle, expected, folder, name):
    ended = run("embed", counts, "--counts", "--model", bundle, "-o", name)
    assert (ended.code, ended.out) == (0, "")
    assert f"wrote {name}" in ended.err
    found = (anndata.read_zarr if name.endswith("zarr") else anndata.read_h5ad)(folder / name)
    np.testing.assert_array_equal(found.obsm["X_bulkformer"], expected[0].obsm["X_bulkformer"])
    np.testing.assert_array_equal(found.X, expected[0].X)
    assert sorted(path.name for path in folder.iterdir()) == ["counts.csv", name]


@pytest.mark.parametrize(("name", "separator"), [("out.csv", ","), ("out.tsv", "\t"), ("out.csv.gz", ",")])
def test_embed_to_a_table(run, counts, bundle, expected, name, separator):
    ended = run("embed", counts, "--counts", "--model", bundle, "-o", name, "--key-added", "bf", "--json")
    found = pd.read_csv(name, sep=separator, index_col="sample")
    np.testing.assert_allclose(found.to_numpy(), expected[0].obsm["X_bulkformer"], rtol=1e-6)
    assert list(found.columns[:2]) == ["bf_0", "bf_1"]
    assert found.index.tolist() == ["s0", "s1", "s2", "s3"]
    answer = ended.json
    assert answer["output"] == name
    assert (answer["n_samples"], answer["width"]) == (4, 32)
    assert answer["params"]["n_found"] == 90


def test_embed_takes_the_denominator_of_the_model(run, counts, bundle, folder):
    run("embed", counts, "--counts", "--model", bundle, "-o", "own.h5ad")
    run("embed", counts, "--counts", "--model", bundle, "-o", "all.h5ad", "--denominator", "all")
    kinds = [
        anndata.read_h5ad(folder / name).uns["log_tpm"]["params"]["denominator"] for name in ("own.h5ad", "all.h5ad")
    ]
    assert kinds == ["vocabulary", "all"]


def test_embed_what_was_converted_before(run, counts, bundle, expected):
    assert run("convert", counts, "log.h5ad", "--to-log-tpm", "--counts", "--model", bundle).code == 0
    assert run("embed", "log.h5ad", "--layer", "log_tpm", "--model", bundle, "-o", "v.csv").code == 0
    found = pd.read_csv("v.csv", index_col=0)
    np.testing.assert_allclose(found.to_numpy(), expected[0].obsm["X_bulkformer"], rtol=1e-6)


def test_impute(run, counts, bundle, expected, folder):
    ended = run("impute", counts, "--counts", "--align", "--model", bundle, "-o", "out.h5ad", "--predicted", "--json")
    found, aligned = anndata.read_h5ad(folder / "out.h5ad"), expected[1]
    for layer in ("imputed", "imputed_sd"):
        np.testing.assert_array_equal(found.layers[layer], aligned.layers[layer])
    assert "imputed_predicted" in found.layers
    assert ended.json["n_predicted"] == 4 * 6
    assert ended.json["n_genes"] == 96


def test_impute_to_a_table_with_genes_in_rows(run, counts, bundle, expected):
    run("impute", counts, "--counts", "--align", "--model", bundle, "-o", "out.tsv.gz", "--genes-in-rows")
    found = pd.read_csv("out.tsv.gz", sep="\t", index_col="gene")
    np.testing.assert_allclose(found.T.to_numpy(), expected[1].layers["imputed"], rtol=1e-6)
    assert not found.isna().any().any()


def test_impute_empty_cells_without_align(run, counts, bundle):
    table = pd.read_csv(counts, index_col=0).astype("Int64")
    table.iloc[0, :5] = pd.NA
    table.to_csv("holes.csv")
    assert run("impute", "holes.csv", "--counts", "--model", bundle, "-o", "out.csv").code == 0
    found = pd.read_csv("out.csv", index_col=0)
    assert found.shape == (4, 90)
    assert not found.isna().any().any()


def test_units_other_than_counts(run, counts, bundle):
    adata = bf.read(counts)
    bf.pp.log_tpm(adata, vocabulary=bundle)
    log2 = np.log2(np.expm1(adata.layers["log_tpm"].astype(float)) + 1)
    pd.DataFrame(log2, index=adata.obs_names, columns=adata.var_names).to_csv("log2.csv")
    options = ("--model", bundle)
    assert run("embed", counts, "--counts", *options, "-o", "a.csv").code == 0
    assert run("embed", "log2.csv", "--unit", "log2_tpm", *options, "-o", "b.csv").code == 0
    a, b = (pd.read_csv(name, index_col=0).to_numpy() for name in ("a.csv", "b.csv"))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_convert_between_formats_and_back(run, counts, folder):
    before = pd.read_csv(counts, index_col=0)
    for source, target in (
        ("counts.csv", "a.h5ad"),
        ("a.h5ad", "b.zarr"),
        ("b.zarr", "c.tsv.gz"),
        ("c.tsv.gz", "d.csv"),
    ):
        assert run("convert", source, target).code == 0
    pd.testing.assert_frame_equal(pd.read_csv("d.csv", index_col=0), before)
    assert run("convert", "d.csv", "e.csv", "--genes-in-rows").code == 0
    pd.testing.assert_frame_equal(
        pd.read_csv("e.csv", index_col=0).T.rename_axis("sample").rename_axis(None, axis=1), before
    )


def test_equal_tables_are_equal_files(run, counts, folder):
    for name in ("a.csv.gz", "b.csv.gz"):
        run("convert", counts, name)
    assert (folder / "a.csv.gz").read_bytes() == (folder / "b.csv.gz").read_bytes()


def test_convert_with_metadata_aligned_and_merged(run, counts, bundle, genes, folder):
    table = pd.read_csv(counts, index_col=0)
    twice = pd.concat([table, table.iloc[:, :1].rename(columns=lambda name: f"{name}.7")], axis=1)
    twice.to_csv("twice.csv")
    pd.DataFrame({"id": table.index, "tissue": list("abab")}).to_csv("samples.csv", index=False)
    options = ("--to-log-tpm", "--counts", "--model", bundle, "--align", "--metadata", "samples.csv")
    ended = run("convert", "twice.csv", "out.h5ad", *options)
    assert ended.code == 3
    assert "pass --merge-duplicates" in ended.err
    ended = run("convert", "twice.csv", "out.h5ad", *options, "--merge-duplicates", "--json")
    assert ended.json["read"]["metadata"]["n_matched"] == 4
    found = anndata.read_h5ad(folder / "out.h5ad")
    assert found.var_names.tolist() == genes
    assert found.obs["tissue"].tolist() == list("abab")
    np.testing.assert_array_equal(found[:, genes[0]].X.ravel(), 2 * table.iloc[:, 0])


def test_diagnose_names_the_command_that_works(run, folder):
    adata = bf.datasets.toy(3)
    table = pd.DataFrame(adata.X.toarray().astype(int), index=adata.obs_names, columns=adata.var["symbol"])
    table.loc[:, ~table.columns.duplicated()].T.to_csv("my counts.csv", index_label="gene")
    ended = run("diagnose", "my counts.csv")
    assert ended.code == 0
    assert "counts" in ended.out
    assert ">>>" not in ended.out
    assert ended.out.rstrip().splitlines()[-1].startswith("Next: bulkformer embed 'my counts.csv' ")
    answer = run("diagnose", "my counts.csv", "--json").json
    assert (answer["unit"], answer["identifiers"], answer["n_samples"]) == ("counts", "symbol", 3)
    assert "--counts" in answer["command"]
    assert "--identifiers symbol" in answer["command"]
    assert {"check", "where", "found", "severity", "call"} == set(answer["findings"][0])


def test_diagnose_says_where_options_end(run, folder):
    adata = bf.datasets.toy(3)
    values = np.where(adata.X.toarray() == 0, -10.0, np.log1p(adata.X.toarray()))
    pd.DataFrame(values, index=adata.obs_names, columns=adata.var_names).to_csv("marked.csv")
    ended = run("diagnose", "marked.csv", "--check")
    assert ended.code == 3
    assert ">>> " in ended.out
    assert "Next:" not in ended.out
    assert run("diagnose", "marked.csv").code == 0


def test_quiet_and_streams(run, counts, bundle):
    ended = run("embed", counts, "--counts", "--model", bundle, "-o", "out.csv", "--quiet")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_warnings_are_one_line_in_options(run, counts, bundle):
    run("convert", counts, "log.h5ad", "--to-log-tpm", "--counts", "--model", bundle, "--denominator", "all")
    ended = run("embed", "log.h5ad", "--layer", "log_tpm", "--model", bundle, "-o", "v.csv", "--quiet")
    assert ended.code == 0
    assert ended.err.startswith("warning: bundle was trained on TPM over 'vocabulary' genes")
    assert "pass --counts --denominator vocabulary" in ended.err
    assert ended.err.count("\n") == 1


def test_progress_shows_on_a_terminal_only(run, counts, bundle, monkeypatch):
    words = ("embed", counts, "--counts", "--model", bundle, "-o", "out.csv", "--force")
    assert "it/s" not in run(*words).err
    monkeypatch.setattr("bulkformer_tl.cli._session._shows_progress", lambda *, quiet: not quiet)
    ended = run(*words)
    assert "embed: 100%" in ended.err
    assert ended.out == ""
    assert "100%" not in run(*words, "-q").err


def test_nothing_is_left_of_a_session(run, counts, bundle):
    import logging
    import warnings

    before = (
        list(logging.getLogger("bulkformer_tl").handlers),
        logging.getLogger("bulkformer_tl").level,
        warnings.showwarning,
    )
    run("convert", counts, "x.csv")
    run("convert", "absent.csv", "y.csv")
    after = (
        list(logging.getLogger("bulkformer_tl").handlers),
        logging.getLogger("bulkformer_tl").level,
        warnings.showwarning,
    )
    assert before == after
