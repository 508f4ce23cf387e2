"""BioFormers: the published network against its golden outputs, the paper's network by its properties."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bulkformer_tl import models
from bulkformer_tl._vocabulary import GeneVocabulary, match_genes
from bulkformer_tl.models import Binning, BioFormer
from bulkformer_tl.models._bioformer import BioformerConfig, BioformerNetwork
from bulkformer_tl.models._bioformer_generate import generate

SIZES = {"dim": 16, "layers": 2, "heads": 2, "feed_forward": 32, "n_bins": 6}


def ids(n):
    return np.array([f"ENSG{i:011d}" for i in range(n)])


@pytest.fixture
def published(golden):
    folder = golden / "bioformers"
    config = json.loads((folder / "model_config.json").read_text())
    return {
        "weights": folder / "model_weights.safetensors",
        "genes": GeneVocabulary(ids(config["n_genes"]), name="twelve"),
        "heads": config["num_attention_heads"],
        "device": "cpu",
    }


def make(external=None, names=None, n_genes=8, **changes):
    vocabulary = GeneVocabulary(ids(n_genes) if names is None else np.array(names), name="few")
    sizes = tuple(len(categories) for categories in (external or {}).values())
    torch.manual_seed(0)
    n_modalities = len({name.split(":")[0] if ":" in name else "rna" for name in vocabulary.ids})
    config = BioformerConfig(
        n_genes=len(vocabulary), **(SIZES | changes), external=sizes, n_modalities=n_modalities, dropout=0.0
    )
    network = BioformerNetwork(config)
    # weights of a deviation of 0.02 leave hardly anything to tell apart
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10)
    binnings = {"rna": Binning(target_sum=50.0)} if any(":" not in name for name in vocabulary.ids) else {}
    return BioFormer(network, vocabulary, name="tiny", family="bioformer", binnings=binnings, external=external)


@pytest.fixture
def bins():
    return np.random.default_rng(0).integers(0, 6, (4, 8)).astype(np.float32)


def test_published_network_matches(golden, published):
    io = load_file(golden / "bioformers" / "model_io.safetensors")
    model = models.load_bioformers(**published)
    hidden = io["masked_tokens"] == 60
    with torch.inference_mode():
        _, vectors = model.network(io["bins"], hidden)
        words = model.network.word_logits(vectors)
        torch.testing.assert_close(vectors, io["last_hidden_state"], atol=2e-5, rtol=0)
        torch.testing.assert_close(words, io["logits"], atol=2e-5, rtol=0)
        every = torch.nn.functional.cross_entropy(words.flatten(0, 1), io["target_tokens"].flatten())
        masked = torch.nn.functional.cross_entropy(words[hidden], io["target_tokens"][hidden])
        own = model.network.bin_logits(vectors)
    torch.testing.assert_close(every[None], io["published_loss_all_positions"], atol=2e-5, rtol=0)
    torch.testing.assert_close(masked[None], io["loss_masked_positions_only"], atol=2e-5, rtol=0)
    expected = words[..., :-1].view(4, 12, 12, 5)[:, torch.arange(12), torch.arange(12)]
    torch.testing.assert_close(own, expected)


def test_published_network_encodes_and_returns_from_a_bundle(golden, published, tmp_path):
    io = load_file(golden / "bioformers" / "model_io.safetensors")
    model = models.load_bioformers(**published)
    again = models.load(models.convert(model, tmp_path / "bundle"), device="cpu")
    assert isinstance(again, models.Encoder)
    for option in ({"protein": torch.ones(1, 1)}, {"mask_prob": 0.1}):
        with pytest.raises(ValueError, match="is a BioFormer, which has no protein table or mask_prob"):
            models.load(tmp_path / "bundle", **option)
    assert again.family == "bioformer-bert"
    assert (again.config, again.binnings) == (model.config, model.binnings)
    outputs = [each.encode(io["bins"], outputs=("pooled", "genes")) for each in (model, again)]
    assert torch.equal(outputs[0].pooled, outputs[1].pooled)
    torch.testing.assert_close(outputs[0].pooled, outputs[0].genes.mean(dim=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"genes": GeneVocabulary(ids(13))}, "has 61 rows.* 13 genes do not divide 60"),
        ({"heads": 5}, "width 32, which 5 heads do not divide"),
        ({"weights": "nowhere.pt"}, "the weights is not at nowhere.pt"),
    ],
)
def test_published_weights_that_do_not_fit_are_refused(published, change, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        models.load_bioformers(**(published | change))


def test_another_network_is_refused(published, tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is not the network that BioFormers published"):
        models.load_bioformers(**(published | {"weights": tmp_path / "other.safetensors"}))


def test_defaults_are_those_of_the_paper():
    config = BioformerConfig(n_genes=10)
    assert (config.layers, config.heads, config.dim) == (8, 8, 512)


@pytest.mark.parametrize("value", ["table", "linear"])
@pytest.mark.parametrize("decoder", [False, True])
def test_batches_absent_features_and_order_change_nothing(bins, value, decoder):
    model = make(value=value, decoder=decoder)
    bins[1, 2:4] = np.nan
    together = model.encode(bins, outputs=("pooled", "genes"))
    for row in range(4):
        alone = model.encode(bins[row : row + 1], outputs=("pooled", "genes"))
        assert torch.equal(alone.pooled[0], together.pooled[row])
        assert torch.equal(alone.genes[0].nan_to_num(), together.genes[row].nan_to_num())
    assert together.genes[1].isnan().all(dim=1).nonzero().flatten().tolist() == [2, 3]
    with torch.inference_mode():
        # all at once, where absent features are masked instead of left out
        cls, vectors = model.network(torch.from_numpy(np.nan_to_num(bins, nan=-1)).long())
    torch.testing.assert_close(cls, together.pooled, atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors[0], together.genes[0], atol=1e-5, rtol=0)


def test_pooling(bins):
    model = make()
    found = model.encode(bins, outputs=("pooled", "genes"), pooling="mean", pool_genes=[1, 5], genes=[1, 5])
    torch.testing.assert_close(found.pooled, found.genes.mean(dim=1))
    assert not torch.equal(model.encode(bins).pooled, model.encode(bins, pooling="mean").pooled)


def test_hidden_values_are_not_seen(bins):
    for value in ("table", "linear"):
        model = make(value=value)
        hidden = torch.zeros(4, 8, dtype=torch.bool)
        hidden[:, 3] = True
        other = bins.copy()
        other[:, 3] = (other[:, 3] + 1) % 6
        one, two = (model.network(torch.from_numpy(each).long(), hidden)[1] for each in (bins, other))
        assert torch.equal(one, two)
        assert not torch.equal(one, model.network(torch.from_numpy(bins).long())[1])


def test_decoder_keeps_hidden_tokens_apart(bins):
    """Hidden tokens change neither the known ones nor each other; in an encoder they do both."""
    given = torch.from_numpy(bins).long()
    few, many = torch.zeros(4, 8, dtype=torch.bool), torch.zeros(4, 8, dtype=torch.bool)
    few[:, 3], many[:, [3, 4]] = True, True
    for decoder in (True, False):
        network = make(decoder=decoder).network
        present = given.clone()
        present[:, 4] = -1
        with torch.inference_mode():
            without, beside = network(present, few)[1], network(given, many)[1]
        torch.testing.assert_close(without[:, 3], beside[:, 3]) if decoder else None
        assert torch.allclose(without[:, :4], beside[:, :4], atol=1e-5) == decoder


def test_external_tokens_and_modalities_add_to_tokens(bins):
    model = make(external={"obs/batch": ("a", "b")}, names=[*ids(5), "protein:CD3", "protein:CD4", "obs:age"])
    assert model.modalities == ["rna", "protein", "obs"]
    assert model.network.modalities.tolist() == [0, 0, 0, 0, 0, 1, 1, 2]
    plain, unknown, one, mixed = (
        model.encode(bins, external=external).pooled
        for external in (
            None,
            {"obs/batch": np.zeros((4, 1), dtype=int)},
            {"obs/batch": np.ones((4, 1), dtype=int)},
            {"obs/batch": np.array([[1], [2], [1], [0]])},
        )
    )
    assert torch.equal(plain, unknown)
    assert [torch.equal(one[i], mixed[i]) for i in range(4)] == [True, False, True, False]
    assert torch.equal(plain[3], mixed[3])
    with torch.no_grad():
        model.network.modality.weight[1] += 1.0
    assert not torch.equal(model.encode(bins).pooled, plain)


def test_generation_takes_the_most_certain_first(bins):
    model = make(decoder=True)
    row, hidden = torch.from_numpy(bins[0]).long(), torch.tensor([0, 1, 1, 1, 0, 1, 0, 0], dtype=torch.bool)
    features = torch.arange(8)
    with torch.inference_mode():
        found, certainty = generate(model.network, row, hidden, None, features, rounds=4)
        # the same by hand: one at a time, everything predicted anew
        state, open_ = row.clone(), hidden.clone()
        for _ in range(4):
            probability = model.network.bin_logits(model.network(state[None], open_[None])[1])[0].softmax(-1)
            best, bin_ = probability.max(-1)
            chosen = int(best.masked_fill(~open_, -1).argmax())
            state[chosen], open_[chosen] = bin_[chosen], False
            torch.testing.assert_close(certainty[chosen], best[chosen])
    assert torch.equal(found, state)
    assert torch.equal(found[~hidden], row[~hidden])


def test_predicted_bins(bins):
    model = make()
    given = bins.copy()
    given[:, 2] = np.nan
    found, certainty = model.predict_bins(given)
    assert np.array_equal(np.delete(found, 2, axis=1), np.delete(bins, 2, axis=1))
    assert (certainty[:, 2] < 1).all()
    assert (np.delete(certainty, 2, axis=1) == 1).all()
    assert np.array_equal(model.predict_bins(given[:1])[0][0], found[0])


def test_bins_of_values():
    """Equation 4 and 5 of genes, by the library of the whole table; numbers of samples as they are."""
    model = make(names=[*ids(2), "obs:age"], n_bins=20)
    columns = [*ids(3)[::-1], "obs:age"]
    read = model.reader(columns, match_genes(columns, model.vocabulary))
    table = np.array([[50.0, 30.0, 20.0, 40.0], [0.0, np.nan, 10.0, 3.0]])
    # libraries 100 and 10 scaled to 50: 20 -> 10 and 30 -> 15; 40 is ceil(3 log2(40/8)) = 7 above 8, 50 ceil(7.9)
    assert np.array_equal(read(table), [[9, 11, 15], [16, np.nan, 3]], equal_nan=True)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.full((1, 8), 6), "row 0 holds 6 for ENSG00000000000, which is no token of tiny: its bins run from 0 to 5"),
        (np.full((1, 8), 0.5), "holds 0.5 .* no token"),
        (np.zeros((1, 7)), r"bins have shape \(1, 7\)"),
        (np.full((1, 8), np.nan), "no gene of tiny was measured in row 0"),
    ],
)
def test_bins_outside_the_vocabulary_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        make().encode(value)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ({"obs/batch": np.array([[3]])}, "run from 3 to 3 .* from 0, where unknown, to 2"),
        ({"obs/batch": np.array([[0.5]])}, "whole numbers"),
        ({"obs/batch": np.zeros((3, 2), dtype=int)}, "must broadcast"),
        ({"obs/age": np.array([[1]])}, "none called 'obs/age'"),
    ],
)
def test_external_codes_outside_the_vocabulary_are_refused(bins, codes, message):
    with pytest.raises(ValueError, match=message):
        make(external={"obs/batch": ("a", "b")}).encode(bins, external=codes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observed_only": False}, "measured features only"),
        ({"outputs": ("expression",)}, "outputs must be"),
        ({"pooling": "sum"}, "pooling must be one of"),
        ({"pooling": "cls", "pool_genes": [1]}, "is not a summary of gene vectors"),
        ({"summary_columns": True, "pooling": "mean"}, "has no summary columns"),
        ({"protein": True}, "has no protein table"),
    ],
)
def test_options_that_do_not_exist_are_refused(bins, options, message):
    with pytest.raises(ValueError, match=message):
        make().encode(bins, **options)


def test_nothing_to_pool_over_is_refused(bins):
    bins[1, 3] = np.nan
    with pytest.raises(ValueError, match="none of the genes to pool over was measured in row 1"):
        make().encode(bins, pooling="mean", pool_genes=[3])


def test_rounds_are_at_least_one(bins):
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        make().predict_bins(bins, rounds=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocabulary": GeneVocabulary(ids(9), name="nine")}, "'nine' lists 9 features, and .* embedding table has 8"),
        ({"vocabulary": GeneVocabulary(np.array([*ids(7), "obs:age"]))}, r"modalities \['rna', 'obs'\]"),
        ({"external": {"obs/batch": ["a"]}}, r"external tokens have \[1\] codes"),
        ({"binnings": {"protein": {}}}, "binning names the modalities"),
        ({"binnings": {"rna": {"method": "rank"}}}, "method of a binning"),
        ({"binnings": {"rna": {"target_sum": "mean"}}}, "is a number once a model is trained"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(change, message):
    network = make().network
    given = {"vocabulary": GeneVocabulary(ids(8)), "binnings": {"rna": Binning()}} | change
    with pytest.raises(ValueError, match=message):
        BioFormer(network, given.pop("vocabulary"), name="x", family="bioformer", **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"heads": 3}, "not a multiple"), ({"n_bins": 1}, "at least 2"), ({"value": "mlp"}, "'table' or 'linear'")],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_a_missing_modality_is_refused():
    model = make(names=[*ids(2), "protein:CD3"])
    with pytest.raises(ValueError, match="none of its features of 'protein'"):
        model.reader(list(ids(2)), match_genes(ids(2), model.vocabulary))


def test_bundle_round_trip_is_bit_equal(bins, tmp_path):
    model = make(external={"obs/batch": ("a", "b")}, names=[*ids(7), "obs:age"], value="linear", decoder=True, n_bins=6)
    folder = models.convert(model, tmp_path / "bundle")
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "config.json", "genes.csv", "manifest.json", "model.safetensors")
    ]
    again = models.load(folder, device="cpu")
    for fact in ("name", "family", "external", "binnings", "config", "modalities", "default_pooling"):
        assert getattr(again, fact) == getattr(model, fact), fact
    codes = {"obs/batch": np.array([[1], [2], [0], [1]])}
    assert torch.equal(again.encode(bins, external=codes).pooled, model.encode(bins, external=codes).pooled)
    assert torch.equal(again.gene_table(), model.gene_table())
    assert "6" in repr(again)
