from __future__ import annotations

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
