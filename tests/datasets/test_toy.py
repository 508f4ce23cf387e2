from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import gene_table, load_vocabulary

# anndata 0.13 sets a pandas option that pandas 3.1 deprecates whenever a view is taken
pytestmark = pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option is deprecated")


@pytest.fixture(scope="module")
def toy():
    return bf.datasets.toy()


def _mean_by(adata, symbol, column):
    values = np.asarray(adata[:, adata.var["symbol"] == symbol].X.sum(axis=1)).ravel()
    return pd.Series(values, index=adata.obs_names).groupby(adata.obs[column], observed=True).mean()


def test_counts_are_whole_and_libraries_have_10_to_40_million_reads(toy):
    assert toy.X.format == "csr"
    assert np.array_equal(toy.X.data, np.round(toy.X.data))
    totals = np.asarray(toy.X.sum(axis=1, dtype=np.float64)).ravel()
    assert totals.min() > 9.5e6
    assert totals.max() < 42e6


def test_genes_are_the_vocabulary_without_300_and_xist(toy):
    vocabulary = load_vocabulary()
    assert np.isin(toy.var_names, vocabulary.ids).sum() == len(vocabulary) - 300
    assert toy.var.loc[~toy.var_names.isin(vocabulary.ids), "symbol"].tolist() == ["XIST"]
    known = gene_table().loc[toy.var_names]
    assert (toy.var["length"] == known["length"]).mean() > 0.99


def test_the_same_seed_gives_the_same_data():
    first, second, other = (bf.datasets.toy(8, rng=seed) for seed in (3, 3, 4))
    assert (first.X != second.X).nnz == 0
    assert first.obs.equals(second.obs)
    assert not first.var_names.equals(other.var_names)


def test_a_generator_is_advanced():
    rng = np.random.default_rng(3)
    first, second = bf.datasets.toy(4, rng=rng), bf.datasets.toy(4, rng=rng)
    assert not first.var_names.equals(second.var_names)


@pytest.mark.parametrize(
    ("symbol", "tissue"), [("ALB", "liver"), ("ACTA1", "muscle"), ("HBB", "blood"), ("GFAP", "brain")]
)
def test_markers_are_highest_in_their_tissue(toy, symbol, tissue):
    means = _mean_by(toy, symbol, "tissue")
    assert means.idxmax() == tissue
    assert means.max() > 100 * means.drop(tissue).max()


def test_sex_genes_follow_the_sex_and_donors_have_one_sex(toy):
    xist, y = _mean_by(toy, "XIST", "sex"), _mean_by(toy, "RPS4Y1", "sex")
    assert xist["female"] > 100 > 10 > xist["male"]
    assert y["male"] > 100 > 10 > y["female"]
    assert toy.obs.groupby("donor", observed=True)["sex"].nunique().eq(1).all()


def test_labels_are_categories_shared_evenly(toy):
    assert all(isinstance(toy.obs[column].dtype, pd.CategoricalDtype) for column in ("tissue", "donor", "sex"))
    assert toy.obs["tissue"].value_counts().tolist() == [15, 15, 15, 15]
    assert toy.obs["donor"].value_counts().eq(3).all()


def test_tissues_separate_beyond_their_markers(toy):
    from bulkformer_tl.datasets._toy import MARKERS

    planted = [symbol for markers in MARKERS.values() for symbol in markers]
    counts = toy[:, ~toy.var["symbol"].isin(planted)].X.toarray()
    logs = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e6)
    similar = np.corrcoef(logs)
    np.fill_diagonal(similar, -1)
    assert (toy.obs["tissue"].to_numpy()[similar.argmax(axis=1)] == toy.obs["tissue"].to_numpy()).all()


def test_one_sample_is_enough():
    assert bf.datasets.toy(1).n_obs == 1


def test_no_sample_is_an_error():
    with pytest.raises(ValueError, match="n_obs must be at least 1, found 0"):
        bf.datasets.toy(0)
