"""Geneformer on the command line: counts go to it as they are."""

from __future__ import annotations

import shutil

import anndata as ad
import numpy as np
import pytest
from safetensors.torch import load_file

pytest.importorskip("transformers")


@pytest.fixture
def files(geneformer_folders, geneformer_cells, tmp_path, monkeypatch):
    shutil.copytree(geneformer_folders["v1"], tmp_path / "tiny")
    adata = geneformer_cells.copy()
    adata.var_names.name = None
    adata.write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("unit", [["--counts"], []])
def test_embed(run, files, golden, unit):
    ended = run("embed", "cells.h5ad", *unit, "--model", "geneformer:tiny", "-o", "out.h5ad")
    assert (ended.code, ended.out) == (0, ""), ended.err
    expected = load_file(golden / "geneformer" / "expected_embeddings.safetensors")["v1.layer-1.cell"]
    found = ad.read_h5ad("out.h5ad")
    np.testing.assert_allclose(found.obsm["X_bulkformer"], expected, rtol=0, atol=2e-5)
    assert "log_tpm" not in found.layers


def test_other_units_are_refused(run, files):
    ended = run("embed", "cells.h5ad", "--unit", "tpm", "--model", "geneformer:tiny", "-o", "out.h5ad")
    assert ended.code != 0
    assert "geneformer:tiny reads raw counts" in ended.err
    ended = run("impute", "cells.h5ad", "--model", "geneformer:tiny", "-o", "out.h5ad")
    assert ended.code != 0
    assert "predicts no ln(TPM+1)" in ended.err
