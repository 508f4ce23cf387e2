from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest
from safetensors.numpy import load_file

import bulkformer_tl as bf

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def latest(golden: Path) -> bf.models.BulkFormer:
    """The tiny third-generation model of the goldens."""
    return bf.models.load(golden / "bulkformer_latest" / "bundle", device="cpu")


@pytest.fixture(scope="session")
def expected(golden: Path) -> dict[str, np.ndarray]:
    """What the reference implementation makes of ``cohort``."""
    return load_file(golden / "bulkformer_latest" / "expected.safetensors")


@pytest.fixture
def cohort(latest: bf.models.BulkFormer, expected: dict[str, np.ndarray]) -> ad.AnnData:
    """The goldens' six samples: ln(TPM+1) with NaN, measured zeros and absent genes, in the model's order."""
    values = expected["pipeline.input"].copy()
    values[values == -10] = np.nan
    adata = ad.AnnData(values)
    adata.var_names = latest.vocabulary.ids
    adata.obs_names = [f"s{i}" for i in range(adata.n_obs)]
    return adata[:, ~np.isnan(values).all(axis=0)].copy()
