"""Adaptation on arrays: what is trained, what it costs, when it stops, what is kept."""

from __future__ import annotations

import logging
from importlib import util

import numpy as np
import pytest
import torch

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import GeneVocabulary
from bulkformer_tl.models._bioformer import BioformerConfig, BioformerNetwork
from bulkformer_tl.models._preprint import PreprintConfig, PreprintNetwork
from bulkformer_tl.train import Adapter, FinetuneConfig, Target, finetune
from bulkformer_tl.train._adapter import restore
from bulkformer_tl.train._backbones import Backbone, _OfBulkFormer, backbone
from bulkformer_tl.train._cohort import Cohort
from bulkformer_tl.train._fast_pass import gene_vectors
from bulkformer_tl.train._finetune_heads import Heads, Losses
from bulkformer_tl.train._network import family_classes, make_config
from bulkformer_tl.train._trainable import trainable_copy

pytest.importorskip("peft")

N, G = 40, 60
SIZES = {
    "g1": {"dim": 16, "protein_dim": 8, "heads": 2, "n_performers": 1, "n_blocks": 2},
    "g2": {"dim": 16, "heads": 2},
    "g3": {
        **{"dim": 16, "depth": 2, "heads": 2, "dim_head": 8, "nb_features": 16, "graph_hidden_dim": 8},
        **{"dropout": 0.0, "attention_dropout": 0.0, "graph_dropout": 0.0},
    },
}
QUICK = {"epochs": 3, "head_epochs": 30, "batch_size": 8}


def make_model(family="g3", seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if family == "g1":
            network = PreprintNetwork(PreprintConfig(n_genes=G, **SIZES[family]))
            torch.nn.init.normal_(network.gene_emb)
        else:
            network = family_classes(family)[1](make_config(family, {**SIZES[family], "n_genes": G}))
    graph = torch.randint(0, G, (2, 200), generator=generator), torch.rand(200, generator=generator) + 0.1
    vocabulary = GeneVocabulary(np.array([f"ENSG{i:011d}" for i in range(G)]), name="sixty")
    return bf.models.BulkFormer(
        network, vocabulary, graph=graph, name=f"tiny-{family}", family=family, denominator="all"
    )


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    level = rng.uniform(0, 1, (N, 1))
    x = rng.gamma(2.0, 1.0, (N, G)) + np.where(np.arange(G) < 30, 3 * level, 0)
    x[rng.random(x.shape) < 0.05] = np.nan
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def level(values):
    return np.nanmean(values[:, :30], axis=1)


@pytest.fixture(scope="module")
def labels(level):
    return np.where(level > np.median(level), "high", "low")


@pytest.fixture(scope="module")
def targets(level, labels):
    rng = np.random.default_rng(1)
    some = labels.astype(object)
    some[:5] = None
    return {
        "class": Target.of_classes(some),
        "number": Target.of_numbers(np.where(np.arange(N) % 7 == 0, np.nan, level)),
        "os": Target.of_survival(rng.exponential(np.exp(-level)) + 0.01, rng.random(N) < 0.7),
        "genes": Target.of_genes(np.where(np.arange(G) % 5 == 0, None, np.where(np.arange(G) < 30, "a", "b"))),
    }


@pytest.mark.parametrize("family", ["g1", "g2", "g3"])
def test_gene_vectors_are_those_of_the_modules(family, values):
    network = make_model(family).network
    observed = torch.from_numpy(~np.isnan(values[:3]))
    x = torch.from_numpy(np.nan_to_num(values[:3]))
    found, expected = gene_vectors(network, x, observed), network(x, observed)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    weight = network.performer.net.layers[0][0].fn.to_q.weight if family == "g3" else network.x_proj[0].weight
    slopes = [torch.autograd.grad(v.square().sum(), weight)[0] for v in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["probe", "freeze", "lora", "full"])
def test_each_method_trains_what_it_says_and_leaves_the_model_alone(method, model, values, labels):
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    adapter = finetune(
        model, values, {"level": Target.of_classes(labels)}, config=FinetuneConfig(method=method, **QUICK)
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    encoder = [name for name in adapter.arrays if name.startswith("encoder.")]
    if method == "probe":
        assert encoder == []
    elif method == "freeze":
        assert all(name.startswith(("encoder.performer.net.layers.1.", "encoder.output_norm")) for name in encoder)
    elif method == "lora":
        assert len(encoder) == 2 * 2 * 6, "two matrices for four projections of attention and two of each feed-forward"
    else:
        assert "encoder.gene_embedding.weight" in encoder
        assert not any("expression_head" in name for name in encoder), "nothing that vectors do not depend on"
    trained = adapter.history.query("stage == 'encoder'")
    assert len(trained) == (0 if method == "probe" else 3)
    assert adapter.facts["n_trained"] == sum(
        array.size for name, array in adapter.arrays.items() if ".heads." in name or name.startswith("encoder.")
    )


@pytest.mark.parametrize("method", ["freeze", "lora"])
@pytest.mark.parametrize("family", ["g1", "g2"])
def test_other_generations(family, method, values, labels):
    model = make_model(family)
    wanted = {"level": Target.of_classes(labels)}
    config = FinetuneConfig(method=method, epochs=2, head_epochs=0, batch_size=8)
    adapter = finetune(model, values, wanted, config=config)
    trained = {name: array for name, array in adapter.arrays.items() if name.startswith("encoder.")}
    state = model.network.state_dict()
    assert trained
    if method == "lora":
        assert all("lora_" in name for name in trained)
    else:
        last = ("encoder.gb_formers.1.", "encoder.layernorm") if family == "g1" else ("encoder.",)
        assert all(name.startswith(last) for name in trained)
        assert all(array.shape == state[name.removeprefix("encoder.")].shape for name, array in trained.items())
    way = backbone(model, None)
    pooled, _ = way.vectors({name: tensor[:2] for name, tensor in way.inputs(values, None).items()}, None)
    torch.testing.assert_close(pooled, model.encode(values[:2]).pooled, rtol=0, atol=1e-5)
    assert np.isfinite(adapter.predict(model, values)["level"]).all()


def test_heads_learn_and_low_rank_additions_go_further(model, values, labels):
    target = {"level": Target.of_classes(labels)}
    validation = np.arange(N) % 4 == 0
    probe = finetune(model, values, target, config=FinetuneConfig(method="probe"), validation=validation)
    lora = finetune(model, values, target, config=FinetuneConfig(epochs=12, learning_rate=5e-3), validation=validation)
    accuracy = (probe.predict(model, values)["level"].argmax(axis=1) == target["level"].values)[validation].mean()
    assert accuracy > 0.7
    assert lora.facts["best"]["stage"] == "encoder"
    assert lora.facts["best"]["loss"] < 0.9 * probe.facts["best"]["loss"]


def test_several_targets_at_once_with_missing_labels(model, values, targets):
    adapter = finetune(model, values, targets, config=FinetuneConfig(**QUICK))
    found = adapter.predict(model, values)
    assert {name: array.shape for name, array in found.items()} == {
        **{"class": (N, 2), "number": (N,), "os": (N,), "genes": (G, 2)}
    }
    np.testing.assert_allclose(found["class"].sum(axis=1), 1)
    assert all(np.isfinite(array).all() for array in found.values())
    some = adapter.predict(model, values[::-1].copy(), genes=np.array([3, 7]))
    assert np.array_equal(some["class"][::-1], found["class"]), "samples do not depend on each other"
    np.testing.assert_allclose(some["genes"], found["genes"][[3, 7]])


def test_losses_leave_out_what_is_not_known(targets):
    torch.manual_seed(0)
    heads = Heads(targets, (4, 4), 0)
    for weight in heads.parameters():
        torch.nn.init.normal_(weight)
    losses = Losses(heads, targets, None, {})
    truth = {name: torch.from_numpy(target.values) for name, target in targets.items()}
    samples, genes = torch.randn(N, 4), torch.randn(N, G, 4)
    expected = losses((samples, genes), truth)
    known = np.flatnonzero(np.all([targets[name].known for name in ("class", "number", "os")], axis=0))
    only = {name: target.only(known) for name, target in targets.items() if name != "genes"}
    rows = {name: torch.from_numpy(target.values) for name, target in only.items()} | {"genes": truth["genes"]}
    some = losses((samples, genes), rows)
    kept = {name: values if name == "genes" else values[known] for name, values in truth.items()}
    # the average of genes runs over all samples that there are
    seen = losses((samples[known], genes), kept)
    torch.testing.assert_close(some, seen)
    assert not torch.isclose(some, expected)


def test_cox_loss_is_the_partial_likelihood():
    time, event = torch.tensor([4.0, 1.0, 3.0, 2.0]), torch.tensor([1.0, 1.0, 0.0, 1.0])
    target = {"os": Target.of_survival(time, event)}
    heads = Heads(target, (1, 1), 0)
    torch.nn.init.ones_(heads.heads[0][-1].weight)
    x = torch.tensor([[0.3], [-0.2], [1.1], [0.4]], requires_grad=True)
    found = Losses(heads, target, None, {"os": 2.0})((x, None), {"os": torch.stack([time, event], dim=1)})
    eta = x[:, 0]
    terms = [eta[i] - torch.logsumexp(eta[time >= time[i]], 0) for i in (0, 1, 3)]
    expected = -2 * sum(terms) / 3
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in (found, expected)))


def test_class_weights_balance_the_classes(model, values):
    rare = np.where(np.arange(N) < 8, "rare", "common")
    validation = np.arange(N) % 4 == 0
    config = {"method": "probe", "head_epochs": 40}
    shares = [
        finetune(
            model,
            values,
            {"rare": Target.of_classes(rare)},
            config=FinetuneConfig(class_weights=weights, **config),
            validation=validation,
        )
        .predict(model, values)["rare"][:, 1]
        .mean()
        for weights in (None, "balanced")
    ]
    assert shares[1] > shares[0] + 0.005


@pytest.mark.parametrize("micro", [1, 3])
def test_samples_at_once_change_nothing(micro, model, values, targets):
    config = {"epochs": 1, "head_epochs": 3, "batch_size": 12}
    one, other = (
        finetune(model, values, targets, config=FinetuneConfig(micro_batch_size=size, **config)) for size in (micro, 12)
    )
    found, expected = one.predict(model, values), other.predict(model, values)
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-3, err_msg=name)
    losses = [adapter.history["training_loss"].iloc[-1] for adapter in (one, other)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_memory_that_runs_out_halves_the_batch(model, values, labels, monkeypatch, caplog):
    target, config = {"level": Target.of_classes(labels)}, FinetuneConfig(micro_batch_size=8, **QUICK)
    vectors = _OfBulkFormer.vectors

    def scarce(self: Backbone, batch, genes):
        if len(batch["values"]) > 2:
            message = "CUDA out of memory"
            raise RuntimeError(message)
        return vectors(self, batch, genes)

    monkeypatch.setattr(_OfBulkFormer, "vectors", scarce)
    with caplog.at_level(logging.WARNING):
        adapter = finetune(model, values, target, config=config)
    assert [r.getMessage() for r in caplog.records if "out of memory" in r.getMessage()] == [
        "out of memory; going on with 4 samples at once in the encoder",
        "out of memory; going on with 2 samples at once in the encoder",
    ]
    monkeypatch.undo()
    expected = finetune(model, values, target, config=FinetuneConfig(micro_batch_size=2, **QUICK))
    assert all(np.array_equal(array, expected.arrays[name]) for name, array in adapter.arrays.items())
    monkeypatch.setattr(_OfBulkFormer, "vectors", _broken)
    with pytest.raises(RuntimeError, match="illegal"):
        finetune(model, values, target, config=config)


def test_memory_that_runs_out_where_nothing_is_trained(model, values, labels, monkeypatch, caplog):
    adapter = finetune(model, values, {"level": Target.of_classes(labels)}, config=FinetuneConfig(**QUICK))
    vectors = _OfBulkFormer.vectors

    def scarce(self: Backbone, batch, genes):
        if len(batch["values"]) > 2:
            message = "CUDA out of memory"
            raise RuntimeError(message)
        return vectors(self, batch, genes)

    expected = Cohort(model, values).frozen[0]
    monkeypatch.setattr(_OfBulkFormer, "vectors", scarce)
    for work in (
        lambda cohort: cohort.frozen[0],
        lambda cohort: cohort.predict(*restore(adapter, cohort.backbone), np.arange(N))["level"],
    ):
        cohort = Cohort(model, values)
        # as many as on an accelerator
        cohort.step = 8
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = work(cohort)
        assert [int(text.split("with ")[1].split()[0]) for text in caplog.messages] == [4, 2]
        wanted = (
            expected if isinstance(found, torch.Tensor) else torch.from_numpy(adapter.predict(model, values)["level"])
        )
        torch.testing.assert_close(torch.as_tensor(found), wanted, rtol=0, atol=1e-5)
    monkeypatch.setattr(_OfBulkFormer, "vectors", _broken)
    with pytest.raises(RuntimeError, match="illegal"):
        _ = Cohort(model, values).frozen


def _broken(self, batch, genes):
    message = "illegal instruction"
    raise RuntimeError(message)


@pytest.mark.parametrize("rates", [{"learning_rate": 1e30}, {"head_learning_rate": 1e30}])
def test_a_loss_that_is_not_finite_ends_training_with_the_best_weights(rates, model, values, labels, caplog):
    validation = np.arange(N) % 4 == 0
    config = FinetuneConfig(epochs=6, head_epochs=20, batch_size=4, **rates)
    with caplog.at_level(logging.WARNING):
        adapter = finetune(model, values, {"level": Target.of_classes(labels)}, config=config, validation=validation)
    assert adapter.facts["diverged"]
    assert any("the loss was not finite, and training stopped there; the weights of" in m for m in caplog.messages)
    assert np.isfinite(adapter.predict(model, values)["level"]).all()
    assert adapter.facts["best"]["loss"] <= adapter.history["validation_loss"].iloc[0]


def test_seeds(model, values, labels):
    before = torch.get_rng_state()
    target, config = {"level": Target.of_classes(labels)}, FinetuneConfig(**QUICK)
    one, same, other = (finetune(model, values, target, config=config, rng=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before), "torch's own random state is left alone"
    assert all(np.array_equal(array, same.arrays[name]) for name, array in one.arrays.items())
    assert not all(np.array_equal(array, other.arrays[name]) for name, array in one.arrays.items())


def test_groups_stay_together_and_training_stops_early(model, values, labels, monkeypatch):
    import bulkformer_tl.train._fit as module

    seen = {}

    class Loop(module.Loop):
        def train_heads(self, train, validation):
            seen.update(train=train, validation=validation)
            super().train_heads(train, validation)

    monkeypatch.setattr(module, "Loop", Loop)
    groups = np.arange(N) // 4
    # a rate at which nothing gets better
    config = FinetuneConfig(epochs=20, head_epochs=0, patience=2, learning_rate=1e-12, head_learning_rate=1e-12)
    adapter = finetune(model, values, {"level": Target.of_classes(labels)}, config=config, groups=groups)
    assert not set(groups[seen["train"]]) & set(groups[seen["validation"]])
    assert len(seen["train"]) + len(seen["validation"]) == N
    assert len(adapter.history) <= 1 + 20


def test_search_keeps_the_configuration_that_validates_best(model, values, labels):
    pytest.importorskip("optuna")
    target, validation = {"level": Target.of_classes(labels)}, np.arange(N) % 4 == 0
    rates = (1e-6, 3e-2)
    config = FinetuneConfig(method="probe", head_epochs=20, n_trials=6, space={"head_learning_rate": rates})
    found = finetune(model, values, target, config=config, validation=validation)
    single = [
        finetune(
            model,
            values,
            target,
            config=FinetuneConfig(method="probe", head_epochs=20, head_learning_rate=rate),
            validation=validation,
        )
        for rate in rates
    ]
    assert found.config.head_learning_rate == rates[1], "the other one learns nothing"
    assert found.facts["best"]["loss"] == min(one.facts["best"]["loss"] for one in single)
    assert all(np.array_equal(array, single[1].arrays[name]) for name, array in found.arrays.items())


def test_a_search_over_epochs_reports_all_of_its_work(model, values, labels, monkeypatch):
    pytest.importorskip("optuna")
    import bulkformer_tl.train._finetune as module

    bars = []

    class Progress(module.Progress):
        def __init__(self, total, *arguments):
            super().__init__(total, *arguments)
            self.expected, self.done = total, 0
            bars.append(self)

        def update(self, n):
            self.done += n
            super().update(n)

    monkeypatch.setattr(module, "Progress", Progress)
    config = FinetuneConfig(head_epochs=2, epochs=7, n_trials=3, space={"epochs": (1, 2)})
    finetune(model, values, {"level": Target.of_classes(labels)}, config=config, validation=np.arange(N) % 4 == 0)
    assert [(bar.expected, bar.done) for bar in bars] == [(3 * 2 * 30, 3 * 2 * 30)]


@pytest.mark.parametrize("rare", ["event", "label"])
def test_groups_are_left_out_by_which_training_can_stop(rare, model, values, labels, level):
    some = np.zeros(N, dtype=bool)
    # one group in each half of the folds knows anything
    some[[0, 1, 2, 3, 20, 21, 22, 23]] = True
    wanted = {
        "event": Target.of_survival(1 + np.arange(N) % 4, some),
        "label": Target.of_numbers(np.where(some, level, np.nan)),
    }[rare]
    for seed in range(3):
        adapter = finetune(
            model,
            values,
            {"level": Target.of_classes(labels), "rare": wanted},
            config=FinetuneConfig(method="probe", head_epochs=3),
            groups=np.arange(N) // 4,
            rng=seed,
        )
        alone = finetune(
            model,
            values,
            {"rare": wanted},
            config=FinetuneConfig(method="probe", head_epochs=3),
            groups=np.arange(N) // 4,
            rng=seed,
        )
        assert adapter.facts["best"]["loss"] > 0
        assert alone.facts["best"]["loss"] > 0


def test_products_in_bfloat16(model, values, labels):
    config = FinetuneConfig(precision="bf16", **QUICK)
    adapter = finetune(model, values, {"level": Target.of_classes(labels)}, config=config)
    assert np.isfinite(adapter.predict(model, values)["level"]).all()


def test_adapters_are_kept_without_pickle(model, values, targets, tmp_path):
    adapter = finetune(model, values, targets, config=FinetuneConfig(hidden=4, **QUICK))
    adapter.save(tmp_path / "adapter")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == ["adapter.json", "adapter.safetensors"]
    read = Adapter.load(tmp_path / "adapter")
    expected, found = adapter.predict(model, values), read.predict(model, values)
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    assert read.n_bytes == adapter.n_bytes < 100_000
    assert "lora" in repr(read)
    with pytest.raises(ValueError, match=r"trained on tiny-g3 \(weights .*, and tiny-g3 has the weights"):
        read.predict(make_model(seed=1), values)
    data = (tmp_path / "adapter" / "adapter.safetensors").read_bytes()
    (tmp_path / "adapter" / "adapter.safetensors").write_bytes(data[:-1])
    with pytest.raises(ValueError, match=r"is not the file that adapter\.json describes: it was cut or changed"):
        Adapter.load(tmp_path / "adapter")
    with pytest.raises(ValueError, match="arrays do not fit the model"):
        Adapter(adapter.facts, {**adapter.arrays, "encoder.nothing": np.zeros(2)}).predict(model, values)
    with pytest.raises(ValueError, match=r"start with 'heads\.' or 'encoder\.'"):
        Adapter(adapter.facts, {"weights": np.zeros(2)})
    with pytest.raises(ValueError, match="the facts of an adapter are"):
        Adapter({}, {})
    with pytest.raises(ValueError, match="target 'x' is not described by"):
        Adapter({**adapter.facts, "targets": {"x": {"kind": "class"}}}, {})


def bioformer():
    torch.manual_seed(0)
    sizes = {"n_bins": 8, "dim": 16, "layers": 2, "heads": 2, "feed_forward": 32}
    network = BioformerNetwork(BioformerConfig(n_genes=G, **sizes))
    vocabulary = GeneVocabulary(np.array([f"ENSG{i:011d}" for i in range(G)]), name="sixty")
    return bf.models.BioFormer(
        network, vocabulary, name="tiny-bioformer", family="bioformer", binnings={"rna": {"target_sum": 5000.0}}
    )


@pytest.mark.parametrize("pooling", [None, "mean"])
@pytest.mark.parametrize("family", ["bioformer", "geneformer"])
def test_other_encoders(family, pooling, values, labels, geneformer_folders):
    counts = np.nan_to_num(np.round(values * 20))
    if family == "geneformer":
        pytest.importorskip("transformers")
        model = bf.models.load_geneformer(geneformer_folders["v2"], device="cpu")
        counts = np.resize(counts, (N, len(model.vocabulary)))
    else:
        model = bioformer()
        counts = model.bin(counts)
    genes = np.where(np.arange(len(model.vocabulary)) % 2, "odd", "even")
    wanted = {"level": Target.of_classes(labels), "genes": Target.of_genes(genes)}
    adapter = finetune(model, counts, wanted, config=FinetuneConfig(pooling=pooling, **{**QUICK, "epochs": 1}))
    assert any("lora_A" in name for name in adapter.arrays)
    # with nothing added yet, vectors are those that the model itself gives
    way = backbone(model, pooling)
    pooled, vectors = way.vectors(
        {name: tensor[:2] for name, tensor in way.inputs(counts, None).items()}, torch.tensor([1, 0, 5])
    )
    expected = model.encode(counts[:2], outputs=("pooled", "genes"), genes=[1, 0, 5], pooling=pooling)
    torch.testing.assert_close(pooled, expected.pooled, rtol=0, atol=1e-5)
    torch.testing.assert_close(vectors, expected.genes, rtol=0, atol=1e-5, equal_nan=True)
    assert np.isfinite(adapter.predict(model, counts[:3])["level"]).all()


def test_embedded_checkpoint():
    model = bf.models.load("bulkformer-mini", device="cpu")
    values = np.random.default_rng(0).uniform(0, 8, (4, len(model.vocabulary))).astype(np.float32)
    wanted = {"half": Target.of_classes(["a", "b"] * 2)}
    config = FinetuneConfig(epochs=1, head_epochs=5, batch_size=2)
    adapter = finetune(model, values, wanted, config=config, validation=np.arange(4) < 2)
    assert adapter.arrays["heads.sample_centre"].shape == (256 + 34,)
    way = backbone(model, None)
    pooled, _ = way.vectors({name: tensor[:1] for name, tensor in way.inputs(values[:1], None).items()}, None)
    expected = model.encode(values[:1]).pooled
    torch.testing.assert_close(pooled[:, :256], expected, rtol=0, atol=1e-4)


def test_rounded_weights_are_not_trained_themselves(model):
    way = backbone(model, None)
    way.network.quantization_method = "bitsandbytes"
    try:
        with pytest.raises(ValueError, match=r"loaded with rounded weights .* use method='lora', or load it without"):
            trainable_copy(way, FinetuneConfig(method="full"), seed=0)
    finally:
        del way.network.quantization_method


@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_low_rank_additions_to_rounded_weights(quantize, wide_geneformer, values, labels):
    pytest.importorskip("bitsandbytes")
    rounded = bf.models.load_geneformer(wide_geneformer, quantize=quantize, device="cpu")
    counts = np.resize(np.nan_to_num(np.round(values * 20)), (N, len(rounded.vocabulary)))
    # stopped by copies of the samples, so that the encoder is sure to have learnt something
    counts, target = np.tile(counts[:16], (2, 1)), {"level": Target.of_classes(np.tile(labels[:16], 2))}
    before = {name: tensor.clone() for name, tensor in rounded.network.state_dict().items()}
    config = FinetuneConfig(epochs=3, head_epochs=2, batch_size=8, learning_rate=1e-6)
    adapter = finetune(rounded, counts, target, config=config, validation=np.arange(32) < 16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in rounded.network.state_dict().items())
    assert adapter.facts["precision"] == quantize
    added = {name: array for name, array in adapter.arrays.items() if name.startswith("encoder.")}
    assert added
    assert all("lora_" in name for name in added)
    assert adapter.facts["best"]["stage"] == "encoder"
    assert all(np.abs(array).sum() > 0 for name, array in added.items() if "lora_B" in name), "they have learnt"
    assert np.array_equal(adapter.predict(rounded, counts[:3])["level"], adapter.predict(rounded, counts)["level"][:3])
    plain = bf.models.load_geneformer(wide_geneformer, device="cpu")
    with pytest.raises(ValueError, match=rf"with weights in {quantize}, and .* in float32; .*quantize='{quantize}'"):
        adapter.predict(plain, counts)
    exact = finetune(plain, counts, target, config=FinetuneConfig(method="probe", head_epochs=1))
    with pytest.raises(ValueError, match=rf"with weights in float32, and .* {quantize}; load it without quantize="):
        exact.predict(rounded, counts)


def test_low_rank_additions_need_peft(model, values, labels, monkeypatch):
    real = util.find_spec
    monkeypatch.setattr("bulkformer_tl._optional.find_spec", lambda name: None if name == "peft" else real(name))
    with pytest.raises(ImportError, match=r"method='lora' needs peft: pip install \"bulkformer-tl\[finetune\]\""):
        finetune(model, values, {"level": Target.of_classes(labels)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "adapters"}, "method must be one of"),
        ({"rank": 0}, "rank must be a whole number from 1"),
        ({"hidden": -1}, "hidden must be a whole number from 0"),
        ({"micro_batch_size": 0}, "micro_batch_size must be a whole number from 1 or None"),
        ({"head_learning_rate": 0}, "head_learning_rate must be above 0"),
        ({"learning_rate": 0}, "learning_rate must be above 0 or None"),
        ({"weight_decay": -1}, "weight_decay must not be negative"),
        ({"validation": 1.0}, "validation is a share between 0 and 1"),
        ({"lora_dropout": 1.0}, "lora_dropout is a share between 0 and 1"),
        ({"class_weights": "even"}, "class_weights must be 'balanced' or None"),
        ({"loss_weights": {"a": 0}}, "loss_weights must be above 0"),
        ({"n_trials": 2}, "n_trials=2 and space={} go together"),
        ({"n_trials": 2, "space": {"x": (1,)}}, "space names 'x'; there are the fields"),
        ({"n_trials": 2, "space": {"rank": 4}}, r"space\['rank'\] is 4; pass a list of values"),
        ({"n_trials": 2, "space": {"rank": (4, 0)}}, "rank must be a whole number from 1"),
        # trials are compared by the loss, which these change
        ({"n_trials": 2, "space": {"loss_weights": ({"a": 0.1},)}}, "space names 'loss_weights'; there are the fields"),
        ({"n_trials": 2, "space": {"class_weights": (None,)}}, "space names 'class_weights'; there are the fields"),
        ({"precision": "16"}, "precision must be '32' or 'bf16'"),
    ],
)
def test_configuration_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        FinetuneConfig(**changes)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Target.of_classes(["a", "a"]), ValueError, "holds only 'a'; at least two classes"),
        (lambda: Target.of_classes([None, ""]), ValueError, "labels are missing everywhere"),
        (lambda: Target.of_numbers([1.0, 1.0]), ValueError, "the numbers are constant"),
        (lambda: Target.of_numbers([1.0, "x"]), TypeError, "must be numbers and holds 'x'"),
        (lambda: Target.of_survival([1.0, 2.0], [0, 0]), ValueError, "no event happened"),
        (lambda: Target.of_survival([1.0, 2.0], [0, 2]), ValueError, "events are 1"),
        (lambda: Target.of_survival([0.0, 2.0], [1, 0]), ValueError, "times run from above 0"),
        (lambda: Target.of_genes(["a", "a"]), ValueError, "labels of genes holds only 'a'"),
    ],
)
def test_targets_of_which_nothing_can_be_learnt(make, error, message):
    with pytest.raises(error, match=message):
        make()


TWO = ["a", "b"] * (N // 2)


@pytest.mark.parametrize(
    ("wanted", "options", "message"),
    [
        ({}, {}, "there is no target"),
        ({"x": Target.of_classes(["a", "b"])}, {}, "target 'x' has 2 values for 40 samples"),
        ({"x": Target.of_genes(["a", "b"])}, {}, "target 'x' has 2 values for 60 genes"),
        ({"x": Target.of_classes(TWO)}, {"groups": ["p"] * N}, "of 1 group, and the inner validation needs another"),
        (
            {"x": Target.of_classes(TWO)},
            {"groups": [f"p{i // 2}" for i in range(N)], "validation": np.arange(N) % 2 == 0},
            "20 groups have samples on both sides of validation, through which labels leak",
        ),
        ({"x": Target.of_classes(TWO)}, {"validation": np.arange(N)}, "validation must be boolean with 40 entries"),
        (
            {"x": Target.of_classes(TWO)},
            {"validation": np.array(TWO) == "a"},
            r"no training sample is of the classes \['a'\] of 'x'",
        ),
        (
            {"x": Target.of_classes(["a"] * 20 + ["b"] * 20)},
            {"groups": ["p"] * 20 + ["q"] * 20},
            "whichever groups are left out to stop by, too little is left to train on or to stop by: no",
        ),
        (
            {"x": Target.of_survival([1.0] * N, [1] * 20 + [0] * 20)},
            {"groups": ["p"] * 20 + ["q"] * 20},
            "too little is left to train on or to stop by: no event of 'x' happened",
        ),
        (
            {"x": Target.of_classes(TWO), "y": Target.of_numbers([1.0, 2.0] + [np.nan] * 38)},
            {"validation": np.arange(N) >= 30},
            "none of the samples to stop by has a value of 'y'; leave labelled ones out",
        ),
        (
            {"x": Target.of_survival(np.arange(1.0, N + 1), np.arange(N) < 30)},
            {"validation": np.arange(N) >= 30},
            "no event of 'x' happened, while another one was at risk, among the samples to stop by",
        ),
        # the last one of all, of which whatever is predicted costs nothing
        (
            {"x": Target.of_survival(np.arange(1.0, N + 1), (np.arange(N) < 20) | (np.arange(N) == 39))},
            {"validation": np.arange(N) >= 30},
            "no event of 'x' happened, while another one was at risk, among the samples to stop by",
        ),
        ({"x": Target.of_classes(TWO)}, {"config": FinetuneConfig(method="freeze", layers=9)}, "has 2 layers, and"),
        ({"x": Target.of_classes(TWO)}, {"config": FinetuneConfig(pooling="cls")}, "pooling must be one of"),
        ({"x": Target.of_classes(TWO)}, {"external": {"sex": 1}}, "reads no external tokens"),
        ({"x": Target.of_numbers([1.0] * 39 + [2.0])}, {"validation": np.arange(N) == 39}, "'x' is constant"),
        (
            {"x": Target.of_survival([1.0] * N, np.arange(N) == 3)},
            {"validation": np.arange(N) == 3},
            "no event of 'x' happened among the training samples",
        ),
        (
            {"x": Target.of_numbers([np.nan] * 38 + [1.0, 2.0])},
            {"validation": np.arange(N) >= 38},
            "no training sample has a value of 'x'",
        ),
    ],
)
def test_bad_input(wanted, options, message, model, values):
    with pytest.raises(ValueError, match=message):
        finetune(model, values, wanted, **options)


def test_only_models_are_adapted(values):
    class Other:
        vocabulary = range(G)

    with pytest.raises(TypeError, match=r"expected a model of bf\.models\.load, found Other"):
        finetune(Other(), values, {"x": Target.of_classes(TWO)})


def test_an_encoder_that_was_pretrained_further_is_adapted_like_any_other(studies, vocabulary, graph, config, tmp_path):
    pytest.importorskip("lightning")
    corpus = [bf.train.Source(study, study="batch") for study in list(studies.values())[3:]]
    first = bf.train.pretrain(
        corpus, config(epochs=0.4), vocabulary=vocabulary, graph=graph, out=tmp_path / "first", device="cpu"
    )
    further = bf.train.PretrainConfig(
        family="g3", epochs=0.4, batch_size=8, checkpoint_every=5, validation=("batch_6",)
    )
    own = bf.train.pretrain(corpus, further, start=first, out=tmp_path / "own", device="cpu")
    cohort = studies["batch_4"]
    target = {"condition": Target.of_classes(cohort.obs["condition"].astype(str).to_numpy())}
    adapter = finetune(own, cohort.X, target, config=FinetuneConfig(**QUICK))
    assert np.isfinite(adapter.predict(own, cohort.X)["condition"]).all()
    with pytest.raises(ValueError, match="pass that model"):
        adapter.predict(first, cohort.X)
