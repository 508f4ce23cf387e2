from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from bulkformer_tl import models, pp, settings
from bulkformer_tl._vocabulary import match_genes

transformers = pytest.importorskip("transformers")

LAYERS = [("v1", -1), ("v1", 0), ("v2", -1), ("v2", 0)]


@pytest.fixture(scope="module")
def files(golden):
    return golden / "geneformer"


@pytest.fixture(scope="module")
def load(geneformer_folders):
    cache: dict[tuple[str, int], models.Geneformer] = {}

    def make(version: str, emb_layer: int = -1) -> models.Geneformer:
        key = (version, emb_layer)
        if key not in cache:
            cache[key] = models.load_geneformer(geneformer_folders[version], emb_layer=emb_layer, device="cpu")
        return cache[key]

    return make


@pytest.fixture(scope="module")
def expected(files):
    return load_file(files / "expected_embeddings.safetensors")


@pytest.fixture(scope="module")
def order(files):
    return json.loads((files / "expected_order.json").read_text())


@pytest.fixture(scope="module")
def counts(load, geneformer_cells):
    match = match_genes(geneformer_cells.var_names, load("v1").vocabulary)

    def align(version: str) -> np.ndarray:
        own = match_genes(geneformer_cells.var_names, load(version).vocabulary)
        return own.align(geneformer_cells.X.toarray().astype(np.float32))

    assert match.n_found == 56
    return align


def close(found, wanted, tolerance=2e-5):
    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=0, atol=tolerance)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_golden_tokens(files, load, counts, geneformer_cells, version):
    name = {"v1": "cells.v1_2048", "v2": "cells.v2_4096"}[version]
    wanted = json.loads((files / "expected_tokens.json").read_text())[name]
    found = load(version).tokenize(counts(version))
    assert {cell: own.tolist() for cell, own in zip(geneformer_cells.obs_names, found, strict=True)} == wanted


def test_tokens_of_the_encoder(load, counts, geneformer_cells):
    model = load("v2")
    encoded = pp.rank_value_encode(geneformer_cells, medians=model.dictionary, max_length=model.context, copy=True)
    for row, n, own in zip(
        encoded.obsm["rank_tokens"], encoded.obs["rank_length"], model.tokenize(counts("v2")), strict=True
    ):
        np.testing.assert_array_equal(row[:n], own)
    with pytest.raises(ValueError, match="has its own tokens and names; leave out tokens= and renamed="):
        pp.rank_value_encode(geneformer_cells, medians=model.dictionary, tokens={"<pad>": 0})


@pytest.mark.parametrize(("version", "layer"), LAYERS)
def test_golden_sample_vectors(load, counts, expected, version, layer):
    model = load(version, layer)
    close(model.encode(counts(version), pooling="mean").pooled, expected[f"{version}.layer{layer}.cell"])
    if version == "v2":
        assert model.default_pooling == "cls"
        close(model.encode(counts(version)).pooled, expected[f"v2.layer{layer}.cls"])
    other = load(version, -1 - layer)
    torch.testing.assert_close(
        other.encode(counts(version), emb_layer=layer).pooled, model.encode(counts(version)).pooled, rtol=0, atol=0
    )


@pytest.mark.parametrize(("version", "layer"), LAYERS)
def test_golden_gene_vectors(load, counts, expected, order, version, layer):
    model = load(version, layer)
    found = model.encode(counts(version), outputs=("genes",)).genes
    assert found is not None
    mean = torch.nanmean(found, dim=0)
    index = pd.Index(model.vocabulary.ids).get_indexer(order[f"{version}.gene_index"])
    # the reference lists <cls> and <eos> among genes
    known = index >= 0
    assert known.sum() == 56
    close(mean[index[known]], expected[f"{version}.layer{layer}.gene_mean"][known])
    assert torch.isnan(mean[np.setdiff1d(np.arange(61), index[known])]).all()


@pytest.mark.parametrize(("version", "layer"), LAYERS)
def test_golden_token_vectors(load, counts, expected, version, layer):
    model = load(version, layer)
    tokens = model.tokenize(counts(version)[:3])
    wanted = expected[f"{version}.layer{layer}.tokens_first3"]
    for own, vectors in zip(wanted, model.token_vectors(tokens), strict=True):
        close(vectors, own[: len(vectors)])
    for number, own_layer in enumerate((-2, -1, 0)):
        wanted = expected[f"{version}.raw.hidden_states_{number}"]
        for own, vectors in zip(wanted, model.token_vectors(tokens, emb_layer=own_layer), strict=True):
            close(vectors, own[: len(vectors)])


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_golden_inputs_and_logits(load, counts, expected, version):
    model = load(version)
    ids, mask, logits = (expected[f"{version}.raw.{name}"] for name in ("input_ids", "attention_mask", "logits"))
    for own, row, attended, scores in zip(model.tokenize(counts(version)[:3]), ids, mask, logits, strict=True):
        n = len(own)
        np.testing.assert_array_equal(row[:n], own)
        assert attended.tolist() == [1] * n + [0] * (len(row) - n)
        assert (row[n:] == model.dictionary.specials["<pad>"]).all()
        with torch.inference_mode():
            close(model.network(input_ids=row[None, :n]).logits[0], scores[:n])


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_samples_stay_in_their_order(load, counts, geneformer_cells, order, version):
    """The reference returns them by length, longest first; what comes back here is that of the row that went in."""
    lengths = pd.Series([len(own) for own in load(version).tokenize(counts(version))], geneformer_cells.obs_names)
    returned = order[f"{version}.returned_cell_order"]
    assert sorted(returned) == sorted(geneformer_cells.obs_names) != returned
    assert lengths[returned].is_monotonic_decreasing
    assert not lengths.is_monotonic_decreasing


def test_golden_counts_are_one_and_the_same(files, geneformer_cells):
    table = pd.read_csv(files / "cells_counts.csv", index_col=0)
    np.testing.assert_array_equal(table.pop("n_counts"), geneformer_cells.obs["n_counts"])
    pd.testing.assert_frame_equal(table, geneformer_cells.to_df(), check_names=False, check_dtype=False)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_golden_state_vectors(load, counts, geneformer_cells, expected, version, statistic):
    vectors = load(version).encode(counts(version)).pooled
    found = models.state_vectors(vectors, geneformer_cells.obs["state"], statistic=statistic)
    assert set(found) == {"dcm", "hcm", "nf"}
    for state, vector in found.items():
        close(vector, expected[f"{version}.layer-1.state_exact_{statistic}.{state}"])


def cosine(a, b):
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-1)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_golden_cosines(files, load, counts, geneformer_cells, version):
    """The similarities that perturbations of single genes are measured by, from changed lists of tokens."""
    table = pd.read_csv(files / "expected_perturbation.csv")
    table = table[(table["version"] == version) & (table["case"] == "all") & (table["table"] == "cell_embs")]
    model = load(version)
    tokens = dict(zip(geneformer_cells.obs_names, model.tokenize(counts(version)), strict=True))
    gene_of = dict(zip(model.vocabulary.ids, model.dictionary.tokens.tolist(), strict=True))
    assert len(table) > 100
    assert set(table["perturb_type"]) == {"delete", "overexpress"}
    ends = int(model.has_specials)
    for (cell, kind, layer), part in table.groupby(["cell_id", "perturb_type", "emb_layer"]):
        before = tokens[cell]
        changed = []
        for gene in part["perturbed_gene"]:
            token = gene_of[gene]
            rest = before[before != token]
            changed.append(rest if kind == "delete" else np.insert(rest, ends, token))
        (original,) = model.token_vectors([before], emb_layer=int(layer))
        for gene, own, wanted in zip(part["perturbed_gene"], changed, part["cosine"], strict=True):
            (after,) = model.token_vectors([own], emb_layer=int(layer))
            if version == "v2":
                found = float(cosine(after[0], original[0]))
            else:
                # the same genes before and after, the perturbed one left out
                same_before = original[torch.from_numpy(before != gene_of[gene])]
                same_after = after[torch.from_numpy(own != gene_of[gene])]
                found = float(cosine(same_after, same_before).mean())
            assert found == pytest.approx(wanted, abs=2e-6)


def test_batches_and_order_do_not_matter(load, counts):
    model = load("v2")
    x = counts("v2")
    whole = model.encode(x, outputs=("pooled", "genes"))
    rows = np.random.default_rng(0).permutation(len(x))
    shuffled = model.encode(x[rows], outputs=("pooled", "genes"))
    assert whole.pooled is not None
    torch.testing.assert_close(shuffled.pooled, whole.pooled[rows], rtol=0, atol=0)
    torch.testing.assert_close(shuffled.genes, whole.genes[rows], rtol=0, atol=0, equal_nan=True)
    # one list after the other on the CPU, all at once elsewhere
    together = model.token_vectors(model.tokenize(x))
    close(torch.stack([own[0] for own in together]), whole.pooled)


def test_library_does_not_matter(load, counts):
    x = counts("v1")
    torch.testing.assert_close(load("v1").encode(x * 4).pooled, load("v1").encode(x).pooled, rtol=0, atol=0)


def test_gene_table(load):
    model = load("v1")
    weights = load_file(Path(model.provenance["source"]) / "model.safetensors")
    table = weights["bert.embeddings.word_embeddings.weight"]
    torch.testing.assert_close(model.gene_table(), table[model.dictionary.tokens.astype(int)], rtol=0, atol=0)


def test_pooling_rules(load, counts):
    model = load("v2")
    x = counts("v2")[:4]
    genes = model.encode(x, outputs=("genes",)).genes
    for row in range(4):
        own = genes[row][~genes[row, :, 0].isnan()]
        rules = {"max": own.amax(0), "median": own.quantile(0.5, dim=0), "mean": own.mean(0)}
        rules["all"] = sum(rules.values())
        for rule, wanted in rules.items():
            close(model.encode(x[row : row + 1], pooling=rule).pooled[0], wanted, 1e-6)
    chosen = np.flatnonzero(~torch.isnan(genes[0, :, 0]).numpy())[:5]
    close(model.encode(x[:1], pooling="mean", pool_genes=chosen).pooled[0], genes[0, chosen].mean(0), 1e-6)
    torch.testing.assert_close(
        model.encode(x, outputs=("genes",), genes=[7, 3]).genes, genes[:, [7, 3]], equal_nan=True
    )


@pytest.mark.parametrize("layer", [0, 1, -1])
def test_attention(load, counts, geneformer_folders, layer):
    model = load("v2")
    x = counts("v2")[:2]
    found = list(model.attention(x, layer=layer))
    network = transformers.BertForMaskedLM.from_pretrained(geneformer_folders["v2"], attn_implementation="eager").eval()
    for own, tokens in zip(found, model.tokenize(x), strict=True):
        with torch.inference_mode():
            wanted = network(torch.from_numpy(tokens)[None], output_attentions=True).attentions[layer][0]
        torch.testing.assert_close(own.weights, wanted)
        torch.testing.assert_close(own.weights.sum(-1), torch.ones(4, len(tokens)))
        assert own.genes[[0, -1]].tolist() == [-1, -1]
        np.testing.assert_array_equal(model.dictionary.tokens[own.genes[1:-1]], tokens[1:-1])
    # what returns weights is slower, and not left switched on
    assert model.config._attn_implementation == "sdpa"


def test_logits_that_nobody_reads_are_not_computed(geneformer_folders, counts):
    from bulkformer_tl.models._gene_attention import attention_reader
    from bulkformer_tl.train._backbones import backbone

    def refuse(*_):
        pytest.fail("logits were computed")

    model, own = models.load_geneformer(geneformer_folders["v2"], device="cpu"), counts("v2")[:2]
    model.network.cls.register_forward_pre_hook(refuse)
    with pytest.raises(pytest.fail.Exception, match="logits were computed"):
        model.network(torch.ones(1, 3, dtype=torch.long))
    model.encode(own)
    next(model.attention(own))
    attention_reader(model)(own[0], {}, np.arange(3), np.arange(3), [0])
    way = backbone(model, None)
    way.vectors(way.inputs(own, None), None)


@pytest.mark.parametrize("prefix", ["geneformer:", ""])
def test_load_by_folder(load, counts, geneformer_folders, prefix):
    model = models.load(f"{prefix}{geneformer_folders['v2']}", device="cpu")
    assert isinstance(model, models.Geneformer)
    torch.testing.assert_close(model.encode(counts("v2")).pooled, load("v2").encode(counts("v2")).pooled)
    assert model.checksum == load("v2").checksum
    assert (model.context, model.width, model.input_unit) == (64, 32, "counts")
    assert "61 genes, 64 tokens, D=32" in repr(model)


def test_random_state_is_left_alone(geneformer_folders):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    models.load_geneformer(geneformer_folders["v1"], device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def as_published(files, root, version="v2"):
    """Lay files out as the published repository does."""
    folder = root / "Geneformer-V2-104M"
    shutil.copytree(files / f"model_{version}", folder)
    for place, own, tail in (
        (root / "geneformer", "v2", "gc104M"),
        (root / "geneformer" / "gene_dictionaries_30m", "v1", "gc30M"),
    ):
        place.mkdir(exist_ok=True)
        for source, name in (
            (f"token_dictionary_{own}", "token_dictionary"),
            ("gene_median_dictionary", "gene_median_dictionary"),
            ("ensembl_mapping_dictionary", "ensembl_mapping_dict"),
        ):
            content = json.loads((files / f"{source}.json").read_text())
            (place / f"{name}_{tail}.pkl").write_bytes(pickle.dumps(content))
    return folder


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_published_layout(files, load, counts, tmp_path, version):
    model = models.load_geneformer(as_published(files, tmp_path, version), device="cpu")
    torch.testing.assert_close(model.encode(counts(version)).pooled, load(version).encode(counts(version)).pooled)


def test_hub_with_a_fixed_revision(files, load, counts, tmp_path, monkeypatch):
    import huggingface_hub

    asked = {}

    def snapshot(repository, **options):
        asked.update(options, repository=repository)
        as_published(files, tmp_path / "snapshot")
        return str(tmp_path / "snapshot")

    (tmp_path / "snapshot").mkdir()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    commit = "0123456789abcdef0123456789abcdef01234567"
    with settings.override(cache_dir=tmp_path / "cache"):
        model = models.load(f"geneformer:ctheodoris/Geneformer/Geneformer-V2-104M@{commit}", device="cpu")
    assert (asked["repository"], asked["revision"]) == ("ctheodoris/Geneformer", commit)
    assert asked["cache_dir"] == tmp_path / "cache" / "hub"
    assert "Geneformer-V2-104M/model.safetensors" in asked["allow_patterns"]
    assert not any(pattern.endswith((".bin", ".py")) for pattern in asked["allow_patterns"])
    torch.testing.assert_close(model.encode(counts("v2")).pooled, load("v2").encode(counts("v2")).pooled)


@pytest.mark.parametrize(
    ("source", "error", "match"),
    [
        ("ctheodoris/Geneformer/Geneformer-V2-104M", ValueError, "names no fixed revision.*full commit"),
        ("ctheodoris/Geneformer/Geneformer-V2-104M@main", ValueError, "names no fixed revision"),
        ("ctheodoris/Geneformer", FileNotFoundError, "there is no folder ctheodoris/Geneformer"),
        ("ctheodoris/Geneformer/..@main", FileNotFoundError, "there is no folder"),
        ("nowhere", FileNotFoundError, "owner/repository/folder@revision"),
    ],
)
def test_bad_sources(source, error, match):
    with pytest.raises(error, match=match):
        models.load(f"geneformer:{source}")


def test_converted_folder_holds_json(files, load, counts, tmp_path):
    model = models.load_geneformer(as_published(files, tmp_path), device="cpu")
    place = models.convert(model, tmp_path / "converted")
    assert {path.name for path in place.iterdir()} == {
        "config.json",
        "model.safetensors",
        "token_dictionary.json",
        "gene_median_dictionary.json",
        "ensembl_mapping_dictionary.json",
    }
    again = models.load(place, device="cpu")
    torch.testing.assert_close(
        again.encode(counts("v2")).pooled, load("v2").encode(counts("v2")).pooled, rtol=0, atol=0
    )
    # anybody else can read it, too
    network = transformers.BertForMaskedLM.from_pretrained(place).eval()
    tokens = torch.from_numpy(model.tokenize(counts("v2")[:1])[0])[None]
    with torch.inference_mode():
        torch.testing.assert_close(network(tokens).logits, model.network(tokens).logits)
    with pytest.raises(ValueError, match="leave out dtype and card"):
        models.convert(model, tmp_path / "other", dtype="float16")


@pytest.fixture
def folder(geneformer_folders, tmp_path):
    return Path(shutil.copytree(geneformer_folders["v2"], tmp_path / "model"))


def edit(path, **changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def test_vocabulary_and_table_of_different_size(folder, geneformer_folders, files):
    tokens = json.loads((folder / "token_dictionary.json").read_text())
    medians = folder / "gene_median_dictionary.json"
    with pytest.raises(ValueError, match="token dictionary has 66 entries up to 65, the network a table of 65"):
        models.load_geneformer(folder, tokens=tokens | {"ENSG1": 65}, medians=medians)
    with pytest.raises(ValueError, match="has 65 entries up to 99, the network a table of 65"):
        models.load_geneformer(folder, tokens=tokens | {"ENSG00000067214": 99}, medians=medians)
    shutil.copy(files / "token_dictionary_v1.json", folder / "token_dictionary.json")
    with pytest.raises(ValueError, match=r"no token dictionaries with 65 entries.*those found have \{.*63\}"):
        models.load_geneformer(folder)
    edit(folder / "config.json", vocab_size=63)
    with pytest.raises(ValueError, match=r"does not fit config.json.*size mismatch"):
        models.load_geneformer(folder)


def test_dictionaries_that_do_not_decide(folder, files):
    shutil.copy(files / "gene_median_dictionary_ties.json", folder / "gene_median_dictionary_ties.json")
    with pytest.raises(ValueError, match=r"one dictionary of medians.*tokens=..., medians="):
        models.load_geneformer(folder)
    model = models.load_geneformer(folder, medians=folder / "gene_median_dictionary.json", device="cpu")
    assert model.vocabulary.renamed is not None


def test_code_in_a_dictionary_is_not_run(folder, tmp_path):
    class Touches:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "victim",))

    (folder / "token_dictionary.json").unlink()
    (folder / "token_dictionary.pkl").write_bytes(pickle.dumps({"<pad>": Touches()}))
    with pytest.raises(ValueError, match="possibly code; it was not run"):
        models.load_geneformer(folder)
    assert not (tmp_path / "victim").exists()


def test_configuration_cannot_bring_code(folder, load, counts):
    edit(
        folder / "config.json",
        auto_map={"AutoModel": "model.Hostile"},
        _attn_implementation="someone/kernel",
        quantization_config={"quant_method": "other"},
    )
    (folder / "model.py").write_text("raise SystemExit")
    model = models.load_geneformer(folder, device="cpu")
    torch.testing.assert_close(model.encode(counts("v2")).pooled, load("v2").encode(counts("v2")).pooled)


def _without(name):
    return lambda folder: (folder / name).unlink()


def _weights(change):
    def apply(folder):
        save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")

    return apply


BAD_FILES = {
    "no weights": (_without("model.safetensors"), "the weights of the model is not at"),
    "pickled weights": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "as safetensors",
    ),
    "damaged weights": (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 80), "is damaged"),
    "a tensor less": (
        _weights(lambda state: {k: v for k, v in state.items() if not k.endswith("layer.1.output.dense.weight")}),
        "is not a masked-gene model: 1 tensors are absent or unknown, such as bert.encoder",
    ),
    "a tensor more": (_weights(lambda state: state | {"classifier.weight": torch.ones(2)}), "such as classifier"),
    "no configuration": (_without("config.json"), "the configuration of the model is not at"),
    "another network": (lambda folder: edit(folder / "config.json", model_type="llama"), "describes a 'llama'"),
    "sizes not stated": (lambda folder: edit(folder / "config.json", hidden_size=None), "does not state"),
    "no tokens": (_without("token_dictionary.json"), "no token dictionaries with 65 entries"),
    "no medians": (_without("gene_median_dictionary.json"), "stand with one dictionary of medians"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(folder, case):
    break_it, match = BAD_FILES[case]
    break_it(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        models.load_geneformer(folder)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"emb_layer": 1}, "emb_layer is 0 for the last layer.*found 1"),
        ({"emb_layer": -3}, "emb_layer is 0 for the last layer"),
        ({"quantize": "2bit"}, "quantize must be '8bit', '4bit' or None"),
    ],
)
def test_bad_options(folder, options, match):
    with pytest.raises(ValueError, match=match):
        models.load_geneformer(folder, **options)


@pytest.mark.parametrize(("quantize", "cosine", "dtype"), [("8bit", 0.999, torch.int8), ("4bit", 0.9, torch.uint8)])
def test_quantized_networks(wide_geneformer, counts, quantize, cosine, dtype, tmp_path):
    pytest.importorskip("bitsandbytes")
    plain = models.load_geneformer(wide_geneformer, device="cpu")
    model = models.load_geneformer(wide_geneformer, quantize=quantize, device="cpu")
    linear = model.network.bert.encoder.layer[0].intermediate.dense
    assert (model.precision, linear.weight.dtype, model.checksum) == (quantize, dtype, plain.checksum)
    values = counts("v2")[:4]
    found, exact = model.encode(values).pooled, plain.encode(values).pooled
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)
    assert (torch.cosine_similarity(found, exact) > cosine).all()
    torch.testing.assert_close(model.encode(values[2:]).pooled, found[2:], rtol=0, atol=0)
    with pytest.raises(ValueError, match=f"was loaded in {quantize}; load it without quantize= to write it"):
        models.convert(model, tmp_path / "written")


def test_what_quantized_loading_refuses(folder, monkeypatch):
    with pytest.raises(ValueError, match=r"works on 'cuda' and 'cpu', and the device is 'meta'; leave it out"):
        models.load_geneformer(folder, quantize="8bit", device="meta")
    with pytest.raises(ValueError, match=r"'4bit' needs widths that 64 divides, found \{'hidden_size': 32"):
        models.load_geneformer(folder, quantize="4bit", device="cpu")
    monkeypatch.setattr("bulkformer_tl._optional.find_spec", lambda name: None if name == "bitsandbytes" else name)
    with pytest.raises(ImportError, match=r"needs bitsandbytes: pip install \"bulkformer-tl\[quantized\]\""):
        models.load_geneformer(folder, quantize="4bit", device="cpu")


def test_without_transformers(folder, monkeypatch):
    monkeypatch.setattr("bulkformer_tl._optional.find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"Geneformer needs transformers: pip install \"bulkformer-tl\[geneformer\]\""
    ):
        models.load(folder)


def test_options_of_other_families(folder):
    with pytest.raises(ValueError, match="is a Geneformer, which has no graph"):
        models.load(f"geneformer:{folder}", mask_prob=0.1)


BAD_REQUESTS = {
    "output": ({"outputs": ("expression",)}, r"outputs must be a list of some of \['pooled', 'genes'\]"),
    "pooling": ({"pooling": "best"}, "pooling must be one of.*'cls'"),
    "cls of some genes": ({"pool_genes": [0]}, "pooling='cls' of .* with pool_genes pass pooling='mean'"),
    "absent gene": ({"genes": [61]}, "those of .* run from 0 to 60"),
    "unexpressed genes": ({"observed_only": False}, "vectors of expressed genes only"),
    "summary columns": ({"summary_columns": True}, "no summary columns and no protein table"),
    "layer": ({"emb_layer": 2}, "emb_layer is 0 for the last layer"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_requests(load, counts, case):
    options, match = BAD_REQUESTS[case]
    with pytest.raises(ValueError, match=match):
        load("v2").encode(counts("v2"), **options)


def test_bad_values(load, counts):
    model, x = load("v2"), counts("v2")
    for values, match in (
        (x[:, :5], r"needs \(N, 61\), counts of its genes"),
        (x - 1, "counts are not negative and finite"),
        (np.where(x > 1, np.inf, x), "counts are not negative and finite"),
        (np.where(np.arange(40)[:, None] == 2, np.nan, x), "above zero in row 2"),
    ):
        with pytest.raises(ValueError, match=match):
            model.encode(values)
    absent = np.flatnonzero(np.isnan(x[0]) | (x[0] == 0))
    with pytest.raises(ValueError, match="none of the genes to pool over has a token in row 0"):
        model.encode(x[:1], pooling="mean", pool_genes=absent)
    with pytest.raises(ValueError, match="has the layers 0 to 1"):
        next(model.attention(x, layer=2))


def test_bad_tokens(load):
    model = load("v2")
    for tokens, match in (
        ([], "takes lists of 1 to 64 tokens"),
        ([[]], "takes lists of 1 to 64 tokens"),
        ([[2] * 65], "takes lists of 1 to 64 tokens"),
        ([[2, 65, 3]], r"the tokens \[65\] are outside the vocabulary.*ends at 64"),
        ([[2, -1, 3]], "outside the vocabulary"),
    ):
        with pytest.raises(ValueError, match=match):
            model.token_vectors(tokens)


def test_state_vectors_are_checked():
    vectors = np.arange(8.0).reshape(4, 2)
    found = models.state_vectors(vectors, ["a"] * 4, statistic="median")
    assert found["a"].tolist() == [2.0, 3.0]
    with pytest.raises(ValueError, match=r"vectors are \(N, D\) and states \(N,\)"):
        models.state_vectors(vectors, ["a"])
    with pytest.raises(ValueError, match="statistic must be"):
        models.state_vectors(vectors, ["a"] * 4, statistic="mode")
