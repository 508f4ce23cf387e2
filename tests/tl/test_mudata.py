"""Tasks take a MuData, one of its modalities, or representations of several side by side."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from mudata import MuData, read_h5mu

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol, probe

QUICK = Protocol(n_splits=3, n_bootstrap=100, duplicates=None, baselines=("majority",))


def make(n: int = 90, *, seed: int = 0) -> MuData:
    """Four classes; RNA tells one half from the other, protein each half apart, and neither tells all."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 4
    names = pd.Index([f"s{i}" for i in range(n)])
    values = np.abs(rng.normal(2, 0.7, (n, 30))).astype(np.float32)
    values[:, :6] += 2 * (codes // 2)[:, None]
    rna = ad.AnnData(values, obs=pd.DataFrame(index=names), var=pd.DataFrame(index=[f"g{i}" for i in range(30)]))
    rna.layers["log_tpm"] = values.copy()
    rna.obsm["X_emb"] = (values[:, :12] * 1000).astype(np.float32)
    amounts = rng.normal(0, 1, (n, 5)) + 2.5 * (codes % 2)[:, None] * np.array([1, 1, 0, 0, 0])
    amounts[::7, 3] = np.nan
    protein = ad.AnnData(
        amounts * np.array([1, 50, 1, 1, 1]), obs=pd.DataFrame(index=names), var=pd.DataFrame(index=list("ABCDE"))
    )
    # modalities need not have the same order
    mdata = MuData({"rna": rna, "protein": protein[::-1].copy()})
    mdata.obs["kind"] = np.array(list("abcd"))[codes]
    mdata.obs["number"] = 2.0 * (codes // 2) + codes % 2 + rng.normal(0, 0.1, n)
    mdata.obs["batch"] = np.array(["x", "y"])[codes % 2]
    return mdata


@pytest.fixture
def mdata():
    return make()


@pytest.fixture
def fused(mdata):
    bf.tl.fuse(mdata, {"rna": "X_emb", "protein": None})
    return mdata


def score(data, name: str, metric: str = "auroc", key: str = "classify_kind") -> float:
    table = data.uns[key]["scores"]
    (found,) = table.loc[(table["representation"] == name) & (table["metric"] == metric), "mean"]
    return found


def test_blocks_stand_side_by_side_as_they_are(fused):
    matrix = fused.obsm["X_fused"]
    assert (matrix.shape, matrix.dtype) == ((90, 17), np.float32)
    np.testing.assert_array_equal(matrix[:, :12], fused["rna"].obsm["X_emb"])
    expected = fused["protein"][fused.obs_names].X.astype(np.float32)
    np.testing.assert_array_equal(matrix[:, 12:], expected)
    params = fused.uns["fused"]["params"]
    assert (params["blocks"], params["widths"]) == (["rna: X_emb", "protein"], [12, 5])
    assert params["scales"] == ["common", "each"]


def test_together_is_better_than_each_and_each_has_its_row(fused):
    bf.tl.classify(fused, "kind", use_rep="X_fused", protocol=QUICK)
    table = fused.uns["classify_kind"]["scores"]
    assert list(dict.fromkeys(table["representation"])) == ["X_fused", "rna: X_emb", "protein", "majority"]
    assert score(fused, "X_fused") > 0.97
    assert max(score(fused, "rna: X_emb"), score(fused, "protein")) < 0.9
    assert (fused.obs["kind_pred"].astype(str) == fused.obs["kind"]).mean() > 0.85
    assert fused.obsm["kind_proba"].shape == (90, 4)
    differences = fused.uns["classify_kind"]["differences"]
    assert set(differences["baseline"]) == {"rna: X_emb", "protein", "majority"}


def test_a_modality_alone_scores_what_its_row_says(fused):
    bf.tl.classify(fused, "kind", use_rep="X_fused", protocol=QUICK)
    rna = fused["rna"].copy()
    rna.obs["kind"] = fused.obs["kind"]
    bf.tl.classify(rna, "kind", use_rep="X_emb", protocol=QUICK)
    for metric in ("auroc", "f1_macro", "brier"):
        assert score(rna, "X_emb", metric) == score(fused, "rna: X_emb", metric)


def test_blocks_weigh_alike_inside_the_fold(fused):
    matrix = np.nan_to_num(fused.obsm["X_fused"]).astype(float)
    train = matrix[:60]
    model = probe(task="regression", shape=train.shape, scale=((12, "common"), (5, "each")))
    scaled = model[:-1].fit_transform(train, np.arange(60.0))
    np.testing.assert_allclose([scaled[:, :12].var(axis=0).sum(), scaled[:, 12:].var(axis=0).sum()], 17 / 2)
    # an embedding keeps its proportions, features do not
    np.testing.assert_allclose(scaled[:, 12:].var(axis=0), 17 / 2 / 5)
    ratio = scaled[:, :12].std(axis=0) / train[:, :12].std(axis=0)
    np.testing.assert_allclose(ratio, ratio[0])


def test_nothing_of_the_test_fold_is_seen(fused):
    """Predictions of a fold do not change with the values of another test fold's protein scale."""
    head = Protocol(n_splits=3, n_bootstrap=100, duplicates=None, baselines=("mean",))
    bf.tl.regress(fused, "number", use_rep="X_fused", protocol=head)
    first = fused.obs["number_pred"].to_numpy().copy()
    rows = next(split.test for split in head.split(90))
    fused.obsm["X_fused"][rows[:1], 12:] *= 1e4
    bf.tl.regress(fused, "number", use_rep="X_fused", protocol=head)
    again = fused.obs["number_pred"].to_numpy()
    np.testing.assert_array_equal(first[rows[1:]], again[rows[1:]])
    assert again[rows[0]] != first[rows[0]]


def test_heads_of_fused_representations_are_kept(fused, tmp_path):
    fused.obs.loc["s3", "kind"] = None
    bf.tl.classify(fused, "kind", use_rep="X_fused", protocol=QUICK)
    bf.tl.fitted_head(fused, "classify_kind").save(tmp_path / "head")
    table = bf.tl.Head.load(tmp_path / "head").predict(fused)
    np.testing.assert_array_equal(table.loc["s3", list("abcd")].astype(float), fused.obsm["kind_proba"][3])


def test_results_survive_a_file(fused, tmp_path):
    bf.tl.classify(fused, "kind", use_rep="X_fused", protocol=QUICK)
    fused.write_h5mu(tmp_path / "a.h5mu")
    again = read_h5mu(tmp_path / "a.h5mu")
    pd.testing.assert_frame_equal(again.uns["classify_kind"]["scores"], fused.uns["classify_kind"]["scores"])
    # and the note of the blocks still serves
    bf.tl.classify(again, "kind", use_rep="X_fused", protocol=QUICK)
    assert score(again, "protein") == score(fused, "protein")


def test_expression_and_embeddings_of_the_rna_are_at_hand(mdata):
    protocol = Protocol(n_splits=3, n_bootstrap=100, duplicates=None)
    bf.tl.classify(mdata, "batch", use_rep="X_emb", layer="log_tpm", protocol=protocol)
    names = mdata.uns["classify_batch"]["scores"]["representation"]
    assert set(names) == {"X_emb", "majority", "raw", "pca"}
    assert "batch_pred" in mdata.obs
    assert "batch_pred" not in mdata["rna"].obs


def test_the_features_of_a_modality_by_its_name(mdata):
    mdata.mod["protein"].X = np.nan_to_num(mdata.mod["protein"].X)
    bf.tl.classify(mdata, "batch", use_rep="protein", protocol=QUICK)
    assert score(mdata, "protein", key="classify_batch") > 0.95


def test_copy_leaves_the_mudata_alone(fused):
    found = bf.tl.classify(fused, "kind", use_rep="X_fused", protocol=QUICK, copy=True)
    assert isinstance(found, MuData)
    assert "classify_kind" in found.uns
    assert "classify_kind" not in fused.uns
    assert "kind_pred" not in fused.obs
    # and plots read a result from it
    assert len(bf.pl.scores(found, "classify_kind").get_yticklabels()) == 4
    bf.pl.confusion(found, "classify_kind")
    assert bf.tl.fuse(fused, {"rna": None, "protein": None}, key_added="raw", copy=True).obsm["X_raw"].shape == (90, 35)


def test_a_reference_may_be_one_too(fused):
    other = make(40, seed=1)
    bf.tl.fuse(other, {"rna": "X_emb", "protein": None})
    bf.tl.classify(other, "kind", use_rep="X_fused", reference=fused, protocol=QUICK)
    assert (other.obs["kind_pred"].astype(str) == other.obs["kind"]).mean() > 0.8
    bf.tl.fuse(other, {"protein": None, "rna": "X_emb"})
    with pytest.raises(ValueError, match=r"of the reference holds \['rna: X_emb', 'protein'\] and that of adata"):
        bf.tl.classify(other, "kind", use_rep="X_fused", reference=fused, protocol=QUICK)


def lacking(mdata: MuData) -> MuData:
    return MuData({"rna": mdata["rna"].copy(), "protein": mdata["protein"][:80].copy()})


@pytest.mark.filterwarnings("ignore::ImportWarning")
def test_samples_that_lack_a_modality(mdata):
    import muon

    part = lacking(mdata)
    with pytest.raises(ValueError, match=r"'protein' lacks 10 of 90 samples, such as 's0'; call muon.pp.intersect_obs"):
        bf.tl.fuse(part, {"rna": "X_emb", "protein": None})
    assert "X_fused" not in part.obsm
    muon.pp.intersect_obs(part)
    bf.tl.fuse(part, {"rna": "X_emb", "protein": None})
    assert part.obsm["X_fused"].shape == (80, 17)


WRONG = {
    "anndata": (
        lambda m: m["rna"],
        {"use_rep": {"rna": None, "protein": None}},
        TypeError,
        "expected a MuData .* found",
    ),
    "one": (lambda m: m, {"use_rep": {"rna": "X_emb"}}, ValueError, r"names \['rna'\]; at least two modalities"),
    "no mapping": (lambda m: m, {"use_rep": "X_emb"}, TypeError, "use_rep is 'X_emb'; pass a mapping"),
    "layer": (
        lambda m: m,
        {"use_rep": {"rna": None, "protein": None}, "layer": "log_tpm"},
        TypeError,
        "layer is 'log_tpm'; pass a mapping",
    ),
    "unused layer": (
        lambda m: m,
        {"use_rep": {"rna": "X_emb", "protein": None}, "layer": {"rna": "log_tpm"}},
        ValueError,
        r"layer names \['rna'\], whose features are not read",
    ),
    "no modality": (
        lambda m: m,
        {"use_rep": {"rna": "X_emb", "atac": None}},
        KeyError,
        r"no modality 'atac'; it has \['rna', 'protein'\]",
    ),
    "no representation": (
        lambda m: m,
        {"use_rep": {"rna": "X_pca", "protein": None}},
        KeyError,
        r"mdata\['rna'\].obsm has no 'X_pca'; it holds \['X_emb'\]",
    ),
    "no layer": (
        lambda m: m,
        {"use_rep": {"rna": "X_emb", "protein": None}, "layer": {"protein": "clr"}},
        KeyError,
        r"mdata\['protein'\].layers\['clr'\] is not there",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_fused(mdata, case):
    take, options, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        bf.tl.fuse(take(mdata), **options)
    assert not mdata.uns


def test_infinite_features(mdata):
    mdata.mod["protein"].X[0, 0] = np.inf
    with pytest.raises(ValueError, match=r"mdata\['protein'\].X holds 1 infinite values; missing ones are NaN"):
        bf.tl.fuse(mdata, {"rna": "X_emb", "protein": None})


def test_slots_of_others_are_left_alone(mdata):
    mdata.obsm["X_fused"] = np.ones((90, 2))
    with pytest.raises(ValueError, match="pass another key_added"):
        bf.tl.fuse(mdata, {"rna": "X_emb", "protein": None})


def test_columns_of_a_modality_are_pointed_to(mdata):
    mdata["rna"].obs["age"] = 1.0
    with pytest.raises(KeyError, match=r"mdata.obs has no column 'age', and mdata\['rna'\].obs has one; take it over"):
        bf.tl.regress(mdata, "age", use_rep="X_emb")


def test_columns_that_were_cut_off(fused):
    fused.obsm["X_fused"] = fused.obsm["X_fused"][:, :5]
    with pytest.raises(ValueError, match=r"has 5 columns and its note in uns 17; call bf.tl.fuse again"):
        bf.tl.classify(fused, "kind", use_rep="X_fused", protocol=QUICK)


def test_modalities_that_share_genes(mdata):
    later = mdata["rna"].copy()
    later.obs_names = [f"{name}-later" for name in later.obs_names]
    other = MuData({"a": mdata["rna"].copy(), "b": later}, axis=1)
    with pytest.raises(ValueError, match=r"\['a', 'b'\] share genes rather than samples"):
        bf.tl.classify(other, "kind", use_rep="X_emb")


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_modalities_with_one_name_twice(mdata):
    mdata["protein"].obs_names = ["s5", *mdata["protein"].obs_names[:-1]]
    with pytest.raises(ValueError, match=r"mdata\['protein'\].obs_names are not unique"):
        bf.tl.fuse(mdata, {"rna": "X_emb", "protein": None})


def test_nothing_is_written_where_a_task_fails(fused):
    fused.obs["kind_pred"] = "mine"
    with pytest.raises(ValueError, match="pass another key_added"):
        bf.tl.classify(fused, "kind", use_rep="X_fused", protocol=QUICK)
    assert "classify_kind" not in fused.uns
    assert (fused.obs["kind_pred"] == "mine").all()


def test_drug_response_of_fused_modalities_has_a_row_for_each(fused):
    rng = np.random.default_rng(1)
    effect = fused.obs["number"].to_numpy()[:, None] * np.array([1.0, 0.5, -1.0]) + rng.normal(0, 0.3, (90, 3))
    response = pd.DataFrame(effect, index=fused.obs_names, columns=["x", "y", "z"])
    plain = Protocol(n_splits=3, n_bootstrap=100, duplicates=None, baselines=("drug_mean",))
    for head, name, key in ((None, "X_fused", "drug_response"), ("mlp", "X_fused (mlp)", "network")):
        bf.tl.drug_response(fused, response, use_rep="X_fused", protocol=plain, head=head, key_added=key)
        table = fused.uns[key]["scores"]
        found = table[(table["metric"] == "pearson") & (table["axis"] == "per_drug")].set_index("representation")
        assert found.index.tolist() == [name, "rna: X_emb", "protein", "drug_mean"]
        assert found.loc[name, "mean"] > max(found.loc["rna: X_emb", "mean"], found.loc["protein", "mean"]) - 0.02
    rna = fused["rna"].copy()
    bf.tl.drug_response(rna, response, use_rep="X_emb", protocol=plain)
    single, both = (
        data.uns["drug_response"]["scores"].set_index(["representation", "metric", "axis"]) for data in (rna, fused)
    )
    where = ("pearson", "per_drug")
    assert single.loc[("X_emb", *where), "mean"] == both.loc[("rna: X_emb", *where), "mean"]


def test_what_belongs_to_genes_is_written_to_their_modality(fused, tmp_path):
    shuffled = MuData({"protein": fused["protein"].copy(), "rna": fused["rna"][::-1].copy()})
    bf.tl.fuse(shuffled, {"rna": "X_emb", "protein": None})
    genes = shuffled["rna"].var_names[:4]
    state = pd.Series(np.arange(90) % 4 // 2, index=[f"s{i}" for i in range(90)])
    rng = np.random.default_rng(2)
    effect = pd.DataFrame(
        -state.to_numpy()[:, None] + rng.normal(0, 0.2, (90, 4)), index=state.index, columns=genes
    ).loc[shuffled.obs_names]
    plain = Protocol(n_splits=3, n_bootstrap=100, duplicates=None, baselines=("gene_mean",))
    bf.tl.essentiality(shuffled, effect, use_rep="X_fused", protocol=plain)
    layer = shuffled["rna"].layers["essentiality_pred"]
    assert layer.shape == shuffled["rna"].shape
    assert np.corrcoef(layer[:, 0], -state[shuffled["rna"].obs_names])[0, 1] > 0.9
    assert {"rna: X_emb", "protein"} < set(shuffled.uns["essentiality"]["scores"]["representation"])
    # a second call may overwrite what the first wrote
    bf.tl.essentiality(shuffled, effect, use_rep="X_fused", protocol=plain)
    shuffled.write(tmp_path / "both.h5mu")
    again = read_h5mu(tmp_path / "both.h5mu")
    np.testing.assert_array_equal(again["rna"].layers["essentiality_pred"], layer)
    shuffled["rna"].layers["mine_pred"] = layer
    with pytest.raises(ValueError, match=r"layers\['mine_pred'\] exists"):
        bf.tl.essentiality(shuffled, effect, use_rep="X_fused", protocol=plain, key_added="mine")
