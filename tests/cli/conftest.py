from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

from bulkformer_tl import settings
from bulkformer_tl.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


@pytest.fixture
def run(capsys) -> Callable[..., Ended]:
    """Run the command in this process."""

    def call(*words: object) -> Ended:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Ended(code, *capsys.readouterr())

    return call


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working folder and cache."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    with settings.override(cache_dir=tmp_path / "cache"):
        yield place


@pytest.fixture(scope="session")
def bundle(golden) -> Path:
    """The tiny model of the third generation, 96 genes."""
    return golden / "bulkformer_latest" / "bundle"


@pytest.fixture(scope="session")
def genes(bundle) -> list[str]:
    return pd.read_csv(bundle / "gene_vocab.csv")["canonical_ensg"].tolist()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads cost more than they bring on networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def table(genes) -> pd.DataFrame:
    """Raw counts of 4 samples and 90 of the model's genes."""
    values = np.random.default_rng(0).poisson(200, (4, 90))
    return pd.DataFrame(values, index=[f"s{i}" for i in range(4)], columns=genes[:90]).rename_axis("sample")


@pytest.fixture
def counts(folder, table) -> Path:
    """The counts as a file."""
    table.to_csv(folder / "counts.csv")
    return folder / "counts.csv"
