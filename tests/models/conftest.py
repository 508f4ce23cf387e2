"""The golden models as their files would come from the authors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from bulkformer_tl import models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# the golden networks are far too small for threads to help
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def paper_files(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Arguments of ``load`` for the two golden models of the second generation, and their expected outputs."""
    files = {}
    for letter, weights in (("a", "config_a_dataparallel.pt"), ("b", "config_b_weights.safetensors")):
        folder = tmp_path_factory.mktemp(f"config_{letter}")
        io = load_file(golden / f"config_{letter}_io.safetensors")
        torch.save(io["edge_index"], folder / "graph.pt")
        torch.save(io["edge_weight"], folder / "graph_weight.pt")
        ids = [f"ENSG{i:011d}" for i in range(io["x"].shape[1])]
        pd.DataFrame({"ensg_id": ids}).to_csv(folder / "genes.csv", index=False)
        graph = (folder / "graph.pt", folder / "graph_weight.pt")
        arguments = {"source": golden / weights, "graph": graph, "genes": folder / "genes.csv"}
        files[letter] = {"arguments": arguments, "io": io}
    return files


@pytest.fixture
def paper(paper_files: dict[str, dict[str, Any]]) -> Callable[..., tuple[models.BulkFormer, dict[str, torch.Tensor]]]:
    """Loader of a golden model of the second generation with its expected outputs."""

    def make(letter: str = "a", **changes: Any) -> tuple[models.BulkFormer, dict[str, torch.Tensor]]:
        return models.load(**paper_files[letter]["arguments"], **changes, device="cpu"), paper_files[letter]["io"]

    return make


@pytest.fixture
def preprint_files(golden: Path) -> dict[str, Any]:
    """Arguments of ``load`` for the golden model of the first generation."""
    folder = golden / "bulkformer_preprint"
    return {
        "source": folder / "checkpoint_dataparallel.pt",
        "graph": (folder / "graph.pt", folder / "graph_weight.pt"),
        "genes": folder / "gene_vocabulary.csv",
    }


@pytest.fixture
def values() -> np.ndarray:
    """Five samples for golden config A, with missing and zero values."""
    rng = np.random.default_rng(5)
    x = rng.uniform(0, 9, (5, 64)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = 0
    x[rng.random(x.shape) < 0.15] = np.nan
    return x
