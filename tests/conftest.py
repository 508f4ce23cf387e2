from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import anndata as ad
import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the reference outputs; always there."""
    return GOLDEN


@pytest.fixture(scope="session")
def cohorts() -> Path:
    """Folder of the real cohorts, or a skip that says how to name it."""
    folder = os.environ.get("BULKFORMER_TL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real cohorts are not here: set BULKFORMER_TL_DATA to their folder")
    return Path(folder)


@pytest.fixture(scope="session")
def geneformer_folders(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each golden Geneformer with its dictionaries, as ``geneformer:<folder>`` wants it; not to be changed."""
    files, made = golden / "geneformer", {}
    for version in ("v1", "v2"):
        folder = made[version] = tmp_path_factory.mktemp(version)
        for name in ("config.json", "model.safetensors"):
            shutil.copy(files / f"model_{version}" / name, folder / name)
        shutil.copy(files / f"token_dictionary_{version}.json", folder / "token_dictionary.json")
        for name in ("gene_median_dictionary.json", "ensembl_mapping_dictionary.json"):
            shutil.copy(files / name, folder / name)
    return made


@pytest.fixture(scope="session")
def geneformer_cells(golden: Path) -> ad.AnnData:
    """The cells that the golden Geneformers were asked about; not to be changed."""
    adata = ad.read_h5ad(golden / "geneformer" / "cells.h5ad")
    adata.var_names = adata.var["ensembl_id"].astype(str)
    adata.obs_names = adata.obs["cell_id"].astype(str)
    return adata


@pytest.fixture
def wide_geneformer(geneformer_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A random network of 64 dimensions in place of the golden one, whose 32 are too few for 4 bits."""
    transformers = pytest.importorskip("transformers")
    import torch
    from safetensors.torch import save_file

    folder = Path(shutil.copytree(geneformer_folders["v2"], tmp_path / "wide"))
    # vectors of random weights hardly differ between samples, and less than dropout makes them
    changes = {"hidden_size": 64, "intermediate_size": 128, "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = transformers.BertForMaskedLM(transformers.BertConfig.from_pretrained(folder))
    state = {name: own.contiguous().clone() for name, own in network.state_dict().items() if "decoder" not in name}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
