"""Cohorts that stay on disk: the same numbers from any storage, into memory or into a store that is resumed."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
import zarr
from anndata.experimental import read_lazy

import bulkformer_tl as bf

if TYPE_CHECKING:
    from pathlib import Path

# the goldens' samples miss more than the model was trained with
pytestmark = pytest.mark.filterwarnings("ignore:.* are outside what .* was trained with:UserWarning")

N = 66
FUNCTIONS = {"embed": bf.tl.embed, "impute": bf.tl.impute}


@pytest.fixture
def samples(made) -> ad.AnnData:
    """Return them for a test to write to."""
    return made.copy()


@pytest.fixture(scope="session")
def made(latest, expected) -> ad.AnnData:
    """Samples that fill several blocks, the last one not whole, with a mask of entries to hide."""
    rng = np.random.default_rng(0)
    values = expected["pipeline.input"][rng.integers(6, size=N)]
    values = np.where(values == -10, np.nan, values * rng.uniform(0.5, 1.0, values.shape)).astype(np.float32)
    adata = ad.AnnData(values, var=pd.DataFrame(index=latest.vocabulary.ids))
    adata = adata[:, ~np.isnan(values).all(axis=0)].copy()
    adata.obs_names = [f"s{i}" for i in range(N)]
    adata.obs["tissue"] = pd.Categorical(np.where(np.arange(N) % 2, "liver", "lung"))
    adata.var["chosen"] = np.arange(adata.n_vars) < 40
    adata.uns["study"] = {"name": "one", "years": np.array([2020, 2021])}
    adata.layers["hidden"] = rng.random(adata.shape) < 0.1
    return adata


@pytest.fixture(scope="session")
def in_memory(made, latest) -> dict[str, ad.AnnData]:
    """Results of the usual calls."""
    return {name: call(made, model=latest, copy=True) for name, call in FUNCTIONS.items()}


def stored(kind: str, samples: ad.AnnData, folder: Path) -> ad.AnnData:
    """Return the samples as they are read from some storage."""
    where, _, how = kind.partition(" ")
    adata = samples.copy()
    if "csr" in how:
        adata.X = sp.csr_matrix(np.nan_to_num(adata.X, nan=-1))
        adata.X.data[adata.X.data == -1] = np.nan
    if where in {"zarr2", "zarr3"}:
        group = zarr.open_group(folder / "x.zarr", mode="w", zarr_format=int(where[-1]))
        ad.io.write_elem(group, "/", adata)
        if "csr" not in how:
            ad.io.write_elem(group, "X", adata.X, dataset_kwargs={"chunks": (37, 20)})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(folder / "x.zarr")
        if "lazy" in how:
            return read_lazy(folder / "x.zarr")
        on_disk = ad.io.sparse_dataset(group["X"]) if "csr" in how else group["X"]
        return ad.AnnData(
            on_disk, obs=adata.obs, var=adata.var, uns=adata.uns, layers={"hidden": group["layers/hidden"]}
        )
    if where == "h5ad":
        adata.write_h5ad(folder / "x.h5ad", compression="gzip" if "gzip" in how else None)
        return read_lazy(folder / "x.h5ad") if "lazy" in how else ad.read_h5ad(folder / "x.h5ad", backed="r")
    adata.X = da.from_array(adata.X, chunks=(int(how.split()[-1]), 25 if "columns" in how else -1))
    return adata


KINDS = [
    "h5ad dense",
    "h5ad gzip",
    "h5ad csr",
    "h5ad csr lazy",
    "zarr2 dense",
    "zarr3 csr",
    "zarr2 csr lazy",
    "zarr3 dense lazy",
    "dask rows 7",
    "dask columns 100",
]


INTO_STORE = [
    ("h5ad csr", "embed"),
    ("zarr3 dense lazy", "embed"),
    ("dask rows 7", "embed"),
    ("h5ad gzip", "impute"),
    ("zarr2 csr lazy", "impute"),
]


@pytest.mark.parametrize(
    ("kind", "function"),
    [*((kind, "embed") for kind in KINDS), ("zarr3 csr", "impute"), ("dask columns 100", "impute")],
)
def test_any_storage_gives_the_same_bits(samples, in_memory, latest, tmp_path, kind, function):
    adata = stored(kind, samples, tmp_path)
    FUNCTIONS[function](adata, model=latest, batch_size=3)
    assert_same_results(adata, in_memory[function], function)
    if adata.isbacked:
        adata.file.close()


@pytest.mark.parametrize(("kind", "function"), INTO_STORE)
def test_a_store_gets_the_same_bits_and_the_input_nothing(samples, in_memory, latest, tmp_path, kind, function):
    adata = stored(kind, samples, tmp_path)
    assert FUNCTIONS[function](adata, model=latest, output=tmp_path / "out.zarr", batch_size=5) is None
    assert not {"X_bulkformer", "imputed"} & {*adata.obsm, *adata.layers}
    assert not {"bulkformer", "imputed"} & {*adata.uns}
    assert_same_results(ad.read_zarr(tmp_path / "out.zarr"), in_memory[function], function)
    if adata.isbacked:
        adata.file.close()


def assert_same_results(found: Any, expected: ad.AnnData, function: str) -> None:
    """Compare bit for bit."""
    if function == "embed":
        np.testing.assert_array_equal(found.obsm["X_bulkformer"], expected.obsm["X_bulkformer"], strict=True)
        key = "bulkformer"
    else:
        key = "imputed"
        for layer in ("imputed", "imputed_sd"):
            np.testing.assert_array_equal(found.layers[layer], expected.layers[layer], strict=True)
        for name, values in expected.uns[key]["blend"]["cohort"].items():
            np.testing.assert_array_equal(found.uns[key]["blend"]["cohort"][name], values)
    ours, theirs = ({**adata.uns[key]["params"]} for adata in (found, expected))
    assert {*ours.pop("wrote")} == {*theirs.pop("wrote")}
    assert ours == theirs
    column = f"{key}_in_vocabulary"
    np.testing.assert_array_equal(np.asarray(found.var[column]), expected.var[column])


def test_masks_and_options(samples, latest, tmp_path):
    lazy = stored("zarr3 dense lazy", samples, tmp_path)
    bf.tl.impute(samples, model=latest, mask="hidden", predicted=True, blend=False, key_added="k")
    bf.tl.impute(
        lazy, model=latest, mask="hidden", predicted=True, blend=False, key_added="k", output=tmp_path / "i.zarr"
    )
    imputed = ad.read_zarr(tmp_path / "i.zarr")
    for layer in ("k", "k_sd", "k_predicted"):
        np.testing.assert_array_equal(imputed.layers[layer], samples.layers[layer])
    options: dict[str, Any] = {"pooling": "max", "mask_var": "chosen", "observed_only": False, "key_added": "k2"}
    bf.tl.embed(samples, model=latest, **options)
    bf.tl.embed(lazy, model=latest, **options, output=tmp_path / "e.zarr")
    np.testing.assert_array_equal(ad.read_zarr(tmp_path / "e.zarr").obsm["X_k2"], samples.obsm["X_k2"])


def test_a_store_holds_annotations_and_results_alone(samples, latest, tmp_path):
    bf.tl.embed(stored("zarr2 csr lazy", samples, tmp_path), model=latest, output=str(tmp_path / "out.zarr"))
    found = ad.read_zarr(tmp_path / "out.zarr")
    assert found.X is None
    assert [*found.obsm] == ["X_bulkformer"]
    assert not bf._anndata.named_layers(found)
    assert found.obs.tissue.tolist() == samples.obs.tissue.tolist()
    assert found.var.chosen.tolist() == samples.var.chosen.tolist()
    assert [*found.obs_names, *found.var_names] == [*samples.obs_names, *samples.var_names]
    assert found.uns["study"]["years"].tolist() == [2020, 2021]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zarr", "x.zarr"]
    # what can list no folders, on the web, reads it as well
    consolidated = zarr.open_consolidated(tmp_path / "out.zarr")
    np.testing.assert_array_equal(consolidated["obsm/X_bulkformer"][:], found.obsm["X_bulkformer"])


def test_results_of_before_are_replaced_in_a_lazy_object(samples, latest, tmp_path):
    bf.tl.embed(samples, model=latest)
    samples.write_zarr(tmp_path / "x.zarr")
    lazy = read_lazy(tmp_path / "x.zarr")
    bf.tl.embed(lazy, model=latest, pooling="max")
    assert lazy.uns["bulkformer"]["params"]["pooling"] == "max"
    bf.tl.embed(lazy, model=latest, output=tmp_path / "out.zarr")
    found = ad.read_zarr(tmp_path / "out.zarr")
    np.testing.assert_array_equal(found.obsm["X_bulkformer"], samples.obsm["X_bulkformer"])
    assert bf.tl.embed(lazy, model=latest, copy=True, key_added="k").obsm["X_k"].shape == (N, 32)
    assert "X_k" not in lazy.obsm


def interrupt(model: bf.models.BulkFormer, after: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the model be interrupted, once, and count its calls."""
    original, calls = model.encode, []

    def encode(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == after:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(model, "encode", encode)
    return calls


@pytest.fixture
def unfinished(samples, latest, tmp_path, monkeypatch) -> Path:
    """The folder of a run that was interrupted after 20 of the samples, each of them written alone."""
    monkeypatch.setattr("bulkformer_tl.tl._run.PATIENCE", 0.0)
    with monkeypatch.context() as patch:
        interrupt(latest, 22, patch)
        with pytest.raises(KeyboardInterrupt):
            bf.tl.embed(samples, model=latest, output=tmp_path / "out.zarr")
    assert [path.name for path in tmp_path.iterdir()] == [".out.zarr.unfinished"]
    return tmp_path / ".out.zarr.unfinished"


def test_the_same_call_goes_on(samples, in_memory, latest, unfinished, monkeypatch, caplog):
    calls = interrupt(latest, 0, monkeypatch)
    with caplog.at_level(logging.INFO, logger="bulkformer_tl"):
        bf.tl.embed(samples, model=latest, output=unfinished.with_name("out.zarr"))
    assert len(calls) == N - 20
    assert f"20 of {N} samples are there" in caplog.text
    assert not unfinished.exists()
    assert_same_results(ad.read_zarr(unfinished.with_name("out.zarr")), in_memory["embed"], "embed")


def test_what_a_crash_left_damaged_is_computed_again(samples, in_memory, latest, unfinished, monkeypatch):
    group = zarr.open_group(unfinished / "store.zarr", mode="r+", use_consolidated=False)
    group["obsm/X_bulkformer"][3:5] = 0
    with (unfinished / "journal.jsonl").open("a") as file:
        file.write("\n[20, 2")
    calls = interrupt(latest, 0, monkeypatch)
    bf.tl.embed(samples, model=latest, output=unfinished.with_name("out.zarr"))
    assert len(calls) == N - 20 + 2
    assert_same_results(ad.read_zarr(unfinished.with_name("out.zarr")), in_memory["embed"], "embed")


def test_an_unfinished_run_of_something_else_is_refused(samples, latest, unfinished):
    out = unfinished.with_name("out.zarr")
    with pytest.raises(ValueError, match=r"unfinished run of something else \(pooling was mean and is max\)"):
        bf.tl.embed(samples, model=latest, output=out, pooling="max")
    with pytest.raises(ValueError, match=r"something else \(names was \w+ and is \w+; values was"):
        bf.tl.embed(samples[::-1].copy(), model=latest, output=out)
    changed = samples.copy()
    changed.X[-1, -1] += 1e-6
    with pytest.raises(ValueError, match=r"something else \(values was .* repeat that call, or pass .*overwrite=True"):
        bf.tl.embed(changed, model=latest, output=out)
    with pytest.raises(FileExistsError, match=r"holds an unfinished run; pass .* resume=True"):
        bf.tl.embed(samples, model=latest, output=bf.tl.ZarrOutput(out, resume=False))
    assert json.loads((unfinished / "facts.json").read_text())["pooling"] == "mean"
    bf.tl.embed(changed, model=latest, output=bf.tl.ZarrOutput(out, overwrite=True))
    assert not unfinished.exists()


KILLED = """
import os, signal, sys
import anndata as ad
import bulkformer_tl as bf
from bulkformer_tl.tl import _run

_run.PATIENCE = 0.0
adata = ad.read_h5ad(sys.argv[1], backed="r")
model = bf.models.load(sys.argv[2], device="cpu")
original, calls = model.encode, []

def encode(*args, **kwargs):
    calls.append(1)
    if len(calls) == 24 + 30:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)

model.encode = encode
bf.tl.impute(adata, model=model, output=sys.argv[3], batch_size=2)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_goes_on(samples, in_memory, latest, golden, tmp_path, monkeypatch):
    samples.write_h5ad(tmp_path / "x.h5ad")
    bundle, out = golden / "bulkformer_latest" / "bundle", tmp_path / "out.zarr"
    command = [sys.executable, "-c", KILLED, str(tmp_path / "x.h5ad"), str(bundle), str(out)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(command, check=False, capture_output=True, env=os.environ | threads)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    assert len((tmp_path / ".out.zarr.unfinished" / "journal.jsonl").read_text().split()) > 20
    calls = interrupt(latest, 0, monkeypatch)
    bf.tl.impute(samples, model=latest, output=out)
    assert len(calls) < 24 + N - 20
    assert_same_results(ad.read_zarr(out), in_memory["impute"], "impute")


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        ("out.h5ad", ValueError, r"output is a zarr store and ends in .zarr, found '.*out.h5ad'"),
        ("absent/out.zarr", FileNotFoundError, "there is no folder .*absent to write out.zarr to"),
        ("there.zarr", FileExistsError, r"there.zarr exists; pass output=bf.tl.ZarrOutput\('.*', overwrite=True\)"),
        (bf.tl.ZarrOutput("folder.zarr", overwrite=True), FileExistsError, "folder.zarr is something else than a zarr"),
    ],
)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_outputs_that_cannot_be_written(samples, latest, tmp_path, monkeypatch, output, error, message, function):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "folder.zarr" / "thesis.txt").touch()
    zarr.open_group(tmp_path / "there.zarr", mode="w")
    monkeypatch.setattr(latest, "encode", lambda *_, **__: pytest.fail("the model ran"))
    output = output if isinstance(output, bf.tl.ZarrOutput) else tmp_path / output
    with pytest.raises(error, match=message):
        FUNCTIONS[function](samples, model=latest, output=output)
    with pytest.raises(ValueError, match="leave out copy=True, or output="):
        FUNCTIONS[function](samples, model=latest, output="new.zarr", copy=True)


def test_an_existing_store_is_replaced_when_the_new_one_is_complete(samples, latest, tmp_path, monkeypatch):
    output = bf.tl.ZarrOutput(tmp_path / "out.zarr", overwrite=True)
    bf.tl.embed(samples, model=latest, output=output)
    with monkeypatch.context() as patch:
        interrupt(latest, 3, patch)
        with pytest.raises(KeyboardInterrupt):
            bf.tl.embed(samples, model=latest, output=output, pooling="max")
    assert ad.read_zarr(output.target).uns["bulkformer"]["params"]["pooling"] == "mean"
    bf.tl.embed(samples, model=latest, output=output, pooling="max")
    assert ad.read_zarr(output.target).uns["bulkformer"]["params"]["pooling"] == "max"
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_slots_of_annotations_are_kept(samples, latest, tmp_path):
    samples.uns["bulkformer"] = "mine"
    with pytest.raises(ValueError, match=r"adata.uns\['bulkformer'\] exists .* pass another key_added"):
        bf.tl.embed(samples, model=latest, output=tmp_path / "out.zarr")
    # the vectors of the input are not carried over
    samples.obsm["X_k"] = np.zeros((N, 2))
    bf.tl.embed(samples, model=latest, output=tmp_path / "out.zarr", key_added="k")
    assert samples.obsm["X_k"].shape == (N, 2)


def test_an_error_of_the_disk_ends_the_run(samples, latest, tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        message = "No space left on device"
        raise OSError(message)

    monkeypatch.setattr("bulkformer_tl.tl._results.InStore.write", full)
    with pytest.raises(OSError, match="No space left"):
        bf.tl.embed(samples, model=latest, output=tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()
