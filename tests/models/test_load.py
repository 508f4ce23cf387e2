"""The authors' own files: what loads, what is refused, and what is said."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from bulkformer_tl import models, registry, settings
from bulkformer_tl.models._files import sha256

SIX = ["edge_index.pt", "edge_weight.pt", "gene_vocab.csv", "manifest.json", "model.pt", "model_config.json"]


@pytest.fixture
def six(golden, tmp_path):
    """A copy of the golden six-file folder to damage."""
    return shutil.copytree(golden / "bulkformer_latest" / "bundle", tmp_path / "latest", copy_function=copy_writable)


def copy_writable(source, target):
    shutil.copyfile(source, target)
    return target


@pytest.fixture
def arguments(paper_files, tmp_path):
    """Arguments of ``load`` for golden config A, with a copy of each file to damage."""
    given = paper_files["a"]["arguments"]
    return {
        "source": copy_writable(given["source"], tmp_path / "weights.pt"),
        "graph": tuple(copy_writable(path, tmp_path / path.name) for path in given["graph"]),
        "genes": copy_writable(given["genes"], tmp_path / "genes.csv"),
    }


def change_state(path, change):
    torch.save(change(torch.load(path, weights_only=True)), path)


def without(state, name):
    return {key: tensor for key, tensor in state.items() if key != name}


def list_again(folder, *names):
    """Make the manifest of a six-file folder agree with changed files."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in names:
        manifest["files"][name] = {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


class Hostile:
    """Pickles to a call that leaves a trace."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return (open, (self.trace, "w"))


# what loads


def test_prefix_and_doubled_tensors(golden, paper_files):
    arguments = paper_files["a"]["arguments"]
    prefixed = models.load(**arguments)
    plain = models.load(**(arguments | {"source": golden / "config_a_weights.safetensors"}))
    first, second = prefixed.network.state_dict(), plain.network.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    saved = load_file(golden / "config_a_weights.safetensors")
    assert {name for name in saved if "instance" not in name} == set(first)


def test_sizes_are_read_from_shapes(paper, preprint_files):
    for letter, expected in (("a", (64, 32, 4, 1, 1)), ("b", (300, 64, 8, 3, 1))):
        config = paper(letter)[0].config
        assert (config.n_genes, config.dim, config.heads, config.n_performers, config.n_blocks) == expected
    config = models.load(**preprint_files).config
    assert (config.n_genes, config.dim, config.protein_dim, config.heads) == (96, 32, 20, 4)
    assert (config.n_performers, config.n_blocks) == (2, 3)


def test_loading_leaves_the_random_state_alone(paper):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    paper("a")
    assert torch.equal(torch.rand(1), expected)


def test_provenance_says_what_could_not_be_verified(paper, golden):
    model, _ = paper("a")
    assert model.checksum == sha256(golden / "config_a_dataparallel.pt")
    assert "SHA-256 of config_a_dataparallel.pt: none is published" in model.provenance["unverified"]
    latest = models.load(golden / "bulkformer_latest" / "bundle")
    assert latest.checksum == sha256(golden / "bulkformer_latest" / "bundle" / "model.pt")
    assert latest.provenance["unverified"] == ["the manifest is not that of the public release of bulkformer-latest"]
    assert latest.provenance["checkpoint"]["checkpoint_id"] == "tiny-shared-seed20261"
    assert (latest.denominator, latest.pooling_observed_only, latest.trained_missing) == (
        "vocabulary",
        True,
        (0.05, 0.15),
    )


def test_importing_models_loads_no_layers_and_no_plots():
    code = (
        "import sys; import bulkformer_tl.models as m; assert m.load and 'torch' in sys.modules; "
        "bad = {'torch_geometric', 'performer_pytorch', 'matplotlib.pyplot', 'scanpy'} & set(sys.modules); "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_exports():
    assert models.__all__ == sorted(models.__all__)
    assert models.available() == registry.available()
    assert {"bulkformer-preprint", "bulkformer-147M", "bulkformer-latest", "bulkformer-mini"} <= set(models.available())


# names


def test_unknown_names_and_paths(tmp_path):
    with pytest.raises(ValueError, match="no file, folder or model is called 'bulkformer-1T'; the models are"):
        models.load("bulkformer-1T")
    with pytest.raises(
        FileNotFoundError, match=r"there is no file or folder .*weights.pt; the models known by name are"
    ):
        models.load(tmp_path / "weights.pt")


def test_a_model_that_is_not_here_says_where_to_get_it(tmp_path):
    with (
        settings.override(cache_dir=tmp_path),
        pytest.raises(FileNotFoundError, match=r"Get model.pt, .* from https://drive.google.com"),
    ):
        models.load("bulkformer-latest")


@pytest.fixture
def cached(tmp_path, arguments, monkeypatch):
    """Golden config A as the registry's 37M model in the cache."""
    folder = tmp_path / "cache" / "models" / "bulkformer-37M"
    folder.mkdir(parents=True)
    shutil.move(arguments["source"], folder / "bulkformer_37M.pt")
    shutil.move(arguments["graph"][0], folder / "G_tcga.pt")
    shutil.move(arguments["graph"][1], folder / "G_tcga_weight.pt")
    shutil.move(arguments["genes"], folder / "bulkformer_gene_info.csv")
    known = registry.info("bulkformer-37M")
    sizes = {"n_genes": 64, "width": 32}
    small = type(known)(**{**{name: getattr(known, name) for name in known.__dataclass_fields__}, **sizes})
    monkeypatch.setattr(registry, "info", lambda name: small if name == "bulkformer-37M" else known)
    with settings.override(cache_dir=tmp_path / "cache"):
        yield folder, monkeypatch, known


def test_a_registered_model_in_the_cache(cached, paper, values):
    model = models.load("bulkformer-37M")
    assert (model.name, model.family) == ("bulkformer-37M", "g2")
    assert torch.equal(model.encode(values).pooled, paper("a")[0].encode(values).pooled)


def test_a_registered_model_with_a_file_absent(cached):
    folder, *_ = cached
    (folder / "G_tcga_weight.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"graph_weight file of bulkformer-37M is not at .*zenodo.15744294"):
        models.load("bulkformer-37M")


def test_an_incomplete_release_says_which_file_is_absent(six, tmp_path):
    folder = tmp_path / "cache" / "models" / "bulkformer-latest"
    folder.parent.mkdir(parents=True)
    shutil.move(six, folder)
    (folder / "model.pt").unlink()
    with (
        settings.override(cache_dir=tmp_path / "cache"),
        pytest.raises(
            FileNotFoundError, match=r"the weights file of bulkformer-latest is not at .*; get it from https"
        ),
    ):
        models.load("bulkformer-latest")


@pytest.mark.parametrize("name", [name for name in registry.available() if name != "bulkformer-mini"])
def test_the_registry_lists_what_loading_needs(name):
    known = registry.info(name)
    roles = [file["role"] for file in known.files]
    assert {"weights", "graph", "graph_weight", "genes"} <= set(roles)
    assert len(roles) == len(set(roles))
    for file in known.files:
        assert file["sha256"] is None or len(bytes.fromhex(file["sha256"])) == 32
        assert file["url"] is None or file["url"].startswith("https://")
    assert known.source
    assert known.licence


def test_a_registered_model_of_other_sizes(cached):
    _, monkeypatch, known = cached
    monkeypatch.setattr(registry, "info", lambda _name: known)
    with pytest.raises(
        ValueError, match=r"is not bulkformer-37M: .* 64 genes and width 32, expected 'g2', 20,010 and 128"
    ):
        models.load("bulkformer-37M")


def test_the_public_release_is_held_to_its_published_hashes(six, tmp_path):
    folder = tmp_path / "cache" / "models" / "bulkformer-latest"
    folder.parent.mkdir(parents=True)
    shutil.move(six, folder)
    with (
        settings.override(cache_dir=tmp_path / "cache"),
        pytest.raises(ValueError, match=r"model.pt has [0-9,]+ bytes instead of 406,165,934"),
    ):
        models.load("bulkformer-latest")


# checkpoints that are refused


def test_a_checkpoint_alone(arguments):
    with pytest.raises(ValueError, match=r"is only a checkpoint; pass also graph= and genes=: .*zenodo"):
        models.load(arguments["source"])
    with pytest.raises(ValueError, match="pass also genes="):
        models.load(arguments["source"], graph=arguments["graph"])


def test_an_absent_graph(arguments):
    arguments["graph"][1].unlink()
    with pytest.raises(FileNotFoundError, match=r"the graph_weight file is not at .*; get it from https://doi.org"):
        models.load(**arguments)


def test_mask_prob_is_for_the_second_generation(arguments, golden):
    with pytest.raises(ValueError, match="takes no mask_prob, only the second generation does"):
        models.load(golden / "bulkformer_latest" / "bundle", mask_prob=0.1)
    with pytest.raises(ValueError, match="mask_prob is a share between 0 and 1, found 15"):
        models.load(**arguments, mask_prob=15)


def test_genes_file_with_an_extra_row(arguments):
    table = pd.read_csv(arguments["genes"])
    pd.concat([table, pd.DataFrame({"ensg_id": ["35991"]})]).to_csv(arguments["genes"], index=False)
    with pytest.raises(ValueError, match="lists 65 genes, but the network has 64; they do not belong together"):
        models.load(**arguments)


@pytest.mark.parametrize(
    ("position", "change", "message"),
    [
        (0, lambda g: g + 30, r"the graph names gene \d+ .* but the network has 64 genes; it belongs to another model"),
        (0, lambda g: g - 1, r"lowest -1"),
        (0, lambda g: g.float(), r"the graph's edges must be integers of shape \(2, E\), found torch.float32"),
        (0, lambda g: g.T.contiguous(), "the graph's edges must be integers"),
        (1, lambda w: -w, "weights must be finite and not negative, found -"),
        (1, lambda w: w * torch.nan, "weights must be finite and not negative"),
        (1, lambda w: w[:-1], "one for each of 283 edges"),
        (1, lambda w: {"weight": w}, "should hold the graph's weights as one tensor, found dict"),
    ],
)
def test_graphs_that_do_not_belong(arguments, position, change, message):
    path = arguments["graph"][position]
    torch.save(change(torch.load(path, weights_only=True)), path)
    with pytest.raises(ValueError, match=message):
        models.load(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "module.head.3.bias"), r"1 tensors are missing \['head.3.bias'\]"),
        (lambda s: {**s, "module.extra": torch.ones(1)}, r"1 unknown \['extra'\]; it is of another generation"),
        (lambda s: {**s, "module.head.3.bias": torch.ones(2)}, r"head.3.bias has shape \(2,\) instead of \(1,\)"),
        (lambda s: {**s, "module.head.3.bias": torch.ones(1).int()}, r"head.3.bias is of torch.int32 instead of"),
        (lambda s: without(s, "module.layernorm.weight"), "looks like family 'g2' but lacks 'layernorm.weight'"),
        (lambda _: {"weight": torch.ones(2, 2)}, "is of none of the published generations: it has 1 entries"),
        (lambda _: {"epoch": 3}, "does not hold a state dict"),
        (lambda _: torch.ones(3), "does not hold a state dict .* found Tensor"),
    ],
)
def test_state_dicts_that_do_not_fit(arguments, change, message):
    change_state(arguments["source"], change)
    with pytest.raises(ValueError, match=message):
        models.load(**arguments)


def test_doubled_tensors_that_differ(arguments):
    name = "module.gb_formers.0.f.0.proj_updater.instance.layers.0.0.norm.bias"
    change_state(arguments["source"], lambda s: {**s, name: s[name] + 1})
    with pytest.raises(ValueError, match=r"instance.layers.0.0.norm.bias twice with different values"):
        models.load(**arguments)


def test_a_checkpoint_of_the_third_generation(arguments, golden):
    state = torch.load(golden / "bulkformer_latest" / "bundle" / "model.pt", weights_only=True)["model"]
    torch.save(state, arguments["source"])
    with pytest.raises(
        ValueError, match=r"is a checkpoint of bulkformer-latest; .* Pass the folder with its six files"
    ):
        models.load(**arguments)


def test_weights_of_one_generation_with_files_of_another(arguments, preprint_files):
    with pytest.raises(ValueError, match="lists 64 genes, but the network has 96"):
        models.load(**(preprint_files | {"genes": arguments["genes"]}))
    with pytest.raises(ValueError, match=r"the graph names gene 95 .* but the network has 64 genes"):
        models.load(**(arguments | {"graph": preprint_files["graph"]}))


# damaged and hostile files


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_checkpoints(arguments, share):
    data = arguments["source"].read_bytes()
    arguments["source"].write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="is damaged"):
        models.load(**arguments)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_flipped_bits(arguments, share):
    data = bytearray(arguments["source"].read_bytes())
    data[int(share * len(data))] ^= 16
    arguments["source"].write_bytes(bytes(data))
    with pytest.raises(ValueError, match="is damaged"):
        models.load(**arguments)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("role", ["source", "graph"])
def test_code_in_a_pickle_does_not_run(arguments, tmp_path, legacy, role):
    trace = tmp_path / "trace"
    path = arguments["source"] if role == "source" else arguments["graph"][0]
    torch.save({"a": Hostile(trace)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match="holds more than tensors, possibly code; it was not run"):
        models.load(**arguments)
    path.write_bytes(pickle.dumps(Hostile(trace)))
    with pytest.raises(ValueError, match="is damaged or"):
        models.load(**arguments)
    assert not trace.exists()


def test_damaged_safetensors(arguments, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00nonsense")
    with pytest.raises(ValueError, match=r"weights.safetensors is damaged"):
        models.load(**(arguments | {"source": path}))


# the six-file folder


@pytest.mark.parametrize("name", [name for name in SIX if name != "manifest.json"])
def test_six_files_are_compared_with_the_manifest(six, name, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_a, **_k: pytest.fail("read before it was verified"))
    data = bytearray((six / name).read_bytes())
    data[len(data) // 2] ^= 1
    (six / name).write_bytes(bytes(data))
    with pytest.raises(ValueError, match=f"{name} has the SHA-256"):
        models.load(six)
    (six / name).write_bytes(bytes(data[:-1]))
    with pytest.raises(ValueError, match=f"{name} has [0-9,]+ bytes instead of"):
        models.load(six)


@pytest.mark.parametrize("name", ["edge_index.pt", "gene_vocab.csv", "manifest.json", "model.pt"])
def test_six_files_with_one_absent(six, name):
    (six / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"is not at .*{name}"):
        models.load(six)


def test_six_files_cannot_name_others(six):
    manifest = json.loads((six / "manifest.json").read_text())
    manifest["files"]["../outside.pt"] = manifest["files"].pop("model.pt")
    (six / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="expected exactly"):
        models.load(six)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(architecture="Other-v2"), "is of the architecture .*only BulkFormerV1Plus-v1 is known"),
        (lambda m: m.update(trainable_parameters=7), "has 30,434 parameters, but the manifest says 7"),
        (lambda m: m["checkpoint_metadata"].update(epoch=3), "they are of different releases"),
        (lambda m: m.pop("checkpoint_metadata") and None, "is incomplete"),
    ],
)
def test_six_files_whose_manifest_disagrees(six, change, message):
    manifest = json.loads((six / "manifest.json").read_text())
    change(manifest)
    (six / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=message):
        models.load(six)


@pytest.mark.parametrize(
    ("entry", "value", "both", "message"),
    [
        ("depth", 3, False, "describe different networks"),
        ("depth", 3, True, "does not fit a 'g3' network: 17 tensors are missing"),
        ("mask_value", -1.0, True, "asks for mask_value=-1.0"),
        ("fix_performer_projection_matrices", False, True, "fix_performer_projection_matrices=False"),
        ("rotary", 1, True, r"unknown fields \['rotary'\]"),
    ],
)
def test_six_files_whose_configuration_disagrees(six, entry, value, both, message):
    described = json.loads((six / "model_config.json").read_text())
    described["model"][entry] = value
    (six / "model_config.json").write_text(json.dumps(described))
    if both:
        change_state(six / "model.pt", lambda c: {**c, "model_config": {**c["model_config"], entry: value}})
    list_again(six, "model_config.json", "model.pt")
    with pytest.raises(ValueError, match=message):
        models.load(six)


def test_six_files_with_another_generations_checkpoint(six, golden):
    copy_writable(golden / "config_a_dataparallel.pt", six / "model.pt")
    list_again(six, "model.pt")
    with pytest.raises(ValueError, match="it is a checkpoint of another generation"):
        models.load(six)


def test_six_files_with_genes_out_of_order(six):
    table = pd.read_csv(six / "gene_vocab.csv")
    table.iloc[::-1].to_csv(six / "gene_vocab.csv", index=False)
    list_again(six, "gene_vocab.csv")
    with pytest.raises(ValueError, match="its column vocab_index does not count from 0 upwards"):
        models.load(six)


def test_six_files_take_no_other_graph(six, arguments):
    with pytest.raises(ValueError, match=r"has its own graph and genes; leave out \['graph', 'graph_weight'\]"):
        models.load(six, graph=arguments["graph"])
