"""Adaptation on AnnData: folds, tables, slots, new samples."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import GeneVocabulary
from bulkformer_tl.models._bioformer import BioformerConfig, BioformerNetwork
from bulkformer_tl.models._latest import LatestConfig, LatestNetwork
from bulkformer_tl.train import FinetuneConfig

pytest.importorskip("peft")

N, G = 48, 50
CONFIG = FinetuneConfig(epochs=1, head_epochs=40, batch_size=16)
PROTOCOL = bf.metrics.Protocol(n_splits=3, n_bootstrap=100)
TARGETS = {"state": "class", "age": "regression", "os": ("survival", "days", "died"), "kind": ("genes", "family")}


@pytest.fixture(scope="module")
def model():
    sizes = {"dim": 16, "depth": 1, "heads": 2, "dim_head": 8, "nb_features": 16, "graph_hidden_dim": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LatestNetwork(LatestConfig(n_genes=G - 5, **sizes))
        graph = torch.randint(0, G - 5, (2, 200)), torch.rand(200) + 0.1
    # some columns of the data are no genes of the model, and the order differs
    vocabulary = GeneVocabulary(np.array([f"ENSG{i:011d}" for i in range(G - 5)][::-1]), name="tiny")
    return bf.models.BulkFormer(network, vocabulary, graph=graph, name="tiny", family="g3", denominator="all")


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    level = np.repeat(rng.uniform(0, 1, N // 2), 2)
    x = rng.gamma(2.0, 1.0, (N, G)) + np.where(np.arange(G) < 25, 4 * level[:, None], 0)
    adata = ad.AnnData(x.astype(np.float32))
    adata.var_names = [f"ENSG{i:011d}" for i in range(G)]
    adata.obs["patient"] = [f"p{i // 2}" for i in range(N)]
    adata.obs["state"] = np.where(level > np.median(level), "ill", "well")
    adata.obs["age"] = 40 + 20 * level
    adata.obs["days"] = rng.exponential(np.exp(-2 * level)) + 0.01
    adata.obs["died"] = (rng.random(N) < 0.8).astype(float)
    adata.obs.loc[adata.obs_names[:4], "state"] = None
    adata.obs.loc[adata.obs_names[2:6], ["age", "days"]] = np.nan
    adata.var["kind"] = np.where(np.arange(G) % 6 == 0, None, np.where(np.arange(G) < 25, "up", "flat"))
    adata.var["family"] = [f"f{i // 2}" for i in range(G)]
    return adata


@pytest.fixture(scope="module")
def adapted(samples, model):
    return bf.tl.finetune(samples, TARGETS, model=model, groups="patient", config=CONFIG, protocol=PROTOCOL, copy=True)


def test_it_writes_predictions_and_one_table_for_all_targets(adapted, samples):
    entry = adapted.uns["finetune"]
    scores = entry["scores"]
    assert list(dict.fromkeys(scores["target"])) == list(TARGETS)
    wanted = {
        "state": {"tiny (lora)", "tiny (frozen)", "majority", "raw", "pca"},
        "age": {"tiny (lora)", "tiny (frozen)", "mean", "raw", "pca"},
        "os": {"tiny (lora)", "tiny (frozen)", "constant", "raw", "pca"},
        "kind": {"tiny (lora)", "tiny (frozen)", "majority", "level", "variance", "level_variance"},
    }
    assert {name: set(table["representation"]) for name, table in scores.groupby("target")} == wanted
    rows = entry["differences"]
    assert {"tiny (lora)"} == set(rows["representation"])
    assert set(rows[rows["target"] == "state"]["baseline"]) == wanted["state"] - {"tiny (lora)"}
    assert adapted.obsm["finetune_state_proba"].shape == (N, 2)
    assert adapted.obs["finetune_state_pred"].notna().all(), "also of samples whose label is not known"
    assert np.isfinite(adapted.obs[["finetune_age_pred", "finetune_os_risk"]]).all(axis=None)
    known = adapted.var["kind"].notna().to_numpy() & (np.arange(G) < G - 5)
    assert np.array_equal(adapted.var["finetune_kind_pred"].notna(), known)
    assert np.array_equal(np.isfinite(adapted.varm["finetune_kind_proba"]).all(axis=1), known)
    training = entry["training"]
    assert training["fold"].tolist() == ["fold 0", "fold 1", "fold 2", "all"]
    assert entry["params"]["method"] == "lora"
    assert entry["params"]["adapter_bytes"] < 100_000
    assert "finetune" not in samples.uns, "copy=True leaves the original alone"


def test_the_planted_signal_is_found(adapted):
    scores = adapted.uns["finetune"]["scores"].set_index(["target", "representation", "metric"])["mean"]
    assert scores["state", "tiny (lora)", "auroc"] > 0.8
    assert scores["age", "tiny (lora)", "pearson"] > 0.5
    assert scores["os", "tiny (lora)", "harrell_c"] > 0.55


def test_predictions_are_out_of_fold(samples, model):
    """Labels that say nothing are not predicted, which they would be by an adapter that had seen them."""
    adata = samples.copy()
    patients = np.random.default_rng(1).permutation(np.repeat(["a", "b"], N // 4))
    adata.obs["noise"] = np.repeat(patients, 2)
    config = FinetuneConfig(method="full", epochs=1, head_epochs=200, learning_rate=1e-2)
    bf.tl.finetune(adata, {"noise": "class"}, model=model, groups="patient", config=config, protocol=PROTOCOL)
    scores = adata.uns["finetune"]["scores"].set_index(["representation", "metric"])["mean"]
    assert scores["tiny (full)", "auroc"] < 0.75


def test_the_adapter_predicts_new_samples(adapted, samples, model, tmp_path):
    adapter = bf.tl.fitted_head(adapted, "finetune")
    adapter.save(tmp_path / "adapter")
    new = samples[::-1, ::-1].copy()
    bf.tl.predict(new, adapter, model=model)
    read = bf.tl.predict(samples, tmp_path / "adapter", model=model, key_added="again", copy=True)
    back = new[samples.obs_names, samples.var_names]
    assert np.array_equal(back.obsm["finetune_state_proba"], read.obsm["again_state_proba"])
    assert np.array_equal(back.obs["finetune_os_risk"], read.obs["again_os_risk"])
    np.testing.assert_allclose(back.varm["finetune_kind_proba"], read.varm["again_kind_proba"], rtol=1e-9)
    assert read.var["again_kind_pred"].notna().sum() == G - 5, "genes without a label, too"
    assert read.uns["again"]["classes"]["state"].tolist() == ["ill", "well"]
    right = read.obs["again_state_pred"].astype(str) == samples.obs["state"]
    assert right[samples.obs["state"].notna()].mean() > 0.75


def test_results_go_through_files(adapted, model, tmp_path):
    adapted.write_h5ad(tmp_path / "adapted.h5ad")
    adapted.write_zarr(tmp_path / "adapted.zarr")
    for read in (ad.read_h5ad(tmp_path / "adapted.h5ad"), ad.read_zarr(tmp_path / "adapted.zarr")):
        found, expected = (bf.tl.fitted_head(one, "finetune") for one in (read, adapted))
        assert found.facts == expected.facts
        assert all(np.array_equal(array, found.arrays[name]) for name, array in expected.arrays.items())


def test_scores_are_drawn_by_target(adapted):
    axes = bf.pl.scores(adapted, "finetune", target="os")
    assert axes.get_title().startswith("finetune, os")
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert labels[0] == "tiny (lora)"
    assert set(labels[1:]) == {"tiny (frozen)", "constant", "raw", "pca"}
    assert bf.pl.scores(adapted, "finetune").get_title().startswith("finetune, state")
    with pytest.raises(KeyError, match=r"has no target 'x'; choose among \['state', 'age', 'os', 'kind'\]"):
        bf.pl.scores(adapted, "finetune", target="x")


def test_an_adapter_can_go_to_a_folder(samples, model, tmp_path):
    config = FinetuneConfig(method="probe", head_epochs=5)
    adata = samples[4:].copy()
    bf.tl.finetune(
        adata, {"state": "class"}, model=model, config=config, protocol=PROTOCOL, output=tmp_path / "adapter"
    )
    assert "adapter" not in adata.uns["finetune"]
    bf.tl.predict(samples, tmp_path / "adapter", model=model, copy=True)
    with pytest.raises(ValueError, match=r"written to a folder \(output=\)"):
        bf.tl.fitted_head(adata, "finetune")
    # the same call again may write over its own results
    bf.tl.finetune(adata, {"state": "class"}, model=model, config=config, protocol=PROTOCOL)


def test_a_model_that_reads_counts(samples):
    torch.manual_seed(0)
    sizes = {"n_bins": 8, "dim": 16, "layers": 1, "heads": 2, "feed_forward": 32}
    counts = bf.models.BioFormer(
        BioformerNetwork(BioformerConfig(n_genes=G, **sizes)),
        GeneVocabulary(samples.var_names.to_numpy(dtype=str), name="tiny"),
        name="tiny-bioformer",
        family="bioformer",
        binnings={"rna": {"target_sum": 500.0}},
    )
    adata = samples.copy()
    adata.layers["counts"] = np.round(adata.X * 10)
    options = {"model": counts, "layer": "counts", "config": CONFIG, "protocol": PROTOCOL, "groups": "patient"}
    bf.tl.finetune(adata, {"age": "regression"}, **options)
    assert set(adata.uns["finetune"]["scores"]["representation"]) == {
        *("tiny-bioformer (lora)", "tiny-bioformer (frozen)", "mean")
    }
    with pytest.raises(ValueError, match=r"baselines of genes read ln\(TPM\+1\); pass baseline_layer="):
        bf.tl.finetune(adata, {"kind": "genes"}, **options)


def _one_class(adata):
    adata.obs["state"] = "ill"


def _study(adata):
    adata.obs["patient"] = np.where(adata.obs["state"] == "ill", "one study", "another")


def _no_group(adata):
    adata.obs.loc[adata.obs_names[7], "patient"] = None


def _no_event(adata):
    adata.obs["died"] = 0.0


def _taken(adata):
    adata.obs["finetune_state_pred"] = "mine"


CLASS = {"state": "class"}


@pytest.mark.parametrize(
    ("change", "targets", "options", "error", "message"),
    [
        (None, {}, {}, ValueError, "pass a mapping of names to"),
        (None, {"state": "classes"}, {}, ValueError, "target 'state' is described by 'classes'; use"),
        (None, {"os": ("survival", "days")}, {}, ValueError, "target 'os' is described by"),
        (None, {"nothing": "class"}, {}, KeyError, "adata.obs has no column 'nothing'"),
        (None, {"nothing": "genes"}, {}, KeyError, "adata.var has no column 'nothing'"),
        (
            None,
            {"state": "regression"},
            {},
            TypeError,
            "must be numbers and holds 'ill'|must be numbers and holds 'well'",
        ),
        (_one_class, CLASS, {}, ValueError, r"adata.obs\['state'\] holds only 'ill'; at least two classes"),
        (_study, CLASS, {"groups": "patient"}, ValueError, "classes in fewer than 2 groups|groups cannot fill 3 folds"),
        (_no_group, CLASS, {"groups": "patient"}, ValueError, r"\['patient'\] \(groups\) is missing in 1 labelled"),
        (_no_event, {"os": TARGETS["os"]}, {}, ValueError, "holds no event among"),
        (_taken, CLASS, {}, ValueError, r"adata.obs\['finetune_state_pred'\] exists and was not written"),
        (None, CLASS, {"key_added": "a/b"}, ValueError, "cannot be written to a file because of its '/'"),
        (None, CLASS, {"layer": "log"}, KeyError, "has no layer 'log'"),
        (
            None,
            CLASS,
            {"protocol": bf.metrics.Protocol(n_splits=3, baselines=("untrained",))},
            ValueError,
            "no baseline 'untrained' of an adapted encoder",
        ),
    ],
)
def test_bad_input(change, targets, options, error, message, samples, model):
    adata = samples.copy()
    if change is not None:
        change(adata)
    before = adata.copy()
    with pytest.raises(error, match=message):
        bf.tl.finetune(adata, targets, model=model, **{"config": CONFIG, "protocol": PROTOCOL, **options})
    assert list(adata.uns) == list(before.uns)
    assert list(adata.obs) == list(before.obs)


def test_predict_refuses_what_does_not_fit(adapted, samples, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no adapter\.json; name the folder that save\(\)"):
        bf.tl.predict(samples, tmp_path)
    adapter = bf.tl.fitted_head(adapted, "finetune")
    torch.manual_seed(1)
    other = LatestNetwork(LatestConfig(n_genes=G, dim=16, depth=1, heads=2, dim_head=8, graph_hidden_dim=8))
    vocabulary = GeneVocabulary(samples.var_names.to_numpy(dtype=str), name="other")
    graph = torch.randint(0, G, (2, 20)), torch.rand(20) + 0.1
    wrong = bf.models.BulkFormer(other, vocabulary, graph=graph, name="other", family="g3", denominator="all")
    with pytest.raises(ValueError, match=r"trained on tiny \(weights .* and other has the weights"):
        bf.tl.predict(samples, adapter, model=wrong)
    with pytest.raises(ValueError, match="trained on tiny, which is not loaded by its name; pass model="):
        bf.tl.predict(samples, adapter)
    taken = samples.copy()
    taken.obsm["finetune_state_proba"] = np.zeros((N, 2))
    with pytest.raises(ValueError, match="exists and was not written by this call"):
        bf.tl.predict(taken, adapter)


FIRST = bf.train.PretrainConfig(epochs=0.5, batch_size=8, checkpoint_every=2)


def test_the_cohort_can_teach_the_encoder_first(samples, model, tmp_path):
    pytest.importorskip("lightning")
    wanted = {"state": "class", "kind": ("genes", "family")}
    options = {"model": model, "groups": "patient", "config": CONFIG, "protocol": PROTOCOL}
    adata = samples.copy()
    bf.tl.finetune(adata, wanted, pretrain=FIRST, output=tmp_path / "mine", **options)
    own = bf.models.load(tmp_path / "mine_encoder")
    assert own.family == model.family
    assert not torch.equal(own.gene_table(), model.gene_table())
    scores = adata.uns["finetune"]["scores"].set_index(["target", "representation", "metric"])["mean"]
    adapter_name = f"{own.name} (lora)"
    assert {adapter_name, "tiny (frozen)"} <= set(scores.index.get_level_values("representation"))
    plain = bf.tl.finetune(samples, wanted, method="probe", copy=True, **options)
    before = plain.uns["finetune"]["scores"].set_index(["target", "representation", "metric"])["mean"]
    assert scores["state", "tiny (frozen)", "auroc"] == before["state", "tiny (frozen)", "auroc"]
    assert scores["kind", "tiny (frozen)", "auroc"] == before["kind", "tiny (frozen)", "auroc"]
    new = samples[:5].copy()
    bf.tl.predict(new, tmp_path / "mine", model=tmp_path / "mine_encoder")
    assert np.isfinite(new.obsm["finetune_state_proba"]).all()
    with pytest.raises(ValueError, match="pass that model"):
        bf.tl.predict(samples[:5].copy(), tmp_path / "mine", model=model)


@pytest.mark.parametrize("absent", ["groups", "output"])
def test_teaching_the_encoder_first_needs_groups_and_a_place(samples, model, tmp_path, absent):
    given = {"groups": "patient", "output": tmp_path / "mine"} | {absent: None}
    with pytest.raises(ValueError, match=f"pretrain= needs {absent}=: whole groups are left out to stop by"):
        bf.tl.finetune(samples.copy(), {"state": "class"}, model=model, pretrain=FIRST, **given)
    assert not list(tmp_path.iterdir())


def test_teaching_the_encoder_first_needs_a_configuration_of_its_family(samples, model, tmp_path):
    other = bf.train.PretrainConfig(family="g2")
    with pytest.raises(ValueError, match="trains the family 'g2', and tiny is of 'g3'; pass"):
        bf.tl.finetune(
            samples, {"state": "class"}, model=model, groups="patient", pretrain=other, output=tmp_path / "mine"
        )


def test_a_folder_of_something_else_is_refused_before_any_work(samples, model, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr("bulkformer_tl.tl._finetune._Work", None)
    with pytest.raises(FileExistsError, match="holds something else than a fitted adapter"):
        bf.tl.finetune(samples, {"state": "class"}, model=model, groups="patient", output=tmp_path)
