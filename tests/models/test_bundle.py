"""Bundles: round trip, verification, refusal to overwrite, nothing left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bulkformer_tl import models
from bulkformer_tl._vocabulary import load_vocabulary
from bulkformer_tl.models import _bundle
from bulkformer_tl.models._files import sha256

FILES = ["README.md", "config.json", "genes.csv", "graph.safetensors", "manifest.json", "model.safetensors"]


@pytest.fixture
def bundle(paper, tmp_path):
    model, _ = paper("a")
    return models.convert(model, tmp_path / "bundle")


def rewrite(folder, name, change):
    """Change a JSON file and, if the manifest lists it, its entry there."""
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    if name != "manifest.json":
        entry = {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        rewrite(folder, "manifest.json", lambda manifest: manifest["files"].update({name: entry}))


def flip(path, position=-5):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("family", ["g1", "g2", "g3"])
def test_round_trip_is_bit_equal(paper, preprint_files, golden, tmp_path, family):
    if family == "g1":
        model = models.load(**preprint_files, device="cpu")
    elif family == "g2":
        model, _ = paper("b", mask_prob=0.3)
    else:
        model = models.load(golden / "bulkformer_latest" / "bundle", device="cpu")
    again = models.load(models.convert(model, tmp_path / "new"), device="cpu")
    facts = ("name", "family", "denominator", "default_pooling", "pooling_observed_only", "trained_missing", "config")
    for name in facts:
        assert getattr(again, name) == getattr(model, name), name
    assert again.vocabulary.checksum == model.vocabulary.checksum
    assert all(torch.equal(a, b) for a, b in zip(again.graph, model.graph, strict=True))
    state = model.network.state_dict()
    assert {k: v.tolist() for k, v in again.network.state_dict().items()} == {k: v.tolist() for k, v in state.items()}
    x = np.random.default_rng(0).uniform(0, 9, (2, len(model.vocabulary))).astype(np.float32)
    x[0, ::5] = np.nan
    outputs = ("pooled", "genes", "expression")
    before, after = model.encode(x, outputs=outputs), again.encode(x, outputs=outputs)
    assert all(torch.equal(getattr(before, name), getattr(after, name)) for name in outputs)


def test_a_bundle_is_complete_and_holds_each_tensor_once(bundle, paper):
    model, _ = paper("a")
    assert sorted(path.name for path in bundle.iterdir()) == FILES
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["provenance"]["checksum"] == model.checksum
    for name, entry in manifest["files"].items():
        assert entry == {"bytes": (bundle / name).stat().st_size, "sha256": sha256(bundle / name)}
    again = models.load(bundle)
    assert not any("instance" in name for name in again.network.state_dict())
    assert again.checksum == manifest["files"]["model.safetensors"]["sha256"]
    assert "size and SHA-256 of every file of the bundle" in again.provenance["verified"]
    assert "Could not be verified" in (bundle / "README.md").read_text()


def test_genes_keep_symbols_and_lengths(golden, tmp_path):
    model = models.load(golden / "bulkformer_latest" / "bundle")
    folder = models.convert(model, tmp_path / "new", card="# A card")
    found = load_vocabulary(folder)
    assert found.symbols.tolist() == model.vocabulary.symbols.tolist()
    assert np.array_equal(found.lengths, model.vocabulary.lengths)
    assert (folder / "README.md").read_text() == "# A card"


def test_weights_lie_at_aligned_addresses(bundle):
    # else products round differently from those of the same weights in other files
    tensors = models.load(bundle).network.state_dict().values()
    assert {tensor.data_ptr() % 64 for tensor in tensors} == {0}


def test_half_precision_is_smaller_and_read_as_float32(paper, tmp_path):
    model, io = paper("a")
    folder = models.convert(model, tmp_path / "half", dtype="float16")
    full = models.convert(model, tmp_path / "full")
    assert (folder / "model.safetensors").stat().st_size < 0.6 * (full / "model.safetensors").stat().st_size
    again = models.load(folder)
    assert {p.dtype for p in again.network.parameters()} == {torch.float32}
    x = io["x"].masked_fill(io["x"] == -10, torch.nan)
    assert float((again.encode(x).pooled - model.encode(x).pooled).abs().max()) < 0.05


def test_an_occupied_folder_is_left_alone(paper, tmp_path):
    model, _ = paper("a")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="holds something already and is left as it is; choose a new folder"):
        models.convert(model, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="choose a new folder"):
        models.convert(model, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert sorted(path.name for path in models.convert(model, tmp_path / "empty").iterdir()) == FILES


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_conversion_leaves_nothing(paper, tmp_path, monkeypatch, error):
    model, _ = paper("a")

    def fail(*_args):
        raise error

    monkeypatch.setattr(_bundle, "_write_json", fail)
    with pytest.raises(type(error)):
        models.convert(model, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in FILES if name != "manifest.json"])
def test_changed_files_are_refused_before_they_are_read(bundle, name, monkeypatch):
    monkeypatch.setattr(_bundle, "read_tensors", lambda *_: pytest.fail("read before it was verified"))
    flip(bundle / name)
    with pytest.raises(ValueError, match=f"{name} has the SHA-256 .* it was changed or is another file"):
        models.load(bundle)


def test_a_truncated_file_is_refused(bundle):
    data = (bundle / "model.safetensors").read_bytes()
    (bundle / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"model.safetensors has [\d,]+ bytes instead of [\d,]+: it is incomplete"):
        models.load(bundle)


@pytest.mark.parametrize("name", FILES)
def test_an_absent_file_is_named(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"is not at .*{name}"):
        models.load(bundle)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "sub/../../outside", "extra.bin"])
def test_a_manifest_cannot_name_other_files(bundle, name):
    (bundle.parent / "outside").write_text("secret")
    rewrite(bundle, "manifest.json", lambda m: m["files"].update({name: {"bytes": 6, "sha256": "0" * 64}}))
    with pytest.raises(ValueError, match="expected exactly"):
        models.load(bundle)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("manifest.json", lambda c: c.update(format="other 9"), "is of the format 'other 9'; this version reads"),
        ("manifest.json", lambda c: c.update(files=3), "lists the files 3; expected exactly"),
        (
            "manifest.json",
            lambda c: c["files"].update({"genes.csv": {}}),
            "does not state the bytes and sha256 of genes.csv",
        ),
        ("config.json", lambda c: c.pop("denominator"), r"lacks \['denominator'\]"),
        ("config.json", lambda c: c.update(input_unit="counts"), "is not for 'log_tpm'"),
        ("config.json", lambda c: c.update(family="g1"), "unknown fields|does not fit"),
        ("config.json", lambda c: c["network"].update(dim=16), r"has shape .* instead of"),
        (
            "config.json",
            lambda c: c["network"].update(n_performers=2),
            "does not fit a 'g2' network: 18 tensors are missing",
        ),
    ],
)
def test_bundles_that_do_not_fit_together(bundle, file, change, message):
    rewrite(bundle, file, change)
    with pytest.raises(ValueError, match=message):
        models.load(bundle)


def test_genes_of_another_model(bundle):
    table = pd.read_csv(bundle / "genes.csv")
    pd.concat([table, pd.DataFrame({"ensembl_id": ["35991"]})]).to_csv(bundle / "genes.csv", index=False)
    entry = {"bytes": (bundle / "genes.csv").stat().st_size, "sha256": sha256(bundle / "genes.csv")}
    rewrite(bundle, "manifest.json", lambda manifest: manifest["files"].update({"genes.csv": entry}))
    with pytest.raises(ValueError, match="lists 65 genes, but the network has 64"):
        models.load(bundle)


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[1]", "should hold a JSON object, found list")])
def test_a_manifest_that_is_none(bundle, text, message):
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        models.load(bundle)


def test_a_bundle_takes_no_other_graph(bundle):
    with pytest.raises(ValueError, match=r"has its own graph and genes; leave out \['genes'\]"):
        models.load(bundle, genes=bundle / "genes.csv")


def test_an_unknown_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"is neither a bundle .* it holds \['notes.txt'\]"):
        models.load(tmp_path)


def test_a_bundle_can_be_moved(bundle, paper, values, tmp_path):
    model, _ = paper("a")
    moved = shutil.move(bundle, tmp_path / "elsewhere")
    assert torch.equal(models.load(moved).encode(values).pooled, model.encode(values).pooled)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not tell what is mapped")
def test_weights_stay_in_the_file_and_the_file_as_it_is(paper, bundle):
    path = bundle / "model.safetensors"
    before = path.read_bytes()
    state = models.load(bundle, device="cpu").network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in paper("a")[0].network.state_dict().items())
    assert all(tensor.data_ptr() % 64 == 0 for tensor in state.values())
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]
    regions = [[int(end, 16) for end in line[0].split("-")] for line in lines]
    mapped = [t for t in state.values() if any(start <= t.data_ptr() < end for start, end in regions)]
    # those behind a tensor of an odd size are copied
    assert sum(t.nbytes for t in mapped) > sum(t.nbytes for t in state.values()) / 2
    for tensor in mapped:
        tensor.zero_()
    assert path.read_bytes() == before
