"""Modalities side by side: names, order, what is missing, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData

import bulkformer_tl as bf


@pytest.fixture
def mdata() -> MuData:
    rna = AnnData(np.arange(8.0).reshape(4, 2), obs=pd.DataFrame(index=list("abcd")))
    rna.var_names = ["ENSG1", "ENSG2"]
    rna.layers["counts"] = sp.csr_matrix(rna.X * 2)
    # in another order, and without one sample
    protein = AnnData(np.array([[30.0], [10.0], [40.0]]), obs=pd.DataFrame(index=list("cad")))
    protein.var_names = ["CD3"]
    made = MuData({"rna": rna, "protein": protein})
    made.obs["age"] = pd.Series({"a": 1, "b": 2, "c": 3, "d": None}, dtype=float).reindex(made.obs_names)
    made.obs["sex"] = "female"
    return made


def test_features_stand_side_by_side(mdata):
    table = bf.pp.stack_modalities(mdata, layers={"rna": "counts", "protein": None}, obs=["age"])
    assert table.var_names.tolist() == ["ENSG1", "ENSG2", "protein:CD3", "obs:age"]
    assert table.var["modality"].tolist() == ["rna", "rna", "protein", "obs"]
    expected = pd.DataFrame(
        [[0, 2, 10, 1], [4, 6, np.nan, 2], [8, 10, 30, 3], [12, 14, 40, np.nan]], index=list("abcd")
    )
    np.testing.assert_array_equal(table.X, expected.loc[table.obs_names].to_numpy(dtype=np.float32))
    assert table.X.dtype == np.float32
    assert table.obs["sex"].tolist() == ["female"] * 4


def test_modalities_that_are_not_named_are_left_out(mdata):
    assert bf.pp.stack_modalities(mdata, layers={"protein": None}).var_names.tolist() == ["protein:CD3"]
    assert bf.pp.stack_modalities(mdata).n_vars == 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": {"atac": None}}, KeyError, "no modality 'atac'; it has"),
        ({"layers": {"rna": "tpm"}}, KeyError, "tpm"),
        ({"obs": ["height"]}, KeyError, "no column 'height'"),
        ({"obs": ["sex"]}, ValueError, "holds what is no number from 0"),
        ({"obs": ["change"]}, ValueError, "holds what is no number from 0"),
        ({"obs": ["age", "age"]}, ValueError, "several features are called 'obs:age'"),
    ],
)
def test_what_cannot_be_stacked_is_refused(mdata, options, error, message):
    mdata.obs["change"] = -1.0
    with pytest.raises(error, match=message):
        bf.pp.stack_modalities(mdata, **options)


def test_only_a_mudata_of_shared_samples(mdata):
    with pytest.raises(TypeError, match="takes a MuData, found AnnData"):
        bf.pp.stack_modalities(mdata["rna"])
    parts = {name: AnnData(np.ones((2, 3)), obs=pd.DataFrame(index=[f"{name}1", f"{name}2"])) for name in "ab"}
    with pytest.raises(ValueError, match="share genes rather than samples"):
        bf.pp.stack_modalities(MuData(parts, axis=1))
