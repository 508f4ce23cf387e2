"""Expected errors: a line that says what to do, an exit code, and nothing written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest

import bulkformer_tl as bf
from bulkformer_tl.cli import _convert, main
from bulkformer_tl.cli._translate import options_of, translate
from bulkformer_tl.registry import DownloadError


def refused(ended, code, *texts):
    assert ended.code == code
    assert "Traceback" not in ended.err
    for text in texts:
        assert text in ended.err


def test_counts_are_never_guessed(run, counts, bundle, folder):
    for command in ("embed", "impute"):
        refused(run(command, counts, "--model", bundle, "-o", "out.csv"), 3, "raw counts", "pass --counts")
    assert sorted(path.name for path in folder.iterdir()) == ["counts.csv"]


def test_logarithms_are_not_counts(run, counts, bundle):
    (pd.read_csv(counts, index_col=0) + 1).apply(np.log2).to_csv("log.csv")
    refused(
        run("embed", "log.csv", "--counts", "--model", bundle, "-o", "o.csv"), 3, "--unit", "bulkformer diagnose FILE"
    )


def test_symbols_taken_for_ensembl(run, folder):
    adata = bf.datasets.toy(2)
    table = pd.DataFrame(adata.X.toarray(), index=adata.obs_names, columns=adata.var["symbol"])
    table = table.loc[:, ~table.columns.duplicated() & (table.columns != "")]
    table.to_csv("symbols.csv")
    refused(run("convert", "symbols.csv", "o.csv", "--to-log-tpm", "--counts"), 3, "pass --identifiers symbol")
    assert run("convert", "symbols.csv", "o.csv", "--to-log-tpm", "--counts", "--identifiers", "symbol").code == 0


@pytest.mark.parametrize("debug", [False, True])
def test_tracebacks_on_request(run, debug):
    ended = run("convert", "absent.csv", "o.csv", *(["--debug"] if debug else []))
    assert ended.code == 4
    assert ("Traceback" in ended.err) is debug
    assert "there is no file or folder absent.csv" in ended.err


def test_faults_of_the_program_are_not_hidden(run, counts, monkeypatch):
    monkeypatch.setattr(_convert, "matrix_table", lambda *_, **__: [].nothing)
    with pytest.raises(AttributeError):
        run("convert", counts, "o.csv")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["embed", "counts.csv"], "Missing option '-o'"),
        (["embed", "counts.csv", "-o", "out.txt"], ".h5ad, .zarr, .csv"),
        (["embed", "counts.csv", "-o", ".csv"], "endings"),
        (["embed", "counts.csv", "-o", "o.csv", "--unit", "rpkm"], "'rpkm' is not one of"),
        (["convert", "counts.csv", "o.csv", "--to-log-tpm"], "pass --counts or --unit UNIT"),
        (["convert", "counts.csv", "o.csv", "--counts"], "pass --to-log-tpm too"),
        (["convert", "counts.csv", "counts.csv"], "pass --force"),
        (["nothing"], "No such command"),
        (["embed", "counts.csv", "-o", "o.csv", "--min-coverage", "2"], "0<=x<=1"),
    ],
)
def test_usage(run, counts, words, text):
    before = counts.read_bytes()
    refused(run(*words), 2, text)
    assert counts.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["embed", "absent.csv", "-o", "o.csv"], 4, "no file or folder absent.csv"),
        (["embed", "counts.csv", "-o", "no/o.csv"], 4, "no folder no"),
        (
            ["embed", "counts.csv", "-o", "o.csv", "--model", "bulkformer-37M"],
            4,
            "`bulkformer models get bulkformer-37M`",
        ),
        (["embed", "counts.csv", "-o", "o.csv", "--model", "bulkformer-1B"], 3, "the models are"),
        (["embed", "counts.csv", "-o", "o.csv", "--counts", "--unit", "tpm"], 3, "contradict"),
        (["convert", "counts.csv", "o.csv", "--layer", "x"], 3, "no layer 'x'"),
        (["convert", "counts.csv", "o.csv", "--metadata", "m.csv"], 4, "m.csv"),
        (["diagnose", "counts.csv", "--groups", "study"], 3, "no column 'study'"),
        (["models", "verify", "bulkformer-37M"], 4, "`bulkformer models get bulkformer-37M`"),
        (["models", "get", "bulkformer-1B"], 3, "the models are"),
        (["models", "convert", "nowhere.pt", "b"], 4, "no file or folder nowhere.pt"),
    ],
)
def test_codes(run, counts, words, code, text):
    refused(run(*words), code, text)


def test_errors_in_json(run):
    ended = run("convert", "absent.csv", "o.csv", "--json")
    assert ended.json == {"error": {"code": 4, "message": "there is no file or folder absent.csv"}}


def test_failed_downloads(run, monkeypatch):
    def refuse(*_, **__):
        message = "quota"
        raise DownloadError(message)

    monkeypatch.setattr("bulkformer_tl.registry.download", refuse)
    refused(run("models", "get", "bulkformer-37M"), 5, "Error: quota")


def test_systems_refuse_too(run, counts, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    refused(run("convert", counts, "o.csv"), 6, "No space left")


def test_a_layer_of_another_origin_is_not_replaced(run, counts, bundle, folder):
    adata = bf.read(counts)
    adata.layers["log_tpm"] = adata.X * 1.0
    adata.write_h5ad("foreign.h5ad")
    words = ("embed", "foreign.h5ad", "--counts", "--model", bundle, "-o", "o.csv")
    refused(run(*words), 3, "pass --layer log_tpm without a unit")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("all are whole; call bf.pp.log_tpm(adata) first", "all are whole; pass --counts"),
        ("call bf.pp.log_tpm(adata, denominator='all') for", "pass --counts --denominator all for"),
        ('bf.pp.to_log_tpm(adata, unit="tpm"), for log2 unit="log2_tpm"', "--unit tpm, for log2 --unit log2_tpm"),
        ("else call bf.pp.to_log_tpm(adata, unit=...) with", "else pass --unit UNIT with"),
        ("(raw counts go to bf.pp.log_tpm)", "(raw counts go to --counts)"),
        ("see bf.pp.diagnose(adata)", "see `bulkformer diagnose FILE`"),
        ("call adata = bf.pp.merge_duplicates(adata) on counts", "pass --merge-duplicates on counts"),
        ("bf.pp.align_genes(adata) adds them", "--align adds them"),
        ("pass another key_added, or delete it", "pass another --key-added, or delete it"),
        ("pass orientation='genes_by_samples' or", "pass --orientation genes_by_samples or"),
        ("pass thousands=',' if", "pass --thousands , if"),
        ("pass lengths= for them, or default_length=1000, to", "pass --lengths for them, or --default-length 1000, to"),
        ("pass tx2gene=, a table", "pass --tx2gene, a table"),
        ("adata.layers['x'] and adata.X are in adata", "layers['x'] and X are in the data"),
        ("bf.models.download('bulkformer-37M') gets it", "`bulkformer models get bulkformer-37M` gets it"),
        ("pass also graph= and genes=: graph=(edges, weights)", "pass also --graph and --genes: --graph edges weights"),
        ("metadata.csv has 3 columns", "metadata.csv has 3 columns"),
    ],
)
def test_translate(message, text):
    assert translate(message) == text


@pytest.mark.parametrize(
    ("statement", "options"),
    [
        ("bf.pp.log_tpm(adata)", ["--counts"]),
        (
            "bf.pp.log_tpm(adata, layer='a b', identifiers=\"symbol\")",
            ["--counts", "--layer", "a b", "--identifiers", "symbol"],
        ),
        ('bf.pp.to_log_tpm(adata, unit="log2_tpm", pseudocount=0.5)', ["--unit", "log2_tpm", "--pseudocount", "0.5"]),
        ('bf.pp.log_tpm(adata, vocabulary="bulkformer-37M")', ["--counts", "--model", "bulkformer-37M"]),
        ("adata = bf.pp.merge_duplicates(adata)", ["--merge-duplicates"]),
        ("adata = adata.T", []),
        ('bf.tl.embed(adata, layer="log_tpm")', ["--layer", "log_tpm"]),
        ("adata.obs_names_make_unique()", None),
        ("adata.X = np.where(adata.X == -10, np.nan, adata.X)", None),
        ("no python", None),
        ("", None),
    ],
)
def test_options_of(statement, options):
    assert options_of(statement) == options


#: Interrupts are heard also where whoever started the tests had them ignored, as shells do for jobs in the background.
HEARING = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("bulkformer_tl.cli", run_name="__main__", alter_sys=True)
"""


def spawn(*words):
    return subprocess.Popen(
        [sys.executable, "-c", HEARING, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_ctrl_c_leaves_nothing_half_written(genes, bundle, folder):
    values = np.random.default_rng(0).poisson(200, (6000, 90))
    pd.DataFrame(values, columns=genes[:90]).rename(lambda i: f"s{i}").to_csv("many.csv")
    (folder / "out.h5ad").write_bytes(b"what was there before")
    process = spawn("embed", "many.csv", "--counts", "--model", bundle, "-o", "out.h5ad", "--force")
    watch = threading.Timer(600, process.kill)
    watch.start()
    try:
        for line in process.stderr:
            if "6000 samples" in line and "genes found" in line:
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=300)
    finally:
        watch.cancel()
        process.kill()
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert sorted(path.name for path in folder.iterdir()) == ["many.csv", "out.h5ad"]
    assert (folder / "out.h5ad").read_bytes() == b"what was there before"


@pytest.mark.parametrize("name", ["o.csv", "o.h5ad", "o.zarr"])
def test_an_interrupt_while_writing_removes_what_was_begun(run, counts, monkeypatch, folder, name):
    import anndata

    def broken(_self, path, *_, **__):
        if name.endswith("zarr"):
            path.mkdir()
            (path / "zarr.json").write_text("half")
        else:
            path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_csv", broken)
    monkeypatch.setattr(anndata.AnnData, "write_h5ad", broken)
    monkeypatch.setattr(anndata.AnnData, "write_zarr", broken)
    ended = run("convert", counts, name)
    refused(ended, 130, "interrupted; no output was written")
    assert [path.name for path in folder.iterdir()] == ["counts.csv"]


def test_a_request_to_stop_does_so_too(run, counts, monkeypatch, folder):
    def asked_to_stop(_self, path, *_, **__):
        path.write_text("half")
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(pd.DataFrame, "to_csv", asked_to_stop)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        run("convert", counts, "o.csv")
    assert ended.value.code == 143
    assert [path.name for path in folder.iterdir()] == ["counts.csv"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_force_replaces_files_and_stores(run, counts, folder):
    for name in ("o.csv", "o.h5ad", "o.zarr"):
        assert run("convert", counts, name).code == 0
        refused(run("convert", counts, name), 2, "pass --force")
        assert run("convert", counts, name, "--force").code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["counts.csv", "o.csv", "o.h5ad", "o.zarr"]


def test_force_does_not_replace_folders_that_are_no_store(run, counts, folder):
    (folder / "precious.zarr").mkdir()
    (folder / "precious.zarr" / "thesis.txt").write_text("all of it")
    (folder / "folder.csv").mkdir()
    for name in ("precious.zarr", "folder.csv"):
        refused(run("convert", counts, name, "--force"), 2, "is not replaced")
    assert (folder / "precious.zarr" / "thesis.txt").read_text() == "all of it"


def test_in_place_with_force(run, counts, folder):
    run("convert", counts, "a.h5ad")
    assert run("convert", "a.h5ad", "a.h5ad", "--force").code == 0


def test_readers_that_leave_are_no_fault():
    command = f"{sys.executable} -m bulkformer_tl.cli models list --json | head -c 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_main_returns_codes_of_plain_use(capsys):
    assert main(["models", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"]
