"""A dask-backed cohort on several workers: the bits of one process, also where one of them is killed."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import torch
from anndata.experimental import read_lazy

import bulkformer_tl as bf
from bulkformer_tl.tl._results import InMemory, InStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

pytestmark = pytest.mark.filterwarnings("ignore:.* are outside what .* was trained with:UserWarning")

N = 70


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two worker processes of two threads each."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0", memory_limit=0) as cluster,
        Client(cluster) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As many threads as dask gives its workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def samples(latest, expected, one_thread) -> ad.AnnData:
    rng = np.random.default_rng(1)
    values = expected["pipeline.input"][rng.integers(6, size=N)]
    values = np.where(values == -10, np.nan, values * rng.uniform(0.5, 1.0, values.shape)).astype(np.float32)
    obs = pd.DataFrame(index=[f"s{i}" for i in range(N)])
    adata = ad.AnnData(values, obs=obs, var=pd.DataFrame(index=latest.vocabulary.ids))
    adata = adata[:, ~np.isnan(values).all(axis=0)].copy()
    adata.layers["hidden"] = rng.random(adata.shape) < 0.1
    return adata


def on_dask(samples: ad.AnnData, chunks: Any) -> ad.AnnData:
    adata = samples.copy()
    adata.X = da.from_array(samples.X, chunks=chunks)
    return adata


def test_embeds_as_one_process_does(samples, latest, client, tmp_path):
    bf.tl.embed(samples, model=latest)
    adata = on_dask(samples, (25, 40))
    bf.tl.embed(adata, model=latest)
    np.testing.assert_array_equal(adata.obsm["X_bulkformer"], samples.obsm["X_bulkformer"])
    assert adata.uns["bulkformer"]["params"] == samples.uns["bulkformer"]["params"]
    bf.tl.embed(adata, model=latest, output=tmp_path / "out.zarr")
    np.testing.assert_array_equal(
        ad.read_zarr(tmp_path / "out.zarr").obsm["X_bulkformer"], samples.obsm["X_bulkformer"]
    )


def test_imputes_as_one_process_does(samples, latest, client, tmp_path):
    samples.write_zarr(tmp_path / "x.zarr")
    bf.tl.impute(samples, model=latest, mask="hidden", predicted=True)
    for adata in (on_dask(samples, (N, -1)), read_lazy(tmp_path / "x.zarr")):
        bf.tl.impute(adata, model=latest, mask="hidden", predicted=True)
        for layer in ("imputed", "imputed_sd", "imputed_predicted"):
            np.testing.assert_array_equal(adata.layers[layer], samples.layers[layer])


def test_what_is_wrong_with_a_sample_is_said(samples, latest, client):
    samples.X[30, 5] = -1
    with pytest.raises(ValueError, match=r"sample 's30' holds negative values"):
        bf.tl.embed(on_dask(samples, (25, -1)), model=latest)


def test_an_interrupted_run_goes_on_without_the_cluster(samples, latest, client, tmp_path, monkeypatch):
    original, calls = InStore.write, []

    def write(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(InStore, "write", write)
        with pytest.raises(KeyboardInterrupt):
            bf.tl.embed(on_dask(samples, (25, -1)), model=latest, output=tmp_path / "out.zarr")
    bf.tl.embed(samples, model=latest, output=tmp_path / "out.zarr")
    bf.tl.embed(samples, model=latest)
    np.testing.assert_array_equal(
        ad.read_zarr(tmp_path / "out.zarr").obsm["X_bulkformer"], samples.obsm["X_bulkformer"]
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_worker_that_is_killed_is_survived(samples, latest, client, monkeypatch):
    def slowly(block: np.ndarray) -> np.ndarray:
        import time

        time.sleep(0.5)
        return block

    bf.tl.embed(samples, model=latest)
    adata = on_dask(samples, (10, -1))
    adata.X = adata.X.map_blocks(slowly, dtype=np.float32)
    processes = client.run(os.getpid)
    original, calls = InMemory.write, []

    def write(*args: Any) -> None:
        if not calls:
            os.kill(next(iter(processes.values())), signal.SIGKILL)
        calls.append(1)
        original(*args)

    monkeypatch.setattr(InMemory, "write", write)
    bf.tl.embed(adata, model=latest)
    assert len(calls) > 1
    assert set(client.run(os.getpid).values()) != set(processes.values())
    np.testing.assert_array_equal(adata.obsm["X_bulkformer"], samples.obsm["X_bulkformer"])


def test_workers_of_another_version_are_refused(samples, latest, client, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.0.1")
    with pytest.raises(RuntimeError, match=r"the dask worker \S+ has bulkformer-tl \S+, here it is 0.0.1"):
        bf.tl.embed(on_dask(samples, (25, -1)), model=latest)
