from __future__ import annotations

import anndata as ad
import dask.array as da
import numpy as np
import pytest
import scipy.sparse as sp
import zarr

from bulkformer_tl import _anndata as access


@pytest.fixture
def dense() -> np.ndarray:
    values = np.random.default_rng(0).poisson(1.0, (7, 5)).astype(np.float32)
    values[2, 3] = np.nan
    return values


@pytest.fixture
def adata(dense) -> ad.AnnData:
    return ad.AnnData(dense.copy())


STORAGES = {
    "dense": lambda x, _: x,
    "csr_matrix": lambda x, _: sp.csr_matrix(x),
    "csc_matrix": lambda x, _: sp.csc_matrix(x),
    "csr_array": lambda x, _: sp.csr_array(x),
    "csc_array": lambda x, _: sp.csc_array(x),
    "dask": lambda x, _: da.from_array(x, chunks=(3, 5)),
    "dask_csc": lambda x, _: da.from_array(sp.csc_matrix(x), chunks=(3, 5)),
    "zarr": lambda x, path: zarr.create_array(str(path / "x.zarr"), data=x),
}


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("size", [1, 3, 64])
def test_row_blocks_give_the_dense_matrix_from_any_storage(dense, storage, size, tmp_path):
    matrix = STORAGES[storage](dense, tmp_path)
    rows, blocks = zip(*access.row_blocks(matrix, size=size), strict=True)
    np.testing.assert_array_equal(np.concatenate(blocks), dense)
    assert [s.start for s in rows] == list(range(0, 7, size))
    assert all(b.dtype == np.float32 and b.flags.c_contiguous for b in blocks)


class Chunked:
    """A matrix that counts which rows are read."""

    def __init__(self, values, chunks) -> None:
        self.values, self.chunks, self.shape, self.read = values, chunks, values.shape, []

    def __getitem__(self, rows):
        self.read.append((rows.start, rows.stop))
        return self.values[rows]


@pytest.mark.parametrize(
    ("chunks", "read"),
    [
        ((4, 2), [(0, 4), (4, 7)]),
        ((2, 5), [(0, 4), (4, 7)]),
        (((1, 5, 1), (5,)), [(0, 6), (6, 7)]),
        ((100, 5), [(0, 7)]),
    ],
)
def test_row_blocks_read_each_chunk_once(dense, chunks, read):
    matrix = Chunked(dense, chunks)
    rows, blocks = zip(*access.row_blocks(matrix, size=3), strict=True)
    assert matrix.read == read
    assert [(s.start, s.stop) for s in rows] == [(0, 3), (3, 6), (6, 7)]
    np.testing.assert_array_equal(np.concatenate(blocks), dense)


def test_row_blocks_do_not_read_a_huge_chunk_at_once(dense, monkeypatch):
    monkeypatch.setattr(access, "MOST_BYTES", 8 * 5 * 4)
    matrix = Chunked(dense, (7, 5))
    blocks = [block for _, block in access.row_blocks(matrix, size=3)]
    assert matrix.read == [(0, 4), (4, 7)]
    np.testing.assert_array_equal(np.concatenate(blocks), dense)


@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_row_blocks_of_backed_data(dense, kind, tmp_path):
    path = tmp_path / "x.h5ad"
    ad.AnnData(dense if kind == "dense" else sp.csr_matrix(dense)).write_h5ad(path)
    backed = ad.read_h5ad(path, backed="r")
    blocks = [block for _, block in access.row_blocks(access.get_matrix(backed, None), size=2)]
    np.testing.assert_array_equal(np.concatenate(blocks), dense)
    backed.file.close()


def test_row_blocks_are_copies(dense):
    _, block = next(access.row_blocks(dense))
    block[:] = -1
    assert np.nanmin(dense) == 0


def test_get_matrix_names_the_layers_that_are_there(adata):
    adata.layers["counts"] = adata.X
    with pytest.raises(KeyError, match=r"no layer 'tpm'; its layers are \['counts'\]"):
        access.get_matrix(adata, "tpm")


def test_get_matrix_refuses_what_is_empty(adata):
    with pytest.raises(ValueError, match="adata is empty: 0 samples x 5 genes"):
        access.get_matrix(adata[:0], None)
    with pytest.raises(ValueError, match=r"adata.X is empty; pass layer=, one of \['counts'\]"):
        access.get_matrix(ad.AnnData(layers={"counts": np.ones((2, 2))}), None)


def test_get_matrix_refuses_other_objects():
    with pytest.raises(TypeError, match=r"expected an AnnData .* found ndarray"):
        access.get_matrix(np.ones((2, 2)), None)


def test_get_matrix_names_the_modality_of_a_mudata(adata):
    class MuDataLike:
        def __init__(self) -> None:
            self.mod = {"rna": adata}

    with pytest.raises(TypeError, match=r"mdata\['rna'\]"):
        access.get_matrix(MuDataLike(), None)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("f4", "f4"), ("f8", "f8"), ("i4", "f4"), ("f2", "f4"), ("u1", "f4"), ("?", "f4")]
)
def test_float_dtype(dtype, expected):
    assert access.float_dtype(np.zeros(1, dtype=dtype)) == np.dtype(expected)


def test_write_results_writes_and_stamps(adata):
    access.write_results(adata, "r", {"obsm/X_r": np.ones((7, 2))}, {"model": "m"}, {"table": {"a": [1]}})
    params = adata.uns["r"]["params"]
    assert params["package"] == "bulkformer_tl"
    assert params["model"] == "m"
    assert params["wrote"] == ["obsm/X_r"]
    assert adata.uns["r"]["table"] == {"a": [1]}


def test_write_results_overwrites_its_own_also_after_a_round_trip(adata, tmp_path):
    access.write_results(adata, "r", {"obsm/X_r": np.ones((7, 2))}, {})
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    access.write_results(again, "r", {"obsm/X_r": np.zeros((7, 2))}, {})
    assert again.obsm["X_r"].sum() == 0


@pytest.mark.parametrize("slot", ["obsm/X_r", "layers/r", "uns/r"])
def test_what_is_not_ours_is_not_overwritten(adata, slot):
    container, name = slot.split("/")
    theirs = {"obsm": np.full((7, 2), 5.0), "layers": np.full((7, 5), 5.0), "uns": "mine"}[container]
    getattr(adata, container)[name] = theirs
    with pytest.raises(ValueError, match="was not written by this call before; pass another key_added"):
        access.write_results(adata, "r", {"obsm/X_r": np.ones((7, 2)), "layers/r": np.ones((7, 5))}, {})
    assert np.all(getattr(adata, container)[name] == theirs)


def test_a_slot_of_another_result_is_not_ours(adata):
    adata.obsm["X_r"] = np.ones((7, 1))
    access.write_results(adata, "r", {"layers/r": np.ones((7, 5))}, {})
    with pytest.raises(ValueError, match=r"adata.obsm\['X_r'\] exists"):
        access.check_slots(adata, "r", ["obsm/X_r"])


@pytest.mark.parametrize("key", ["a/b", ""])
def test_a_slash_names_key_added(adata, key):
    with pytest.raises(ValueError, match="pass another key_added"):
        access.check_slots(adata, key, [f"layers/{key}"])


def test_a_failing_write_leaves_everything_as_it_was(adata):
    access.write_results(adata, "r", {"obsm/X_r": np.ones((7, 2))}, {"first": True})
    bad = {"obsm/X_r": np.zeros((7, 2)), "layers/r": np.ones((3, 3))}
    with pytest.raises(ValueError, match="shape"):
        access.write_results(adata, "r", bad, {"first": False})
    assert adata.obsm["X_r"].sum() == 14
    assert "r" not in adata.layers
    assert adata.uns["r"]["params"]["first"]


def test_a_view_becomes_actual_without_a_warning(adata):
    view = adata[:3]
    access.write_results(view, "r", {"obsm/X_r": np.ones((3, 2))}, {})
    assert not view.is_view
    assert view.obsm["X_r"].shape == (3, 2)
    assert "X_r" not in adata.obsm


def test_get_params_of_others_is_empty(adata):
    adata.uns["neighbors"] = {"params": {"n_neighbors": 15}}
    assert access.get_params(adata, "neighbors") == {}
    assert access.get_params(adata, "absent") == {}
