from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from anndata import AnnData

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import GeneVocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

N_GENES = 60
SIZES: dict[str, dict[str, Any]] = {
    "g2": {"dim": 16, "heads": 2},
    "g3": {
        **{"dim": 16, "depth": 1, "heads": 2, "dim_head": 8, "nb_features": 16, "graph_hidden_dim": 8},
        **{"dropout": 0.0, "attention_dropout": 0.0, "graph_dropout": 0.0},
    },
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads cost more than they bring on networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with bf.settings.override(progress=False, device="cpu"):
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def studies() -> dict[str, AnnData]:
    """Six studies of 20 samples; two of them measure fewer genes."""
    adata = bf.datasets.simulate(120, n_vars=N_GENES, n_batches=6, n_differential=10, batch_effect=0.1, rng=1)
    bf.pp.log_tpm(adata, denominator="all")
    found = {}
    for i, (name, rows) in enumerate(adata.obs.groupby("batch", observed=True).groups.items()):
        study = adata[rows, (10 if i == 1 else 0) : (50 if i == 2 else None)]
        values = study.layers["log_tpm"].astype(np.float32)
        found[str(name)] = AnnData(values, obs=study.obs.copy(), var=study.var.copy())
    return found


@pytest.fixture(scope="session")
def files(studies, tmp_path_factory) -> list[Path]:
    """The studies as files, h5ad and zarr, dense and sparse."""
    import scipy.sparse as sp

    folder = tmp_path_factory.mktemp("corpus")
    paths = []
    for i, (name, study) in enumerate(studies.items()):
        stored = study.copy()
        if i % 2:
            stored.X = sp.csr_matrix(stored.X)
        paths.append(folder / f"{name}.{'zarr' if i % 3 == 2 else 'h5ad'}")
        (stored.write_zarr if i % 3 == 2 else stored.write_h5ad)(paths[-1])
    return paths


@pytest.fixture(scope="session")
def vocabulary(studies) -> GeneVocabulary:
    return GeneVocabulary(studies["batch_1"].var_names.to_numpy(dtype=str), name="sixty")


@pytest.fixture(scope="session")
def graph() -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    return generator.integers(0, N_GENES, (2, 200)), generator.uniform(0.1, 1, 200).astype(np.float32)


@pytest.fixture(scope="session")
def config() -> Callable[..., bf.train.PretrainConfig]:
    """A tiny run: 12 rounds of 5 steps of 8 samples, unless something else is said."""

    def make(family="g3", **changes):
        given = {
            "network": SIZES[family],
            "epochs": 4.8,
            "batch_size": 8,
            "checkpoint_every": 5,
            "validation": ("batch_6",),
            "optimizer": bf.train.Optimizer(learning_rate=5e-3),
        }
        return bf.train.PretrainConfig(family=family, **given | changes)

    return make


class Forks:
    """A process that has imported everything, and divides for every run that is asked of it."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("forks.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "BULKFORMER_TL_PROGRESS": "0", "BULKFORMER_TL_DEVICE": "cpu"},
        )

    def start(self, environment: dict[str, str] | None = None, **run: Any) -> int:
        """Start a run and return its process id."""
        return int(self._ask({"environment": environment or {}, "run": run}))

    def wait(self, pid: int) -> int:
        """Return the exit code of a run, negative for a signal."""
        return int(self._ask({"wait": pid}))

    def _ask(self, question: dict[str, Any]) -> str:
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    # started early: it imports while other tests run
    made = Forks()
    yield made
    made.close()
